"""Names of the published weights: every one of Stable Diffusion v1, in both layouts."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.errors import InputError
from ldm_edu.stable_diffusion.key_map import OURS_ALONE, PREFIXES, key_map
from ldm_edu.text import TextEncoder, TextEncoderConfig
from ldm_edu.unet import UNet, UNetConfig

SHAPES = json.loads(
    (Path(__file__).parent / "fixtures" / "sd15_state_dict_shapes.json").read_text()
)
FOLDERS = {"unet": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}
with torch.device("meta"):
    MODELS = {
        "unet": UNet(UNetConfig.stable_diffusion_v1()),
        "autoencoder": Autoencoder(AutoencoderConfig()),
        "text_encoder": TextEncoder(TextEncoderConfig.stable_diffusion_v1()),
    }


def shapes(part):
    own = MODELS[part].state_dict()
    return {name: list(v.shape) for name, v in own.items() if name not in OURS_ALONE}


def names(part, layout, prefix=False):
    return key_map(part, shapes(part), MODELS[part].config, layout, prefix)


@pytest.mark.parametrize(
    ("part", "tensors", "parameters"),
    [
        ("unet", 686, 859_520_964),
        ("autoencoder", 248, 83_653_863),
        ("text_encoder", 196, 123_060_480),
    ],
)
def test_every_published_tensor_has_a_place_of_its_shape(part, tensors, parameters):
    own = shapes(part)
    assert len(own) == tensors
    assert sum(p.numel() for p in MODELS[part].parameters()) == parameters
    diffusers = names(part, "diffusers")
    published = SHAPES["diffusers"][FOLDERS[part]]
    assert {diffusers[name]: shape for name, shape in own.items()} == published
    compvis = names(part, "compvis", prefix=True)
    prefix = PREFIXES[part]
    published = {k: v for k, v in SHAPES["ldm"].items() if k.startswith(prefix)}
    found = {compvis[name]: shape for name, shape in own.items()}
    assert found.keys() == published.keys()
    for name, shape in found.items():
        attention = part == "autoencoder" and ".mid.attn_1." in name and len(shape) == 2
        assert published[name] == ([*shape, 1, 1] if attention else shape)


def test_together_they_are_the_whole_file():
    every = [name for part in MODELS for name in names(part, "compvis", True).values()]
    assert sorted(every) == sorted(SHAPES["ldm"])


@pytest.mark.parametrize("part", MODELS)
def test_there_and_back_is_the_identity(part):
    ours = list(shapes(part))
    compvis, diffusers = names(part, "compvis"), names(part, "diffusers")
    back = {theirs: name for name, theirs in compvis.items()}
    again = {theirs: name for name, theirs in diffusers.items()}
    assert len(back) == len(again) == len(ours)
    for name in compvis.values():
        assert compvis[again[diffusers[back[name]]]] == name


CONFIGS = {
    "as published": (UNetConfig.stable_diffusion_v1(), AutoencoderConfig()),
    "one block": (
        UNetConfig(
            channels=(32, 64), blocks=1, attention=(False, True), context_dim=8, depth=2
        ),
        AutoencoderConfig(channels=(32,), blocks=1),
    ),
    "three blocks": (
        UNetConfig(
            channels=(32, 32, 64), blocks=3, attention=(True, False, True), context_dim=8
        ),
        AutoencoderConfig(channels=(32, 32, 64), blocks=3),
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize(("unet", "autoencoder"), CONFIGS.values(), ids=CONFIGS)
def test_compvis_and_diffusers_names_are_those_of_diffusers_own_converter(unet, autoencoder):
    """Equal shapes could hide two names that are swapped: each tensor carries a number."""
    with torch.device("meta"):
        models = {"unet": UNet(unet), "autoencoder": Autoencoder(autoencoder)}
    for part, convert in [
        ("unet", convert_ldm_unet_checkpoint),
        ("autoencoder", convert_ldm_vae_checkpoint),
    ]:
        own, config = models[part].state_dict(), models[part].config
        compvis = key_map(part, own, config, "compvis", prefix=True)
        numbers = {name: torch.tensor(float(i)) for i, name in enumerate(compvis.values())}
        settings = {
            "layers_per_block": config.blocks,
            "down_block_types": config.channels,  # only counted
            "up_block_types": config.channels,
            "class_embed_type": None,
            "addition_embed_type": None,
        }
        found = convert(dict(numbers), settings)
        diffusers = key_map(part, own, config, "diffusers")
        assert found.keys() == set(diffusers.values())
        for name, theirs in diffusers.items():
            assert found[theirs] == numbers[compvis[name]], name


@pytest.mark.parity
def test_text_names_are_those_of_diffusers_own_converter():
    compvis = names("text_encoder", "compvis", prefix=True)
    numbers = {name: torch.tensor(float(i)) for i, name in enumerate(compvis.values())}
    found = convert_ldm_clip_checkpoint(dict(numbers), remove_prefix=PREFIXES["text_encoder"])
    for name, theirs in names("text_encoder", "diffusers").items():
        assert found[theirs] == numbers[compvis[name]]


def test_parts_of_this_course_have_no_counterpart():
    config = AutoencoderConfig(channels=(4, 8), groups=4, linear=True)
    with pytest.raises(InputError, match=r"linear_encoder\.weight .* no counterpart"):
        key_map("autoencoder", Autoencoder(config).state_dict(), config, "diffusers")
