"""Solutions of 01, Add noise to an image."""

from torch import Tensor


def recover_x0(x_t: Tensor, t: int, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The jump, solved for x0."""
    ab = alpha_bar[t]
    return (x_t - (1 - ab) ** 0.5 * eps) / ab**0.5


def jump(x_s: Tensor, s: int, t: int, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """From level s to level t > s: `kept` is the product of 1 - beta over the steps between."""
    kept = alpha_bar[t] / alpha_bar[s]
    return kept**0.5 * x_s + (1 - kept) ** 0.5 * eps


def first_below(limit: float, alpha_bar: Tensor) -> int:
    """The SNR falls, so the levels not below the limit come first: 0, 1, ..., t - 1."""
    snr = alpha_bar / (1 - alpha_bar)  # infinite at t = 0
    return int((snr >= limit).sum())
