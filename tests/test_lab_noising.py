"""The noising explorer's frames: the picture, its histogram and the SNR at every level."""

import math

import pytest
import torch

from ldm_edu import NoiseSchedule
from ldm_edu.errors import InputError
from ldm_edu.lab.noising import LEVELS, REACH, SIDE, noising_film, value_density

KINDS = ("linear", "cosine")
RED = torch.tensor([213, 94, 0])  # the dot on the SNR curve


@pytest.fixture(scope="module")
def made():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(3, 16, 16, generator=generator) * 2 - 1
    eps = torch.randn(3, 16, 16, generator=generator)
    schedules = {kind: NoiseSchedule(kind) for kind in KINDS}
    return x0, eps, schedules, noising_film(x0, eps, schedules)


@pytest.mark.parametrize("kind", range(2))
def test_the_picture_at_every_slider_value_is_the_closed_form(made, kind):
    x0, eps, schedules, film = made
    ab = schedules[KINDS[kind]].alpha_bar
    scale = SIDE // 16
    for k, t in enumerate(LEVELS):
        x_t = ab[t].sqrt().item() * x0 + (1 - ab[t]).sqrt().item() * eps
        wanted = ((x_t.clamp(-1, 1) + 1) * 127.5).round()
        frame = film.frames[kind * len(LEVELS) + k]
        shown = frame[:, :SIDE:scale, :SIDE:scale].float()
        assert (shown - wanted).abs().max() <= 1  # rounding of x.5


def test_the_labels_tell_t_and_snr(made):
    _, _, schedules, film = made
    assert len(film.labels) == len(film.frames) == 2 * len(LEVELS)
    for k, t in enumerate(LEVELS):
        ab = schedules["cosine"].alpha_bar[t].item()
        label = film.labels[len(LEVELS) + k]
        assert label.startswith(f"t = {t},")
        if 0 < t < 1000 and ab / (1 - ab) < 100:
            assert math.isclose(float(label.split("SNR = ")[1]), ab / (1 - ab), rel_tol=0.06)


def test_the_dot_runs_down_the_curve(made):
    _, _, schedules, film = made
    places = []
    for frame in film.frames[1 : len(LEVELS) - 1]:
        red = (frame[:, :, SIDE:].permute(1, 2, 0) == RED).all(2).nonzero()
        assert len(red) > 10
        places.append(red.double().mean(0))
    rows, columns = torch.stack(places).T
    assert (rows.diff() > -0.5).all()
    assert rows[-1] > rows[0] + 40
    assert (columns.diff() > 2).all()
    # the axis is logarithmic: rows are a straight line over log SNR
    height = schedules["linear"].snr[list(LEVELS)[1:-1]].log()
    height, rows = height - height.mean(), rows - rows.mean()
    slope = (height * rows).sum() / height.square().sum()
    assert (rows - slope * height).abs().max() < 1.5


def test_the_density_has_area_one_and_counts_outliers_at_the_ends():
    x = torch.tensor([-9.0, -0.5, 0.5, 0.51, 9.0])
    centres, density = value_density(x)
    width = centres[1] - centres[0]
    assert math.isclose((density * width).sum().item(), 1, rel_tol=1e-5)
    assert centres[0] == -REACH + width / 2
    assert torch.allclose(density[[0, -1]] * width, torch.tensor(0.2))
    near = (centres - 0.5).abs().argmin()
    assert torch.isclose(density[near - 1 : near + 2].sum() * width, torch.tensor(0.4))


def test_one_schedule_needs_no_dial(made):
    x0, eps, schedules, film = made
    assert [dial.name for dial in film.dials] == ["Schedule"]
    alone = noising_film(x0, eps, {"cosine": schedules["cosine"]}, [0, 500])
    assert alone.dials == []
    assert len(alone.frames) == 2


@pytest.mark.parametrize(
    "wrong", [{"x0": torch.zeros(1, 3, 4, 4)}, {"eps": torch.zeros(3, 2, 2)}]
)
def test_wrong_shapes_are_refused(made, wrong):
    x0, eps, schedules, _ = made
    with pytest.raises(InputError):
        noising_film(**{"x0": x0, "eps": eps, "schedules": schedules} | wrong)
