"""Measure a model: how well it restores, how like real pictures it draws, and how fast.

Pictures travel as bytes, as a viewer sees them. What takes long shows a bar.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ldm_edu.images import from_uint8, to_uint8
from ldm_edu.metrics import frechet_distance, kernel_distance, precision_recall, psnr, ssim
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.sampling import last_state
from ldm_edu.seeds import mix

_BATCH = 250  # pictures at once; part of what a seed means in `sample_many`


def sample_many(
    pipe: LatentDiffusion,
    n: int,
    seed: int = 0,
    prompts: list[str] | None = None,
    what: str = "samples",
    **options,
) -> Tensor:
    """n samples as uint8 (n, 3, H, W), drawn 250 at a time; `prompts`: one for each, or none.

    Image i depends on (seed, i) and its prompt only, not on n; the first 250 are those of
    `pipe.sample(250, seed=seed)`. The other options are those of `pipe.denoise`.
    """
    parts = []
    with tqdm(total=n, desc=what, unit="image") as bar:
        for start in range(0, n, _BATCH):
            count = min(_BATCH, n - start)
            own = seed if start == 0 else mix(seed, start) % 2**32
            prompt = None if prompts is None else prompts[start : start + count]
            parts.append(to_uint8(pipe.sample(count, prompt=prompt, seed=own, **options)))
            bar.update(count)
    return torch.cat(parts)


def sample_with_bar(pipe: LatentDiffusion, n: int, *, steps: int = 20, **options) -> Tensor:
    """What `pipe.sample` gives, with its steps counted as they are taken."""
    states = pipe.denoise(n, steps=steps, **options)
    next(states)  # what is wrong is told before there is a bar
    return pipe.decode(last_state(tqdm(states, "sampling", steps, unit="step")).z_t)


def reconstruct(pipe: LatentDiffusion, images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) through the autoencoder and back, as uint8."""
    parts = []
    with tqdm(total=len(images), desc="reconstructions", unit="image") as bar:
        for batch in images.split(_BATCH):
            parts.append(to_uint8(pipe.decode(pipe.encode(from_uint8(batch)))))
            bar.update(len(batch))
    return torch.cat(parts)


class Closeness(NamedTuple):
    """Of reconstructions to their originals: means over `count` images, PSNR's spread too."""

    psnr: float  # dB
    psnr_spread: float
    ssim: float
    count: int


def closeness(images: Tensor, restored: Tensor) -> Closeness:
    """Compare uint8 images (N, 3, H, W) with their reconstructions, each with its own."""
    pairs = zip(images.split(_BATCH), restored.split(_BATCH), strict=True)
    parts = [(from_uint8(a), from_uint8(b)) for a, b in pairs]
    decibels = torch.cat([psnr(*part) for part in parts])
    similarity = torch.cat([ssim(*part) for part in parts])
    spread = decibels.std(correction=0).item()
    return Closeness(decibels.mean().item(), spread, similarity.mean().item(), len(images))


class Likeness(NamedTuple):
    """How like a set of real pictures another set is, in one feature space, both of one N."""

    frechet: float
    kernel: float
    kernel_spread: float
    precision: float
    recall: float


def likeness(real: Tensor, other: Tensor) -> Likeness:
    """Compare features (N, D) of real pictures with those of others, in every way there is.

    The kernel distance is that of subsets of 1000, or of half of a smaller N.
    """
    distance = frechet_distance(real, other)
    kernel = kernel_distance(real, other, size=min(1000, len(real) // 2))
    return Likeness(distance, *kernel, *precision_recall(real, other))


def sampling_time(
    pipe: LatentDiffusion, n: int = 16, steps: int = 20, repeats: int = 3
) -> float:
    """Seconds that `pipe.sample(n, steps=steps)` takes, as `seconds` measures them."""
    return seconds(lambda: pipe.sample(n, steps=steps), repeats)


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Seconds that `run()` takes: the median of some runs, after one to warm up."""
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
