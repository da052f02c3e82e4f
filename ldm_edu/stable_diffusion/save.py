"""A pipeline of ours as a folder in diffusers' layout, for its StableDiffusionPipeline."""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ldm_edu.autoencoder import Autoencoder
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import InputError, StorageError
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.stable_diffusion.folder import FOLDERS, INDEX, SCHEDULER, TOKENIZER, WEIGHTS
from ldm_edu.stable_diffusion.key_map import key_map
from ldm_edu.stable_diffusion.scheduler import write_scheduler
from ldm_edu.stable_diffusion.settings import (
    write_autoencoder,
    write_text_encoder,
    write_unet,
)

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}


def save_stable_diffusion(pipe: LatentDiffusion, folder: str | os.PathLike[str]) -> None:
    """Write a folder that diffusers' StableDiffusionPipeline.from_pretrained loads.

    Any model fits that has CLIP's kind of tokenizer and text encoder and none of this course's
    own `patch`, `linear` and `coordinates`. What diffusers has no setting for, times from 1 and
    a latent scale a channel, goes into the weights. The folder appears when it is complete.
    Raises InputError for another model, StorageError if the disk refuses or the folder exists.
    """
    path = Path(folder)
    configs, parts = _configs(pipe), _parts(pipe)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(f"{path} exists already: choose another name, or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            for name, config in configs.items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_text(json.dumps(config, indent=2) + "\n")
            for part, tensors in parts.items():
                file = new / FOLDERS[part] / f"{WEIGHTS[part]}.safetensors"
                plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
                safetensors.torch.save_file(plain, file, metadata={"format": "pt"})
            pipe.tokenizer.save(new / TOKENIZER)
            new.chmod(0o755)  # mkdtemp's is private
            if path.is_dir():
                path.rmdir()
            os.replace(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot save in {path}: {error}") from error


def _configs(pipe: LatentDiffusion) -> dict[str, dict[str, Any]]:
    if not isinstance(pipe.tokenizer, ClipTokenizer) or not pipe.text_encoder.config.causal:
        raise InputError(
            "diffusers' StableDiffusionPipeline needs CLIP's tokenizer and a causal text "
            f"encoder; this model's tokenizer is {type(pipe.tokenizer).__name__}"
        )
    c = pipe.autoencoder.config
    if c.patch != 1 or c.linear:
        raise InputError(
            f"diffusers has no autoencoder with patch = {c.patch}, linear = {c.linear}; "
            "only patch = 1, linear = False"
        )
    if pipe.unet.config.coordinates:
        raise InputError("diffusers has no U-Net with coordinates = True; only False")
    size, scale = pipe.image_size, _one_scale(pipe.autoencoder)
    scheduler = write_scheduler(pipe.schedule, pipe.parameterisation, pipe.grid)
    return {
        INDEX: MODEL_INDEX | {"scheduler": ["diffusers", scheduler["_class_name"]]},
        SCHEDULER: scheduler,
        "unet/config.json": write_unet(pipe.unet.config, size // c.factor),
        "vae/config.json": write_autoencoder(c, size, scale or 1.0),
        "text_encoder/config.json": write_text_encoder(
            pipe.text_encoder.config, pipe.tokenizer
        ),
    }


def _parts(pipe: LatentDiffusion) -> dict[str, dict[str, Tensor]]:
    modules = {part: getattr(pipe, part) for part in FOLDERS}
    tensors = {part: module.state_dict() for part, module in modules.items()}
    ahead = 1 + pipe.unet.config.time_shift  # of theirs
    if ahead:
        tensors["unet"]["time.linear1.weight"] = _turned(pipe.unet.time.linear1.weight, ahead)
    if _one_scale(pipe.autoencoder) is None:
        tensors["autoencoder"] |= _scaled(pipe.autoencoder)
    return {
        part: {
            theirs: tensors[part][ours].detach()
            for ours, theirs in key_map(
                part, tensors[part], modules[part].config, "diffusers"
            ).items()
        }
        for part in FOLDERS
    }


def _one_scale(autoencoder: Autoencoder) -> float | None:
    scale = autoencoder.latent_scale.unique()
    if autoencoder.latent_shift.any() or len(scale) > 1:
        return None
    return float(str(scale[0].cpu().numpy()))  # 0.18215, not 0.18215000629425049


def _turned(weight: Tensor, ahead: int) -> Tensor:
    """The weight that makes of t the features that `weight` makes of t + ahead.

    cos(a + b) = cos a cos b - sin a sin b, sin(a + b) = sin a cos b + cos a sin b.
    """
    half = weight.shape[1] // 2
    i = torch.arange(half, dtype=torch.float64, device=weight.device)
    angle = ahead * torch.exp(-math.log(10_000) * i / half)
    of_cos, of_sin = weight.double().chunk(2, dim=1)
    turned = [
        of_cos * angle.cos() + of_sin * angle.sin(),
        of_sin * angle.cos() - of_cos * angle.sin(),
    ]
    return torch.cat(turned, dim=1).to(weight)


def _scaled(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """The 1x1 convolutions at the latent with its shift and scale inside them."""
    quant, post = autoencoder.quant_conv, autoencoder.post_quant_conv
    shift, scale = autoencoder.latent_shift, autoencoder.latent_scale
    rows = torch.cat([scale, torch.ones_like(scale)])  # of the mean, of logvar
    moved = torch.cat([-shift * scale, 2 * scale.log()])
    return {
        "quant_conv.weight": quant.weight * rows[:, None, None, None],
        "quant_conv.bias": quant.bias * rows + moved,
        "post_quant_conv.weight": post.weight / scale[:, None, None],
        "post_quant_conv.bias": post.bias + post.weight[:, :, 0, 0] @ shift,
    }
