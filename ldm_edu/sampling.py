"""From noise to data: guidance, a model bound to its condition, and the loop over a step rule.

The rules are those of samplers.py. As in diffusion.py, nothing here knows what a model is.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_edu.diffusion import Model, Parameterisation, to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule


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
