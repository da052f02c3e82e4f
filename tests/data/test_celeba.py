"""CelebA at 64x64: the box, the attributes, both layouts."""

import numpy as np
import pytest
import torch

from ldm_edu import data
from ldm_edu.data.captions import face_caption
from ldm_edu.data.celeba import ATTRIBUTES, attributes
from ldm_edu.errors import DataError


def table(count, seed=0):
    bits = np.random.default_rng(seed).random((count, 40)) < 0.5
    return bits, {name: bits[:, k].tolist() for k, name in enumerate(ATTRIBUTES)}


def write_torchvision(root, pictures, bits, parts):
    from PIL import Image

    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(root / "img_align_celeba" / name)
    rows = [
        f"{n}  " + "  ".join("1" if b else "-1" for b in r)
        for n, r in zip(names, bits, strict=True)
    ]
    text = "\n".join([str(len(names)), " ".join(ATTRIBUTES), *rows])
    (root / "list_attr_celeba.txt").write_text(text + "\n")
    lines = [f"{n} {p}" for n, p in zip(names, parts, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


def test_half_size_faces_are_cropped_and_not_resampled(tmp_path, pixels, png, write_parquet):
    pictures = pixels(3, 89, 109)
    write_parquet(tmp_path / "train-0.parquet", map(png, pictures), "image", **table(3)[1])
    images = data.load("celeba64", "train", tmp_path).images
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.uint8
    expected = pictures[:, 28 : 28 + 64, 12 : 12 + 64]
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


def test_full_size_faces_use_the_usual_box(tmp_path, png, write_parquet):
    picture = np.zeros((218, 178, 3), np.uint8)
    picture[57 : 57 + 128, 25 : 25 + 128] = 200  # the box and nothing else
    write_parquet(tmp_path / "train-0.parquet", [png(picture)], "image", **table(1)[1])
    assert (data.load("celeba64", "train", tmp_path).images == 200).all()


def test_shrinking_is_antialiased(tmp_path, png, write_parquet):
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 200  # one pixel wide: without a filter all 0 or all 200
    write_parquet(tmp_path / "train-0.parquet", [png(stripes)], "image", **table(1)[1])
    image = data.load("celeba64", "train", tmp_path).images[0, :, 4:-4, 4:-4].float()
    assert (image - 100).abs().max() < 12


@pytest.mark.parametrize("size", [(64, 64), (178, 178), (88, 108), (32, 32)])
def test_images_that_are_not_aligned_faces(tmp_path, pixels, png, write_parquet, size):
    pictures = [png(pixels(1, *size)[0])]
    write_parquet(tmp_path / "train-0.parquet", pictures, "image", **table(1)[1])
    with pytest.raises(
        DataError, match=rf"^[^:]* row 0: the image is {size[0]}x{size[1]}, .*178x218"
    ):
        data.load("celeba64", "train", tmp_path)


def test_labels_hold_the_forty_attributes(tmp_path, pixels, png, write_parquet):
    bits, columns = table(20)
    columns = dict(reversed(columns.items())) | {"celeb_id": list(range(20))}  # order is free
    write_parquet(
        tmp_path / "train-0.parquet", map(png, pixels(20, 89, 109)), "image", **columns
    )
    loaded = data.load("celeba64", "train", tmp_path)
    assert loaded.labels.dtype == torch.int64
    assert np.array_equal(attributes(loaded.labels).numpy(), bits)
    for index, row in enumerate(bits):
        present = {name for name, bit in zip(ATTRIBUTES, row, strict=True) if bit}
        assert loaded.captions[index] == face_caption(present, index)


def test_attributes_unpack_single_bits():
    labels = torch.tensor([0, 1, 1 << 39, (1 << 40) - 1])
    unpacked = attributes(labels)
    assert unpacked.dtype == torch.bool and unpacked.shape == (4, 40)
    assert unpacked.sum(1).tolist() == [0, 1, 1, 40]
    assert unpacked[1, ATTRIBUTES.index("5_o_Clock_Shadow")]
    assert unpacked[2, ATTRIBUTES.index("Young")]


def test_the_test_split_falls_back_to_validation(tmp_path, pixels, png, write_parquet):
    faces = [png(p) for p in pixels(2, 89, 109)]
    for name, count in (("train", 2), ("valid", 1)):
        write_parquet(tmp_path / f"{name}-0.parquet", faces[:count], "image", **table(count)[1])
    assert len(data.load("celeba64", "test", tmp_path).images) == 1
    write_parquet(tmp_path / "test-0.parquet", faces, "image", **table(2)[1])
    loaded = data.load("celeba64", "test", tmp_path)
    assert len(loaded.images) == 2 and loaded.split == "test"


def test_missing_and_wrong_attributes(tmp_path, pixels, png, write_parquet):
    faces, columns = [png(p) for p in pixels(2, 89, 109)], table(2)[1]
    del columns["Smiling"]
    write_parquet(tmp_path / "a" / "train-0.parquet", faces, "image", **columns)
    with pytest.raises(DataError, match="no column 'Smiling': found image, 5_o_Clock_Shadow"):
        data.load("celeba64", "train", tmp_path / "a")
    columns["Smiling"] = [True, None]
    write_parquet(tmp_path / "b" / "train-0.parquet", faces, "image", **columns)
    with pytest.raises(DataError, match="Smiling in row 1 is None, expected true or false"):
        data.load("celeba64", "train", tmp_path / "b")


@pytest.mark.parametrize("name", ["celeba", "celeba64"])
def test_both_layouts_give_the_same(tmp_path, pixels, png, write_parquet, name):
    pictures, (bits, columns) = pixels(6, 178, 218), table(6)
    parts = [0, 2, 0, 1, 2, 0]
    write_torchvision(tmp_path / "tv" / name, pictures, bits, parts)
    for split, part in (("train", 0), ("test", 2)):
        rows = [i for i in range(6) if parts[i] == part]
        own = {key: [values[i] for i in rows] for key, values in columns.items()}
        path = tmp_path / "pq" / name / f"{split}-0.parquet"
        write_parquet(path, [png(pictures[i]) for i in rows], "image", **own)
        a, b = (data.load("celeba64", split, tmp_path / kind) for kind in ("tv", "pq"))
        assert len(a.images) == len(rows) and a.captions == b.captions
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def spoil(root, what):
    partition, attribute = root / "list_eval_partition.txt", root / "list_attr_celeba.txt"
    if what == "no partition":
        partition.unlink()
    elif what == "bad partition":
        partition.write_text("000001.png\n")
    elif what == "no rows":
        partition.write_text("000001.png 1\n")
    elif what == "bad sign":
        attribute.write_text(attribute.read_text().replace("-1", "7", 1))
    elif what == "no columns":
        attribute.write_text("2\n")
    elif what == "no image":
        (root / "img_align_celeba" / "000001.png").unlink()
    elif what == "bad image":
        (root / "img_align_celeba" / "000001.png").write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no partition", "list_eval_partition.txt cannot be read"),
        ("bad partition", "list_eval_partition.txt line 1 has 1 words, expected 2"),
        ("no rows", "gives no image to split 'train'"),
        ("bad sign", "list_attr_celeba.txt line 3 is not a file name and 40 times"),
        ("no columns", "list_attr_celeba.txt has no column .* found no columns"),
        ("no image", "000001.png: unreadable image"),
        ("bad image", "000001.png: unreadable image"),
    ],
)
def test_a_broken_torchvision_folder(tmp_path, pixels, what, message):
    write_torchvision(tmp_path / "celeba", pixels(2, 89, 109), table(2)[0], [0, 0])
    spoil(tmp_path / "celeba", what)
    with pytest.raises(DataError, match=message) as caught:
        data.load("celeba64", "train", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_real_faces(real):
    loaded = data.load("celeba64", "test", real)
    assert loaded.images.shape[1:] == (3, 64, 64) and len(loaded.captions) == len(loaded.labels)
    male = attributes(loaded.labels)[:, ATTRIBUTES.index("Male")]
    assert male.tolist() == [" man" in text for text in loaded.captions]
    # aligned faces: the mean face is nearly its own mirror image
    mean = loaded.images.float().mean((0, 1))
    assert (mean - mean.flip(1)).abs().mean() < 8
