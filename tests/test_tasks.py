"""Image to image, and walks between two seeds."""

import re
from itertools import pairwise

import pytest
import torch
from helpers import images, small_pipeline
from torch import nn

from ldm_edu.diffusion import to_z0_eps
from ldm_edu.errors import InputError
from ldm_edu.seeds import slerp


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


# ---- image to image


def test_vary_noises_the_picture_and_takes_the_last_steps(pipe):
    x, noise = images(2), pipe.noise(2, seed=4)
    found = pipe.vary(x, 0.5, steps=10, sampler="ddim", noise=noise)
    ab, levels = pipe.schedule.alpha_bar, [50, 40, 30, 20, 10, 0]
    z_t = ab[50].sqrt().float() * pipe.encode(x) + (1 - ab[50]).sqrt().float() * noise
    for t, s in pairwise(levels):
        with torch.no_grad():
            prediction = pipe.unet(z_t, torch.full((2,), t))
        z0_hat, eps_hat = to_z0_eps(pipe.schedule, z_t, t, prediction, "v")
        z_t = ab[s].sqrt().float() * z0_hat + (1 - ab[s]).sqrt().float() * eps_hat
    torch.testing.assert_close(found, pipe.decode(z_t), rtol=1e-4, atol=1e-4)
    assert found.shape == x.shape and found.dtype == torch.float32


def test_the_weaker_the_closer_to_the_picture():
    """Without noise, and with a denoiser that says v = 0, the picture only dims."""
    pipe, x = small_pipeline(), images(2)
    for p in pipe.unet.conv_out.parameters():
        nn.init.zeros_(p)
    z0, far = pipe.encode(x), []
    for strength in (0.2, 0.5, 1.0):
        z_t = pipe.vary(x, strength, steps=10, sampler="ddim", noise=torch.zeros_like(z0))
        far.append((z_t - pipe.decode(z0)).square().mean().item())
    assert far[0] < far[1] < far[2]


def test_vary_at_full_strength_starts_where_sampling_does(pipe):
    """alpha_bar of the first level is all that is left of the picture."""
    x = images(2)
    z_T = pipe.noise(2, seed=6)
    ab = pipe.schedule.alpha_bar[pipe.schedule.T].item()
    start = ab**0.5 * pipe.encode(x) + (1 - ab) ** 0.5 * z_T
    torch.testing.assert_close(
        pipe.vary(x, 1.0, steps=5, seed=6),
        pipe.sample(2, z_T=start, sampler="ddim", steps=5),
        rtol=1e-4,
        atol=1e-4,
    )


def test_vary_takes_pictures_of_any_size_and_counts_them(pipe):
    x = torch.rand(3, 3, 24, 8) * 2 - 1
    found = pipe.vary(x, 0.4, steps=5, seed=2)
    assert found.shape == x.shape
    alone = pipe.vary(x[:1], 0.4, steps=5, seed=2)
    torch.testing.assert_close(alone, found[:1], rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, pipe.vary(x, 0.4, steps=5, seed=3))


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan"), 0.09])
def test_a_strength_that_takes_no_step_is_refused(pipe, strength):
    message = rf"\(0, 1\] and take at least one of 10 steps, found {strength}"
    with pytest.raises(InputError, match=message):
        pipe.vary(images(1), strength, steps=10)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"steps": 0}, "found 0"),
        ({"steps": 3.5}, "found 3.5"),
        ({"sampler": "euler"}, "found 'euler'"),
        ({"prompt": "a cat"}, "without captions"),
        ({"noise": torch.zeros(1, 3, 4, 4)}, "found (1, 3, 4, 4)"),
        ({"x": torch.zeros(1, 3, 15, 16)}, "found (1, 3, 15, 16)"),
        ({"x": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)}, "found torch.uint8"),
    ],
)
def test_vary_checks_what_it_is_given(pipe, options, found):
    with pytest.raises(InputError, match=re.escape(found)):
        pipe.vary(**({"x": images(2), "steps": 4} | options))


# ---- a walk


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "heun", "plms"])
def test_a_walk_ends_at_the_samples_of_its_seeds(pipe, sampler):
    walk = pipe.interpolate(3, 8, 5, sampler=sampler, steps=4)
    assert walk.shape == (5, 3, 16, 16) and walk.dtype == torch.float32
    for image, seed in ((walk[0], 3), (walk[-1], 8)):
        alone = pipe.sample(1, seed=seed, sampler=sampler, steps=4)[0]
        torch.testing.assert_close(image, alone, rtol=1e-4, atol=1e-4)


def test_a_walk_moves_on_at_every_step(pipe):
    walk = pipe.interpolate(0, 1, 9, steps=4)
    gaps = torch.stack([(a - b).square().mean().sqrt() for a, b in pairwise(walk)])
    assert gaps.min() > 0.01 and gaps.max() < 0.5 * (walk[0] - walk[-1]).norm()


def test_a_finer_walk_passes_through_the_coarser_one(pipe):
    coarse, fine = (pipe.interpolate(0, 1, n, steps=4) for n in (3, 5))
    torch.testing.assert_close(fine[::2], coarse, rtol=1e-4, atol=1e-4)


def test_a_walk_and_the_way_back(pipe):
    there, back = pipe.interpolate(4, 9, 4, steps=4), pipe.interpolate(9, 4, 4, steps=4)
    torch.testing.assert_close(there, back.flip(0), rtol=1e-4, atol=1e-4)


def test_a_walk_through_prompts():
    pipe = small_pipeline(words=True)
    walk = pipe.interpolate(5, 5, 2, prompt=["red circle", "blue"], guidance=3.0, steps=4)
    for image, prompt in zip(walk, ["red circle", "blue"], strict=True):
        alone = pipe.sample(1, prompt=prompt, guidance=3.0, seed=5, steps=4)[0]
        torch.testing.assert_close(image, alone, rtol=1e-4, atol=1e-4)
    assert (walk[0] - walk[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"n": 1}, "at least 2, the two ends, found 1"),
        ({"n": 2.5}, "the two ends, found 2.5"),
        ({"sampler": "ddpm"}, "'ddpm' draws noise at every step"),
        ({"sampler": "euler"}, "found 'euler'"),
        ({"prompt": "red"}, "without captions"),
    ],
)
def test_walks_that_cannot_be(pipe, options, found):
    with pytest.raises(InputError, match=re.escape(found)):
        pipe.interpolate(0, 1, **({"n": 3, "steps": 2} | options))


def test_the_arc_has_equal_steps_and_both_ends():
    """A quarter of a circle, by hand; its points are 15 degrees apart."""
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    angle = torch.linspace(0, torch.pi / 2, 7)
    expected = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(slerp(a, b, torch.linspace(0, 1, 7)), expected)
    found = slerp(a, b, torch.tensor([0.0, 1.0]))
    assert torch.equal(found, torch.cat([a, b]))


def test_points_of_the_arc_between_two_draws_are_as_long_as_draws():
    a, b = torch.randn(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    lengths = slerp(a, b, torch.linspace(0, 1, 11)).flatten(1).norm(dim=1) / 4800**0.5
    assert (lengths - 1).abs().max() < 0.03
    assert ((a + b) / 2).norm() / 4800**0.5 < 0.75  # a straight line is not


def test_an_arc_from_a_point_to_itself_stays_there():
    a = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = slerp(a, a.clone(), torch.linspace(0, 1, 5))
    assert found.shape == (5, 3, 4, 4) and all(torch.equal(z, a[0]) for z in found)
