"""Painting a part anew: what is kept stays, what is hidden has no say, and the two fit."""

import re

import pytest
import torch
from helpers import NET, SAMPLERS, images, small_pipeline

from ldm_edu.diffusion import to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.inpainting import _meet
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.pixels import PixelSpace
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.seeds import noise_stream
from ldm_edu.unet import UNet

QUICK = {"steps": 4, "resample": 1}


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


def hole(n=1, top=3, left=6, height=7, width=9):
    """Cuts through latent positions, which are 4 pixels wide; one is all within."""
    mask = torch.zeros(n, 1, 16, 16)
    mask[:, :, top : top + height, left : left + width] = 1
    return mask


# ---- what is kept


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("mask", [hole(2), hole().bool()], ids=["float", "bool"])
def test_kept_pixels_are_the_very_same_and_the_others_new(pipe, sampler, mask):
    x = images()
    y = pipe.inpaint(x, mask, sampler=sampler, **QUICK)
    new = mask.bool().expand_as(x)
    assert torch.equal(y[~new], x[~new])
    assert (y[new] - x[new]).abs().min() > 0
    assert y.shape == x.shape and y.dtype == torch.float32
    assert y[new].min() >= -1 and y[new].max() <= 1


def test_nothing_to_repaint_gives_the_picture_back(pipe):
    x = images()
    assert torch.equal(pipe.inpaint(x, torch.zeros(2, 1, 16, 16), **QUICK), x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_to_keep_is_sampling(pipe, sampler):
    y = pipe.inpaint(images(), torch.ones(1, 1, 16, 16), sampler=sampler, seed=5, **QUICK)
    assert torch.equal(y, pipe.sample(2, sampler=sampler, seed=5, steps=QUICK["steps"]))


def test_between_0_and_1_old_and_new_are_mixed(pipe):
    """The mixture is the model's to see as well, so only the way out is known: it is linear."""
    x, mask = images(), hole().clamp(max=0.25)
    y = pipe.inpaint(x, mask, **QUICK)
    new = mask.bool().expand_as(x)
    assert torch.equal(y[~new], x[~new])
    painted = x + (y - x) / 0.25
    assert painted[new].min() > -1.001 and painted[new].max() < 1.001
    assert (y - x)[new].abs().max() <= 0.5


def test_what_lies_under_the_mask_does_not_matter(pipe):
    x, mask = images(), hole()
    other = x.where(mask == 0, float("nan"))
    assert torch.equal(pipe.inpaint(other, mask, **QUICK), pipe.inpaint(x, mask, **QUICK))


def test_what_is_kept_matters(pipe):
    x, mask = images(), hole()
    x2 = x.where(mask == 1, -x)
    a, b = pipe.inpaint(x, mask, **QUICK), pipe.inpaint(x2, mask, **QUICK)
    assert (a - b)[mask.bool().expand_as(x)].abs().max() > 0.05


def test_a_pixel_kept_within_a_repainted_position_has_a_say(pipe):
    """One row of a latent position is repainted; the three others decide what it becomes."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4, 4:8] = 1
    x = images(1)
    x2 = x.clone()
    x2[..., 5:8, 4:8] *= -1
    a, b = pipe.inpaint(x, mask, **QUICK), pipe.inpaint(x2, mask, **QUICK)
    assert (a - b)[..., 4, 4:8].abs().max() > 0.01


# ---- how it is done


def by_hand(pipe, x, mask, levels, z, randn, jump, resample):
    """DDIM with the kept pixels put into every prediction, some steps taken again."""
    ab = pipe.schedule.alpha_bar
    free = torch.nn.functional.max_pool2d(1 - mask, 4) == 0
    for i in range(0, len(levels) - 1, jump):
        for again in range(resample):
            for t, s in zip(levels[i : i + jump], levels[i + 1 : i + jump + 1], strict=True):
                with torch.no_grad():
                    v = pipe.unet(z, torch.full((len(z),), t))
                z0_hat, eps_hat = to_z0_eps(pipe.schedule, z, t, v, "v")
                z0 = pipe.encode(torch.where(mask == 1, pipe.decode(z0_hat), x))
                z0_hat = torch.where(free, z0_hat, z0)
                eps = (z - ab[t].sqrt().float() * z0) / (1 - ab[t]).sqrt().float()
                eps_hat = torch.where(free, eps_hat, eps)
                z = ab[s].sqrt().float() * z0_hat + (1 - ab[s]).sqrt().float() * eps_hat
            if again < resample - 1:
                kept = (ab[levels[i]] / ab[s]).float()
                z = kept.sqrt() * z + (1 - kept).sqrt() * randn(z)
    return z


@pytest.mark.parametrize(("resample", "jump"), [(1, 4), (3, 2), (2, 1)])
def test_it_is_ddim_with_kept_pixels_put_into_every_prediction(pipe, resample, jump):
    x, mask = images(), hole()
    options = {"sampler": "ddim", "steps": 4, "seed": 2, "resample": resample, "jump": jump}
    found = pipe.inpaint(x, mask, **options)
    levels, randn = [100, 75, 50, 25, 0], noise_stream(2, 2)
    z = by_hand(pipe, x, mask, levels, pipe.noise(2, 2), randn, jump, resample)
    expected = torch.where(mask == 1, _meet(pipe.decode(z), x, mask), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def flat():
    """Pictures of one grey each, c ~ N(0, 1/9), and their ideal denoiser, in pixels."""
    pipe = LatentDiffusion(PixelSpace(), UNet(NET), NoiseSchedule("cosine", 100), "v", 16)

    def v(z_t, t, context=None):
        a, s = pipe.schedule.signal(t, z_t), pipe.schedule.noise(t, z_t)
        precision = 9 + z_t[0].numel() * a**2 / s**2
        c = (a / s**2 * z_t.sum((1, 2, 3), keepdim=True)) / precision  # E[c | z_t]
        return (a * z_t - c) / s

    pipe.unet.forward = v
    return pipe


def far(pipe, **options):
    grey = torch.tensor([-0.5, 0.4])[:, None, None, None]
    x, mask = grey.expand(2, 3, 16, 16), hole(height=10)
    y = pipe.inpaint(x, mask, steps=10, **options)
    return (y - x)[mask.bool().expand_as(x)].abs().mean().item()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_painted_agrees_with_what_is_kept(flat, sampler):
    """The ideal denoiser knows one way to go on: the grey of the kept pixels."""
    once = far(flat, sampler=sampler, resample=1)
    assert far(flat, sampler=sampler, resample=8, jump=2) < min(0.03, once)


# ---- whose noise


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_an_image_depends_on_its_seed_place_picture_and_mask(pipe, sampler):
    x, mask = images(3), torch.cat([hole(), hole(top=0), hole(left=1)])
    options = {"sampler": sampler, "seed": 4, **QUICK, "resample": 2, "jump": 2}
    many = pipe.inpaint(x, mask, **options)
    few = pipe.inpaint(x[:1], mask[:1], **options)
    torch.testing.assert_close(few, many[:1], rtol=1e-4, atol=1e-4)
    assert torch.equal(pipe.inpaint(x, mask, **options), many)
    other = pipe.inpaint(x, mask, **{**options, "seed": 5})
    assert all((a - b).abs().max() > 0.05 for a, b in zip(many, other, strict=True))
    same = pipe.inpaint(x[:1].expand(2, -1, -1, -1), hole(), **options)
    assert (same[0] - same[1]).abs().max() > 0.05


def test_one_mask_serves_all_pictures(pipe):
    x = images(2)
    assert torch.equal(pipe.inpaint(x, hole(1), **QUICK), pipe.inpaint(x, hole(2), **QUICK))


def test_pictures_of_any_size(pipe):
    x = images(1, 24)[..., :16]
    mask = torch.zeros(1, 1, 24, 16)
    mask[..., 5:, :] = 1
    y = pipe.inpaint(x, mask, **QUICK)
    assert torch.equal(y[..., :5, :], x[..., :5, :])


def test_prompts_and_guidance():
    pipe, x = small_pipeline(words=True), images()
    options = {"steps": 4, "seed": 1, "resample": 1}
    y = pipe.inpaint(x, hole(), prompt=["red circle", "blue"], guidance=3.0, **options)
    alone = pipe.inpaint(x[:1], hole(), prompt="a red circle", guidance=3.0, **options)
    torch.testing.assert_close(y[:1], alone, rtol=1e-4, atol=1e-4)
    for other in ({}, {"prompt": "red circle"}, {"prompt": "blue", "guidance": 3.0}):
        assert (y[0] - pipe.inpaint(x, hole(), **other, **options)[0]).abs().max() > 1e-3


# ---- the border


def test_two_sides_that_meet_are_left_alone():
    x, mask = images(), hole()
    assert torch.equal(_meet(x, x, mask), x)


def test_a_step_at_the_border_becomes_a_slope():
    """Two flat greys: what was painted starts at the kept one and returns to its own."""
    x, mask = torch.zeros(1, 3, 96, 96), torch.zeros(1, 1, 96, 96)
    mask[..., 48:] = 1
    row = _meet(torch.full_like(x, 0.5), x, mask)[0, 0, 40, 48:]
    assert row[0] < 0.15 and row[-1] > 0.45
    assert (row.diff() > -1e-6).all() and row.diff().max() < 0.15


# ---- what cannot be


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"mask": [[1]]}, "found list"),
        ({"mask": torch.zeros(2, 1, 16, 16, dtype=torch.uint8)}, "found torch.uint8"),
        ({"mask": torch.zeros(16, 16)}, "(2, 1, 16, 16), or one for all, found (16, 16)"),
        ({"mask": torch.zeros(3, 1, 16, 16)}, "found (3, 1, 16, 16)"),
        ({"mask": torch.zeros(2, 3, 16, 16)}, "found (2, 3, 16, 16)"),
        ({"mask": torch.zeros(2, 1, 16, 15)}, "found (2, 1, 16, 15)"),
        ({"mask": 255 * hole()}, "in [0, 1], of shape (2, 1, 16, 16), found values from 0"),
        ({"mask": hole() - 1}, "values from -1"),
        ({"mask": hole() * float("nan")}, "values from nan"),
        ({"x": torch.zeros(2, 3, 15, 16)}, "found (2, 3, 15, 16)"),
        ({"x": torch.zeros(3, 16, 16)}, "found (3, 16, 16)"),
        ({"x": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}, "found torch.uint8"),
        ({"sampler": "euler"}, "found 'euler'"),
        ({"eta": 0.5, "sampler": "heun"}, "takes an eta"),
        ({"steps": 0}, "found 0"),
        ({"resample": 0}, "at least 1, found 0"),
        ({"jump": 0}, "at least 1, found "),
        ({"prompt": "a cat"}, "without captions"),
    ],
)
def test_options_that_cannot_be_are_refused(pipe, options, found):
    with pytest.raises(InputError, match=re.escape(found)):
        pipe.inpaint(**({"x": images(), "mask": hole(), **QUICK} | options))
