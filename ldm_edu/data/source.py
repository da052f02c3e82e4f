"""Where the pictures of a real data set lie: an argument, the environment, or the hub.

A folder may hold the hub's parquet files or torchvision's own layout. Finding is all that
happens here; `decode.py` reads, `hub.py` downloads, `cache.py` remembers.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ldm_edu.errors import DataError, InputError

ENVIRONMENT = "LDM_EDU_DATA"
SPLITS = ("train", "test")
_SHOWN = 6  # names listed in a message


class ImageDataset(NamedTuple):
    """A data set in memory: N pictures with a caption and a number each.

    What `labels` mean is the data set's own: see `shapes.make`, `cifar10.load_split` and
    `celeba.load_split`.
    """

    name: str
    split: str
    images: Tensor  # uint8 (N, 3, H, W), 0..255
    captions: list[str]
    labels: Tensor  # int64 (N,)


class Layout(NamedTuple):
    """How one data set is stored."""

    name: str  # as in ldm_edu.data.NAMES
    folders: tuple[str, ...]  # names under which it lies in a folder of data sets
    hub: str  # name on the Hugging Face hub
    torchvision: str  # folder that marks torchvision's layout
    splits: dict[str, tuple[str, ...]]  # split -> words for it in file names, best first


class Folder(NamedTuple):
    """A data set found on disk: its parquet files, or none if it has torchvision's layout."""

    path: Path
    parquet: tuple[Path, ...]


def find(layout: Layout, split: str, root: str | os.PathLike | None) -> Folder | None:
    """The folder that holds a data set, or None if only the hub can give it.

    Looks in `root`, else in the folder named by LDM_EDU_DATA: at a subfolder named for the data
    set, else at the folder itself. Raises DataError if the folder does not exist, is empty, or
    holds nothing in an accepted layout; InputError if `root` is not a path.
    """
    if root is None and not os.environ.get(ENVIRONMENT):
        return None
    origin = "root" if root is not None else ENVIRONMENT
    top = _existing(os.environ[ENVIRONMENT] if root is None else root, origin)
    for path in [*(top / name for name in layout.folders), top]:
        if (path / layout.torchvision).is_dir():
            return Folder(path, ())
        if path.is_dir() and (parquet := _parquet(path, layout)):
            return Folder(path, _of_split(path, parquet, layout, split))
    raise DataError(
        f"no {layout.name} in {origin} {str(top)!r}: found {_listing(top)}, expected the "
        f"parquet files of {layout.hub} (train-*.parquet, ...) or torchvision's "
        f"{layout.torchvision}/, here or in {layout.folders[0]}/"
    )


def _existing(folder, origin):
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise InputError(f"root is {folder!r}, expected the path of a folder")
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{origin} {str(path)!r} {found}, expected a folder with the data set")
    try:
        empty = not any(path.iterdir())
    except OSError as error:
        raise DataError(f"{origin} {str(path)!r} cannot be read: {error.strerror}") from error
    if empty:
        raise DataError(f"{origin} {str(path)!r} is empty, expected a folder with the data set")
    return path


def _parquet(path, layout):
    """Parquet files up to two folders below `path`, but not in those of other data sets."""
    others = {"shapes", "cifar10", "celeba", "celeba64"} - set(layout.folders)
    depths = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
    files = sorted(file for depth in depths for file in path.glob(depth))
    return [file for file in files if file.relative_to(path).parts[0] not in others]


def _of_split(path, files, layout, split):
    """The files of a split: its word starts the file's name, or names its folder."""
    for word in layout.splits[split]:
        own = re.compile(rf"(?:^|.*/){word}(?:[-_./][^/]*)?")
        found = [f for f in files if own.fullmatch(f.relative_to(path).as_posix())]
        if found:
            return tuple(found)
    words = " or ".join(f"{word}-*.parquet" for word in layout.splits[split])
    names = ", ".join(str(f.relative_to(path)) for f in files[:_SHOWN])
    raise DataError(f"no split {split!r} in {str(path)!r}: found {names}, expected {words}")


def _listing(path):
    names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
