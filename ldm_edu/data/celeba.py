"""CelebA (Liu et al. 2015) as `celeba64`: the square around each aligned face, 64x64.

The images are 178x218 on the hub. The usual box for generative models is the 128x128 square
whose top left corner is at (25, 57), as in the code of DDIM (Song et al. 2021). Other sizes use
the same box in proportion, rounded down: at 89x109 it is the 64x64 square at (12, 28), which
needs no resampling.
"""

import numpy as np
import torch
from torch import Tensor

from ldm_edu.data import cache, decode, hub, source
from ldm_edu.data.captions import face_caption
from ldm_edu.data.decode import Row
from ldm_edu.data.source import ImageDataset
from ldm_edu.errors import DataError

SIDE = 64  # pixels
FULL = (178, 218)  # width, height of the aligned images
BOX = (25, 57, 128)  # left, top, side of the square in them
_NAMES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips "
    "Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby "
    "Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose "
    "Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair "
    "Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie "
    "Young"
)
ATTRIBUTES = tuple(_NAMES.split())  # the order of the published list
LAYOUT = source.Layout(
    name="celeba64",
    folders=("celeba64", "celeba"),
    hub="flwrlabs/celeba",
    torchvision="img_align_celeba",
    splits={"train": ("train",), "test": ("test", "valid", "validation")},
)
_BITS = 2 ** np.arange(len(ATTRIBUTES), dtype=np.int64)
_PARTITION = {"train": "0", "test": "2"}


def load_split(split: str, root=None) -> ImageDataset:
    """CelebA faces as uint8 (N, 3, 64, 64); `labels` packs the 40 attributes, see `attributes`.

    Where a source has no test split, "test" is its validation split. The captions are
    `captions.face_caption`. Sources and errors: see `ldm_edu.data.load`.
    """
    folder = source.find(LAYOUT, split, root)
    if folder is None:
        key, build = LAYOUT.hub, lambda: _hub(split)
    elif folder.parquet:
        key, build = cache.fingerprint(folder.parquet), lambda: _parquet(folder.parquet)
    else:
        rows = _torchvision_rows(folder.path, split)
        files = [folder.path / "list_attr_celeba.txt", *(row.image for row in rows)]
        key, build = cache.fingerprint(files), lambda: _decoded(rows, len(rows))
    images, labels = cache.cached("celeba64", split, key, build)
    present = (
        [name for name, bit in zip(ATTRIBUTES, bits, strict=True) if bit]
        for bits in attributes(labels).tolist()
    )
    captions = [face_caption(names, index) for index, names in enumerate(present)]
    return ImageDataset("celeba64", split, images, captions, labels)


def attributes(labels: Tensor) -> Tensor:
    """Unpacks int64 (N,) labels into bool (N, 40), one column for each of ATTRIBUTES."""
    return (labels[:, None] >> torch.arange(len(ATTRIBUTES))) & 1 == 1


def _hub(split):
    table = hub.download(LAYOUT, split).with_format("arrow")
    decode.require(["image", *ATTRIBUTES], table.column_names, LAYOUT.hub)
    rows = decode.table_rows(table.iter(512), LAYOUT.hub, "image", list(ATTRIBUTES))
    return _decoded(rows, len(table))


def _parquet(files):
    count, rows = decode.parquet_rows(files, "image", list(ATTRIBUTES))
    return _decoded(rows, count)


def _decoded(rows, count):
    images, values = decode.decode(rows, count, SIDE, _pixels)
    for number, row in enumerate(values):
        wrong = [name for name in ATTRIBUTES if row[name] not in (True, False, -1)]
        if wrong:
            raise DataError(
                f"{wrong[0]} in row {number} is {row[wrong[0]]!r}, expected true or false"
            )
    present = np.array([[row[name] > 0 for name in ATTRIBUTES] for row in values], bool)
    return images, present.reshape(-1, len(ATTRIBUTES)) @ _BITS


def _pixels(picture, where):
    from PIL import Image

    width, height = picture.size
    left, top = BOX[0] * width // FULL[0], BOX[1] * height // FULL[1]
    side = round(BOX[2] * width / FULL[0])
    if side < SIDE or abs(width / height - FULL[0] / FULL[1]) > 0.01:
        raise DataError(
            f"{where}: the image is {width}x{height}, expected an aligned face of "
            f"{FULL[0]}x{FULL[1]}, or the same in proportion and at least 89x109"
        )
    square = picture.convert("RGB").crop((left, top, left + side, top + side))
    if side != SIDE:  # PIL filters before it shrinks
        square = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(square)


def _torchvision_rows(path, split):
    """The rows of img_align_celeba/ that list_eval_partition.txt gives to a split."""
    table = _lines(path / "list_attr_celeba.txt")[1:]  # the first line is the count
    names = table[0] if table else []
    decode.require(list(ATTRIBUTES), names, str(path / "list_attr_celeba.txt"))
    own = {
        file
        for file, part in _lines(path / "list_eval_partition.txt", 2)
        if part == _PARTITION[split]
    }
    rows = []
    for number, (file, *signs) in enumerate(table[1:], start=3):
        if len(signs) != len(names) or not set(signs) <= {"-1", "1"}:
            raise DataError(
                f"{path / 'list_attr_celeba.txt'} line {number} is not a file name and "
                f"{len(names)} times 1 or -1"
            )
        if file in own:
            image = path / LAYOUT.torchvision / file
            values = {name: int(sign) for name, sign in zip(names, signs, strict=True)}
            rows.append(Row(str(image), image, values))
    if not rows:
        raise DataError(f"list_eval_partition.txt in {path} gives no image to split {split!r}")
    return rows


def _lines(file, words=None):
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {decode.one_line(error)}") from error
    for number, line in enumerate(lines, start=1):
        if words is not None and len(line) != words:
            raise DataError(f"{file} line {number} has {len(line)} words, expected {words}")
    return lines
