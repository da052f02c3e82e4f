"""Exercises of notebook 01, Add noise to an image."""

import torch

from ldm_edu.lab.exercises.checking import Exercise
from ldm_edu.schedule import NoiseSchedule

_ALPHA_BAR = NoiseSchedule("linear").alpha_bar


def _draws(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator).unbind()


def _recover_cases() -> dict:
    return {f"t = {t}": (_draws(t)[0], t, _draws(t)[1], _ALPHA_BAR) for t in (1, 250, 700)}


def _recover(x_t, t, eps, alpha_bar, a=0.5, s=0.5, sign=-1, back=0):
    ab = alpha_bar[t - back]
    return (x_t + sign * (1 - ab) ** s * eps) / ab**a


recover_x0 = Exercise(
    name="recover_x0",
    cases=_recover_cases,
    right=_recover,
    mistakes={
        "The noise is scaled by 1 - alpha_bar: a square root is missing there.": (
            lambda *args: _recover(*args, s=1)
        ),
        "You divide by alpha_bar: a square root is missing there.": (
            lambda *args: _recover(*args, a=1)
        ),
        "Both square roots are missing: alpha_bar and 1 - alpha_bar are variances.": (
            lambda *args: _recover(*args, a=1, s=1)
        ),
        "The noise has the wrong sign: it was added, so it has to be taken away.": (
            lambda *args: _recover(*args, sign=1)
        ),
        "This is off by one: alpha_bar[0] is the clean picture, so level t is alpha_bar[t].": (
            lambda *args: _recover(*args, back=1)
        ),
        "Only x_t is divided. Take the noise away first, then divide the whole: brackets are "
        "missing.": lambda x_t, t, eps, ab: x_t / ab[t] ** 0.5 - (1 - ab[t]) ** 0.5 * eps,
        "The noise was scaled before it was added, and the picture shrunk: undo both.": (
            lambda x_t, t, eps, ab: x_t - eps
        ),
        "The two scales are exchanged: the noise was scaled with sqrt(1 - alpha_bar).": (
            lambda x_t, t, eps, ab: (x_t - ab[t] ** 0.5 * eps) / (1 - ab[t]) ** 0.5
        ),
        "What is left after taking the noise away is still shrunk: divide by its scale.": (
            lambda *args: _recover(*args, a=0)
        ),
    },
    hints=(
        "Write down the jump x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps. "
        "Which letter do you want?",
        "First take sqrt(1 - alpha_bar_t) eps away from both sides. Then divide.",
        "ab = alpha_bar[t], and the result is (x_t - (1 - ab) ** 0.5 * eps) / ab ** 0.5.",
    ),
    praise="Who knows the noise knows the picture: that is why a network may predict either.",
)


def _jump_cases() -> dict:
    pairs = ((0, 300), (100, 101), (200, 700))
    return {
        f"s = {s}, t = {t}": (_draws(t)[0], s, t, _draws(t)[1], _ALPHA_BAR) for s, t in pairs
    }


def _jump(x_s, s, t, eps, alpha_bar):
    kept = alpha_bar[t] / alpha_bar[s]
    return kept**0.5 * x_s + (1 - kept) ** 0.5 * eps


def _jump_difference(x_s, s, t, eps, alpha_bar):
    kept = alpha_bar[t] / alpha_bar[s]
    return kept**0.5 * x_s + (alpha_bar[s] - alpha_bar[t]) ** 0.5 * eps


def _jump_no_roots(x_s, s, t, eps, alpha_bar):
    kept = alpha_bar[t] / alpha_bar[s]
    return kept * x_s + (1 - kept) * eps


jump = Exercise(
    name="jump",
    cases=_jump_cases,
    right=_jump,
    mistakes={
        "You jump as if x_s were clean. It has noise already: only the steps s+1 ... t are "
        "left, and the product of their 1 - beta is alpha_bar[t] / alpha_bar[s].": (
            lambda x_s, s, t, eps, ab: ab[t] ** 0.5 * x_s + (1 - ab[t]) ** 0.5 * eps
        ),
        "The noise has variance 1 minus what is kept, which is not the difference of the two "
        "alpha_bar.": _jump_difference,
        "Square roots are missing: alpha_bar is about variances.": _jump_no_roots,
        "The noise of the whole way from 0 is put in. x_s brings its own: what is added has "
        "variance 1 minus what is kept.": (
            lambda x_s, s, t, eps, ab: (ab[t] / ab[s]) ** 0.5 * x_s + (1 - ab[t]) ** 0.5 * eps
        ),
        "alpha_bar[t - s] is a product of the first steps. It is the steps s+1 ... t that are "
        "left.": lambda x_s, s, t, eps, ab: (
            ab[t - s] ** 0.5 * x_s + (1 - ab[t - s]) ** 0.5 * eps
        ),
        "You take the root of a negative number: alpha_bar falls, so alpha_bar[t] is smaller "
        "than alpha_bar[s]. Are s and t swapped?": (
            lambda x_s, s, t, eps, ab: _jump(x_s, t, s, eps, ab)
        ),
    },
    hints=(
        "alpha_bar[t] is the product of 1 - beta over the steps 1 ... t. Which of these steps "
        "are still to come at level s?",
        "kept = alpha_bar[t] / alpha_bar[s] is the product over the steps s+1 ... t. It does "
        "here what alpha_bar[t] does in a jump from 0.",
        "The result is kept ** 0.5 * x_s + (1 - kept) ** 0.5 * eps.",
    ),
    praise="With s = 0 it is q_sample, with s = t - 1 it is one step: all are one formula.",
)


def _first_below(limit, alpha_bar):
    snr = alpha_bar[1:] / (1 - alpha_bar[1:])
    return int((snr < limit).nonzero()[0]) + 1


first_below = Exercise(
    name="first_below",
    cases=lambda: {
        f"a limit of {limit}": (limit, _ALPHA_BAR) for limit in (0.01, 0.5, 1.0, 10)
    },
    right=_first_below,
    mistakes={
        "This is off by one, too early: is the SNR at that t below the limit? Mind where you "
        "start to count: alpha_bar[0] is the clean picture.": (
            lambda limit, ab: _first_below(limit, ab) - 1
        ),
        "This is off by one, too late: the level before is below the limit already.": (
            lambda limit, ab: _first_below(limit, ab) + 1
        ),
        "You compare alpha_bar with the limit. The SNR is alpha_bar / (1 - alpha_bar).": (
            lambda limit, ab: int((ab < limit).nonzero()[0])
        ),
        "This is how many levels lie below the limit, not the first of them.": (
            lambda limit, ab: int((ab[1:] / (1 - ab[1:]) < limit).sum())
        ),
        "You compare the root of the SNR with the limit: the SNR is a ratio of variances, so "
        "no square root.": lambda limit, ab: _first_below(limit**2, ab),
    },
    hints=(
        "The SNR falls with t. So count the levels at which it is not below the limit.",
        "snr = alpha_bar / (1 - alpha_bar) is infinite at t = 0, which is above every limit.",
        "With t = 0 counted in, the answer is int((snr >= limit).sum()).",
    ),
    praise="For the linear schedule noise wins from t = 260 on: three quarters of all levels.",
    whole=True,
)

EXERCISES = (recover_x0, jump, first_below)
