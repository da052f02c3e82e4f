"""The two stages of latent diffusion, trained on a data set: autoencoder, then denoiser."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ldm_edu import checkpoint
from ldm_edu.autoencoder import Autoencoder
from ldm_edu.data import ImageDataset
from ldm_edu.diffusion import diffusion_loss
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.latents import LatentSet, encode_dataset, image_batch, measure_scale, rescale
from ldm_edu.losses import autoencoder_loss
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.recipes import Recipe
from ldm_edu.run_files import Log
from ldm_edu.runs import run_stage
from ldm_edu.schedule import Grid, NoiseSchedule
from ldm_edu.seeds import seeded
from ldm_edu.text import TextEncoder, TextEncoderConfig, WordTokenizer
from ldm_edu.training import TrainConfig, batch_index
from ldm_edu.unet import UNet

AUTOENCODER, DIFFUSION = "autoencoder", "diffusion"  # as folders and the log name them
LossFn = Callable[[nn.Module, int], Tensor]
_PCA_IMAGES = 2000


def train_autoencoder(
    recipe: Recipe,
    images: ImageDataset,
    folder: Path,
    log: Log,
    length: int | timedelta,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Autoencoder:
    """Stage one: L1 + KL on the images, from patch-PCA on; returns the averaged weights.

    folder: where the state lives; what it holds is gone on with. length: steps or a time.
    Raises Stopped after Ctrl-C, as `runs.run_stage` does.
    """
    with seeded(seed, 1):
        model = Autoencoder(recipe.autoencoder)
    count = len(images.images)
    some = torch.arange(0, count, max(1, count // _PCA_IMAGES))
    model.start_as_pca(image_batch(images.images, some), recipe.whiten)
    model = _placed(model, device)

    def loss_fn(model: nn.Module, step: int) -> Tensor:
        index = batch_index(count * (1 + recipe.flip), recipe.batch_size, seed, step)
        x = _placed(image_batch(images.images, index), device)
        posterior = model.encode(x)
        z = posterior.sample()
        # a denoiser's latents are never quite right: the decoder learns to bear it
        sigma = recipe.latent_noise * torch.rand(len(z), 1, 1, 1).to(z)
        z = z + sigma * z.std((0, 2, 3), keepdim=True).detach() * torch.randn_like(z)
        return autoencoder_loss(x, model.decode(z), posterior.kl(), recipe.kl_weight)

    config = TrainConfig(steps=1, lr=recipe.autoencoder_lr, seed=seed)
    return run_stage(folder, AUTOENCODER, model, loss_fn, config, length, log).ema


def encode_once(
    autoencoder: Autoencoder, images: ImageDataset, recipe: Recipe, folder: Path
) -> LatentSet:
    """The data set's scaled latents; sets the autoencoder's scale, measured on them.

    They are read from `folder` if they were encoded before. Raises CheckpointError if those are
    of other images, by name or number.
    """
    total = len(images.images) * (1 + recipe.flip)
    if checkpoint.exists(folder):
        config, tensors = checkpoint.load(folder)
        latents = LatentSet(**tensors["latents"])
        if (config["data"], len(latents.mean)) != (images.name, total):
            raise CheckpointError(
                f"{folder} holds {len(latents.mean)} latents of {config['data']}, not the "
                f"{total} of {images.name}: go on with the data it was begun with"
            )
    else:
        with tqdm(total=total, desc="encoding", unit="image") as bar:
            encoding = encode_dataset(autoencoder, images.images, recipe.flip)
            for done, latents in encoding:  # noqa: B007
                bar.update(done - bar.n)
        checkpoint.save(folder, {"data": images.name}, {"latents": latents._asdict()})
    mean, std = measure_scale(latents, per_channel=False)  # one for all: LDM app. G
    autoencoder.set_latent_scale(mean, std)
    return rescale(latents, mean, std)


def train_denoiser(
    recipe: Recipe,
    latents: LatentSet,
    captions: list[str],
    folder: Path,
    log: Log,
    length: int | timedelta,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[UNet, WordTokenizer | None, TextEncoder | None]:
    """Stage two: the task of `denoiser_task`, trained in `folder`.

    Returns the averaged weights; no tokenizer and text encoder for a U-Net without a context.
    Raises Stopped after Ctrl-C, as `runs.run_stage` does.
    """
    model, loss_fn, tokenizer = denoiser_task(recipe, latents, captions, seed, device)
    config = TrainConfig(steps=1, lr=recipe.unet_lr, ema=recipe.ema, seed=seed)
    ema = run_stage(folder, DIFFUSION, model, loss_fn, config, length, log).ema
    return ema["unet"], tokenizer, ema["text_encoder"] if tokenizer else None


def denoiser_task(
    recipe: Recipe,
    latents: LatentSet,
    captions: list[str],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[nn.ModuleDict, LossFn, WordTokenizer | None]:
    """What stage two trains: v-prediction on scaled latents, U-Net and text encoder together.

    captions: one an image; where latents hold mirror images too, these have the same caption.
    Only a U-Net with a context reads them.
    Returns the model {"unet", and for a U-Net with a context "text_encoder"}, its loss at a
    step, loss_fn(model, step), and the tokenizer of the captions or None. Raises InputError if
    there are neither as many captions as latents nor half as many.
    """
    schedule, tokenizer, width = NoiseSchedule(), None, recipe.unet.context_dim
    if width and len(latents.mean) not in (len(captions), 2 * len(captions)):
        raise InputError(
            f"found {len(captions)} captions for {len(latents.mean)} latents: give one for "
            "each, or one for each pair of an image and its mirror image"
        )
    weights = recipe.min_snr, recipe.snr_floor
    with seeded(seed, 2):
        model = nn.ModuleDict({"unet": UNet(recipe.unet)})
        if width is not None:
            tokenizer = WordTokenizer.of_captions(captions)
            ids = tokenizer(captions)  # (N, length)
            sizes = TextEncoderConfig(tokenizer.vocabulary, tokenizer.length, width)
            model["text_encoder"] = TextEncoder(sizes)
    model = _placed(model, device)

    def loss_fn(model: nn.Module, step: int) -> Tensor:
        index = batch_index(len(latents.mean), recipe.batch_size, seed, step)
        shape = (len(index), *latents.mean.shape[1:])
        z0 = _placed(latents.sample(index, torch.randn(shape)), device)
        t = torch.randint(1, schedule.T + 1, (len(z0),)).to(device)
        eps = torch.randn(shape).to(z0)
        context, unet = None, model["unet"]
        if tokenizer is not None:
            # some captions become the empty one: guidance needs the unconditional model too
            keep = torch.rand(len(index), 1) >= recipe.caption_drop
            words = ids[index % len(ids)].where(keep, tokenizer.end)
            context = model["text_encoder"](words.to(device))
        return diffusion_loss(unet, schedule, z0, t, eps, context, "v", *weights).mean()

    return model, loss_fn, tokenizer


def join(
    recipe: Recipe,
    autoencoder: Autoencoder,
    unet: UNet,
    tokenizer: WordTokenizer | None,
    text_encoder: TextEncoder | None,
    image_size: int,
) -> LatentDiffusion:
    """The pipeline of two trained stages."""
    return LatentDiffusion(
        autoencoder,
        unet,
        NoiseSchedule(),
        "v",
        image_size,
        tokenizer,
        text_encoder,
        recipe.guidance,
        Grid(lowest=recipe.lowest),
    )


def _placed(thing, device: torch.device | str):
    # channels last is what CPU convolutions like best
    return thing.to(device, memory_format=torch.channels_last)
