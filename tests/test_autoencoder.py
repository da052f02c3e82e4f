"""The autoencoder: published sizes, diffusers' numbers, the latent scale, the linear path."""

import json
import math
import re
from pathlib import Path

import helpers
import pytest
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm_edu.errors import InputError
from ldm_edu.pca import patch_pca, pca_reconstruct
from ldm_edu.pixels import PixelSpace
from ldm_edu.stable_diffusion.key_map import key_map

SHAPES = Path(__file__).parent / "fixtures" / "sd15_state_dict_shapes.json"
SCALE = {"latent_shift", "latent_scale"}  # our own buffers
TINY = AutoencoderConfig(channels=(4, 8), blocks=1, groups=4)
LINEAR = AutoencoderConfig(
    latent_channels=5, channels=(4, 8), blocks=1, groups=2, patch=2, linear=True
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines


def filled(model, seed=0):
    return helpers.filled(model, seed).double()


def images(n=4, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1


# ---- Stable Diffusion v1


def test_stable_diffusion_has_the_published_parameters():
    with torch.device("meta"):
        model = Autoencoder(AutoencoderConfig())
    published = json.loads(SHAPES.read_text())["diffusers"]["vae"]
    ours = {k: list(v.shape) for k, v in model.state_dict().items() if k not in SCALE}
    counts = [model, model.encoder, model.decoder, model.quant_conv, model.post_quant_conv]
    counts = [sum(p.numel() for p in part.parameters()) for part in counts]
    assert counts == [83_653_863, 34_163_592, 49_490_179, 72, 20]
    assert len(ours) == 248
    assert sorted(ours.values()) == sorted(published.values())
    theirs = key_map("autoencoder", ours, model.config, "diffusers")
    assert {theirs[name]: shape for name, shape in ours.items()} == published
    assert model.config.factor == 8


PARITY = {
    "SD's plan, small": AutoencoderConfig(channels=(4, 8, 16, 16), groups=4),
    "two levels": AutoencoderConfig(
        image_channels=1, latent_channels=3, channels=(6, 12), blocks=1, groups=3
    ),
    "one level": AutoencoderConfig(channels=(8,), blocks=3, groups=2, middle_attention=False),
}


@pytest.mark.parity
@pytest.mark.parametrize("config", PARITY.values(), ids=PARITY)
def test_autoencoder_equals_diffusers_in_float64(config):
    theirs = filled(
        AutoencoderKL(
            in_channels=config.image_channels,
            out_channels=config.image_channels,
            down_block_types=("DownEncoderBlock2D",) * len(config.channels),
            up_block_types=("UpDecoderBlock2D",) * len(config.channels),
            block_out_channels=config.channels,
            layers_per_block=config.blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.groups,
            mid_block_add_attention=config.middle_attention,
        )
    )
    weights = theirs.state_dict()
    ours = Autoencoder(config).double().eval()
    names = key_map("autoencoder", ours.state_dict(), config, "diffusers")
    assert set(names.values()) == set(weights)
    weights = {name: weights[their_name] for name, their_name in names.items()}
    missing = ours.load_state_dict(weights, strict=False)
    assert set(missing.missing_keys) == SCALE and missing.unexpected_keys == []
    size = 4 * config.factor
    x = images(2, size)[:, : config.image_channels]
    with torch.no_grad():
        found, expected = ours.encode(x), theirs.encode(x).latent_dist
        assert expected.mean.std() > 0.1 and expected.logvar.std() > 0.1
        assert (found.mean - expected.mean).abs().max() < 1e-10
        assert (found.logvar - expected.logvar).abs().max() < 1e-10
        x_hat = theirs.decode(expected.mean).sample
        assert x_hat.std() > 0.1
        assert (ours.decode(found.mean) - x_hat).abs().max() < 1e-10


# ---- the posterior


def gaussian():
    torch.manual_seed(0)
    mean = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    return DiagonalGaussian(mean, torch.randn_like(mean) * 2)


def test_kl_is_torchs():
    q = gaussian()
    expected = kl_divergence(Normal(q.mean, q.std), Normal(0.0, 1.0)).sum((1, 2, 3))
    assert q.kl().shape == (3,)
    torch.testing.assert_close(q.kl(), expected)


def test_kl_of_the_standard_normal_is_zero():
    zeros = torch.zeros(2, 1, 2, 2)
    assert DiagonalGaussian(zeros, zeros).kl().tolist() == [0, 0]


def test_samples_have_the_posteriors_mean_and_std():
    q, eps = gaussian(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(q.sample(eps), q.mean + q.logvar.exp().sqrt() * eps)
    assert torch.equal(q.sample(torch.zeros_like(eps)), q.mean)
    torch.manual_seed(7)
    drawn = q.sample()
    torch.manual_seed(7)
    assert torch.equal(drawn, q.sample(torch.randn_like(q.mean)))


@pytest.mark.parametrize(("value", "clamped"), [(100.0, 20.0), (-100.0, -30.0)])
def test_logvar_is_clamped_before_it_is_scaled(value, clamped):
    model = filled(Autoencoder(TINY))
    with torch.no_grad():
        model.quant_conv.bias[4:] = value
        model.set_latent_scale(torch.zeros(4), torch.full((4,), 2.0))
        logvar = model.encode(images()).logvar
    torch.testing.assert_close(
        logvar.exp().sqrt() * 2, torch.full_like(logvar, clamped / 2).exp()
    )


# ---- the latent scale


def test_scale_is_undone_by_decode():
    model, x = filled(Autoencoder(TINY)), images()
    with torch.no_grad():
        before = model.encode(x)
        x_hat = model.decode(before.mean)
        mean = torch.tensor([1.0, -2.0, 0.5, 0.0])
        std = torch.tensor([0.1, 3.0, 1.0, 7.0])
        model.set_latent_scale(mean, std)
        after = model.encode(x)
        torch.testing.assert_close(model.decode(after.mean), x_hat)
    mean, std = mean.double()[:, None, None], std.double()[:, None, None]
    torch.testing.assert_close(after.mean, (before.mean - mean) / std, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(after.std, before.std / std, rtol=1e-6, atol=1e-6)


def test_latents_have_unit_variance_once_told_their_statistics():
    model, x = filled(Autoencoder(TINY)), images(16)
    with torch.no_grad():
        z = model.encode(x).mean
        model.set_latent_scale(z.mean((0, 2, 3)), z.std((0, 2, 3)))
        z = model.encode(x).mean
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.var((0, 2, 3)), torch.ones(4).double(), rtol=1e-6, atol=0)


def test_the_scale_is_saved_with_the_weights():
    model = filled(Autoencoder(TINY))
    model.set_latent_scale(torch.arange(4.0), torch.arange(1.0, 5.0))
    again = Autoencoder(TINY).double()
    again.load_state_dict(model.state_dict())
    assert again.latent_shift.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(again.latent_scale, 1 / torch.arange(1.0, 5.0).double())


def test_forward_decodes_a_draw_from_the_posterior():
    model, x = filled(Autoencoder(LINEAR)), images()
    model.set_latent_scale(torch.ones(5), torch.full((5,), 2.0))
    torch.manual_seed(3)
    x_hat, posterior = model(x)
    torch.manual_seed(3)
    eps = torch.randn_like(posterior.mean)
    assert torch.equal(posterior.mean, model.encode(x).mean)
    torch.testing.assert_close(x_hat, model.decode(posterior.mean + posterior.std * eps))


# ---- patches


@pytest.mark.parametrize("patch", [2, 4])
def test_patch_folds_pixels_into_channels_and_back(patch):
    """An autoencoder with `patch` is one without it, on images folded by hand."""
    config = AutoencoderConfig(channels=(4, 8), blocks=1, groups=4, patch=patch)
    folding = filled(Autoencoder(config))
    plain = Autoencoder(
        AutoencoderConfig(image_channels=3 * patch**2, channels=(4, 8), blocks=1, groups=4)
    ).double()
    plain.load_state_dict(folding.state_dict())
    x = images(2, 4 * patch)
    folded = rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=patch, q=patch)
    with torch.no_grad():
        found, expected = folding.encode(x), plain.encode(folded)
        assert config.factor == 2 * patch and found.mean.shape == (2, 4, 2, 2)
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.logvar, expected.logvar)
        unfolded = rearrange(
            plain.decode(found.mean), "b (c p q) h w -> b c (h p) (w q)", p=patch, q=patch
        )
        torch.testing.assert_close(folding.decode(found.mean), unfolded)


# ---- the linear path


def started(x, whiten=1.0):
    model = filled(Autoencoder(LINEAR))
    model.start_as_pca(x, whiten)
    return model


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_it_starts_as_patch_pca(whiten):
    """Exactly, where the mean patch is flat: the decoder's bias is one a colour."""
    x = images(64, 8)
    mean = patch_pca(x, 4, 1)[1].view(3, 4, 4)
    x = x - (mean - mean.mean((1, 2), keepdim=True)).repeat(1, 2, 2)
    basis, mean, _ = patch_pca(x, 4, 5)
    with torch.no_grad():
        model = started(x, whiten)
        x_hat = model.decode(model.encode(x).mean)
    torch.testing.assert_close(x_hat, pca_reconstruct(x, 4, basis, mean), rtol=0, atol=1e-12)


def test_a_mean_patch_that_is_not_flat_costs_exactly_its_unevenness():
    x = images(64, 8) + torch.linspace(-1, 1, 4, dtype=torch.float64).repeat(2)
    basis, mean, _ = patch_pca(x, 4, 5)
    with torch.no_grad():
        model = started(x)
        error = (model.decode(model.encode(x).mean) - x).square().mean()
    flat = mean.view(3, 16).mean(1, keepdim=True)
    pca_error = (pca_reconstruct(x, 4, basis, mean) - x).square().mean()
    unevenness = (mean.view(3, 16) - flat).square().mean()
    assert unevenness > 0.1
    torch.testing.assert_close(error, pca_error + unevenness)


def test_its_first_latents_are_white():
    x = images(64, 8)
    with torch.no_grad():
        posterior = started(x).encode(x)
    z = rearrange(posterior.mean, "b c h w -> c (b h w)")
    torch.testing.assert_close(z.mean(1), torch.zeros(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.cov(), torch.eye(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, -4.0).exp())


def test_its_network_still_learns():
    """The ends are zero, what is between them is not: gradients reach both."""
    model, x = started(images(16)), images(4)
    x_hat, posterior = model(x)
    ((x_hat - x).square().sum() + posterior.kl().sum()).backward()
    for end in (model.decoder.conv_out, model.quant_conv):
        assert end.weight.grad.abs().max() > 0


# ---- shapes and errors

_MODEL = Autoencoder(LINEAR)


@given(channels=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(PATIENT, max_examples=40)
def test_only_images_that_divide_by_the_factor_are_accepted(channels, height, width):
    x = torch.zeros(1, channels, height, width)
    if channels == 3 and height % 4 == 0 and width % 4 == 0:
        z = _MODEL.encode(x).mean
        assert z.shape == (1, 5, height // 4, width // 4)
        assert _MODEL.decode(z).shape == x.shape
    else:
        for accepts in (_MODEL.encode, _MODEL, _MODEL.start_as_pca):
            with pytest.raises(InputError, match="divisible by 4") as caught:
                accepts(x)
            assert f"found {tuple(x.shape)}" in str(caught.value)


@given(shape=st.lists(st.integers(1, 6), max_size=5).map(tuple))
@settings(PATIENT, max_examples=40)
def test_only_latents_of_its_channels_are_decoded(shape):
    if len(shape) == 4 and shape[1] == 5:
        assert _MODEL.decode(torch.zeros(shape)).shape[1] == 3
    else:
        with pytest.raises(InputError, match=re.escape(f"(B, 5, h, w), found {shape}")):
            _MODEL.decode(torch.zeros(shape))


def test_bytes_are_no_image_in_minus_1_to_1():
    with pytest.raises(InputError, match=r"found torch\.uint8"):
        _MODEL.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("space", [Autoencoder(TINY), PixelSpace()], ids=["latents", "pixels"])
def test_statistics_that_are_no_scale_are_refused(space):
    c = space.config.latent_channels
    mean, std = torch.zeros(c), torch.ones(c)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"must be positive, .* found \[.*{bad}\]"):
            space.set_latent_scale(mean, torch.tensor([*std[1:].tolist(), bad]))
    with pytest.raises(InputError, match=r"mean finite, found .* and \[nan"):
        space.set_latent_scale(mean * math.nan, std)
    for pair in ((mean[:1], std), (mean, std[:1]), (mean, std[None])):
        with pytest.raises(InputError, match=rf"shape \({c},\), found"):
            space.set_latent_scale(*pair)
    assert space.latent_scale.tolist() == [1.0] * c and not space.latent_shift.any()


def test_start_as_pca_needs_the_linear_path():
    with pytest.raises(InputError, match="linear=True"):
        Autoencoder(TINY).start_as_pca(torch.zeros(4, 3, 8, 8))


@pytest.mark.parametrize("whiten", [-0.1, 1.5])
def test_whitening_stays_between_none_and_all(whiten):
    with pytest.raises(InputError, match=f"found {whiten}"):
        Autoencoder(LINEAR).start_as_pca(torch.zeros(4, 3, 8, 8), whiten)


@pytest.mark.parametrize(
    ("changes", "found"), [({"patch": 0}, "found 0"), ({"channels": (32, 40)}, "channels 40")]
)
def test_sizes_that_do_not_fit_are_refused(changes, found):
    with pytest.raises(InputError, match=found):
        AutoencoderConfig(**changes)


def test_config_survives_json():
    for config in (AutoencoderConfig(), LINEAR):
        assert AutoencoderConfig(**json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "field", ["image_channels", "latent_channels", "blocks", "patch", "groups"]
)
@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_1_is_refused(field, size):
    with pytest.raises(InputError, match=f"{field} must be at least 1, found {size}"):
        AutoencoderConfig(**{field: size})


@pytest.mark.parametrize("channels", [(), (32, 0), (-32,)])
def test_levels_are_some_and_each_has_channels(channels):
    with pytest.raises(InputError, match=re.escape(f"each at least 1, found {channels}")):
        AutoencoderConfig(channels=channels)
