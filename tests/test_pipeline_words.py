"""A pipeline with words: prompts, guidance, and what is saved of them."""

import pytest
import torch
from torch import nn

from ldm_edu.autoencoder import Autoencoder, AutoencoderConfig
from ldm_edu.errors import InputError
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.samplers import ddim
from ldm_edu.sampling import denoise, predictor
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.unet import UNet, UNetConfig

AE = AutoencoderConfig(latent_channels=3, channels=(4, 8), blocks=1, groups=4)
NET = UNetConfig(3, 3, channels=(8, 8), blocks=1, heads=2, groups=4, context_dim=8)
TOKENIZER = WordTokenizer(["blue", "circle", "red", "square"], length=4)
SIZES = TextEncoderConfig(TOKENIZER.vocabulary, TOKENIZER.length, width=8, heads=2)


def make(words=True, guidance=2.0):
    torch.manual_seed(0)
    net = NET if words else UNetConfig(**{**NET.to_dict(), "context_dim": None})
    parts = [Autoencoder(AE), UNet(net), TextEncoder(SIZES)]
    for p in (p for part in parts for p in part.parameters()):
        nn.init.normal_(p, std=0.2)
    extra = (TOKENIZER, parts[2]) if words else (None, None)
    return LatentDiffusion(*parts[:2], NoiseSchedule(T=50), "v", 16, *extra, guidance)


@pytest.fixture(scope="module")
def pipe():
    return make()


def last(pipe, n=2, **options):
    return list(pipe.denoise(n, sampler="ddim", steps=4, **options))[-1].z_t


def by_hand(pipe, z_T, captions, guidance):
    """The loop of diffusion.py with the context written out."""
    ids = TOKENIZER(captions)
    context, empty = pipe.text_encoder(ids), pipe.text_encoder(torch.zeros_like(ids))
    predict = predictor(pipe.unet, pipe.schedule, "v", context, empty, guidance)
    return list(denoise(predict, pipe.schedule, z_T, ddim, pipe.schedule.timesteps(4)))[-1].z_t


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.5])
def test_a_prompt_is_its_tokens_as_context(pipe, guidance):
    captions = ["a red circle", "blue square"]
    found = last(pipe, prompt=captions, guidance=guidance)
    with torch.no_grad():
        expected = by_hand(pipe, pipe.noise(2), captions, guidance)
    torch.testing.assert_close(found, expected)


def test_no_prompt_is_the_empty_caption_and_guidance_0_forgets_the_prompt(pipe):
    nothing = last(pipe)
    assert torch.equal(nothing, last(pipe, guidance=7.0))  # nothing to exaggerate
    torch.testing.assert_close(nothing, last(pipe, prompt="", guidance=1.0))
    torch.testing.assert_close(nothing, last(pipe, prompt="red square", guidance=0.0))
    assert (nothing - last(pipe, prompt="red square", guidance=1.0)).abs().max() > 1e-3


def test_one_caption_serves_all_images(pipe):
    assert torch.equal(last(pipe, prompt="red"), last(pipe, prompt=["red", "red"]))


def test_the_models_own_guidance_is_the_default():
    eager = make(guidance=5.0)
    assert torch.equal(last(eager, prompt="red"), last(eager, prompt="red", guidance=5.0))
    assert not torch.equal(last(eager, prompt="red"), last(eager, prompt="red", guidance=2.0))


def test_words_are_saved_with_the_model(tmp_path):
    saved = make(guidance=3.0)
    saved.save(tmp_path / "pipe")
    loaded = LatentDiffusion.load(tmp_path / "pipe", device="cpu")
    assert loaded.guidance == 3.0
    assert loaded.tokenizer.to_dict() == TOKENIZER.to_dict()
    assert torch.equal(last(loaded, prompt="a blue circle"), last(saved, prompt="blue circle"))


def test_prompts_that_cannot_be():
    with pytest.raises(InputError, match="3 captions for n = 2"):
        make().sample(2, prompt=["red", "blue", "red"])
    with pytest.raises(InputError, match=r"does not know the word 'sqare'.*square"):
        make().sample(1, prompt="red sqare")
    with pytest.raises(InputError, match="without captions"):
        make(words=False).sample(1, prompt="red")


def test_a_model_without_words_samples_as_before():
    assert last(make(words=False)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("missing", ["tokenizer", "text_encoder"])
def test_words_need_both_parts(missing):
    parts = {"tokenizer": TOKENIZER, "text_encoder": TextEncoder(SIZES), missing: None}
    with pytest.raises(InputError, match="must agree"):
        LatentDiffusion(Autoencoder(AE), UNet(NET), NoiseSchedule(), image_size=16, **parts)
