"""diffusers' folder layout: a folder a part, each with its settings and its weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ldm_edu.bpe import ClipTokenizer
from ldm_edu.checkpoint import PICKLES
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
    names = sorted(p.name for p in folder.iterdir())
    other = None
    if "text_encoder_2" in names:
        other = "Stable Diffusion XL or later (it has two text encoders)"
    elif "transformer" in names:
        other = "a diffusion transformer, such as Stable Diffusion 3"
    elif "unet" in names and "cross_attention_dim" in (
        s := read_json(folder, "unet/config.json")
    ):
        linear, heads = s.get("use_linear_projection"), s.get("attention_head_dim")
        if s["cross_attention_dim"] == 1024 or linear or isinstance(heads, list):
            other = f"Stable Diffusion 2 (a context of {s['cross_attention_dim']})"
    if other:
        raise CheckpointError(f"{folder}: found {other}; {SUPPORTED}")
    parts = [*FOLDERS.values(), "scheduler", TOKENIZER]
    if missing := [part for part in parts if part not in names and part != TOKENIZER]:
        found = ", ".join(names[:8]) or "nothing"
        files = [n for n in names if n.endswith(".safetensors")]
        hint = f" (load {files[0]} itself if it is the whole model)" if files else ""
        raise CheckpointError(
            f"{folder} has no folder {missing[0]}: a model in diffusers' layout has "
            f"{', '.join(parts)}; found {found}{hint}"
        )


def _weights(folder: Path, stem: str, half: bool) -> Path:
    for ending in weight_files(half):
        if (path := folder / f"{stem}{ending}").is_file():
            return path
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        if Path(name).suffix in PICKLES:
            refuse_pickle(folder / name)
    found = ", ".join(names) or "nothing"
    raise CheckpointError(f"{folder} has no {stem}.safetensors: found {found}")


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
