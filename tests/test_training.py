"""Training: stopped and resumed equals never stopped, and each part by its closed form."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ldm_edu import checkpoint
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.seeds import seeded
from ldm_edu.training import (
    TrainConfig,
    TrainState,
    batch_index,
    ema_decay,
    learning_rate,
    train,
    update_ema,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines

CONFIG = TrainConfig(steps=8, lr=0.02, warmup=3, ema=0.9, seed=5)


def make_model(seed=0):
    """Dropout and a buffer that moves: both must survive a stop."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


def make_loss(model):
    data = torch.randn(10, 3, generator=torch.Generator().manual_seed(9))

    def loss_fn(step):
        x = data[batch_index(10, 4, seed=1, step=step)]
        noisy = x + 0.1 * torch.randn_like(x)  # from the global generator
        return (model(noisy) - x.sum(1, keepdim=True)).square().mean()

    return loss_fn


def new_state(seed=0, config=CONFIG):
    return TrainState(make_model(seed), config)


def run(state, stop=None):
    return list(itertools.islice(train(state, make_loss(state.model)), stop))


def tensors_of(state):
    return {
        f"{group}/{name}": value
        for group, entries in state.state_dict()[1].items()
        for name, value in entries.items()
    }


def assert_same(a, b):
    a, b = tensors_of(a), tensors_of(b)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


# ---- stop and resume


@pytest.mark.parametrize("stop", [1, 3, 7, 8])
def test_a_stopped_run_equals_an_unbroken_one_bit_for_bit(stop, tmp_path):
    unbroken = new_state()
    expected = run(unbroken)
    first = new_state()
    before = run(first, stop)
    checkpoint.save(tmp_path / "state", *first.state_dict())
    torch.randn(7)  # whatever happens in between
    resumed = new_state(seed=1)  # other weights, to be replaced
    resumed.load_state_dict(*checkpoint.load(tmp_path / "state"))
    assert resumed.step == stop
    assert before + run(resumed) == expected  # steps, losses, rates, gradient norms
    assert_same(resumed, unbroken)


def test_a_channels_last_model_resumes_bit_for_bit(tmp_path):
    """Files hold values, not memory layouts; the fused step reads moments in the weight's."""

    def new(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
        return TrainState(model.to(memory_format=torch.channels_last), CONFIG)

    def go(state, stop=None):
        steps = train(state, lambda step: state.model(torch.randn(2, 3, 6, 6)).square().mean())
        return list(itertools.islice(steps, stop))

    unbroken, first, resumed = new(0), new(0), new(1)
    expected = go(unbroken)
    before = go(first, 3)
    checkpoint.save(tmp_path / "state", *first.state_dict())
    resumed.load_state_dict(*checkpoint.load(tmp_path / "state"))
    assert before + go(resumed) == expected
    assert_same(resumed, unbroken)


def test_state_passes_from_one_object_to_another_without_a_file():
    unbroken, first, resumed = new_state(), new_state(), new_state(seed=1)
    run(unbroken)
    run(first, 4)
    config, tensors = first.state_dict()
    resumed.load_state_dict(config, tensors)
    assert_same(resumed, first)
    run(resumed)
    assert_same(resumed, unbroken)


def test_resuming_a_finished_run_does_nothing():
    state = new_state()
    run(state)
    before = {k: v.clone() for k, v in tensors_of(state).items()}
    assert run(state) == []
    assert all(torch.equal(before[k], v) for k, v in tensors_of(state).items())


def test_another_seed_is_another_run():
    a, b = (new_state(config=TrainConfig(steps=8, seed=s)) for s in (0, 1))
    assert [p.loss for p in run(a)] != [p.loss for p in run(b)]


@pytest.mark.parametrize(
    ("config", "make", "found"),
    [
        (replace(CONFIG, steps=9), make_model, "steps 8, not 9"),
        (CONFIG, lambda: nn.Linear(3, 1), "another model's"),
        (CONFIG, lambda: nn.Sequential(*make_model(), nn.Linear(1, 1)), "another model's"),
    ],
    ids=["other settings", "other layers", "more layers"],
)
def test_another_runs_state_is_refused(config, make, found):
    state = new_state()
    run(state, 2)
    with pytest.raises(CheckpointError, match=found) as caught:
        TrainState(make(), config).load_state_dict(*state.state_dict())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["model", "ema", "optimizer", "step"])
