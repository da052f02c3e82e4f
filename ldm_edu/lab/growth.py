"""A model as it trains: what it draws from the same noise after more and more steps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import Film, side_by_side
from ldm_edu.images import to_uint8
from ldm_edu.lab.latent_space import enlarged

SIDE = 96  # pixels of a picture in the film


def growth_film(
    sides: Mapping[str, Sequence[Tensor]], labels: Sequence[str], columns: int = 4
) -> Film:
    """Film of samples after more and more training, a panel for each model.

    sides: what a panel is called -> for each label, pictures (N, 3, H, W) in [-1, 1] drawn from
    the same noise. It opens at its end. Raises InputError where a side has not one set of
    pictures for each label.
    """
    counts = {name: len(shots) for name, shots in sides.items()}
    if not labels or set(counts.values()) != {len(labels)}:
        raise InputError(f"there are {len(labels)} labels, but sets of samples: {counts}")
    tracks = [
        enlarged(torch.stack([to_uint8(x) for x in shots]), SIDE) for shots in sides.values()
    ]
    frames = side_by_side(tracks, columns)
    return Film(
        frames=frames,
        labels=list(labels),
        alt=f"Samples of {' and of '.join(sides)} after more and more training.",
        caption="Each place in the grid starts from the same noise in all frames.",
        start=len(labels) - 1,
        panels=list(sides) if len(sides) > 1 else [],
        name="Training",
        width=frames.shape[3],
    )
