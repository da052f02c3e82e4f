"""The command line: `ldm-edu quickstart` trains, `ldm-edu sample` draws from what was trained.

An error that a user can mend is one line on stderr and exit code 2; a run that was stopped
has saved itself and exits with 130.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ldm_edu.errors import InputError, LdmEduError, StorageError

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 130 stopped."""
    parser = _parser()
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and options.run is not _lab:  # only Jupyter has options of its own
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    try:
        options.run(options)
    except LdmEduError as error:
        print("ldm-edu:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"\nldm-edu: {stopped or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ldm-edu",
        description="Latent diffusion models from scratch: train, sample, learn.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_quickstart(commands)
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_lab(commands)
    return parser


def _add_quickstart(commands) -> None:
    sub = commands.add_parser(
        "quickstart",
        help="train an autoencoder and a latent DDPM from nothing, and show what happened",
        description="Trains both stages and leaves weights, a log, samples.png and a "
        "self-contained report.html in the folder --out.",
    )
    sub.add_argument("--data", help="shapes (default), cifar10 or celeba64")
    sub.add_argument("--root", metavar="FOLDER", help="where cifar10 or celeba64 lie on disk")
    sub.add_argument("--minutes", type=float, help="of training, both stages (default: 5)")
    sub.add_argument(
        "--steps", type=int, nargs=2, metavar=("N", "M"), help="of each stage, not minutes"
    )
    sub.add_argument("--out", type=Path, metavar="DIR", help="default: runs/DATA")
    sub.add_argument("--seed", type=int, help="default: 0")
    sub.add_argument("--device", help="auto (default), cpu, cuda, mps")
    sub.add_argument("--resume", action="store_true", help="go on with the run in --out")
    sub.set_defaults(run=_quickstart)


def _add_train(commands) -> None:
    sub = commands.add_parser(
        "train",
        help="train one stage of a shipped model again, or of your own length",
        description="First the autoencoder, then, in the same folder, the diffusion model: "
        "its weights are in DIR/model at the end. The classifier is the judge of prompts that "
        "`evaluate` asks; it stands alone.",
    )
    sub.add_argument("stage", choices=("autoencoder", "diffusion", "classifier"))
    sub.add_argument("--recipe", required=True, help="shapes, cifar10 or celeba64")
    sub.add_argument("--root", metavar="FOLDER", help="where cifar10 or celeba64 lie on disk")
    sub.add_argument("--steps", type=int, help="default: the recipe's, an hour or two in all")
    sub.add_argument("--out", type=Path, metavar="DIR", help="default: runs/RECIPE-trained")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps")
    sub.add_argument("--resume", action="store_true", help="go on with the stage in --out")
    sub.set_defaults(run=_train)


def _add_sample(commands) -> None:
    sub = commands.add_parser("sample", help="draw pictures from a trained model")
    sub.add_argument("model", help="shapes, cifar10, celeba64, or a model's folder")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    sub.add_argument("--prompt", help="what to show, such as 'a large red circle'")
    sub.add_argument("--guidance", type=float, help="how much the prompt counts")
    sub.add_argument("--count", type=int, default=16, help="default: 16")
    sub.add_argument(
        "--sampler", default="dpm++", help="ddpm, ddim, dpm++ (default), heun or plms"
    )
    sub.add_argument("--steps", type=int, default=20, help="default: 20")
    sub.add_argument("--eta", type=float, default=0.0, help="noise of ddim; default: 0")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps")
    sub.set_defaults(run=_sample)


def _add_evaluate(commands) -> None:
    sub = commands.add_parser(
        "evaluate",
        help="measure a trained model against real pictures",
        description="Prints tables of what docs/measures.md explains. Needs the feature "
        "network: pip install 'ldm-edu[evaluate]'.",
    )
    sub.add_argument("model", help="shapes, cifar10, celeba64, or a model's folder")
    sub.add_argument("--data", help="default: what the model was trained on")
    sub.add_argument("--root", metavar="FOLDER", help="where cifar10 or celeba64 lie")
    sub.add_argument("--count", type=int, default=2000, help="N of a row; default: 2000")
    sub.add_argument("--guidance", type=float, help="default: the model's own")
    sub.add_argument("--steps", type=int, default=20, help="of sampling; default: 20")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--out", type=Path, metavar="FILE.json", help="for all numbers")
    sub.set_defaults(run=_evaluate)


def _add_lab(commands) -> None:
    sub = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Opens the first notebook. Other options go to JupyterLab, such as "
        "--no-browser.",
    )
    sub.set_defaults(run=_lab)


def _quickstart(options: argparse.Namespace) -> None:
    # torch is imported late, so that --help is quick
    from ldm_edu.quickstart import Plan, quickstart, saved_plan

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


def _train(options: argparse.Namespace) -> None:
    if options.stage == "classifier":
        _train_classifier(options)
        return
    from ldm_edu.train_model import Training, train_stage

    training = Training(options.recipe, options.seed)
    out = options.out or Path("runs") / f"{options.recipe}-trained"
    names = ("root", "steps", "resume", "device")
    settings = {name: getattr(options, name) for name in names}
    with _told_how_to_go_on(f"{training.command(options.stage)} --resume --out {out}"):
        train_stage(options.stage, training, out, **settings)
    print(f"Trained: {out / ('model' if options.stage == 'diffusion' else options.stage)}")


def _train_classifier(options: argparse.Namespace) -> None:
    from ldm_edu import data
    from ldm_edu.judges import accuracy, train_classifier

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


def _evaluate(options: argparse.Namespace) -> None:
    import json

    from ldm_edu import data
    from ldm_edu.evaluate import data_of, evaluate, judge_of, plain, spaces_of
    from ldm_edu.evaluation_table import as_text
    from ldm_edu.images import write_atomic
    from ldm_edu.pretrained import load_pretrained

    if options.out is not None:
        _check_folder(options.out)
    pipe, name = load_pretrained(options.model), options.data or data_of(options.model)
    train_set, test_set = (data.load(name, split, options.root) for split in data.SPLITS)
    judge = judge_of(name)
    settings = {key: getattr(options, key) for key in ("count", "guidance", "steps", "seed")}
    result = evaluate(pipe, train_set, test_set, spaces_of(judge), judge, **settings)
    print(as_text(result))
    if options.out is not None:
        write_atomic(options.out, (json.dumps(plain(result), indent=2) + "\n").encode())


def _sample(options: argparse.Namespace) -> None:
    from ldm_edu.images import image_grid, save_png, to_uint8
    from ldm_edu.measures import sample_with_bar
    from ldm_edu.pretrained import load_pretrained

    _check_folder(options.out)
    if options.out.suffix.lower() != ".png" or options.out.is_dir():
        raise InputError(f"--out: name a file that ends in .png, found {options.out}")
    pipe = load_pretrained(options.model, options.device)
    names = ("prompt", "guidance", "sampler", "steps", "eta", "seed")
    x = sample_with_bar(pipe, options.count, **{name: getattr(options, name) for name in names})
    columns = min(8, options.count)
    save_png(options.out, image_grid(to_uint8(x), columns, scale=max(1, 128 // x.shape[-1])))
    print(f"Pictures: {options.out}")


def _check_folder(file: Path) -> None:
    if not file.parent.is_dir():
        raise StorageError(f"--out: there is no folder {file.parent}")


def _lab(options: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
