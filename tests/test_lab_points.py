"""Points: the data sets, the best denoiser, and the films of both."""

import pytest
import torch

from ldm_edu import NoiseSchedule
from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.lab.flow import GRID, REACH, at_levels, field_film, flow_film
from ldm_edu.lab.points import Mixture, flower, moons, ring
from ldm_edu.sampling import State

LINEAR = NoiseSchedule("linear")


@pytest.mark.parametrize("t", [200, 600, 1000])
def test_the_best_guess_is_bayes_rule_on_a_grid(t):
    """Sum over a fine grid of clean points, with no Gaussian algebra."""
    data = Mixture(torch.tensor([[0.8, 0.0], [-0.5, 0.6]]), s=0.2)
    line = torch.arange(-2, 2, 0.02, dtype=torch.float64)
    x0 = torch.cartesian_prod(line, line)
    away = (x0[:, None] - data.centres).square().sum(2)
    prior = torch.exp(-away / (2 * data.s**2)).sum(1)
    ab = LINEAR.alpha_bar[t]
    x_t = torch.tensor([[0.3, 0.1], [-0.7, 0.9], [1.5, -1.0]], dtype=torch.float64)
    for x in x_t:
        likelihood = torch.exp(-(x - ab.sqrt() * x0).square().sum(1) / (2 * (1 - ab)))
        weights = prior * likelihood
        wanted = (weights[:, None] * x0).sum(0) / weights.sum()
        found = data.x0_hat(LINEAR, x[None], torch.tensor([t]))[0]
        assert torch.allclose(found, wanted, atol=2e-3)


def test_guess_and_noise_put_together_are_the_noisy_point():
    data, t = flower(), torch.tensor([1, 40, 500, 1000])
    x_t = torch.randn(4, 2, dtype=torch.float64)
    ab = LINEAR.alpha_bar[t][:, None]
    guess, noise = data.x0_hat(LINEAR, x_t, t), data.eps_hat(LINEAR, x_t, t)
    assert torch.allclose(ab.sqrt() * guess + (1 - ab).sqrt() * noise, x_t)


def test_no_small_change_of_the_guess_has_a_smaller_error():
    data, t = flower(), 400
    x0 = data.sample(20_000, seed=0)
    x_t = q_sample(
        LINEAR, x0, t, torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    )
    guess = data.x0_hat(LINEAR, x_t, torch.full((len(x0),), t))

    def error(shift):
        return (guess + shift - x0).square().mean()

    for shift in (0.05 * x_t, -0.05 * x_t, 0.05 * guess, -0.05 * guess, 0.05, -0.05):
        assert error(shift) > error(0.0)


def test_samples_have_the_mean_and_spread_of_the_mixture():
    data = flower(petals=5, s=0.1)
    x0 = data.sample(20_000, seed=3)
    nearest = torch.cdist(x0, data.centres).argmin(1)
    assert torch.bincount(nearest).float().div(4000).sub(1).abs().max() < 0.1
    assert torch.isclose((x0 - data.centres[nearest]).std(), torch.tensor(0.1), rtol=0.03)
    assert torch.equal(x0, data.sample(20_000, seed=3))
    assert torch.allclose(data.centres[0], torch.tensor([0.0, 1.0]), atol=1e-6)


def test_ring_and_moons_are_where_they_should_be():
    assert torch.allclose(ring(2000, 0, s=0).norm(dim=1), torch.ones(2000))
    points = moons(2000, 0, s=0)
    upper = (points - torch.tensor([-0.5, -0.25])).norm(dim=1)
    lower = (points - torch.tensor([0.5, 0.25])).norm(dim=1)
    on_one = ((upper - 1).abs() < 1e-4) | ((lower - 1).abs() < 1e-4)
    assert on_one.all()
    assert torch.equal(moons(9, 4), moons(9, 4))


@pytest.mark.parametrize(("centres", "s"), [(torch.zeros(3), 1.0), (torch.zeros(3, 2), 0.0)])
def test_mixtures_that_are_none_are_refused(centres, s):
    with pytest.raises(InputError):
        Mixture(centres, s)


# ---- films


def run(levels, shift=0.0):
    return [State(t, torch.full((4, 2), t / 1000 + shift), torch.zeros(4, 2)) for t in levels]


def test_a_run_of_few_steps_waits_between_them():
    states = run([1000, 500, 0])
    assert [state.t for state in at_levels(states, [1000, 800, 500, 300, 0])] == [
        1000, 1000, 500, 500, 0,
    ]  # fmt: skip
    with pytest.raises(InputError):
        at_levels(states[1:], [1000, 0])


def test_the_flow_film_has_a_shot_for_each_run():
    runs = {
        (a, b): run([1000, 500, 0], shift)
        for a, b, shift in (("2", "0", 0), ("2", "1", 0.3), ("5", "0", 0.6), ("5", "1", 0.9))
    }
    film = flow_film(runs, ("Steps", "eta"), torch.zeros(3, 2), levels=[1000, 0])
    assert [(dial.name, list(dial.places)) for dial in film.dials] == [
        ("Steps", ["2", "5"]),
        ("eta", ["0", "1"]),
    ]
    assert film.labels == ["t = 1000", "t = 0"] * 4
    assert len({frame.numpy().tobytes() for frame in film.frames}) == 8
    with pytest.raises(InputError):
        flow_film(dict(list(runs.items())[:3]), ("Steps", "eta"), torch.zeros(3, 2))


def test_the_field_film_asks_each_model_at_each_level():
    asked = []

    def guess(x_t, t):
        asked.append((len(x_t), t.unique().tolist()))
        assert x_t.abs().max() == REACH
        return 0.9 * x_t

    film = field_film({"one": guess, "two": guess}, torch.zeros(2, 2), levels=[900, 100])
    assert asked == [(GRID**2, [900])] * 2 + [(GRID**2, [100])] * 2
    assert film.labels == ["t = 900", "t = 100"]
