"""Finding, decoding, caching and downloading, and what is said when that fails."""

import os
import socket
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from ldm_edu import data
from ldm_edu.data import cache, cifar10, hub
from ldm_edu.errors import DataError, InputError, LdmEduError


@pytest.fixture
def folder(tmp_path, pixels, png, write_parquet):
    """A folder of data sets with a small CIFAR-10 in it."""
    for split, count, seed in (("train", 7, 0), ("test", 3, 1)):
        pictures = [png(p) for p in pixels(count, 32, 32, seed)]
        path = tmp_path / "sets" / "cifar10" / "plain_text" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, pictures, label=[i % 10 for i in range(count)])
    return tmp_path / "sets"


def refuse(match, name="cifar10", split="train", root=None, kind=DataError):
    with pytest.raises(kind, match=match) as caught:
        data.load(name, split, root)
    assert isinstance(caught.value, LdmEduError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a, b):
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


# what to load


def test_importing_data_loads_nothing_heavy():
    code = "import sys, ldm_edu.data; print([m for m in %r if m in sys.modules])"
    heavy = ["datasets", "pyarrow", "PIL", "torchvision", "huggingface_hub"]
    run = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "near"), [("cifar", "cifar10"), ("CelebA", "celeba64"), ("shape", "shapes")]
)
def test_unknown_name_suggests_the_nearest(name, near):
    text = refuse("unknown data set", name)
    assert f"did you mean '{near}'?" in text and "shapes, cifar10, celeba64" in text


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_unknown_name_without_a_near_one(name):
    assert "did you mean" not in refuse("expected one of: shapes, cifar10, celeba64", name)


def test_unknown_split():
    refuse("unknown split 'val', expected one of: train, test", split="val", kind=InputError)


def test_shapes_need_no_root(tmp_path):
    refuse("leave it out", "shapes", root=tmp_path, kind=InputError)


# folders


def test_every_place_of_a_folder_gives_the_same(folder, monkeypatch, pixels):
    direct = data.load("cifar10", "train", folder / "cifar10")
    assert np.array_equal(direct.images.permute(0, 2, 3, 1).numpy(), pixels(7, 32, 32, 0))
    assert same(direct, data.load("cifar10", "train", str(folder)))
    assert same(direct, data.load("cifar10", root=folder / "cifar10" / "plain_text"))
    monkeypatch.setenv("LDM_EDU_DATA", str(folder))
    assert same(direct, data.load("cifar10"))


def test_root_goes_before_the_environment(folder, monkeypatch):
    monkeypatch.setenv("LDM_EDU_DATA", "/nowhere/at/all")
    assert len(data.load("cifar10", "test", folder).images) == 3
    refuse("LDM_EDU_DATA '/nowhere/at/all' does not exist")


def test_a_split_may_be_a_folder_or_several_files(tmp_path, pixels, png, write_parquet):
    pictures = [png(p) for p in pixels(5, 32, 32)]
    write_parquet(tmp_path / "train" / "0000.parquet", pictures[:3], label=[0, 1, 2])
    write_parquet(tmp_path / "train" / "0001.parquet", pictures[3:], label=[3, 4])
    write_parquet(tmp_path / "test" / "0000.parquet", pictures[:1], label=[9])
    assert data.load("cifar10", "train", tmp_path).labels.tolist() == [0, 1, 2, 3, 4]
    assert data.load("cifar10", "test", tmp_path).labels.tolist() == [9]


def test_bad_roots(tmp_path, folder):
    refuse("does not exist", root=tmp_path / "none")
    (tmp_path / "file").write_text("x")
    refuse("is a file", root=tmp_path / "file")
    (tmp_path / "empty").mkdir()
    refuse("is empty", root=tmp_path / "empty")
    refuse("expected the path of a folder", root="", kind=InputError)
    refuse("expected the path of a folder", root=3, kind=InputError)


def test_wrong_layout_says_what_is_there_and_what_should_be(tmp_path, folder):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    text = refuse("found notes.txt", root=tmp_path / "other")
    assert "train-*.parquet" in text and "cifar-10-batches-py" in text
    # a folder of data sets that lacks this one: CIFAR-10's files are not taken for CelebA's
    assert "img_align_celeba" in refuse(
        "no celeba64 in root .* found cifar10/", "celeba64", root=folder
    )


