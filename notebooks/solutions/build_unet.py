"""Solutions of 03, Build the U-Net."""

from torch import Tensor


def group_norm(h: Tensor, groups: int) -> Tensor:
    """Each group of channels of each picture: mean 0, variance 1."""
    grouped = h.reshape(len(h), groups, -1)  # (B, groups, C/groups * H * W)
    mean = grouped.mean(2, keepdim=True)
    variance = grouped.var(2, keepdim=True, correction=0)
    return ((grouped - mean) / (variance + 1e-5) ** 0.5).reshape(h.shape)


def upsample(h: Tensor) -> Tensor:
    """Each value fills a 2 x 2 square: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def skip_channels(channels: tuple[int, ...], blocks: int) -> list[int]:
    """Channels of all maps pushed on the way down, in order."""
    pushed = [channels[0]]  # conv_in
    for level, c in enumerate(channels):
        pushed += [c] * blocks
        if level < len(channels) - 1:
            pushed.append(c)  # after downsampling
    return pushed
