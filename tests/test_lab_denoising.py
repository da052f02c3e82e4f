"""The film of the reverse process shows each state where it belongs."""

import pytest
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
from ldm_edu.lab.denoising import SIDE, denoising_film


@pytest.fixture(scope="module")
def pipe():
    autoencoder = Autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(4, 8), blocks=1, groups=2)
    )
    unet = UNet(UNetConfig(4, 4, channels=(8,), attention=(True,), blocks=1, groups=4))
    return LatentDiffusion(
        filled(autoencoder), filled(unet, 1), NoiseSchedule(), "v", image_size=16
    )


def places(frame, picture):
    """At which x a frame shows a decoded picture, enlarged by whole pixels."""
    scale = SIDE // picture.shape[-1]
    large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    windows = frame.unfold(1, SIDE, 1).unfold(2, SIDE, 1)  # (3, y, x, SIDE, SIDE)
    return (windows == large[:, None, None]).flatten(3).all(3).all(0).nonzero()[:, 1].tolist()


def test_every_state_has_a_frame_with_the_decoded_latent_and_the_decoded_guess(pipe):
    states = list(pipe.denoise(2, steps=3))
    film = denoising_film(pipe, states, columns=2)
    assert len(film.frames) == len(states) == 4 and film.start == 3
    assert film.labels[0].startswith("t = 1000") and film.labels[-1].startswith("t = 0")
    third = film.frames.shape[3] // 3
    for frame, state in zip(film.frames, states, strict=True):
        decoded = [to_uint8(pipe.decode(z)) for z in (state.z_t, state.z0_hat)]
        for noisy, guess in zip(*decoded, strict=True):
            shown = [[x // third for x in places(frame, p)] for p in (noisy, guess)]
            assert shown == ([[1, 2]] * 2 if state.t == 0 else [[1], [2]])


def test_no_states_are_refused(pipe):
    with pytest.raises(InputError, match="got none"):
        denoising_film(pipe, [])
