"""Patch-PCA: the best linear autoencoder of a given latent size, and so the line to beat."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_edu.errors import InputError


def patch_pca(x: Tensor, factor: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of all factor x factor patches of x (B, C, H, W).

    Returns (basis, mean, std): basis (C f^2, channels) orthonormal, mean (C f^2,), std
    (channels,) of the coefficients, falling. Raises InputError if `channels` exceeds C f^2.
    """
    patches = F.unfold(x, factor, stride=factor).transpose(1, 2).flatten(0, 1).double()
    if not 1 <= channels <= patches.shape[1]:
        raise InputError(f"channels must lie in 1..{patches.shape[1]}, found {channels}")
    mean = patches.mean(0)
    variance, vectors = torch.linalg.eigh((patches - mean).T.cov())  # rising
    basis, variance = vectors.flip(1)[:, :channels], variance.flip(0)[:channels]
    basis = basis * basis.sum(0).sign().where(basis.sum(0) != 0, 1.0)  # a sign of one's own
    return basis.to(x.dtype), mean.to(x.dtype), variance.clamp(min=1e-12).sqrt().to(x.dtype)


def pca_reconstruct(x: Tensor, factor: int, basis: Tensor, mean: Tensor) -> Tensor:
    """Project the patches of x (B, C, H, W) onto the basis and back: (B, C, H, W)."""
    patches = F.unfold(x, factor, stride=factor).transpose(1, 2)  # (B, N, C f^2)
    patches = (patches - mean) @ basis @ basis.T + mean
    return F.fold(patches.transpose(1, 2), x.shape[2:], factor, stride=factor)
