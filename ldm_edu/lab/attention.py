"""Which word a place looks at: the weights of the cross-attention, as maps."""

from math import isqrt

import matplotlib as mpl
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.film import MAT, Dial, Film, noise_label
from ldm_edu.images import image_grid, to_uint8
from ldm_edu.layers import Attention, TransformerBlock
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.text import WordTokenizer
from ldm_edu.unet import UNet

SIDE = 128  # pixels of a panel
END = "(end)"  # all end tokens together
ALL = "mean of all layers"


def attention_weights(attention: Attention, tokens: Tensor, context: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)), which the layer keeps to itself: (B, heads, N, M).

    tokens (B, N, dim) ask, context (B, M, context_dim) answers; each row adds up to 1.
    """
    q, k = attention.to_q(tokens), attention.to_k(context)
    q, k = (rearrange(x, "b n (h d) -> b h n d", h=attention.heads) for x in (q, k))
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)


@torch.no_grad()
def attention_maps(unet: UNet, z_t: Tensor, t: Tensor, context: Tensor) -> dict[str, Tensor]:
    """Weights of every cross-attention in unet(z_t, t, context): name -> (B, heads, h, w, M).

    In the order of the forward pass. Raises InputError for a U-Net without cross-attention.
    """
    maps, hooks, (H, W) = {}, [], z_t.shape[2:]
    for name, block in unet.named_modules():
        if isinstance(block, TransformerBlock) and block.cross_attention is not None:

            def keep(attention, given, name=name):
                weights = attention_weights(attention, *given)
                shrink = isqrt(H * W // weights.shape[2])  # of this level
                maps[name] = rearrange(weights, "b k (h w) m -> b k h w m", h=H // shrink)

            hooks.append(block.cross_attention.register_forward_pre_hook(keep))
    try:
        unet(z_t, t, context)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise InputError("this U-Net has no cross-attention: its context_dim is None")
    return maps


def token_words(pipe: LatentDiffusion, caption: str) -> list[str]:
    """The words of a caption that are tokens, in order; fillers such as "a" are none.

    Raises InputError for a model whose tokens are no words.
    """
    if not isinstance(pipe.tokenizer, WordTokenizer):
        found = type(pipe.tokenizer).__name__
        raise InputError(f"one map a word needs a model with a WordTokenizer, found {found}")
    ids = pipe.tokenizer([caption])[0].tolist()
    return [pipe.tokenizer.words[i - 1] for i in ids if i != pipe.tokenizer.end]


def word_maps(
    pipe: LatentDiffusion, caption: str, z_t: Tensor, t: int, size: int
) -> dict[str, Tensor]:
    """For each layer, and `ALL`: (words + 1, size, size), the mean over heads of z_t (1, ...).

    Map k is the share of the attention that word k gets at each place; the last is that of all
    end tokens together. The maps of a layer add up to 1 at each place.
    """
    words = len(token_words(pipe, caption))
    levels = torch.full((1,), t, device=z_t.device)
    found = attention_maps(pipe.unet, z_t, levels, pipe.embed([caption]))
    layers = {}
    for name, weights in found.items():
        share = weights[0].mean(0).permute(2, 0, 1).cpu()  # (M, h, w)
        share = torch.cat([share[:words], share[words:].sum(0, keepdim=True)])
        layers[name] = F.interpolate(share[None], (size, size), mode="nearest")[0]
    return {**layers, ALL: torch.stack(list(layers.values())).mean(0)}


def attention_film(
    pipe: LatentDiffusion, caption: str, layers: dict[str, str] | None = None, **options
) -> Film:
    """Film of one sample: the model's guess, and for each word where it is looked at.

    layers: what the dial says -> name of a layer as `attention_maps` has it, beside the mean of
    all. options: of `pipe.denoise`. Each map is scaled to its own largest value in the film,
    as words differ much in their share. Raises InputError as `token_words`.
    """
    words = token_words(pipe, caption)
    states = list(pipe.denoise(1, prompt=caption, **options))[:-1]  # the last is clean: no t
    shown = {ALL: ALL, **(layers or {})}
    guesses = [to_uint8(pipe.decode(state.z0_hat)) for state in states]
    at = [word_maps(pipe, caption, state.z_t, state.t, SIDE) for state in states]
    frames = []
    for layer in shown.values():
        maps = torch.stack([each[layer] for each in at])  # (F, words + 1, SIDE, SIDE)
        largest = maps.amax((0, 2, 3), keepdim=True)
        for guess, shares in zip(guesses, maps / largest, strict=True):
            picture = image_grid(guess, 1, scale=SIDE // guess.shape[-1])
            row = torch.cat([picture[None], _coloured(shares)])
            frames.append(image_grid(row, len(row), pad=6, fill=MAT))
    alpha_bar = pipe.schedule.alpha_bar
    return Film(
        frames=torch.stack(frames),
        labels=[noise_label(s.t, alpha_bar[s.t].item()) for s in states] * len(shown),
        alt="The picture that the model expects, and for each word of the caption a map of the "
        "places that look at it.",
        caption=f"{caption}. Bright: more attention. Each map has its own scale.",
        panels=["the guess", *words, END],
        start=len(states) - 1,
        name="Noise level t",
        dials=[Dial("Layer", list(shown))] if len(shown) > 1 else [],
        width=len(row) * 140,
    )


def _coloured(shares: Tensor) -> Tensor:
    colours = mpl.colormaps["cividis"](shares.numpy())[..., :3]  # (words + 1, h, w, 3)
    return (torch.from_numpy(colours) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
