"""What the published weights call our tensors: one table of names for both layouts.

diffusers keeps a folder a part (`unet/`, `vae/`, `text_encoder/`); CompVis, who trained Stable
Diffusion, keep one file in which a prefix tells the part. Only the names differ, and one shape:
CompVis' autoencoder attends through 1x1 convolutions (C, C, 1, 1), the others through linear
layers (C, C).
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.errors import InputError
from ldm_edu.text import TextEncoderConfig
from ldm_edu.unet import UNetConfig

Layout = Literal["diffusers", "compvis"]
Config = UNetConfig | AutoencoderConfig | TextEncoderConfig
Row = tuple[str, str, str]

PREFIXES = {  # of the parts in CompVis' one file
    "unet": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}
OURS_ALONE = {"latent_shift", "latent_scale"}  # theirs is a number in a config


def _inside(rows: list[Row], *outer: str) -> list[Row]:
    return [tuple(f"{a}.{b}" for a, b in zip(outer, row, strict=True)) for row in rows]


# {i} is a level and {j} a block in it, {k} any number, {x} one of q, k and v. Other indices
# are CompVis' own, see `_indices`.
# fmt: off
#    ours                       diffusers                          CompVis
RES = [
    ("norm1",                   "norm1",                           "in_layers.0"),
    ("conv1",                   "conv1",                           "in_layers.2"),
    ("time",                    "time_emb_proj",                   "emb_layers.1"),
    ("norm2",                   "norm2",                           "out_layers.0"),
    ("conv2",                   "conv2",                           "out_layers.3"),
    ("skip",                    "conv_shortcut",                   "skip_connection"),
]
TRANSFORMER_BLOCK = [
    ("norm{k}",                 "norm{k}",                         "norm{k}"),
    ("self_attention.to_{x}",   "attn1.to_{x}",                    "attn1.to_{x}"),
    ("self_attention.to_out",   "attn1.to_out.0",                  "attn1.to_out.0"),
    ("cross_attention.to_{x}",  "attn2.to_{x}",                    "attn2.to_{x}"),
    ("cross_attention.to_out",  "attn2.to_out.0",                  "attn2.to_out.0"),
    ("feed_forward.proj_in",    "ff.net.0.proj",                   "ff.net.0.proj"),
    ("feed_forward.proj_out",   "ff.net.2",                        "ff.net.2"),
]
TRANSFORMER = [
    ("norm",                    "norm",                            "norm"),
    ("proj_in",                 "proj_in",                         "proj_in"),
    *_inside(TRANSFORMER_BLOCK,
     "blocks.{n}",              "transformer_blocks.{n}",          "transformer_blocks.{n}"),
    ("proj_out",                "proj_out",                        "proj_out"),
]
UNET = [
    ("time.linear1",            "time_embedding.linear_1",         "time_embed.0"),
    ("time.linear2",            "time_embedding.linear_2",         "time_embed.2"),
    ("conv_in",                 "conv_in",                         "input_blocks.0.0"),
    *_inside(RES,
     "down.{i}.res.{j}",        "down_blocks.{i}.resnets.{j}",     "input_blocks.{down}.0"),
    *_inside(TRANSFORMER,
     "down.{i}.attention.{j}",  "down_blocks.{i}.attentions.{j}",  "input_blocks.{down}.1"),
    *_inside([("conv", "conv", "op")],
     "down.{i}.resample",       "down_blocks.{i}.downsamplers.0",  "input_blocks.{end}.0"),
    *_inside(RES,
     "middle.res.0",            "mid_block.resnets.0",             "middle_block.0"),
    *_inside(TRANSFORMER,
     "middle.attention.0",      "mid_block.attentions.0",          "middle_block.1"),
    *_inside(RES,
     "middle.res.1",            "mid_block.resnets.1",             "middle_block.2"),
    *_inside(RES,
     "up.{i}.res.{j}",          "up_blocks.{i}.resnets.{j}",       "output_blocks.{up}.0"),
    *_inside(TRANSFORMER,
     "up.{i}.attention.{j}",    "up_blocks.{i}.attentions.{j}",    "output_blocks.{up}.1"),
    *_inside([("conv", "conv", "conv")],
     "up.{i}.resample",         "up_blocks.{i}.upsamplers.0",      "output_blocks.{last}.{at}"),
    ("norm_out",                "conv_norm_out",                   "out.0"),
    ("conv_out",                "conv_out",                        "out.2"),
]
VAE_RES = [
    ("norm1",                   "norm1",                           "norm1"),
    ("conv1",                   "conv1",                           "conv1"),
    ("norm2",                   "norm2",                           "norm2"),
    ("conv2",                   "conv2",                           "conv2"),
    ("skip",                    "conv_shortcut",                   "nin_shortcut"),
]
VAE_ATTENTION = [
    ("norm",                    "group_norm",                      "norm"),
    ("attention.to_{x}",        "to_{x}",                          "{x}"),
    ("attention.to_out",        "to_out.0",                        "proj_out"),
]
CODER = [  # encoder and decoder
    ("conv_in",                 "conv_in",                         "conv_in"),
    *_inside(VAE_RES,
     "down.{i}.{j}",            "down_blocks.{i}.resnets.{j}",     "down.{i}.block.{j}"),
    *_inside([("conv", "conv", "conv")],
     "down.{i}.{j}",            "down_blocks.{i}.downsamplers.0",  "down.{i}.downsample"),
    *_inside(VAE_RES,
     "middle.0",                "mid_block.resnets.0",             "mid.block_1"),
    *_inside(VAE_ATTENTION,
     "middle.1",                "mid_block.attentions.0",          "mid.attn_1"),
    *_inside(VAE_RES,  # .2, or .1 without attention
     "middle.{k}",              "mid_block.resnets.1",             "mid.block_2"),
    *_inside(VAE_RES,
     "up.{i}.{j}",              "up_blocks.{i}.resnets.{j}",       "up.{level}.block.{j}"),
    *_inside([("conv", "conv", "conv")],
     "up.{i}.{j}",              "up_blocks.{i}.upsamplers.0",      "up.{level}.upsample"),
    ("norm_out",                "conv_norm_out",                   "norm_out"),
    ("conv_out",                "conv_out",                        "conv_out"),
]
AUTOENCODER = [
    *_inside(CODER,
     "encoder",                 "encoder",                         "encoder"),
    *_inside(CODER,
     "decoder",                 "decoder",                         "decoder"),
    ("quant_conv",              "quant_conv",                      "quant_conv"),
    ("post_quant_conv",         "post_quant_conv",                 "post_quant_conv"),
]
TEXT_BLOCK = [
    ("norm{k}",                 "layer_norm{k}"),
    ("attention.to_{x}",        "self_attn.{x}_proj"),
    ("attention.to_out",        "self_attn.out_proj"),
    ("linear{k}",               "mlp.fc{k}"),
]
TEXT_ENCODER = [  # the same in both layouts
    ("token",                   "text_model.embeddings.token_embedding"),
    ("position",                "text_model.embeddings.position_embedding"),
    *_inside(TEXT_BLOCK,
     "blocks.{n}",              "text_model.encoder.layers.{n}"),
    ("norm_out",                "text_model.final_layer_norm"),
]
TABLES = {
    "unet": UNET,
    "autoencoder": AUTOENCODER,
    "text_encoder": [(ours, theirs, theirs) for ours, theirs in TEXT_ENCODER],
}
# fmt: on


def key_map(
    part: str, names: Iterable[str], config: Config, layout: Layout, prefix: bool = False
) -> dict[str, str]:
    """{our name: theirs} for the tensors of a part, `OURS_ALONE` left out.

    part: "unet", "autoencoder" or "text_encoder"; names: the keys of its state_dict. prefix:
    put CompVis' prefix of the part in front. Raises InputError for a name not in the table, as
    our `patch` and `linear` paths are.
    """
    start = PREFIXES[part] if prefix else ""
    return {
        name: start + _theirs(part, name, config, layout)
        for name in names
        if name not in OURS_ALONE
    }


def _theirs(part: str, name: str, config: Config, layout: Layout) -> str:
    stem, _, kind = name.rpartition(".")  # kind: weight or bias
    for pattern, diffusers, compvis in _patterns(part):
        if match := pattern.fullmatch(stem):
            found = match.groupdict()
            if layout == "compvis":
                found |= _indices(config, int(found.get("i", 0)), int(found.get("j", 0)))
            row = {"diffusers": diffusers, "compvis": compvis}[layout]
            return f"{row.format(**found)}.{kind}"
    raise InputError(f"{name} of the {part} has no counterpart in Stable Diffusion")


def _indices(config: Config, i: int, j: int) -> dict[str, int]:
    if isinstance(config, TextEncoderConfig):
        return {}
    levels, blocks = len(config.channels), config.blocks
    level = levels - 1 - i  # on the way up ours count from the coarsest
    attention = isinstance(config, UNetConfig) and config.attention[level]
    return {
        "level": level,
        "down": i * (blocks + 1) + j + 1,  # 0 is conv_in
        "end": (i + 1) * (blocks + 1),
        "up": i * (blocks + 1) + j,
        "last": i * (blocks + 1) + blocks,
        "at": 1 + attention,  # after the residual block and the attention, if any
    }


@cache
def _patterns(part: str) -> list[tuple[re.Pattern, str, str]]:
    return [(re.compile(_regex(ours)), *theirs) for ours, *theirs in TABLES[part]]


def _regex(ours: str) -> str:
    escaped = re.escape(ours).replace(r"\{x\}", "(?P<x>[qkv])")
    return re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", escaped)
