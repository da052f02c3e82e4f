"""One stage of training as a user meets it: a progress bar, a log, and state that is safe.

A stage lives in a checkpoint folder. It is saved about once a minute, at its end, and when
Ctrl-C or SIGTERM asks it to stop, which it does at the next step boundary.
"""

import copy
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from ldm_edu import checkpoint
from ldm_edu.errors import CheckpointError
from ldm_edu.run_files import Log
from ldm_edu.training import TrainConfig, TrainState, train

SAVE_SECONDS = 60.0
_WARM, _TIMED = 3, 10  # steps to reach speed, steps to measure it


class Stopped(KeyboardInterrupt):
    """A stage was asked to stop and has saved itself; the message says where it stands."""


def run_stage(
    folder: Path,
    name: str,
    model: nn.Module,
    loss_fn: Callable[[nn.Module, int], Tensor],
    config: TrainConfig,
    length: int | timedelta,
    log: Log,
) -> TrainState:
    """Train `model` to its last step, from `folder` if it holds a state, and leave it there.

    loss_fn(model, step) -> scalar. length: a number of steps, or a time, to which a new stage
    fits the number after timing a few steps on a copy, and a resumed stage keeps what it has;
    `config.steps` is overwritten by either. Raises Stopped after Ctrl-C or SIGTERM, with
    everything saved, and CheckpointError if `folder` holds the state of another model or of a
    run with other settings or another number of steps, on which the learning rate depends.
    """
    saved = checkpoint.load(folder) if checkpoint.exists(folder) else None
    if saved is not None and saved[0].get("stage") != name:
        raise CheckpointError(f"{folder} holds stage {saved[0].get('stage')!r}, not {name!r}")
    if isinstance(length, timedelta):
        length = (
            _steps_within(length, model, loss_fn, config)
            if saved is None
            else saved[0]["train"]["steps"]
        )
    config = replace(config, steps=length)
    state = TrainState(model, config)
    if saved is not None:
        state.load_state_dict(*saved)
    log.rewind(name, state.step)

    before = saved[0]["seconds"] if saved else 0.0
    began = last_save = time.monotonic()

    def save() -> None:
        log.flush()
        progress, tensors = state.state_dict()
        seconds = before + time.monotonic() - began
        checkpoint.save(folder, {"stage": name, "seconds": seconds, **progress}, tensors)

    steps = train(state, lambda step: loss_fn(model, step))
    bar = tqdm(steps, name, config.steps, initial=state.step, unit="step", mininterval=0.5)
    with stop_signals() as stop_asked, bar:
        for done in bar:
            log.write(name, done.step, done.loss)
            bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)
            if stop_asked():
                save()
                raise Stopped(f"{name} stopped after step {done.step} of {config.steps}")
            if time.monotonic() - last_save > SAVE_SECONDS:
                save()
                last_save = time.monotonic()
    if saved is None or state.step > saved[0]["step"]:
        save()
    return state


def _steps_within(
    time_left: timedelta, model: nn.Module, loss_fn: Callable, config: TrainConfig
) -> int:
    trial = TrainState(copy.deepcopy(model), replace(config, steps=_WARM + _TIMED))
    marks = [time.perf_counter() for _ in train(trial, lambda step: loss_fn(trial.model, step))]
    # the median, so that one hiccup of the machine does not shorten the whole run
    per_step = statistics.median(b - a for a, b in pairwise(marks[_WARM - 1 :]))
    return max(2, round(time_left.total_seconds() / per_step))


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a question: stop_asked(). A second one kills.

    Outside the main thread (a notebook's worker, say) signals are left alone.
    """
    asked = False

    def ask(number, frame):
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        before = {}
    try:
        yield lambda: asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
