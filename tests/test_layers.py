"""The layers against their definitions, written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm_edu.layers import (
    GEGLU,
    Attention,
    AttentionBlock,
    Downsample,
    Pointwise,
    ResBlock,
    SpatialTransformer,
    TimeEmbedding,
    TransformerBlock,
    Upsample,
    timestep_embedding,
    zero_init,
)


@pytest.fixture(autouse=True)
def _double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def filled(module):
    """Random weights everywhere: zero-initialised layers would hide what is before them."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module.eval()


def one_tap(conv, row, column):
    """A convolution that picks one pixel of its 3x3 window."""
    with torch.no_grad():
        zero_init(conv)
        conv.weight[range(len(conv.weight)), range(len(conv.weight)), row, column] = 1
    return conv


# ---- time


def test_timestep_embedding_has_stable_diffusions_values():
    expected = [0.6799572, -0.7579525, -0.9267150, 0.5561918]  # cosines
    expected += [0.7332518, -0.6523097, -0.3757649, 0.8310540]  # sines
    found = timestep_embedding(torch.tensor([981]), 8)
    assert found.dtype == torch.float32 and found.shape == (1, 8)
    assert found[0].tolist() == pytest.approx(expected, abs=2e-5)  # 981 rounds to 3e-5 radians


@pytest.mark.parametrize("dim", [2, 6, 320])
def test_timestep_embedding_is_cosines_then_sines_of_falling_frequencies(dim):
    t, half = [0, 1, 17, 1000], dim // 2
    angles = [[k * 10_000 ** (-i / half) for i in range(half)] for k in t]
    expected = [[*map(math.cos, row), *map(math.sin, row)] for row in angles]
    torch.testing.assert_close(
        timestep_embedding(torch.tensor(t), dim).double(),
        torch.tensor(expected),
        rtol=0,
        atol=2e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_time_embedding_is_two_linear_layers_in_the_models_dtype(dtype):
    layer, t = TimeEmbedding(8).to(dtype), torch.tensor([1, 500])
    hidden = F.silu(layer.linear1(timestep_embedding(t, 8).to(dtype)))
    assert layer(t).shape == (2, 32) and layer(t).dtype == dtype
    torch.testing.assert_close(layer(t), layer.linear2(hidden))


# ---- residual block


def test_pointwise_is_a_1x1_convolution_with_its_weights():
    layer, h = filled(Pointwise(4, 6)), torch.randn(2, 4, 3, 5)
    assert layer.weight.shape == (6, 4, 1, 1)
    expected = F.conv2d(h, layer.weight, layer.bias)
    torch.testing.assert_close(layer(h), expected)
    torch.testing.assert_close(layer(h.to(memory_format=torch.channels_last)), expected)


def test_res_block_is_its_formula():
    block, h, time = (
        filled(ResBlock(4, 6, 5, groups=2)),
        torch.randn(2, 4, 3, 5),
        torch.randn(2, 5),
    )
    r = F.silu(F.group_norm(h, 2, block.norm1.weight, block.norm1.bias, eps=1e-5))
    r = F.conv2d(r, block.conv1.weight, block.conv1.bias, padding=1)
    r = r + (time @ block.time.weight.T + block.time.bias)[:, :, None, None]
    r = F.silu(F.group_norm(r, 2, block.norm2.weight, block.norm2.bias, eps=1e-5))
    r = F.conv2d(r, block.conv2.weight, block.conv2.bias, padding=1)
    skip = F.conv2d(h, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(h, time), skip + r)


def test_res_block_starts_as_the_identity():
    h = torch.randn(2, 4, 3, 3)
    assert torch.equal(ResBlock(4, 4, None, groups=2)(h), h)
    assert torch.equal(ResBlock(4, 4, 7, groups=2)(h, torch.randn(2, 7)), h)


def test_res_block_converts_channels_only_where_they_change():
    assert isinstance(ResBlock(4, 4, None, 2).skip, nn.Identity)
    assert ResBlock(4, 6, None, 2).skip.weight.shape == (6, 4, 1, 1)


def test_res_block_takes_the_eps_of_its_norms():
    h = 1e-3 * torch.randn(1, 4, 3, 3)  # variance 1e-6: here eps tells
    for eps in (1e-5, 1e-6):
        block = filled(ResBlock(4, 4, None, groups=2, eps=eps))
        assert block.norm1.eps == block.norm2.eps == eps
        norm = (h.view(1, 2, -1) - h.view(1, 2, -1).mean(2, keepdim=True)) / (
            h.view(1, 2, -1).var(2, unbiased=False, keepdim=True) + eps
        ).sqrt()
        weight, bias = (p[:, None, None] for p in (block.norm1.weight, block.norm1.bias))
        torch.testing.assert_close(block.norm1(h), norm.view_as(h) * weight + bias)


def test_dropout_acts_in_training_only():
    block, h = filled(ResBlock(4, 4, None, groups=2, dropout=0.5)), torch.randn(1, 4, 8, 8)
    assert torch.equal(block(h), block(h))
    block.train()
    assert not torch.equal(block(h), block(h))


# ---- attention


def attention_by_hand(layer, tokens, context, heads):
    out = []
    for b in range(len(tokens)):
        q = tokens[b] @ layer.to_q.weight.T
        k, v = (context[b] @ to.weight.T for to in (layer.to_k, layer.to_v))
        if layer.to_q.bias is not None:
            q, k, v = q + layer.to_q.bias, k + layer.to_k.bias, v + layer.to_v.bias
        d, mixed = q.shape[1] // heads, []
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            scores = (q[:, part] @ k[:, part].T / math.sqrt(d)).exp()
            mixed.append(scores / scores.sum(1, keepdim=True) @ v[:, part])
        out.append(torch.cat(mixed, 1) @ layer.to_out.weight.T + layer.to_out.bias)
    return torch.stack(out)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_softmax_over_the_tokens(heads, bias):
    tokens, context = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    alone = filled(Attention(8, heads, bias=bias))
    torch.testing.assert_close(alone(tokens), attention_by_hand(alone, tokens, tokens, heads))
    cross = filled(Attention(8, heads, context_dim=6, bias=bias))
    expected = attention_by_hand(cross, tokens, context, heads)
    torch.testing.assert_close(cross(tokens, context), expected)
    assert (cross.to_k.bias is not None) == bias and cross.to_out.bias is not None


def test_one_context_token_is_what_every_position_gets():
    layer = filled(Attention(8, 2, context_dim=6))
    mixed = layer(torch.randn(2, 5, 8), torch.randn(2, 1, 6))
    torch.testing.assert_close(mixed, mixed[:, :1].expand(2, 5, 8))


def test_geglu_multiplies_the_first_half_by_gelu_of_the_second():
    layer, tokens = filled(GEGLU(3)), torch.randn(2, 4, 3)
    value, gate = layer.proj_in.weight[:12], layer.proj_in.weight[12:]
    value = tokens @ value.T + layer.proj_in.bias[:12]
    gate = tokens @ gate.T + layer.proj_in.bias[12:]
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))  # exact, not the tanh form
    expected = (value * gelu) @ layer.proj_out.weight.T + layer.proj_out.bias
    torch.testing.assert_close(layer(tokens), expected)


