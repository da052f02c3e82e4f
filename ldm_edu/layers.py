"""The parts that the U-Net and the autoencoder share, as Stable Diffusion v1 has them.

Convolutions see (B, C, H, W), attention sees tokens (B, N, D).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of t, cosines first (LDM's order): (B,) -> (B, dim) float32; dim is even.

    Frequencies fall geometrically from 1 to 1/10000 (Vaswani et al. 2017, sec. 3.5).
    """
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    freqs = torch.exp(-math.log(10_000) * i / half)
    angles = t[:, None].float() * freqs  # (B, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """t (B,) -> (B, 4 dim): sinusoids, then two linear layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, 4 * dim)

    def forward(self, t: Tensor) -> Tensor:
        emb = timestep_embedding(t, self.dim).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(emb)))


class Pointwise(nn.Conv2d):
    """1x1 convolution, computed as the linear map of each position that it is.

    Its weight has a convolution's shape (out, in, 1, 1), as published weights do; with
    channels-last memory the permutations are views: on a CPU, less work than a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, h: Tensor) -> Tensor:
        positions = F.linear(h.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return positions.permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a residual; the time embedding is added between them.

    (B, in, H, W), time (B, time_dim) or None -> (B, out, H, W). `time` comes through its SiLU,
    which all blocks share. `eps` is the group norms'.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int | None,
        groups: int,
        eps: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels) if time_dim else None
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else Pointwise(in_channels, out_channels)

    def forward(self, h: Tensor, time: Tensor | None = None) -> Tensor:
        residual = self.conv1(F.silu(self.norm1(h)))
        if self.time is not None:
            residual = residual + self.time(time)[:, :, None, None]
        residual = self.conv2(self.dropout(F.silu(self.norm2(residual))))
        return self.skip(h) + residual


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, eq. 1).

    tokens (B, N, dim) ask, context (B, M, context_dim) answers; else they ask themselves.
    With `causal`, token i sees tokens 0..i only.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        context_dim: int | None = None,
        bias: bool = False,
        causal: bool = False,
    ):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=bias)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        context = tokens if context is None else context
        q, k, v = self.to_q(tokens), self.to_k(context), self.to_v(context)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=self.heads) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.to_out(rearrange(mixed, "b h n d -> b n (h d)"))


class GEGLU(nn.Module):
    """Feed-forward layer with a gate: value * gelu(gate), 4 dim wide (Shazeer, 2002.05202)."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj_in = nn.Linear(dim, 8 * dim)
        self.proj_out = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.proj_in(tokens).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the context (if any), GEGLU; all residual."""

    def __init__(self, dim: int, heads: int, context_dim: int | None):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.cross_attention = None
        if context_dim is not None:
            self.norm2 = nn.LayerNorm(dim)
            self.cross_attention = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = GEGLU(dim)

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        tokens = tokens + self.self_attention(self.norm1(tokens))
        if self.cross_attention is not None:
            tokens = tokens + self.cross_attention(self.norm2(tokens), context)
        return tokens + self.feed_forward(self.norm3(tokens))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of a feature map: (B, C, H, W) -> (B, C, H, W).

    Code order self, cross, feed-forward, with group norm and 1x1 convolutions at both ends
    (CompVis `attention.py`; LDM's table 16 prints another order).
    """

    def __init__(
        self, channels: int, heads: int, context_dim: int | None, depth: int, groups: int
    ):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = Pointwise(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_dim) for _ in range(depth)
        )
        self.proj_out = zero_init(Pointwise(channels, channels))

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        height = h.shape[2]
        tokens = rearrange(self.proj_in(self.norm(h)), "b c h w -> b (h w) c")
        for block in self.blocks:
            tokens = block(tokens, context)
        return h + self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=height))


class AttentionBlock(nn.Module):
    """Single-head self-attention over positions, residual: the autoencoder's middle."""

    def __init__(self, channels: int, groups: int, eps: float):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=eps)
        self.attention = Attention(channels, heads=1, bias=True)

    def forward(self, h: Tensor) -> Tensor:
        tokens = rearrange(self.norm(h), "b c h w -> b (h w) c")
        return h + rearrange(self.attention(tokens), "b (h w) c -> b c h w", h=h.shape[2])


class Downsample(nn.Module):
    """Halve H and W by a strided 3x3 convolution.

    The U-Net pads all four sides by one, the autoencoder only right and bottom (`asymmetric`).
    """

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.pad = (0, 1, 0, 1) if asymmetric else (1, 1, 1, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.pad(h, self.pad))


class Upsample(nn.Module):
    """Double H and W: repeat each value, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


def zero_init(layer: nn.Module) -> nn.Module:
    """Start a layer at zero, so that the residual around it starts as the identity."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
