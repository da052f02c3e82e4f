"""Checkpoints that survive a kill at any instant and never run code.

A checkpoint is a folder: `config.json`, one `NAME.safetensors` per group of tensors, and a
manifest that seals them. How it is written and found is checkpoint_files.py's part.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ldm_edu import checkpoint_files
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.manifest import CONFIG, NAME, SUFFIX, parsed

RESERVED = "__metadata__"  # safetensors keeps this key for itself


def save(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write a checkpoint, in place of the last one, which a failed save leaves untouched.

    config: anything JSON holds, with str keys and finite numbers; tuples come back as lists.
    tensors: {"unet": unet.state_dict(), ...}, on any device; one file per group.
    Raises InputError for what cannot be stored, StorageError if the disk refuses or `folder`
    holds anything but a checkpoint. Two saves of one folder wait for each other.
    """
    files = {CONFIG: _config_bytes(config)} | _tensor_bytes(tensors)
    checkpoint_files.write(folder, files)


def load(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Read (config, tensors on `device`); every byte is verified before it is used.

    Raises CheckpointError if the checkpoint is missing, damaged, a pickle or of a later format,
    InputError if this machine has no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device {device!r} cannot be used here: try 'cpu'") from error
    files = checkpoint_files.read(folder)
    config, tensors = parsed(files.pop(CONFIG), f"{CONFIG} in {folder}"), {}
    for name, data in files.items():
        try:
            group = safetensors.torch.load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{name} in {folder} is no safetensors: {error}") from error
        tensors[name.removesuffix(SUFFIX)] = {k: v.to(device) for k, v in group.items()}
    return config, tensors


@contextmanager
def opened(
    folder: str | os.PathLike[str], form: str
) -> Iterator[tuple[dict[str, Any], dict[str, dict[str, Tensor]]]]:
    """What `load` reads, for a `with`; its config's "format" has to be `form`.

    Raises CheckpointError, also where the block finds that the settings fit no class of ours.
    """
    config, tensors = load(folder)
    if config.get("format") != form:
        found = config.get("format", "something else")
        raise CheckpointError(f"{folder} holds {found}, not {form}")
    try:
        yield config, tensors
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{folder} lacks {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError) as error:
        raise CheckpointError(f"{CONFIG} in {folder} does not fit: {error}") from error


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the verified config, but no tensors. Raises CheckpointError as `load` does."""
    return parsed(checkpoint_files.read(folder, CONFIG)[CONFIG], f"{CONFIG} in {folder}")


def exists(folder: str | os.PathLike[str]) -> bool:
    """Whether `load` would find a checkpoint here, damaged or not."""
    return checkpoint_files.find(checkpoint_files.checked_path(folder)) is not None


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy `tensors` into `module`, all or nothing; floats of another width are converted.

    what: the part's name for the message, such as "unet".
    Raises CheckpointError with the first tensor that does not fit and the number of others.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors]
    unexpected = [key for key in tensors if key not in own]
    unlike = [key for key in own if key in tensors and _kind(key, own) != _kind(key, tensors)]
    if bad := unlike + missing + unexpected:
        raise CheckpointError(
            f"{what}: checkpoint is for another model: first mismatch {bad[0]} is "
            f"{_kind(bad[0], tensors)} in the file, {_kind(bad[0], own)} in the model; "
            f"{len(missing)} missing, {len(unexpected)} unexpected, {len(unlike)} unlike"
        )
    module.load_state_dict(dict(tensors), strict=True)


def halved(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Groups of tensors for `save`, their floats as float16: half the size.

    Raises InputError for a value that float16 cannot hold.
    """
    halves = {}
    for part, group in tensors.items():
        halves[part] = {k: v.half() if v.is_floating_point() else v for k, v in group.items()}
        for name, value in halves[part].items():
            if value.isfinite().all() != group[name].isfinite().all():
                most = group[name].abs().max().item()
                raise InputError(
                    f"{part}'s {name} reaches {most:.3g}, float16 ends at 65504: store float32"
                )
    return halves


def _kind(key: str, tensors: Mapping[str, Tensor]) -> str:
    if key not in tensors:
        return "absent"
    shape = "(" + ",".join(map(str, tensors[key].shape)) + ")"
    return shape if tensors[key].is_floating_point() else f"{shape} {tensors[key].dtype}"


def _config_bytes(config: dict[str, Any]) -> bytes:
    try:
        if not isinstance(config, dict) or not _str_keys(config):
            raise TypeError("it must be a dict, and all keys str")
        return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"config cannot be written as JSON: {error}") from error


def _str_keys(value: Any) -> bool:  # json would turn the key 1 into "1"
    if isinstance(value, dict):
        return all(isinstance(key, str) and _str_keys(value[key]) for key in value)
    return not isinstance(value, list | tuple) or all(map(_str_keys, value))


def _tensor_bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, bytes]:
    files = {}
    for name, group in tensors.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"group name {name!r} must be letters, digits, '_', '-' or '.'")
        if (name + SUFFIX).lower() in map(str.lower, files):
            raise InputError(f"group name {name!r} differs from another only in case")
        for key, value in group.items():
            if not isinstance(value, Tensor) or not isinstance(key, str) or key == RESERVED:
                raise InputError(f"{name}[{key!r}] must be a tensor under a str key")
        try:
            plain = {k: v.detach().cpu().contiguous().clone() for k, v in group.items()}
            files[name + SUFFIX] = safetensors.torch.save(plain)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{name} has a tensor that cannot be stored: {error}") from error
    return files
