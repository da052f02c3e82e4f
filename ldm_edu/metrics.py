"""How close is a reconstruction: decibels of peak signal to noise."""

import torch
from torch import Tensor

from ldm_edu.errors import InputError


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: (B, 3, H, W) in [-1, 1] twice -> (B,).

    10 log10(2^2 / mean squared error), the peak being the range of the values. Identical images
    give infinity. Raises InputError if the shapes differ.
    """
    if x.shape != x_hat.shape:
        raise InputError(f"images have shapes {tuple(x.shape)} and {tuple(x_hat.shape)}")
    return 10 * torch.log10(4 / (x - x_hat).square().flatten(1).mean(1))