def test_a_state_that_is_refused_changes_nothing(group):
    given, state = new_state(), new_state(seed=1)
    run(given, 2)
    run(state, 3)
    config, tensors = given.state_dict()
    if group == "step":
        del config["step"]
    else:
        tensors[group] = dict(list(tensors[group].items())[:-1]) | {"other|one": torch.ones(1)}
    before = {k: v.clone() for k, v in tensors_of(state).items()}
    with pytest.raises(CheckpointError, match="another model's"):
        state.load_state_dict(config, tensors)
    after = tensors_of(state)
    assert before.keys() == after.keys() and state.step == 3
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_every_step_draws_the_numbers_of_its_seed_and_step():
    draws = {}
    for seed in (0, 1):
        state = TrainState(nn.Linear(1, 1), TrainConfig(steps=3, seed=seed))

        def loss_fn(step, state=state, seed=seed):
            draws[seed, step] = torch.randn(4)
            return state.model.weight.sum()

        list(train(state, loss_fn))
    for (seed, step), draw in draws.items():
        with seeded(seed, step):
            assert torch.equal(draw, torch.randn(4))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 6


# ---- one step


def test_the_first_step_is_adamws():
    """p <- p - lr wd p - lr g / (|g| + eps): the moments are the gradient itself at first."""
    model = nn.Linear(2, 1, bias=False).double()
    before = model.weight.detach().clone()
    gradient = torch.tensor([[3.0, -0.5]], dtype=torch.float64)
    config = TrainConfig(steps=10, lr=0.1, warmup=4, weight_decay=0.3, clip=1e9)
    state = TrainState(model, config)
    done = next(train(state, lambda step: (model.weight * gradient).sum()))
    lr = 0.1 / 4
    expected = before * (1 - lr * 0.3) - lr * gradient.sign()
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-7, atol=1e-7)
    assert done.step == state.step == 1 and done.lr == lr
    assert done.loss == (before * gradient).sum().item()
    assert done.grad_norm == pytest.approx(gradient.norm().item())


def test_gradients_are_clipped_to_the_norm():
    """The first moment is (1 - beta1) times the clipped gradient; the report has the whole."""
    for clip, kept in ((1.0, 1.0), (100.0, 50.0)):
        model = nn.Linear(2, 1, bias=False)
        state = TrainState(model, TrainConfig(steps=1, betas=(0.8, 0.9), clip=clip))
        gradient = torch.tensor([[30.0, 40.0]])
        (done,) = train(state, lambda step, g=gradient, m=model: (m.weight * g).sum())
        moment = state.optimizer.state[model.weight]["exp_avg"]
        assert moment.norm().item() == pytest.approx(0.2 * kept, rel=1e-5)
        assert done.grad_norm == pytest.approx(50.0, rel=1e-5)


def test_progress_reports_every_step_with_its_rate():
    done = run(new_state())
    assert [p.step for p in done] == list(range(1, 9))
    assert [p.lr for p in done] == [learning_rate(step, CONFIG) for step in range(1, 9)]


