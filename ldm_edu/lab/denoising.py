"""The reverse process as a film: the latent as it loses its noise, beside what it will be."""

from collections.abc import Sequence

import torch

from ldm_edu.errors import InputError
from ldm_edu.film import Film, noise_label, side_by_side
from ldm_edu.images import latent_to_rgb, to_uint8
from ldm_edu.lab.latent_space import enlarged
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.sampling import State

SIDE = 128  # pixels of a picture in the film
_PANELS = ("z_t: the latent, as colours", "z_t decoded", "z0_hat decoded: the model's guess")


def denoising_film(pipe: LatentDiffusion, states: Sequence[State], columns: int = 2) -> Film:
    """Film of one run of `pipe.denoise`: its states in order, the clean one last.

    A frame has three panels, each a grid of the N samples: z_t as colours (three directions of
    its channels, one palette for the whole film), z_t decoded, and z0_hat decoded. The film
    opens at its end. Raises InputError for no states.
    """
    if not states:
        raise InputError("a film needs states, got none: list(pipe.denoise(4)) gives some")
    z_t = torch.stack([s.z_t for s in states]).float().cpu()  # (F, N, C, h, w)
    colours = latent_to_rgb(z_t.flatten(0, 1)).unflatten(0, z_t.shape[:2])
    noisy, guess = (
        torch.stack([to_uint8(pipe.decode(z)) for z in frames])
        for frames in (z_t, [s.z0_hat for s in states])
    )
    tracks = [enlarged(track, SIDE) for track in (colours, noisy, guess)]
    alpha_bar = pipe.schedule.alpha_bar
    return Film(
        frames=side_by_side(tracks, columns),
        labels=[noise_label(s.t, alpha_bar[s.t].item()) for s in states],
        alt="Samples on their way from noise to pictures: the noisy latent, the noisy latent "
        "decoded, and the picture that the model expects, which is blurred at first.",
        caption="One run of the reverse process, from t = T to t = 0.",
        start=len(states) - 1,
        panels=_PANELS,
        name="Step",
    )
