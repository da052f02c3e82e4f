"""Exercises of notebook 05, Compress pictures."""

import torch

from ldm_edu.lab.exercises.checking import Exercise


def _pictures(seed: int, noise: float) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 3, 3, 4, 4, dtype=torch.float64, generator=generator).unbind()
    scale = torch.tensor([0.5, 1.0, 3.0]).view(3, 1, 1, 1)  # errors unlike from one to the next
    return x.tanh(), x.tanh() + noise * scale * eps


def _psnr(x, x_hat, peak=2.0, factor=10.0, root=1.0, log=torch.log10, sign=1, error="squared"):
    e = (x - x_hat).flatten(1)
    mean = e.square().mean(1) if error == "squared" else e.abs().mean(1)
    return sign * factor * log(peak**2 / mean**root)


psnr = Exercise(
    name="psnr",
    cases=lambda: {
        f"an error of about {noise}": _pictures(k, noise) for k, noise in enumerate((0.1, 0.01))
    },
    right=_psnr,
    mistakes={
        "Your range is 1. Values in [-1, 1] have a range of 2.": (
            lambda x, x_hat: _psnr(x, x_hat, peak=1.0)
        ),
        "Your range is 255. Values in [-1, 1] have a range of 2.": (
            lambda x, x_hat: _psnr(x, x_hat, peak=255.0)
        ),
        "The range has to be squared, as the error is.": (
            lambda x, x_hat: _psnr(x, x_hat, peak=2**0.5)
        ),
        "You take the root of the error, but square the range: square both, or neither with a "
        "factor of 20.": lambda x, x_hat: _psnr(x, x_hat, root=0.5),
        "This is the natural logarithm. Decibels count in powers of ten: torch.log10.": (
            lambda x, x_hat: _psnr(x, x_hat, log=torch.log)
        ),
        "The factor is 10, as range and error are squared already. With 20 you square "
        "twice.": lambda x, x_hat: _psnr(x, x_hat, factor=20.0),
        "The factor of 10 is missing: these are bels.": (
            lambda x, x_hat: _psnr(x, x_hat, factor=1.0)
        ),
        "The fraction is upside down: the larger the error, the smaller the PSNR.": (
            lambda x, x_hat: _psnr(x, x_hat, sign=-1)
        ),
        "You divide by the mean absolute error. It is the mean of the squares.": (
            lambda x, x_hat: _psnr(x, x_hat, error="absolute")
        ),
        "This is one number for the batch. Each picture has an error of its own.": (
            lambda x, x_hat: _psnr(x.flatten()[None], x_hat.flatten()[None])[0]
        ),
        "This is one number for the batch: do not take the mean over the pictures.": (
            lambda x, x_hat: _psnr(x, x_hat).mean()
        ),
    },
    hints=(
        "First the mean squared error of each picture: one number for each, (B,).",
        "(x - x_hat).square().flatten(1).mean(1) is that. Then 10 times the logarithm to base "
        "ten of 4 divided by it.",
        "10 * torch.log10(4 / (x - x_hat).square().flatten(1).mean(1))",
    ),
    praise="6 dB more is half the error: keep that in mind when you read tables.",
)


def _fewer(f, channels, colours=3, power=2):
    return colours * f**power / channels


fewer_times = Exercise(
    name="fewer_times",
    cases=lambda: {
        f"f = {f}, {c} channels": (f, c) for f, c in ((4, 4), (8, 4), (8, 16), (2, 8))
    },
    right=_fewer,
    mistakes={
        "A patch is f pixels wide and f pixels high.": lambda f, c: _fewer(f, c, power=1),
        "A pixel has three colours, which are three numbers.": (
            lambda f, c: _fewer(f, c, colours=1)
        ),
        "This is how much is kept, not how many times fewer: turn the fraction round.": (
            lambda f, c: 1 / _fewer(f, c)
        ),
        "The channels count too: a position keeps that many numbers.": (
            lambda f, c: _fewer(f, 1)
        ),
        "More channels keep more, so they compress less: divide by them.": (
            lambda f, c: _fewer(f, 1) * c
        ),
    },
    hints=(
        "Look at one position of the latent. How many pixels does it stand for?",
        "It stands for f * f pixels, which are 3 * f * f numbers, and keeps `channels`.",
        "3 * f**2 / channels",
    ),
    praise="Stable Diffusion, f = 8 with 4 channels, is 48 times; the size does not matter.",
)


def _moments(seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    mean, logvar = torch.randn(2, 3, 4, 2, 5, dtype=torch.float64, generator=generator).unbind()
    return mean, 2 * logvar - 3


def _channel_kl(mean, logvar, half=0.5, minus_one=1, sign=-1, var=1.0, square=2, axes=None):
    m = mean**square if square == 2 else mean
    kl = half * (m + (var * logvar).exp() - minus_one + sign * logvar)
    if axes is not None:
        return axes(kl)
    return kl.sum((2, 3)).mean(0)


channel_kl = Exercise(
    name="channel_kl",
    cases=lambda: {"3 pictures of 4 channels": _moments(0), "3 others": _moments(1)},
    right=_channel_kl,
    mistakes={
        "The factor 1/2 is missing.": lambda m, v: _channel_kl(m, v, half=1),
        "The - 1 is missing: the KL of N(0, 1) to itself has to be 0.": (
            lambda m, v: _channel_kl(m, v, minus_one=0)
        ),
        "The logarithm has the wrong sign: a small variance must be dear.": (
            lambda m, v: _channel_kl(m, v, sign=1)
        ),
        "exp(logvar / 2) is the deviation s. The formula has s squared, the variance.": (
            lambda m, v: _channel_kl(m, v, var=0.5)
        ),
        "exp(logvar) is the variance already: do not square it.": (
            lambda m, v: _channel_kl(m, v, var=2.0)
        ),
        "logvar is the logarithm of s squared already: take it once, not twice.": (
            lambda m, v: _channel_kl(m, v, sign=-2)
        ),
        "The mean counts squared.": lambda m, v: _channel_kl(m, v, square=1),
        "You take the mean over the positions. Their nats add up.": (
            lambda m, v: _channel_kl(m, v, axes=lambda kl: kl.mean((0, 2, 3)))
        ),
        "You add up over the batch. Take its mean: nats a picture.": (
            lambda m, v: _channel_kl(m, v, axes=lambda kl: kl.sum((0, 2, 3)))
        ),
        "The batch is left: take the mean over dimension 0 as well.": (
            lambda m, v: _channel_kl(m, v, axes=lambda kl: kl.sum((2, 3)))
        ),
        "You added up the channels. Keep them apart: one number a channel.": (
            lambda m, v: _channel_kl(m, v, axes=lambda kl: kl.sum((1, 2, 3)).mean())
        ),
        "These are the nats of each picture. Keep the channels apart, not the pictures.": (
            lambda m, v: _channel_kl(m, v, axes=lambda kl: kl.sum((1, 2, 3)))
        ),
    },
    hints=(
        "First the KL of every single number, in the shape (B, C, h, w). s squared is the "
        "variance, and logvar is its logarithm.",
        "0.5 * (mean**2 + logvar.exp() - 1 - logvar), then add up over the two last "
        "dimensions.",
        "Of that, .sum((2, 3)).mean(0).",
    ),
    praise="Try it on the posterior of the trained model: all four channels are in use.",
)

EXERCISES = (psnr, fewer_times, channel_kl)
