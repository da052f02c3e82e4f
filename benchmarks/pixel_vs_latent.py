"""Diffusion in pixels against diffusion in latents: the same loop, the same minutes.

    pip install -e '.[notebooks,evaluate]'
    race="python benchmarks/pixel_vs_latent.py --data celeba64 --root FOLDER"
    $race latent && $race pixel  # one thread each; or both at once, each on one core
    $race table          # prints Markdown, draws docs/images/pixel_vs_latent_*.png

The two denoisers have one design and about one number of parameters. The latent side pays for
its autoencoder: training and encoding count as its first minutes. Drawing samples to measure
stops the clock. Distances are FD-EffLite0 of N samples to N training pictures; no captions.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldm_edu import LatentDiffusion, NoiseSchedule, data
from ldm_edu.evaluate import two_sets
from ldm_edu.features import features_of, load_efficientnet_lite0
from ldm_edu.images import image_grid, save_png
from ldm_edu.latents import LatentSet, image_batch, measure_scale, rescale
from ldm_edu.measures import sample_many
from ldm_edu.metrics import frechet_distance
from ldm_edu.pixels import PixelSpace
from ldm_edu.recipes import QUICKSTART, TRAINED
from ldm_edu.run_files import Log
from ldm_edu.stages import denoiser_task, encode_once, train_autoencoder
from ldm_edu.training import TrainConfig, TrainState, train
from ldm_edu.unet import UNetConfig

SHARE = 0.2  # of the latent side's minutes, for its autoencoder
WARM, TIMED = 2, 5  # steps to reach speed, steps to measure it
LATENTS = {
    "shapes": replace(TRAINED["shapes"].unet, context_dim=None),
    "celeba64": replace(QUICKSTART["celeba64"].unet, context_dim=None, coordinates=True),
}
PIXELS = {  # about as many parameters, attention at 8x8 and below, as in the latent U-Nets
    "shapes": UNetConfig(
        3, 3, (24, 48, 96), 1, (False, False, True), groups=8, coordinates=True
    ),
    "celeba64": UNetConfig(
        3,
        3,
        (32, 64, 96, 112),
        attention=(False, False, False, True),
        groups=16,
        dropout=0.1,
        coordinates=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("latent", "pixel", "table"))
    parser.add_argument("--data", choices=tuple(PIXELS), required=True)
    parser.add_argument("--root")
    parser.add_argument("--minutes", type=float, default=40.0, help="of training, each side")
    parser.add_argument("--count", type=int, default=500, help="N of each distance")
    parser.add_argument("--out", type=Path, default=Path("runs/pixel_vs_latent"))
    options = parser.parse_args()
    if options.side == "table":
        print(table(options.out, options.data))
        return
    torch.set_num_threads(1)
    folder = options.out / options.data / options.side
    folder.mkdir(parents=True)
    race(options, folder)


def race(options: argparse.Namespace, folder: Path) -> None:
    """Train one side, measuring its samples at 1/8, 1/4, 1/2 of the minutes and at the end."""
    images = data.load(options.data, "train", options.root)
    net = load_efficientnet_lite0()
    sets = two_sets(len(images.images), options.count)
    real, other = (features_of(net, images.images[rows]) for rows in sets)

    began, limit = time.monotonic(), 60 * options.minutes
    recipe = replace(TRAINED[options.data], flip=False)
    if options.side == "latent":
        recipe = replace(recipe, unet=LATENTS[options.data])
        log = Log(folder / "log.jsonl")
        share = timedelta(seconds=SHARE * limit)
        autoencoder = train_autoencoder(recipe, images, folder / "autoencoder", log, share)
        log.close()
        latents = encode_once(autoencoder, images, recipe, folder / "latents")
    else:
        recipe = replace(recipe, unet=PIXELS[options.data])
        autoencoder, latents = pixels(images.images)
    model, loss_fn, _ = denoiser_task(recipe, latents, images.captions)
    cost = {"parameters": sum(p.numel() for p in model.parameters()), **flops(model, loss_fn)}

    before = time.monotonic() - began
    steps = steps_within(limit - before, model, loss_fn, recipe)
    state = TrainState(model, TrainConfig(steps=steps, lr=recipe.unet_lr, ema=recipe.ema))
    pipe = LatentDiffusion(
        autoencoder, state.ema["unet"], NoiseSchedule(), "v", images.images.shape[-1]
    )
    head = {
        "side": options.side,
        "data": options.data,
        "before": before,
        "steps": steps,
        **cost,
    }
    head |= {"count": options.count, "floor": frechet_distance(real, other)}
    with (folder / "race.jsonl").open("w") as file:
        print(json.dumps(head), file=file, flush=True)
        for step, seconds in marks(state, loss_fn, before, limit):
            drawn = time.monotonic()
            samples = sample_many(pipe, options.count, steps=20)
            drawn = time.monotonic() - drawn
            distance = frechet_distance(real, features_of(net, samples))
            row = {"step": step, "seconds": seconds, "distance": distance, "drawing": drawn}
            print(json.dumps(row), file=file, flush=True)
            save_png(folder / f"step{step}.png", image_grid(samples[:64], columns=8, scale=2))


def marks(
    state: TrainState, loss_fn: Callable, before: float, limit: float
) -> Iterator[tuple[int, float]]:
    """Train to the end; yields (step, seconds of training) at each mark and stops the clock."""
    due = [limit / 2**k for k in (3, 2, 1) if limit / 2**k > before]
    trained, last = before, time.monotonic()
    for progress in train(state, lambda step: loss_fn(state.model, step)):
        now = time.monotonic()
        trained, last = trained + now - last, now
        if progress.step == state.config.steps or (due and trained >= due[0]):
            due = [mark for mark in due if mark > trained]
            yield progress.step, trained
            last = time.monotonic()


def pixels(images: Tensor) -> tuple[PixelSpace, LatentSet]:
    """Images as latents: scaled by their own mean and std, without any spread."""
    x = image_batch(images, torch.arange(len(images)))
    latents = LatentSet(x, torch.zeros(1, 1, 1, 1).expand_as(x))
    space, (mean, std) = PixelSpace(), measure_scale(latents, per_channel=False)
    space.set_latent_scale(mean, std)
    return space, rescale(latents, mean, std)


def flops(model: nn.Module, loss_fn: Callable) -> dict[str, int]:
    """Operations of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        loss_fn(model, 1).backward()
    model.zero_grad()
    return {"flop": counter.get_total_flops()}


