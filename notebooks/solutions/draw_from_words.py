"""Solutions of 10, Draw from words."""

import torch
from torch import Tensor


def tokenize(caption: str, ids: dict[str, int], length: int) -> list[int]:
    """The ids of the words that have one, filled up with the end token 0."""
    row = [ids[word] for word in caption.split() if word in ids]
    return row + [0] * (length - len(row))


def causal_weights(scores: Tensor) -> Tensor:
    """Softmax of scores (N, N) in which token i sees tokens 0 ... i only."""
    later = torch.ones_like(scores).triu(1).bool()
    return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)


def levels_left(strength: float, levels: list[int]) -> list[int]:
    """The levels that image to image visits: the last share of the sampler's list."""
    return levels[-int(strength * len(levels)) :]


def blend(z_t: Tensor, z0: Tensor, mask: Tensor, eps: Tensor, ab: float) -> Tensor:
    """What is masked from the sampler, the rest from the picture, noised to the same level."""
    known = ab**0.5 * z0 + (1 - ab) ** 0.5 * eps
    return mask * z_t + (1 - mask) * known
