"""The judge of `shapes`: which objects does a picture show, and is it a clean picture at all?

It sees pixels only. `reading.py` measures; here each measurement meets a limit. The limits lie
above what rendered scenes reach after noise of sigma 6/255, a Gaussian blur of 0.5 pixels or
JPEG quality 90 (about what an autoencoder of 32 dB does), and below what broken pictures show:
noise, smears, melted outlines, mixed colors, stray blobs, shaded backgrounds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ldm_edu.data.reading import MOST, Ground, Reading, find_blobs, read_blobs
from ldm_edu.data.scenes import (
    BACKGROUNDS,
    COLORS,
    PITCH,
    PLACES,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    ShapeObject,
)
from ldm_edu.errors import InputError

# limit: typical value in rendered scenes, clean / JPEG 90
MAX_GROUND_ERROR = 12.0  # gray levels from the named background: 0.2 / 1.5
MIN_GROUND_SHARE = 0.6  # of the picture: 0.89, and never below 0.70
MAX_SLOPE = 10.0  # gray levels between quadrants: 0 / 1.5
MAX_STAIN = 20.0  # gray levels, any 3x3 patch of background: 0.2 / 8
MAX_RESIDUAL = 45.0  # gray levels, RMS over an object: 0.2 / 16
MAX_PATCH = 66.0  # gray levels, any 3x3 patch of an object: 0.3 / 28; two colors: 76 up
MIN_STRENGTH = 0.72  # of the full color: 1.0 / 1.03
MAX_MISFIT = 0.35  # pixels between the outline and the ideal one: 0.05 / 0.14
MAX_AMBIGUITY = 0.85  # misfit of the best shape / of the second best: 0.2 / 0.4
RADIUS = (2.75, 7.25)  # pixels; the named sizes are 3.5, 5.0 and 6.5
_CHUNK = 256  # pictures measured at once


class Verdict(NamedTuple):
    """What the judge read in one picture.

    objects: in reading order, jitter 0; empty unless accepted. background: its name, or None
    if the picture failed before its objects were read.
    accepted: a plain named background, one or two readable objects, and nothing else.
    reason: why the picture was rejected, with the value and the limit; "" if accepted.
    """

    objects: tuple[ShapeObject, ...]
    background: str | None
    accepted: bool
    reason: str


def judge(images: Tensor) -> list[Verdict]:
    """Reads shape, color, size and place of each object back from uint8 (N, 3, 32, 32).

    Raises InputError for another dtype or shape; float images in [-1, 1] become uint8 by
    `((x + 1) * 127.5).round().clamp(0, 255).byte()`.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {found}, expected a torch.uint8 tensor in 0..255")
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIDE, SIDE):
        shape = tuple(images.shape)
        raise InputError(f"images have shape {shape}, expected (N, 3, {SIDE}, {SIDE})")
    verdicts = []
    for chunk in images.detach().cpu().split(_CHUNK):
        verdicts += _judge(chunk.float()) if len(chunk) else []
    return verdicts


def matches(verdict: Verdict, scene: Scene) -> bool:
    """True if the picture is accepted and shows this scene: same background, same objects with
    the same shape, color, size and place, in any order. Jitter does not count.
    """
    asked = {(o.shape, o.color, o.size, o.place) for o in scene.objects}
    shown = {(o.shape, o.color, o.size, o.place) for o in verdict.objects}
    same = asked == shown and len(scene.objects) == len(verdict.objects)
    return verdict.accepted and same and verdict.background == scene.background


def _judge(images):
    ground, blobs = find_blobs(images)
    read = read_blobs(images, ground, blobs) if len(blobs.image) else None
    return [
        _verdict(i, ground, read, (blobs.image == i).nonzero()[:, 0])
        for i in range(len(images))
    ]


def _verdict(image, ground, read, rows):
    background = list(BACKGROUNDS)[ground.name[image]]
    if reason := _ground_fault(image, ground):
        return Verdict((), None, False, reason)
    for row in rows:
        if reason := _object_fault(row, read):
            return Verdict((), background, False, reason)
    objects = sorted(
        (_object(row, read) for row in rows), key=lambda o: list(PLACES).index(o.place)
    )
    return Verdict(tuple(objects), background, True, "")


def _ground_fault(image: int, ground: Ground) -> str:
    return _first_fault(
        ("background share", ground.share[image], MIN_GROUND_SHARE, 1.0),
        ("background color error", ground.error[image], 0.0, MAX_GROUND_ERROR),
        ("number of separate regions", ground.regions[image], 1, MOST),
        ("background slope", ground.slope[image], 0.0, MAX_SLOPE),
        ("stain on the background", ground.stain[image], 0.0, MAX_STAIN),
    )


def _object_fault(row: Tensor, read: Reading) -> str:
    best, second = read.misfit[row].topk(2, largest=False).values
    radius = read.radius[row, read.misfit[row].argmin()]
    return _first_fault(
        ("color strength", read.strength[row], MIN_STRENGTH, float("inf")),
        ("color residual", read.residual[row], 0.0, MAX_RESIDUAL),
        ("patch of another color", read.patch[row], 0.0, MAX_PATCH),
        ("outline misfit", best, 0.0, MAX_MISFIT),
        ("shape ambiguity", best / second, 0.0, MAX_AMBIGUITY),
        ("radius", radius, *RADIUS),
    )


def _first_fault(*checks):
    for name, value, least, most in checks:
        if not least <= value <= most:
            return f"{name} is {float(value):.3g}, expected {least:g} to {most:g}"
    return ""


def _object(row, read):
    shape = int(read.misfit[row].argmin())
    radius = float(read.radius[row, shape])
    size = min(SIZES, key=lambda name: abs(SIZES[name] - radius))
    cell = ((read.center[row] - SIDE / 2) / PITCH).round().clamp(-1, 1).int() + 1
    place = next(name for name, at in PLACES.items() if at == tuple(cell.tolist()))
    return ShapeObject(SHAPES[shape], list(COLORS)[read.color[row]], size, place)
