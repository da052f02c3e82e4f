"""The loss at each noise level: a model is easy to fool at some, and learns some first."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ldm_edu.diffusion import Model, diffusion_loss, q_sample, to_z0_eps
from ldm_edu.film import MAT, Dial, Film
from ldm_edu.images import image_grid, to_uint8
from ldm_edu.lab.figures import BLUE, PALE, RED, Flipbook, beside, subplots
from ldm_edu.schedule import NoiseSchedule

SHOWN, SIDE = 3, 96  # pictures in a frame, and their pixels
LEVELS = (1, *range(100, 1001, 100))
LOWEST = 1e-5  # loss in the chart


@torch.no_grad()
def loss_per_level(
    model: Model, schedule: NoiseSchedule, z0: Tensor, eps: Tensor, levels: Sequence[int]
) -> Tensor:
    """Mean squared error of v over z0 and eps (N, ...) at each of `levels`: (L,), on CPU."""
    every = [torch.full((len(z0),), t, device=z0.device) for t in levels]
    losses = [diffusion_loss(model, schedule, z0, t, eps).mean() for t in every]
    return torch.stack(losses).cpu()


def level_film(
    models: Mapping[str, Model],
    schedule: NoiseSchedule,
    z0: Tensor,
    eps: Tensor,
    decode: Callable[[Tensor], Tensor],
    dial: str = "Trained for",
    levels: Sequence[int] = LEVELS,
) -> Film:
    """Film over noise levels of three noisy samples, the guesses behind them, and the loss.

    models: what the dial says -> a model that predicts v. z0, eps: (N, C, h, w), N at least 3,
    over which the loss is averaged. decode: z (B, C, h, w) -> pictures (B, 3, H, W) in [-1, 1].
    """
    losses = {name: loss_per_level(m, schedule, z0, eps, levels) for name, m in models.items()}
    chart = _Chart(losses, levels)
    frames = []
    for name, model in models.items():
        for k, t in enumerate(levels):
            z_t = q_sample(schedule, z0[:SHOWN], t, eps[:SHOWN])
            with torch.no_grad():
                v = model(z_t, torch.full((len(z_t),), t, device=z_t.device), None)
            guess, _ = to_z0_eps(schedule, z_t, t, v, "v")
            pictures = torch.cat([to_uint8(decode(z_t)), to_uint8(decode(guess))])
            left = image_grid(pictures, SHOWN, scale=SIDE // pictures.shape[3], fill=MAT)
            frames.append(beside(left, chart.draw(name, k)))
    return Film(
        frames=torch.stack(frames),
        labels=[f"t = {t}" for t in levels] * len(models),
        alt="Three noisy pictures, below each the clean picture that is guessed from it, and "
        "beside them the loss over the noise level.",
        caption="Left: above, noisy; below, the guess. Right: the loss at each level; in grey, "
        "at the other places of the lower slider.",
        start=len(frames) - len(levels) // 2 - 1,
        name="Noise level t",
        dials=[Dial(dial, list(models))] if len(models) > 1 else [],
        smooth=True,
        width=round(1.35 * frames[0].shape[2]),
    )


class _Chart:
    """Loss over t: the curve of one model, pale those of the others, a dot at one level."""

    def __init__(self, losses: Mapping[str, Tensor], levels: Sequence[int]):
        # a loss of 0 has no place on a logarithmic axis
        self.losses = {name: curve.clamp_min(LOWEST) for name, curve in losses.items()}
        self.levels, curves = list(levels), list(self.losses.values())
        figure, axis = subplots(size=(3.6, 2.1))
        every = torch.cat(curves)
        bottom, top = every.min().item() / 1.3, every.max().item() * 1.3
        axis.set(yscale="log", ylim=(bottom, top), xlabel="t", ylabel="loss")
        for curve in curves:
            axis.plot(levels, curve, color=PALE, linewidth=1, zorder=1)
        self.curve = axis.plot(levels, curves[0], color=BLUE, zorder=2)[0]
        self.dot = axis.plot([0], [1], "o", color=RED, markersize=8, zorder=3)[0]
        place = {"xy": (0.5, 1.0), "xycoords": "axes fraction", "ha": "center", "va": "top"}
        self.value = axis.annotate("", zorder=4, **place)
        self.book = Flipbook(figure, [self.curve, self.dot, self.value])

    def draw(self, name: str, k: int) -> Tensor:
        self.curve.set_ydata(self.losses[name])
        loss = self.losses[name][k].item()
        self.dot.set_data([self.levels[k]], [loss])
        self.value.set_text(f"{loss:.3f}")
        return self.book.frame()
