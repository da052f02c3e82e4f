"""Published Stable Diffusion v1 weights in this library's own classes, in both directions.

Published weights count noise levels from 0: our t is their t + 1, for our t = 0 is clean. The
U-Net's `time_shift` of -1 tells it so; nothing else needs to know.
"""

import os
import re
from pathlib import Path

import torch

from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.pipeline import LatentDiffusion, pick_device
from ldm_edu.stable_diffusion.compvis import read_file
from ldm_edu.stable_diffusion.folder import read_folder
from ldm_edu.stable_diffusion.hub import download
from ldm_edu.stable_diffusion.save import save_stable_diffusion

__all__ = ["load_stable_diffusion", "save_stable_diffusion"]


def load_stable_diffusion(
    path_or_hub_name: str | os.PathLike[str],
    device: str = "auto",
    dtype: torch.dtype | None = None,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
) -> LatentDiffusion:
    """Load Stable Diffusion v1, or a model fine-tuned from it, at any size.

    path_or_hub_name: a folder in diffusers' layout; one `.safetensors` file in CompVis' layout,
    whose vocabulary is looked for beside it; or a name such as
    "stable-diffusion-v1-5/stable-diffusion-v1-5", which is downloaded once. tokenizer: a folder
    with vocab.json and merges.txt, if they are elsewhere. dtype: float32 by default, float16 on
    CUDA. The weights are held in memory once.

    Raises InputError for arguments that cannot be, CheckpointError for a missing, damaged or
    unsafe file, and for another model than Stable Diffusion v1.
    """
    for given in (path_or_hub_name, "" if tokenizer is None else tokenizer):
        if not isinstance(given, str | os.PathLike):
            raise InputError(f"a path or a name on the hub is a str, found {given!r}")
    device = pick_device(device)
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(
            f"dtype must be a floating type such as torch.float32, found {dtype!r}"
        )
    tokenizer = None if tokenizer is None else Path(tokenizer)
    path = Path(path_or_hub_name)
    half = dtype.itemsize < 4
    if path.is_file():
        return read_file(path, tokenizer).build(device, dtype)
    if not path.is_dir():
        path = download(_hub_name(path_or_hub_name), half)
    return read_folder(path, half, tokenizer).build(device, dtype)


def _hub_name(name: str | os.PathLike[str]) -> str:
    file = Path(name).suffix in (".safetensors", ".ckpt", ".pt", ".bin")
    if file or not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise CheckpointError(
            f"no file or folder {name}: check the path, or give a name on the hub such as "
            "'stable-diffusion-v1-5/stable-diffusion-v1-5'"
        )
    return name
