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


def slerp(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Points on the arc from a to b (Shoemake 1985): (1, ...) twice and u (n,) -> (n, ...).

    u: in [0, 1]; 0 is a, 1 is b. Half-way between two draws of N(0, I) their mean is too short
    by sqrt(2) to be a draw itself; a point of the arc is as long as they are.
    """
    x, y = a.double().flatten(), b.double().flatten()
    cosine = (x @ y / (x.norm() * y.norm())).clamp(-1, 1)
    angle, u = cosine.arccos(), u.to(x).view(-1, *[1] * (a.ndim - 1))  # (n, 1, ...)
    if angle < 1e-6:  # the same point: there is no arc
        return a.expand(len(u), *a.shape[1:])
    return ((((1 - u) * angle).sin() * a + (u * angle).sin() * b) / angle.sin()).to(a)


def _generator(seed: int, i: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
