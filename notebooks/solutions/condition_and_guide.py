"""Solutions of 09, Condition and guide."""

from collections.abc import Callable

import torch
from torch import Tensor


def word_map(q: Tensor, k: Tensor, word: int, width: int) -> Tensor:
    """The share of its attention that each place gives to one word, as a picture."""
    shares = torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1)  # (places, words)
    return shares[:, word].reshape(-1, width)


def drop_captions(ids: Tensor, u: Tensor, share: float) -> Tensor:
    """Captions (B, N) of which those with u < share are made empty."""
    return ids.where((u >= share)[:, None], 0)


def guided(
    model: Callable, z_t: Tensor, t: Tensor, context: Tensor, nothing: Tensor, w: float
) -> Tensor:
    """The model's answer with guidance, from one call with a batch twice as long."""
    both = torch.cat([nothing, context])
    answer = model(torch.cat([z_t, z_t]), torch.cat([t, t]), both)
    unconditional, conditional = answer.chunk(2)
    return unconditional + w * (conditional - unconditional)
