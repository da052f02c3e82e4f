"""Solutions of 02, Remove noise from points."""

from collections.abc import Callable

from torch import Tensor


def score(x_t: Tensor, x0_hat: Tensor, ab: float) -> Tensor:
    """The slope of log q(x_t), by Tweedie's formula."""
    return (ab**0.5 * x0_hat - x_t) / (1 - ab)


def v_loss(model: Callable, x0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Squared error of a model that predicts v, one number a point."""
    ab = alpha_bar[t][:, None]
    a, s = ab**0.5, (1 - ab) ** 0.5
    x_t = a * x0 + s * eps
    v = a * eps - s * x0
    return (model(x_t, t) - v).square().mean(1)


def ddim_back(x_s: Tensor, eps_hat: Tensor, ab_s: float, ab_t: float) -> Tensor:
    """A DDIM step from level s up to the noisier level t."""
    x0_hat = (x_s - (1 - ab_s) ** 0.5 * eps_hat) / ab_s**0.5
    return ab_t**0.5 * x0_hat + (1 - ab_t) ** 0.5 * eps_hat
