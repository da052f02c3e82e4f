"""`shapes`: captioned pictures of plain objects, drawn from a seed.

Nothing is stored and nothing is downloaded: scene number `i` of a seed is always the same, and
drawing 20,000 of them takes a few seconds. What a scene may hold is defined in `scenes.py`.
"""

from itertools import product

import numpy as np
import torch

from ldm_edu.data.scenes import (
    BACKGROUNDS,
    COLORS,
    MAX_JITTER,
    PLACES,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    ShapeObject,
    apart,
    caption,
    held_out,
    parse,
)
from ldm_edu.data.source import ImageDataset
from ldm_edu.errors import InputError

__all__ = [
    "HELD_OUT",
    "SPLITS",
    "Scene",
    "ShapeObject",
    "caption",
    "held_out",
    "load_split",
    "make",
    "one_object",
    "parse",
    "random_scene",
    "random_scenes",
    "render",
]

HELD_OUT = ("any", "never", "only")
SPLITS = {  # count, seed, held_out
    "train": (20_000, 1, "never"),
    "test": (2_000, 2, "any"),
}
_DRAWS = 16  # random numbers a scene may use
_CHUNK = 2048  # scenes drawn at once


def make(count: int, seed: int, held_out: str = "any", start: int = 0) -> ImageDataset:
    """Draws scenes number `start` ... `start + count - 1` of `seed`.

    held_out: "any" draws from all combinations of color, shape and place; "never" avoids those
    that `scenes.held_out` marks; "only" draws pictures in which every object is a marked one.
    `labels` is the class 0..29 of the first object: shape * 6 + color (`ShapeObject.label`).
    Raises InputError for a count below 1, a negative seed or start, or an unknown `held_out`.
    """
    scenes = random_scenes(count, seed, held_out, start)
    return ImageDataset(
        name="shapes",
        split=f"seed {seed}",
        images=render(scenes),
        captions=[caption(scene) for scene in scenes],
        labels=torch.tensor([scene.objects[0].label for scene in scenes]),
    )


def load_split(split: str) -> ImageDataset:
    """The "train" split: 20,000 scenes of seed 1 with no held-out combination; or the "test"
    split: 2,000 scenes of seed 2 from all combinations, about one in seven with a new one.
    """
    count, seed, combinations = SPLITS[split]
    return make(count, seed, combinations)._replace(split=split)


def one_object(dataset: ImageDataset) -> ImageDataset:
    """The pictures of `dataset` that show a single object: about half of them."""
    single = [i for i, text in enumerate(dataset.captions) if len(parse(text).objects) == 1]
    return dataset._replace(
        images=dataset.images[single],
        captions=[dataset.captions[i] for i in single],
        labels=dataset.labels[single],
    )


def random_scene(seed: int, index: int = 0, held_out: str = "any") -> Scene:
    """Scene number `index` of `seed`: the one that `make` draws there."""
    return random_scenes(1, seed, held_out, index)[0]


def random_scenes(count: int, seed: int, held_out: str = "any", start: int = 0) -> list[Scene]:
    """The scenes that `make` draws. Half hold one object, half hold two that lie apart."""
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("start", start, 0)):
        if not isinstance(value, int) or not least <= value < 2**63:
            raise InputError(
                f"{name} is {value!r}, expected an integer from {least} to 2^63 - 1"
            )
    if held_out not in HELD_OUT:
        raise InputError(f"held_out is {held_out!r}, expected one of: {', '.join(HELD_OUT)}")
    kinds = _kinds(held_out)
    partners = {place: [k for k in kinds if apart(place, k[2])] for place in PLACES}
    paired = [kind for kind in kinds if partners[kind[2]]]
    scenes = []
    for u in _uniform(count, seed, start):
        two = u[0] < 0.5
        objects = (_object(paired if two else kinds, u[2:6]),)
        if two:
            objects += (_object(partners[objects[0].place], u[6:10]),)
        scenes.append(Scene(objects, _pick(list(BACKGROUNDS), u[1])))
    return scenes


def render(scenes: list[Scene]) -> torch.Tensor:
    """Draws scenes, antialiased: uint8 (N, 3, 32, 32).

    A pixel is covered by 1/2 - its signed distance to the outline, clipped to [0, 1].
    Raises InputError for an empty list.
    """
    if not scenes:
        raise InputError("render got no scenes, expected at least one")
    chunks = (scenes[i : i + _CHUNK] for i in range(0, len(scenes), _CHUNK))
    return torch.cat([_render(chunk) for chunk in chunks])


def _render(scenes):
    images = np.array([BACKGROUNDS[s.background] for s in scenes], np.float32)
    images = np.tile(images[:, :, None, None], (1, 1, SIDE, SIDE))  # (N, 3, 32, 32)
    for shape, k in product(SHAPES, (0, 1)):  # the k-th objects of one shape together
        rows = [
            i
            for i, s in enumerate(scenes)
            if [o.shape for o in s.objects[k : k + 1]] == [shape]
        ]
        objects = [scenes[i].objects[k] for i in rows]
        if objects:
            color = np.array([COLORS[o.color] for o in objects], np.float32)[:, :, None, None]
            cover = _coverage(shape, objects)[:, None]  # (n, 1, 32, 32)
            images[rows] += cover * (color - images[rows])
    return torch.from_numpy(np.rint(images).astype(np.uint8))


def _coverage(shape, objects):
    center = np.array([o.center for o in objects], np.float32)[:, :, None, None]
    radius = np.array([SIZES[o.size] for o in objects], np.float32)[:, None, None]
    pixel = np.arange(SIDE, dtype=np.float32) + 0.5  # pixel centers
    distance = _signed_distance(
        shape, pixel[None, :] - center[:, 0], pixel[:, None] - center[:, 1], radius
    )
    return np.clip(0.5 - distance, 0.0, 1.0)


def _signed_distance(shape, x, y, r):
    """Distance in pixels to the outline, negative inside; y points down."""
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r
    if shape == "triangle":  # three half-planes, 0.55 r from the centroid
        slope = np.abs(x) * np.sqrt(0.75) - y * 0.5
        return np.maximum(slope, y) - 0.55 * r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r
    wide = np.maximum(np.abs(x) - r, np.abs(y) - 0.36 * r)  # a cross is two bars
    tall = np.maximum(np.abs(x) - 0.36 * r, np.abs(y) - r)
    return np.minimum(wide, tall)


def _uniform(count, seed, start):
    """(count, 16) numbers in [0, 1): row i depends on the seed and on start + i alone."""
    bits = np.random.Philox(key=seed, counter=start * _DRAWS // 4).random_raw(count * _DRAWS)
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(count, _DRAWS).tolist()


def _kinds(combinations):
    kinds = [(shape, color, place) for shape in SHAPES for color in COLORS for place in PLACES]
    marked = {k for k in kinds if held_out(ShapeObject(k[0], k[1], "small", k[2]))}
    wanted = {"any": set(kinds), "never": set(kinds) - marked, "only": marked}[combinations]
    return [kind for kind in kinds if kind in wanted]


def _object(kinds, u):
    shape, color, place = _pick(kinds, u[0])
    jitter = tuple((2 * v - 1) * MAX_JITTER for v in u[2:4])
    return ShapeObject(shape, color, _pick(list(SIZES), u[1]), place, jitter)


def _pick(names, u):
    return names[int(u * len(names))]
