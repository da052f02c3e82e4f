"""Encode a data set once: the denoiser then trains on latents and never sees a pixel."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_edu.autoencoder import Autoencoder
from ldm_edu.errors import InputError


class LatentSet(NamedTuple):
    """Posteriors q(z | x) of a data set: mean and std, each (N, C, h, w) float32 on the CPU.

    shift, scale: (C,), those of the autoencoder that gave them out.
    """

    mean: Tensor
    std: Tensor
    shift: Tensor | float = 0.0
    scale: Tensor | float = 1.0

    def sample(self, index: Tensor, eps: Tensor) -> Tensor:
        """z for the images `index` (B,): mean + std * eps, with eps (B, C, h, w)."""
        return self.mean[index] + self.std[index] * eps


def encode_dataset(
    autoencoder: Autoencoder, images: Tensor, flip: bool = False, batch_size: int = 250
) -> Iterator[tuple[int, LatentSet]]:
    """Encode uint8 images (N, 3, H, W), a batch at a time: yields (images done, the whole set).

    With `flip` every image's mirror follows the N originals, 2N in all. The set is filled in
    place and complete when the last item has come. Raises InputError unless images are uint8.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise InputError(f"images must be uint8 (N, 3, H, W), found {found}")
    c, f = autoencoder.config.latent_channels, autoencoder.config.factor
    device = autoencoder.latent_scale.device
    total = len(images) * (1 + flip)
    shape = (total, c, images.shape[2] // f, images.shape[3] // f)
    scale = [s.cpu().clone() for s in (autoencoder.latent_shift, autoencoder.latent_scale)]
    latents = LatentSet(torch.empty(shape), torch.empty(shape), *scale)
    for start in range(0, total, batch_size):
        index = torch.arange(start, min(start + batch_size, total))
        with torch.inference_mode():
            posterior = autoencoder.encode(image_batch(images, index).to(device))
        latents.mean[index] = posterior.mean.cpu()
        latents.std[index] = posterior.std.cpu()
        yield len(index) + start, latents


def image_batch(images: Tensor, index: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) at `index` (B,) as float in [-1, 1].

    An index from N on means the mirror image of index - N, so 0..2N-1 spans data and flips.
    """
    n = len(images)
    batch = images[index % n].float().div_(127.5).sub_(1)
    mirrored = (index >= n)[:, None, None, None]
    return torch.where(mirrored, batch.flip(3), batch)


def measure_scale(latents: LatentSet, per_channel: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and std over the set, each (C,), for `Autoencoder.set_latent_scale`.

    The std is that of samples: spread of the means plus the posterior's own variance. With
    `per_channel` False the paper's single scale (LDM app. G): mean 0 and one std for all.
    They are those of the latents before any scale, so encoding, measuring and setting a second
    time changes nothing.
    """
    axes = (0, 2, 3)
    mean = latents.mean.mean(axes, dtype=torch.float64)
    centred = latents.mean - mean.float()[:, None, None]  # first: squares of means cancel
    variance = centred.square().mean(axes, dtype=torch.float64)
    variance = variance + latents.std.square().mean(axes, dtype=torch.float64)
    mean, variance = mean / latents.scale + latents.shift, variance / latents.scale**2
    if per_channel:
        return mean.float(), variance.sqrt().float()
    variance = variance.mean() + mean.var(correction=0)
    return torch.zeros_like(mean).float(), variance.sqrt().expand(len(mean)).float()


def rescale(latents: LatentSet, mean: Tensor, std: Tensor) -> LatentSet:
    """The set as an autoencoder with this scale would have encoded it; mean, std: (C,)."""
    shift, scale = mean, 1 / std
    mean = ((mean - latents.shift) * latents.scale)[:, None, None]  # in units of the set
    std = (std * latents.scale)[:, None, None]
    return LatentSet((latents.mean - mean) / std, latents.std / std, shift, scale)
