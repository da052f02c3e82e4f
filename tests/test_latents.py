"""Latents of a data set: what is stored, flipped, measured and rescaled."""

import re

import pytest
import torch
from torch import nn

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.errors import InputError
from ldm_edu.latents import LatentSet, encode_dataset, image_batch, measure_scale, rescale


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = AutoencoderConfig(latent_channels=3, channels=(4, 8), blocks=1, groups=4)
    model = Autoencoder(config).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


def data(n=7, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def latents(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.5, 1.0, 4.0])[:, None, None]
    mean = torch.randn(n, 3, 4, 4, generator=generator) * spread + spread
    return LatentSet(mean, torch.rand(n, 3, 4, 4, generator=generator) * spread)


def close(found, expected, **tolerance):
    torch.testing.assert_close(found, expected, **({"rtol": 1e-5, "atol": 1e-5} | tolerance))


# ---- bytes to floats


def test_bytes_become_minus_1_to_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    batch = image_batch(images, torch.tensor([2, 0, 1]))
    assert batch.dtype == torch.float32
    assert batch.flatten().tolist() == pytest.approx([1.0, -1.0, -0.6])


def test_an_index_past_the_end_is_the_mirror_image():
    images = data(4)
    index = torch.tensor([3, 4, 7, 0])
    batch = image_batch(images, index)
    plain = image_batch(images, torch.arange(4))
    assert torch.equal(batch[0], plain[3]) and torch.equal(batch[3], plain[0])
    for row, i in ((1, 0), (2, 3)):
        for column in range(8):
            assert torch.equal(batch[row, :, :, column], plain[i, :, :, 7 - column])
    assert images.dtype == torch.uint8 and torch.equal(images, data(4))  # left as it was


# ---- encoding


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("flip", [False, True])
def test_the_set_holds_each_images_posterior_then_each_mirrors(model, flip, batch_size):
    images = data()
    items = list(encode_dataset(model, images, flip, batch_size))
    done, found = [count for count, _ in items], items[-1][1]
    total = 14 if flip else 7
    assert done == [*range(batch_size, total, batch_size), total]
    x = images / 127.5 - 1
    x = torch.cat([x, x.flip(-1)]) if flip else x
    with torch.no_grad():
        expected = model.encode(x)
    close(found.mean, expected.mean)
    close(found.std, expected.std)
    assert found.mean.dtype == found.std.dtype == torch.float32
    assert not found.mean.requires_grad


def test_what_was_stored_can_be_trained_on(model):
    """Tensors made in inference mode could not be saved for a backward pass."""
    *_, (_, found) = encode_dataset(model, data())
    weight = torch.ones(1, requires_grad=True)
    (found.sample(torch.tensor([1]), torch.zeros(1, 3, 4, 4)) * weight).sum().backward()
    assert weight.grad is not None


def test_sample_is_mean_plus_std_eps():
    found, eps = latents(), torch.randn(3, 3, 4, 4)
    z = found.sample(torch.tensor([5, 0, 0]), eps)
    for row, i in enumerate((5, 0, 0)):
        assert torch.equal(z[row], found.mean[i] + found.std[i] * eps[row])


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)],
    ids=["float", "three axes"],
)
def test_only_bytes_are_encoded(model, images):
    found = re.escape(f"found {images.dtype} {tuple(images.shape)}")
    with pytest.raises(InputError, match=found):
        next(encode_dataset(model, images))


def test_images_that_do_not_divide_by_the_factor_are_refused(model):
    with pytest.raises(InputError, match=r"\(1, 3, 7, 8\)"):
        next(encode_dataset(model, data()[:1, :, :7]))


# ---- scale


def test_scale_a_channel_is_the_spread_of_samples():
    """Law of total variance: var z = var of the means + mean of the variances."""
    found = latents()
    mean, std = measure_scale(found)
    flat = found.mean.double().transpose(0, 1).flatten(1)
    variance = flat.var(1, unbiased=False)
    variance = variance + found.std.double().square().mean((0, 2, 3))
    close(mean, flat.mean(1).float())
    close(std, variance.sqrt().float())


def test_one_scale_for_all_is_the_spread_of_everything():
    found = latents()
    mean, std = measure_scale(found, per_channel=False)
    variance = found.mean.double().var(unbiased=False) + found.std.double().square().mean()
    assert mean.tolist() == [0, 0, 0] and mean.dtype == std.dtype == torch.float32
    close(std, variance.sqrt().float().expand(3))


def test_scale_agrees_with_drawn_samples():
    found = latents()
    eps = torch.randn(3000, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    z = found.sample(torch.arange(6).repeat(500), eps)
    mean, std = measure_scale(found)
    close(z.mean((0, 2, 3)), mean, rtol=0.02, atol=0.02)
    close(z.std((0, 2, 3)), std, rtol=0.02)
    close(z.std().expand(3), measure_scale(found, per_channel=False)[1], rtol=0.02)


@pytest.mark.parametrize("per_channel", [True, False])
def test_rescaling_equals_encoding_again_with_the_scale_set(model, per_channel):
    *_, (_, before) = encode_dataset(model, data())
    scale = measure_scale(before, per_channel)
    again = Autoencoder(model.config).eval()
    again.load_state_dict(model.state_dict())
    again.set_latent_scale(*scale)
    *_, (_, expected) = encode_dataset(again, data())
    found = rescale(before, *scale)
    close(found.mean, expected.mean)
    close(found.std, expected.std)
    mean, std = measure_scale(LatentSet(found.mean, found.std), per_channel)
    close(std, torch.ones(3))
    if per_channel:
        close(mean, torch.zeros(3))


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_cell_that_sets_the_scale_may_run_twice(model, per_channel):
    again = Autoencoder(model.config).eval()
    again.load_state_dict(model.state_dict())
    runs = []
    for _ in range(2):
        *_, (_, found) = encode_dataset(again, data())
        again.set_latent_scale(*measure_scale(found, per_channel))
        for _ in range(2):
            found = rescale(found, *measure_scale(found, per_channel))
        runs.append((again.latent_scale.clone(), again.latent_shift.clone(), *found))
    close(runs[0], runs[1])
    assert (runs[0][0] - 1).abs().max() > 0.1


@pytest.mark.parametrize("value", [0.0, 0.3, 0.7, 1.1, 3.3, -100.1])
def test_a_channel_that_never_changes_has_no_spread(value):
    """The difference of two squares would be negative for some of these."""
    found = latents()
    found.mean[:, 1], found.std[:, 1] = value, 0
    mean, std = measure_scale(found)
    assert mean[1] == torch.tensor(value) and std[1] == 0
    assert std[0] > 0 and std[2] > 0


def test_a_small_spread_far_from_0_is_measured():
    found = latents()
    far = LatentSet(found.mean + 4096, found.std)  # 2^12: the means keep 11 bits of 23
    near = LatentSet(far.mean - 4096, found.std)
    for per_channel in (True, False):
        torch.testing.assert_close(
            measure_scale(far, per_channel)[1], measure_scale(near, per_channel)[1]
        )
