"""What an option of sampling does: the same noise, drawn anew at each place of a slider."""

from collections.abc import Mapping
from itertools import product

import torch

from ldm_edu.errors import InputError
from ldm_edu.film import MAT, Dial, Film
from ldm_edu.images import image_grid, to_uint8
from ldm_edu.pipeline import LatentDiffusion

SIDE = 128  # pixels of a picture in the film, at most
Places = Mapping[str, Mapping[str, object]]  # what stands at the slider -> options of `sample`


def sample_film(
    pipe: LatentDiffusion,
    n: int,
    name: str,
    places: Places,
    dials: Mapping[str, Places] | None = None,
    columns: int = 4,
    start: int | None = None,
    **options: object,
) -> Film:
    """A grid of `pipe.sample(n, ...)` for each place of a slider called `name`.

    places: label -> options there, e.g. {"5 steps": {"steps": 5}}. dials: more sliders, their
    name -> places. options: those that stay, such as seed and prompt. The noise is the same in
    all frames, so that picture k can be followed. start: the place shown first, else the last.
    Raises InputError for no places or an option given twice.
    """
    dials = dials or {}
    axes = [*dials.values(), places]
    if not places:
        raise InputError("places is empty: the slider needs at least one")
    frames = []
    for combination in product(*(axis.values() for axis in axes)):
        given = [options, *combination]
        names = [key for part in given for key in part]
        if len(set(names)) < len(names):
            raise InputError(f"an option is given twice in {names}")
        pictures = to_uint8(pipe.sample(n, **{k: v for part in given for k, v in part.items()}))
        scale = max(1, SIDE // pictures.shape[-1])
        frames.append(image_grid(pictures, columns, scale=scale, fill=MAT))
    sliders = [name, *dials]
    return Film(
        frames=torch.stack(frames),
        labels=list(places) * (len(frames) // len(places)),
        alt=f"A grid of {n} samples, from the same noise for each {' and '.join(sliders)}.",
        caption="Each place in the grid starts from the same noise in all frames.",
        start=len(places) - 1 if start is None else start,
        name=name,
        dials=[Dial(dial, list(each)) for dial, each in dials.items()],
        width=round(1.5 * frames[0].shape[2]),
    )
