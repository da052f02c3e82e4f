"""A picture changed by a model, as films: varied, a part painted anew, a word swapped."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film, side_by_side
from ldm_edu.images import to_uint8
from ldm_edu.lab.latent_space import enlarged
from ldm_edu.lab.masks import veiled
from ldm_edu.lab.word_swap import swap_word
from ldm_edu.pipeline import LatentDiffusion

SIDE = 64  # pixels of a picture in a grid; four times as large alone
WIDTH = 780  # CSS pixels of a frame of grids
_KEPT = ("attention", "caption")  # of `swap_word`


def vary_film(
    pipe: LatentDiffusion,
    x0: Tensor,
    captions: Sequence[str],
    strengths: Sequence[float],
    n: int = 4,
    steps: int = 20,
    seed: int = 0,
) -> Film:
    """Image to image, over strength and caption: n variations of one picture x0 (3, H, W).

    Three panels: x0; where the sampler starts, x0 noised in latent space and decoded; where it
    ends. Raises InputError as `pipe.vary` does.
    """
    _needed(captions, "captions")
    x = x0.expand(n, -1, -1, -1)
    z0, noise, levels = pipe.encode(x), pipe.noise(n, seed), pipe.timesteps(steps)
    frames = []
    for caption in captions:
        for strength in strengths:
            options = {"prompt": caption, "steps": steps, "noise": noise, "seed": seed}
            varied = pipe.vary(x, strength, **options)
            start = q_sample(pipe.schedule, z0, levels[-int(steps * strength)], noise.to(z0))
            frames.append(torch.stack([x, pipe.decode(start), varied]))
    return Film(
        frames=_panels(frames, columns=2 if n > 1 else 1),
        labels=[f"strength {s:.2g}" for s in strengths] * len(captions),
        alt="A picture; the same with noise, from which the sampler starts; and what it makes "
        "of it: close to the picture at low strength, new at full strength.",
        caption="Each place of a grid has its own noise, the same in all frames.",
        start=len(strengths) // 2,
        panels=["the picture", "start: noised and decoded", "end"],
        name="Strength",
        width=WIDTH,
        dials=[Dial("Caption", list(captions))] if len(captions) > 1 else [],
    )


def inpainting_film(
    pipe: LatentDiffusion,
    x0: Tensor,
    masks: Mapping[str, Tensor],
    captions: Sequence[str],
    **options: object,
) -> Film:
    """Masks over one picture x0 (3, H, W), and what is painted there under each caption.

    masks: what the dial says -> bool (1, 1, H, W). options: of `pipe.inpaint`. A mask has the
    same noise under all captions. Raises InputError as `pipe.inpaint` does.
    """
    _needed(captions, "captions")
    x, mask = x0.expand(len(masks), -1, -1, -1), torch.cat(list(masks.values()))
    painted = [pipe.inpaint(x, mask, prompt=caption, **options) for caption in captions]
    tracks = [veiled(x, mask)[:, None].repeat_interleave(len(captions), 0)]
    tracks.append(to_uint8(torch.stack(painted, 1).flatten(0, 1))[:, None])
    return Film(
        frames=side_by_side([enlarged(track, 4 * SIDE) for track in tracks], 1),
        labels=list(captions) * len(masks),
        alt="A picture with a mask over a part of it, and the same picture with that part "
        "painted anew.",
        caption="Only what is masked changes; the other pixels are the very same.",
        start=0,
        panels=["the mask", "painted anew"],
        name="Caption",
        dials=[Dial("Mask", list(masks))] if len(masks) > 1 else [],
    )


def swap_film(
    pipe: LatentDiffusion,
    pairs: Mapping[str, tuple[str, str]],
    shares: Sequence[float],
    n: int = 4,
    **options: object,
) -> Film:
    """A word swapped in a caption, over what is kept of the first and for how many steps.

    pairs: what the dial says -> first and second caption. options: of `swap_word`.
    """
    _needed(pairs, "pairs")
    frames = [
        swap_word(pipe, *pair, share, n, keep=keep, **options)
        for pair in pairs.values()
        for keep in _KEPT
        for share in shares
    ]
    kept = Dial("What is kept", _KEPT)
    return Film(
        frames=_panels(frames, columns=2 if n > 1 else 1),
        labels=[f"for {share:.0%} of the steps" for share in shares] * len(_KEPT) * len(pairs),
        alt="Pictures of a caption, and beside them pictures of the caption with one word "
        "changed, from the same noise.",
        caption="The same place of both grids starts from the same noise.",
        start=0,
        panels=["the first caption", "one word changed"],
        name="Kept",
        width=WIDTH,
        dials=[Dial("Swap", list(pairs)), kept] if len(pairs) > 1 else [kept],
    )


def _panels(frames: Sequence[Tensor], columns: int) -> Tensor:
    pictures = torch.stack(
        [to_uint8(f.flatten(0, 1)).unflatten(0, f.shape[:2]) for f in frames]
    )
    return side_by_side([enlarged(track, SIDE) for track in pictures.unbind(1)], columns)


def _needed(places: Sequence | Mapping, name: str) -> None:
    if not places:
        raise InputError(f"{name} is empty: the film needs at least one")
