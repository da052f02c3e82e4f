"""Is my run normal? A loss curve, against where runs of the same notebook with other seeds lay.

A band is recorded once, by tools/record_bands.py, which runs the notebook's own cells. It lies
in assets/band_NN.json with the command that made it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import asset
from ldm_edu.lab.figures import BLUE

BLOCKS, SHORTEST = 40, 4  # blocks in a long run, about; steps in its first blocks
DEVIATIONS = 3.0  # of the logarithm, to each side: one block in 370 lies outside by chance
LASTING = 3  # blocks in a row that chance does not put outside
NEIGHBOURS = 2  # blocks to each side that tell how much runs differ at this place


@dataclass(frozen=True)
class Band:
    """Between `low` and `high` lie the mean losses of the blocks of steps that end at `steps`.

    seeds: of the runs recorded; command: what recorded them.
    """

    steps: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: tuple[int, ...]
    command: str


def block_ends(count: int) -> tuple[int, ...]:
    """The last step of each block of a run: short blocks first, where the loss falls fast.

    A block is a quarter as long as what went before, but at least SHORTEST and at most a
    BLOCKS-th of the run.
    """
    ends = [0]
    longest = max(SHORTEST, count // BLOCKS)
    while ends[-1] < count:
        ends.append(ends[-1] + min(longest, max(SHORTEST, ends[-1] // 4)))
    return tuple(end for end in ends[1:] if end <= count)


def block_means(losses: Sequence[float], ends: Sequence[int]) -> Tensor:
    """Mean loss of each block that the run has finished, float64; losses[0] is of step 1."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    blocks = [losses[a:b].mean() for a, b in pairwise([0, *ends]) if b <= len(losses)]
    return torch.stack(blocks) if blocks else losses.new_empty(0)


def band_of(runs: Sequence[Sequence[float]], seeds: Sequence[int], command: str) -> Band:
    """The band of runs of one length: the mean of the logarithm of their block means, and three
    standard deviations to each side. The deviation is averaged with neighbouring blocks.

    Raises InputError for fewer than three runs, other lengths, or a loss that is not positive.
    """
    lengths = {len(run) for run in runs}
    if len(runs) < 3 or len(seeds) != len(runs) or len(lengths) != 1:
        raise InputError(
            f"a band needs three or more runs of one length and a seed for each, found "
            f"{len(runs)} runs of {sorted(lengths)} steps and {len(seeds)} seeds"
        )
    ends = block_ends(lengths.pop())
    logs = torch.stack([block_means(run, ends) for run in runs]).log()  # (runs, blocks)
    if not logs.isfinite().all():
        raise InputError("a loss is zero, negative or not finite: bands are of logarithms")
    mean, variance = logs.mean(0), logs.var(0)
    around = [
        variance[max(0, k - NEIGHBOURS) : k + NEIGHBOURS + 1].mean() for k in range(len(ends))
    ]
    reach = DEVIATIONS * torch.stack(around).sqrt()
    low, high = ((mean + side * reach).exp().tolist() for side in (-1, 1))
    rounded = [tuple(float(f"{value:.4g}") for value in values) for values in (low, high)]
    return Band(ends, *rounded, tuple(seeds), command)


def verdict(losses: Sequence[float], band: Band) -> str:
    """Where the run lies: "inside the band", or "above the band from step 300 on", say.

    Only the blocks that the run has finished count. What lies outside for fewer than three
    blocks in a row is left to chance. A loss that is not a number counts as above.
    """
    means = block_means(losses, band.steps)
    if not len(means):
        return "too short to tell"
    sides = [
        "below" if mean < low else "" if mean <= high else "above"
        for mean, low, high in zip(means.tolist(), band.low, band.high, strict=False)
    ]
    first = 0
    for side, group in groupby(sides):
        last = first + len(list(group))
        if side and last - first >= LASTING:
            start = (0, *band.steps)[first] + 1
            until = "on" if last == len(sides) else f"to step {band.steps[last - 1]}"
            return f"{side} the band from step {start} {until}"
        first = last
    return "inside the band"


def draw_run(axis: Axes, losses: Sequence[float], band: Band) -> None:
    """Draw a run over its band: each step faint, the blocks' means bold, loss logarithmic."""
    middles = [(a + b + 1) / 2 for a, b in pairwise([0, *band.steps])]
    means = block_means(losses, band.steps).tolist()
    axis.fill_between(middles, band.low, band.high, color="#cccccc", label="other seeds")
    axis.plot(range(1, len(losses) + 1), losses, color=BLUE, linewidth=0.4, alpha=0.4)
    axis.plot(middles[: len(means)], means, color=BLUE, label="this run")
    axis.set(xlabel="training step", ylabel="loss", yscale="log")
    axis.legend()


def load_band(number: str) -> Band:
    """The recorded band of notebook `number`, e.g. "04". Raises InputError if it has none."""
    try:
        kept = json.loads(asset(file_name(number)))
    except FileNotFoundError:
        raise InputError(f"no band was recorded for notebook {number!r}") from None
    return Band(**{key: v if isinstance(v, str) else tuple(v) for key, v in kept.items()})


def file_name(number: str) -> str:
    """The file of a notebook's band in ldm_edu/assets."""
    return f"band_{number}.json"


def as_json(band: Band) -> str:
    """The content of that file."""
    return json.dumps(asdict(band)) + "\n"
