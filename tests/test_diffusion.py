"""Noising, parameterisations, loss weights: the identities they obey."""

import math

import pytest
import torch
from helpers import normal, some_gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_edu.diffusion import diffusion_loss, loss_weight, q_sample, to_z0_eps, velocity
from ldm_edu.errors import InputError
from ldm_edu.schedule import NoiseSchedule

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines

KINDS = ["linear", "scaled_linear", "cosine"]
PARAMETERISATIONS = ["eps", "x0", "v"]


def target(schedule, z0, t, eps, parameterisation):
    return {"eps": eps, "x0": z0, "v": velocity(schedule, z0, t, eps)}[parameterisation]


# ---- noising


@pytest.mark.parametrize("kind", KINDS)
def test_one_jump_equals_t_small_steps(kind):
    """q(x_t | x_{t-1}) of DDPM eq. 2, iterated, in mean and variance."""
    schedule = NoiseSchedule(kind, 60)
    mean, variance = 1.0, 0.0
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for t in range(61):
        if t:
            beta = schedule.beta[t].item()
            mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        assert q_sample(schedule, one, t, zero).item() == pytest.approx(mean, rel=1e-12)
        spread = q_sample(schedule, zero, t, one).item()
        assert spread**2 == pytest.approx(variance, rel=1e-12, abs=1e-15)


def test_t_0_is_clean():
    z0, eps = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1)
    schedule = NoiseSchedule()
    assert torch.equal(q_sample(schedule, z0, 0, eps), z0)
    assert torch.equal(q_sample(schedule, z0, torch.zeros(4, dtype=torch.int64), eps), z0)


def test_each_sample_has_its_own_level():
    schedule, z0, eps = NoiseSchedule(), normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    t = torch.tensor([1, 500, 1000])
    z_t = q_sample(schedule, z0, t, eps)
    for i, level in enumerate(t.tolist()):
        one = q_sample(schedule, z0[i : i + 1], level, eps[i : i + 1])
        assert torch.equal(z_t[i : i + 1], one)


