"""Inpainting: paint a part of a picture anew, so that it fits what is kept.

A sampler asks the model at every level for the clean latent z0_hat that it sees in z_t. Here
the kept pixels are put into that picture before the sampler goes on,

    z0_hat <- E((1 - m) x + m D(z0_hat)),

with the encoder E, the decoder D and the mask m: DDNM's projection (Wang et al. 2022, arXiv
2212.00490, sec. 3.2) taken through an autoencoder (as in P2L, Chung et al. 2023, arXiv
2310.01110). So every sampler can be used, and a latent position that the mask cuts through
knows the pixels that are kept in it.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.samplers import rule_named
from ldm_edu.sampling import Predict, Prediction, Rule, denoise, last_state
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.seeds import noise_of, noise_stream

_BLEND = 16  # rounds of averaging in which the border's gap fades into what was painted


@torch.no_grad()
def inpaint(
    pipe,
    x: Tensor,
    mask: Tensor,
    *,
    prompt: str | Sequence[str] | None = None,
    guidance: float | None = None,
    sampler: str = "ddpm",
    steps: int = 20,
    eta: float = 0.0,
    seed: int = 0,
    resample: int = 5,
    jump: int = 5,
) -> Tensor:
    """Paint x anew where the mask is 1; where it is 0 the very pixels of x are returned.

    x: (B, 3, H, W) in [-1, 1]; what it shows under the mask's ones does not matter. mask:
    (B, 1, H, W), or (1, 1, H, W) for all, bool or float in [0, 1]; between 0 and 1 a pixel is
    a mixture of old and new. resample: how often each `jump` steps are taken, noised back and
    taken again, so that old and new can settle on each other (RePaint, Lugmayr et al. 2022,
    arXiv 2201.09865, alg. 1). The other options are those of `denoise`; image i depends on
    (seed, i) and on its own x and mask. Without resampling, a mask of ones alone gives
    `sample` of that seed. Returns as `sample`. Raises InputError.
    """
    hidden = torch.zeros_like(x) if isinstance(x, Tensor) else x
    shape = pipe.encode(hidden).shape  # checks x, but not what the mask may hide
    mask = _checked(mask, x)
    if resample < 1 or jump < 1:
        raise InputError(f"resample and jump must be at least 1, found {resample} and {jump}")
    x = x.detach().to("cpu", torch.float32).masked_fill(mask == 1, 0)  # unseen, even if NaN
    predict = _keeping(pipe, pipe.predictor(len(x), prompt, guidance), x, mask)
    z_T = noise_of(len(x), seed, shape[1:]).to(pipe.device, pipe.dtype)
    levels, rule = [*pipe.timesteps(steps), pipe.grid.final], rule_named(sampler, eta)
    if resample == 1:
        jump = steps
    randn = noise_stream(len(x), seed)
    z = _walk(predict, pipe.schedule, z_T, rule, levels, randn, resample, jump)
    return x.lerp(_meet(pipe.decode(z), x, mask), mask)  # exact at 0 and 1


def _keeping(pipe, predict: Predict, x: Tensor, mask: Tensor) -> Predict:
    # positions without a kept pixel are left alone: a round trip would blur them
    f = pipe.autoencoder.config.factor
    free = F.max_pool2d(-mask, f).to(pipe.device) == -1

    def keeping(z_t: Tensor, t: int) -> Prediction:
        _, z0_hat, eps_hat = predict(z_t, t)
        z0 = pipe.encode(x.lerp(pipe.decode(z0_hat), mask)).to(z_t)
        signal, noise = pipe.schedule.signal(t, z_t), pipe.schedule.noise(t, z_t)
        eps = (z_t - signal * z0) / noise  # so that z_t stays what it is
        return Prediction(t, z0_hat.where(free, z0), eps_hat.where(free, eps))

    return keeping


def _walk(
    predict: Predict,
    schedule: NoiseSchedule,
    z_t: Tensor,
    rule: Rule,
    levels: list[int],
    randn: Callable[[Tensor], Tensor],
    resample: int,
    jump: int,
) -> Tensor:
    for start in range(0, len(levels) - 1, jump):
        part = levels[start : start + jump + 1]
        for left in reversed(range(resample)):
            states = denoise(predict, schedule, z_t, rule, part[:-1], randn, part[-1])
            z_t = last_state(states).z_t
            if left:  # back up: q(z_t | z_s), DDPM eq. 2 over several steps
                kept = (schedule.alpha_bar[part[0]] / schedule.alpha_bar[part[-1]]).item()
                z_t = kept**0.5 * z_t + (1 - kept) ** 0.5 * randn(z_t)
    return z_t


def _meet(x_hat: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    # The kept side is not decoded, so the two sides differ by the autoencoder's error. The gap
    # along the border spreads inwards by averaging, as in Poisson blending (Perez et al. 2003)
    new = mask > 0
    gap = correction = (x - x_hat).masked_fill(new, 0)
    for _ in range(_BLEND):
        c = F.pad(correction, (1, 1, 1, 1), "replicate")
        around = c[..., :-2, 1:-1] + c[..., 2:, 1:-1] + c[..., 1:-1, :-2] + c[..., 1:-1, 2:]
        correction = (around / 4).where(new, gap)
    return (x_hat + correction).clamp(-1, 1)


def _checked(mask: Tensor, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    wanted = f"mask must be bool, or float in [0, 1], of shape {(b, 1, h, w)}"
    if not isinstance(mask, Tensor):
        raise InputError(f"{wanted}, found {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"{wanted}, found {mask.dtype}")
    if (
        mask.ndim != 4
        or mask.shape[0] not in (1, len(x))
        or mask.shape[1:] != (1, *x.shape[2:])
    ):
        raise InputError(f"{wanted}, or one for all, found {tuple(mask.shape)}")
    mask = mask.detach().to("cpu", torch.float32)
    if not ((mask >= 0) & (mask <= 1)).all():  # NaN too
        raise InputError(f"{wanted}, found values from {mask.min()} to {mask.max()}")
    return mask.expand(b, -1, -1, -1)
