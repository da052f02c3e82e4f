"""The manifest of a checkpoint: size and sha256 of each of its files, sealed by its own."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ldm_edu.errors import CheckpointError

MANIFEST, CONFIG, SUFFIX, VERSION = "MANIFEST.json", "config.json", ".safetensors", 1
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # never a path
AGAIN = "copy the checkpoint again, or train anew"


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """The manifest that seals these files."""
    sums = {name: {"bytes": len(data), "sha256": _sum(data)} for name, data in files.items()}
    body = {"format": "ldm_edu checkpoint", "version": VERSION, "files": sums}
    return _seal(json.dumps(body, indent=2).removesuffix("\n}").encode())


def verified(folder: Path, only: str | None = None) -> dict[str, bytes]:
    """The files, or `only` one of them. Raises CheckpointError if one is not as sealed."""
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


def parsed(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError, which names `where`, for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is a JSON {type(value).__name__}, not an object")
    return value


def _manifest(folder: Path) -> dict[str, tuple[int, str]]:
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(_no_manifest(folder))
    raw, where = (folder / MANIFEST).read_bytes(), f"{MANIFEST} in {folder}"
    if _seal(raw[: -len(_seal(b""))]) != raw:
        raise CheckpointError(f"{where} is damaged, its own sha256 does not match: {AGAIN}")
    body = parsed(raw, where)
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


def _sum(data: bytes) -> str:
    return sha256(data).hexdigest()


def _seal(head: bytes) -> bytes:  # an open JSON object, closed by the sha256 of its bytes
    return head + f',\n  "sha256": "{_sum(head)}"\n}}\n'.encode()
