"""Exercises of notebook 02, Remove noise from points."""

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise, number
from ldm_edu.schedule import NoiseSchedule

_ALPHA_BAR = NoiseSchedule("linear").alpha_bar


def _points(seed: int, n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 2, dtype=torch.float64, generator=generator).unbind()


def _score(x_t, x0_hat, ab, root=0.5, power=1.0, sign=1):
    return sign * (ab**root * x0_hat - x_t) / (1 - ab) ** power


score = Exercise(
    name="score",
    cases=lambda: {
        f"alpha_bar = {ab}": (*_points(k), number(ab)) for k, ab in enumerate((0.9, 0.3))
    },
    right=_score,
    mistakes={
        "The sign is swapped: the arrow has to point from x_t towards the guess.": (
            lambda *args: _score(*args, sign=-1)
        ),
        "You divide by the standard deviation of the noise. A Gaussian's slope is divided by "
        "its variance, 1 - alpha_bar.": lambda *args: _score(*args, power=0.5),
        "A square root is missing: at level t the guess lies at sqrt(alpha_bar) x0_hat.": (
            lambda *args: _score(*args, root=1)
        ),
        "The guess has to be shrunk first: at level t it lies at sqrt(alpha_bar) x0_hat.": (
            lambda *args: _score(*args, root=0)
        ),
        "This is half the slope: the square in the exponent brings a 2, which cancels its "
        "own.": lambda *args: _score(*args) / 2,
        "The division is missing: the nearer the noise is to zero, the steeper the slope.": (
            lambda *args: _score(*args, power=0)
        ),
    },
    hints=(
        "If x0_hat were the only clean point, x_t would be Gaussian around sqrt(ab) * x0_hat "
        "with variance 1 - ab. What is the slope of the logarithm of that Gaussian?",
        "log p = -(x_t - m)^2 / (2 V) + const, with the variance V, has the slope "
        "-(x_t - m) / V.",
        "(ab**0.5 * x0_hat - x_t) / (1 - ab)",
    ),
    praise="It is -eps_hat / sqrt(1 - ab): to predict the noise is to know the slope.",
)


def _bent(x_t, t):
    # neither zero nor the noise: an answer that does not ask the model is found out
    return torch.sin(2 * x_t) + t[:, None] / 500


def _v_loss(model, x0, t, eps, alpha_bar, a=0.5, s=0.5, target="v", level=None):
    ab = alpha_bar[t if level is None else level][:, None]
    signal, noise = ab**a, (1 - ab) ** s
    aim = {
        "v": signal * eps - noise * x0,
        "plus": signal * eps + noise * x0,
        "turned": noise * x0 - signal * eps,
        "swapped": noise * eps - signal * x0,
        "eps": eps,
        "x0": x0,
    }[target]
    return (model(signal * x0 + noise * eps, t) - aim).square().mean(1)


def _noising_of_five():
    x0, eps = _points(0)
    return _bent, x0, torch.tensor([1, 200, 500, 800, 999]), eps, _ALPHA_BAR


v_loss = Exercise(
    name="v_loss",
    cases=lambda: {"five points": _noising_of_five()},
    right=_v_loss,
    mistakes={
        "Square roots are missing: alpha_bar and 1 - alpha_bar are variances.": (
            lambda *args: _v_loss(*args, a=1, s=1)
        ),
        "A square root is missing at 1 - alpha_bar.": lambda *args: _v_loss(*args, s=1),
        "A square root is missing at alpha_bar.": lambda *args: _v_loss(*args, a=1),
        "The sign before x0 is swapped: v = sqrt(ab) eps - sqrt(1 - ab) x0.": (
            lambda *args: _v_loss(*args, target="plus")
        ),
        "Your v has the opposite sign: the noise counts positive, the picture negative.": (
            lambda *args: _v_loss(*args, target="turned")
        ),
        "The two scales are swapped: in v, eps goes with sqrt(ab).": (
            lambda *args: _v_loss(*args, target="swapped")
        ),
        "You still compare with eps. The target is now v.": (
            lambda *args: _v_loss(*args, target="eps")
        ),
        "You compare with x0. The target is v.": lambda *args: _v_loss(*args, target="x0"),
        "You show the model the clean x0. It has to see x_t.": (
            lambda model, x0, t, eps, ab: _v_loss(lambda x_t, t: model(x0, t), x0, t, eps, ab)
        ),
        "This is off by one: alpha_bar[0] is the clean level, so level t is alpha_bar[t].": (
            lambda model, x0, t, eps, ab: _v_loss(model, x0, t, eps, ab, level=t - 1)
        ),
        "This is one number for all points. Take the mean over the coordinates only.": (
            lambda *args: _v_loss(*args).mean()
        ),
        "This is the sum over the two coordinates. Take their mean.": (
            lambda *args: 2 * _v_loss(*args)
        ),
    },
    hints=(
        "Noise, predict, compare, as in the text. Only what you compare with is new.",
        "alpha_bar[t] has shape (B,), the points have (B, 2): alpha_bar[t][:, None] fits. The "
        "model still sees x_t. One loss a point: the mean over dimension 1.",
        "With a, s = ab**0.5, (1 - ab) ** 0.5: "
        "return (model(a * x0 + s * eps, t) - (a * eps - s * x0)).square().mean(1)",
    ),
    praise="For data of variance 1, v has variance 1 at every t: no level asks for more.",
)


