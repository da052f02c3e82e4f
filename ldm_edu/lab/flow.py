"""Films of points: particles on their way from noise to data, and the field that moves them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film
from ldm_edu.lab.figures import BLUE, ORANGE, Flipbook, subplots
from ldm_edu.sampling import State

REACH = 2.6  # the plane is shown over [-REACH, REACH]
LEVELS = range(1000, -1, -100)  # where films stop
GRID = 17  # arrows a side


def at_levels(states: Sequence[State], levels: Sequence[int] = LEVELS) -> list[State]:
    """The state that a sampler is in at each of `levels`: the last one not below it.

    A run of few steps stays where it is between two of them. Raises InputError where the run
    begins below the first level.
    """
    if states[0].t < max(levels):
        raise InputError(f"the run starts at t = {states[0].t}, below {max(levels)}")
    return [[state for state in states if state.t >= level][-1] for level in levels]


def flow_film(
    runs: Mapping[tuple[str, ...], Sequence[State]],
    names: Sequence[str],
    data: Tensor,
    levels: Sequence[int] = LEVELS,
) -> Film:
    """Particles x_t beside their guesses x0_hat, over the data (n, 2) in orange.

    runs: the states of a run for each combination of the dials' places, e.g. ("5 steps",
    "eta = 0"), the last dial fastest; names: of the dials. All runs start at one x_T (N, 2):
    a particle keeps the colour of the angle it starts at. Raises InputError where the runs
    are no full grid of places.
    """
    dials = _dials(list(runs), names)
    x_T = next(iter(runs.values()))[0].z_t
    hue = torch.atan2(x_T[:, 1], x_T[:, 0])
    figure, axes = subplots(1, 2, (5.8, 3.0))
    dots = []
    for axis, title in zip(axes, ("x\u209c", "the guess for x\u2080"), strict=True):
        _plane(axis, data)
        axis.set_title(title)
        dots.append(axis.scatter(*x_T.T, c=hue, cmap="twilight", s=7, linewidths=0))
    book, frames, labels = Flipbook(figure, dots), [], []
    for states in runs.values():
        for level, state in zip(levels, at_levels(states, levels), strict=True):
            for scatter, points in zip(dots, (state.z_t, state.z0_hat), strict=True):
                scatter.set_offsets(points.numpy())
            frames.append(book.frame())
            labels.append(f"t = {level}")
    return Film(
        frames=torch.stack(frames),
        labels=labels,
        alt="Points that move from a round cloud of noise onto the data, drawn in orange, "
        "beside them the clean points guessed from them.",
        caption="A point keeps the colour that it starts with.",
        name="Noise level t",
        dials=dials,
        smooth=True,
        width=round(1.25 * frames[0].shape[2]),
    )


def field_film(
    guesses: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    data: Tensor,
    levels: Sequence[int] = range(1000, 0, -100),
) -> Film:
    """Arrows from x_t towards the guess x0_hat(x_t, t), a quarter of the way; a panel a model.

    guesses: title -> function of x_t (B, 2) and t (B,) to x0_hat (B, 2).
    """
    figure, axes = subplots(1, len(guesses), (2.9 * len(guesses), 3.0))
    axes = [axes] if len(guesses) == 1 else list(axes)
    line = torch.linspace(-REACH, REACH, GRID)
    x_t = torch.cartesian_prod(line, line)
    arrows = []
    for axis, title in zip(axes, guesses, strict=True):
        _plane(axis, data)
        axis.set_title(title)
        shaft = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
        arrows.append(axis.quiver(*x_t.T, *torch.zeros_like(x_t).T, color=BLUE, **shaft))
    book, frames = Flipbook(figure, arrows), []
    for t in levels:
        for quiver, guess in zip(arrows, guesses.values(), strict=True):
            x0_hat = guess(x_t, torch.full((len(x_t),), t))
            quiver.set_UVC(*((x0_hat - x_t) / 4).T.numpy())
        frames.append(book.frame())
    return Film(
        frames=torch.stack(frames),
        labels=[f"t = {t}" for t in levels],
        alt="Arrows from points of the plane towards the clean point that is guessed from "
        f"them, for: {', '.join(guesses)}.",
        caption="An arrow goes a quarter of the way to the guess. Orange: the data.",
        name="Noise level t",
        smooth=True,
        width=round(1.25 * frames[0].shape[2]),
    )


def _dials(places: list[tuple[str, ...]], names: Sequence[str]) -> list[Dial]:
    columns = [list(dict.fromkeys(column)) for column in zip(*places, strict=True)]
    full = [()]
    for column in columns:
        full = [(*row, place) for row in full for place in column]
    if len(columns) != len(names) or full != places:
        raise InputError(f"runs must be a full grid over {list(names)}, got {places}")
    return [Dial(name, column) for name, column in zip(names, columns, strict=True)]


def _plane(axis, data: Tensor) -> None:
    axis.scatter(*data.T, color=ORANGE, s=3, alpha=0.25, linewidths=0)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axis.set_xticks([-2, 0, 2])
    axis.set_yticks([-2, 0, 2])