# ---- parameterisations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_a_perfect_prediction_gives_back_the_sample_and_the_noise(kind, parameterisation):
    schedule = NoiseSchedule(kind)
    t = torch.tensor([1, 10, 500, 900, 990])
    z0, eps = normal(5, 3, 4), normal(5, 3, 4, seed=1)
    prediction = target(schedule, z0, t, eps, parameterisation)
    z_t = q_sample(schedule, z0, t, eps)
    z0_hat, eps_hat = to_z0_eps(schedule, z_t, t, prediction, parameterisation)
    torch.testing.assert_close(z0_hat, z0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_hat, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_any_prediction_stays_consistent_with_z_t(parameterisation):
    """However wrong the model, its two views recombine to the z_t it saw, and to itself."""
    schedule, z_t, wrong = NoiseSchedule("linear"), normal(4, 6), normal(4, 6, seed=1)
    t = torch.tensor([1, 200, 600, 1000])
    z0_hat, eps_hat = to_z0_eps(schedule, z_t, t, wrong, parameterisation)
    torch.testing.assert_close(q_sample(schedule, z0_hat, t, eps_hat), z_t)
    torch.testing.assert_close(target(schedule, z0_hat, t, eps_hat, parameterisation), wrong)


def test_velocity_is_the_rotation_by_a_right_angle():
    """(z_t, v) is (z0, eps) rotated: lengths stay, and v is z_t's derivative in the angle."""
    schedule, z0, eps = NoiseSchedule(), normal(1, 8), normal(1, 8, seed=1)
    for t in (1, 400, 1000):
        z_t, v = q_sample(schedule, z0, t, eps), velocity(schedule, z0, t, eps)
        torch.testing.assert_close(z_t**2 + v**2, z0**2 + eps**2)
        phi, h = math.acos(schedule.alpha_bar[t].item() ** 0.5), 1e-5
        ends = [math.cos(phi + d) * z0 + math.sin(phi + d) * eps for d in (-h, h)]
        torch.testing.assert_close((ends[1] - ends[0]) / (2 * h), v, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_the_three_parameterisations_are_multiples_of_one_another(kind):
    """|d eps|^2 = SNR |d x0|^2 and |d v|^2 = (SNR + 1) |d x0|^2, for any two predictions."""
    schedule = NoiseSchedule(kind)
    z_t, z0, other = normal(1, 9), normal(1, 9, seed=1), normal(1, 9, seed=2)
    for t in (1, 50, 500, 999):
        snr = schedule.snr[t].item()
        eps, eps_other = (to_z0_eps(schedule, z_t, t, x, "x0")[1] for x in (z0, other))
        v, v_other = (velocity(schedule, x, t, e) for x, e in ((z0, eps), (other, eps_other)))
        error = (z0 - other).square().sum().item()
        assert (eps - eps_other).square().sum().item() == pytest.approx(snr * error, rel=1e-9)
        assert (v - v_other).square().sum().item() == pytest.approx((snr + 1) * error, rel=1e-9)


# ---- loss


def test_min_snr_weights_have_the_published_values():
    """DDPM's schedule, gamma = 5, t = 100 counted from 0: SNR 8.53667."""
    schedule, t = NoiseSchedule("linear"), torch.tensor([101])
    assert schedule.snr[101].item() == pytest.approx(8.53667, rel=1e-6)
    values = {"eps": 0.585709, "v": 0.524292, "x0": 5.0}
    for parameterisation, value in values.items():
        weight = loss_weight(schedule, t, parameterisation, min_snr=5.0)
        assert weight.item() == pytest.approx(value, rel=2e-6)


@pytest.mark.parametrize(("floor", "min_snr"), [(0.0, 1.0), (0.0, 5.0), (1.0, 20.0)])
def test_min_snr_loss_is_one_function_in_all_parameterisations(floor, min_snr):
    """The same model, asked for eps, x0 or v, pays clamp(SNR, floor, gamma) |d x0|^2."""
    schedule, t = NoiseSchedule(), torch.tensor([1, 150, 500, 800, 1000])
    z0, eps, z0_hat = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
    eps_hat = to_z0_eps(schedule, q_sample(schedule, z0, t, eps), t, z0_hat, "x0")[1]
    error = (z0_hat - z0).square().mean(1)
    expected = torch.tensor([min(max(snr, floor), min_snr) for snr in schedule.snr[t]]) * error
    for parameterisation in PARAMETERISATIONS:
        prediction = target(schedule, z0_hat, t, eps_hat, parameterisation)
        loss = diffusion_loss(
            lambda z_t, t, context, p=prediction: p,
            schedule, z0, t, eps, None, parameterisation, min_snr, floor,
        )  # fmt: skip
        torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("floor", [-0.1, 5.1])
def test_a_floor_lies_below_the_cap(floor):
    with pytest.raises(InputError, match=f"snr_floor <= min_snr, found {floor}, 5.0"):
        loss_weight(NoiseSchedule(), torch.tensor([1]), "v", 5.0, floor)


def test_without_min_snr_every_level_weighs_one():
    t = torch.tensor([1, 500, 1000])
    for parameterisation in PARAMETERISATIONS:
        assert loss_weight(NoiseSchedule(), t, parameterisation).tolist() == [1, 1, 1]


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_loss_is_the_mean_square_a_sample(parameterisation):
    schedule, z0, eps = NoiseSchedule(), normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    t, seen = torch.tensor([5, 500, 1000]), {}

    def zero_model(z_t, t, context):
        seen.update(z_t=z_t, t=t, context=context)
        return torch.zeros_like(z_t)

    context = normal(3, 1, 2, seed=3)
    args = schedule, z0, t, eps, context, parameterisation
    loss = diffusion_loss(zero_model, *args)
    expected = target(schedule, z0, t, eps, parameterisation)
    assert loss.shape == (3,)
    assert loss.tolist() == pytest.approx([(row**2).mean().item() for row in expected])
    assert seen["context"] is context and torch.equal(seen["t"], t)
    assert torch.equal(seen["z_t"], q_sample(schedule, z0, t, eps))
    perfect = diffusion_loss(lambda z_t, t, context: expected, *args)
    assert perfect.tolist() == [0, 0, 0]


@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_a_loss_is_taken_on_a_gpu_that_has_no_float64(min_snr):
    with some_gpu() as gpu:
        z0, eps = torch.zeros(2, 4, 3, 3, device=gpu), torch.ones(2, 4, 3, 3, device=gpu)
        t = torch.tensor([5, 900], device=gpu)
        settings = NoiseSchedule(), z0, t, eps, None, "v", min_snr
        assert diffusion_loss(lambda z_t, t, context: z_t, *settings).device.type == gpu


# ---- errors


BAD_T = [
    (torch.tensor([1.0, 2.0]), r"torch\.float32"),
    (torch.tensor([1, 2, 3]), r"\(3,\)"),
    (torch.tensor([[1], [2]]), r"\(2, 1\)"),
    (torch.tensor([1, 1001]), r"1\.\.1001"),
    (torch.tensor([-1, 5]), r"-1\.\.5"),
    (1001, "1001"),
    (-1, "-1"),
    (2.5, r"found 2\.5"),
]


@pytest.mark.parametrize(("t", "found"), BAD_T)
def test_a_bad_t_is_refused_everywhere(t, found):
    schedule, z = NoiseSchedule(), torch.zeros(2, 3)
    with pytest.raises(InputError, match=found):
        q_sample(schedule, z, t, z)
    with pytest.raises(InputError, match=found):
        velocity(schedule, z, t, z)
    with pytest.raises(InputError, match=found):
        to_z0_eps(schedule, z, t, z, "eps")
    with pytest.raises(InputError, match=found):
        diffusion_loss(lambda z, t, c: z, schedule, z, t, z)


def test_t_0_is_refused_where_noise_is_needed():
    schedule, z = NoiseSchedule(), torch.zeros(2, 3)
    with pytest.raises(InputError, match=r"\{1..1000\}, found 0"):
        to_z0_eps(schedule, z, 0, z, "x0")
    with pytest.raises(InputError, match=r"found 0\.\.4"):
        diffusion_loss(lambda z, t, c: z, schedule, z, torch.tensor([0, 4]), z)


def test_an_unknown_parameterisation_is_refused():
    schedule, z, t = NoiseSchedule(), torch.zeros(2, 3), torch.tensor([1, 2])
    with pytest.raises(InputError, match="found 'epsilon'"):
        to_z0_eps(schedule, z, 5, z, "epsilon")
    with pytest.raises(InputError, match="found 'epsilon'"):
        diffusion_loss(lambda z, t, c: z, schedule, z, t, z, parameterisation="epsilon")
    with pytest.raises(InputError, match="found 'epsilon'"):
        loss_weight(schedule, t, "epsilon", 5.0)
    with pytest.raises(InputError, match="found 'epsilon'"):
        loss_weight(schedule, t, "epsilon")


@pytest.mark.parametrize("t", [[-1, 5], [5, 1001]])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_a_weight_of_no_level_is_refused(t, min_snr):
    with pytest.raises(InputError, match=rf"\{{0..1000\}}, found {t[0]}\.\.{t[1]}"):
        loss_weight(NoiseSchedule(), torch.tensor(t), "v", min_snr)


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_the_loss_is_that_of_q_sample_and_its_target(parameterisation):
    schedule, z0, eps = NoiseSchedule(), normal(4, 3), normal(4, 3, seed=1)
    t = torch.tensor([1, 30, 500, 1000])
    seen = []
    found = diffusion_loss(
        lambda z, t, c: seen.append(z) or 0.1 * z, schedule, z0, t, eps, None, parameterisation
    )
    z_t = q_sample(schedule, z0, t, eps)
    error = (0.1 * z_t - target(schedule, z0, t, eps, parameterisation)).square().mean(1)
    assert torch.equal(seen[0], z_t) and torch.equal(found, error)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(a=shapes, b=shapes)
@settings(PATIENT)
def test_noise_of_another_shape_is_refused(a, b):
    if a == b:
        assert q_sample(NoiseSchedule(), torch.zeros(a), 5, torch.zeros(b)).shape == a
    else:
        for noised in (q_sample, velocity):
            with pytest.raises(InputError) as caught:
                noised(NoiseSchedule(), torch.zeros(a), 5, torch.zeros(b))
            assert str(a) in str(caught.value) and str(b) in str(caught.value)


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS)
def test_a_prediction_of_another_shape_is_refused_not_broadcast(parameterisation):
    schedule, z, t = NoiseSchedule(), torch.zeros(2, 3, 4, 4), torch.tensor([1, 2])
    for wrong in (z[:, :1], z[:1]):  # both would broadcast
        with pytest.raises(InputError, match=r"found \(\d, \d, 4, 4\)"):
            to_z0_eps(schedule, z, 5, wrong, parameterisation)
        with pytest.raises(InputError, match=r"found \(\d, \d, 4, 4\)"):
            diffusion_loss(
                lambda *a, w=wrong: w, schedule, z, t, z, parameterisation=parameterisation
            )
