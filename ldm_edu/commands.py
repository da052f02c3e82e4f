"""What each command of the command line does; `cli` reads its options.

Each takes the options as `argparse` leaves them, and raises an LdmEduError for bad input.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ldm_edu import data
from ldm_edu.errors import InputError, StorageError
from ldm_edu.evaluate import data_of, evaluate, judge_of, plain, spaces_of
from ldm_edu.evaluation_table import as_text
from ldm_edu.images import image_grid, save_png, to_uint8, write_atomic
from ldm_edu.judges import accuracy, train_classifier
from ldm_edu.measures import sample_with_bar
from ldm_edu.memorisation import PAIRS
from ldm_edu.pretrained import load_pretrained
from ldm_edu.quickstart import Plan, quickstart, saved_plan
from ldm_edu.train_model import Training, train_stage

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def run_quickstart(options: argparse.Namespace) -> None:
    names = ("data", "root", "minutes", "steps", "seed", "device")
    asked = {name: getattr(options, name) for name in names}
    asked = {name: value for name, value in asked.items() if value is not None}
    out = options.out or Path("runs") / asked.get("data", "shapes")
    plan = replace(saved_plan(out), **asked) if options.resume else Plan(**asked)
    with _told_how_to_go_on(f"ldm-edu quickstart --resume --out {out}"):
        quickstart(plan, out, options.resume)
    print(
        f"Pictures: {out / 'samples.png'}\nThe whole story, in a browser: {out / 'report.html'}"
    )


@contextmanager
def _told_how_to_go_on(command: str) -> Iterator[None]:
    """A run that is stopped within says which command resumes it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt(f"{stopped or 'interrupted'}; go on with: {command}") from None


def run_train(options: argparse.Namespace) -> None:
    if options.stage == "classifier":
        _train_classifier(options)
        return
    training = Training(options.recipe, options.seed)
    out = options.out or Path("runs") / f"{options.recipe}-trained"
    names = ("root", "steps", "resume", "device")
    settings = {name: getattr(options, name) for name in names}
    with _told_how_to_go_on(f"{training.command(options.stage)} --resume --out {out}"):
        train_stage(options.stage, training, out, **settings)
    print(f"Trained: {out / ('model' if options.stage == 'diffusion' else options.stage)}")


def _train_classifier(options: argparse.Namespace) -> None:
    if options.device not in ("auto", "cpu"):
        raise InputError(f"--device: a judge is trained on 'cpu', found {options.device!r}")
    name, out = options.recipe, options.out or Path("runs") / f"{options.recipe}-judge"
    settings = {key: getattr(options, key) for key in ("steps", "seed", "resume")}
    seed = f" --seed {options.seed}" if options.seed else ""
    command = f"ldm-edu train classifier --recipe {name}{seed} --resume --out {out}"
    with _told_how_to_go_on(command):
        judge = train_classifier(name, options.root, out, **settings)
    found = accuracy(judge, data.load(name, "test", options.root))
    for what, rate in found.items():
        print(
            f"{what:20} balanced {rate.balanced:.3f}: yes {rate.yes:.3f} of {rate.yes_count}, "
            f"no {rate.no:.3f} of {rate.no_count}"
        )
    print(f"Trained: {out / 'model'}")


def run_evaluate(options: argparse.Namespace) -> None:
    _check_file("--out", options.out, ".json")
    _check_file("--neighbours", options.neighbours, ".png")
    pipe = load_pretrained(options.model, options.device)
    name = options.data or data_of(options.model)
    train_set, test_set = (data.load(name, split, options.root) for split in data.SPLITS)
    judge = judge_of(name)
    settings = {key: getattr(options, key) for key in ("count", "guidance", "steps", "seed")}
    result = evaluate(pipe, train_set, test_set, spaces_of(judge), judge, **settings)
    print(as_text(result))
    if options.out is not None:
        write_atomic(options.out, (json.dumps(plain(result), indent=2) + "\n").encode())
    if options.neighbours is not None:
        _save_grid(options.neighbours, result["neighbours"], PAIRS)
        print(f"\nRow by row, samples above their neighbours: {options.neighbours}")


def run_sample(options: argparse.Namespace) -> None:
    _check_file("--out", options.out, ".png")
    pipe = load_pretrained(options.model, options.device)
    names = ("prompt", "guidance", "sampler", "steps", "eta", "seed")
    x = sample_with_bar(pipe, options.count, **{name: getattr(options, name) for name in names})
    _save_grid(options.out, to_uint8(x), min(8, options.count))
    print(f"Pictures: {options.out}")


def _save_grid(file: Path, images: Tensor, columns: int) -> None:
    save_png(file, image_grid(images, columns, scale=max(1, 128 // images.shape[-1])))


def _check_file(option: str, file: Path | None, suffix: str) -> None:
    """Before anything long begins: can what it makes be written where it should go?"""
    if file is None:
        return
    if not file.parent.is_dir():
        raise StorageError(f"{option}: there is no folder {file.parent}")
    if file.suffix.lower() != suffix or file.is_dir():
        raise InputError(f"{option}: name a file that ends in {suffix}, found {file}")


def run_lab(options: argparse.Namespace) -> None:
    notebook = NOTEBOOKS / "00_start_here.ipynb"
    if not notebook.is_file():
        raise InputError(
            f"there are no notebooks in {NOTEBOOKS}: run `ldm-edu lab` from a clone of the "
            "repository, installed with pip install -e '.[notebooks]'"
        )
    try:
        from jupyterlab.labapp import main as jupyterlab
    except ImportError:
        raise InputError(
            "JupyterLab is not installed: pip install 'ldm-edu[notebooks]'"
        ) from None
    jupyterlab([str(notebook), *options.rest])
