"""A stage of training: its log, its state, and how it stops."""

import json
import os
import signal
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
import torch
from torch import nn

from ldm_edu.errors import CheckpointError, StorageError
from ldm_edu.run_files import Log
from ldm_edu.runs import Stopped, run_stage, stop_signals
from ldm_edu.training import TrainConfig

CONFIG = TrainConfig(steps=1, lr=0.01, warmup=2, seed=3)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))


def loss_fn(net, step, interrupt_at=None):
    if step == interrupt_at:
        os.kill(os.getpid(), signal.SIGINT)
    x = torch.randn(16, 4)  # drawn from the generators that train() seeds
    return (net(x) - x.sum(1, keepdim=True)).square().mean()


def stage(folder, length, log_path, config=CONFIG, **interrupt):
    log = Log(log_path)
    try:
        fn = partial(loss_fn, **interrupt)
        return run_stage(folder, "toy", model(), fn, config, length, log)
    finally:
        log.close()


def tensors(state):
    _, groups = state.state_dict()
    return {f"{g}.{k}": v for g, group in groups.items() for k, v in group.items()}


@pytest.mark.parametrize("stop_at", [1, 2, 7, 11])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, stop_at):
    whole = stage(tmp_path / "a", 12, tmp_path / "a.jsonl")
    with pytest.raises(Stopped, match=f"after step {stop_at} of 12"):
        stage(tmp_path / "b", 12, tmp_path / "b.jsonl", interrupt_at=stop_at)
    resumed = stage(tmp_path / "b", 12, tmp_path / "b.jsonl")
    ours, theirs = tensors(whole), tensors(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))


def test_a_kill_between_saves_repeats_the_same_steps(tmp_path):
    with pytest.raises(Stopped):
        stage(tmp_path / "b", 12, tmp_path / "log", interrupt_at=5)
    with (tmp_path / "log").open("a") as file:  # steps logged, their state lost, one line torn
        file.write('{"stage": "toy", "step": 6, "loss": 9}\n{"stage": "toy", "st')
    stage(tmp_path / "b", 12, tmp_path / "log")
    stage(tmp_path / "a", 12, tmp_path / "whole")
    assert (tmp_path / "log").read_text() == (tmp_path / "whole").read_text()


def test_a_finished_stage_takes_no_step(tmp_path):
    first = stage(tmp_path / "a", 4, tmp_path / "log")
    again = stage(tmp_path / "a", 4, tmp_path / "log", interrupt_at=1)
    assert again.step == 4
    assert all(torch.equal(v, tensors(again)[k]) for k, v in tensors(first).items())


def test_a_time_becomes_a_number_of_steps_that_resuming_keeps(tmp_path):
    first = stage(tmp_path / "a", timedelta(seconds=0.1), tmp_path / "log")
    assert first.step == first.config.steps > 1
    again = stage(tmp_path / "a", timedelta(hours=9), tmp_path / "log")
    assert again.config == first.config


@pytest.mark.parametrize(
    ("length", "changes", "told"),
    [
        (9, {}, "steps 4, not 9"),  # the rate falls to 0 at the last step
        (4, {"seed": 7}, "seed 3, not 7"),
        (4, {"lr": 0.1, "ema": 0.5}, "lr 0.01, not 0.1; ema 0.999, not 0.5"),
        (timedelta(hours=9), {"seed": 7}, "seed 3, not 7"),
    ],
)
def test_a_stage_of_other_settings_is_refused(tmp_path, length, changes, told):
    stage(tmp_path / "a", 4, tmp_path / "log")
    with pytest.raises(CheckpointError, match=told):
        stage(tmp_path / "a", length, tmp_path / "log", replace(CONFIG, **changes))
    assert len((tmp_path / "log").read_text().splitlines()) == 4


def test_a_stage_of_another_name_or_model_is_refused(tmp_path):
    stage(tmp_path / "a", 2, tmp_path / "log")
    log = Log(tmp_path / "log")
    with pytest.raises(CheckpointError, match="'toy', not 'other'"):
        run_stage(tmp_path / "a", "other", model(), loss_fn, CONFIG, 2, log)
    with pytest.raises(CheckpointError, match="another model"):
        run_stage(tmp_path / "a", "toy", nn.Linear(4, 1), loss_fn, CONFIG, 2, log)
    log.close()


def test_a_state_ahead_of_its_log_is_refused(tmp_path):
    stage(tmp_path / "a", 3, tmp_path / "log")
    (tmp_path / "log").unlink()
    with pytest.raises(CheckpointError, match="0 steps of toy, its state 3: put back"):
        stage(tmp_path / "a", 3, tmp_path / "log")


def test_the_log_is_on_the_disk_before_the_state_is(tmp_path, monkeypatch):
    log, synced = Log(tmp_path / "log"), []
    log.rewind("toy", 0)
    log.write("toy", 1, 0.5)
    at = os.stat(tmp_path / "log").st_ino
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda n: synced.append(os.fstat(n)) or fsync(n))
    log.flush()
    assert [(s.st_ino, s.st_size > 0) for s in synced] == [(at, True)]
    log.close()


@pytest.mark.parametrize("act", ["write", "flush", "close"])
def test_a_full_disk_is_told_whenever_the_log_meets_it(tmp_path, act):
    class Full:
        def fail(self, *args):
            raise OSError(28, "No space left on device")

        write = flush = close = fail

    log = Log(tmp_path / "log")
    log.rewind("toy", 0)
    log.close()
    log.file = Full()
    with pytest.raises(StorageError, match="log: No space left on device"):
        getattr(log, act)(*(("toy", 1, 0.5) if act == "write" else ()))


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        stage(tmp_path / "a", 3, tmp_path / "absent" / "log")


def test_first_signal_asks_second_interrupts_and_handlers_come_back():
    def twice():
        with stop_signals() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        twice()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
