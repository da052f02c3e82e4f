"""The small language of `shapes`: what a picture may show, and the sentence that says it.

A scene is a plain background with one or two objects. An object has a shape, a color, a size
and a place on a 3x3 grid. `caption` and `parse` translate between scenes and sentences.
"""

import re
from dataclasses import dataclass

from ldm_edu.errors import InputError

SIDE = 32  # pixels
COLORS = {  # sRGB 0..255, at least 100 apart
    "red": (220, 35, 40),
    "orange": (245, 140, 20),
    "green": (25, 155, 70),
    "blue": (35, 85, 220),
    "purple": (150, 45, 175),
    "black": (25, 25, 30),
}
BACKGROUNDS = {  # at least 50 apart, and 170 from every object color
    "white": (255, 255, 255),
    "light gray": (205, 205, 205),
    "pale yellow": (255, 243, 180),
    "pale blue": (196, 226, 252),
}
SHAPES = ("circle", "square", "triangle", "ring", "cross")
SIZES = {"small": 3.5, "medium": 5.0, "large": 6.5}  # radius in pixels
PLACES = {  # (column, row) of the 3x3 grid, in reading order
    "at the top left": (0, 0),
    "at the top": (1, 0),
    "at the top right": (2, 0),
    "on the left": (0, 1),
    "in the center": (1, 1),
    "on the right": (2, 1),
    "at the bottom left": (0, 2),
    "at the bottom": (1, 2),
    "at the bottom right": (2, 2),
}
PITCH = 8.0  # pixels from one grid place to the next; the center is at (16, 16)
MAX_JITTER = 0.75  # pixels, each way
LABELS = len(SHAPES) * len(COLORS)

_OBJECT = re.compile(r"an? (\S+) (\S+) (\S+) ((?:at|on|in) the .+)")
_SENTENCE = re.compile(r"(.+) on a (.+) background")
_EXAMPLE = "'a large red circle in the center on a white background'"


@dataclass(frozen=True)
class ShapeObject:
    """One object, by name; `jitter` is its (dx, dy) in pixels from the middle of its place.

    Raises InputError for a name outside SHAPES, COLORS, SIZES or PLACES, or for a jitter beyond
    MAX_JITTER.
    """

    shape: str
    color: str
    size: str
    place: str
    jitter: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self):
        _known("shape", self.shape, SHAPES)
        _known("color", self.color, COLORS)
        _known("size", self.size, SIZES)
        _known("place", self.place, PLACES)
        if len(self.jitter) != 2 or not all(abs(d) <= MAX_JITTER for d in self.jitter):
            raise InputError(
                f"jitter is {self.jitter}, expected (dx, dy) within +-{MAX_JITTER} pixels"
            )

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) in pixels; (0, 0) is the top left corner of the image."""
        column, row = PLACES[self.place]
        dx, dy = self.jitter
        return SIDE / 2 + PITCH * (column - 1) + dx, SIDE / 2 + PITCH * (row - 1) + dy

    @property
    def label(self) -> int:
        """The class 0..29 = index of the shape * 6 + index of the color."""
        return SHAPES.index(self.shape) * len(COLORS) + list(COLORS).index(self.color)


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background named in BACKGROUNDS.

    Raises InputError for another number of objects, an unknown background, or two objects that
    could touch: they must be two columns or two rows apart (see `apart`).
    """

    objects: tuple[ShapeObject, ...]
    background: str = "white"

    def __post_init__(self):
        _known("background", self.background, BACKGROUNDS)
        if len(self.objects) not in (1, 2):
            raise InputError(f"a scene has 1 or 2 objects, found {len(self.objects)}")
        if len(self.objects) == 2 and not apart(*(obj.place for obj in self.objects)):
            raise InputError(
                f"places {' and '.join(repr(o.place) for o in self.objects)} are too close, "
                "expected two objects that are two columns or two rows apart"
            )


def apart(place_a: str, place_b: str) -> bool:
    """True if objects of any size at these two places cannot touch."""
    return max(abs(a - b) for a, b in zip(PLACES[place_a], PLACES[place_b], strict=True)) == 2


def held_out(obj: ShapeObject) -> bool:
    """True for the 28 of 270 (color, shape, place) combinations that training never sees.

    The rule is (3 * color + 7 * shape + place) % 10 == 0 over the indices in COLORS, SHAPES and
    PLACES. Every pair of a color and a shape, a color and a place, or a shape and a place is
    still seen in training: what is held out is only their combination.
    """
    color, place = list(COLORS).index(obj.color), list(PLACES).index(obj.place)
    return (3 * color + 7 * SHAPES.index(obj.shape) + place) % 10 == 0


def caption(scene: Scene) -> str:
    """The scene in English; jitter is not said. `parse` reads it back."""
    objects = " and ".join(f"a {o.size} {o.color} {o.shape} {o.place}" for o in scene.objects)
    return f"{objects} on a {scene.background} background"


def parse(text: str) -> Scene:
    """The scene that `text` describes, with jitter 0: the inverse of `caption`.

    Case and extra spaces do not matter. Raises InputError if the sentence is not of the form
    that `caption` writes, or names something unknown.
    """
    if not isinstance(text, str):
        raise InputError(f"caption is a {type(text).__name__}, expected str like {_EXAMPLE}")
    sentence = _SENTENCE.fullmatch(" ".join(text.lower().split()))
    if sentence is None:
        raise InputError(f"cannot read caption {text!r}, expected one like {_EXAMPLE}")
    objects = []
    for part in sentence[1].split(" and "):
        words = _OBJECT.fullmatch(part)
        if words is None:
            raise InputError(f"cannot read {part!r} in a caption, expected one like {_EXAMPLE}")
        size, color, shape, place = words.groups()
        objects.append(ShapeObject(shape, color, size, place))
    return Scene(tuple(objects), sentence[2])


def _known(kind, name, names):
    if not isinstance(name, str) or name not in names:
        raise InputError(f"unknown {kind} {name!r}, expected one of: {', '.join(names)}")
