"""Exercises of notebook 06, Look inside latent space."""

import torch

from ldm_edu.lab.exercises.checking import Exercise
from ldm_edu.schedule import NoiseSchedule

_ALPHA_BAR = NoiseSchedule("cosine").alpha_bar


def _posteriors(seed: int, own: float) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(2, 5, 3, 32, 32, dtype=torch.float64, generator=generator).unbind()
    spread = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64).view(3, 1, 1)
    return spread * mean + 1.5, own * (0.2 + std.abs())


def _latent_std(mean, std, own=2, centre=1, root=0.5):
    drawn = (std**own).mean() if own else 0
    return (mean.square().mean() + drawn - centre * mean.mean() ** 2) ** root


latent_std = Exercise(
    name="latent_std",
    cases=lambda: {
        "posteriors that are sure": _posteriors(0, 0.2),
        "posteriors that are not": _posteriors(1, 2.0),
    },
    right=_latent_std,
    mistakes={
        "The posteriors' own variance is missing: latents are drawn, and std is how far.": (
            lambda m, s: _latent_std(m, s, own=0)
        ),
        "std is a deviation. Variances add up, deviations do not: square it.": (
            lambda m, s: _latent_std(m, s, own=1)
        ),
        "This is the root of the mean square. Take the square of the mean away first.": (
            lambda m, s: _latent_std(m, s, centre=0)
        ),
        "This is the variance: take its root.": lambda m, s: _latent_std(m, s, root=1),
        "You add a mean deviation to a deviation. Add variances, then take the root.": (
            lambda m, s: _latent_std(m, s, own=0) + s.mean()
        ),
        "This is the scale, which is 1 divided by the deviation.": (
            lambda m, s: 1 / _latent_std(m, s)
        ),
        "This is one number a channel. The paper has one for all.": (
            lambda m, s: (m.var((0, 2, 3), correction=0) + s.square().mean((0, 2, 3))).sqrt()
        ),
    },
    hints=(
        "The variance of anything is the mean of its square minus the square of its mean. What "
        "is the mean of z^2 for z = mean + std * eps?",
        "It is mean^2 + std^2, as eps has mean 0 and variance 1. Average that over everything, "
        "and take mean.mean() ** 2 away.",
        "((mean**2 + std**2).mean() - mean.mean() ** 2) ** 0.5",
    ),
    praise="Its inverse is the factor that every latent is multiplied with.",
)


def _unscaled(t, sigma, alpha_bar, power=2, noise=1):
    ab = alpha_bar[t]
    return sigma**power * ab / (1 - noise * ab)


unscaled_snr = Exercise(
    name="unscaled_snr",
    cases=lambda: {
        f"t = {t}, sigma = {sigma}": (t, sigma, _ALPHA_BAR)
        for t, sigma in ((100, 5.5), (500, 9.7), (900, 0.2))
    },
    right=_unscaled,
    mistakes={
        "A signal-to-noise ratio compares variances: sigma has to be squared.": (
            lambda t, s, ab: _unscaled(t, s, ab, power=1)
        ),
        "You divide by sigma: latents that are too large make the signal stronger.": (
            lambda t, s, ab: _unscaled(t, s, ab, power=-2)
        ),
        "This is the ratio of the scaled latents. Where is sigma, or does it cancel?": (
            lambda t, s, ab: _unscaled(t, s, ab, power=0)
        ),
        "You took the root: the ratio is one of variances, not of deviations.": (
            lambda t, s, ab: _unscaled(t, s, ab) ** 0.5
        ),
        "The noise has variance 1 - alpha_bar: divide by it.": (
            lambda t, s, ab: _unscaled(t, s, ab, noise=0)
        ),
        "This is off by one: level t is alpha_bar[t].": (
            lambda t, s, ab: _unscaled(t - 1, s, ab)
        ),
    },
    hints=(
        "z_t = sqrt(ab) z + sqrt(1 - ab) eps. What are the variances of the two terms if z has "
        "the deviation sigma?",
        "The signal has ab * sigma**2, the noise 1 - ab.",
        "sigma**2 * alpha_bar[t] / (1 - alpha_bar[t])",
    ),
    praise="With sigma = 10, noise that should drown the latent is a hundred times too weak.",
)


def _pair(seed: int, share: float) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=generator).unbind()
    return a, b + 0.4 * a, share


def _slerp(a, b, share, swap=False, sines=True, norms=True, divide=True):
    if swap:
        a, b = b, a
    scale = a.norm() * b.norm() if norms else a.numel()
    angle = ((a * b).sum() / scale).acos()
    if not sines:
        return (1 - share) * a + share * b
    mixed = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    return mixed / angle.sin() if divide else mixed


def _kept_norm(a, b, share):
    mixed = (1 - share) * a + share * b
    return mixed / mixed.norm() * ((1 - share) * a.norm() + share * b.norm())


slerp = Exercise(
    name="slerp",
    cases=lambda: {f"a share of {s}": _pair(k, s) for k, s in enumerate((0.25, 0.5, 0.9))},
    right=_slerp,
    mistakes={
        "This is the straight line, which is too short in the middle.": (
            lambda a, b, s: _slerp(a, b, s, sines=False)
        ),
        "a and b are swapped: a share of 0 is a, a share of 1 is b.": (
            lambda a, b, s: _slerp(a, b, s, swap=True)
        ),
        "The division by sin(angle) is missing.": lambda a, b, s: _slerp(a, b, s, divide=False),
        "For the angle, the product has to be divided by both lengths.": (
            lambda a, b, s: _slerp(a, b, s, norms=False)
        ),
        "Square roots of the shares keep the variance only if a and b have nothing in common; "
        "use the angle.": lambda a, b, s: (1 - s) ** 0.5 * a + s**0.5 * b,
        "You walk the straight line and stretch it: the length is right, the angles are not "
        "even.": _kept_norm,
    },
    hints=(
        "The angle between a and b: its cosine is (a * b).sum() / (a.norm() * b.norm()), and "
        "`.acos()` gives the angle.",
        "The weight of a is sin((1 - share) * angle) / sin(angle). By symmetry, what is that "
        "of b?",
        "(((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()",
    ),
    praise="Halfway between two noises lies a noise again, with variance 1.",
)

EXERCISES = (latent_std, unscaled_snr, slerp)
