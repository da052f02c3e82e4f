"""Guidance, predictors and the loop: the identities they obey."""

import gc

import pytest
import torch
from helpers import normal

from ldm_edu import samplers
from ldm_edu.diffusion import q_sample, to_z0_eps, velocity
from ldm_edu.errors import InputError
from ldm_edu.sampling import State, denoise, guide, last_state, predictor
from ldm_edu.schedule import NoiseSchedule

# ---- guidance


def test_guidance_0_and_1_are_the_two_predictions():
    u, c = normal(2, 3), normal(2, 3, seed=1)
    assert torch.equal(guide(u, c, 0.0), u)
    torch.testing.assert_close(guide(u, c, 1.0), c, rtol=0, atol=1e-15)
    torch.testing.assert_close(guide(u, c, 3.0), c + 2 * (c - u))  # beyond c, away from u


@pytest.mark.parametrize("w", [-1.0, 0.5, 2.0, 7.5])
def test_guidance_commutes_with_the_parameterisation(w):
    schedule, t, z_t = NoiseSchedule("linear"), 300, normal(2, 5)
    views = [to_z0_eps(schedule, z_t, t, normal(2, 5, seed=s), "eps") for s in (1, 2)]
    results = []
    for parameterisation in ("eps", "x0", "v"):
        u, c = (
            {"eps": eps, "x0": z0, "v": velocity(schedule, z0, t, eps)}[parameterisation]
            for z0, eps in views
        )
        results.append(to_z0_eps(schedule, z_t, t, guide(u, c, w), parameterisation))
    for z0_hat, eps_hat in results[1:]:
        torch.testing.assert_close(z0_hat, results[0][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(eps_hat, results[0][1], rtol=1e-10, atol=1e-10)


class Told:
    """A model whose prediction is its context's mean; counts how it was asked."""

    def __init__(self):
        self.batches = []

    def __call__(self, z_t, t, context):
        self.batches.append((len(z_t), t.tolist(), context))
        level = torch.zeros(len(z_t)) if context is None else context.mean((1, 2))
        return z_t + level[:, None]


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
def test_predictor_guides_from_the_empty_condition_to_the_given_one(w):
    schedule, z_t, model = NoiseSchedule(), normal(2, 3), Told()
    context, empty = torch.full((2, 4, 6), 5.0), torch.full((2, 4, 6), 1.0)
    predict = predictor(model, schedule, "eps", context, empty, w)
    t, z0_hat, eps_hat = predict(z_t, 700)
    torch.testing.assert_close(eps_hat, z_t + 1 + w * (5 - 1))
    torch.testing.assert_close(z0_hat, to_z0_eps(schedule, z_t, 700, eps_hat, "eps")[0])
    rows = 2 if w == 1 else 4  # both halves as one batch, and only where needed
    assert t == 700 and [b[:2] for b in model.batches] == [(rows, [700] * rows)]


def test_predictor_without_context_passes_none_and_ignores_guidance():
    model, z_t = Told(), normal(2, 3)
    assert torch.equal(
        predictor(model, NoiseSchedule(), "eps", guidance=4.0)(z_t, 9).eps_hat, z_t
    )
    assert [b[2] for b in model.batches] == [None]


def test_predictor_refuses_guidance_without_an_empty_condition():
    with pytest.raises(InputError, match=r"guidance = 2\.5 needs no_context"):
        predictor(Told(), NoiseSchedule(), "v", torch.zeros(1, 1, 1), guidance=2.5)


# ---- the loop


def test_the_loop_yields_what_the_rule_saw_and_ends_clean():
    schedule, z_T, asked = NoiseSchedule(T=100), normal(2, 3), []

    def model(z_t, t, context):
        asked.append(t[0].item())
        return 0.1 * z_t

    levels = [100, 60, 10]
    states = list(
        denoise(predictor(model, schedule, "v"), schedule, z_T, samplers.ddim, levels)
    )
    assert asked == levels  # once a level
    assert [s.t for s in states] == [*levels, 0]
    assert torch.equal(states[0].z_t, z_T)
    for state, s in zip(states, [*levels[1:], 0], strict=False):
        z0_hat, eps_hat = to_z0_eps(schedule, state.z_t, state.t, 0.1 * state.z_t, "v")
        torch.testing.assert_close(state.z0_hat, z0_hat)
        after = q_sample(schedule, z0_hat, s, eps_hat)  # DDIM: the same noise, less of it
        torch.testing.assert_close(states[states.index(state) + 1].z_t, after)
    assert states[-1].z_t is states[-1].z0_hat
    torch.testing.assert_close(states[-1].z_t, states[-2].z0_hat)


def test_memory_of_the_loop_does_not_grow_with_its_steps():
    schedule, living = NoiseSchedule(T=100), []

    def model(z, t, c):
        tensors = (o for o in gc.get_objects() if type(o) is torch.Tensor)
        living.append(sum(x.shape == (7, 11) for x in tensors))
        return 0.1 * z

    predict = predictor(model, schedule, "v")
    states = denoise(predict, schedule, normal(7, 11), samplers.plms, list(range(30, 0, -1)))
    assert last_state(states).t == 0
    assert living[-1] == living[10] < 20


def test_the_loop_records_no_gradients():
    weight = torch.ones(1, requires_grad=True)
    schedule = NoiseSchedule(T=100)
    predict = predictor(lambda z, t, c: weight * z, schedule, "v")
    states = denoise(predict, schedule, normal(2, 3), samplers.heun, [90, 10])
    assert not any(state.z0_hat.requires_grad for state in states)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("final", [0, 1, 9])
def test_the_loop_lands_on_the_final_level(final):
    schedule, z_T = NoiseSchedule(T=100), normal(2, 3)
    predict = predictor(lambda z, t, c: 0.1 * z, schedule, "v")
    *_, before, last = denoise(predict, schedule, z_T, samplers.ddim, [90, 10], final=final)
    assert (before.t, last.t) == (10, final) and last.z_t is last.z0_hat
    _, z0_hat, eps_hat = predict(before.z_t, 10)
    torch.testing.assert_close(last.z_t, q_sample(schedule, z0_hat, final, eps_hat))


@pytest.mark.parametrize("final", [-1, 10, 11])
def test_the_loop_refuses_a_final_level_that_is_not_below_all_others(final):
    schedule = NoiseSchedule(T=100)
    predict = predictor(lambda z, t, c: z, schedule, "v")
    with pytest.raises(InputError, match=rf"found \[90, 10\] to {final}"):
        list(denoise(predict, schedule, normal(2, 3), samplers.ddim, [90, 10], final=final))


def test_the_loop_gives_rules_all_they_may_need():
    schedule, calls = NoiseSchedule(T=10), []

    def rule(schedule_, z_t, s, history, predict, randn):
        assert schedule_ is schedule and predict is predict_ and randn is randn_
        calls.append((s, [p.t for p in history]))
        return z_t + 1

    def predict_(z_t, t):
        return predictor(lambda z, t, c: z, schedule, "x0")(z_t, t)

    def randn_(like):
        raise AssertionError("the loop itself draws nothing")

    z_T = torch.zeros(1, 2)
    states = list(denoise(predict_, schedule, z_T, rule, [9, 5, 2], randn_))
    assert calls == [(5, [9]), (2, [9, 5]), (0, [9, 5, 2])]
    assert [s.z_t.mean().item() for s in states] == [0, 1, 2, 3]


def test_the_loop_computes_only_what_is_asked_for():
    asked = []

    def model(z_t, t, context):
        asked.append(t[0].item())
        return z_t

    schedule = NoiseSchedule(T=50)
    loop = denoise(
        predictor(model, schedule, "v"), schedule, normal(1, 2), samplers.ddpm, [50, 25]
    )
    assert asked == []
    assert isinstance(next(loop), State) and asked == [50]


def a_loop(timesteps):
    schedule = NoiseSchedule(T=10)
    predict = predictor(lambda z, t, c: z, schedule, "v")
    return list(denoise(predict, schedule, torch.zeros(1, 2), samplers.ddim, timesteps))


@pytest.mark.parametrize("timesteps", [[], [11], [5, 5], [3, 7], [5, 0], [-1]])
def test_the_loop_refuses_timesteps_that_do_not_fall(timesteps):
    with pytest.raises(InputError, match="must fall within") as caught:
        a_loop(timesteps)
    assert f"found {timesteps}" in str(caught.value)
