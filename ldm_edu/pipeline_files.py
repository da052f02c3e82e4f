"""A pipeline as a checkpoint folder, and back: the parts' configs and weights, and settings."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldm_edu import checkpoint
from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import CheckpointError
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


def read_pipeline(folder: str | Path, device: torch.device) -> dict[str, Any]:
    """The arguments of LatentDiffusion from a checkpoint folder, verified, in float32.

    Raises CheckpointError.
    """
    config, tensors = checkpoint.load(folder)
    if config.get("format") != _FORMAT:
        raise CheckpointError(
            f"{folder} holds {config.get('format', 'something else')}, not {_FORMAT}"
        )
    parts: dict[str, nn.Module] = {
        "autoencoder": Autoencoder(AutoencoderConfig(**config["autoencoder"])),
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
    return {
        "schedule": NoiseSchedule(**config["schedule"]),
        "parameterisation": config["parameterisation"],
        "image_size": config["image_size"],
        "tokenizer": tokenizer,
        "guidance": config["guidance"],
        "grid": Grid(**config.get("grid", {})),
        **parts,
    }
