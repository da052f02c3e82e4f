"""The rate-distortion explorer: its codes are PCA's, its numbers are counted, its dot moves."""

import pytest
import torch

from ldm_edu.errors import InputError
from ldm_edu.lab.compression import (
    SIDE,
    numbers_kept,
    pca_codes,
    rate_distortion_film,
)
from ldm_edu.lab.figures import ORANGE, RED
from ldm_edu.pca import patch_pca, pca_reconstruct

FACTORS, CHANNELS = (2, 4), (1, 3, 12, 16)


def smooth(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, 16, mode="bilinear")


@pytest.fixture(scope="module")
def made():
    train, x = smooth(40, 0), smooth(6, 1)
    codes = pca_codes(train, x, FACTORS, CHANNELS)
    return train, x, codes, rate_distortion_film(x, codes, 0.9 * x, (4, 2))


def color(hexadecimal: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(hexadecimal[1:])), dtype=torch.uint8)


def centre(frame: torch.Tensor, hexadecimal: str) -> torch.Tensor:
    left = 5 * SIDE + 4 * 6 + 12  # the chart begins there
    hits = (frame[:, :, left:].permute(1, 2, 0) == color(hexadecimal)).all(2).nonzero()
    assert len(hits) > 10
    return hits.double().mean(0)


def test_the_codes_are_patch_pca_of_the_training_pictures(made):
    train, x, codes, _ = made
    assert list(codes) == [(f, c) for f in FACTORS for c in CHANNELS]
    for f, c in ((2, 1), (4, 3), (4, 16)):
        basis, mean, _ = patch_pca(train, f, c)
        assert torch.allclose(codes[f, c], pca_reconstruct(x, f, basis, mean), atol=1e-4)


def test_more_channels_are_never_worse_and_all_of_them_lose_nothing(made):
    _, x, codes, _ = made
    for f in FACTORS:
        errors = [(codes[f, c] - x).square().mean().item() for c in CHANNELS]
        assert errors == sorted(errors, reverse=True)
    for c in (12, 16):  # a patch of 2 x 2 has 12 values
        assert torch.allclose(codes[2, c], x, atol=1e-5)


@pytest.mark.parametrize(
    ("f", "channels", "wanted"), [(2, 1, 64), (4, 3, 48), (2, 12, 768), (2, 16, 768)]
)
def test_numbers_are_counted_and_end_at_those_of_the_picture(f, channels, wanted):
    assert numbers_kept(torch.zeros(1, 3, 16, 16), f, channels) == wanted


def test_a_frame_shows_pictures_their_pca_and_the_trained(made):
    _, x, codes, film = made
    scale = SIDE // 16
    for k, code in enumerate(codes):
        for row, version in enumerate((x, codes[code], 0.9 * x)):
            top = row * (SIDE + 6)
            for column in (0, 4):
                left = column * (SIDE + 6)
                shown = film.frames[k, :, top : top + SIDE : scale, left : left + SIDE : scale]
                wanted = ((version[column].clamp(-1, 1) + 1) * 127.5).round()
                assert (shown.float() - wanted).abs().max() <= 1  # rounding of x.5


def test_the_labels_tell_numbers_and_psnr(made):
    _, x, codes, film = made
    assert len(film.labels) == len(film.frames) == len(FACTORS) * len(CHANNELS)
    error = (codes[4, 3] - x).square().flatten(1).mean(1)
    decibels = (10 * torch.log10(4 / error)).mean().item()
    assert film.labels[5] == f"3 channels, 48 numbers, {decibels:.1f} dB"
    assert film.labels[2] == "12 channels, 768 numbers, nothing is lost"
    assert film.labels[0].startswith("1 channel, 64 numbers, ")
    assert [list(dial.places) for dial in film.dials] == [["f = 2", "f = 4"]]


def test_the_dot_rises_with_the_channels_and_the_star_stays(made):
    *_, film = made
    dots = torch.stack([centre(frame, RED) for frame in film.frames[:3]])
    assert (dots[:, 0].diff() < -5).all()
    assert (dots[:, 1].diff() > 5).all()
    stars = torch.stack([centre(film.frames[k], ORANGE) for k in (0, 5)])
    assert (stars[0] - stars[1]).abs().max() < 0.5
    star, dot = centre(film.frames[4], ORANGE), centre(film.frames[4], RED)
    assert star[1] > dot[1]  # f = 4, two channels against one


def test_codes_that_are_no_grid_are_refused(made):
    _, x, codes, _ = made
    some = {code: codes[code] for code in list(codes)[:-1]}
    with pytest.raises(InputError):
        rate_distortion_film(x, some, x, (4, 2))
