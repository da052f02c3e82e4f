"""Exercises of notebook 07, Diffuse in latents."""

import math

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise, number

cheaper = Exercise(
    name="cheaper",
    cases=lambda: {f"f = {f}": (f,) for f in (2, 4, 8)},
    right=lambda f: (f**2, f**4),
    mistakes={
        "The latent is f times less wide and f times less high.": lambda f: (f, f**2),
        "Attention compares each place with each: both of a pair become f * f times fewer.": (
            lambda f: (f**2, f**2)
        ),
        "A convolution visits each place once. Only attention has pairs of places.": (
            lambda f: (f**4, f**4)
        ),
        "The order is: convolution first, then attention.": lambda f: (f**4, f**2),
        "This is how much is left, not how many times fewer: turn the fractions round.": (
            lambda f: (1 / f**2, 1 / f**4)
        ),
    },
    hints=(
        "A picture of H x W pixels has a latent of H / f x W / f places. How many times fewer "
        "places are that?",
        "f * f times fewer. A convolution does the same at each place. Attention has a weight "
        "for each pair of places.",
        "return f**2, f**4",
    ),
    praise="With f = 8, as in Stable Diffusion, that is 64 and 4096 times.",
)


def _latents(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, 3, 4, 2, 2, dtype=torch.float64, generator=generator)


def _decode(z):  # larger pictures than latents, and values beyond [-1, 1]
    return 0.4 * z[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.7


def _guess(decode, z_t, v_hat, ab, sign=-1, root=0.5, inside=False, after=True, what="v"):
    z0_hat = {
        "v": ab**root * z_t + sign * (1 - ab) ** root * v_hat,
        "eps": (z_t - (1 - ab) ** 0.5 * v_hat) / ab**0.5,
        "x0": v_hat,
        "nothing": z_t,
    }[what]
    picture = decode(z0_hat.clamp(-1, 1) if inside else z0_hat)
    return picture.clamp(-1, 1) if after else picture


decoded_guess = Exercise(
    name="decoded_guess",
    cases=lambda: {
        f"alpha_bar = {ab}": (_decode, *_latents(k), number(ab))
        for k, ab in enumerate((0.9, 0.2))
    },
    right=_guess,
    mistakes={
        "A latent is no picture: its values may lie beyond [-1, 1]. Clamp after decoding.": (
            lambda *args: _guess(*args, inside=True)
        ),
        "You clamp the latent instead of the picture. Only pictures are clamped.": (
            lambda *args: _guess(*args, inside=True, after=False)
        ),
        "A decoder may overshoot: clamp the picture to [-1, 1] at the end.": (
            lambda *args: _guess(*args, after=False)
        ),
        "The sign is swapped: z0_hat = sqrt(ab) z_t - sqrt(1 - ab) v_hat.": (
            lambda *args: _guess(*args, sign=1)
        ),
        "Square roots are missing: alpha_bar and 1 - alpha_bar are variances.": (
            lambda *args: _guess(*args, root=1)
        ),
        "You take v_hat for the noise. The model predicts the velocity.": (
            lambda *args: _guess(*args, what="eps")
        ),
        "You decode v_hat as if it were the guess.": lambda *args: _guess(*args, what="x0"),
        "You decode the noisy latent. First guess z0 from it.": (
            lambda *args: _guess(*args, what="nothing")
        ),
    },
    hints=(
        "Two moves: from z_t and v_hat to the guess z0_hat, then to a picture. Which of the "
        "two lies in [-1, 1]?",
        "z0_hat = ab**0.5 * z_t - (1 - ab) ** 0.5 * v_hat, as in notebook 02, exercise 2.",
        "return decode(z0_hat).clamp(-1, 1)",
    ),
    praise="It is what the right-hand panel of the film shows. Only pictures are clamped.",
)


def _break_even(pixel, latent, before, up=math.ceil):
    return up(before / (pixel - latent))


break_even = Exercise(
    name="break_even",
    cases=lambda: {
        f"{pixel} and {latent} a step, {before} before": (pixel, latent, before)
        for pixel, latent, before in ((21.0, 4.0, 1000.0), (10.0, 9.0, 50.0), (3.5, 0.4, 100.0))
    },
    right=_break_even,
    mistakes={
        "This is when the pixel side has spent what the autoencoder cost. Meanwhile the latent "
        "side spends too: divide by the difference.": (
            lambda pixel, latent, before: math.ceil(before / pixel)
        ),
        "This divides by what a latent step costs. What counts is what a step saves.": (
            lambda pixel, latent, before: math.ceil(before / latent)
        ),
        "After that many whole steps it is not quite repaid: round up.": (
            lambda *args: _break_even(*args, up=math.floor)
        ),
        "Steps are whole: round up.": lambda *args: _break_even(*args, up=float),
        "What a step saves is the difference, not how many times cheaper it is.": (
            lambda pixel, latent, before: math.ceil(before / (pixel / latent))
        ),
    },
    hints=(
        "After n steps, pixels have cost n * pixel and latents before + n * latent. When is "
        "the second not more than the first?",
        "n * (pixel - latent) >= before. And n is a whole number: math.ceil rounds up.",
        "math.ceil(before / (pixel - latent))",
    ),
    praise="Trained longer than that, or used for a second model, the autoencoder is free.",
)

EXERCISES = (cheaper, decoded_guess, break_even)
