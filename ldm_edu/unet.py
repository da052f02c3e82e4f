"""The denoiser: a U-Net with residual blocks, attention and time, Stable Diffusion v1's own.

With `UNetConfig.stable_diffusion_v1()` it has 859,520,964 parameters and holds the published
weights; with small numbers the same class trains in minutes on an 8x8 latent.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu.errors import InputError, require_sizes
from ldm_edu.layers import (
    Downsample,
    ResBlock,
    SpatialTransformer,
    TimeEmbedding,
    Upsample,
    zero_init,
)


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a UNet. Raises InputError if they do not fit together."""

    in_channels: int = 4  # of z_t
    out_channels: int = 4  # of the prediction
    channels: tuple[int, ...] = (64, 128)  # a width a level; each level halves H and W
    blocks: int = 2  # residual blocks a level on the way down, one more on the way up
    attention: tuple[bool, ...] = (True, True)  # a level: attention after each residual block?
    heads: int = 4
    context_dim: int | None = None  # D of the context; None leaves cross-attention out
    depth: int = 1  # transformer blocks in each attention
    groups: int = 32  # of the group norms
    dropout: float = 0.0
    time_shift: int = 0  # added to t: -1 for weights that know our t as t - 1
    coordinates: bool = False  # tell each position where it is; else it has the borders only

    def __post_init__(self):
        for name in ("channels", "attention"):  # JSON has only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.attention) != len(self.channels):
            raise InputError(
                f"attention {self.attention} and channels {self.channels} differ in length"
            )
        sizes = "in_channels", "out_channels", "channels", "blocks", "heads", "depth", "groups"
        require_sizes(self, *sizes)
        for c in self.channels:
            if c % self.groups or c % self.heads or c % 2:
                parts = f"groups = {self.groups} and heads = {self.heads}"
                raise InputError(f"channels {c} must divide into {parts}")

    @classmethod
    def stable_diffusion_v1(cls) -> "UNetConfig":
        """The published model's sizes."""
        return cls(
            channels=(320, 640, 1280, 1280),
            attention=(True, True, True, False),
            heads=8,
            context_dim=768,
            time_shift=-1,
        )

    def to_dict(self) -> dict:
        return asdict(self)


class _Level(nn.Module):
    """Residual blocks with optional attention after each, then a change of resolution."""

    def __init__(self, res: list, attention: list, resample: nn.Module | None):
        super().__init__()
        self.res = nn.ModuleList(res)
        self.attention = nn.ModuleList(attention)
        self.resample = resample

    def block(self, i: int, h: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        h = self.res[i](h, time)
        return self.attention[i](h, context) if self.attention else h


class UNet(nn.Module):
    """Predict eps, x0 or v from z_t: UNet(z_t, t, context) -> (B, out_channels, H, W)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        time_dim, wide = 4 * c.channels[0], c.channels[-1]

        def res(i: int, o: int) -> ResBlock:
            return ResBlock(i, o, time_dim, c.groups, dropout=c.dropout)

        def attend(n: int, width: int) -> list[SpatialTransformer]:
            args = width, c.heads, c.context_dim, c.depth, c.groups
            return [SpatialTransformer(*args) for _ in range(n)]

        self.time = TimeEmbedding(c.channels[0])
        self.conv_in = nn.Conv2d(c.in_channels + 2 * c.coordinates, c.channels[0], 3, padding=1)

        self.down, skips, last = nn.ModuleList(), [c.channels[0]], len(c.channels) - 1
        width = c.channels[0]
        for level, out in enumerate(c.channels):
            blocks = [res(width if j == 0 else out, out) for j in range(c.blocks)]
            attention = attend(c.blocks, out) if c.attention[level] else []
            down = Downsample(out) if level < last else None
            self.down.append(_Level(blocks, attention, down))
            skips += [out] * (c.blocks + (level < last))
            width = out

        self.middle = _Level([res(wide, wide), res(wide, wide)], attend(1, wide), None)

        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(c.channels))):
            blocks = [
                res((width if j == 0 else out) + skips.pop(), out) for j in range(c.blocks + 1)
            ]
            attention = attend(c.blocks + 1, out) if c.attention[level] else []
            self.up.append(_Level(blocks, attention, Upsample(out) if level > 0 else None))
            width = out

        self.norm_out = nn.GroupNorm(c.groups, width)
        self.conv_out = zero_init(nn.Conv2d(width, c.out_channels, 3, padding=1))

    def forward(self, z_t: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """z_t (B, in_channels, H, W), t (B,) int64, context (B, N, context_dim) or None.

        H and W must halve evenly once a level. Raises InputError for other shapes.
        """
        self._check(z_t, t, context)
        time = F.silu(self.time(t + self.config.time_shift))  # (B, 4 channels[0])
        h = self.conv_in(_placed(z_t) if self.config.coordinates else z_t)
        skips = [h]
        for level in self.down:
            for i in range(len(level.res)):
                h = level.block(i, h, time, context)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)

        h = self.middle.block(0, h, time, context)
        h = self.middle.res[1](h, time)

        for level in self.up:
            for i in range(len(level.res)):
                h = level.block(i, torch.cat([h, skips.pop()], dim=1), time, context)
            if level.resample is not None:
                h = level.resample(h)
        return self.conv_out(F.silu(self.norm_out(h)))

    def _check(self, z_t: Tensor, t: Tensor, context: Tensor | None) -> None:
        c, shape = self.config, tuple(z_t.shape)
        fold = 2 ** (len(c.channels) - 1)
        if z_t.ndim != 4 or shape[1] != c.in_channels or shape[2] % fold or shape[3] % fold:
            want = f"(B, {c.in_channels}, H, W) with H and W divisible by {fold}"
            raise InputError(f"z_t must be {want}, found {shape}")
        if t.shape != z_t.shape[:1]:
            raise InputError(f"t must have shape ({shape[0]},), found {tuple(t.shape)}")
        if (context is None) != (c.context_dim is None):
            found = "none" if context is None else tuple(context.shape)
            raise InputError(f"context_dim is {c.context_dim}, but the context is {found}")
        if context is not None and (
            context.ndim != 3
            or context.shape[0] != shape[0]
            or context.shape[2] != c.context_dim
        ):
            want = f"({shape[0]}, N, {c.context_dim})"
            raise InputError(f"context must be {want}, found {tuple(context.shape)}")


def _placed(z_t: Tensor) -> Tensor:
    """z_t with each position's y and x in [-1, 1] as two more channels (B, C + 2, H, W).

    CoordConv (Liu et al. 2018, arXiv 1807.03247).
    """
    B, _, H, W = z_t.shape
    y, x = (torch.linspace(-1, 1, n, dtype=z_t.dtype, device=z_t.device) for n in (H, W))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(B, -1, -1, -1)
    return torch.cat([z_t, grid], dim=1)
