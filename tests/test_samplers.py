"""Step rules in worlds whose answer is known: one datum, a Gaussian, and Bayes' rule itself."""

import itertools
from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from ldm_edu.diffusion import Prediction, denoise, predictor, q_sample, to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.samplers import ddim, ddpm
from ldm_edu.schedule import NoiseSchedule

KINDS = ["linear", "scaled_linear", "cosine"]
RULES = {"ddpm": ddpm, "ddim": ddim, "eta=.5": partial(ddim, eta=0.5)}
MU, VAR = 0.7, 0.25  # the Gaussian world of SCIENCE C4


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def no_model(z_t, t):
    raise AssertionError("a one-step rule asks the model no second time")


def step(rule, schedule, z_t, t, s, z0_hat, noise):
    eps_hat = to_z0_eps(schedule, z_t, t, z0_hat, "x0")[1]
    history = [Prediction(t, z0_hat, eps_hat)]
    return rule(schedule, z_t, s, history, no_model, lambda like: noise.to(like))


def gaussian_model(schedule):
    """The exact E[z0 | z_t] of data N(MU, VAR)."""

    def model(z_t, t, context):
        a, s = schedule.signal(t, z_t), schedule.noise(t, z_t)
        return MU + a * VAR / (a**2 * VAR + s**2) * (z_t - a * MU)

    return model


# ---- one step


@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_is_ddim_with_eta_1(kind):
    """For every t to t - 1, and for strides of every length."""
    schedule = NoiseSchedule(kind, 100)
    z_t, z0_hat, noise = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    pairs = [(t, t - 1) for t in range(1, 101)]
    pairs += [(t, s) for t in (100, 99, 50, 20) for s in range(0, t, 7)]
    for t, s in pairs:
        a, b = (
            step(rule, schedule, z_t, t, s, z0_hat, noise)
            for rule in (ddpm, partial(ddim, eta=1))
        )
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("t", "s"), [(2, 1), (50, 49), (100, 99), (100, 20), (60, 1)])
def test_ddpm_draws_from_the_posterior_that_bayes_gives(kind, t, s):
    """Prior N(sqrt(ab_s) z0, 1 - ab_s) on z_s, likelihood N(z_t; sqrt(a) z_s, 1 - a)."""
    schedule = NoiseSchedule(kind, 100)
    alpha = torch.prod(1 - schedule.beta[s + 1 : t + 1]).item()
    ab_s = torch.prod(1 - schedule.beta[: s + 1]).item()
    z_t, z0, one = normal(4), normal(4, seed=1), torch.ones(4, dtype=torch.float64)
    precision = 1 / (1 - ab_s) + alpha / (1 - alpha)
    mean = (ab_s**0.5 * z0 / (1 - ab_s) + alpha**0.5 * z_t / (1 - alpha)) / precision
    drawn = step(ddpm, schedule, z_t, t, s, z0, 0 * one)
    torch.testing.assert_close(drawn, mean, rtol=1e-8, atol=1e-8)
    spread = step(ddpm, schedule, z_t, t, s, z0, one) - drawn
    torch.testing.assert_close(spread, one * precision**-0.5, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("t", "s"), [(1000, 999), (1000, 500), (300, 1), (7, 0)])
