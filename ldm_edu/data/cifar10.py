"""CIFAR-10 (Krizhevsky 2009): 32x32 photographs of ten kinds of things."""

import numpy as np

from ldm_edu.data import cache, decode, hub, source
from ldm_edu.data.captions import CLASSES, class_caption
from ldm_edu.data.source import ImageDataset
from ldm_edu.errors import DataError

SIDE = 32  # pixels
LAYOUT = source.Layout(
    name="cifar10",
    folders=("cifar10",),
    hub="uoft-cs/cifar10",
    torchvision="cifar-10-batches-py",
    splits={"train": ("train",), "test": ("test",)},
)


def load_split(split: str, root=None) -> ImageDataset:
    """CIFAR-10 as uint8 (N, 3, 32, 32); `labels` is the class 0..9, an index into CLASSES.

    The captions are `captions.class_caption` of the class: "a photo of a horse". Sources and
    errors: see `ldm_edu.data.load`.
    """
    folder = source.find(LAYOUT, split, root)
    if folder is None:
        images, labels = cache.cached("cifar10", split, LAYOUT.hub, lambda: _hub(split))
    elif folder.parquet:
        key = cache.fingerprint(folder.parquet)
        images, labels = cache.cached("cifar10", split, key, lambda: _parquet(folder.parquet))
    else:
        images, labels = _torchvision(folder.path, split)
    captions = [class_caption(CLASSES[label]) for label in labels.tolist()]
    return ImageDataset("cifar10", split, images, captions, labels)


def _hub(split):
    table = hub.download(LAYOUT, split).with_format("arrow")
    decode.require(["img", "label"], table.column_names, LAYOUT.hub)
    rows = decode.table_rows(table.iter(512), LAYOUT.hub, "img", ["label"])
    return _decoded(rows, len(table))


def _parquet(files):
    count, rows = decode.parquet_rows(files, "img", ["label"])
    return _decoded(rows, count)


def _decoded(rows, count):
    images, values = decode.decode(rows, count, SIDE, _pixels)
    return images, _labels([row["label"] for row in values])


def _pixels(picture, where):
    if picture.size != (SIDE, SIDE):
        width, height = picture.size
        raise DataError(f"{where}: the image is {width}x{height}, expected {SIDE}x{SIDE}")
    return np.asarray(picture.convert("RGB"))


def _labels(values):
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < len(CLASSES):
            raise DataError(
                f"label in row {row} is {value!r}, expected 0 to {len(CLASSES) - 1}"
            )
    return np.array(values, np.int64)


def _torchvision(path, split):
    """torchvision's own reader: it checks the md5 of every file before opening it."""
    import torch
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(path, train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{path / LAYOUT.torchvision} is incomplete or damaged: {decode.one_line(error)}"
        ) from error
    images = torch.from_numpy(data.data.transpose(0, 3, 1, 2).copy())
    return images, torch.from_numpy(_labels(data.targets))
