"""Step rules in worlds whose answer is known: one datum, a Gaussian, a mixture, Bayes' rule."""

import itertools
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from helpers import normal
from hypothesis import given
from hypothesis import strategies as st

from ldm_edu.diffusion import q_sample, to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.samplers import ddim, ddpm, dpmpp, heun, plms
from ldm_edu.sampling import HISTORY, Prediction, denoise, predictor
from ldm_edu.schedule import NoiseSchedule

KINDS = ["linear", "scaled_linear", "cosine"]
SECOND_ORDER = {"dpm++": dpmpp, "heun": heun, "plms": plms}
RULES = {"ddpm": ddpm, "ddim": ddim, "eta=.5": partial(ddim, eta=0.5)} | SECOND_ORDER
FLOWS = {"ddim": ddim} | SECOND_ORDER  # those that follow the flow from noise to data
MU, VAR = 0.7, 0.25  # the Gaussian world of SCIENCE C4


def no_model(z_t, t):
    raise AssertionError("a one-step rule asks the model no second time")


def step(rule, schedule, z_t, t, s, z0_hat, noise):
    eps_hat = to_z0_eps(schedule, z_t, t, z0_hat, "x0")[1]
    history = [Prediction(t, z0_hat, eps_hat)]
    return rule(schedule, z_t, s, history, no_model, lambda like: noise.to(like))


class Mixture:
    """0.3 N(-1, 0.04) + 0.7 N(1, 0.16) in one dimension: the mixture world of SCIENCE C4."""

    weight, mean, deviation = torch.tensor(
        [[0.3, 0.7], [-1.0, 1.0], [0.2, 0.4]], dtype=torch.float64
    )

    def denoised(self, x, sigma):
        """E[x0 | x = x0 + sigma eps]."""
        x, own = x[..., None], self.deviation**2
        total = own + sigma**2
        odds = self.weight.log() - total.log() / 2 - (x - self.mean) ** 2 / (2 * total)
        each = self.mean + own / total * (x - self.mean)
        return (odds.softmax(-1) * each).sum(-1)

    def below(self, z, alpha_bar):
        """P(z_t < z)."""
        scale = (alpha_bar * self.deviation**2 + 1 - alpha_bar) ** 0.5
        u = (z[..., None] - alpha_bar**0.5 * self.mean) / scale
        return (self.weight * torch.special.ndtr(u)).sum(-1)

    def flow(self, schedule, z_T, t, s):
        """In one dimension paths cannot cross, so z_s has z_t's quantile; by bisection."""
        quantile = self.below(z_T, schedule.alpha_bar[t])
        low, high = torch.full_like(z_T, -30), torch.full_like(z_T, 30)
        for _ in range(80):
            middle = (low + high) / 2
            left = self.below(middle, schedule.alpha_bar[s]) < quantile
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return low

    def model(self, schedule):
        def model(z_t, t, context):
            a, s = schedule.signal(t, z_t), schedule.noise(t, z_t)
            return self.denoised(z_t / a, (s / a)[..., None])

        return model


class Gaussian:
    """N(MU, VAR), whose flow keeps the distance from the mean in standard deviations."""

    def flow(self, schedule, z_T, t, s):
        ab_t, ab_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
        v_t, v_s = ab_t * VAR + 1 - ab_t, ab_s * VAR + 1 - ab_s
        return ab_s**0.5 * MU + (v_s / v_t) ** 0.5 * (z_T - ab_t**0.5 * MU)

    def model(self, schedule):
        return gaussian_model(schedule)


WORLDS = {"gaussian": Gaussian(), "mixture": Mixture()}


def flow_error(world, schedule, rule, levels, final=0):
    """Largest distance from where the exact flow takes these z_T."""
    z_T = torch.linspace(-2, 2, 41, dtype=torch.float64)
    predict = predictor(world.model(schedule), schedule, "x0")
    *_, last = denoise(predict, schedule, z_T, rule, levels, no_noise, final)
    assert last.t == final
    exact = world.flow(schedule, z_T, levels[0], final)
    return (last.z_t - exact).abs().max().item()


