"""Sampling on a line: the exact path of each point from noise to data, and what samplers do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film
from ldm_edu.lab.figures import BLUE, ORANGE, Flipbook, subplots
from ldm_edu.sampling import Predict, Prediction, Rule, State, denoise
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.seeds import noise_stream

REACH = 2.6  # the line is shown over [-REACH, REACH]
SHOWN = 9  # paths drawn
MANY = 1000  # points whose ends are counted
BINS = 52
HALVINGS = 60  # of an interval of 20: far below float64's rounding


@dataclass(frozen=True)
class Line:
    """K Gaussians on a line: `weights` of sum 1, `means` and `deviations`, each of K floats.

    Noised, they stay Gaussians. So the best denoiser has a closed form, and, as paths on a line
    cannot cross, a point keeps its rank on the way from noise to data. Raises InputError for
    numbers that are no such mixture.
    """

    weights: Sequence[float]
    means: Sequence[float]
    deviations: Sequence[float]

    def __post_init__(self) -> None:
        w, m, s = self.weights, self.means, self.deviations
        if not len(w) == len(m) == len(s) or abs(sum(w) - 1) > 1e-9 or min(*w, *s) <= 0:
            raise InputError(f"a mixture needs K weights of sum 1, means, s > 0: {w}, {m}, {s}")

    def x0_hat(self, schedule: NoiseSchedule, x_t: Tensor, t: int) -> Tensor:
        """The best guess E[x0 | x_t], shaped as x_t (...); t in {1..T}."""
        ab = schedule.alpha_bar[t].to(x_t)
        w, m, s = self._parts(x_t)
        away, variance = x_t[..., None] - ab**0.5 * m, ab * s**2 + 1 - ab  # (..., K), (K,)
        odds = w.log() - variance.log() / 2 - away.square() / (2 * variance)
        guesses = m + ab**0.5 * s**2 / variance * away
        return (odds.softmax(-1) * guesses).sum(-1)

    def predict(self, schedule: NoiseSchedule) -> Predict:
        """The best denoiser as `sampling.denoise` asks it."""

        def predict(x_t: Tensor, t: int) -> Prediction:
            x0_hat = self.x0_hat(schedule, x_t, t)
            signal, noise = schedule.signal(t, x_t), schedule.noise(t, x_t)
            return Prediction(t, x0_hat, (x_t - signal * x0_hat) / noise)

        return predict

    def density(self, x0: Tensor) -> Tensor:
        """Of clean points, shaped as x0 (...)."""
        w, m, s = self._parts(x0)
        normal = torch.exp(-((x0[..., None] - m) ** 2) / (2 * s**2)) / (2 * torch.pi) ** 0.5
        return (w / s * normal).sum(-1)

    def below(self, schedule: NoiseSchedule, x_t: Tensor, t: int) -> Tensor:
        """Share of the points that lie below x_t (...) at level t in {0..T}."""
        ab = schedule.alpha_bar[t].to(x_t)
        w, m, s = self._parts(x_t)
        deviation = (ab * s**2 + 1 - ab) ** 0.5
        return (w * torch.special.ndtr((x_t[..., None] - ab**0.5 * m) / deviation)).sum(-1)

    def exact(self, schedule: NoiseSchedule, x_t: Tensor, t: int, s: int) -> Tensor:
        """Where the path through x_t (...) float64 at level t is at level s: same rank."""
        rank = self.below(schedule, x_t, t)
        low, high = torch.full_like(x_t, -10), torch.full_like(x_t, 10)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            left = self.below(schedule, middle, s) < rank
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return low

    def _parts(self, like: Tensor) -> list[Tensor]:
        return [torch.tensor(p).to(like) for p in (self.weights, self.means, self.deviations)]


def starts(count: int) -> Tensor:
    """Noise without chance: middles of `count` equal shares of N(0, 1), (count,) float64."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def run(
    world: Line, schedule: NoiseSchedule, rule: Rule, steps: int, x_T: Tensor
) -> list[State]:
    """All states of `steps` steps of a rule from x_T (N,), with the world's best denoiser."""
    levels = schedule.timesteps(steps)
    noise = noise_stream(len(x_T), 0)
    return list(denoise(world.predict(schedule), schedule, x_T, rule, levels, noise))


def path_film(
    world: Line, schedule: NoiseSchedule, rules: Mapping[str, Rule], counts: Sequence[int]
) -> Film:
    """The steps of each rule over the exact paths, and beside them where many points end.

    rules: name -> step rule of `ldm_edu.samplers`, a shot each; counts: numbers of steps, a
    frame each.
    """
    book, lines, bars, edges = _drawing(world, schedule)
    frames = []
    for rule in rules.values():
        for steps in counts:
            states = run(world, schedule, rule, steps, starts(SHOWN))
            for k, line in enumerate(lines):
                line.set_data([s.t for s in states], [s.z_t[k].item() for s in states])
            ends = run(world, schedule, rule, steps, starts(MANY))[-1].z_t
            counted = torch.histogram(ends.clamp(-REACH, REACH), edges).hist
            for bar, width in zip(bars, (counted * BINS / MANY / (2 * REACH)), strict=True):
                bar.set_width(width.item())
            frames.append(book.frame())
    return Film(
        frames=torch.stack(frames),
        labels=[f"{n} step{'s' * (n > 1)}" for n in counts] * len(rules),
        alt="Left, the exact paths of nine points from noise to data in orange, and the steps "
        "of a sampler over them in blue. Right, where a thousand points end, over the data.",
        caption="Orange: exact. Blue: the sampler. One dot a step; noise is at the left.",
        name="Steps",
        dials=[Dial("Sampler", list(rules))] if len(rules) > 1 else [],
        smooth=True,
        width=round(1.25 * frames[0].shape[2]),
    )


def _drawing(world: Line, schedule: NoiseSchedule):
    figure, (left, right) = subplots(1, 2, (6.4, 3.0))
    x_T, T = starts(SHOWN), schedule.T
    levels = range(T, -1, -T // 50)
    exact = torch.stack([world.exact(schedule, x_T, T, t) for t in levels])
    left.plot(list(levels), exact.numpy(), color=ORANGE, linewidth=2.5, alpha=0.6)
    lines = [left.plot([T], [0], "o-", color=BLUE, markersize=3, linewidth=1)[0] for _ in x_T]
    left.set(xlim=(T, 0), ylim=(-REACH, REACH), xlabel="t", ylabel="x\u209c")
    edges = torch.linspace(-REACH, REACH, BINS + 1, dtype=torch.float64)
    width = 2 * REACH / BINS
    bars = right.barh(edges[:-1].tolist(), [0] * BINS, width, align="edge", color=BLUE)
    above = right.plot(world.density(edges), edges, color=ORANGE, zorder=3)
    right.set(ylim=(-REACH, REACH), xlim=(0, 1.5 * world.density(edges).max().item()))
    right.set(xlabel="density at t = 0")
    return Flipbook(figure, [*lines, *bars, *above]), lines, bars, edges
