"""Diffusion in pixels, told as latent diffusion: an autoencoder that only scales."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ldm_edu.autoencoder import Autoencoder, DiagonalGaussian
from ldm_edu.errors import InputError


@dataclass(frozen=True)
class PixelConfig:
    """What a pipeline asks an autoencoder's config for. z has the image's shape: f is 1."""

    latent_channels: int = 3
    factor: int = 1

    def to_dict(self) -> dict:
        return asdict(self)


class PixelSpace(nn.Module):
    """Stands where an `Autoencoder` would, so that the same loop trains a pixel model.

    encode(x) -> a Gaussian with no spread at z = (x - shift) * scale; decode(z) undoes it.
    x and z are (B, 3, H, W), x in [-1, 1].
    """

    def __init__(self, config: PixelConfig | None = None):
        super().__init__()
        self.config = config or PixelConfig()
        self.register_buffer("latent_shift", torch.zeros(self.config.latent_channels))
        self.register_buffer("latent_scale", torch.ones(self.config.latent_channels))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """x (B, 3, H, W) in [-1, 1] -> q(z | x), whose mean is x scaled. Raises InputError."""
        self._check(x, "images")
        z = (x - self.latent_shift[:, None, None]) * self.latent_scale[:, None, None]
        return DiagonalGaussian(z, torch.full_like(z, -torch.inf))

    def decode(self, z: Tensor) -> Tensor:
        """z (B, 3, H, W) -> images, not clamped to [-1, 1]. Raises InputError."""
        self._check(z, "z")
        return z / self.latent_scale[:, None, None] + self.latent_shift[:, None, None]

    set_latent_scale = Autoencoder.set_latent_scale  # of images with these statistics

    def _check(self, x: Tensor, name: str) -> None:
        c = self.config.latent_channels
        if x.ndim != 4 or x.shape[1] != c or not x.is_floating_point():
            found = f"{x.dtype} {tuple(x.shape)}"
            raise InputError(f"{name} must be float (B, {c}, H, W), found {found}")
