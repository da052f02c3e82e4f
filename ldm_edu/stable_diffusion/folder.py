"""diffusers' folder layout: a folder a part, each with its settings and its weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.stable_diffusion.published import SUPPORTED, Published
from ldm_edu.stable_diffusion.scheduler import read_scheduler
from ldm_edu.stable_diffusion.settings import (
    Settings,
    read_autoencoder,
    read_text_encoder,
    read_unet,
    whole,
)
from ldm_edu.stable_diffusion.tensors import StoredTensor, refuse_pickle, stored_tensors

FOLDERS = {"unet": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "autoencoder": "diffusion_pytorch_model",
    "text_encoder": "model",
}
SCHEDULER, TOKENIZER, INDEX = "scheduler/scheduler_config.json", "tokenizer", "model_index.json"

# names of older versions: what they are called now; None is a buffer that nobody needs
RENAMED = {
    "unet": {},
    "autoencoder": {
        r"(.*mid_block\.attentions\.0)\.query\.(\w+)": r"\1.to_q.\2",
        r"(.*mid_block\.attentions\.0)\.key\.(\w+)": r"\1.to_k.\2",
        r"(.*mid_block\.attentions\.0)\.value\.(\w+)": r"\1.to_v.\2",
        r"(.*mid_block\.attentions\.0)\.proj_attn\.(\w+)": r"\1.to_out.0.\2",
    },
    "text_encoder": {
        r".*\.position_ids": None,
        r"((?:embeddings|encoder|final_layer_norm)\..*)": r"text_model.\1",
    },
}
Read = TypeVar("Read")


def weight_files(half: bool) -> list[str]:
    """Endings of a part's weights, the wanted precision first."""
    endings = [".safetensors", ".fp16.safetensors"]
    return endings[::-1] if half else endings


def read_folder(folder: Path, half: bool, tokenizer: Path | None = None) -> Published:
    """What a diffusers folder holds; `half` prefers the weights of 16 bits, if both are there.

    tokenizer: another folder of it than the one inside. Raises CheckpointError.
    """
    _recognise(folder)
    unet = _settings(folder, "unet/config.json", read_unet)
    autoencoder, scale = _settings(folder, "vae/config.json", read_autoencoder)
    text_encoder = _settings(folder, "text_encoder/config.json", read_text_encoder)
    schedule, parameterisation, grid = _settings(folder, SCHEDULER, read_scheduler)
    side = _settings(folder, "unet/config.json", lambda s: whole(s, "sample_size"))
    tensors = {}
    for part, inside in FOLDERS.items():
        path = _weights(folder / inside, WEIGHTS[part], half)
        tensors[part] = renamed(part, stored_tensors(path))
    return Published(
        where=str(folder),
        layout="diffusers",
        unet=unet,
        autoencoder=autoencoder,
        text_encoder=text_encoder,
        tensors=tensors,
        tokenizer=ClipTokenizer.load(tokenizer or folder / TOKENIZER),
        image_size=side * autoencoder.factor,
        schedule=schedule,
        parameterisation=parameterisation,
        grid=grid,
        latent_scale=scale,
    )


def renamed(part: str, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same under today's names, without the buffers that nobody needs."""
    found = {}
    for name, tensor in stored.items():
        now = name
        for old, new in RENAMED[part].items():
            if match := re.fullmatch(old, name):
                now = match.expand(new) if new else None
                break
        if now is not None:
            found[now] = tensor
    return found


def _recognise(folder: Path) -> None:
    names = _names(folder)
    if other := _other(folder, names):
        raise CheckpointError(f"{folder}: found {other}; {SUPPORTED}")
    parts = [*FOLDERS.values(), "scheduler"]
    if missing := [part for part in parts if part not in names]:
        files = [name for name in names if name.endswith(".safetensors")]
        if not files:
            _refuse_pickles(folder, names)
        hint = f" (load {files[0]} itself if it is the whole model)" if files else ""
        raise CheckpointError(
            f"{folder} has no folder {missing[0]}: a model in diffusers' layout has "
            f"{', '.join(parts)}, {TOKENIZER}; found {_listed(names)}{hint}"
        )


def _other(folder: Path, names: list[str]) -> str | None:
    if "text_encoder_2" in names:
        return "Stable Diffusion XL or later (it has two text encoders)"
    if "transformer" in names:
        return "a diffusion transformer, such as Stable Diffusion 3"
    unet = read_json(folder, "unet/config.json") if "unet" in names else {}
    heads, width = unet.get("attention_head_dim"), unet.get("cross_attention_dim")
    if width == 1024 or unet.get("use_linear_projection") or isinstance(heads, list):
        return f"Stable Diffusion 2 (a context of {width})"
    return None


def _weights(folder: Path, stem: str, half: bool) -> Path:
    for ending in weight_files(half):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    names = _names(folder)
    _refuse_pickles(folder, names)
    raise CheckpointError(f"{folder} has no {stem}.safetensors: found {_listed(names)}")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {error.strerror}") from None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) or "nothing"


def _refuse_pickles(folder: Path, names: list[str]) -> None:
    for name in names:
        refuse_pickle(folder / name)


def _settings(folder: Path, name: str, read) -> Any:
    try:
        return read(read_json(folder, name))
    except KeyError as error:
        raise CheckpointError(f"{folder / name} lacks {error.args[0]!r}") from None
    except (CheckpointError, InputError) as error:
        raise CheckpointError(f"{folder / name}: {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{folder / name} has a value of the wrong type: {error}"
        ) from None


def read_json(folder: Path, name: str) -> Settings:
    """The JSON object in a file of the folder. Raises CheckpointError."""
    path = folder / name
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value
