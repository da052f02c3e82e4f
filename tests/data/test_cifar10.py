"""CIFAR-10 from parquet and from torchvision's own files."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from ldm_edu import data
from ldm_edu.data.cifar10 import CLASSES
from ldm_edu.errors import DataError


def write_batches(root, pixels, monkeypatch):
    """A small copy of torchvision's layout, and its md5 sums in place of the official ones."""
    from torchvision.datasets import CIFAR10

    def write(name, content):
        file = root / "cifar-10-batches-py" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(content))
        return hashlib.md5(file.read_bytes()).hexdigest()

    def batch(count, seed):
        flat = pixels(count, 32, 32, seed).transpose(0, 3, 1, 2).reshape(count, -1)
        return {"data": flat, "labels": [(i + seed) % 10 for i in range(count)]}

    train = [[name, write(name, batch(4, i))] for i, name in enumerate(["one", "two"])]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["last", write("last", batch(3, 9))]])
    meta = {"filename": "meta", "key": "label_names", "md5": write("meta", {"label_names": []})}
    monkeypatch.setattr(CIFAR10, "meta", meta)


def test_torchvision_layout(tmp_path, pixels, monkeypatch):
    write_batches(tmp_path, pixels, monkeypatch)
    train, test = (
        data.load("cifar10", "train", tmp_path),
        data.load("cifar10", "test", tmp_path),
    )
    expected = np.concatenate([pixels(4, 32, 32, 0), pixels(4, 32, 32, 1)])
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), expected)
    assert train.labels.tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
    assert test.labels.tolist() == [9, 0, 1] and test.images.shape == (3, 3, 32, 32)
    assert train.images.is_contiguous()
    assert train.captions[0] == "a photo of an airplane"


def test_torchvision_files_with_another_md5_are_not_opened(tmp_path, pixels, monkeypatch):
    write_batches(tmp_path, pixels, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "one"
    file.write_bytes(file.read_bytes() + b"x")
    monkeypatch.setattr(pickle, "load", None)  # calling it would fail
    with pytest.raises(DataError, match="incomplete or damaged"):
        data.load("cifar10", "train", tmp_path)


def test_labels_name_the_class(tmp_path, pixels, png, write_parquet):
    pictures = [png(p) for p in pixels(10, 32, 32)]
    write_parquet(tmp_path / "train-0.parquet", pictures, label=list(range(10)))
    loaded = data.load("cifar10", "train", tmp_path)
    assert [text.split()[-1] for text in loaded.captions] == list(CLASSES)
    assert loaded.labels.dtype == torch.int64 and loaded.images.dtype == torch.uint8
    assert (loaded.name, loaded.split) == ("cifar10", "train")


def test_gray_images_become_rgb(tmp_path, pixels, png, write_parquet):
    gray = pixels(1, 32, 32)[0, :, :, 0]
    write_parquet(tmp_path / "train-0.parquet", [png(gray)], label=[3])
    (image,) = data.load("cifar10", "train", tmp_path).images
    assert all(np.array_equal(channel.numpy(), gray) for channel in image)


@pytest.mark.parametrize("size", [(31, 32), (64, 64)])
def test_wrong_size(tmp_path, pixels, png, write_parquet, size):
    pictures = [png(pixels(1, 32, 32)[0]), png(pixels(1, *size)[0])]
    write_parquet(tmp_path / "train-0.parquet", pictures, label=[0, 1])
    with pytest.raises(
        DataError, match=rf"^[^:]* row 1: the image is {size[0]}x{size[1]}, expected 32x32"
    ):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("label", [10, -1, None])
def test_wrong_label(tmp_path, pixels, png, write_parquet, label):
    pictures = [png(p) for p in pixels(2, 32, 32)]
    write_parquet(tmp_path / "train-0.parquet", pictures, label=[0, label])
    with pytest.raises(DataError, match=f"label in row 1 is {label}, expected 0 to 9"):
        data.load("cifar10", "train", tmp_path)


def test_the_real_test_split(real):
    loaded = data.load("cifar10", "test", real)
    assert loaded.images.shape[1:] == (3, 32, 32)
    assert loaded.labels.bincount(minlength=10).min() > 0.08 * len(loaded.labels)
    # the mean color of CIFAR-10, published many times over
    mean = loaded.images.double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.491, 0.482, 0.447]).double(), atol=0.015)
