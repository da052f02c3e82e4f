"""Decoded pictures on disk, so that only the first load of a data set is slow.

The cache lies in LDM_EDU_CACHE, by default ~/.cache/ldm_edu. It may be deleted at any time, and
it can never fail a load: a damaged file is rebuilt, an unwritable folder is only a warning.
"""

import hashlib
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ENVIRONMENT = "LDM_EDU_CACHE"
_VERSION = 1  # of the decoding: a change makes older files unused


def folder() -> Path:
    """The cache folder; it need not exist."""
    chosen = os.environ.get(ENVIRONMENT) or "~/.cache/ldm_edu"
    return Path(chosen).expanduser()


def fingerprint(files: Iterable[Path]) -> str:
    """A digest of the path, size and time of change of each source file."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat() if file.exists() else None
        size, time = (stat.st_size, stat.st_mtime_ns) if stat else (-1, -1)
        digest.update(f"{file.absolute()}\0{size}\0{time}\n".encode())
    return digest.hexdigest()


def cached(
    name: str, split: str, source: str, build: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, H, W) and labels int64 (N,): from the cache, else from `build()`.

    `source` identifies what `build` reads, for example by `fingerprint`. Warns, and goes on, if
    a file is damaged (each array carries a CRC-32) or if the folder cannot be written.
    """
    key = hashlib.sha256(f"{_VERSION}\0{name}\0{split}\0{source}".encode()).hexdigest()[:24]
    path = folder() / f"{name}-{split}-{key}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = build()
        _write(path, *arrays)
    return tuple(torch.from_numpy(array) for array in arrays)


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(
            f"damaged or unreadable cache {path}, rebuilding it: {error}", stacklevel=5
        )
        return None
    right = images.dtype == np.uint8 and labels.dtype == np.int64 and images.ndim == 4
    if not right or labels.shape != images.shape[:1]:
        warnings.warn(
            f"damaged or unreadable cache {path}, rebuilding it: wrong arrays", stacklevel=5
        )
        return None
    return images, labels


def _write(path, images, labels):
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, images=images, labels=labels)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        warnings.warn(
            f"cannot write the cache, the next load is slow again: {error}", stacklevel=5
        )
