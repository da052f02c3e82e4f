"""Models by name: those that ship, in the repository or in a wheel, and folders."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import small_pipeline

import ldm_edu
from ldm_edu import pretrained
from ldm_edu.errors import CheckpointError, InputError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(p for p in (ROOT / "data" / "weights").glob("*") if p.name in pretrained.NAMES)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The library's folder in a repository of its own, with no weights yet."""
    folder = tmp_path / "repository" / "ldm_edu"
    folder.mkdir(parents=True)
    monkeypatch.setattr(pretrained, "_PACKAGE", folder)
    return folder


def same(a, b):
    return torch.equal(a.sample(1, steps=2), b.sample(1, steps=2))


def test_a_shipped_model_by_its_name(package):
    saved = small_pipeline()
    saved.save(package.parent / "data" / "weights" / "shapes")
    loaded = ldm_edu.load_pretrained("shapes", device="cpu")
    assert same(loaded, saved) and loaded.device.type == "cpu"


def test_an_installed_package_has_its_weights_within(package):
    small_pipeline(0).save(package.parent / "data" / "weights" / "shapes")
    inside = small_pipeline(1)
    inside.save(package / "weights" / "shapes")
    assert same(ldm_edu.load_pretrained("shapes", "cpu"), inside)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder(tmp_path, package, kind):
    saved = small_pipeline()
    saved.save(tmp_path / "mine", half=True)
    loaded = ldm_edu.load_pretrained(kind(tmp_path / "mine"), "cpu")
    assert {p.dtype for p in loaded.unet.parameters()} == {torch.float32}


def test_a_shipped_name_comes_before_a_folder_of_that_name(tmp_path, package, monkeypatch):
    shipped, mine = small_pipeline(0), small_pipeline(1)
    shipped.save(package.parent / "data" / "weights" / "shapes")
    mine.save(tmp_path / "shapes")
    monkeypatch.chdir(tmp_path)
    assert same(ldm_edu.load_pretrained("shapes", "cpu"), shipped)
    assert same(ldm_edu.load_pretrained("./shapes", "cpu"), mine)


@pytest.mark.parametrize("name", ["celeba64", "judges", "none", "runs/none/model"])
def test_a_model_that_is_not_there_names_those_that_are(package, name, monkeypatch):
    weights = package.parent / "data" / "weights"
    for shipped in ("shapes", "cifar10", "judges"):
        small_pipeline().save(weights / shipped)
    monkeypatch.chdir(package)
    with pytest.raises(CheckpointError, match=f"no checkpoint at .*{name}") as error:
        ldm_edu.load_pretrained(name)
    assert "ship with this copy of ldm_edu: shapes, cifar10;" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_copy_without_weights(package):
    with pytest.raises(CheckpointError, match=r"ship with this copy of ldm_edu: none; others"):
        ldm_edu.load_pretrained("shapes")


@pytest.mark.parametrize("name", [None, 3, b"shapes"])
def test_what_is_no_name(name):
    with pytest.raises(InputError, match=re.escape(f"a name or a folder, found {name!r}")):
        ldm_edu.load_pretrained(name)


def test_a_device_that_is_not_there(package):
    small_pipeline().save(package.parent / "data" / "weights" / "shapes")
    with pytest.raises(InputError, match="'abacus' is not available"):
        ldm_edu.load_pretrained("shapes", "abacus")


# ---- what ships


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_loads_and_samples_and_has_a_card(folder):
    pipe = ldm_edu.load_pretrained(folder.name, "cpu")
    x = pipe.sample(2, steps=2)
    assert x.shape == (2, 3, pipe.image_size, pipe.image_size) and x.isfinite().all()
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float32}
    assert size(folder) <= 15e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "ldm-edu train" in card and len(card) > 1000


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_all_that_ships_is_small():
    assert size(ROOT / "data" / "weights") <= 45e6


# ---- a wheel


BUILD = "from setuptools import build_meta as b; b.build_sdist('out'); b.build_wheel('out')"
USE = """
import ldm_edu, pathlib
print(pathlib.Path(ldm_edu.__file__).parent.name, tuple(ldm_edu.load_pretrained("shapes", "cpu")
      .sample(2, steps=2).shape))
"""


def run(code, folder, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_built_from_an_sdist_carries_the_weights(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    repository = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ldm_edu", repository / "ldm_edu", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, repository / name)
    small_pipeline().save(repository / "data" / "weights" / "shapes", half=True)
    (repository / "data" / "weights" / "shapes" / "README.md").write_text("A card.")
    small_pipeline().save(repository / "data" / "weights" / "judges" / "celeba64")
    run(BUILD, repository)
    (sdist,) = (repository / "out").glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    run(BUILD, source)
    (wheel,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    files = {"MANIFEST.json", "config.json", "unet.safetensors", "autoencoder.safetensors"}
    for folder in ("shapes", "judges/celeba64"):
        assert {f"ldm_edu/weights/{folder}/{name}" for name in files} <= names
    assert "ldm_edu/weights/shapes/README.md" in names
    assert not any(name.startswith(("data/", "tests/")) for name in names)
    found = run(USE, tmp_path / "site", PYTHONPATH=str(tmp_path / "site"))
    assert found.split() == ["ldm_edu", "(2,", "3,", "16,", "16)"]
