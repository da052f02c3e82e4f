"""Exercises of notebook 08, Take fewer steps."""

import math

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise


def _order(few, many, error_few, error_many):
    return math.log(error_few / error_many) / math.log(many / few)


order = Exercise(
    name="order",
    cases=lambda: {
        "10 and 20 steps, errors 0.08 and 0.02": (10, 20, 0.08, 0.02),
        "10 and 30 steps, errors 0.9 and 0.1": (10, 30, 0.9, 0.1),
        "20 and 80 steps, errors 0.3 and 0.08": (20, 80, 0.3, 0.08),
    },
    right=_order,
    mistakes={
        "The sign is swapped: an error that falls with more steps has a positive order.": (
            lambda *args: -_order(*args)
        ),
        "You take the steps to be doubled. The number of steps may grow by any factor.": (
            lambda few, many, error_few, error_many: math.log2(error_few / error_many)
        ),
        "This is how many times smaller the error gets. The order is the power of the number "
        "of steps that it goes with: take logarithms.": (
            lambda few, many, error_few, error_many: error_few / error_many
        ),
        "You divide the two ratios. The order is a power: divide their logarithms.": (
            lambda few, many, error_few, error_many: error_few / error_many * few / many
        ),
        "The fraction is upside down: the logarithm of the errors goes on top.": (
            lambda *args: 1 / _order(*args)
        ),
        "The logarithm of the error's ratio is only half of it: how many times more steps did "
        "that take?": (
            lambda few, many, error_few, error_many: math.log(error_few / error_many)
        ),
    },
    hints=(
        "error = c / steps^p, with an unknown c. Write it down for both runs, and divide one "
        "line by the other: c is gone.",
        "error_few / error_many = (many / few) ** p. A logarithm brings the p down.",
        "return math.log(error_few / error_many) / math.log(many / few)",
    ),
    praise="With it you can tell a sampler's order from two runs, without reading its code.",
)


def _scales(lam: float, half: float = 2.0) -> tuple[float, float]:
    alpha_bar = 1 / (1 + math.exp(-half * lam))
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5  # alpha, sigma


def _step(x_t, x0_hat, lambda_t, lambda_s, half=2.0, rooted=True, sign=1, scale="alpha_s"):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(k, half) for k in (lambda_t, lambda_s))
    if not rooted:
        alpha_t, sigma_t, alpha_s, sigma_s = (
            k**2 for k in (alpha_t, sigma_t, alpha_s, sigma_s)
        )
    share = 1 - math.exp(-sign * (lambda_s - lambda_t))
    outer = {"alpha_s": alpha_s, "alpha_t": alpha_t, "sigma_s": sigma_s, "none": 1.0}[scale]
    return sigma_s / sigma_t * x_t + outer * share * x0_hat


def _pair(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(2, 4, 2, dtype=torch.float64, generator=generator))


lambda_step = Exercise(
    name="lambda_step",
    cases=lambda: {
        f"lambda from {t} to {s}": (*_pair(k), t, s)
        for k, (t, s) in enumerate(((-1.5, -0.5), (0.2, 1.0)))
    },
    right=_step,
    mistakes={
        "lambda is half the logarithm of the SNR, so alpha_bar is sigmoid(2 lambda).": (
            lambda *args: _step(*args, half=1.0)
        ),
        "Square roots are missing: sigmoid(2 lambda) is alpha_bar, and alpha its root.": (
            lambda *args: _step(*args, rooted=False)
        ),
        "The sign in the exponent is swapped: h = lambda_s - lambda_t is positive, and a long "
        "step leaves nothing of the noise, so it has to be 1 - exp(-h).": (
            lambda *args: _step(*args, sign=-1)
        ),
        "s and t are swapped: you go from lambda_t to lambda_s.": (
            lambda x_t, x0_hat, lambda_t, lambda_s: _step(x_t, x0_hat, lambda_s, lambda_t)
        ),
        "The guess enters with the signal of the level you go to, alpha_s.": (
            lambda *args: _step(*args, scale="alpha_t")
        ),
        "The guess enters with alpha_s, not with sigma_s: sigma_s e^lambda_s = alpha_s.": (
            lambda *args: _step(*args, scale="sigma_s")
        ),
        "The guess is a clean point: shrink it to the level you go to, by alpha_s.": (
            lambda *args: _step(*args, scale="none")
        ),
    },
    hints=(
        "You need alpha and sigma at both ends. lambda = log(alpha / sigma), and alpha^2 + "
        "sigma^2 = 1: so e^(2 lambda) = alpha^2 / (1 - alpha^2). What is alpha^2?",
        "alpha^2 is sigmoid(2 lambda) = 1 / (1 + math.exp(-2 * lam)), sigma^2 the rest. Then "
        "put them into the formula of the text.",
        "With a, s = alpha and sigma: return sigma_s / sigma_t * x_t + "
        "alpha_s * (1 - math.exp(lambda_t - lambda_s)) * x0_hat",
    ),
    praise="No t and no schedule: a step is a piece of lambda. It is DDIM's once more.",
)


def _ahead(slope_u, slope_t, r_u, r_t, r_s, far=0.5):
    return slope_t + far * (r_s - r_t) / (r_t - r_u) * (slope_t - slope_u)


slope_ahead = Exercise(
    name="slope_ahead",
    cases=lambda: {
        f"r = {r_u}, {r_t}, {r_s}": (*_pair(k), r_u, r_t, r_s)
        for k, (r_u, r_t, r_s) in enumerate(((3.0, 2.0, 1.5), (0.9, 0.7, 0.3)))
    },
    right=_ahead,
    mistakes={
        "This is the slope at the end of the step. Its middle stands for the whole step.": (
            lambda *args: _ahead(*args, far=1.0)
        ),
        "3/2 and -1/2 are right for steps of one length. Here the lengths differ.": (
            lambda slope_u, slope_t, *r: 1.5 * slope_t - 0.5 * slope_u
        ),
        "You go back instead of ahead: the middle of the coming step, not of the last one.": (
            lambda *args: _ahead(*args, far=-0.5)
        ),
        "The two lengths are swapped: divide by the step that lies behind, r_t - r_u.": (
            lambda slope_u, slope_t, r_u, r_t, r_s: (
                slope_t + (r_t - r_u) / (2 * (r_s - r_t)) * (slope_t - slope_u)
            )
        ),
        "You start at the older slope. The line goes through slope_t at r_t.": (
            lambda slope_u, slope_t, r_u, r_t, r_s: (
                slope_u + (r_s - r_t) / (2 * (r_t - r_u)) * (slope_t - slope_u)
            )
        ),
        "This is the mean of the two slopes, which lies behind you.": (
            lambda slope_u, slope_t, *r: (slope_t + slope_u) / 2
        ),
    },
    hints=(
        "Two points of a line: slope_u at r_u and slope_t at r_t. Where is the middle between "
        "r_t and r_s, and what is the line's value there?",
        "From u to t the slope changed by slope_t - slope_u over a length of r_t - r_u. From t "
        "to the middle of the next step it is (r_s - r_t) / 2.",
        "return slope_t + (r_s - r_t) / (2 * (r_t - r_u)) * (slope_t - slope_u)",
    ),
    praise="With steps of one length the weights are 3/2 and -1/2: Adams and Bashforth, 1883.",
)

EXERCISES = (order, lambda_step, slope_ahead)
