"""Solutions of 08, Take fewer steps."""

import math

from torch import Tensor


def order(few: int, many: int, error_few: float, error_many: float) -> float:
    """The p of error = c / steps^p, from two runs."""
    return math.log(error_few / error_many) / math.log(many / few)


def lambda_step(x_t: Tensor, x0_hat: Tensor, lambda_t: float, lambda_s: float) -> Tensor:
    """One step of first order, told nothing but lambda = log(alpha / sigma) at both ends."""
    ab_t, ab_s = (1 / (1 + math.exp(-2 * lam)) for lam in (lambda_t, lambda_s))
    h = lambda_s - lambda_t
    kept = ((1 - ab_s) / (1 - ab_t)) ** 0.5  # sigma_s / sigma_t
    return kept * x_t + ab_s**0.5 * (1 - math.exp(-h)) * x0_hat


def slope_ahead(slope_u: Tensor, slope_t: Tensor, r_u: float, r_t: float, r_s: float) -> Tensor:
    """The slope in the middle of the step from r_t to r_s, on the line through two slopes."""
    return slope_t + (r_s - r_t) / (2 * (r_t - r_u)) * (slope_t - slope_u)
