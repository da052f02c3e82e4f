"""CompVis' layout: one file of all parts, and no settings: sizes follow from the shapes."""

import re
from collections.abc import Mapping
from pathlib import Path

from ldm_edu.autoencoder import AutoencoderConfig
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import CheckpointError
from ldm_edu.stable_diffusion.folder import renamed
from ldm_edu.stable_diffusion.key_map import PREFIXES
from ldm_edu.stable_diffusion.published import SUPPORTED, Published
from ldm_edu.stable_diffusion.tensors import StoredTensor, stored_tensors
from ldm_edu.text import TextEncoderConfig
from ldm_edu.unet import UNetConfig

Shapes = Mapping[str, tuple[int, ...]]

HEADS, HEAD_WIDTH = 8, 64  # of the U-Net; of CLIP: no shape tells
SIDE = 64  # of the latents it was trained on

# the schedule, which is computed, averaged weights, training's leftovers
EXTRAS = re.compile(
    r"betas|alphas_cumprod\w*|sqrt_\w+|log_\w+|logvar|posterior_\w+|lvlb_weights"
    r"|model_ema\..+|first_stage_model\.loss\..+"
)
OTHERS = {
    "conditioner.embedders.1.": "Stable Diffusion XL or its refiner",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "control_model.": "a ControlNet",
    "lora_unet_": "a LoRA, which changes a model but is none",
    "down_blocks.": "one part of a model in diffusers' layout: give the folder of all parts",
}


def read_file(path: Path, tokenizer: Path | None = None) -> Published:
    """What a `.safetensors` file in CompVis' layout holds.

    tokenizer: the folder of CLIP's vocabulary, which is not in the file; by default it is
    looked for beside it. Raises CheckpointError.
    """
    stored = stored_tensors(path)
    tensors = _parts(path, stored)
    shapes = {p: {n: t.shape for n, t in found.items()} for p, found in tensors.items()}
    try:
        autoencoder = _autoencoder(shapes["autoencoder"])
        configs = {
            "unet": _unet(shapes["unet"]),
            "autoencoder": autoencoder,
            "text_encoder": _text_encoder(shapes["text_encoder"]),
        }
    except KeyError as error:
        raise CheckpointError(f"{path} has no {error.args[0]}; {SUPPORTED}") from None
    except (IndexError, ValueError) as error:
        raise CheckpointError(f"{path} has shapes of another model: {error}") from None
    return Published(
        where=str(path),
        layout="compvis",
        tensors=tensors,
        tokenizer=ClipTokenizer.load(tokenizer or _beside(path)),
        image_size=SIDE * autoencoder.factor,
        **configs,
    )


def _parts(
    path: Path, stored: Mapping[str, StoredTensor]
) -> dict[str, dict[str, StoredTensor]]:
    for start, other in OTHERS.items():
        if any(name.startswith(start) for name in stored):
            raise CheckpointError(f"{path}: found {other}; {SUPPORTED}")
    parts = {part: {} for part in PREFIXES}
    for name, tensor in stored.items():
        part = next((p for p, prefix in PREFIXES.items() if name.startswith(prefix)), None)
        if EXTRAS.fullmatch(name):
            continue
        if part is None:
            raise CheckpointError(f"{path}: {name} is of no part of the model; {SUPPORTED}")
        parts[part][name.removeprefix(PREFIXES[part])] = tensor
    if empty := [part for part, found in parts.items() if not found]:
        raise CheckpointError(
            f"{path} has no {empty[0]} (nothing named {PREFIXES[empty[0]]}...); {SUPPORTED}"
        )
    return {part: renamed(part, found) for part, found in parts.items()}


def _unet(shapes: Shapes) -> UNetConfig:
    downs = sorted(int(m[1]) for m in _matches(r"input_blocks\.(\d+)\.0\.op\.weight", shapes))
    inputs = [int(m[1]) for m in _matches(r"input_blocks\.(\d+)\.0\..*", shapes)]
    blocks = downs[0] - 1 if downs else max(inputs, default=0)
    firsts = [1 + level * (blocks + 1) for level in range(len(downs) + 1)]  # of each level
    attention = [f"input_blocks.{k}.1.norm.weight" in shapes for k in firsts]
    block = "middle_block.1.transformer_blocks.{}.attn2.to_k.weight"
    return UNetConfig(
        in_channels=shapes["input_blocks.0.0.weight"][1],
        out_channels=shapes["out.2.weight"][0],
        channels=[shapes[f"input_blocks.{k}.0.in_layers.2.weight"][0] for k in firsts],
        blocks=blocks,
        attention=attention,
        heads=HEADS,
        context_dim=shapes[block.format(0)][1],
        depth=len(_matches(block.format(r"\d+"), shapes)),
        time_shift=-1,
    )


def _autoencoder(shapes: Shapes) -> AutoencoderConfig:
    levels = len(_matches(r"encoder\.down\.\d+\.block\.0\.conv1\.weight", shapes))
    conv = "encoder.down.{}.block.0.conv1.weight"
    return AutoencoderConfig(
        image_channels=shapes["encoder.conv_in.weight"][1],
        latent_channels=shapes["post_quant_conv.weight"][0],
        channels=[shapes[conv.format(level)][0] for level in range(levels)],
        blocks=len(_matches(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", shapes)),
        middle_attention="encoder.mid.attn_1.norm.weight" in shapes,
    )


def _text_encoder(shapes: Shapes) -> TextEncoderConfig:
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    return TextEncoderConfig(
        vocabulary=vocabulary,
        length=shapes["text_model.embeddings.position_embedding.weight"][0],
        width=width,
        layers=len(_matches(r".*\.layers\.\d+\.mlp\.fc1\.weight", shapes)),
        heads=max(1, width // HEAD_WIDTH),
        hidden=shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        causal=True,
        activation="quick_gelu",
    )


def _matches(pattern: str, shapes: Shapes) -> list[re.Match]:
    return [m for m in (re.fullmatch(pattern, name) for name in shapes) if m]


def _beside(path: Path) -> Path:
    for folder in (path.parent, path.parent / "tokenizer"):
        names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        if "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names:
            return folder
    raise CheckpointError(
        f"{path.name} holds weights but no vocabulary: put vocab.json and merges.txt, which "
        "any Stable Diffusion v1 in diffusers' layout has in its folder tokenizer, into "
        f"{path.parent / 'tokenizer'}, or name their folder with tokenizer=..."
    )