def steps_within(seconds: float, model: nn.Module, loss_fn: Callable, recipe) -> int:
    """How many steps fit, by timing a few on the model, whose weights are put back."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = TrainState(model, TrainConfig(steps=WARM + TIMED, lr=recipe.unet_lr))
    for progress in train(state, lambda step: loss_fn(model, step)):
        if progress.step == WARM:
            began = time.perf_counter()
    per_step = (time.perf_counter() - began) / TIMED
    model.load_state_dict(weights)
    return max(WARM, round(seconds / per_step))


def table(out: Path, name: str) -> str:
    """Both sides as Markdown: the cost of a step, then the distance over the minutes."""
    sides = {}
    for side in ("latent", "pixel"):
        lines = (out / name / side / "race.jsonl").read_text().splitlines()
        sides[side] = [json.loads(line) for line in lines]
    heads, ends = ({s: rows[i] for s, rows in sides.items()} for i in (0, -1))
    per_step = {s: (ends[s]["seconds"] - heads[s]["before"]) / ends[s]["step"] for s in sides}
    lines = [f"### {name}", "", "| | latent | pixel | ratio |", "|---|---|---|---|"]
    for title, values, form in (
        ("parameters of the denoiser", {s: h["parameters"] for s, h in heads.items()}, ",.0f"),
        ("GFLOP a training step", {s: h["flop"] / 1e9 for s, h in heads.items()}, ".2f"),
        ("seconds a training step", per_step, ".3f"),
        ("seconds to draw N pictures", {s: e["drawing"] for s, e in ends.items()}, ".0f"),
        ("minutes before the denoiser", {s: h["before"] / 60 for s, h in heads.items()}, ".1f"),
        ("steps", {s: e["step"] for s, e in ends.items()}, ",.0f"),
    ):
        small, large = values["latent"], values["pixel"]
        ratio = f"{large / small:.2f}" if small and large else ""
        lines.append(f"| {title} | {small:{form}} | {large:{form}} | {ratio} |")
    n, floor = heads["latent"]["count"], heads["latent"]["floor"]
    lines += [
        "",
        f"Distance FD-EffLite0, N = {n}; real pictures among themselves: {floor:.1f}.",
    ]
    lines += ["", "| side | minutes | steps | distance |", "|---|---|---|---|"]
    for side, rows in sides.items():
        for row in rows[1:]:
            minutes, distance = row["seconds"] / 60, row["distance"]
            lines.append(f"| {side} | {minutes:.1f} | {row['step']:,} | {distance:.1f} |")
    draw(sides, name, floor)
    return "\n".join(lines)


def draw(sides: dict[str, list[dict]], name: str, floor: float) -> None:
    """docs/images/pixel_vs_latent_NAME.png: distance over minutes and over steps."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, key, unit in ((panels[0], "seconds", 60), (panels[1], "step", 1)):
        for side, marker in (("latent", "o"), ("pixel", "s")):
            rows = sides[side][1:]
            x = [row[key] / unit for row in rows]
            panel.plot(x, [row["distance"] for row in rows], marker=marker, label=side)
        panel.axhline(floor, color="grey", linestyle=":", label="real against real")
        panel.set(xlabel={"seconds": "minutes of training", "step": "steps"}[key])
    before = sides["latent"][0]["before"] / 60
    panels[0].axvspan(0, before, color="tab:blue", alpha=0.12, label="autoencoder's minutes")
    panels[0].set(
        ylabel="FD-EffLite0", title=name, xlim=(0, math.ceil(panels[0].get_xlim()[1]))
    )
    panels[1].set(xscale="log")
    panels[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1].xaxis.set_major_formatter("{x:,.0f}")
    panels[1].xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    file = Path(__file__).parents[1] / "docs" / "images" / f"pixel_vs_latent_{name}.png"
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
