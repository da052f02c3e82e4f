"""The grid of samples shows, at each place of its sliders, what these options draw."""

import pytest
import torch
from helpers import filled

from ldm_edu import (
    Autoencoder,
    AutoencoderConfig,
    LatentDiffusion,
    NoiseSchedule,
    UNet,
    UNetConfig,
)
from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8
from ldm_edu.lab.sampling import SIDE, sample_film

STEPS = {"1 step": {"steps": 1}, "3 steps": {"steps": 3}}
RULES = {"ddim": {"sampler": "ddim"}, "heun": {"sampler": "heun"}}


@pytest.fixture(scope="module")
def pipe():
    config = AutoencoderConfig(latent_channels=4, channels=(4, 8), blocks=1, groups=2)
    unet = UNet(UNetConfig(4, 4, channels=(8,), attention=(True,), blocks=1, groups=4))
    parts = filled(Autoencoder(config)), filled(unet, 1)
    return LatentDiffusion(*parts, NoiseSchedule(), "v", image_size=16)


def picture(frame, k, columns):
    """Picture k of a grid, one pixel each."""
    top, left = (k // columns) * (SIDE + 2), (k % columns) * (SIDE + 2)
    return frame[:, top : top + SIDE : SIDE // 16, left : left + SIDE : SIDE // 16]


def test_every_place_shows_what_its_options_draw(pipe):
    film = sample_film(pipe, 3, "Steps", STEPS, {"Sampler": RULES}, columns=2, seed=4)
    assert film.labels == ["1 step", "3 steps"] * 2
    assert [(d.name, d.places) for d in film.dials] == [("Sampler", ["ddim", "heun"])]
    frames = iter(film.frames)
    for rule in ("ddim", "heun"):
        for steps in (1, 3):
            wanted = to_uint8(pipe.sample(3, sampler=rule, steps=steps, seed=4))
            frame = next(frames)
            for k in range(3):
                assert torch.equal(picture(frame, k, 2), wanted[k])


def test_it_opens_at_the_last_place_or_where_it_is_told(pipe):
    assert sample_film(pipe, 1, "Steps", STEPS).start == 1
    film = sample_film(pipe, 1, "Steps", STEPS, start=0)
    assert film.start == 0 and film.dials == []


def test_no_places_and_options_given_twice_are_refused(pipe):
    with pytest.raises(InputError, match="empty"):
        sample_film(pipe, 1, "Steps", {})
    with pytest.raises(InputError, match="twice"):
        sample_film(pipe, 1, "Steps", STEPS, steps=5)