def no_noise(like):
    raise AssertionError("this rule draws no noise")


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


def test_the_mixtures_denoiser_has_the_published_values():
    x = torch.tensor(0.3, dtype=torch.float64)
    assert Mixture().denoised(x, 0.5).item() == pytest.approx(0.6527621826, abs=1e-10)
    assert Mixture().denoised(x, 2.0).item() == pytest.approx(0.4392905468, abs=1e-10)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize("name", FLOWS)
def test_order_of_convergence(name, kind, world):
    """Between two noisy levels, where the flow is smooth: error ~ steps^-order."""
    schedule, counts = NoiseSchedule(kind), (100, 200, 400)
    errors = [
        flow_error(WORLDS[world], schedule, FLOWS[name], list(range(1000, 200, -800 // n)), 200)
        for n in counts
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    if name == "ddim":
        assert all(0.9 < order < 1.1 for order in orders)
        assert 0.001 < errors[-1] < 0.01
    else:
        assert all(order >= 1.9 for order in orders)
        assert errors[-1] < 5e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", FLOWS)
def test_whole_loops_end_where_the_flow_ends(name, world):
    """Our own grid, down to clean. Heun and PLMS go without the mean of slopes at first."""
    rule, schedule = FLOWS[name], NoiseSchedule("cosine")
    if name in ("heun", "plms"):
        rule = partial(rule, sigma_max=200)
    errors = [
        flow_error(WORLDS[world], schedule, rule, schedule.timesteps(n)) for n in (10, 100)
    ]
    assert errors[1] < errors[0] / 4
    assert errors[1] < (0.05 if name == "ddim" else 0.02)


@pytest.mark.parametrize("rule", [heun, plms], ids=["heun", "plms"])
def test_from_pure_noise_a_mean_of_slopes_throws_samples_out(rule):
    """What `sigma_max` is for: the cosine's first step, from sigma / alpha = 20,000."""
    schedule, world = NoiseSchedule("cosine"), Gaussian()
    levels = schedule.timesteps(20)
    assert flow_error(world, schedule, rule, levels) > 0.5
    assert flow_error(world, schedule, partial(rule, sigma_max=200), levels) < 0.05


# ---- samplers that coincide


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_step_of_dpmpp_is_ddim(kind):
    schedule, z_t, z0_hat = NoiseSchedule(kind), normal(2, 3), normal(2, 3, seed=1)
    for t, s in ((1000, 900), (1000, 0), (500, 499), (2, 1), (1, 0)):
        a, b = (step(rule, schedule, z_t, t, s, z0_hat, z_t) for rule in (dpmpp, ddim))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [1, 60, 1000])
def test_a_step_to_clean_data_is_eulers_whatever_came_before(t):
    """dpm++ and Heun: no model call, no history; with sigma = 0, z0_hat itself."""
    schedule, z_t, z0_hat = NoiseSchedule("linear"), normal(2, 3), normal(2, 3, seed=1)
    eps_hat = to_z0_eps(schedule, z_t, t, z0_hat, "x0")[1]
    past = Prediction(t + 9, normal(2, 3, seed=5), normal(2, 3, seed=6))
    for rule in (dpmpp, heun):
        history = [past, Prediction(t, z0_hat, eps_hat)]
        z_s = rule(schedule, z_t, 0, history, no_model, no_noise)
        torch.testing.assert_close(z_s, z0_hat, rtol=1e-12, atol=1e-12)


def test_dpmpp_is_the_limit_of_its_steps_towards_clean():
    """To ever cleaner s a first step tends to the closed form that s = 0 has."""
    schedule = NoiseSchedule("linear", 4, 1e-14, 0.5)
    z_t, z0_hat = normal(2, 3), normal(2, 3, seed=1)
    a, b = (step(dpmpp, schedule, z_t, 4, s, z0_hat, z_t) for s in (1, 0))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # sigma_1 = 1e-7


@pytest.mark.parametrize("s", [1, 30])
def test_plms_starts_with_heuns_step(s):
    schedule = NoiseSchedule("linear")
    predict = predictor(Mixture().model(schedule), schedule, "x0")
    z_t = normal(7)
    history = [predict(z_t, 50)]
    a, b = (rule(schedule, z_t, s, history, predict, no_noise) for rule in (plms, heun))
    assert torch.equal(a, b)
    assert not torch.allclose(a, ddim(schedule, z_t, s, history, predict, no_noise))


@pytest.mark.parametrize("before", [1, 2, 3, 4, 9])
def test_plms_integrates_polynomials_of_its_order_exactly(before):
    """Adams-Bashforth's definition: on a slope of degree < k, k values give the mean ahead."""
    schedule, z_t, h = NoiseSchedule("linear"), normal(5), 20
    degree = min(before, 3)
    t, s = 400, 380

    def slope(u):
        return torch.full((5,), ((500 - u) / 100) ** degree, dtype=torch.float64)

    def mean(high, low):  # of the slope between two levels
        power = degree + 1
        a, b = (500 - high) / 100, (500 - low) / 100
        return (b**power - a**power) / (power * (b - a))

    history = [Prediction(t + h * i, z_t, slope(t + h * i)) for i in range(before, -1, -1)]
    z_s = plms(schedule, z_t, s, history, no_model, no_noise)
    (ab_t, ab_s) = (schedule.alpha_bar[u].item() for u in (t, s))
    run = (1 / ab_s - 1) ** 0.5 - (1 / ab_t - 1) ** 0.5  # of sigma / alpha
    rise = z_s / ab_s**0.5 - z_t / ab_t**0.5
    torch.testing.assert_close(rise / run, torch.full_like(z_t, mean(t, s)))


@pytest.mark.parametrize("name", FLOWS)
def test_rules_keep_the_history_as_it_is(name):
    schedule, lengths = NoiseSchedule("linear"), []
    predict = predictor(Mixture().model(schedule), schedule, "x0")

    def listening(schedule, z_t, s, history, predict, randn):
        before = list(history)
        z_s = FLOWS[name](schedule, z_t, s, history, predict, randn)
        assert all(a is b for a, b in zip(before, history, strict=True))
        lengths.append(len(history))
        return z_s

    list(denoise(predict, schedule, normal(3), listening, schedule.timesteps(6)))
    assert lengths == [1, 2, 3, HISTORY, HISTORY, HISTORY]


# ---- any number of steps


@given(
    T=st.integers(1, 300),
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(sorted(RULES)),
    spacing=st.sampled_from(["leading", "trailing"]),
    data=st.data(),
)
def test_any_number_of_steps_ends_at_the_right_level(T, kind, name, spacing, data):
    schedule = NoiseSchedule(kind, T)
    levels = schedule.timesteps(data.draw(st.integers(1, T)), spacing)
    final = data.draw(st.integers(0, levels[-1] - 1))
    rule = RULES[name]
    if name in ("heun", "plms"):
        rule = partial(rule, sigma_max=200)
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    states = list(denoise(predict, schedule, normal(4), rule, levels, final=final))
    assert [state.t for state in states] == [*levels, final]
    assert all(state.z_t.isfinite().all() for state in states)
    assert states[-1].z_t.abs().max() < 100


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 17, 1000])
def test_few_and_all_steps_of_stable_diffusions_schedule(name, spacing, steps):
    schedule = NoiseSchedule("scaled_linear")
    predict = predictor(gaussian_model(schedule), schedule, "x0")
    levels = schedule.timesteps(steps, spacing)
    *_, last = denoise(predict, schedule, normal(4), RULES[name], levels)
    assert last.t == 0 and last.z_t.isfinite().all()
    assert last.z_t.abs().max() < 6


# ---- what too few steps do


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
    assert 0.1 * gaps[0] < gaps[1] < 0.3 * gaps[0] and gaps[1] < 0.05  # of order one
