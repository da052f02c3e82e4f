"""A model as it trains: its loss at each level in closed form, and what the films show."""

import pytest
import torch
from helpers import some_gpu

from ldm_edu import NoiseSchedule
from ldm_edu.diffusion import q_sample, velocity
from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8
from ldm_edu.lab.growth import growth_film
from ldm_edu.lab.levels import SHOWN, SIDE, level_film, loss_per_level

COSINE = NoiseSchedule()
LEVELS = (1, 300, 700, 1000)


def pictures(n, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(n, 3, side, side, generator=generator) * 2 - 1
    return x0, torch.randn(n, 3, side, side, generator=generator)


def nothing(z_t, t, context):
    return torch.zeros_like(z_t)


def knows(x0, eps):
    def model(z_t, t, context):  # of the first pictures it is given
        return velocity(COSINE, x0[: len(z_t)], t, eps[: len(z_t)])

    return model


def test_who_predicts_nothing_has_the_square_of_v_as_loss_and_who_knows_has_none():
    x0, eps = pictures(50)
    found = loss_per_level(nothing, COSINE, x0, eps, LEVELS)
    for loss, t in zip(found, LEVELS, strict=True):
        ab = COSINE.alpha_bar[t]
        wanted = (ab.sqrt() * eps - (1 - ab).sqrt() * x0).square().mean()
        assert torch.isclose(loss.double(), wanted.double(), rtol=1e-4)
    assert loss_per_level(knows(x0, eps), COSINE, x0, eps, LEVELS).max() < 1e-9


def test_the_losses_of_a_model_on_a_gpu_come_to_the_chart():
    with some_gpu() as gpu:
        x0, eps = (torch.zeros(3, 3, 8, 8, device=gpu) for _ in range(2))
        found = loss_per_level(nothing, COSINE, x0, eps, LEVELS)
        assert found.device.type == "cpu" and found.shape == (4,)


def test_a_frame_shows_noisy_pictures_above_and_guesses_below():
    x0, eps = pictures(5)
    models = {"0 steps": nothing, "9 steps": knows(x0, eps)}
    film = level_film(models, COSINE, x0, eps, lambda z: z, levels=LEVELS)
    assert len(film.frames) == 8 and [list(d.places) for d in film.dials] == [list(models)]
    last = film.frames[4 + 2]  # of the model that knows, at t = 700
    noisy = to_uint8(q_sample(COSINE, x0[:SHOWN], 700, eps[:SHOWN]))
    for k in range(SHOWN):
        for row, wanted in enumerate((noisy, to_uint8(x0[:SHOWN]))):
            top, left = row * (SIDE + 2), k * (SIDE + 2)
            shown = last[:, top : top + SIDE : SIDE // 8, left : left + SIDE : SIDE // 8]
            assert (shown.int() - wanted[k].int()).abs().max() <= 1
    assert film.labels == ["t = 1", "t = 300", "t = 700", "t = 1000"] * 2


def test_the_chart_moves_with_the_level_and_the_model():
    x0, eps = pictures(3)
    models = {"a": nothing, "b": lambda z_t, t, context: 0.3 * z_t}
    film = level_film(models, COSINE, x0, eps, lambda z: z, levels=(200, 800))
    charts = film.frames[..., SHOWN * (SIDE + 2) + 10 :]
    assert len({chart.numpy().tobytes() for chart in charts}) == 4
    assert level_film({"a": nothing}, COSINE, x0, eps, lambda z: z, levels=(9, 99)).dials == []


def test_the_film_of_growth_shows_each_side_in_its_panel():
    first, second = (
        [pictures(4, seed=s)[0] for s in seeds] for seeds in ((1, 2, 3), (4, 5, 6))
    )
    film = growth_film({"pixels": first, "latents": second}, ("0 s", "5 s", "10 s"), columns=2)
    assert list(film.panels) == ["pixels", "latents"] and film.start == 2
    assert film.labels == ["0 s", "5 s", "10 s"]
    third = film.frames[1]
    width = third.shape[2] // 2 + 3  # where the second panel begins
    for left, shots in ((0, first), (width, second)):
        shown = third[:, : 12 * 8 : 12, left : left + 12 * 8 : 12]
        assert torch.equal(shown, to_uint8(shots[1])[0])
    assert growth_film({"one": first}, "abc").panels == []


@pytest.mark.parametrize("sides", [{"a": [pictures(1)[0]]}, {"a": [], "b": []}])
def test_a_side_without_its_samples_is_refused(sides):
    with pytest.raises(InputError, match="sets of samples"):
        growth_film(sides, ["0", "1"] if len(sides) == 1 else [])
