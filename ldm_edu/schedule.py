"""The noise schedule: how much signal is left after t steps of noising.

Forward process, DDPM (Ho et al. 2020, arXiv 2006.11239), eq. 2 and 4:

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    q(x_t | x_0)     = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)

t runs from 1 to T; t = 0 is clean, so `alpha_bar` has T + 1 entries and `alpha_bar[0] = 1`.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ldm_edu.errors import InputError

Kind = Literal["linear", "scaled_linear", "cosine"]
Spacing = Literal["trailing", "leading"]
# DDPM section 4; LDM section A / Stable Diffusion v1; the cosine has no end points
_ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (None, None)}


@dataclass(frozen=True)
class NoiseSchedule:
    """Beta, alpha_bar and SNR of a diffusion of `T` steps, in float64.

    kind: "linear" (DDPM: linear in beta), "scaled_linear" (LDM and Stable Diffusion: linear in
        sqrt(beta)) or "cosine" (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17).
    T: number of steps, at least 1.
    beta_start, beta_end: first and last beta of the two linear kinds, in (0, 1); the defaults
        are DDPM's and Stable Diffusion's. The cosine takes none.

    Raises InputError for an unknown kind, T < 1, or ends that are out of range.
    """

    kind: Kind = "cosine"
    T: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None

    def __post_init__(self):
        if self.kind not in _ENDS:
            raise InputError(
                f"schedule kind {self.kind!r} is unknown; use one of {sorted(_ENDS)}"
            )
        if not isinstance(self.T, int) or self.T < 1:
            raise InputError(f"T must be an integer of at least 1, found {self.T!r}")
        given = (self.beta_start, self.beta_end)
        if self.kind == "cosine":
            if given != (None, None):
                raise InputError("the cosine schedule takes no beta_start or beta_end")
            return
        for name, value, default in zip(
            ("beta_start", "beta_end"), given, _ENDS[self.kind], strict=True
        ):
            value = default if value is None else value
            if not 0 < value < 1:
                raise InputError(f"{name} must lie in (0, 1), found {value}")
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict:
        """Arguments that make this schedule again, JSON-able."""
        return asdict(self)

    @cached_property
    def beta(self) -> Tensor:
        """Variance added at each step, (T + 1,) float64; beta[0] = 0: t = 0 adds nothing."""
        if self.kind == "cosine":
            u = torch.arange(self.T + 1, dtype=torch.float64) / self.T
            f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
            beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)  # Nichol & Dhariwal sec. 3.2
        elif self.kind == "linear":
            beta = torch.linspace(self.beta_start, self.beta_end, self.T, dtype=torch.float64)
        else:
            ends = self.beta_start**0.5, self.beta_end**0.5
            beta = torch.linspace(*ends, self.T, dtype=torch.float64) ** 2
        return torch.cat([beta.new_zeros(1), beta])

    @cached_property
    def alpha_bar(self) -> Tensor:
        """Share of the signal's variance left at t, (T + 1,) float64, from 1 down."""
        return torch.cumprod(1 - self.beta, dim=0)

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), (T + 1,); infinite at t = 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def signal(self, t: Tensor | int, like: Tensor) -> Tensor:
        """sqrt(alpha_bar_t), (B, 1, ...) or (), to scale `like`; in its dtype and device.

        Raises InputError for an int t outside {0..T}; tensors are checked by `diffusion`, once.
        """
        return _gather(self.alpha_bar.sqrt(), t, like)

    def noise(self, t: Tensor | int, like: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar_t), shaped as `signal`."""
        return _gather((1 - self.alpha_bar).sqrt(), t, like)

    def timesteps(
        self, steps: int, spacing: Spacing = "trailing", offset: int = 0, lowest: int = 0
    ) -> list[int]:
        """The `steps` noise levels that a sampler visits, from noisy to nearly clean.

        "trailing" ends the grid at T (Lin et al. 2023, arXiv 2305.08891), "leading" starts it
        at 1 (DDIM). 10 of 1000: [1000, 900, ..., 100] or [901, 801, ..., 1]. `offset` moves
        the whole grid: Stable Diffusion's is leading, moved by 1. `lowest` packs it into
        {lowest + 1..T}: with 100, 9 of 1000 are [1000, 900, ..., 200].
        Raises InputError unless 0 <= lowest < T, 1 <= steps <= T - lowest, and all levels lie
        in {1..T}.
        """
        if not isinstance(lowest, int) or not 0 <= lowest < self.T:
            raise InputError(
                f"lowest must be an integer from 0 to T - 1 = {self.T - 1}, found {lowest!r}"
            )
        room = self.T - lowest
        if not isinstance(steps, int) or not 1 <= steps <= room:
            above = f" - lowest = {room}" if lowest else f" = {room}"
            raise InputError(f"steps must be an integer from 1 to T{above}, found {steps!r}")
        if spacing == "trailing":
            levels = [lowest + round(room * (steps - i) / steps) for i in range(steps)]
        elif spacing == "leading":
            levels = [lowest + (steps - 1 - i) * (room // steps) + 1 for i in range(steps)]
        else:
            raise InputError(f"spacing must be 'trailing' or 'leading', found {spacing!r}")
        if levels[0] + offset > self.T or levels[-1] + offset < 1:
            raise InputError(
                f"{steps} levels from {levels[0]} to {levels[-1]}, moved by the offset "
                f"{offset}, leave {{1..{self.T}}}: take fewer steps or another offset"
            )
        return [level + offset for level in levels]


@dataclass(frozen=True)
class Grid:
    """The levels that a model is sampled at; the defaults are those of this course.

    spacing, offset, lowest: of `NoiseSchedule.timesteps`.
    final: the level that the last step lands on, and that is taken for clean. 0 is clean.

    Raises InputError for an unknown spacing, or a negative or fractional final or lowest level.
    """

    spacing: Spacing = "trailing"
    offset: int = 0
    final: int = 0
    lowest: int = 0

    def __post_init__(self):
        if self.spacing not in ("trailing", "leading"):
            raise InputError(f"spacing must be 'trailing' or 'leading', found {self.spacing!r}")
        if not isinstance(self.offset, int):
            raise InputError(f"offset must be an integer, found {self.offset!r}")
        for name, level in (("final", self.final), ("lowest", self.lowest)):
            if not isinstance(level, int) or level < 0:
                raise InputError(f"{name} must be an integer of at least 0, found {level!r}")

    def to_dict(self) -> dict:
        """Arguments that make this grid again, JSON-able."""
        return asdict(self)


def _gather(table: Tensor, t: Tensor | int, like: Tensor) -> Tensor:
    table = table.to(like.dtype).to(like.device)  # the dtype first: MPS has no float64
    if isinstance(t, int):
        if not 0 <= t < len(table):
            raise InputError(f"t must lie in {{0..{len(table) - 1}}}, found {t}")
        return table[t]
    return table[t].view(-1, *[1] * (like.ndim - 1))  # (B, 1, ...)