def test_missing_split(folder):
    for file in (folder / "cifar10").rglob("test-*.parquet"):
        file.unlink()
    refuse(
        "no split 'test' .* found plain_text/train-00000-of-00001.parquet",
        split="test",
        root=folder,
    )


# parquet


def test_missing_columns_are_listed(tmp_path, pixels, png, write_parquet):
    write_parquet(
        tmp_path / "train-0.parquet", [png(pixels(1, 32, 32)[0])], column="picture", n=[1]
    )
    refuse("no column 'img', 'label': found picture, n", root=tmp_path)


def test_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"not parquet at all")
    refuse("train-0.parquet is not a readable parquet file", root=tmp_path)


@pytest.mark.parametrize("bad", [b"", b"no picture", None], ids=["empty", "text", "null"])
def test_an_unreadable_image_is_named(tmp_path, pixels, png, write_parquet, bad):
    pictures = [png(p) for p in pixels(4, 32, 32)]
    pictures[2] = bad
    write_parquet(tmp_path / "train-0.parquet", pictures, label=[0] * 4)
    refuse("train-0.parquet row 2: unreadable image", root=tmp_path)


def test_a_truncated_image_is_named(tmp_path, pixels, png, write_parquet):
    pictures = [png(p)[:-900] if i == 1 else png(p) for i, p in enumerate(pixels(3, 32, 32))]
    write_parquet(tmp_path / "train-0.parquet", pictures, label=[0] * 3)
    refuse("row 1: unreadable image", root=tmp_path)


def test_more_rows_than_a_batch_stay_in_order(
    tmp_path, pixels, png, write_parquet, monkeypatch
):
    monkeypatch.setattr("ldm_edu.data.decode._BATCH", 4)
    pictures = pixels(11, 32, 32)
    labels = [i % 10 for i in range(11)]
    write_parquet(tmp_path / "train-0.parquet", [png(p) for p in pictures], label=labels)
    loaded = data.load("cifar10", root=tmp_path)
    assert np.array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), pictures)
    assert loaded.labels.tolist() == labels


# the cache


def cached_file():
    (file,) = cache.folder().glob("cifar10-train-*.npz")
    return file


def test_the_second_load_does_not_decode(folder, monkeypatch):
    first = data.load("cifar10", root=folder)
    assert [p.suffix for p in cache.folder().iterdir()] == [".npz"]
    monkeypatch.setattr(cifar10.decode, "decode", None)  # calling it would fail
    second = data.load("cifar10", root=folder)
    assert same(first, second) and first.captions == second.captions


def test_changed_files_are_decoded_again(folder, pixels, png, write_parquet):
    first = data.load("cifar10", root=folder)
    (file,) = (folder / "cifar10").rglob("train-*.parquet")
    write_parquet(file, [png(p) for p in pixels(7, 32, 32, seed=5)], label=[1] * 7)
    os.utime(file, ns=(1, 1))
    assert not same(first, data.load("cifar10", root=folder))


def test_fingerprint_sees_path_size_and_time(tmp_path):
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"1234")
    copy.write_bytes(b"1234")
    for path in (file, copy):
        os.utime(path, ns=(5, 5))
    seen = {
        cache.fingerprint([file]),
        cache.fingerprint([copy]),
        cache.fingerprint([tmp_path / "c"]),
    }
    os.utime(file, ns=(5, 6))
    seen.add(cache.fingerprint([file]))
    file.write_bytes(b"12345")
    os.utime(file, ns=(5, 6))
    seen.add(cache.fingerprint([file]))
    assert len(seen) == 5


