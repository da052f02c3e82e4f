"""Step rules: from z_t to the less noisy z_s, given what the model predicts at z_t.

Every rule has the same head, so any sampler fits any loop and any picture of it:

    rule(schedule, z_t, s, history, predict, randn) -> z_s

history[-1] is the prediction at z_t (its `t` is the level), before it stand up to three past
ones, for multistep rules; `predict(z, t)` asks the model again, `randn(like)` draws noise.

Four of the five follow one equation. In the variables z / alpha and sigma / alpha, where
alpha^2 = alpha_bar and sigma^2 = 1 - alpha_bar, the noise that the model predicts is the slope
of the path from noise to data (Song et al. 2020, arXiv 2010.02502, eq. 14):

    d(z / alpha) = eps_hat(z, t) d(sigma / alpha)

DDIM takes the slope at t for the whole step, Heun the mean of both ends, PLMS extrapolates it
from the steps before, and DPM-Solver++ extrapolates z0_hat instead. DDPM draws at random.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule

SIGMA_MAX = 200.0  # sigma / alpha; DDPM and Stable Diffusion start below, the cosine above


def rule_named(name: str, eta: float = 0.0) -> Callable[..., Tensor]:
    """The rule of a sampler: "ddpm", "ddim" (with `eta`), "dpm++", "heun" or "plms".

    Raises InputError for another name, or an eta that is not for DDIM.
    """
    rules = {
        "ddpm": ddpm,
        "ddim": partial(ddim, eta=eta),
        "dpm++": dpmpp,
        "heun": partial(heun, sigma_max=SIGMA_MAX),
        "plms": partial(plms, sigma_max=SIGMA_MAX),
    }
    if name not in rules:
        raise InputError(f"sampler must be one of {list(rules)}, found {name!r}")
    if eta != 0 and name != "ddim":
        raise InputError(f"only the sampler 'ddim' takes an eta, found {eta} for {name!r}")
    return rules[name]


def ddpm(schedule: NoiseSchedule, z_t: Tensor, s: int, history, predict, randn) -> Tensor:
    """Draw from the posterior q(z_s | z_t, z0_hat) (DDPM eq. 6-7, for any s < t)."""
    t, z0_hat, _ = history[-1]
    ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    alpha = ab_t / ab_s  # signal kept from s to t
    mean = ab_s**0.5 * (1 - alpha) / (1 - ab_t) * z0_hat
    mean = mean + alpha**0.5 * (1 - ab_s) / (1 - ab_t) * z_t
    if s == 0:
        return mean  # the posterior is a point
    variance = (1 - ab_s) / (1 - ab_t) * (1 - alpha)  # beta tilde
    return mean + variance**0.5 * randn(z_t)


def ddim(
    schedule: NoiseSchedule, z_t: Tensor, s: int, history, predict, randn, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12 and 16).

    eta = 0 is deterministic, 1 has DDPM's noise. Raises InputError for eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must lie in [0, 1], found {eta}")
    t, z0_hat, eps_hat = history[-1]
    ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    variance = eta**2 * (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)  # sigma^2
    kept = max(1 - ab_s - variance, 0.0)  # rounding may go below 0
    z_s = ab_s**0.5 * z0_hat + kept**0.5 * eps_hat
    return z_s + variance**0.5 * randn(z_t) if variance > 0 else z_s


def dpmpp(schedule: NoiseSchedule, z_t: Tensor, s: int, history, predict, randn) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, alg. 2): order 2, one call a step.

    With lambda = log(alpha / sigma) as time, z0_hat is extrapolated to the middle of the step
    from the last two predictions. The first step has only one, and a step to clean data is
    infinitely long (lambda = inf): there it is not extrapolated, and the step equals DDIM's.
    It wants steps that grow slowly in lambda, as a trailing grid's do: the last step of a
    leading grid, down to t = 1, extrapolates too far if there are few.
    """
    t, z0_hat, _ = history[-1]
    if len(history) > 1 and s > 0:
        u, z0_before, _ = history[-2]
        h_before = _lambda(schedule, t) - _lambda(schedule, u)
        h = _lambda(schedule, s) - _lambda(schedule, t)
        z0_hat = z0_hat + h / (2 * h_before) * (z0_hat - z0_before)  # D of alg. 2
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(schedule, t), _scales(schedule, s)
    kept = sigma_s / sigma_t
    return kept * z_t + (alpha_s - kept * alpha_t) * z0_hat  # alpha_s e^-h = kept alpha_t


def heun(
    schedule: NoiseSchedule,
    z_t: Tensor,
    s: int,
    history,
    predict,
    randn,
    sigma_max: float = math.inf,
) -> Tensor:
    """Heun's step (Karras et al. 2022, arXiv 2206.00364, alg. 1): order 2, two calls a step.

    An Euler step to s, then again from z_t with the mean of the slopes at both ends. Clean
    data has no noise to predict, so a step to s = 0 stays Euler's, which is DDIM's. So does
    one from where sigma / alpha exceeds `sigma_max`: the mean of two slopes says nothing of a
    step from 20,000, where the cosine schedule starts, to 13. Karras et al. start at 80.
    """
    t, _, eps_hat = history[-1]
    alpha_t, sigma_t = _scales(schedule, t)
    z_s = ddim(schedule, z_t, s, history, predict, randn)  # Euler
    if s == 0 or sigma_t > sigma_max * alpha_t:
        return z_s
    return _move(schedule, z_t, t, s, (eps_hat + predict(z_s, s).eps_hat) / 2)


def plms(
    schedule: NoiseSchedule,
    z_t: Tensor,
    s: int,
    history,
    predict,
    randn,
    sigma_max: float = math.inf,
) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022, arXiv 2202.09778, eq. 9 and 12), as Stable
    Diffusion uses it: order 2, one call a step and one more in the first.

    The slope is extrapolated from up to four predictions with the coefficients of Adams and
    Bashforth; the first step, which has but one, is Heun's (whose `sigma_max` this is).
    """
    if len(history) == 1:
        return heun(schedule, z_t, s, history, predict, randn, sigma_max)
    weights = _ADAMS_BASHFORTH[min(len(history), 4)]
    slope = sum(w * p.eps_hat for w, p in zip(weights, reversed(history), strict=False))
    return _move(schedule, z_t, history[-1].t, s, slope)


_ADAMS_BASHFORTH = {  # latest first
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def _move(schedule: NoiseSchedule, z_t: Tensor, t: int, s: int, slope: Tensor) -> Tensor:
    # a straight line in (sigma / alpha, z / alpha): PNDM eq. 9
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(schedule, t), _scales(schedule, s)
    return alpha_s / alpha_t * z_t + (sigma_s - alpha_s / alpha_t * sigma_t) * slope


def _scales(schedule: NoiseSchedule, t: int) -> tuple[float, float]:
    alpha_bar = schedule.alpha_bar[t].item()
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5  # alpha, sigma


def _lambda(schedule: NoiseSchedule, t: int) -> float:
    return math.log(schedule.snr[t].item()) / 2  # log(alpha / sigma)
