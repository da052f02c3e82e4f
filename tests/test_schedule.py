"""The schedule against the published values, and against the definition it is meant to obey."""

import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_edu.errors import InputError
from ldm_edu.schedule import Grid, NoiseSchedule

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines

LEVELS = [1, 250, 500, 750, 1000]  # papers that count from 0 say 0, 249, 499, 749, 999
# kind, ends, alpha_bar at LEVELS, SNR at T, first level with alpha_bar < 1/2
PUBLISHED = {
    "ddpm": (
        ("linear", 1e-4, 0.02),
        [0.9999, 0.5240853738, 0.07858724288, 0.003350550439, 4.035829765e-5],
        (4.03599e-5, 260),
    ),
    "stable diffusion": (
        ("scaled_linear", 0.00085, 0.012),
        [0.99915, 0.6754324137, 0.2776696505, 0.0566234916, 0.004660098513],
        (0.00468192, 355),
    ),
    "ldm": (
        ("scaled_linear", 0.0015, 0.0195),
        [0.9985, 0.5105143008, 0.1158444908, 0.00844483049, 1.423039752e-4],
        (1.42324e-4, 256),
    ),
    "cosine": (
        ("cosine", None, None),
        [0.9999587158, 0.8470121613, 0.4938435904, 0.1442721024, 2.428766907e-9],
        (2.42877e-9, 497),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_alpha_bar_has_the_published_values(name):
    (kind, start, end), values, (snr_T, half) = PUBLISHED[name]
    schedule = NoiseSchedule(kind, 1000, start, end)
    assert schedule.alpha_bar[LEVELS].tolist() == pytest.approx(values, rel=1e-9)
    assert schedule.snr[1000].item() == pytest.approx(snr_T, rel=3e-6)  # printed to 6 digits
    assert (schedule.alpha_bar < 0.5).nonzero()[0].item() == half


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_default_ends_are_the_papers(kind):
    name = {"linear": "ddpm", "scaled_linear": "stable diffusion"}[kind]
    (_, start, end), values, _ = PUBLISHED[name]
    schedule = NoiseSchedule(kind)
    assert (schedule.beta_start, schedule.beta_end) == (start, end)
    assert schedule.alpha_bar[LEVELS].tolist() == pytest.approx(values, rel=1e-9)


def test_cosine_is_the_papers_function_but_for_the_last_steps():
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    schedule = NoiseSchedule("cosine")
    assert schedule.alpha_bar[:1000].tolist() == pytest.approx([v / f[0] for v in f[:1000]])
    assert schedule.beta[1].item() == pytest.approx(4.128422482e-5, rel=1e-9)
    assert schedule.beta[1000].item() == 0.999  # where the function itself would give 1


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("T", [1, 2, 37, 1000])
def test_tables_agree_with_one_another(kind, T):
    schedule = NoiseSchedule(kind, T)
    beta, alpha_bar, snr = schedule.beta, schedule.alpha_bar, schedule.snr
    assert {x.shape for x in (beta, alpha_bar, snr)} == {(T + 1,)}
    assert {x.dtype for x in (beta, alpha_bar, snr)} == {torch.float64}
    assert beta[0] == 0 and alpha_bar[0] == 1 and snr[0] == math.inf
    assert (beta[1:] > 0).all() and (beta < 1).all()
    assert (alpha_bar.diff() < 0).all() and (alpha_bar > 0).all()
    product = 1.0
    for t in range(1, T + 1):
        product *= 1 - beta[t].item()
        assert alpha_bar[t].item() == pytest.approx(product, rel=1e-12)
    torch.testing.assert_close(snr[1:] * (1 - alpha_bar[1:]), alpha_bar[1:])


def test_linear_kinds_are_linear_in_beta_and_in_its_root():
    for kind, power in (("linear", 1.0), ("scaled_linear", 0.5)):
        schedule = NoiseSchedule(kind, 11, 0.01, 0.3)
        assert schedule.beta[[1, 11]].tolist() == pytest.approx([0.01, 0.3], rel=1e-14)
        steps = schedule.beta[1:].pow(power).diff()
        torch.testing.assert_close(steps, steps[:1].expand(10), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_signal_and_noise_are_roots_whose_squares_sum_to_one(kind):
    schedule = NoiseSchedule(kind, 50)
    like = torch.zeros(51, 3, 2, 2, dtype=torch.float64)
    t = torch.arange(51)
    signal, noise = schedule.signal(t, like), schedule.noise(t, like)
    assert signal.shape == noise.shape == (51, 1, 1, 1)
    torch.testing.assert_close(signal.flatten() ** 2, schedule.alpha_bar)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))
    for t in (0, 1, 50):  # an int is one level for the whole batch
        assert schedule.signal(t, like).shape == ()
        assert schedule.signal(t, like) == signal[t] and schedule.noise(t, like) == noise[t]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_signal_and_noise_take_the_dtype_of_what_they_scale(dtype):
    schedule, like = NoiseSchedule(), torch.zeros(2, 5, dtype=dtype)
    t = torch.tensor([3, 900])
    assert schedule.signal(t, like).dtype == schedule.noise(7, like).dtype == dtype
    expected = schedule.alpha_bar[t].sqrt().to(dtype)[:, None]  # rounded once, at the end
    assert torch.equal(schedule.signal(t, like), expected)


def test_timesteps_of_both_spacings():
    schedule = NoiseSchedule(T=1000)
    assert schedule.timesteps(10) == list(range(1000, 0, -100))
    assert schedule.timesteps(10, "leading") == list(range(901, 0, -100))
    assert schedule.timesteps(50, "leading")[:2] == [981, 961]
    sd = schedule.timesteps(50, "leading", offset=1)  # published as 981, 961, ..., 1 from 0
    assert sd == list(range(982, 1, -20))
    for spacing in ("trailing", "leading"):
        assert schedule.timesteps(1000, spacing) == list(range(1000, 0, -1))


@given(T=st.integers(1, 2000), data=st.data())
@settings(PATIENT)
def test_timesteps_always_fall_within_the_schedule(T, data):
    steps = data.draw(st.integers(1, T))
    for spacing, end, at in (("trailing", T, 0), ("leading", 1, -1)):
        levels = NoiseSchedule(T=T).timesteps(steps, spacing)
        assert len(levels) == steps and levels[at] == end
        assert all(a > b for a, b in pairwise(levels))
        assert levels[-1] >= 1 and levels[0] <= T


@given(T=st.integers(1, 300), data=st.data())
@settings(PATIENT)
def test_an_offset_moves_all_levels_or_is_refused(T, data):
    steps, offset = data.draw(st.integers(1, T)), data.draw(st.integers(-T, T))
    schedule = NoiseSchedule(T=T)
    for spacing in ("trailing", "leading"):
        plain = schedule.timesteps(steps, spacing)
        if plain[-1] + offset >= 1 and plain[0] + offset <= T:
            moved = schedule.timesteps(steps, spacing, offset)
            assert [level - offset for level in moved] == plain
        else:
            with pytest.raises(InputError, match=f"the offset {offset}, leave"):
                schedule.timesteps(steps, spacing, offset)


@given(T=st.integers(2, 300), data=st.data())
@settings(PATIENT)
def test_a_lowest_level_leaves_the_grid_of_a_shorter_schedule_above_it(T, data):
    lowest = data.draw(st.integers(1, T - 1))
    steps = data.draw(st.integers(1, T - lowest))
    for spacing in ("trailing", "leading"):
        shorter = NoiseSchedule(T=T - lowest).timesteps(steps, spacing)
        levels = NoiseSchedule(T=T).timesteps(steps, spacing, lowest=lowest)
        assert levels == [lowest + level for level in shorter]
    with pytest.raises(InputError, match=f"1 to T - lowest = {T - lowest}, found {T}"):
        NoiseSchedule(T=T).timesteps(T, lowest=lowest)


def test_grid_makes_itself_again_and_refuses_what_cannot_be():
    for grid in (Grid(), Grid("leading", 1, 1), Grid(lowest=60)):
        assert Grid(**json.loads(json.dumps(grid.to_dict()))) == grid
    for arguments, found in (
        ({"spacing": "linspace"}, "found 'linspace'"),
        ({"offset": 0.5}, "found 0.5"),
        ({"final": -1}, "found -1"),
        ({"final": None}, "found None"),
        ({"lowest": -2}, "lowest must .* found -2"),
    ):
        with pytest.raises(InputError, match=found):
            Grid(**arguments)


def test_to_dict_makes_the_schedule_again():
    for schedule in (NoiseSchedule("linear", 7), NoiseSchedule("scaled_linear", 3, 0.1, 0.2)):
        again = NoiseSchedule(**json.loads(json.dumps(schedule.to_dict())))
        assert again == schedule and torch.equal(again.alpha_bar, schedule.alpha_bar)
    assert NoiseSchedule(**NoiseSchedule().to_dict()) == NoiseSchedule()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"kind": "sigmoid"}, "'sigmoid'"),
        ({"T": 0}, "found 0"),
        ({"T": 10.0}, "found 10.0"),
        ({"kind": "linear", "beta_start": 0}, "beta_start .* found 0"),
        ({"kind": "linear", "beta_end": 1.5}, "beta_end .* found 1.5"),
        ({"kind": "scaled_linear", "beta_start": math.nan}, "found nan"),
        ({"kind": "cosine", "beta_start": 0.1}, "takes no beta_start"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(arguments, found):
    with pytest.raises(InputError, match=found):
        NoiseSchedule(**arguments)


@pytest.mark.parametrize("t", [-1, 11])
def test_no_signal_and_no_noise_is_told_of_a_level_that_is_none(t):
    schedule = NoiseSchedule(T=10)
    for level in (schedule.signal, schedule.noise):
        with pytest.raises(InputError, match=rf"\{{0..10\}}, found {t}"):
            level(t, torch.zeros(1))


@pytest.mark.parametrize("steps", [0, -3, 11, 2.5])
def test_timesteps_refuses_a_number_out_of_range(steps):
    with pytest.raises(InputError, match=f"1 to T = 10, found {steps}"):
        NoiseSchedule(T=10).timesteps(steps)


@pytest.mark.parametrize("lowest", [-1, 10, 2.5])
def test_timesteps_refuses_a_lowest_level_out_of_range(lowest):
    with pytest.raises(InputError, match=f"lowest .* 0 to T - 1 = 9, found {lowest}"):
        NoiseSchedule(T=10).timesteps(1, lowest=lowest)


def test_timesteps_refuses_an_unknown_spacing():
    with pytest.raises(InputError, match="found 'linspace'"):
        NoiseSchedule(T=10).timesteps(5, "linspace")
