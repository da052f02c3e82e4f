"""The noising explorer: a picture at noise level t, its pixel values, and the SNR beside it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ldm_edu.diffusion import q_sample
from ldm_edu.errors import InputError
from ldm_edu.film import Dial, Film, noise_label
from ldm_edu.images import to_uint8
from ldm_edu.lab.figures import BLUE, ORANGE, RED, Flipbook, beside, enlarged, subplots
from ldm_edu.schedule import NoiseSchedule

SIDE = 256  # pixels of the picture's panel, at least half of it filled
BINS, REACH = 60, 4.0  # of the histogram: bins over [-REACH, REACH]
LEVELS = range(0, 1001, 50)


def value_density(x: Tensor) -> tuple[Tensor, Tensor]:
    """Histogram of all values of x: (bin centres, density), each (BINS,); the area is 1.

    Values outside [-4, 4] are counted in the bins at the ends.
    """
    width = 2 * REACH / BINS
    counts = torch.histc(x.flatten().clamp(-REACH, REACH), BINS, -REACH, REACH)
    centres = -REACH + width * (torch.arange(BINS) + 0.5)
    return centres, counts / (x.numel() * width)


def noising_film(
    x0: Tensor,
    eps: Tensor,
    schedules: Mapping[str, NoiseSchedule],
    levels: Sequence[int] = LEVELS,
) -> Film:
    """Film of x0 noised with one eps to each of `levels`, one shot a schedule.

    x0, eps: (3, H, W), x0 in [-1, 1]. A frame shows x_t (clamped for the eye), the density of
    its values against N(0, 1), and the SNR over t with the place of this t.
    Raises InputError where the sizes or levels do not fit.
    """
    if x0.ndim != 3 or x0.shape[0] != 3 or eps.shape != x0.shape or not schedules:
        raise InputError(
            f"x0 and eps must be (3, H, W) and schedules not empty, got {tuple(x0.shape)}, "
            f"{tuple(eps.shape)} and {list(schedules)}"
        )
    charts = _Charts(schedules, levels)
    frames, labels = [], []
    for name, schedule in schedules.items():
        for t in levels:
            x_t = q_sample(schedule, x0[None], t, eps[None])
            picture = enlarged(to_uint8(x_t)[0], SIDE)
            frames.append(beside(picture, charts.draw(name, t, x_t)))
            labels.append(noise_label(t, schedule.alpha_bar[t].item()))
    return Film(
        frames=torch.stack(frames),
        labels=labels,
        alt="A picture at noise level t; the histogram of its pixel values, which becomes a "
        "bell curve; and the signal-to-noise ratio over t.",
        caption="Left: x\u209c. Middle: its pixel values; in orange, the density of N(0, 1). "
        "Right: the signal-to-noise ratio; at the dashed line signal and noise are equal.",
        name="Noise level t",
        dials=[Dial("Schedule", list(schedules))] if len(schedules) > 1 else [],
        smooth=True,
        width=frames[0].shape[2],
    )


class _Charts:
    """Histogram and SNR curve: drawn once, and only what moves is changed."""

    def __init__(self, schedules: Mapping[str, NoiseSchedule], levels: Sequence[int]):
        self.schedules = schedules
        figure, (left, right) = subplots(1, 2, (6.2, SIDE / 96))
        centres = value_density(torch.zeros(1))[0].numpy()
        self.bars = left.bar(centres, 0 * centres, 2 * REACH / BINS, color=BLUE)
        left.plot(centres, np.exp(-(centres**2) / 2) / (2 * np.pi) ** 0.5, color=ORANGE)
        left.set(xlim=(-REACH, REACH), ylim=(0, 1.2), xlabel="pixel value", ylabel="density")
        self.curves = {}
        for name, schedule in schedules.items():
            snr = schedule.snr[1:].numpy()
            self.curves[name] = right.plot(range(1, len(snr) + 1), snr)[0]
        right.axhline(1, color="black", linewidth=0.8, linestyle="--")
        self.dot = right.plot([0], [1], "o", color=RED, markersize=8)[0]
        right.set(yscale="log", ylim=(1e-5, 1e5), xlim=(0, max(levels)), xlabel="t")
        right.set_ylabel("SNR")
        moving = [*self.bars, *self.curves.values(), self.dot]
        self.book = Flipbook(figure, moving)

    def draw(self, name: str, t: int, x_t: Tensor) -> Tensor:
        for bar, height in zip(self.bars, value_density(x_t)[1].tolist(), strict=True):
            bar.set_height(min(height, 1.2))
        for key, curve in self.curves.items():
            curve.set_color(BLUE if key == name else "#bbbbbb")
        snr = self.schedules[name].snr[t].clamp(2e-5, 4e4).item()  # keep the dot in sight
        self.dot.set_data([t], [snr])
        return self.book.frame()
