"""What several test files need."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ldm_edu import stages
from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.diffusion import Parameterisation
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.unet import UNet, UNetConfig

SAMPLERS = ["ddpm", "ddim", "dpm++", "heun", "plms"]


def filled(model: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """Random weights everywhere: zero-initialised layers would hide what is before them."""
    torch.manual_seed(seed)
    for p in model.parameters():
        nn.init.normal_(p, std=std)
    for m in model.modules():
        if isinstance(m, nn.GroupNorm | nn.LayerNorm):
            m.weight.data += 1
    return model.eval()


# autoencoder, denoiser, words and text encoder of `small_pipeline`
AE = AutoencoderConfig(
    latent_channels=3, channels=(4, 8), blocks=1, groups=4, patch=2, linear=True
)
NET = UNetConfig(3, 3, channels=(8, 8), blocks=1, heads=2, groups=4, dropout=0.3)
WORDS = WordTokenizer(["blue", "circle", "red", "square"], length=4)
TEXT = TextEncoderConfig(WORDS.vocabulary, WORDS.length, width=8, heads=2)


def small_pipeline(
    seed: int = 0,
    parameterisation: Parameterisation = "v",
    schedule: NoiseSchedule | None = None,
    words: bool = False,
) -> LatentDiffusion:
    """A pipeline of random weights for 16x16 images, with latents (3, 4, 4), and T = 100."""
    torch.manual_seed(seed)
    net = replace(NET, context_dim=8) if words else NET
    parts = [Autoencoder(AE), UNet(net), *([TextEncoder(TEXT)] if words else [])]
    for p in (p for part in parts for p in part.parameters()):
        nn.init.normal_(p, std=0.15)
    parts[0].set_latent_scale(torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 2.0, 3.0]))
    schedule = schedule or NoiseSchedule("cosine", 100)
    extra = (WORDS, parts[2]) if words else ()
    return LatentDiffusion(*parts[:2], schedule, parameterisation, 16, *extra)


def captioned_pipeline(
    captions: list[str] | None = None, side: int = 32, words_std: float = 0.1
) -> LatentDiffusion:
    """Random weights for images of `side`; with captions, it knows their words."""
    autoencoder = filled(
        Autoencoder(
            AutoencoderConfig(
                latent_channels=4, channels=(8, 8), blocks=1, patch=2, groups=4, linear=True
            )
        )
    )
    width = None if captions is None else 8
    unet = UNetConfig(4, 4, channels=(8, 8), blocks=1, heads=2, groups=4, context_dim=width)
    words = ()
    if captions is not None:
        tokenizer = WordTokenizer.of_captions(captions)
        text = TextEncoderConfig(tokenizer.vocabulary, tokenizer.length, 8)
        words = tokenizer, filled(TextEncoder(text), std=words_std)
    return LatentDiffusion(autoencoder, filled(UNet(unet)), NoiseSchedule(), "v", side, *words)


def images(n: int = 2, side: int = 16, seed: int = 0) -> Tensor:
    """Random images (n, 3, side, side) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, side, side, generator=generator) * 2 - 1


def interrupt_in(monkeypatch, stage, at):
    """Send Ctrl-C while step `at` of a stage is under way."""
    name = {"autoencoder": "autoencoder_loss", "diffusion": "diffusion_loss"}[stage]
    loss, calls = getattr(stages, name), []

    def interrupted(*args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*args, **kwargs)

    monkeypatch.setattr(stages, name, interrupted)


def weights(folder):
    """The model that a run left in `folder`: every tensor, by part and name."""
    pipe = LatentDiffusion.load(folder / "model")
    parts = {"ae": pipe.autoencoder, "unet": pipe.unet, "text": pipe.text_encoder}
    return {f"{p}.{k}": v for p, m in parts.items() for k, v in m.state_dict().items()}


def normal(*shape, seed=0) -> Tensor:
    """Draws of N(0, 1) that a seed fixes, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@contextmanager
def some_gpu() -> Iterator[str]:
    """A device "cuda" that this machine need not have: tensors on it have shapes, no values.

    As on true ones, tensors of two devices do not meet; as on Apple's, there is no float64.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _Gpu():
        yield "cuda"


class _Gpu(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named = named or {}
        if not any(_is_gpu(x) for x in tree_leaves((arguments, named))):
            with unset_fake_temporarily():
                return function(*arguments, **named)
        if function is torch.ops.aten._local_scalar_dense.default:
            return 1  # what .item() says where there are no values
        found = function(*arguments, **named)
        for x in tree_leaves(found):
            gpu = isinstance(x, Tensor) and _is_gpu(x.device)
            assert not gpu or x.dtype != torch.float64, f"{function} makes float64"
        return found


def _is_gpu(x: object) -> bool:
    return isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda")
