"""Walks through latent space, computed once and looked at as films.

The edits here are plain: add, scale, mix, noise. What they do to a picture is for the decoder
to say.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film, side_by_side
from ldm_edu.images import latent_to_rgb, to_uint8
from ldm_edu.schedule import NoiseSchedule

SIDE = 128  # pixels of a picture in a film
_PANELS = ("the latent, as colours", "decoded")


def along(z: Tensor, direction: Tensor, amounts: Sequence[float]) -> Tensor:
    """z (N, C, h, w) moved by each amount of a direction (C, h, w): (F, N, C, h, w)."""
    return torch.stack([z + amount * direction for amount in amounts])


def straight(a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
    """From a to b in a straight line, (1 - s) a + s b for each share s: (F, *a.shape)."""
    return torch.stack([(1 - s) * a + s * b for s in shares])


def scaled_channel(z: Tensor, channel: int, factors: Sequence[float]) -> Tensor:
    """z (N, C, h, w) with one channel times each of `factors`: (F, N, C, h, w)."""
    if not 0 <= channel < z.shape[1]:
        raise InputError(f"channel must lie in 0..{z.shape[1] - 1}, got {channel}")
    edited = z.repeat(len(factors), 1, 1, 1, 1)
    edited[:, :, channel] *= torch.tensor(factors).to(z)[:, None, None, None]
    return edited


def noised_where(
    schedule: NoiseSchedule, z: Tensor, where: Tensor, eps: Tensor, levels: Sequence[int]
) -> Tensor:
    """z (N, C, h, w) noised to each level where `where` (h, w) is True: (F, N, C, h, w).

    eps as z. Raises InputError for another shape of `where`, or a level out of range.
    """
    if where.shape != z.shape[2:] or where.dtype != torch.bool:
        found = f"{where.dtype} {tuple(where.shape)}"
        raise InputError(f"where must be bool {tuple(z.shape[2:])}, got {found}")
    return torch.stack([torch.where(where, q_sample(schedule, z, t, eps), z) for t in levels])


def latent_film(
    decode: Callable[[Tensor], Tensor],
    shots: Mapping[str, Tensor],
    labels: Sequence[str],
    dial: str,
    name: str,
    alt: str,
    caption: str = "",
    start: int = 0,
) -> Film:
    """Film of edited latents: as colours, and decoded; one shot a place of the dial.

    decode: (B, C, h, w) -> pictures (B, 3, H, W) in [-1, 1]. shots: what the dial says -> all
    the steps of one edit, (F, N, C, h, w), F as many as labels. All shots have one palette.
    Raises InputError where they differ in shape.
    """
    shapes = {tuple(shot.shape) for shot in shots.values()}
    if len(shapes) != 1 or len(labels) != next(iter(shapes))[0]:
        raise InputError(
            f"shots must have one shape, with {len(labels)} labels; got {sorted(shapes)}"
        )
    z = torch.cat(list(shots.values()))  # (shots F, N, C, h, w)
    colours = latent_to_rgb(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    pictures = torch.stack([to_uint8(decode(frame)) for frame in z])
    return Film(
        frames=side_by_side([colours, enlarged(pictures)], 2 if z.shape[1] > 1 else 1),
        labels=list(labels) * len(shots),
        alt=alt,
        caption=caption,
        start=start,
        panels=_PANELS,
        name=name,
        dials=[Dial(dial, list(shots))] if len(shots) > 1 else [],
    )


def mix_film(ways: Mapping[str, Tensor], shares: Sequence[float], alt: str) -> Film:
    """Film from one picture to another, each way of mixing in a panel of its own.

    ways: what the panel is called -> pictures (F, N, 3, H, W) in [-1, 1], F as many as shares.
    """
    tracks = [
        enlarged(to_uint8(x.flatten(0, 1)).unflatten(0, x.shape[:2])) for x in ways.values()
    ]
    return Film(
        frames=side_by_side(tracks, 1),
        labels=[f"{share:.0%} of the second" for share in shares],
        alt=alt,
        caption="Left to right, the pictures are mixed where the heading says.",
        start=len(shares) // 2,
        panels=list(ways),
        name="Mix",
    )


def enlarged(pictures: Tensor, side: int = SIDE) -> Tensor:
    """uint8 (F, N, 3, H, W) with each pixel repeated until H is at most `side`."""
    scale = max(1, side // pictures.shape[3])
    return pictures.repeat_interleave(scale, 3).repeat_interleave(scale, 4)