def test_the_model_trains_and_its_average_does_not():
    state = new_state()
    state.model.eval()
    run(state, 1)
    assert state.model.training and not state.ema.training
    assert not any(p.requires_grad for p in state.ema.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_raises_and_takes_no_step(bad):
    state = new_state()
    run(state, 2)
    before = {k: v.clone() for k, v in tensors_of(state).items()}
    with pytest.raises(InputError, match=f"step 3 is {bad}"):
        next(train(state, lambda step: state.model[0].weight.square().sum() * bad))
    assert state.step == 2
    assert all(torch.equal(before[k], v) for k, v in tensors_of(state).items())


def test_a_gradient_that_is_not_finite_raises_and_takes_no_step():
    """The root of 0 is 0, its slope infinite, and 0 times that NaN."""
    state = new_state()
    run(state, 2)
    before = {k: v.clone() for k, v in tensors_of(state).items()}
    with pytest.raises(InputError, match="step 3 is 0, but the norm of its gradient is nan"):
        next(train(state, lambda step: (state.model[0].weight.norm() * 0).sqrt()))
    assert state.step == 2
    assert all(torch.equal(before[k], v) for k, v in tensors_of(state).items())


def test_a_loss_that_is_no_scalar_raises():
    state = new_state()
    with pytest.raises(InputError, match=r"a scalar, found shape \(4,\): take \.mean\(\)"):
        next(train(state, lambda step: state.model(torch.ones(4, 3))[:, 0]))


def test_training_leaves_the_global_generators_alone():
    state, other = new_state(), new_state()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in train(state, make_loss(state.model)):
        assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError):  # nor does an error disturb them
        next(train(other, lambda step: torch.randn(2)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"ema": -0.1}, "ema=-0.1"),
        ({"seed": -1}, "found -1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes, found):
    with pytest.raises(InputError, match=found):
        TrainConfig(**({"steps": 10} | changes))


# ---- learning rate


def test_rate_rises_linearly_then_falls_as_half_a_cosine():
    config = TrainConfig(steps=109, lr=0.4, warmup=10)
    assert [learning_rate(s, config) for s in (1, 5, 10)] == pytest.approx([0.04, 0.2, 0.4])
    assert learning_rate(60, config) == pytest.approx(0.2)  # half way down: 10 .. 110
    assert learning_rate(35, config) == pytest.approx(0.4 * math.cos(math.pi / 8) ** 2)
    assert learning_rate(110, config) == pytest.approx(0, abs=1e-15)
    rates = [learning_rate(s, config) for s in range(1, 110)]
    assert all(0 < r <= 0.4 for r in rates)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_rate_without_warm_up_and_with_nothing_else():
    assert learning_rate(1, TrainConfig(steps=1, lr=2.0, warmup=0)) == pytest.approx(1.0)
    assert learning_rate(1, TrainConfig(steps=3, lr=2.0, warmup=0)) < 2.0
    assert learning_rate(5, TrainConfig(steps=5, lr=2.0, warmup=10)) == 1.0


# ---- the average


def test_average_has_its_closed_form():
    """ema_n = d^n w_0 + (1 - d) sum_k d^(n - k) w_k."""
    d, average, model = 0.7, nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    weights = [average.weight.item()]
    for k in range(1, 6):
        nn.init.constant_(model.weight, k**2)
        weights.append(float(k**2))
        update_ema(average, model, d)
    expected = d**5 * weights[0] + (1 - d) * sum(d ** (5 - k) * weights[k] for k in range(1, 6))
    assert average.weight.item() == pytest.approx(expected, rel=1e-12)


def test_average_copies_buffers():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(torch.randn(5, 2))
    update_ema(average, model, 0.9)
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked == model.num_batches_tracked == 1


def test_decay_rises_to_its_limit():
    assert ema_decay(1, 0.999) == pytest.approx(2 / 11)
    assert ema_decay(90, 0.999) == pytest.approx(0.91)
    assert ema_decay(10**6, 0.999) == 0.999
    assert ema_decay(50, 0.0) == 0.0


def test_training_averages_the_weights_after_each_step():
    state = new_state()
    average = state.model[0].weight.detach().clone()
    for done in train(state, make_loss(state.model)):
        d = min(CONFIG.ema, (1 + done.step) / (10 + done.step))
        average = d * average + (1 - d) * state.model[0].weight.detach()
        torch.testing.assert_close(state.ema[0].weight, average)
    assert not torch.allclose(state.ema[0].weight, state.model[0].weight)
    assert torch.equal(state.ema[1].running_mean, state.model[1].running_mean)


# ---- batches and seeds


@given(count=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 2**40))
@settings(PATIENT, max_examples=50)
def test_each_image_comes_once_an_epoch_however_the_batches_cut_it(count, batch_size, seed):
    steps = math.ceil(3 * count / batch_size)
    batches = [batch_index(count, batch_size, seed, step) for step in range(1, steps + 1)]
    assert {(b.shape, b.dtype) for b in batches} == {((batch_size,), torch.int64)}
    order = torch.cat(batches)
    for epoch in range(3):
        part = order[epoch * count : (epoch + 1) * count]
        assert sorted(part.tolist()) == list(range(count))


def test_a_batch_is_a_function_of_its_arguments():
    def draw(count=50, size=8, seed=3, step=6):
        return batch_index(count, size, seed, step).tolist()

    torch.manual_seed(0)
    once = draw()  # steps 6 and 7 straddle epochs 1 and 2
    torch.manual_seed(1)
    draw(step=1)
    assert draw() == once
    assert draw(seed=4) != once and draw(step=7) != once


def test_epochs_are_shuffled_differently():
    epochs = {tuple(batch_index(30, 30, seed=0, step=step).tolist()) for step in range(1, 9)}
    assert len(epochs) == 8 and tuple(range(30)) not in epochs


def test_config_survives_json(tmp_path):
    checkpoint.save(tmp_path / "c", CONFIG.to_dict(), {})
    assert TrainConfig(**checkpoint.load(tmp_path / "c")[0]) == CONFIG
