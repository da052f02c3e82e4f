"""Pictures to try things on: a photograph, a drawn shape, or one of your own."""

import io
from pathlib import Path

import torch
from torch import Tensor

from ldm_edu.data import shapes
from ldm_edu.errors import DataError, InputError
from ldm_edu.images import from_uint8

Source = str | Path | bytes


def photograph(side: int = 64) -> Tensor:
    """Grace Hopper in 1984, by J. S. Davis of the US Navy, public domain: (3, side, side).

    float32 in [-1, 1]. The file comes with matplotlib, so it is there with no network.
    """
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        return open_picture(file.read(), side, top=True)


def drawing(caption: str) -> Tensor:
    """A picture of the `shapes` data set from its caption: float32 (3, 32, 32) in [-1, 1].

    Example: "a large red circle in the center on a white background".
    Raises InputError for other sentences.
    """
    return from_uint8(shapes.render([shapes.parse(caption)]))[0]


def open_picture(source: Source, side: int = 64, top: bool = False) -> Tensor:
    """A picture file, by path or as bytes, cut square and resized: (3, side, side) in [-1, 1].

    The square is cut from the middle, or with `top` from the upper end. Raises DataError if
    the file is missing or no picture, InputError for a side below 8.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    if side < 8:
        raise InputError(f"side must be at least 8 pixels, got {side}")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        image = Image.open(file).convert("RGB")
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file {str(source)!r}; give the path of a picture"
        ) from error
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            "this file is no picture that can be read; try a PNG or a JPEG"
        ) from error
    square = min(image.size)
    left, upper = (image.width - square) // 2, 0 if top else (image.height - square) // 2
    box = left, upper, left + square, upper + square
    image = image.resize((side, side), Image.Resampling.LANCZOS, box=box)
    return from_uint8(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0]
