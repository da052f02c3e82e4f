"""Exercises of notebook 03, Build the U-Net."""

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise


def _map(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, dtype=torch.float64, generator=generator) + 1


def _norm_cases() -> dict:
    small = 0.002 * _map(2, 1, 4, 3, 3)  # where the epsilon counts
    return {
        "8 channels in 4 groups": (_map(0, 2, 8, 3, 3), 4),
        "6 channels in 1 group": (_map(1, 2, 6, 2, 4), 1),
        "4 channels of small values in 2 groups": (small, 2),
    }


def _group_norm(h, groups, root=0.5, eps=1e-5, correction=0, centre=True):
    grouped = h.reshape(len(h), groups, -1)
    mean = grouped.mean(2, keepdim=True) if centre else 0
    variance = grouped.var(2, keepdim=True, correction=correction)
    return ((grouped - mean) / (variance + eps) ** root).reshape(h.shape)


def _means(h, groups):
    grouped = h.reshape(len(h), groups, -1)
    return grouped.mean(2, keepdim=True).expand_as(grouped).reshape(h.shape)


def _whole_batch(h, groups):
    mixed = h.transpose(0, 1).reshape(1, h.shape[1], -1, 1)
    return _group_norm(mixed, groups).reshape(h.transpose(0, 1).shape).transpose(0, 1)


group_norm = Exercise(
    name="group_norm",
    cases=_norm_cases,
    right=_group_norm,
    mistakes={
        "You divide by the variance: a square root is missing.": (
            lambda h, groups: _group_norm(h, groups, root=1)
        ),
        "The epsilon is missing: 1e-5 is added to the variance, before the root.": (
            lambda h, groups: _group_norm(h, groups, eps=0)
        ),
        "`var` divides by n - 1 unless it is told not to: use correction=0.": (
            lambda h, groups: _group_norm(h, groups, correction=1)
        ),
        "The mean is not taken away.": lambda h, groups: _group_norm(h, groups, centre=False),
        "You normalise each channel by itself. A group holds C / groups channels.": (
            lambda h, groups: _group_norm(h, h.shape[1])
        ),
        "Your groups hold `groups` channels each. There are `groups` groups, of C / groups "
        "channels.": lambda h, groups: _group_norm(h, h.shape[1] // groups),
        "Only the mean is taken away. Divide by the root of the variance plus 1e-5, too.": (
            lambda h, groups: h - _means(h, groups)
        ),
        "You normalise all channels together. There are `groups` groups, each by itself.": (
            lambda h, groups: _group_norm(h, 1)
        ),
        "You take the mean over the batch too. Each picture is normalised by itself.": (
            _whole_batch
        ),
    },
    hints=(
        "Put the numbers of a group in one row: h.reshape(B, groups, -1).",
        "Per row: take the mean away, divide by the square root of the variance plus 1e-5. "
        "keepdim=True keeps the shapes fitting, correction=0 divides by n.",
        "grouped = h.reshape(len(h), groups, -1), and mean, variance = grouped's over 2; then "
        "((grouped - mean) / (variance + 1e-5) ** 0.5).reshape(h.shape).",
    ),
    praise="It is torch's group_norm, before the learned scale and shift.",
)


def _upsample(h):
    return h.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _bed_of_nails(h):
    wide = h.new_zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3])
    wide[:, :, ::2, ::2] = h
    return wide


upsample = Exercise(
    name="upsample",
    cases=lambda: {
        "a 2 x 3 map": (_map(0, 1, 2, 2, 3),),
        "a 4 x 4 map": (_map(1, 2, 3, 4, 4),),
    },
    right=_upsample,
    mistakes={
        "You put copies of the whole map side by side. Each value has to be repeated where it "
        "stands: repeat_interleave, not repeat.": lambda h: h.repeat(1, 1, 2, 2),
        "Every second value is zero: each value fills a 2 x 2 square.": _bed_of_nails,
        "Rows are repeated where they stand, but columns as a block.": (
            lambda h: h.repeat_interleave(2, 2).repeat(1, 1, 1, 2)
        ),
        "Columns are repeated where they stand, but rows as a block.": (
            lambda h: h.repeat_interleave(2, 3).repeat(1, 1, 2, 1)
        ),
    },
    hints=(
        "Value (i, j) has to fill (2i, 2j), (2i, 2j + 1), (2i + 1, 2j) and (2i + 1, 2j + 1).",
        "h.repeat_interleave(2, dim) repeats along one dimension, each value where it stands.",
        "h.repeat_interleave(2, 2).repeat_interleave(2, 3)",
    ),
    praise="The library does the same with `interpolate`, then smooths with a convolution.",
)


def _skips(channels, blocks, first=True, downs="inner"):
    pushed = [channels[0]] if first else []
    for level, c in enumerate(channels):
        pushed += [c] * blocks
        if downs == "all" or (downs == "inner" and level < len(channels) - 1):
            pushed.append(c)
    return pushed


skip_channels = Exercise(
    name="skip_channels",
    cases=lambda: {
        "channels (32, 64), 1 block": ((32, 64), 1),
        "channels (16, 32, 48), 2 blocks": ((16, 32, 48), 2),
        "channels (320, 640, 1280, 1280), 2 blocks": ((320, 640, 1280, 1280), 2),
    },
    right=_skips,
    mistakes={
        "The first entry is missing: the output of conv_in is pushed before any block.": (
            lambda channels, blocks: _skips(channels, blocks, first=False)
        ),
        "This is the order in which they are taken up. List them as they are pushed.": (
            lambda channels, blocks: _skips(channels, blocks)[::-1]
        ),
        "A map is pushed after each downsampling too; yours has the blocks only.": (
            lambda channels, blocks: _skips(channels, blocks, downs="none")
        ),
        "There is one too many at the end: the last level does not downsample.": (
            lambda channels, blocks: _skips(channels, blocks, downs="all")
        ),
    },
    hints=(
        "Walk down the network with a pencil. What is pushed on the stack first, before any "
        "residual block?",
        "conv_in pushes channels[0]. Each level pushes its width once a block, and once more "
        "after its downsampling. The last level does not downsample.",
        "Start with [channels[0]]. For each level add [c] * blocks, and, but for the last "
        "level, one more c.",
    ),
    praise="The last case is Stable Diffusion's: 12 maps pushed, and 12 popped on the way up.",
)

EXERCISES = (group_norm, upsample, skip_channels)