def test_ddim_keeps_the_marginal_for_every_eta(eta, t, s):
    """From q(z_t | z0), told the true z0, it lands in q(z_s | z0): DDIM's lemma 1."""
    schedule, rule = NoiseSchedule("linear"), partial(ddim, eta=eta)
    z0, zero = torch.tensor([0.4], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    one = zero + 1
    at_mean = q_sample(schedule, z0, t, zero)
    mean = step(rule, schedule, at_mean, t, s, z0, zero)
    torch.testing.assert_close(mean, q_sample(schedule, z0, s, zero), rtol=1e-10, atol=1e-12)
    from_eps = step(rule, schedule, q_sample(schedule, z0, t, one), t, s, z0, zero) - mean
    from_noise = step(rule, schedule, at_mean, t, s, z0, one) - mean
    variance = (from_eps**2 + from_noise**2).item()
    assert variance == pytest.approx(1 - schedule.alpha_bar[s].item(), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_last_step_is_the_clean_prediction_and_draws_nothing(rule):
    def randn(like):
        raise AssertionError("no noise at t = 0")

    schedule, z_t, z0 = NoiseSchedule(), normal(2, 3), normal(2, 3, seed=1)
    eps_hat = to_z0_eps(schedule, z_t, 40, z0, "x0")[1]
    z_s = rule(schedule, z_t, 0, [Prediction(40, z0, eps_hat)], no_model, randn)
    torch.testing.assert_close(z_s, z0, rtol=1e-12, atol=1e-12)


def test_ddim_draws_nothing_at_eta_0_and_ddpm_at_most_once():
    schedule, calls = NoiseSchedule(), []

    def randn(like):
        calls.append(like.shape)
        return torch.zeros_like(like)

    history = [Prediction(40, normal(2, 3), normal(2, 3, seed=1))]
    ddim(schedule, normal(2, 3), 20, history, no_model, randn)
    assert calls == []
    ddpm(schedule, normal(2, 3), 20, history, no_model, randn)
    assert calls == [(2, 3)]


def test_ddim_stays_real_on_schedules_that_end_in_pure_noise():
    """1 - ab_s - sigma^2 may round below 0, and Python's ** 0.5 would then turn complex."""
    for T in (4000, 10_000):
        schedule = NoiseSchedule("linear", T)
        for t, s in itertools.product(range(T // 2, T + 1, T // 20), range(0, T // 2, T // 40)):
            history = [Prediction(t, torch.zeros(1), torch.ones(1))]
            z_s = ddim(schedule, torch.ones(1), s, history, no_model, torch.zeros_like, eta=1.0)
            assert z_s.is_floating_point() and torch.isfinite(z_s).all()


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_ddim_refuses_an_eta_out_of_range(eta):
    with pytest.raises(InputError, match=rf"\[0, 1\], found {eta}"):
        ddim(NoiseSchedule(), torch.zeros(1), 0, [], None, None, eta=eta)


# ---- whole loops in known worlds


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_of_one_image_is_recovered_in_one_step(kind, rule):
    schedule, datum = NoiseSchedule(kind), normal(1, 3, 4, 4).clamp(-1, 1)

    def model(z_t, t, context):  # the exact eps: all that is not the datum
        return (z_t - schedule.signal(t, z_t) * datum) / schedule.noise(t, z_t)

    predict = predictor(model, schedule, "eps")
    for timesteps in ([1000], [990], [1], [900, 500, 100]):
        *_, last = denoise(predict, schedule, normal(5, 3, 4, 4, seed=1), rule, timesteps)
        torch.testing.assert_close(last.z_t, datum.expand(5, 3, 4, 4), rtol=1e-6, atol=1e-6)


def test_ddim_solves_the_probability_flow_with_order_one():
    """On N(MU, VAR) the flow is known: x_0 = MU + sqrt(VAR / v_T) (x_T - sqrt(ab_T) MU)."""
    schedule = NoiseSchedule("linear")
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    x_T, ab_T = normal(8), schedule.alpha_bar[-1]
    exact = MU + (VAR / (ab_T * VAR + 1 - ab_T)) ** 0.5 * (x_T - ab_T**0.5 * MU)
    errors = []
    for steps in (25, 50, 100, 200):
        *_, last = denoise(predict, schedule, x_T, ddim, schedule.timesteps(steps))
        errors.append((last.z_t - exact).abs().max().item())
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 0.05


def propagate(schedule, rule, steps):
    """Exact mean and variance after sampling: every step is affine in z_t and in the noise."""
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    levels = [*schedule.timesteps(steps, "leading"), 0]
    mean, variance = 0.0, 1.0  # z_T ~ N(0, 1)
    for t, s in pairwise(levels):
        z_t = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        noise = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        history = [predict(z_t, t)]
        offset, slope, sigma = rule(
            schedule, z_t, s, history, predict, lambda like, n=noise: n
        ).tolist()
        slope, sigma = slope - offset, sigma - offset
        mean, variance = slope * mean + offset, slope**2 * variance + sigma**2
    return mean, variance


VARIANCES = {  # of the samples after 10, 50, 100, 1000 steps; the data's is .25
    0.0: [0.139972, 0.223199, 0.236177, 0.248498],
    0.5: [0.134750, 0.217764, 0.232576, 0.247981],
    1.0: [0.111064, 0.197245, 0.219264, 0.246125],
}


@pytest.mark.parametrize("eta", VARIANCES)
def test_few_steps_give_too_little_variance_and_exactly_this_much(eta):
    schedule = NoiseSchedule("linear")
    for steps, expected in zip((10, 50, 100, 1000), VARIANCES[eta], strict=True):
        mean, variance = propagate(schedule, partial(ddim, eta=eta), steps)
        assert variance == pytest.approx(expected, abs=2e-6)
        assert mean == pytest.approx(MU, abs=0.02)


def test_ancestral_sampling_has_the_variance_of_eta_1():
    mean, variance = propagate(NoiseSchedule("linear"), ddpm, 1000)
    assert variance == pytest.approx(0.2461252, abs=2e-7)
    assert mean == pytest.approx(MU, abs=0.02)


def test_samples_have_the_moments_that_propagation_predicts():
    schedule = NoiseSchedule("linear")
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    generator = torch.Generator().manual_seed(0)

    def randn(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    n = 50_000
    levels = schedule.timesteps(10, "leading")
    *_, last = denoise(predict, schedule, normal(n, seed=1), ddpm, levels, randn)
    mean, variance = propagate(schedule, ddpm, 10)
    assert last.z_t.mean().item() == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert last.z_t.var().item() == pytest.approx(variance, rel=5 * (2 / n) ** 0.5)


def test_inverting_a_sample_gives_back_its_noise():
    """DDIM from t to a noisier s runs the flow backwards; round trips close as steps grow."""
    schedule = NoiseSchedule("linear")
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    x_T, gaps = normal(6), []
    for steps in (100, 500):
        levels = schedule.timesteps(steps)
        z = list(denoise(predict, schedule, x_T, ddim, levels))[-2].z_t  # at the lowest level
        for t, s in zip(levels[::-1], levels[-2::-1], strict=False):
            z = ddim(schedule, z, s, [predict(z, t)], predict, None)
        gaps.append((z - x_T).abs().max().item())
    assert gaps[1] < 0.3 * gaps[0] and gaps[1] < 0.05


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v"])
def test_ddim_equals_diffusers(kind, parameterisation):
    schedule, steps = NoiseSchedule(kind), 10
    theirs = DDIMScheduler(
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=kind,
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type={"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[
            parameterisation
        ],
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(steps)
    assert [t + 1 for t in theirs.timesteps.tolist()] == schedule.timesteps(steps)

    def model(z_t, t, context):
        return 0.3 * z_t + (t / 1000)[:, None]

    z = z_T = normal(3, 4)
    for t in theirs.timesteps:
        levels = torch.full((3,), int(t) + 1)
        z = theirs.step(model(z, levels, None), t, z).prev_sample
    predict = predictor(model, schedule, parameterisation)
    *_, last = denoise(predict, schedule, z_T, ddim, schedule.timesteps(steps))
    torch.testing.assert_close(last.z_t, z, rtol=1e-4, atol=1e-4)  # their tables are float32
