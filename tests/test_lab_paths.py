"""The line whose paths are known, and the film of samplers over them."""

from functools import partial

import pytest
import torch

from ldm_edu import NoiseSchedule, samplers
from ldm_edu.errors import InputError
from ldm_edu.lab.paths import MANY, Line, path_film, run, starts

SCHEDULE = NoiseSchedule("cosine")
WORLD = Line((0.3, 0.7), (-1.0, 1.0), (0.2, 0.4))
HEUN = partial(samplers.heun, sigma_max=samplers.SIGMA_MAX)


def test_the_best_guess_has_the_published_values():
    """SCIENCE's mixture, at x = x0 + sigma eps: with x_t = sqrt(ab) x and the nearest t."""
    for sigma in (0.5, 2.0):
        ratio = ((1 - SCHEDULE.alpha_bar) / SCHEDULE.alpha_bar).sqrt()
        t = int((ratio - sigma).abs().argmin())
        x = torch.tensor([0.3], dtype=torch.float64)
        guess = WORLD.x0_hat(SCHEDULE, SCHEDULE.alpha_bar[t].sqrt() * x, t)
        assert guess.item() == pytest.approx({0.5: 0.65276, 2.0: 0.43929}[sigma], abs=2e-3)


@pytest.mark.parametrize("t", [100, 500, 900])
def test_the_best_guess_is_bayes_rule_on_a_grid(t):
    x0 = torch.arange(-4, 4, 0.001, dtype=torch.float64)
    ab = SCHEDULE.alpha_bar[t]
    for x_t in (-0.7, 0.2, 1.5):
        likelihood = torch.exp(-((x_t - ab.sqrt() * x0) ** 2) / (2 * (1 - ab)))
        weights = WORLD.density(x0) * likelihood
        wanted = (weights * x0).sum() / weights.sum()
        found = WORLD.x0_hat(SCHEDULE, torch.tensor([x_t], dtype=torch.float64), t)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_share_below_is_the_density_summed_up():
    x0 = torch.arange(-4, 4, 0.001, dtype=torch.float64)
    summed = WORLD.density(x0).cumsum(0) * 0.001
    assert torch.allclose(WORLD.below(SCHEDULE, x0, 0), summed, atol=2e-3)
    assert summed[-1] == pytest.approx(1, abs=1e-6)


def test_the_exact_path_of_one_gaussian_keeps_the_distance_in_deviations():
    world = Line((1.0,), (0.7,), (0.5,))
    x_t = torch.tensor([-1.0, 0.2, 2.0], dtype=torch.float64)
    for t, s in ((1000, 0), (1000, 400), (300, 10)):
        (ab_t, ab_s) = (SCHEDULE.alpha_bar[k] for k in (t, s))
        spread = ((ab_s * 0.25 + 1 - ab_s) / (ab_t * 0.25 + 1 - ab_t)) ** 0.5
        wanted = ab_s**0.5 * 0.7 + spread * (x_t - ab_t**0.5 * 0.7)
        assert torch.allclose(world.exact(SCHEDULE, x_t, t, s), wanted, atol=1e-9)


def test_small_steps_follow_the_exact_path():
    x_T = starts(11)
    states = run(WORLD, SCHEDULE, HEUN, 200, x_T)
    for state in states[::40]:
        exact = WORLD.exact(SCHEDULE, x_T, 1000, state.t)
        assert (state.z_t - exact).abs().max() < 5e-3


def test_starts_are_a_normal_distribution_without_chance():
    x = starts(1001)
    assert x.dtype == torch.float64
    assert abs(x.mean()) < 1e-9 and x.std().item() == pytest.approx(1, abs=0.01)
    assert x[500].item() == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def film():
    return path_film(WORLD, SCHEDULE, {"ddim": samplers.ddim, "heun": HEUN}, (1, 3))


def test_the_film_has_a_shot_a_rule_and_a_frame_a_count(film):
    assert film.labels == ["1 step", "3 steps"] * 2
    assert [dial.places for dial in film.dials] == [["ddim", "heun"]]
    assert film.shots == 2
    one_ddim, _, one_heun, _ = film.frames
    assert torch.equal(one_ddim, one_heun)  # one step to clean is Euler's for both
    assert len({frame.numpy().tobytes() for frame in film.frames}) == 3


def test_the_bars_show_where_the_points_end(film):
    """All of a single step's points end at one place: the mean of the data, 0.4."""
    states = run(WORLD, SCHEDULE, samplers.ddim, 1, starts(MANY))
    assert (states[-1].z_t - 0.4).abs().max() < 0.01
    right = film.frames[0][:, 20:-60, film.frames.shape[3] // 2 + 40 :]
    blue = (right == torch.tensor([0, 114, 178], dtype=torch.uint8)[:, None, None]).all(0)
    rows = blue.any(1).nonzero()[:, 0]
    assert 0 < len(rows) <= 12  # one bar


@pytest.mark.parametrize("wrong", [((0.5, 0.4), (0, 1), (1, 1)), ((1.0,), (0.0,), (0.0,)),
                                   ((1.0,), (0.0, 1.0), (1.0,))])  # fmt: skip
def test_what_is_no_mixture_is_refused(wrong):
    with pytest.raises(InputError):
        Line(*wrong)
