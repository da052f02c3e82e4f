"""The command line: `ldm-edu quickstart` trains, `ldm-edu sample` draws from what was trained.

An error that a user can mend is one line on stderr and exit code 2; a run that was stopped
has saved itself and exits with 130.
"""

import argparse
import sys
from pathlib import Path

from ldm_edu.errors import LdmEduError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 130 stopped."""
    parser = _parser()
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and options.run != "lab":  # only Jupyter has options of its own
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    from ldm_edu import commands  # late: it imports torch, and --help should be quick

    try:
        getattr(commands, f"run_{options.run}")(options)
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
    sub.set_defaults(run="quickstart")


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
    sub.set_defaults(run="train")


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
    sub.set_defaults(run="sample")


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
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps")
    sub.add_argument("--out", type=Path, metavar="FILE.json", help="for all numbers")
    sub.add_argument(
        "--neighbours",
        type=Path,
        metavar="FILE.png",
        help="for the samples nearest to training pictures, each above its own",
    )
    sub.set_defaults(run="evaluate")


def _add_lab(commands) -> None:
    sub = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Opens the first notebook. Other options go to JupyterLab, such as "
        "--no-browser.",
    )
    sub.set_defaults(run="lab")


if __name__ == "__main__":
    sys.exit(main())
