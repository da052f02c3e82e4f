"""Make a shipped model of a finished training: weights at half size, measured, with its card.

    python tools/ship.py runs/celeba64-trained celeba64 --root ~/data

Needs `pip install -e '.[notebooks,evaluate]'`. Writes data/weights/NAME anew. Its card is
card.md, filled in; what no measurement gives (licence, limits) stands in about_NAME.md.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from ldm_edu import LatentDiffusion, checkpoint, data
from ldm_edu.images import encode_webp, image_grid, to_uint8, write_atomic
from ldm_edu.recipes import TRAINED
from ldm_edu.run_files import Log
from ldm_edu.train_model import STAGES

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "data" / "weights"
NEIGHBOURS = (
    "Nearest training pictures are told as distances (last table), not shown:\n"
    "photographs may not be passed on. `--neighbours FILE.png` shows them to whoever has the "
    "data.",
    "![Nearest training pictures](neighbours.png)\n\n"
    "*The samples that come nearest to a training picture in pixels; below each, that picture. "
    "Then the same in the\nfeatures of EfficientNet-Lite0. `--neighbours FILE.png` draws it. "
    "There are so few kinds of scenes that the nearest\nshows the same objects; none is the "
    "same to the pixel.*",
)
GRID, EVERY = 64, 100  # samples in the grid, steps a log row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that `ldm-edu train` left")
    parser.add_argument("name", choices=tuple(TRAINED))
    parser.add_argument("--root", help="where cifar10 or celeba64 lie on disk")
    parser.add_argument("--count", type=int, default=2000, help="N of the evaluation")
    options = parser.parse_args()
    out = WEIGHTS / options.name
    shutil.rmtree(out, ignore_errors=True)
    notes = checkpoint.read_config(options.run / "model")["notes"]
    LatentDiffusion.load(options.run / "model").save(out, half=True, **notes)

    pipe = LatentDiffusion.load(out)  # what is measured is what is shipped
    test_set = data.load(options.name, "test", options.root)
    captions = draw_grid(pipe, test_set, out / "samples.webp")
    draw_curves(options.run, out / "curves.png", out / "log.csv")
    table = measure(options, out)
    (out / "README.md").write_text(card(options, pipe, table, captions[0]))
    print(out / "README.md")


def measure(options: argparse.Namespace, out: Path) -> str:
    """Run the command that the card names; what it prints is the card's table."""
    root = ["--root", options.root] if options.root else []
    command = [sys.executable, "-m", "ldm_edu.cli", "evaluate", options.name, *root]
    command += ["--count", str(options.count), "--out", str(out / "evaluation.json")]
    if options.name == "shapes":  # photographs may not be passed on
        command += ["--neighbours", str(out / "neighbours.png")]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def draw_grid(pipe: LatentDiffusion, test_set: data.ImageDataset, file: Path) -> list[str]:
    """The first 64 seeds-in-a-row of seed 0, told the first 64 captions of the test set."""
    captions = test_set.captions[:GRID]
    images = to_uint8(pipe.sample(GRID, prompt=captions))
    grid = image_grid(images, columns=8, scale=128 // pipe.image_size)
    write_atomic(file, encode_webp(grid, lossless=True))
    return captions


def draw_curves(run: Path, picture: Path, table: Path) -> None:
    """The loss of both stages, means of 100 steps, as a picture and as numbers."""
    losses = Log(run / "log.jsonl").losses
    figure, panels = plt.subplots(1, len(STAGES), figsize=(9, 3), layout="constrained")
    lines = ["stage,step,loss"]
    for stage, panel in zip(STAGES, panels, strict=True):
        whole = len(losses[stage]) // EVERY * EVERY
        means = torch.tensor(losses[stage][:whole]).view(-1, EVERY).mean(1).tolist()
        steps = range(EVERY, whole + 1, EVERY)
        panel.plot(steps, means)
        panel.set(title=stage, xlabel="step", ylabel="loss", yscale="log")
        lines += [f"{stage},{step},{mean:.5f}" for step, mean in zip(steps, means, strict=True)]
    figure.savefig(picture, dpi=100)
    table.write_text("\n".join(lines) + "\n")


def card(options: argparse.Namespace, pipe: LatentDiffusion, table: str, example: str) -> str:
    """README.md of a shipped model."""
    name, recipe = options.name, TRAINED[options.name]
    config = checkpoint.read_config(WEIGHTS / name)
    stages = {stage: checkpoint.read_config(options.run / stage) for stage in STAGES}
    root = " --root FOLDER" if options.root else ""
    commands = "\n".join(command + root for command in config["notes"]["commands"])
    rows = "\n".join(
        f"| {stage} | {c['step']:,} | {c['step'] * recipe.batch_size:,} "
        f"| {c['seconds'] / 60:.0f} |"
        for stage, c in stages.items()
    )
    parts = ("autoencoder", "unet", "text_encoder")
    files = WEIGHTS.joinpath(name).glob("*.safetensors")
    fields = {
        **{part: sum(p.numel() for p in getattr(pipe, part).parameters()) for part in parts},
        "name": name,
        "size": pipe.image_size,
        "latent": "x".join(map(str, (*pipe.latent_shape[1:], pipe.latent_shape[0]))),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "guidance": pipe.guidance,
        "last": pipe.timesteps(20)[-1],
        "example": example,
        "commands": commands,
        "rows": rows,
        "seed": stages[STAGES[0]]["train"]["seed"],
        "root": root,
        "count": options.count,
        "table": table,
        "neighbours": NEIGHBOURS[name == "shapes"],
        "about": HERE.joinpath(f"about_{name}.md").read_text().strip(),
    }
    return HERE.joinpath("card.md").read_text().format(**fields)


if __name__ == "__main__":
    main()