def _ddim(x, eps_hat, ab_here, ab_there, a=0.5, s=0.5):
    x0_hat = (x - (1 - ab_here) ** s * eps_hat) / ab_here**a
    return ab_there**a * x0_hat + (1 - ab_there) ** s * eps_hat


ddim_back = Exercise(
    name="ddim_back",
    cases=lambda: {
        f"ab_s = {ab_s}, ab_t = {ab_t}": (*_points(k), number(ab_s), number(ab_t))
        for k, (ab_s, ab_t) in enumerate(((0.9, 0.5), (0.4, 0.3), (1.0, 0.9)))
    },
    right=_ddim,
    mistakes={
        "Square roots are missing: alpha_bar and 1 - alpha_bar are variances.": (
            lambda *args: _ddim(*args, a=1, s=1)
        ),
        "A square root is missing at 1 - alpha_bar.": lambda *args: _ddim(*args, s=1),
        "s and t are swapped: x_s is where you are, so the guess for x0 needs ab_s.": (
            lambda x, eps_hat, ab_s, ab_t: _ddim(x, eps_hat, ab_t, ab_s)
        ),
        "The guess is noised to the scale of s again. It has to get the noise of level t.": (
            lambda x, eps_hat, ab_s, ab_t: (
                _ddim(x, eps_hat, ab_s, ab_t)
                + ((1 - ab_s) ** 0.5 - (1 - ab_t) ** 0.5) * eps_hat
            )
        ),
        "This is the guess for x0. Now noise it to level t.": (
            lambda x, eps_hat, ab_s, ab_t: _ddim(x, eps_hat, ab_s, 1.0)
        ),
        "The noise is not put in again: what you have is the guess, shrunk.": (
            lambda x, eps_hat, ab_s, ab_t: ab_t**0.5 * _ddim(x, eps_hat, ab_s, 1.0)
        ),
        "You noise x_s as if it were clean. First guess x0 from x_s and eps_hat.": (
            lambda x, eps_hat, ab_s, ab_t: ab_t**0.5 * x + (1 - ab_t) ** 0.5 * eps_hat
        ),
        "You add the noise of a forward step. DDIM draws nothing: it takes eps_hat out at the "
        "scale of s and puts it in again at the scale of t.": (
            lambda x, eps_hat, ab_s, ab_t: (
                (ab_t / ab_s) ** 0.5 * x + (1 - ab_t / ab_s) ** 0.5 * eps_hat
            )
        ),
    },
    hints=(
        "The same two moves as in ddim_step: guess x0, then noise the guess to another level. "
        "Here the other level is the noisier one. (`step` would divide by 0 at the clean end.)",
        "x0_hat = (x_s - (1 - ab_s) ** 0.5 * eps_hat) / ab_s ** 0.5",
        "Then return ab_t ** 0.5 * x0_hat + (1 - ab_t) ** 0.5 * eps_hat.",
    ),
    praise="It is ddim_step with the levels exchanged: DDIM runs both ways.",
)

EXERCISES = (score, v_loss, ddim_back)
