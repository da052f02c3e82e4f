"""A pipeline as a checkpoint folder, and back: the parts' configs and weights, and settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldm_edu import checkpoint
from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.pixels import PixelConfig, PixelSpace
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.unet import UNet, UNetConfig

_FORMAT = "ldm_edu.LatentDiffusion"


def write_pipeline(folder: str | Path, pipe, half: bool, notes: dict[str, Any]) -> None:
    """Write what `read_pipeline` reads. pipe: a LatentDiffusion; half: store float16.

    Raises InputError for weights that float16 cannot hold, and as `checkpoint.save` does.
    """
    config = {
        "format": _FORMAT,
        "autoencoder": pipe.autoencoder.config.to_dict(),
        "unet": pipe.unet.config.to_dict(),
        "schedule": pipe.schedule.to_dict(),
        "parameterisation": pipe.parameterisation,
        "image_size": pipe.image_size,
        "guidance": pipe.guidance,
        "grid": pipe.grid.to_dict(),
        "notes": notes,
    }
    parts = {"autoencoder": pipe.autoencoder, "unet": pipe.unet}
    if pipe.tokenizer is not None:
        config["tokenizer"] = pipe.tokenizer.to_dict()
        config["text_encoder"] = pipe.text_encoder.config.to_dict()
        parts["text_encoder"] = pipe.text_encoder
    tensors = {name: module.state_dict() for name, module in parts.items()}
    checkpoint.save(folder, config, checkpoint.halved(tensors) if half else tensors)


def read_pipeline(make: Callable, folder: str | Path, device: torch.device):
    """make(**parts and settings) of a checkpoint folder, verified, in float32.

    make: LatentDiffusion, or what takes its arguments. Raises CheckpointError.
    """
    with checkpoint.opened(folder, _FORMAT) as (config, tensors):
        parts: dict[str, nn.Module] = {
            "autoencoder": _first_stage(config["autoencoder"]),
            "unet": UNet(UNetConfig(**config["unet"])),
        }
        tokenizer = None
        if "tokenizer" in config:
            kind = ClipTokenizer if "merges" in config["tokenizer"] else WordTokenizer
            tokenizer = kind(**config["tokenizer"])
            parts["text_encoder"] = TextEncoder(TextEncoderConfig(**config["text_encoder"]))
        for name, module in parts.items():
            checkpoint.load_into(module, tensors[name], name)
            module.to(device)
        return make(
            schedule=NoiseSchedule(**config["schedule"]),
            parameterisation=config["parameterisation"],
            image_size=config["image_size"],
            tokenizer=tokenizer,
            guidance=config["guidance"],
            grid=Grid(**config.get("grid", {})),
            **parts,
        )


def _first_stage(config: dict[str, Any]) -> Autoencoder | PixelSpace:
    if "factor" in config:  # an autoencoder's follows from its sizes
        return PixelSpace(PixelConfig(**config))
    return Autoencoder(AutoencoderConfig(**config))
