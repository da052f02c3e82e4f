"""A checkpoint's files on the disk: sealed, replaced as a whole, found again after a kill.

A save writes the hidden sibling `.NAME.new`, makes it durable, moves the folder in its place to
`.NAME.old`, takes the place, and only then deletes the old. Whatever a killed save leaves,
`read` finds a whole checkpoint among the three, and the next save tidies up.
"""

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ldm_edu.errors import CheckpointError, InputError, StorageError
from ldm_edu.manifest import CONFIG, MANIFEST, SUFFIX, manifest_of, verified

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LITTER = {".DS_Store", ".ipynb_checkpoints"}  # file browsers and Jupyter leave these


def write(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Put `files`, CONFIG among them, in place of the last ones; all or none.

    Raises StorageError if the disk refuses or `folder` holds anything but a checkpoint,
    InputError if it is no path. Two writers of one folder wait for each other.
    """
    path = checked_path(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.parent, alone=True):
            _recover(path)
            _replace(path, {**files, MANIFEST: manifest_of(files)})
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot save the checkpoint {path}: {reason}") from error


def read(folder: str | os.PathLike[str], only: str | None = None) -> dict[str, bytes]:
    """The files, or `only` one of them, each verified. Raises CheckpointError if any is not."""
    path = checked_path(folder)
    try:
        with _lock(path.parent, alone=False):
            if found := find(path):
                return verified(found, only)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"cannot read the checkpoint {path}: {reason}") from error
    raise CheckpointError(f"no checkpoint at {path}: check the path, or train one first")


def find(path: Path) -> Path | None:
    """The folder that holds the checkpoint of `path`: itself, or what a kill left of it."""
    if path.exists():
        return path
    for sibling in _siblings(path):
        with suppress(OSError, CheckpointError):
            verified(sibling)
            return sibling
    return None


def checked_path(folder: str | os.PathLike[str]) -> Path:
    """`folder` with its links followed. Raises InputError for what cannot be a folder."""
    if not isinstance(folder, str | os.PathLike) or str(folder) == "" or "\0" in str(folder):
        raise InputError(f"a checkpoint folder is a path, not {folder!r}")
    path = Path(os.path.realpath(folder))  # a link stays, its target is replaced
    if not path.name:
        raise InputError(f"{path} cannot be a checkpoint folder: name one inside it")
    return path


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
    if not path.exists() and (survivor := find(path)):
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
