"""Step rules: from z_t to the less noisy z_s, given what the model predicts at z_t.

Every rule has the same head, so any sampler fits any loop and any picture of it:

    rule(schedule, z_t, s, history, predict, randn) -> z_s

history[-1] is the prediction at z_t (its `t` is the level), earlier entries are past ones, for
multistep rules; `predict(z, t)` asks the model again, `randn(like)` draws noise.
"""

from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule


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
