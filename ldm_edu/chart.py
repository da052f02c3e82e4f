"""A loss curve as a small hand-written SVG: the raw values faint, their running mean bold."""

import math
from collections.abc import Sequence
from html import escape
from itertools import accumulate, pairwise

from ldm_edu.errors import InputError

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 14, 42  # room for the axes
POINTS = 300  # of the drawn lines, at most


def check_curve(name: str, steps: Sequence[int], values: Sequence[float]) -> None:
    """Raise InputError unless steps rise, values are finite, and there are two of each."""
    if len(steps) != len(values) or len(steps) < 2:
        raise InputError(
            f"curve {name!r} needs 2 or more steps and as many values, "
            f"got {len(steps)} and {len(values)}"
        )
    if any(b <= a for a, b in pairwise(steps)):
        raise InputError(f"steps of curve {name!r} must rise")
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"curve {name!r} holds a value that is not finite")


def smooth(values: Sequence[float]) -> list[float]:
    """Running mean over about a 30th of the curve around each value, so that it does not lag.

    At the start the window shrinks on both sides, at the end it only looks back.
    """
    sums = [0.0, *accumulate(values)]
    half = max(1, len(values) // 60)
    means = []
    for k in range(len(values)):
        first, last = k - min(half, k), min(k + min(half, k), len(values) - 1)
        means.append((sums[last + 1] - sums[first]) / (last + 1 - first))
    return means


def linear_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high."""
    gap = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(gap))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= gap * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high, with 2 and 5 times them when there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [m * 10.0**p for p in powers for m in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def tick_text(value: float) -> str:
    """12000 -> "12k", 0.05 -> "0.05": the number as short as it goes."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def _line(xs: Sequence[float], ys: Sequence[float], kind: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _axes(x_ticks: list[tuple[float, str]], y_ticks: list[tuple[float, str]]) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        for y, text in y_ticks
    ]
    parts += [
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{text}</text>'
        for x, text in x_ticks
    ]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    return "".join(parts)


def _svg(title: str, told: str, drawing: str, number: int) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="chart{number}-title chart{number}-desc">'
        f'<title id="chart{number}-title">{escape(title)}</title>'
        f'<desc id="chart{number}-desc">{escape(told)}</desc>{drawing}'
        f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">step</text>'
        "</svg>"
    )


def loss_chart(
    name: str, steps: Sequence[int], values: Sequence[float], number: int = 1
) -> str:
    """One curve as an <svg>; `number` keeps the ids of several charts on a page apart.

    The vertical axis is logarithmic when all values are positive and span more than 20 times.
    Raises InputError for steps that do not rise and values that are not finite.
    """
    check_curve(name, steps, values)
    means = smooth(values)
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    warp = math.log10 if log else float
    if not log and 0 < low < 0.5 * high:
        low = 0.0  # heights compare
    if high == low:
        low, high = low - 0.5, high + 0.5
    bottom, span = warp(low), warp(high) - warp(low)

    def at_x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - steps[0]) / (steps[-1] - steps[0])

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (warp(value) - bottom) / span

    kept = sorted({*range(0, len(steps), -(-len(steps) // POINTS)), len(steps) - 1})
    xs = [at_x(steps[k]) for k in kept]
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    axes = _axes(
        [(at_x(tick), tick_text(tick)) for tick in linear_ticks(steps[0], steps[-1])],
        [(at_y(tick), tick_text(tick)) for tick in ticks],
    )
    lines = _line(xs, [at_y(values[k]) for k in kept], "raw")
    lines += _line(xs, [at_y(means[k]) for k in kept], "mean")
    told = (
        f"{len(values)} values over steps {steps[0]} to {steps[-1]}, "
        f"{'logarithmic' if log else 'linear'} axis: the running mean goes from "
        f"{means[0]:.4g} to {means[-1]:.4g}, the lowest value is {min(values):.4g}."
    )
    return _svg(name, told, axes + lines, number)
