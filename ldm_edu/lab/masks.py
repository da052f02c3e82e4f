"""Masks for inpainting: painted by strokes, or of the parts of a face.

A stroke is the path of a round brush: it covers each pixel whose centre comes as near to the
path as the brush's radius. The canvas of `assets/painter.js` draws the same strokes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8

_VEIL = torch.tensor([230, 159, 0], dtype=torch.uint8)[:, None, None]  # the painter's orange


@dataclass(frozen=True)
class Stroke:
    """One stroke of the brush, in pixels of the picture; (0, 0) is its top left corner.

    Raises InputError without a point, for one that is no pair, or a radius that is not above 0.
    """

    points: Sequence[Sequence[float]]  # (x, y), in the order they were passed
    radius: float
    erase: bool = False  # take the mask away instead

    def __post_init__(self) -> None:
        if not self.points or any(len(point) != 2 for point in self.points):
            raise InputError(f"a stroke needs points (x, y), got {self.points}")
        if not self.radius > 0:
            raise InputError(f"the brush's radius must be above 0, got {self.radius}")


def paint_mask(strokes: Sequence[Stroke], side: int) -> Tensor:
    """The mask that strokes leave, each over those before it: bool (1, 1, side, side)."""
    middle = torch.arange(side, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    pixels = torch.stack([x, y], dim=-1)  # (side, side, 2)
    mask = torch.zeros(side, side, dtype=torch.bool)
    for stroke in strokes:
        path = torch.tensor(stroke.points, dtype=torch.float64)
        near = _distance(pixels, path) <= stroke.radius
        mask = mask & ~near if stroke.erase else mask | near
    return mask[None, None]


def face_masks(side: int = 64) -> dict[str, Tensor]:
    """Parts of a face, as pictures of `celeba64` are cut: name -> bool (1, 1, side, side)."""
    left = torch.zeros(1, 1, side, side, dtype=torch.bool)
    left[..., : side // 2] = True
    below = left.transpose(2, 3).flip(2)
    k = side / 64
    parts = {
        "eyes": [Stroke([(21 * k, 29 * k), (44 * k, 29 * k)], 7 * k)],
        "mouth": [Stroke([(26 * k, 50 * k), (40 * k, 50 * k)], 7 * k)],
        "hair": [
            Stroke([(0, 64 * k), (2 * k, 20 * k), (20 * k, 4 * k)], 10 * k),
            Stroke([(20 * k, 4 * k), (44 * k, 4 * k)], 10 * k),
            Stroke([(44 * k, 4 * k), (62 * k, 20 * k), (64 * k, 64 * k)], 10 * k),
        ],
    }
    painted = {name: paint_mask(strokes, side) for name, strokes in parts.items()}
    return {**painted, "left half": left, "lower half": below}


def veiled(x: Tensor, mask: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] with the mask, bool (B or 1, 1, H, W), lying on them.

    As uint8 (B, 3, H, W): a chequered veil, so that it is seen by form and not by colour alone.
    """
    H, W = x.shape[2:]
    if mask.dtype != torch.bool or mask.shape[1:] != (1, H, W):
        found = f"{mask.dtype} {tuple(mask.shape)}"
        raise InputError(f"mask must be bool (B, 1, {H}, {W}), got {found}")
    row, column = torch.arange(H)[:, None] // 2, torch.arange(W) // 2
    return torch.where(mask & ((row + column) % 2 == 0), _VEIL, to_uint8(x))


def _distance(pixels: Tensor, path: Tensor) -> Tensor:
    # to the nearest of the path's pieces; a path of one point is a piece of length 0
    start, end = (path, path) if len(path) == 1 else (path[:-1], path[1:])
    along = end - start  # (P, 2)
    length = along.square().sum(1).clamp(min=1e-12)
    away = pixels[:, :, None] - start  # (side, side, P, 2)
    share = ((away * along).sum(-1) / length).clamp(0, 1)
    return (away - share[..., None] * along).norm(dim=-1).amin(-1)