WRONG = {  # arrays that cannot be a data set
    "float images": {"images": np.zeros((7, 3, 32, 32), np.float32)},
    "float labels": {"labels": np.zeros(7)},
    "flat images": {"images": np.zeros((7, 3072), np.uint8)},
    "fewer labels": {"labels": np.zeros(6, np.int64)},
}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", *WRONG])
def test_a_damaged_cache_is_rebuilt(folder, damage):
    first = data.load("cifar10", root=folder)
    file = cached_file()
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1  # one bit in the pixels
    changed = {"flip": content, "cut": content[:-200], "empty": b"", "text": b"hello"}
    if damage in WRONG:
        right = {"images": np.zeros((7, 3, 32, 32), np.uint8), "labels": np.zeros(7, np.int64)}
        np.savez(file, **(right | WRONG[damage]))
    else:
        file.write_bytes(changed[damage])
    with pytest.warns(UserWarning, match="damaged or unreadable cache"):
        second = data.load("cifar10", root=folder)
    assert same(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and it is whole again
        assert same(first, data.load("cifar10", root=folder))


def test_an_unwritable_cache_is_only_a_warning(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LDM_EDU_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot write the cache"):
        assert len(data.load("cifar10", root=folder).images) == 7


def test_a_full_disk_is_only_a_warning_and_leaves_nothing(folder, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert len(data.load("cifar10", root=folder).images) == 7
    assert list(cache.folder().iterdir()) == []


# the hub


def hub_set(monkeypatch, datasets, found):
    monkeypatch.setattr(hub, "reachable", lambda: True)

    def load_dataset(name):
        assert name == "uoft-cs/cifar10"
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_from_the_hub_equals_from_its_files(folder, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = {s: str(*(folder / "cifar10").rglob(f"{s}-*.parquet")) for s in ("train", "test")}
    table = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    hub_set(monkeypatch, datasets, table)
    assert same(data.load("cifar10", "test"), data.load("cifar10", "test", folder))
    hub_set(monkeypatch, datasets, RuntimeError("asked again"))
    assert len(data.load("cifar10", "test").images) == 3  # cached: the hub is not asked


def test_without_a_network_the_message_says_what_to_do(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "none")
    start = time.process_time()
    for name, hub_name in (("cifar10", "uoft-cs/cifar10"), ("celeba64", "flwrlabs/celeba")):
        text = refuse("the hub cannot be reached", name)
        assert "--root FOLDER" in text and "LDM_EDU_DATA" in text and hub_name in text
    assert time.process_time() - start < 5


def test_what_datasets_has_downloaded_before_works_offline(folder, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    home = tmp_path / "hf"
    datasets.load_dataset(str(folder / "cifar10"), cache_dir=str(home))
    (kept,) = (home / "cifar10").iterdir()  # as it would lie there after a download
    kept.rename(kept.with_name("default"))
    (home / "cifar10").rename(home / "uoft-cs___cifar10")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    load_dataset, offline = datasets.load_dataset, []

    def spy(name):
        offline.append(datasets.config.HF_HUB_OFFLINE)
        return load_dataset(name)

    monkeypatch.setattr(datasets, "load_dataset", spy)
    assert same(data.load("cifar10", "test"), data.load("cifar10", "test", folder))
    assert offline == [True] and datasets.config.HF_HUB_OFFLINE is False


def test_errors_of_datasets_become_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")
    hub_set(monkeypatch, datasets, RuntimeError("first line\nsecond line " + "x" * 500))
    assert len(refuse(r"first line second line x+\.\.\.")) < 500


def test_a_hub_without_the_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    hub_set(monkeypatch, datasets, {"validation": None})
    refuse("has no split 'test': found validation, expected test", split="test")


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_switches_are_honored(name, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub.socket, "create_connection", lambda *_: socket.socket())
    assert hub.reachable()
    monkeypatch.setenv(name, "1")
    assert not hub.reachable()


def test_reachable_asks_the_endpoint(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert hub.reachable()
    assert not hub.reachable()  # nobody listens now
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert hub.reachable()


def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "TIMEOUT", 0.1)
    answer = threading.Event()

    def never(*_):
        answer.wait(60)
        raise OSError("no answer")

    monkeypatch.setattr(hub.socket, "create_connection", never)
    assert not hub.reachable()
    assert not answer.is_set()  # it returned while the thread still waits
    answer.set()
