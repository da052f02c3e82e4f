"""The two stages where the answer is known: what captions tell, and what they do not."""

from dataclasses import replace

import pytest
import torch

from ldm_edu import recipes
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.data.shapes import make
from ldm_edu.diffusion import diffusion_loss
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.latents import LatentSet
from ldm_edu.run_files import Log
from ldm_edu.schedule import NoiseSchedule
from ldm_edu.stages import denoiser_task, encode_once, train_denoiser
from ldm_edu.unet import UNetConfig

CAPTIONS = ["a red circle", "a blue circle"] * 32
RECIPE = replace(
    recipes.QUICKSTART["cifar10"],
    unet=UNetConfig(2, 2, channels=(8, 8), blocks=1, heads=2, groups=4, context_dim=8),
    batch_size=16,
    unet_lr=5e-3,
)


def trained(folder, recipe, steps=250):
    """Latents are +1 everywhere under a red caption, -1 under a blue one."""
    sign = torch.tensor([1.0, -1.0] * 32)[:, None, None, None].expand(64, 2, 4, 4)
    latents = LatentSet(sign, torch.full_like(sign, 0.05))
    log = Log(folder / "log.jsonl")
    try:
        return train_denoiser(recipe, latents, CAPTIONS, folder / "d", log, steps)
    finally:
        log.close()


def losses(unet, tokenizer, text_encoder):
    """Of red latents at t = 900, where only a caption can tell: told red, blue, nothing."""
    z0, t = torch.ones(64, 2, 4, 4), torch.full((64,), 900)
    eps = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        contexts = [text_encoder(tokenizer([c] * 64)) for c in ("red", "blue", "")]
        return [
            diffusion_loss(unet, NoiseSchedule(), z0, t, eps, c).mean().item() for c in contexts
        ]


def test_the_right_caption_helps_and_the_wrong_one_misleads(tmp_path):
    right, wrong, nothing = losses(*trained(tmp_path, replace(RECIPE, min_snr=None)))
    assert right < 0.3 * nothing and wrong > 1.5 * nothing


def test_captions_that_are_all_dropped_teach_nothing(tmp_path):
    recipe = replace(RECIPE, min_snr=None, caption_drop=1.0)
    right, wrong, nothing = losses(*trained(tmp_path, recipe))
    assert max(right, wrong, nothing) < 1.05 * min(right, wrong, nothing) < 1


def test_mirror_images_have_the_caption_of_the_original(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    latents = LatentSet(torch.zeros(8, 2, 4, 4), torch.ones(8, 2, 4, 4))
    _, tokenizer, _ = train_denoiser(RECIPE, latents, ["red"] * 4, tmp_path / "d", log, 2)
    log.close()
    assert tokenizer.words == ["red"]


@pytest.mark.parametrize("count", [3, 6, 11, 30])
def test_captions_that_belong_to_no_image_are_refused(count):
    latents = LatentSet(torch.zeros(10, 2, 4, 4), torch.ones(10, 2, 4, 4))
    with pytest.raises(InputError, match=f"{count} captions for 10 latents"):
        denoiser_task(RECIPE, latents, ["red"] * count)


def test_latents_of_other_images_are_not_read_back(tmp_path):
    recipe, images = replace(RECIPE, flip=True), make(6, seed=1)
    autoencoder = Autoencoder(recipe.autoencoder)
    once = encode_once(autoencoder, images, recipe, tmp_path / "z")
    again = encode_once(autoencoder, images, recipe, tmp_path / "z")
    assert torch.equal(once.mean, again.mean) and len(again.mean) == 12
    for other in (make(5, seed=1), images._replace(name="cifar10")):
        told = f"12 latents of shapes, not the {2 * len(other.images)} of {other.name}"
        with pytest.raises(CheckpointError, match=told):
            encode_once(autoencoder, other, recipe, tmp_path / "z")


def test_a_unet_without_a_context_has_no_words(tmp_path):
    mute = replace(RECIPE, unet=replace(RECIPE.unet, context_dim=None))
    unet, tokenizer, text_encoder = trained(tmp_path, mute, steps=2)
    assert tokenizer is None and text_encoder is None and unet.config.context_dim is None
    ones = torch.ones(10, 2, 4, 4)
    model, _, _ = denoiser_task(mute, LatentSet(ones, ones), captions=[])
    assert list(model) == ["unet"]
