"""Diffusion from its equations: noising, parameterisations, the loss.

Nothing here knows what a model is: it is any callable `model(z_t, t, context) -> prediction`
with z_t (B, ...) float, t (B,) int64 in {1..T}, context (B, N, D) or None. The same functions
serve points in a plane, pixels and latents; the names are those of latents.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule

Parameterisation = Literal["eps", "x0", "v"]
Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def q_sample(schedule: NoiseSchedule, z0: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
    """Noise z0 to level t in one jump: sqrt(ab) z0 + sqrt(1 - ab) eps (DDPM eq. 4).

    z0, eps: (B, ...) of one shape; t: (B,) int64 or int, in {0..T}. Returns (B, ...).
    Raises InputError for other shapes, a float t, or a t out of range.
    """
    _check(schedule, z0, t, lowest=0)
    _check_noise(eps, z0)
    return schedule.signal(t, z0) * z0 + schedule.noise(t, z0) * eps


def velocity(schedule: NoiseSchedule, z0: Tensor, t: Tensor | int, eps: Tensor) -> Tensor:
    """v = sqrt(ab) eps - sqrt(1 - ab) z0 (Salimans & Ho 2022, arXiv 2202.00512, sec. 4).

    Shapes and errors as of `q_sample`.
    """
    _check(schedule, z0, t, lowest=0)
    _check_noise(eps, z0)
    return schedule.signal(t, z0) * eps - schedule.noise(t, z0) * z0


def to_z0_eps(
    schedule: NoiseSchedule,
    z_t: Tensor,
    t: Tensor | int,
    prediction: Tensor,
    parameterisation: Parameterisation,
) -> tuple[Tensor, Tensor]:
    """Turn a prediction of eps, x0 or v into (z0_hat, eps_hat), each shaped as z_t.

    t in {1..T}: at t = 0 there is no noise to tell from the signal. Raises InputError.
    """
    _check(schedule, z_t, t)
    _check_prediction(prediction, z_t, parameterisation)
    a, s = schedule.signal(t, z_t), schedule.noise(t, z_t)  # a^2 + s^2 = 1
    if parameterisation == "eps":
        return (z_t - s * prediction) / a, prediction
    if parameterisation == "x0":
        return prediction, (z_t - a * prediction) / s
    return a * z_t - s * prediction, s * z_t + a * prediction


def loss_weight(
    schedule: NoiseSchedule,
    t: Tensor,
    parameterisation: Parameterisation,
    min_snr: float | None = None,
    snr_floor: float = 0.0,
) -> Tensor:
    """Weight of the squared error at t (B,), float64 on the CPU; 1 where `min_snr` is None.

    With gamma = min_snr, min(SNR, gamma) on the error of x0 (Hang et al. 2023, arXiv
    2303.09556); an error of eps is SNR times, one of v SNR + 1 times that of x0, hence the
    division. No level weighs less than `snr_floor` on x0: with 0, those near pure noise, where
    captions decide most, count for nothing (Salimans & Ho 2022, sec. 4, truncate at 1).
    Raises InputError unless 0 <= snr_floor <= min_snr, and for a t as in `q_sample`.
    """
    check_parameterisation(parameterisation)
    t = t.cpu()  # as Apple's GPUs have no float64
    _check(schedule, t, t, lowest=0)
    snr = schedule.snr[t]
    if min_snr is None:
        return torch.ones_like(snr)
    if not 0 <= snr_floor <= min_snr:
        raise InputError(f"need 0 <= snr_floor <= min_snr, found {snr_floor}, {min_snr}")
    per_x0 = {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[parameterisation]
    return snr.clamp(snr_floor, min_snr) / per_x0


def diffusion_loss(
    model: Model,
    schedule: NoiseSchedule,
    z0: Tensor,
    t: Tensor,
    eps: Tensor,
    context: Tensor | None = None,
    parameterisation: Parameterisation = "v",
    min_snr: float | None = None,
    snr_floor: float = 0.0,
) -> Tensor:
    """Squared error of the prediction at levels t, one value a sample: (B,) (LDM eq. 2).

    z0, eps: (B, ...); t: (B,) int64 in {1..T}; context: (B, N, D) or None. Raises InputError,
    also where the model's output has another shape than z0.
    """
    _check(schedule, z0, t)
    z_t = q_sample(schedule, z0, t, eps)
    prediction = model(z_t, t, context)
    _check_prediction(prediction, z_t, parameterisation)
    target = {"eps": eps, "x0": z0, "v": velocity(schedule, z0, t, eps)}[parameterisation]
    error = (prediction - target).square().flatten(1).mean(1)  # (B,)
    weight = loss_weight(schedule, t, parameterisation, min_snr, snr_floor)
    return weight.to(error.dtype).to(error.device) * error


def _check(schedule: NoiseSchedule, z: Tensor, t: Tensor | int, lowest: int = 1) -> None:
    if isinstance(t, int):
        low = high = t
    elif not isinstance(t, Tensor) or t.shape != z.shape[:1] or t.dtype != torch.int64:
        found = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise InputError(f"t must be int64 of shape ({len(z)},), one a sample; found {found}")
    else:
        low, high = t.min().item(), t.max().item()
    if not lowest <= low <= high <= schedule.T:
        raise InputError(f"t must lie in {{{lowest}..{schedule.T}}}, found {low}..{high}")


def _check_noise(eps: Tensor, z0: Tensor) -> None:
    if eps.shape != z0.shape:  # it might broadcast
        found = tuple(eps.shape)
        raise InputError(f"eps must have z0's shape {tuple(z0.shape)}, found {found}")


def _check_prediction(prediction: Tensor, z_t: Tensor, parameterisation: str) -> None:
    check_parameterisation(parameterisation)
    if prediction.shape != z_t.shape:  # it might broadcast
        found = tuple(prediction.shape)
        raise InputError(
            f"the prediction must have z_t's shape {tuple(z_t.shape)}, found {found}"
        )


def check_parameterisation(parameterisation: str) -> None:
    """Raise InputError for what is none."""
    if parameterisation not in ("eps", "x0", "v"):
        raise InputError(
            f"parameterisation must be 'eps', 'x0' or 'v', found {parameterisation!r}"
        )
