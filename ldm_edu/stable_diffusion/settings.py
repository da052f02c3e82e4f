"""diffusers' settings of each part (its `config.json`) and ours, both ways.

What our classes fix is listed once: a folder that has it otherwise is another model.
"""

import math
from collections.abc import Mapping
from typing import Any

from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import CheckpointError
from ldm_edu.stable_diffusion.published import LATENT_SCALE, SUPPORTED
from ldm_edu.text import TextEncoderConfig
from ldm_edu.unet import UNetConfig

Settings = Mapping[str, Any]

UNET = {
    "act_fn": "silu",
    "flip_sin_to_cos": True,  # cosines first
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "mid_block_scale_factor": 1,
    "use_linear_projection": False,  # Stable Diffusion 2 and XL
    "num_attention_heads": None,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "class_embed_type": None,
    "num_class_embeds": None,
    "addition_embed_type": None,  # XL: size and crop
    "encoder_hid_dim": None,
    "time_cond_proj_dim": None,  # distilled guidance
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "center_input_sample": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
}
AUTOENCODER = {
    "act_fn": "silu",
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "shift_factor": None,  # Stable Diffusion 3
    "latents_mean": None,
}
TEXT_ENCODER = {"layer_norm_eps": 1e-5}

DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}  # attention?
UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


def read_unet(s: Settings) -> UNetConfig:
    check_fixed(s, UNET)
    attention = [read_value(s, "down_block_types", DOWN, b) for b in s["down_block_types"]]
    up = [read_value(s, "up_block_types", UP, b) for b in s["up_block_types"]]
    if up != attention[::-1]:
        raise CheckpointError(
            f"up_block_types {up} do not mirror down_block_types; {SUPPORTED}"
        )
    return UNetConfig(
        in_channels=whole(s, "in_channels"),
        out_channels=whole(s, "out_channels"),
        channels=[whole(s, "block_out_channels", c) for c in s["block_out_channels"]],
        blocks=whole(s, "layers_per_block"),
        attention=attention,
        heads=whole(s, "attention_head_dim"),  # their name, kept for old files: it is the heads
        context_dim=whole(s, "cross_attention_dim"),
        depth=whole({"transformer_layers_per_block": 1} | s, "transformer_layers_per_block"),
        groups=whole(s, "norm_num_groups"),
        time_shift=-1,
    )


def write_unet(c: UNetConfig, side: int) -> dict[str, Any]:
    return UNET | {
        "_class_name": "UNet2DConditionModel",
        "sample_size": side,
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "block_out_channels": c.channels,
        "layers_per_block": c.blocks,
        "down_block_types": [write_value(DOWN, a) for a in c.attention],
        "up_block_types": [write_value(UP, a) for a in reversed(c.attention)],
        "attention_head_dim": c.heads,
        "cross_attention_dim": c.context_dim,
        "transformer_layers_per_block": c.depth,
        "norm_num_groups": c.groups,
    }


def read_autoencoder(s: Settings) -> tuple[AutoencoderConfig, float]:
    """Sizes, and the scale of the latents."""
    check_fixed(s, AUTOENCODER)
    if (found := s["out_channels"]) != s["in_channels"]:
        raise CheckpointError(f"out_channels is {found!r}, in_channels {s['in_channels']!r}")
    for key, block in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        for found in s[f"{key}_block_types"]:
            read_value(s, f"{key}_block_types", {block: True}, found)
    config = AutoencoderConfig(
        image_channels=whole(s, "in_channels"),
        latent_channels=whole(s, "latent_channels"),
        channels=[whole(s, "block_out_channels", c) for c in s["block_out_channels"]],
        blocks=whole(s, "layers_per_block"),
        middle_attention=bool(s.get("mid_block_add_attention", True)),
        groups=whole(s, "norm_num_groups"),
    )
    scale = float(s.get("scaling_factor", LATENT_SCALE))
    if not 0 < scale < math.inf:
        raise CheckpointError(f"scaling_factor is {scale}, supported: a positive number")
    return config, scale


def write_autoencoder(c: AutoencoderConfig, image_size: int, scale: float) -> dict[str, Any]:
    return AUTOENCODER | {
        "_class_name": "AutoencoderKL",
        "sample_size": image_size,
        "in_channels": c.image_channels,
        "out_channels": c.image_channels,
        "latent_channels": c.latent_channels,
        "block_out_channels": c.channels,
        "layers_per_block": c.blocks,
        "down_block_types": ["DownEncoderBlock2D"] * len(c.channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(c.channels),
        "mid_block_add_attention": c.middle_attention,
        "norm_num_groups": c.groups,
        "scaling_factor": scale,
    }


def read_text_encoder(s: Settings) -> TextEncoderConfig:
    check_fixed(s, TEXT_ENCODER)
    return TextEncoderConfig(
        vocabulary=whole(s, "vocab_size"),
        length=whole(s, "max_position_embeddings"),
        width=whole(s, "hidden_size"),
        layers=whole(s, "num_hidden_layers"),
        heads=whole(s, "num_attention_heads"),
        hidden=whole(s, "intermediate_size"),
        causal=True,
        activation=s.get("hidden_act", "quick_gelu"),
    )


def write_text_encoder(c: TextEncoderConfig, tokenizer: ClipTokenizer) -> dict[str, Any]:
    return TEXT_ENCODER | {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": c.vocabulary,
        "max_position_embeddings": c.length,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden or 4 * c.width,
        "hidden_act": c.activation,
        "bos_token_id": tokenizer.ids[tokenizer.start],
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.ids[tokenizer.pad],
    }


def read_value(s: Settings, key: str, table: Mapping[str, Any], value: Any = None) -> Any:
    """Our word for the setting's value, or for another value of it."""
    value = s[key] if value is None else value
    if value not in table:
        raise CheckpointError(f"{key} is {value!r}, supported: {' or '.join(table)}")
    return table[value]


def write_value(table: Mapping[str, Any], ours: Any) -> str:
    return next(theirs for theirs, value in table.items() if value == ours)


def whole(s: Settings, key: str, value: Any = None) -> int:
    value = s[key] if value is None else value
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise CheckpointError(f"{key} is {value!r}, supported: a positive whole number")
    return value


def check_fixed(s: Settings, fixed: Settings) -> None:
    for key, value in fixed.items():
        if s.get(key, value) != value:
            raise CheckpointError(f"{key} is {s[key]!r}, ours is {value!r}; {SUPPORTED}")
