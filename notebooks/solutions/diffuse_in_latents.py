"""Solutions of 07, Diffuse in latents."""

import math
from collections.abc import Callable

from torch import Tensor


def cheaper(f: int) -> tuple[int, int]:
    """How many times fewer operations: of a convolution, of attention's weights."""
    places = f * f
    return places, places * places


def decoded_guess(
    decode: Callable[[Tensor], Tensor], z_t: Tensor, v_hat: Tensor, ab: float
) -> Tensor:
    """The picture that the model expects behind z_t, in [-1, 1]."""
    z0_hat = ab**0.5 * z_t - (1 - ab) ** 0.5 * v_hat
    return decode(z0_hat).clamp(-1, 1)


def break_even(pixel: float, latent: float, before: float) -> int:
    """The first number of steps after which the latent side has not spent more."""
    return math.ceil(before / (pixel - latent))
