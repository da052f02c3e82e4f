"""What a report is made of: plain records, checked when they are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ldm_edu.chart import check_curve
from ldm_edu.errors import InputError
from ldm_edu.film import check_tracks
from ldm_edu.images import require_latents, require_uint8


@dataclass(frozen=True)
class Reconstruction:
    """Test images and what the autoencoder makes of them; InputError when they do not fit."""

    originals: Tensor  # (N, 3, H, W) uint8
    reconstructions: Tensor  # (N, 3, H, W) uint8
    psnr: Sequence[float]  # N values, dB
    psnr_overall: float  # dB, over the whole test set
    pca_psnr: float | None = None  # dB, of patch-PCA with as many numbers: the line to beat

    def __post_init__(self) -> None:
        require_uint8(self.originals, "originals", "N 3 H W")
        n, _, height, width = self.originals.shape
        require_uint8(self.reconstructions, "reconstructions", f"{n} 3 {height} {width}")
        if len(self.psnr) != n:
            raise InputError(f"{n} reconstructions need {n} psnr values, got {len(self.psnr)}")
        for value in (*self.psnr, self.psnr_overall, self.pca_psnr or 0.0):
            if math.isnan(value):
                raise InputError("a psnr value is NaN, expected dB")


@dataclass(frozen=True)
class Noising:
    """N images and their latents at F noise levels, clean first; InputError if parts differ."""

    t: Sequence[int]  # F steps, 0 is clean
    alpha_bar: Sequence[float]  # F values in [0, 1]
    pixels: Tensor  # (F, N, 3, H, W) uint8, x_t: noise added to the pixels
    decoded: Tensor  # (F, N, 3, H, W) uint8, noise added to the latent, then decoded
    latents_rgb: Tensor  # (F, N, 3, h, w) uint8, z_t through latent_to_rgb

    def __post_init__(self) -> None:
        check_tracks((self.pixels, self.decoded, self.latents_rgb))
        if not len(self.pixels) == len(self.t) == len(self.alpha_bar):
            raise InputError(
                f"{len(self.pixels)} frames need as many t and alpha_bar, "
                f"got {len(self.t)} and {len(self.alpha_bar)}"
            )
        if not all(0 <= value <= 1 for value in self.alpha_bar):
            raise InputError(f"alpha_bar must lie in [0, 1], got {list(self.alpha_bar)}")


@dataclass(frozen=True)
class Denoising:
    """N samples at F steps of generation, pure noise first; InputError when parts differ."""

    t: Sequence[int]  # F steps, falling
    z_t_decoded: Tensor  # (F, N, 3, H, W) uint8
    z0_hat_decoded: Tensor  # (F, N, 3, H, W) uint8, the predicted clean latent
    z_t_rgb: Tensor  # (F, N, 3, h, w) uint8, z_t through latent_to_rgb

    def __post_init__(self) -> None:
        check_tracks((self.z_t_decoded, self.z0_hat_decoded, self.z_t_rgb))
        if len(self.t) != len(self.z_t_rgb):
            raise InputError(f"{len(self.z_t_rgb)} frames need as many t, got {len(self.t)}")


@dataclass(frozen=True)
class Report:
    """All that the page tells; raises InputError for parts that do not fit each other."""

    title: str
    summary: Sequence[tuple[str, str]]  # rows (name, value)
    images: Tensor  # (N, 3, H, W) uint8, from the data set
    captions: Sequence[str]  # N, or none
    reconstruction: Reconstruction
    latents: Tensor  # (N', C, h, w) float, of the first N' originals of `reconstruction`
    noising: Noising
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]  # name -> steps, values
    denoising: Denoising
    samples: Tensor  # (M, 3, H, W) uint8, 64 fill the grid
    prompts: Sequence[str]  # M, or none
    command: str  # that makes this page again
    versions: Mapping[str, str]  # name -> version

    def __post_init__(self) -> None:
        require_uint8(self.images, "images", "N 3 H W")
        require_uint8(self.samples, "samples", "M 3 H W")
        require_latents(self.latents, "latents")
        if self.captions and len(self.captions) != len(self.images):
            raise InputError(
                f"{len(self.images)} images need as many captions or none, "
                f"got {len(self.captions)}"
            )
        if self.prompts and len(self.prompts) != len(self.samples):
            raise InputError(
                f"{len(self.samples)} samples need as many prompts or none, "
                f"got {len(self.prompts)}"
            )
        originals = self.reconstruction.originals
        if len(self.latents) > len(originals):
            raise InputError(
                f"latents belong to the first originals, got {len(self.latents)} "
                f"for {len(originals)}"
            )
        if any(a % b for a, b in zip(originals.shape[2:], self.latents.shape[2:], strict=True)):
            raise InputError(
                f"latents {tuple(self.latents.shape)} do not divide originals "
                f"{tuple(originals.shape)}"
            )
        if not self.curves:
            raise InputError("curves must hold at least one loss curve, got none")
        for name, (steps, values) in self.curves.items():
            check_curve(name, steps, values)
