"""The text encoder: CLIP's sizes and transformers' numbers."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import filled
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel

from ldm_edu.errors import InputError
from ldm_edu.text import TextEncoder, TextEncoderConfig, quick_gelu

SHAPES = Path(__file__).parent / "fixtures" / "sd15_state_dict_shapes.json"
TINY = TextEncoderConfig(11, 6, width=8, layers=2, heads=2)

# transformers' words for our parts, in the order in which they are replaced
NAMES = [
    (r"^text_model\.", ""),
    (r"embeddings\.(token|position)_embedding", r"\1"),
    (r"encoder\.layers", "blocks"),
    (r"self_attn", "attention"),
    (r"([qkv])_proj", r"to_\1"),
    (r"out_proj", "to_out"),
    (r"layer_norm", "norm"),
    (r"mlp\.fc", "linear"),
    (r"final_norm", "norm_out"),
]


def our_name(theirs):
    for pattern, ours in NAMES:
        theirs = re.sub(pattern, ours, theirs)
    return theirs


# ---- CLIP


def test_stable_diffusion_has_the_published_parameters():
    with torch.device("meta"):
        model = TextEncoder(TextEncoderConfig.stable_diffusion_v1())
    published = json.loads(SHAPES.read_text())["diffusers"]["text_encoder"]
    ours = {name: list(p.shape) for name, p in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == 123_060_480
    assert len(ours) == len(published) == 196
    assert ours == {our_name(name): shape for name, shape in published.items()}


PARITY = {
    "SD 1's plan, small": TextEncoderConfig(
        50, 9, width=24, layers=3, heads=4, causal=True, activation="quick_gelu"
    ),
    "SD 2's activation": TextEncoderConfig(40, 7, 16, 2, 2, causal=True),
    "another hidden width": TextEncoderConfig(
        30, 12, 12, 1, 3, hidden=20, causal=True, activation="quick_gelu"
    ),
    "one head, one token": TextEncoderConfig(9, 1, 8, 2, 1, causal=True),
}


def theirs_of(c):
    sizes = CLIPTextConfig(
        vocab_size=c.vocabulary,
        max_position_embeddings=c.length,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.hidden or 4 * c.width,
        hidden_act=c.activation,
    )
    return CLIPTextModel(sizes)


@pytest.mark.parity
@pytest.mark.parametrize("config", PARITY.values(), ids=PARITY)
def test_text_encoder_equals_transformers_in_float64(config):
    theirs = filled(theirs_of(config), std=0.3).double()
    stored = {k: v for k, v in theirs.state_dict().items() if "position_ids" not in k}
    ours = TextEncoder(config).double().eval()
    ours.load_state_dict({our_name(k): v for k, v in stored.items()})
    for count in {config.length, (config.length + 1) // 2}:
        ids = torch.randint(config.vocabulary, (3, count))
        with torch.no_grad():
            found, expected = ours(ids), theirs(ids).last_hidden_state
        assert expected.std() > 0.1
        assert (found - expected).abs().max() < 1e-10


def test_quick_gelu_is_close_to_gelu_but_not_gelu():
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    apart = (quick_gelu(x) - torch.nn.functional.gelu(x)).abs().max()
    assert 0.015 < apart < 0.025
    assert quick_gelu(torch.tensor(1 / 1.702)).item() == pytest.approx(0.731059 / 1.702)


# ---- what a token sees


@pytest.mark.parametrize("causal", [True, False])
def test_a_token_sees_later_ones_only_if_not_causal(causal):
    config = TextEncoderConfig(11, 6, width=8, heads=2, causal=causal)
    model = filled(TextEncoder(config), std=0.5).double()
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    changed = torch.tensor([[1, 2, 3, 9, 5, 6]])
    moved = (model(ids) - model(changed)).abs().amax(dim=(0, 2))  # (N,)
    assert (moved[3:] > 1e-6).all()
    assert (moved[:3] == 0).all() if causal else (moved[:3] > 1e-6).all()


def test_words_are_not_drowned_at_the_start():
    """Fresh contexts of one sentence's words differ: directions of different words are apart.

    With CLIP's small embeddings their mean cosine is 0.95, and a small model learns which words
    there are long before it learns which belong together.
    """
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(30, 14, width=96))
    tokens = torch.nn.functional.normalize(encoder(torch.randint(0, 30, (64, 14))), dim=-1)
    cosines = (tokens @ tokens.mT)[:, ~torch.eye(14, dtype=torch.bool)]
    assert cosines.mean() < 0.3


def test_a_causal_sentence_may_be_cut():
    config = TextEncoderConfig(11, 6, width=8, heads=2, causal=True)
    model = filled(TextEncoder(config), std=0.5).double()
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    torch.testing.assert_close(model(ids)[:, :4], model(ids[:, :4]), rtol=0, atol=1e-12)


def test_the_order_of_words_counts():
    model = filled(TextEncoder(TINY), std=0.5)
    one, other = model(torch.tensor([[1, 2, 0]])), model(torch.tensor([[2, 1, 0]]))
    assert (one[:, 2] - other[:, 2]).abs().max() > 1e-3


def test_sentences_of_a_batch_do_not_see_one_another():
    model = filled(TextEncoder(TINY)).double()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    torch.testing.assert_close(model(ids)[1:], model(ids[1:]), rtol=0, atol=1e-12)


def test_every_parameter_gets_a_gradient():
    model = filled(TextEncoder(TINY))
    model(torch.arange(6)[None]).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_config_survives_json():
    for config in (TINY, TextEncoderConfig.stable_diffusion_v1()):
        assert TextEncoderConfig(**json.loads(json.dumps(config.to_dict()))) == config


_MODEL = TextEncoder(TINY)


@given(shape=st.lists(st.integers(0, 8), max_size=3))
@settings(max_examples=60)
def test_only_short_rows_of_ids_are_accepted(shape):
    ids = torch.zeros(shape, dtype=torch.int64)
    if len(shape) == 2 and 1 <= shape[1] <= 6:
        assert _MODEL(ids).shape == (*shape, 8)
    else:
        with pytest.raises(InputError, match=re.escape(f"found torch.int64 {tuple(shape)}")):
            _MODEL(ids)


def test_ids_must_be_int64_and_in_the_vocabulary():
    for wrong in (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int32)):
        with pytest.raises(InputError, match="ids must be int64"):
            _MODEL(wrong)
    for i in (-1, 11):
        with pytest.raises(InputError, match=f"in 0..10, found {i}"):
            _MODEL(torch.tensor([[0, i]]))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"heads": 3}, "width 8 must divide into heads = 3"),
        ({"heads": 0}, "heads must be at least 1, found 0"),
        ({"vocabulary": 0}, "vocabulary must be at least 1, found 0"),
        ({"length": -2}, "length must be at least 1, found -2"),
        ({"activation": "relu"}, r"one of \['gelu', 'quick_gelu'\], found 'relu'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, found):
    with pytest.raises(InputError, match=found):
        TextEncoderConfig(**{**TINY.to_dict(), **changes})
