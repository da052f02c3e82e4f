"""One word of a caption changed, and the rest of the picture kept: prompt-to-prompt.

The cross-attention says which place looks at which word (`attention.py`). Here the second
caption's picture looks where the first one's does (Hertz et al. 2022, arXiv 2208.01626, sec.
3.2, word swap), during the first share of the steps, in which the layout is decided. Keeping
the whole first caption for that share is the plain way, to compare with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from ldm_edu.errors import InputError
from ldm_edu.lab.attention import attention_weights, token_words
from ldm_edu.layers import Attention, TransformerBlock
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.samplers import rule_named
from ldm_edu.sampling import Prediction, denoise, last_state
from ldm_edu.seeds import noise_stream
from ldm_edu.unet import UNet


@contextmanager
def same_attention(unet: UNet, n: int) -> Iterator[None]:
    """Within it, in batches of 2n, the last n look at their words as the first n at theirs.

    Only the weights of the cross-attention are shared; the words they fetch are each one's own.
    Batches of 4n, as guidance makes them, are two such batches.
    """

    def swap(attention: Attention, given: tuple[Tensor, Tensor], answer: Tensor) -> Tensor:
        tokens, context = given
        weights = attention_weights(attention, tokens, context).unflatten(0, (-1, 2, n))
        weights = weights[:, :1].expand_as(weights).flatten(0, 2)
        v = rearrange(attention.to_v(context), "b m (h d) -> b h m d", h=attention.heads)
        return attention.to_out(rearrange(weights @ v, "b h n d -> b n (h d)"))

    hooks = [
        block.cross_attention.register_forward_hook(swap)
        for block in unet.modules()
        if isinstance(block, TransformerBlock) and block.cross_attention is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def swap_word(
    pipe: LatentDiffusion,
    first: str,
    second: str,
    share: float,
    n: int = 1,
    *,
    keep: Literal["attention", "caption"] = "attention",
    guidance: float | None = None,
    sampler: str = "ddim",
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """n pictures of each of two captions, from the same noises: (2, n, 3, H, W) as `sample`.

    share: in [0, 1], of the steps. In the first ones the second picture keeps the attention of
    the first, or its whole caption; with share 0 it is `sample` of both. The captions must have
    as many words that count, place by place. Raises InputError.
    """
    if keep not in ("attention", "caption"):
        raise InputError(f"keep must be 'attention' or 'caption', found {keep!r}")
    words = [token_words(pipe, caption) for caption in (first, second)]
    if len(words[0]) != len(words[1]):
        raise InputError(
            f"word swap needs captions of as many words, found {words[0]} and {words[1]}"
        )
    if not 0 <= share <= 1:
        raise InputError(f"share must lie in [0, 1], found {share}")
    levels = pipe.timesteps(steps)
    kept = set(levels[: round(share * steps)])
    own = pipe.predictor(2 * n, [first] * n + [second] * n, guidance)
    early = pipe.predictor(2 * n, first, guidance)

    def predict(z_t: Tensor, t: int) -> Prediction:
        if t not in kept:
            return own(z_t, t)
        if keep == "caption":
            return early(z_t, t)
        with same_attention(pipe.unet, n):
            return own(z_t, t)

    z_T, rule, draw = pipe.noise(n, seed), rule_named(sampler), noise_stream(n, seed)

    def randn(like: Tensor) -> Tensor:
        return draw(like[:n]).repeat(2, 1, 1, 1)

    z_T = z_T.repeat(2, 1, 1, 1)
    states = denoise(predict, pipe.schedule, z_T, rule, levels, randn, pipe.grid.final)
    return pipe.decode(last_state(states).z_t).unflatten(0, (2, n))
