"""What a trained model can do besides drawing from nothing: vary a picture, walk between two.

Each function is a method of `LatentDiffusion`, whose first argument is the pipeline.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.samplers import rule_named
from ldm_edu.sampling import denoise, last_state
from ldm_edu.seeds import noise_of, noise_stream, slerp


@torch.no_grad()
def vary(
    pipe,
    x: Tensor,
    strength: float = 0.6,
    *,
    prompt: str | Sequence[str] | None = None,
    guidance: float | None = None,
    sampler: str = "ddim",
    steps: int = 50,
    eta: float = 0.0,
    seed: int = 0,
    noise: Tensor | None = None,
) -> Tensor:
    """Image to image (Meng et al. 2021, arXiv 2108.01073): noise x half-way, denoise again.

    x: (B, 3, H, W) in [-1, 1]; returns as `sample`. strength: in (0, 1], the share of the
    `steps` that are taken, the last ones: the more, the less of x is left. noise: shaped as
    `encode(x)`, instead of `seed`'s. The other options are those of `denoise`; prompt None
    is no condition. Raises InputError, also where no step is left.
    """
    timesteps, rule = pipe.timesteps(steps), rule_named(sampler, eta)
    taken = int(steps * strength) if 0 < strength <= 1 else 0
    if taken == 0:
        raise InputError(
            f"strength must lie in (0, 1] and take at least one of {steps} steps, "
            f"found {strength}"
        )
    z0, timesteps = pipe.encode(x).to(pipe.dtype), timesteps[-taken:]
    noise = noise_of(len(z0), seed, z0.shape[1:]) if noise is None else noise
    z_t = q_sample(pipe.schedule, z0, timesteps[0], noise.to(z0))
    predict, randn = pipe.predictor(len(z0), prompt, guidance), noise_stream(len(z0), seed)
    states = denoise(predict, pipe.schedule, z_t, rule, timesteps, randn, pipe.grid.final)
    return pipe.decode(last_state(states).z_t)


def interpolate(
    pipe,
    seed_a: int,
    seed_b: int,
    n: int = 8,
    *,
    prompt: str | Sequence[str] | None = None,
    guidance: float | None = None,
    sampler: str = "dpm++",
    steps: int = 20,
) -> Tensor:
    """A walk of n images from `sample(seed=seed_a)` to `sample(seed=seed_b)`, both included.

    Their starting noises are joined by an arc (Shoemake 1985; DDIM sec. 5.3), and every point
    of it is denoised: a sampler that draws no noise makes of the same z_T the same image.
    Returns (n, 3, H, W) as `sample`; n is at least 2; the options are those of `denoise`.
    Raises InputError, also for the sampler "ddpm", with which the walk would jump.
    """
    if not isinstance(n, int) or n < 2:
        raise InputError(f"n must be a whole number of at least 2, the two ends, found {n!r}")
    if sampler == "ddpm":
        raise InputError(
            "sampler 'ddpm' draws noise at every step, so neighbours would have nothing in "
            "common: use 'ddim', 'dpm++', 'heun' or 'plms'"
        )
    z_T = slerp(pipe.noise(1, seed_a), pipe.noise(1, seed_b), torch.linspace(0, 1, n))
    return pipe.sample(
        n, z_T=z_T, prompt=prompt, guidance=guidance, sampler=sampler, steps=steps
    )
