"""Pictures with captions, by name: `load("shapes")`, `load("cifar10")`, `load("celeba64")`.

`shapes` is drawn from a seed and needs nothing. CIFAR-10 and CelebA are read from a folder, or
downloaded by name, and cached.
"""

import difflib
import os

from ldm_edu.data.source import SPLITS, ImageDataset
from ldm_edu.errors import DataError, InputError

__all__ = ["NAMES", "SPLITS", "ImageDataset", "load"]

NAMES = ("shapes", "cifar10", "celeba64")


def load(
    name: str, split: str = "train", root: str | os.PathLike | None = None
) -> ImageDataset:
    """Loads one split of a data set into memory.

    name: "shapes" (32x32), "cifar10" (32x32) or "celeba64" (64x64). split: "train" or "test".
    root: a folder that holds the data set, or that holds a folder `cifar10/`, `celeba/` or
    `celeba64/` with it; by default the folder named by LDM_EDU_DATA, else the Hugging Face hub.
    The folder may hold the hub's parquet files or torchvision's layout (`cifar-10-batches-py/`;
    `img_align_celeba/` with its two list files). Decoded images are cached in LDM_EDU_CACHE.

    Returns images uint8 (N, 3, H, W), captions, and labels int64 (N,), whose meaning is told
    in `shapes.make`, `cifar10.load_split` and `celeba.load_split`. Raises InputError for an
    unknown split or a root given for shapes; DataError for an unknown name, or for data that
    are missing, unreadable or in another layout.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"unknown data set {name!r}, expected one of: {', '.join(NAMES)}{hint}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}, expected one of: {', '.join(SPLITS)}")
    if name == "shapes":
        if root is not None:
            raise InputError(
                f"root is {str(root)!r}, but shapes are drawn, not read: leave it out"
            )
        from ldm_edu.data import shapes

        return shapes.load_split(split)
    if name == "cifar10":
        from ldm_edu.data import cifar10

        return cifar10.load_split(split, root)
    from ldm_edu.data import celeba

    return celeba.load_split(split, root)
