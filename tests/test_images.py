"""Closed forms for ldm_edu.images."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ldm_edu.errors import InputError, StorageError
from ldm_edu.images import (
    channel_images,
    encode_png,
    encode_webp,
    from_uint8,
    image_grid,
    latent_to_rgb,
    save_png,
    to_uint8,
    write_atomic,
)


def decoded(content: bytes) -> torch.Tensor:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_every_level_survives_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = from_uint8(levels)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), levels)


def test_values_outside_the_range_are_clamped():
    x = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(x)[0, 0, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 4, 4, 4),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.zeros(0, 3, 4, 4),
        torch.full((1, 3, 4, 4), float("nan")),
        [[0.0]],
    ],
)
def test_to_uint8_refuses_what_is_no_batch_of_images(x):
    with pytest.raises(InputError):
        to_uint8(x)


def test_grid_puts_image_k_in_row_and_column():
    images = noise(5, 3, 4, 6)
    grid = image_grid(images, columns=3, pad=2, scale=2, fill=9)
    assert grid.shape == (3, 2 * 8 + 2, 3 * 12 + 2 * 2)
    seen = torch.zeros(grid.shape[1:], dtype=torch.bool)
    for k in range(5):
        top, left = (k // 3) * 10, (k % 3) * 14
        assert torch.equal(grid[:, top : top + 8 : 2, left : left + 12 : 2], images[k])
        assert torch.equal(grid[:, top + 1 : top + 8 : 2, left + 1 : left + 12 : 2], images[k])
        seen[top : top + 8, left : left + 12] = True
    assert (grid[:, ~seen] == 9).all()


def test_grid_is_no_wider_than_its_images():
    assert image_grid(noise(2, 3, 4, 4), columns=8).shape == (3, 4, 10)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"pad": -1}, {"scale": 0}, {"fill": 256}])
def test_grid_refuses_numbers_out_of_range(wrong):
    with pytest.raises(InputError):
        image_grid(noise(2, 3, 4, 4), **{"columns": 2, **wrong})


def test_lossless_files_give_the_pixels_back():
    image = noise(3, 7, 11)
    assert torch.equal(decoded(encode_png(image)), image)
    assert torch.equal(decoded(encode_webp(image, lossless=True)), image)


def test_webp_refuses_sides_beyond_its_limit():
    with pytest.raises(InputError, match="16383"):
        encode_webp(torch.zeros(3, 1, 16384, dtype=torch.uint8))


def test_save_png_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "samples.png"
    path.write_text("old")
    image = noise(3, 5, 5)
    save_png(path, image)
    assert torch.equal(decoded(path.read_bytes()), image)
    assert os.listdir(tmp_path) == ["samples.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="no_such"):
        save_png(tmp_path / "no_such" / "a.png", noise(3, 4, 4))


def test_rgb_orders_channels_by_variance_with_positive_sign():
    z = torch.randn(4, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z *= torch.tensor([1.0, 50.0, 0.1, 10.0], dtype=torch.float64).view(1, 4, 1, 1)
    rgb = latent_to_rgb(z).double()
    for colour, channel in enumerate([1, 3, 0]):
        pair = torch.stack([rgb[:, colour].flatten(), z[:, channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.95


def test_rgb_fills_the_range_from_the_1st_to_the_99th_percentile():
    z = torch.arange(101.0).view(1, 1, 1, 101)
    red = latent_to_rgb(z)[0, 0, 0]
    assert red[:2].tolist() == [0, 0]
    assert red[50] in (127, 128)
    assert red[99:].tolist() == [255, 255]


def test_rgb_of_few_or_flat_channels_is_grey_where_nothing_varies():
    z = torch.zeros(2, 4, 3, 3)
    assert (latent_to_rgb(z) == 128).all()
    z[:, 2] = torch.arange(9.0).view(3, 3)
    rgb = latent_to_rgb(z)
    assert rgb[:, 0].unique().numel() > 3
    assert (rgb[:, 1:] == 128).all()


def test_channels_share_one_scale():
    z = torch.zeros(1, 2, 10, 10)
    z[0, 0] = torch.linspace(-100, 100, 100).view(10, 10)
    z[0, 1] = torch.linspace(-1, 1, 100).view(10, 10)
    grey = channel_images(z)
    assert grey.shape == z.shape
    assert grey[0, 0].max() == 255
    assert int(grey[0, 1].max()) - int(grey[0, 1].min()) <= 4


@pytest.mark.parametrize("show", [latent_to_rgb, channel_images])
def test_latents_must_be_finite(show):
    with pytest.raises(InputError, match="finite"):
        show(torch.full((1, 4, 2, 2), float("inf")))
