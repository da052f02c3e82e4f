"""Tests of the data sets use their own cache and see none of the machine's data or network."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LDM_EDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("LDM_EDU_DATA", raising=False)


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip("the folder ../shared/data with CIFAR-10 and CelebA is missing")
    return REAL


@pytest.fixture
def pixels():
    """Random pictures (N, height, width, 3), the same for the same arguments."""

    def make(count, width, height, seed=0):
        shape = (count, height, width, 3)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    return make


@pytest.fixture
def png():
    def encode(picture):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def write_parquet():
    """Writes columns to a parquet file; encoded pictures become the hub's struct."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(path, pictures=None, column="img", **columns):
        if pictures is not None:
            cells = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pictures)]
            columns = {column: cells, **columns}
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    return write
