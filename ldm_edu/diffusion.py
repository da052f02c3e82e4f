"""Diffusion from its equations: noising, parameterisations, the loss, the sampling loop.

Nothing here knows what a model is: it is any callable `model(z_t, t, context) -> prediction`
with z_t (B, ...) float, t (B,) int64 in {1..T}, context (B, N, D) or None. The same functions
serve points in a plane, pixels and latents; the names are those of latents.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule

Parameterisation = Literal["eps", "x0", "v"]
Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Prediction(NamedTuple):
    """What the model says at level t: the clean sample and the noise, two views of one."""

    t: int
    z0_hat: Tensor
    eps_hat: Tensor


class State(NamedTuple):
    """One step of sampling: z_t at level t, and the clean sample predicted from it."""

    t: int
    z_t: Tensor
    z0_hat: Tensor


Predict = Callable[[Tensor, int], Prediction]
HISTORY = 4  # predictions that a rule may look back on, that at z_t included
Rule = Callable[..., Tensor]  # rule(schedule, z_t, s, history, predict, randn) -> z_s


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
    _check(schedule, z0, t)  # once: on a GPU it waits for all that is under way
    _check_noise(eps, z0)
    a, s = schedule.signal(t, z0), schedule.noise(t, z0)
    z_t, v = a * z0 + s * eps, a * eps - s * z0  # as q_sample and velocity
    prediction = model(z_t, t, context)
    _check_prediction(prediction, z_t, parameterisation)
    target = {"eps": eps, "x0": z0, "v": v}[parameterisation]
    error = (prediction - target).square().flatten(1).mean(1)  # (B,)
    weight = loss_weight(schedule, t, parameterisation, min_snr, snr_floor)
    return weight.to(error.dtype).to(error.device) * error


def guide(unconditional: Tensor, conditional: Tensor, w: float) -> Tensor:
    """Classifier-free guidance: u + w (c - u) (Ho & Salimans 2022, arXiv 2207.12598).

    w = 0 forgets the condition, w = 1 is plain conditioning, w > 1 exaggerates it. At a given
    z_t, eps, x0 and v are affine in one another, so it may be applied to any of the three.
    """
    return unconditional + w * (conditional - unconditional)


def predictor(
    model: Model,
    schedule: NoiseSchedule,
    parameterisation: Parameterisation,
    context: Tensor | None = None,
    no_context: Tensor | None = None,
    guidance: float = 1.0,
) -> Predict:
    """Bind a model to its condition: predict(z_t, t) -> Prediction.

    context, no_context: (B, N, D); `no_context` is the empty condition, needed if guidance
    differs from 1 (InputError): then both halves go through the model as one batch.
    """
    guided = context is not None and guidance != 1.0
    if guided and no_context is None:
        raise InputError(f"guidance = {guidance} needs no_context, the empty condition")

    def predict(z_t: Tensor, t: int) -> Prediction:
        levels = torch.full((len(z_t),), t, device=z_t.device)
        if guided:
            both = torch.cat([no_context, context])
            prediction = model(torch.cat([z_t, z_t]), torch.cat([levels, levels]), both)
            prediction = guide(*prediction.chunk(2), guidance)
        else:
            prediction = model(z_t, levels, context)
        return Prediction(t, *to_z0_eps(schedule, z_t, t, prediction, parameterisation))

    return predict


@torch.no_grad()
def denoise(
    predict: Predict,
    schedule: NoiseSchedule,
    z_T: Tensor,
    rule: Rule,
    timesteps: list[int],
    randn: Callable[[Tensor], Tensor] = torch.randn_like,
    final: int = 0,
) -> Iterator[State]:
    """The sampling loop: yields the state at each of `timesteps`, then State(final, z, z).

    z_T: (B, ...) noise. rule: a step of `ldm_edu.samplers`. timesteps: falling, in {1..T}.
    randn(like) draws the noise of the stochastic rules. final: the level to land on, below
    all timesteps; what is there is taken for clean, and at 0 it is. The caller drives the
    generator, so a picture or a progress bar costs nothing here; who wants the end alone asks
    `last_state`, which keeps no other. No gradients are recorded. Raises InputError.
    """
    levels = [*timesteps, final]
    falling = all(t > s for t, s in pairwise(levels))
    if not timesteps or not falling or levels[0] > schedule.T or final < 0:
        raise InputError(
            f"timesteps must fall within {{1..{schedule.T}}} to final >= 0, "
            f"found {timesteps} to {final}"
        )
    z_t, history = z_T, deque(maxlen=HISTORY)
    for t, s in pairwise(levels):
        history.append(predict(z_t, t))
        yield State(t, z_t, history[-1].z0_hat)
        z_t = rule(schedule, z_t, s, history, predict, randn)
    yield State(final, z_t, z_t)


def last_state(states: Iterator[State]) -> State:
    """Drive a sampling loop to its end; memory does not grow with the number of steps."""
    return deque(states, maxlen=1).pop()


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
