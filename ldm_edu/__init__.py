"""Latent diffusion models from scratch: each component once, short enough to read."""

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import CheckpointError, DataError, InputError, LdmEduError, StorageError
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.pretrained import load_pretrained
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.stable_diffusion import load_stable_diffusion, save_stable_diffusion
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.unet import UNet, UNetConfig

__version__ = "0.1.0"

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "CheckpointError",
    "ClipTokenizer",
    "DataError",
    "DiagonalGaussian",
    "InputError",
    "LatentDiffusion",
    "LdmEduError",
    "NoiseSchedule",
    "StorageError",
    "TextEncoder",
    "TextEncoderConfig",
    "UNet",
    "UNetConfig",
    "WordTokenizer",
    "load_pretrained",
    "load_stable_diffusion",
    "save_stable_diffusion",
]