def test_transformer_block_is_self_then_cross_then_feed_forward():
    block, tokens = filled(TransformerBlock(8, 2, 6)), torch.randn(2, 5, 8)
    context = torch.randn(2, 3, 6)
    norms = [
        lambda x, n=n: F.layer_norm(x, (8,), n.weight, n.bias, 1e-5)
        for n in (block.norm1, block.norm2, block.norm3)
    ]
    x = norms[0](tokens)
    h = tokens + attention_by_hand(block.self_attention, x, x, 2)
    h = h + attention_by_hand(block.cross_attention, norms[1](h), context, 2)
    h = h + block.feed_forward(norms[2](h))
    torch.testing.assert_close(block(tokens, context), h)


def test_transformer_block_without_a_context_width_has_no_cross_attention():
    block, tokens = filled(TransformerBlock(8, 2, None)), torch.randn(1, 5, 8)
    assert block.cross_attention is None and not hasattr(block, "norm2")
    h = tokens + block.self_attention(block.norm1(tokens))
    torch.testing.assert_close(block(tokens, None), h + block.feed_forward(block.norm3(h)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SpatialTransformer(8, 2, 6, depth=2, groups=4),
        lambda: AttentionBlock(8, groups=4, eps=1e-6),
    ],
    ids=["transformer", "autoencoder"],
)
def test_spatial_attention_has_no_idea_of_place(layer):
    """Positions are a set: permuting them permutes the output, rows and columns alike."""
    layer, h = filled(layer()), torch.randn(2, 8, 3, 5)
    args = [torch.randn(2, 4, 6)] if isinstance(layer, SpatialTransformer) else []
    order = torch.randperm(15)

    def permute(x):
        return x.flatten(2)[:, :, order].view_as(x)

    assert not torch.allclose(layer(h, *args), h)
    torch.testing.assert_close(layer(permute(h), *args), permute(layer(h, *args)))


def test_spatial_transformer_starts_as_the_identity_and_norms_with_1e_6():
    layer, h = SpatialTransformer(8, 2, 6, depth=1, groups=4), torch.randn(2, 8, 3, 5)
    assert torch.equal(layer(h, torch.randn(2, 4, 6)), h)
    assert layer.norm.eps == 1e-6


def test_attention_block_is_softmax_over_positions_plus_the_input():
    layer, h = filled(AttentionBlock(8, groups=4, eps=1e-6)), torch.randn(2, 8, 3, 5)
    tokens = F.group_norm(h, 4, layer.norm.weight, layer.norm.bias, 1e-6)
    tokens = torch.stack([tokens[:, :, y, x] for y in range(3) for x in range(5)], 1)
    mixed = attention_by_hand(layer.attention, tokens, tokens, 1)
    for i in range(15):
        y, x = divmod(i, 5)
        torch.testing.assert_close(layer(h)[:, :, y, x], h[:, :, y, x] + mixed[:, i])


# ---- resolution


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_downsample_pads_all_around_or_right_and_bottom_only(row, column, asymmetric):
    """The tap (row, column) of output (y, x) sees pixel (2y + row, 2x + column) - padding."""
    layer, h = Downsample(2, asymmetric), torch.randn(1, 2, 6, 8)
    one_tap(layer.conv, row, column)
    before = 0 if asymmetric else 1
    expected = torch.zeros(1, 2, 3, 4)
    for y in range(3):
        for x in range(4):
            v, u = 2 * y + row - before, 2 * x + column - before
            if 0 <= v < 6 and 0 <= u < 8:
                expected[:, :, y, x] = h[:, :, v, u]
    assert torch.equal(layer(h), expected)


def test_upsample_repeats_each_value():
    layer, h = Upsample(2), torch.randn(1, 2, 3, 4)
    one_tap(layer.conv, 1, 1)
    assert torch.equal(layer(h), h.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_zero_init_zeroes_all_and_returns_the_layer():
    layer = nn.Conv2d(2, 3, 3)
    assert zero_init(layer) is layer
    assert all((p == 0).all() for p in layer.parameters())
