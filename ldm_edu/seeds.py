"""What a seed fixes, and which seeds there are."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ldm_edu.errors import InputError


def noise_of(n: int, seed: int, shape: Sequence[int]) -> Tensor:
    """n draws of N(0, I), each of `shape`, float32 on the CPU: (n, *shape).

    Draw i depends on (seed, i) only, not on n. Raises InputError for what is no seed.
    """
    check_seed(seed)
    return torch.stack([torch.randn(shape, generator=_generator(seed, i)) for i in range(n)])


def noise_stream(n: int, seed: int) -> Callable[[Tensor], Tensor]:
    """randn(like): the next noise for all n images, in like's shape (n, ...) and dtype.

    Image i's depend on (seed, i) only, and differ from those of `noise_of` with the same seed.
    Raises InputError for what is no seed.
    """
    check_seed(seed)
    generators = [_generator(seed + 500_009, i) for i in range(n)]

    def randn(like: Tensor) -> Tensor:
        rows = [torch.randn(like.shape[1:], generator=g) for g in generators]
        return torch.stack(rows).to(like)

    return randn


def check_seed(seed: int) -> None:
    """Raise InputError for no seed: torch's generator on the CPU tells 2**32 of them apart."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed must be a whole number from 0 to 2**32 - 1, found {seed!r}")


class seeded:
    """Context in which torch's generators are a function of the numbers; restored after."""

    def __init__(self, *numbers: int):
        self.seed = mix(*numbers)
        self.fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error) -> None:
        self.fork.__exit__(*error)


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers; neighbouring numbers give unrelated seeds.

    torch's generator on the CPU reads the lower 32 bits of it.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def slerp(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Points on the arc from a to b (Shoemake 1985): (1, ...) twice and u (n,) -> (n, ...).

    u: in [0, 1]; 0 is a, 1 is b. Half-way between two draws of N(0, I) their mean is too short
    by sqrt(2) to be a draw itself; a point of the arc is as long as they are.
    """
    first, second = a.cpu().double(), b.cpu().double()  # Apple's GPUs have no float64
    x, y = first.flatten(), second.flatten()
    cosine = (x @ y / (x.norm() * y.norm())).clamp(-1, 1)
    angle, u = cosine.arccos(), u.to(x).view(-1, *[1] * (a.ndim - 1))  # (n, 1, ...)
    if angle < 1e-6:  # the same point: there is no arc
        return a.expand(len(u), *a.shape[1:])
    arc = (((1 - u) * angle).sin() * first + (u * angle).sin() * second) / angle.sin()
    return arc.to(a.dtype).to(a.device)


def _generator(seed: int, i: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
