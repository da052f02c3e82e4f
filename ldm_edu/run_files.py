"""What a run keeps in its folder: what it was asked for, and its log."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ldm_edu import checkpoint
from ldm_edu.errors import CheckpointError, StorageError
from ldm_edu.images import write_atomic

P = TypeVar("P")  # a dataclass


def make_folder(out: Path) -> None:
    """Make a run's folder, with those above it. Raises StorageError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {out}: {error.strerror}") from None


def write_plan(out: Path, plan: Any) -> None:
    """Leave in `out`, made if need be, what its run was asked for, as run.json."""
    make_folder(out)
    write_atomic(out / "run.json", (json.dumps(asdict(plan), indent=2) + "\n").encode())


def read_plan(out: Path, kind: type[P]) -> P | None:
    """What `write_plan` left in `out`: a `kind`, or None if that is not there."""
    try:
        return kind(**json.loads((out / "run.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def finished(folder: Path) -> bool:
    """Whether `folder` holds a stage that was trained to its last step."""
    if not checkpoint.exists(folder):
        return False
    config = checkpoint.read_config(folder)
    return config["step"] == config["train"]["steps"]


def steps_of(folder: Path) -> int | None:
    """The number of steps with which the stage in `folder` was begun; None if none was."""
    if not checkpoint.exists(folder):
        return None
    return checkpoint.read_config(folder)["train"]["steps"]


class Log:
    """`log.jsonl`: one line a step, {"stage", "step", "loss"}, in order, none twice."""

    def __init__(self, path: Path):
        self.path = path
        self.losses: dict[str, list[float]] = {}  # stage -> loss of step 1, 2, ...
        self.file: TextIO | None = None
        if path.exists():
            self._read()

    def _read(self) -> None:
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
                losses, step, loss = (
                    self.losses.setdefault(entry["stage"], []),
                    entry["step"],
                    entry["loss"],
                )
            except (json.JSONDecodeError, KeyError, TypeError):
                break  # a line cut off by a kill: what follows is written anew
            if step == len(losses) + 1:
                losses.append(loss)

    def rewind(self, stage: str, step: int) -> None:
        """Forget what came after `step`, as the training state has; raises CheckpointError."""
        losses = self.losses.setdefault(stage, [])
        if len(losses) < step:
            raise CheckpointError(
                f"{self.path} has {len(losses)} steps of {stage}, its state {step}: put back "
                "the log that was there, or begin another run"
            )
        del losses[step:]
        self._open()

    def _open(self) -> None:
        self.close()
        entries = [
            _entry(stage, step, loss)
            for stage, losses in self.losses.items()
            for step, loss in enumerate(losses, 1)
        ]
        with self._writing():
            write_atomic(self.path, "".join(entries).encode())
            self.file = self.path.open("a")

    def write(self, stage: str, step: int, loss: float) -> None:
        self.losses[stage].append(loss)
        with self._writing():
            self.file.write(_entry(stage, step, loss))

    def flush(self) -> None:
        """Make what was written durable: a state saved after it is never ahead of its log."""
        with self._writing():
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.file is not None:
            with self._writing():
                self.file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from None


def _entry(stage: str, step: int, loss: float) -> str:
    return json.dumps({"stage": stage, "step": step, "loss": loss}) + "\n"
