"""Attention maps are the weights that the layers use, place by place and word by word."""

import pytest
import torch
from einops import rearrange
from helpers import filled

from ldm_edu import (
    Autoencoder,
    AutoencoderConfig,
    LatentDiffusion,
    NoiseSchedule,
    TextEncoder,
    TextEncoderConfig,
    UNet,
    UNetConfig,
    WordTokenizer,
)
from ldm_edu.bpe import ClipTokenizer
from ldm_edu.errors import InputError
from ldm_edu.images import to_uint8
from ldm_edu.lab.attention import (
    ALL,
    SIDE,
    attention_film,
    attention_maps,
    attention_weights,
    token_words,
    word_maps,
)
from ldm_edu.lab.word_swap import swap_word
from ldm_edu.layers import Attention

CAPTION = "a red circle on the left"
LAYER = "up.0.attention.0.blocks.0"


def a_unet(**changes):
    sizes = {"channels": (8, 16), "attention": (True, True), "blocks": 1, "groups": 4}
    return filled(UNet(UNetConfig(4, 4, **sizes | {"context_dim": 8} | changes)), 1)


@pytest.fixture(scope="module")
def pipe():
    config = AutoencoderConfig(latent_channels=4, channels=(4, 8), blocks=1, groups=2)
    tokenizer = WordTokenizer(["circle", "left", "red"], length=5)
    text_encoder = TextEncoder(TextEncoderConfig(tokenizer.vocabulary, 5, 8, 1, 2))
    parts = filled(Autoencoder(config)), a_unet()
    words = tokenizer, filled(text_encoder, 2)
    return LatentDiffusion(*parts, NoiseSchedule(), "v", 16, *words)


def test_the_weights_times_the_values_are_the_layers_answer():
    attention = filled(Attention(12, heads=3, context_dim=5))
    tokens, context = torch.randn(2, 7, 12), torch.randn(2, 4, 5)
    weights = attention_weights(attention, tokens, context)
    assert weights.shape == (2, 3, 7, 4)
    values = rearrange(attention.to_v(context), "b m (h d) -> b h m d", h=3)
    answer = attention.to_out(rearrange(weights @ values, "b h n d -> b n (h d)"))
    torch.testing.assert_close(answer, attention(tokens, context))


def test_there_is_a_map_for_each_cross_attention_in_the_order_of_the_pass():
    unet, context = a_unet(), torch.randn(2, 5, 8)
    z_t, t = torch.randn(2, 4, 8, 4), torch.tensor([5, 900])
    maps = attention_maps(unet, z_t, t, context)
    sides = [tuple(m.shape[2:4]) for m in maps.values()]
    assert sides == [(8, 4), (4, 2), (4, 2), (4, 2), (4, 2), (8, 4), (8, 4)]
    assert list(maps)[3] == LAYER
    for m in maps.values():
        assert m.shape[:2] == (2, 4) and m.shape[4] == 5
        torch.testing.assert_close(m.sum(4), torch.ones(m.shape[:4]))


def test_a_map_has_its_places_where_they_are():
    """A layer that asks with z_t itself, and one word that answers to its first channel."""
    unet = a_unet(channels=(8,), attention=(True,))
    z_t = torch.randn(1, 4, 4, 8)
    seen = {}
    block = unet.down[0].attention[0].blocks[0]
    block.norm2.register_forward_hook(lambda m, given, out: seen.update(tokens=out.detach()))
    maps = attention_maps(unet, z_t, torch.tensor([7]), context := torch.randn(1, 3, 8))
    weights = attention_weights(block.cross_attention, seen["tokens"], context)
    found = maps["down.0.attention.0.blocks.0"]
    for y, x in ((0, 0), (0, 7), (3, 1)):
        torch.testing.assert_close(found[0, :, y, x], weights[0, :, y * 8 + x])


def test_the_unet_is_left_as_it_was():
    unet, context = a_unet(), torch.randn(1, 5, 8)
    z_t, t = torch.randn(1, 4, 4, 4), torch.tensor([5])
    before = unet(z_t, t, context)
    attention_maps(unet, z_t, t, context)
    assert torch.equal(unet(z_t, t, context), before)
    assert not any(module._forward_pre_hooks for module in unet.modules())
    with pytest.raises(InputError, match="no cross-attention"):
        attention_maps(a_unet(context_dim=None), z_t, t, None)


def test_words_are_those_that_count_and_their_maps_add_up_to_one(pipe):
    assert token_words(pipe, CAPTION) == ["red", "circle", "left"]
    z_t = pipe.noise(1)
    maps = word_maps(pipe, CAPTION, z_t, 300, 16)
    context = pipe.embed([CAPTION])
    own = attention_maps(pipe.unet, z_t, torch.tensor([300]), context)[LAYER][0].mean(0)
    large = own.repeat_interleave(16 // own.shape[0], 0).repeat_interleave(
        16 // own.shape[1], 1
    )
    torch.testing.assert_close(maps[LAYER][1], large[..., 1])
    torch.testing.assert_close(maps[LAYER][3], large[..., 3:].sum(-1))  # two end tokens
    for m in maps.values():
        assert m.shape == (4, 16, 16)
        torch.testing.assert_close(m.sum(0), torch.ones(16, 16))
    layers = torch.stack([m for name, m in maps.items() if name != ALL])
    torch.testing.assert_close(maps[ALL], layers.mean(0))


def test_a_model_whose_tokens_are_no_words_is_refused_before_it_draws(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "denoise", None)
    for tokenizer in (None, object.__new__(ClipTokenizer)):
        monkeypatch.setattr(pipe, "tokenizer", tokenizer)
        with pytest.raises(InputError, match=f"found {type(tokenizer).__name__}"):
            attention_film(pipe, CAPTION)
        with pytest.raises(InputError, match="a WordTokenizer"):
            swap_word(pipe, CAPTION, CAPTION, 0.5)


def test_the_film_shows_the_guess_beside_a_map_for_each_word(pipe):
    film = attention_film(pipe, CAPTION, {"up": LAYER}, steps=2, seed=3)
    states = list(pipe.denoise(1, prompt=CAPTION, steps=2, seed=3))[:-1]
    assert list(film.panels) == ["the guess", "red", "circle", "left", "(end)"]
    assert [dial.places for dial in film.dials] == [[ALL, "up"]]
    assert [label.split(",")[0] for label in film.labels] == ["t = 1000", "t = 500"] * 2
    for frame, state in zip(film.frames, states * 2, strict=True):
        guess = to_uint8(pipe.decode(state.z0_hat))[0]
        assert torch.equal(frame[:, :SIDE:8, :SIDE:8], guess)
    brightest = torch.tensor([254, 232, 56], dtype=torch.uint8)[:, None, None]
    for k in range(1, 5):  # every map reaches its largest value in each shot
        left = k * (SIDE + 6)
        for shot in film.frames.unflatten(0, (2, 2)):
            panel = shot[..., left : left + SIDE]
            assert (panel.int() - brightest.int()).abs().amax(1).min() <= 2
