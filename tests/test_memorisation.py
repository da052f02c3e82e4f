"""Loss gaps and copies where they are known."""

import pytest
import torch
from helpers import filled

from ldm_edu import (
    Autoencoder,
    AutoencoderConfig,
    LatentDiffusion,
    NoiseSchedule,
    TextEncoder,
    TextEncoderConfig,
    UNet,
    UNetConfig,
    WordTokenizer,
    memorisation,
)
from ldm_edu.data import ImageDataset
from ldm_edu.memorisation import (
    Copies,
    Pair,
    copies,
    denoising_loss,
    loss_gap,
    noise_levels,
    side_by_side,
)
from ldm_edu.seeds import noise_of


def model(parameterisation):
    """A pipeline whose denoiser always says zero."""
    sizes = AutoencoderConfig(
        latent_channels=4, channels=(8, 8), blocks=1, patch=2, groups=4, linear=True
    )
    unet = UNet(UNetConfig(4, 4, channels=(8, 8), blocks=1, groups=4)).eval()
    for p in unet.parameters():
        p.data.zero_()
    return LatentDiffusion(filled(Autoencoder(sizes)), unet, NoiseSchedule(), parameterisation)


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 32, 32), generator=generator).byte()
    return ImageDataset("shapes", f"seed {seed}", images, [""] * n, torch.zeros(n).long())


def test_levels_are_the_middles_of_equal_parts():
    assert noise_levels(model("v"), 4) == [125, 375, 625, 875]
    assert noise_levels(model("v")) == list(range(50, 1000, 100))


def test_loss_of_a_model_that_says_zero_is_the_size_of_its_target():
    data, levels = pictures(3), [10, 500, 990]
    eps = noise_of(3, 7, (4, 8, 8))
    found = denoising_loss(model("eps"), data, levels, seed=7)
    assert found.shape == (3, 3)
    torch.testing.assert_close(found, eps.square().mean((1, 2, 3)).expand(3, 3))

    pipe = model("v")
    z0 = pipe.encode(data.images.float() / 127.5 - 1)
    ab = pipe.schedule.alpha_bar[levels].float().view(3, 1, 1, 1, 1)
    v = ab.sqrt() * eps - (1 - ab).sqrt() * z0
    found = denoising_loss(pipe, data, levels, seed=7)
    torch.testing.assert_close(found, v.square().mean((2, 3, 4)))


def test_each_picture_has_its_own_caption_and_noise_in_any_batch(monkeypatch):
    words = WordTokenizer.of_captions(["red", "blue"])
    text = TextEncoder(TextEncoderConfig(words.vocabulary, words.length, 8))
    unet = UNetConfig(4, 4, channels=(8, 8), blocks=1, heads=2, groups=4, context_dim=8)
    parts = model("v").autoencoder, filled(UNet(unet)), NoiseSchedule(), "v", 32
    pipe = LatentDiffusion(*parts, words, filled(text, std=1.0))
    data = pictures(4)._replace(captions=["red", "blue", "blue", "red"])
    whole = denoising_loss(pipe, data, [500, 900])
    monkeypatch.setattr(memorisation, "_BATCH", 2)
    torch.testing.assert_close(denoising_loss(pipe, data, [500, 900]), whole)
    other = denoising_loss(pipe, data._replace(captions=["red"] * 4), [500, 900])
    assert torch.equal((other - whole).abs().amax(0) > 1e-4, torch.tensor([0, 1, 1, 0]).bool())


def test_gap_is_of_as_many_pictures_and_has_the_error_of_paired_differences():
    pipe, seen, unseen = model("v"), pictures(9), pictures(5, seed=1)
    found = loss_gap(pipe, seen, unseen)
    assert found.count == 5 and found.t == noise_levels(pipe)
    ours = denoising_loss(pipe, seen._replace(images=seen.images[:5]), found.t)
    theirs = denoising_loss(pipe, unseen, found.t)
    assert found.seen == pytest.approx(ours.mean(1).tolist())
    assert found.unseen == pytest.approx(theirs.mean(1).tolist())
    variance = (theirs - ours - (theirs - ours).mean(1, keepdim=True)).square().mean(1)
    assert found.error == pytest.approx((variance / 5).sqrt().tolist())
    assert loss_gap(pipe, seen, unseen, most=2).count == 2
    assert loss_gap(pipe, seen, seen).error == [0] * 10


def rows(*places):
    return torch.tensor(places, dtype=torch.float32)[:, None]


def test_copies_are_what_lies_nearer_than_training_pictures_do():
    train = rows(*range(0, 1000, 10))
    samples = rows(0, 500, 5, 994.9)  # two copies, two half-way or beyond
    found = copies(train, samples, rows(-10, 30), rows(3, 3, 3, -20), most=100)
    pairs = [Pair(0, 0, False), Pair(1, 50, False), Pair(3, 99, False), Pair(2, 0, False)]
    assert found == Copies(10, 0, samples=1.0, restored=0.5, unseen=0.75, pairs=pairs)
    train[0] = 9  # two in a hundred have a near neighbour now
    found = copies(train, samples, rows(8.5, 9.5, 15, 25, 35), rows(8.5), most=100)
    assert found[:5] == (1, 0, 0.25, 0.4, 1.0)
    samples = torch.arange(500.0, 400, -3)[:, None]
    nearest_first = [pair.sample for pair in copies(train, samples, samples, samples).pairs]
    assert nearest_first[:4] == [0, 10, 20, 30] and len(nearest_first) == 8


def test_a_picture_is_no_copy_of_itself_or_of_its_mirror_image():
    train = rows(*range(0, 1000, 10))
    mirrored = train + 1
    found = copies(train, rows(31), rows(35), rows(35), mirrored)
    assert found.near == 9  # to the mirror image of the one before
    assert found.closest == 0  # 31 is the mirror image of 30
    assert found.pairs == [Pair(0, 3, mirrored=True)]
    assert copies(train, rows(31), rows(35), rows(35)).closest == 1


def test_pairs_are_shown_samples_first_and_mirrored_as_they_were_compared():
    samples, train = torch.arange(60).view(5, 3, 2, 2), torch.arange(100, 136).view(3, 3, 2, 2)
    found = side_by_side([Pair(4, 0, False), Pair(1, 2, True)], samples, train)
    assert torch.equal(found, torch.stack([samples[4], samples[1], train[0], train[2].flip(2)]))


def test_training_pictures_may_be_bytes_and_are_asked_evenly():
    train = torch.arange(0, 250, 10, dtype=torch.uint8)[:, None]
    train = torch.cat([train, train + 1])  # the second half lies near the first
    assert copies(train, rows(0), rows(0), rows(0), most=50).near == 1
    assert copies(train[:25], rows(0), rows(0), rows(0), most=5).near == 10
