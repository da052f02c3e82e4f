"""Points in a plane: data so small that the best denoiser can be written down and looked at."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule


@dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians in the plane: `centres` (K, 2), each of deviation `s`.

    Its noisy versions are such mixtures again, so the best denoiser has a closed form.
    Raises InputError for other shapes or an s that is not positive.
    """

    centres: Tensor
    s: float

    def __post_init__(self) -> None:
        if self.centres.ndim != 2 or self.centres.shape[1] != 2 or not self.s > 0:
            found = f"{tuple(self.centres.shape)}, {self.s}"
            raise InputError(f"centres must be (K, 2) and s positive, got {found}")

    def sample(self, n: int, seed: int) -> Tensor:
        """n points, (n, 2) float32."""
        generator = torch.Generator().manual_seed(seed)
        k = torch.randint(len(self.centres), (n,), generator=generator)
        return self.centres[k] + self.s * torch.randn(n, 2, generator=generator)

    def x0_hat(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of all x0 that can lie behind x_t (B, 2) at levels t (B,): E[x0 | x_t].

        No denoiser has a smaller mean squared error. By Bayes' rule for Gaussians.
        """
        ab = schedule.alpha_bar[t].to(x_t)[:, None]  # (B, 1)
        centres = self.centres.to(x_t)
        variance = ab * self.s**2 + 1 - ab
        away = x_t[:, None] - ab[..., None].sqrt() * centres  # (B, K, 2)
        weights = torch.softmax(-away.square().sum(-1) / (2 * variance), dim=1)  # (B, K)
        guesses = centres + ab[..., None].sqrt() * self.s**2 / variance[..., None] * away
        return (weights[..., None] * guesses).sum(1)

    def eps_hat(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
        """The best prediction of the noise, E[eps | x_t], (B, 2); t (B,) in {1..T}."""
        ab = schedule.alpha_bar[t].to(x_t)[:, None]
        return (x_t - ab.sqrt() * self.x0_hat(schedule, x_t, t)) / (1 - ab).sqrt()


def flower(petals: int = 5, s: float = 0.12) -> Mixture:
    """A mixture with its centres on the unit circle, the first at the top."""
    angle = torch.arange(petals) * (2 * torch.pi / petals) + torch.pi / 2
    return Mixture(torch.stack([angle.cos(), angle.sin()], dim=1), s)


def moons(n: int, seed: int, s: float = 0.06) -> Tensor:
    """Two half circles that grip each other, (n, 2) float32, with noise of deviation s."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(n, generator=generator) * torch.pi
    lower = torch.rand(n, generator=generator) < 0.5
    upper_moon = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    points = torch.where(lower[:, None], -upper_moon, upper_moon)
    return points + s * torch.randn(n, 2, generator=generator)


def ring(n: int, seed: int, s: float = 0.06) -> Tensor:
    """A circle of radius 1, (n, 2) float32, with noise of deviation s."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(n, generator=generator) * 2 * torch.pi
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    return points + s * torch.randn(n, 2, generator=generator)
