"""Small models of random weights as diffusers and CompVis publish them, for the tests."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from helpers import filled
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_edu.bpe import START, STOP, byte_symbols

MERGES = ["a t</w>", "c at</w>", "r e", "re d</w>", "l u", "b lu", "blu e</w>", "c i", "ci r"]
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}

# Sizes: U-Net channels, attention a level, blocks, heads, groups, depth; VAE channels, blocks,
# groups; text width, heads, layers.
PLAIN = {"unet": ((32, 64), (True, False), 1, 8, 32, 1), "vae": ((32, 64), 1, 32)}
PLAN = {  # Stable Diffusion's own plan of levels
    "unet": ((32, 64, 64, 96), (True, True, True, False), 2, 8, 32, 1),
    "vae": ((32, 32, 64, 64), 2, 32),
}
ODD = {"unet": ((8, 24), (False, True), 2, 2, 4, 2), "vae": ((6, 12, 6), 1, 3)}
TEXT = {"width": 64, "heads": 1, "layers": 2, "hidden": 96}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER |= {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}


def write_vocabulary(folder: Path) -> int:
    """A small but real CLIP vocabulary in vocab.json and merges.txt; returns its size."""
    letters = byte_symbols()
    symbols = [*letters, *(s + "</w>" for s in letters), *(m.replace(" ", "") for m in MERGES)]
    symbols += [START, STOP]
    folder.mkdir(parents=True, exist_ok=True)
    ids = json.dumps({symbol: i for i, symbol in enumerate(symbols)}, ensure_ascii=False)
    (folder / "vocab.json").write_text(ids, encoding="utf-8")
    lines = ["#version: 0.2", *MERGES, ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return len(symbols)


def theirs(folder: Path, unet, vae, text=None, **scheduler) -> StableDiffusionPipeline:
    """diffusers' pipeline of the sizes, saved in `folder`."""
    text = TEXT | (text or {})
    vocabulary = write_vocabulary(folder.with_name(folder.name + " vocabulary"))
    channels, attention, blocks, heads, groups, depth = unet
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)]
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        layers_per_block=blocks,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=text["width"],
        attention_head_dim=heads,
        norm_num_groups=groups,
        transformer_layers_per_block=depth,
    )
    channels, blocks, groups = vae
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=blocks,
        norm_num_groups=groups,
        sample_size=8 * 2 ** (len(channels) - 1),
    )
    encoder = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=text["width"],
        intermediate_size=text["hidden"],
        num_hidden_layers=text["layers"],
        num_attention_heads=text["heads"],
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    encoder = CLIPTextModel(encoder)
    for i, module in enumerate((unet, vae, encoder)):
        filled(module, seed=i)
    pipe = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=encoder,
        tokenizer=CLIPTokenizer.from_pretrained(
            folder.with_name(folder.name + " vocabulary"), model_max_length=77
        ),
        scheduler=PNDMScheduler(**SCHEDULER | scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def state_dicts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a diffusers folder, by their folder; the text encoder's old names."""
    found = {
        part: load_file(folder / part / name)
        for part, name in [
            ("unet", "diffusion_pytorch_model.safetensors"),
            ("vae", "diffusion_pytorch_model.safetensors"),
            ("text_encoder", "model.safetensors"),
        ]
    }
    found["text_encoder"] = {
        name if name.startswith("text_model.") else f"text_model.{name}": value
        for name, value in found["text_encoder"].items()
    }
    return found


def exact(scheduler):
    """The scheduler with alphas in float64, from their definition: theirs are float32."""
    c = scheduler.config
    beta = torch.linspace(
        c.beta_start**0.5, c.beta_end**0.5, c.num_train_timesteps, dtype=torch.float64
    )
    scheduler.alphas_cumprod = (1 - beta**2).cumprod(0)
    if c.set_alpha_to_one:
        scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    else:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def save_compvis(path: Path, folder: Path, names: dict[str, dict[str, str]], extras=()) -> None:
    """Weights of a diffusers folder as one file; names: part -> diffusers' name -> CompVis'."""
    tensors = dict(extras)
    for part, found in state_dicts(folder).items():
        for name, value in found.items():
            attention = part == "vae" and ".attentions.0.to_" in name and value.ndim == 2
            value = value[:, :, None, None] if attention else value
            tensors[PREFIXES[part] + names[part][name]] = value.contiguous()
    save_file(tensors, path)
