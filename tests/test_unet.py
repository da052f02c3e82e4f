"""The U-Net: the published sizes, diffusers' numbers, and the shapes it accepts."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers import filled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_edu.errors import InputError
from ldm_edu.stable_diffusion.key_map import key_map
from ldm_edu.unet import UNet, UNetConfig

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines

SHAPES = Path(__file__).parent / "fixtures" / "sd15_state_dict_shapes.json"
TINY = UNetConfig(3, 2, channels=(8, 12), blocks=1, attention=(False, True), heads=2, groups=4)


# ---- Stable Diffusion v1


def test_stable_diffusion_has_the_published_parameters():
    with torch.device("meta"):
        model = UNet(UNetConfig.stable_diffusion_v1())
    published = json.loads(SHAPES.read_text())["diffusers"]["unet"]
    ours = {name: list(p.shape) for name, p in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == 859_520_964
    assert len(ours) == 686
    assert sorted(ours.values()) == sorted(published.values())
    theirs = key_map("unet", ours, model.config, "diffusers")
    assert {theirs[name]: shape for name, shape in ours.items()} == published


PARITY = {
    "SD's plan, small": UNetConfig(
        channels=(8, 16, 32, 32),
        attention=(True, True, True, False),
        heads=2,
        context_dim=6,
        groups=4,
    ),
    "two levels": UNetConfig(
        3, 5, channels=(8, 24), blocks=1, heads=4, attention=(False, True),
        context_dim=5, groups=8,
    ),
    "deep transformers": UNetConfig(
        channels=(16, 8, 16), blocks=3, heads=1, attention=(True, False, True),
        context_dim=4, depth=2, groups=2,
    ),
}  # fmt: skip


def theirs_of(c):
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in c.attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(c.attention)]
    return UNet2DConditionModel(
        in_channels=c.in_channels,
        out_channels=c.out_channels,
        block_out_channels=c.channels,
        layers_per_block=c.blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=c.context_dim,
        attention_head_dim=c.heads,  # their name; it means the number of heads
        transformer_layers_per_block=c.depth,
        norm_num_groups=c.groups,
    )


@pytest.mark.parity
@pytest.mark.parametrize("config", PARITY.values(), ids=PARITY)
def test_unet_equals_diffusers_in_float64(config):
    theirs = filled(theirs_of(config)).double()
    ours = UNet(config).double().eval()
    names, weights = (
        key_map("unet", ours.state_dict(), config, "diffusers"),
        theirs.state_dict(),
    )
    assert set(names.values()) == set(weights)
    ours.load_state_dict({name: weights[their_name] for name, their_name in names.items()})
    z_t = torch.randn(2, config.in_channels, 8, 16, dtype=torch.float64)
    context = torch.randn(2, 7, config.context_dim, dtype=torch.float64)
    t = torch.tensor([3, 981])
    with torch.no_grad():
        found, expected = ours(z_t, t, context), theirs(z_t, t, context).sample
    assert expected.std() > 0.1  # not the silence of zero-initialised layers
    assert (found - expected).abs().max() < 1e-10


# ---- behaviour


def test_the_first_prediction_is_zero():
    z_t = torch.randn(2, 3, 4, 4)
    assert torch.equal(UNet(TINY)(z_t, torch.tensor([1, 9])), torch.zeros(2, 2, 4, 4))


def test_samples_of_a_batch_do_not_see_one_another():
    model = filled(UNet(TINY)).double()
    z_t, t = torch.randn(3, 3, 4, 6, dtype=torch.float64), torch.tensor([1, 400, 1000])
    together = model(z_t, t)
    for i in range(3):
        alone = model(z_t[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-10)


def test_prediction_depends_on_image_time_and_context():
    config = UNetConfig(
        2, 2, channels=(8,), attention=(True,), heads=2, context_dim=4, groups=4
    )
    model, one = filled(UNet(config)), torch.ones(1, 2, 4, 4)
    base = [one, torch.tensor([5]), torch.ones(1, 2, 4)]
    changes = [one * 2, torch.tensor([6]), torch.ones(1, 2, 4) * 2]
    for i, change in enumerate(changes):
        changed = [*base[:i], change, *base[i + 1 :]]
        assert not torch.allclose(model(*base), model(*changed), atol=1e-6)


def test_time_shift_is_where_time_starts():
    sizes = {"channels": (8,), "attention": (True,), "heads": 2, "groups": 4}
    model, shifted = filled(UNet(UNetConfig(**sizes))), UNet(UNetConfig(**sizes, time_shift=-1))
    shifted.load_state_dict(model.state_dict())
    z_t, t = torch.randn(2, 4, 4, 4), torch.tensor([1, 1000])
    assert torch.equal(shifted.eval()(z_t, t), model(z_t, t - 1))
    assert UNetConfig.stable_diffusion_v1().time_shift == -1


def test_coordinates_are_two_more_channels_of_what_goes_in():
    """The same network, told -1..1 down and across by hand."""
    placed = filled(UNet(replace(TINY, coordinates=True)))
    by_hand = UNet(replace(TINY, in_channels=5)).eval()
    by_hand.load_state_dict(placed.state_dict())
    z_t, t = torch.randn(2, 3, 4, 2), torch.tensor([1, 500])
    down, across = torch.tensor([-1, -1 / 3, 1 / 3, 1]), torch.tensor([-1.0, 1.0])
    grid = torch.stack([down[:, None].expand(4, 2), across.expand(4, 2)]).expand(2, 2, 4, 2)
    torch.testing.assert_close(placed(z_t, t), by_hand(torch.cat([z_t, grid], dim=1), t))


def test_every_parameter_gets_a_gradient():
    config = UNetConfig(2, 2, channels=(8, 8), heads=2, context_dim=4, groups=4)
    model = filled(UNet(config))
    model(torch.randn(2, 2, 4, 4), torch.tensor([1, 2]), torch.randn(2, 3, 4)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_dropout_reaches_the_blocks():
    config = UNetConfig(2, 2, channels=(8,), attention=(True,), groups=4, heads=2, dropout=0.5)
    model, args = filled(UNet(config)), (torch.randn(1, 2, 4, 4), torch.tensor([5]))
    assert torch.equal(model(*args), model(*args))
    assert not torch.equal(model.train()(*args), model(*args))


def test_config_survives_json():
    for config in (TINY, UNetConfig.stable_diffusion_v1()):
        assert UNetConfig(**json.loads(json.dumps(config.to_dict()))) == config


# ---- shapes and errors

_MODEL = UNet(TINY)
sides = st.integers(1, 7)


@given(channels=st.integers(1, 4), height=sides, width=sides)
@settings(PATIENT, max_examples=40)
def test_only_sizes_that_halve_evenly_are_accepted(channels, height, width):
    z_t, t = torch.zeros(1, channels, height, width), torch.tensor([1])
    if channels == 3 and height % 2 == 0 and width % 2 == 0:
        assert _MODEL(z_t, t).shape == (1, 2, height, width)
    else:
        with pytest.raises(InputError, match="divisible by 2") as caught:
            _MODEL(z_t, t)
        assert f"found {tuple(z_t.shape)}" in str(caught.value)


@given(shape=st.lists(st.integers(1, 4), max_size=6).filter(lambda s: len(s) != 4))
@settings(PATIENT, max_examples=20)
def test_only_four_axes_are_accepted(shape):
    with pytest.raises(InputError, match=r"\(B, 3, H, W\)"):
        _MODEL(torch.zeros(shape), torch.tensor([1]))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1)])
def test_t_must_be_one_a_sample(shape):
    with pytest.raises(InputError, match=re.escape(f"(2,), found {shape}")):
        _MODEL(torch.zeros(2, 3, 4, 4), torch.ones(shape, dtype=torch.int64))


def test_context_must_be_what_the_model_was_built_for():
    z_t, t = torch.zeros(2, 3, 4, 4), torch.tensor([1, 2])
    with pytest.raises(InputError, match=r"context_dim is None, .* is \(2, 1, 5\)"):
        _MODEL(z_t, t, torch.zeros(2, 1, 5))
    config = UNetConfig(3, 3, channels=(8,), attention=(True,), groups=4, context_dim=5)
    model = UNet(config)
    with pytest.raises(InputError, match="context_dim is 5, but the context is none"):
        model(z_t, t)
    for shape in [(2, 1, 4), (3, 1, 5), (2, 5)]:
        with pytest.raises(InputError, match=re.escape(f"(2, N, 5), found {shape}")):
            model(z_t, t, torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"attention": (True,)}, r"\(True,\)"),
        ({"channels": (64, 100)}, "channels 100"),
        ({"heads": 3}, "heads = 3"),
        ({"channels": (7, 7), "groups": 7, "heads": 1}, "channels 7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, found):
    with pytest.raises(InputError, match=found):
        UNetConfig(**changes)


@pytest.mark.parametrize(
    "field", ["in_channels", "out_channels", "blocks", "heads", "depth", "groups"]
)
@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_1_is_refused(field, size):
    with pytest.raises(InputError, match=f"{field} must be at least 1, found {size}"):
        UNetConfig(**{field: size})


@pytest.mark.parametrize("channels", [(), (32, 0), (-32,)])
def test_levels_are_some_and_each_has_channels(channels):
    with pytest.raises(InputError, match=re.escape(f"each at least 1, found {channels}")):
        UNetConfig(channels=channels, attention=[True] * len(channels))
