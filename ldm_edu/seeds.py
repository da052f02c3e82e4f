"""Noise that a seed fixes: image i depends on (seed, i) only, not on how many are drawn."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def noise_of(n: int, seed: int, shape: Sequence[int]) -> Tensor:
    """n draws of N(0, I), each of `shape`, float32 on the CPU: (n, *shape)."""
    return torch.stack([torch.randn(shape, generator=_generator(seed, i)) for i in range(n)])


def noise_stream(n: int, seed: int) -> Callable[[Tensor], Tensor]:
    """randn(like): the next noise for all n images, in like's shape (n, ...) and dtype.

    The draws differ from those of `noise_of` with the same seed.
    """
    generators = [_generator(seed + 500_009, i) for i in range(n)]

    def randn(like: Tensor) -> Tensor:
        rows = [torch.randn(like.shape[1:], generator=g) for g in generators]
        return torch.stack(rows).to(like)

    return randn


def _generator(seed: int, i: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
