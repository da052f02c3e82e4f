"""Samples by number, reconstructions by size, and time by the clock."""

import math

import pytest
import torch
from helpers import captioned_pipeline

from ldm_edu import (
    measures,
)
from ldm_edu.images import to_uint8
from ldm_edu.measures import closeness, likeness, reconstruct, sample_many, sampling_time
from ldm_edu.metrics import frechet_distance, kernel_distance, precision_recall


@pytest.fixture(scope="module")
def pipe():
    return captioned_pipeline(["red", "blue"], words_std=1.0)


@pytest.mark.parametrize("sampler", ["dpm++", "ddpm"])
def test_image_i_depends_on_seed_and_i_only(pipe, monkeypatch, sampler):
    monkeypatch.setattr(measures, "_BATCH", 3)
    options = {"steps": 2, "sampler": sampler}
    many = sample_many(pipe, 8, seed=4, **options)
    assert many.shape == (8, 3, 32, 32) and many.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in many}) == 8
    assert torch.equal(sample_many(pipe, 4, seed=4, **options), many[:4])
    assert torch.equal(to_uint8(pipe.sample(3, seed=4, **options)), many[:3])
    other = sample_many(pipe, 8, seed=5, **options)
    assert not any(torch.equal(a, b) for a in many for b in other)


def test_each_image_has_its_own_prompt(pipe, monkeypatch):
    monkeypatch.setattr(measures, "_BATCH", 3)
    options = {"steps": 2, "guidance": 5.0}
    red, blue = (
        sample_many(pipe, 5, prompts=[word] * 5, **options) for word in ("red", "blue")
    )
    mixed = sample_many(pipe, 5, prompts=["red", "blue", "blue", "red", "blue"], **options)
    assert not torch.equal(red, blue)
    expected = torch.stack([red[0], blue[1], blue[2], red[3], blue[4]])
    assert (mixed.int() - expected.int()).abs().max() <= 1  # in a batch of other prompts


def test_reconstructions_are_those_of_the_pipeline_in_order(pipe, monkeypatch):
    monkeypatch.setattr(measures, "_BATCH", 3)
    images = torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8)
    direct = to_uint8(pipe.decode(pipe.encode(images.float() / 127.5 - 1)))
    assert (reconstruct(pipe, images).int() - direct.int()).abs().max() <= 1


def test_closeness_is_the_mean_of_what_each_image_has():
    images = torch.full((300, 3, 16, 16), 100, dtype=torch.uint8)
    restored = images.clone()
    restored[:150] += 1
    restored[150:] += 10
    found = closeness(images, restored)
    one, ten = 20 * math.log10(255), 20 * math.log10(25.5)
    assert found.psnr == pytest.approx((one + ten) / 2)
    assert found.psnr_spread == pytest.approx((one - ten) / 2)
    assert found.count == 300 and 0.9 < found.ssim < 1


def test_likeness_holds_every_measure_with_the_real_ones_first():
    real, other = torch.randn(30, 4), 0.3 * torch.randn(30, 4)
    found = likeness(real, other)
    assert found.frechet == frechet_distance(real, other)
    assert found[1:3] == kernel_distance(real, other, size=15)
    assert found.kernel_spread > 0
    assert found[3:] == precision_recall(real, other)
    assert found.precision > found.recall


def test_sampling_time_is_the_median_without_the_first(monkeypatch):
    asked = []
    slow = type("Slow", (), {"sample": lambda self, n, steps: asked.append((n, steps))})()
    clock = iter([0, 100, 100, 101, 101, 106, 106, 108])  # took 100, 1, 5, 2
    monkeypatch.setattr(measures.time, "perf_counter", lambda: next(clock))
    assert sampling_time(slow) == 2
    assert asked == [(16, 20)] * 4
