"""Solutions of 06, Look inside latent space."""

from torch import Tensor


def latent_std(mean: Tensor, std: Tensor) -> float:
    """Deviation of all latents drawn: E[z^2] - E[z]^2, and E[z^2] = mean^2 + std^2 of each."""
    second = (mean**2 + std**2).mean()
    return (second - mean.mean() ** 2) ** 0.5


def unscaled_snr(t: int, sigma: float, alpha_bar: Tensor) -> Tensor:
    """The signal has variance sigma^2 instead of 1."""
    return sigma**2 * alpha_bar[t] / (1 - alpha_bar[t])


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From a to b along the circle through both, at even angles."""
    angle = ((a * b).sum() / (a.norm() * b.norm())).acos()
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
