"""Checkpoints that survive a kill at any instant and never run code.

A checkpoint is a folder: `config.json`, one `NAME.safetensors` per group of tensors, and,
written last, `MANIFEST.json` with the size and sha256 of each, sealed by its own sha256.

A save writes the hidden sibling `.NAME.new`, makes it durable, moves the folder in its place to
`.NAME.old`, takes the place, and only then deletes the old. Whatever a killed save leaves,
`load` finds a whole checkpoint among the three, and the next save tidies up.
"""

import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ldm_edu.errors import CheckpointError, InputError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST, CONFIG, SUFFIX, VERSION = "MANIFEST.json", "config.json", ".safetensors", 1
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
LITTER = {".DS_Store", ".ipynb_checkpoints"}  # file browsers and Jupyter leave these
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # never a path
RESERVED = "__metadata__"  # safetensors keeps this key for itself
AGAIN = "copy the checkpoint again, or train anew"


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
    path = _path(folder)
    files = {CONFIG: _config_bytes(config)} | _tensor_bytes(tensors)
    sums = {name: {"bytes": len(data), "sha256": _sum(data)} for name, data in files.items()}
    body = {"format": "ldm_edu checkpoint", "version": VERSION, "files": sums}
    files[MANIFEST] = _seal(json.dumps(body, indent=2).removesuffix("\n}").encode())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.parent, alone=True):
            _recover(path)
            _replace(path, files)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot save the checkpoint {path}: {reason}") from error


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
    files = _read(folder)
    config, tensors = _json(files.pop(CONFIG), f"{CONFIG} in {folder}"), {}
    for name, data in files.items():
        try:
            group = safetensors.torch.load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{name} in {folder} is no safetensors: {error}") from error
        tensors[name.removesuffix(SUFFIX)] = {k: v.to(device) for k, v in group.items()}
    return config, tensors


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the verified config, but no tensors. Raises CheckpointError as `load` does."""
    return _json(_read(folder, only=CONFIG)[CONFIG], f"{CONFIG} in {folder}")


def exists(folder: str | os.PathLike[str]) -> bool:
    """Whether `load` would find a checkpoint here, damaged or not."""
    return _find(_path(folder)) is not None


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


# ---- bytes


def _path(folder: str | os.PathLike[str]) -> Path:
    if not isinstance(folder, str | os.PathLike) or str(folder) == "" or "\0" in str(folder):
        raise InputError(f"a checkpoint folder is a path, not {folder!r}")
    path = Path(os.path.realpath(folder))  # a link stays, its target is replaced
    if not path.name:
        raise InputError(f"{path} cannot be a checkpoint folder: name one inside it")
    return path


def _sum(data: bytes) -> str:
    return sha256(data).hexdigest()


def _seal(head: bytes) -> bytes:  # an open JSON object, closed by the sha256 of its bytes
    return head + f',\n  "sha256": "{_sum(head)}"\n}}\n'.encode()


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


# ---- writing


def _siblings(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.old"), path.with_name(f".{path.name}.new")


@contextmanager
def _lock(parent: Path, alone: bool) -> Generator[None]:
    handle = None
    if fcntl:
        with suppress(OSError):  # no right to open, or a network disk without locks
            handle = os.open(parent, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):  # not by close alone: a forked worker has a copy
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def _recover(path: Path) -> None:
    for place in (path, *_siblings(path)):
        _refuse_strangers(place, only_checkpoint=place == path)
    if not path.exists() and (survivor := _find(path)):
        os.rename(survivor, path)
    for sibling in _siblings(path):
        _discard(sibling)


def _refuse_strangers(folder: Path, only_checkpoint: bool) -> None:  # they would be deleted
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file and in the way: choose another name")
    names = sorted({p.name for p in folder.iterdir()} - LITTER) if folder.exists() else []
    if only_checkpoint and names and MANIFEST not in names:
        raise StorageError(f"{folder} is no checkpoint (it holds {names[0]}): choose another")
    for name in names:
        if name not in (MANIFEST, CONFIG) and not name.endswith(SUFFIX):
            raise StorageError(f"{folder} holds {name}, which a save would delete: move it")


def _replace(path: Path, files: Mapping[str, bytes]) -> None:
    old, new = _siblings(path)
    os.mkdir(new)
    mine = os.stat(new)
    try:
        for name, data in files.items():  # the manifest is the last
            with open(new / name, "xb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        _sync(new)
        if path.exists():
            os.rename(path, old)
        os.rename(new, path)
        _sync(path.parent)
    except BaseException:  # Ctrl-C too: back to how it was
        with suppress(OSError):
            if path.exists() and os.path.samestat(os.stat(path), mine):
                os.rename(path, new)
            if old.exists() and not path.exists():
                os.rename(old, path)
            _discard(new)
        raise
    with suppress(OSError):  # the save is done; the next one deletes what stays
        _discard(old)


def _sync(folder: Path) -> None:
    if os.name != "nt":  # Windows cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _discard(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


# ---- reading


def _read(folder: str | os.PathLike[str], only: str | None = None) -> dict[str, bytes]:
    path = _path(folder)
    try:
        with _lock(path.parent, alone=False):
            if found := _find(path):
                return _verified(found, only)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"cannot read the checkpoint {path}: {reason}") from error
    raise CheckpointError(f"no checkpoint at {path}: check the path, or train one first")


def _find(path: Path) -> Path | None:
    if path.exists():
        return path
    for sibling in _siblings(path):
        with suppress(OSError, CheckpointError):
            _verified(sibling)
            return sibling
    return None


def _verified(folder: Path, only: str | None = None) -> dict[str, bytes]:
    files = {}
    for name, (size, checksum) in _manifest(folder).items():
        if only in (None, name):
            if not (folder / name).is_file():
                raise CheckpointError(f"{name} is missing from {folder}: {AGAIN}")
            files[name] = data = (folder / name).read_bytes()
            if len(data) != size:
                found = f"{len(data)} bytes instead of {size}"
                raise CheckpointError(f"{name} in {folder} is damaged, {found}: {AGAIN}")
            if _sum(data) != checksum:
                raise CheckpointError(f"{name} in {folder} is damaged, wrong sha256: {AGAIN}")
    return files


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(_no_manifest(folder))
    raw, where = (folder / MANIFEST).read_bytes(), f"{MANIFEST} in {folder}"
    if _seal(raw[: -len(_seal(b""))]) != raw:
        raise CheckpointError(f"{where} is damaged, its own sha256 does not match: {AGAIN}")
    body = _json(raw, where)
    if body.get("version") != VERSION:
        found = f"format {body.get('version')!r}, this ldm_edu reads {VERSION}"
        raise CheckpointError(f"{where} has {found}: update ldm_edu")
    try:
        sums = {name: (file["bytes"], file["sha256"]) for name, file in body["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where} lists no files: {AGAIN}") from error
    if CONFIG not in sums or not all(map(NAME.fullmatch, sums)):
        raise CheckpointError(f"{where} lists no {CONFIG}, or a path: {AGAIN}")
    return sums


def _no_manifest(folder: Path) -> str:
    names = [folder.name] if folder.is_file() else sorted(p.name for p in folder.iterdir())
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
    if pickles and not any(name.endswith(SUFFIX) for name in names):
        convert = f"torch.load({pickles[0]!r}, weights_only=True), 'model{SUFFIX}'"
        return (
            f"{folder}: {pickles[0]} is a pickle, and pickles can run code when opened: "
            f"convert it once with safetensors.torch.save_file({convert})"
        )
    if folder.is_file():
        return f"{folder} is a file: give the checkpoint folder, which holds a {MANIFEST}"
    return f"{folder} is no whole checkpoint, it has no {MANIFEST}: {AGAIN}"


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is a JSON {type(value).__name__}, not an object")
    return value
