"""Has a model learned, or learned by heart? Two ways to ask.

Its loss: a model that stores pictures denoises those it was trained on better than unseen ones.
Its samples: copies lie nearer to training pictures than training pictures lie to each other.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ldm_edu.data import ImageDataset
from ldm_edu.diffusion import diffusion_loss
from ldm_edu.images import from_uint8
from ldm_edu.metrics import Nearest, nearest
from ldm_edu.pipeline import LatentDiffusion
from ldm_edu.seeds import noise_of

_BATCH = 250  # pictures at once
PAIRS = 8  # samples shown beside their nearest training pictures


def noise_levels(pipe: LatentDiffusion, count: int = 10) -> list[int]:
    """`count` noise levels, the middles of equal parts of {1..T}."""
    T = pipe.schedule.T
    return [round(T * (2 * i + 1) / (2 * count)) for i in range(count)]


@torch.no_grad()
def denoising_loss(
    pipe: LatentDiffusion, dataset: ImageDataset, levels: list[int], seed: int = 0
) -> Tensor:
    """Squared error of the model's prediction (eps, x0 or v: its own) a level: (levels, N).

    Not weighted, on the latents of all N images, with their captions. The noise of image i is
    that of (seed, i) at every level and for every data set: differences carry less of it.
    """
    n, losses = len(dataset.images), []
    noise = noise_of(n, seed, pipe.latent_shape)
    with tqdm(total=n, desc=f"loss, {dataset.split}", unit="image") as bar:
        for rows in torch.arange(n).split(_BATCH):
            z0 = pipe.encode(from_uint8(dataset.images[rows])).to(pipe.dtype)
            told = pipe.tokenizer is not None
            context = pipe.embed([dataset.captions[i] for i in rows]) if told else None
            losses.append(_losses(pipe, z0, noise[rows].to(z0), context, levels))
            bar.update(len(rows))
    return torch.cat(losses, dim=1)


def _losses(pipe, z0, eps, context, levels):
    rows = []
    for level in levels:
        t = torch.full((len(z0),), level, device=z0.device)
        model, schedule, kind = pipe.unet, pipe.schedule, pipe.parameterisation
        rows.append(diffusion_loss(model, schedule, z0, t, eps, context, kind))
    return torch.stack(rows).cpu()


class LossGap(NamedTuple):
    """Mean losses at noise levels t, of `count` training pictures and as many unseen ones.

    error: the standard error of the difference unseen - seen, level by level.
    """

    t: list[int]
    seen: list[float]
    unseen: list[float]
    error: list[float]
    count: int


def loss_gap(
    pipe: LatentDiffusion, seen: ImageDataset, unseen: ImageDataset, most: int = 1000
) -> LossGap:
    """Compare the loss on the first pictures of two sets, `most` of each or what both have."""
    n, levels = min(most, len(seen.images), len(unseen.images)), noise_levels(pipe)
    ours, theirs = (
        denoising_loss(pipe, s._replace(images=s.images[:n]), levels) for s in (seen, unseen)
    )
    error = (theirs - ours).std(1, correction=0) / n**0.5
    return LossGap(levels, ours.mean(1).tolist(), theirs.mean(1).tolist(), error.tolist(), n)


class Pair(NamedTuple):
    """Rows of a sample and of the training picture nearest to it, perhaps as in a mirror."""

    sample: int
    train: int
    mirrored: bool


class Copies(NamedTuple):
    """How near to training pictures samples come, beside what training pictures do.

    near: 1 % of training pictures have another one within this distance. closest: the least
    distance of a sample to a training picture. samples, restored, unseen: shares of the
    samples, of what the autoencoder makes of real unseen pictures, and of these themselves,
    that have a training picture within `near`; chance gives 0.01. A restored picture is as
    smooth as a sample, and no denoiser could have learned it by heart. pairs: the samples that
    come nearest, nearest first, each with its training picture: for the eye.
    """

    near: float
    closest: float
    samples: float
    restored: float
    unseen: float
    pairs: list[Pair]


def copies(
    train: Tensor,
    samples: Tensor,
    restored: Tensor,
    unseen: Tensor,
    mirrored: Tensor | None = None,
    most: int = 1000,
) -> Copies:
    """Find the nearest training pictures of samples, restored and unseen ones: rows (N, D).

    train, mirrored: the training pictures and their mirror images in the same order, of any
    dtype; the others: float. `most` training pictures, evenly spread, are asked for their
    nearest other: neither themselves nor their own mirror image.
    """
    own = torch.arange(0, len(train), max(1, -(-len(train) // most)))
    references = [train] if mirrored is None else [train, mirrored]
    near = _nearest(train[own].to(samples), references, own).distance
    near = near.double().quantile(0.01).item()
    found = [_nearest(rows, references) for rows in (samples, restored, unseen)]
    shares = [(rows.distance < near).double().mean().item() for rows in found]
    distance, index = found[0]
    first = distance.argsort(stable=True)[:PAIRS].tolist()
    places = [divmod(index[i].item(), len(train)) for i in first]
    pairs = [Pair(i, row, bool(side)) for i, (side, row) in zip(first, places, strict=True)]
    return Copies(near, distance.min().item(), *shares, pairs)


def side_by_side(pairs: list[Pair], samples: Tensor, train: Tensor) -> Tensor:
    """The pictures of P pairs: uint8 (2 P, 3, H, W), samples, then training pictures.

    samples, train: uint8 (N, 3, H, W), of which the pairs name rows.
    """
    theirs = [train[pair.train].flip(-1 if pair.mirrored else ()) for pair in pairs]
    return torch.stack([*(samples[pair.sample] for pair in pairs), *theirs])


def _nearest(rows: Tensor, references: list[Tensor], skip: Tensor | None = None) -> Nearest:
    """The nearest in any reference, all of M rows; index M is row 0 of the second."""
    found = [nearest(rows, reference, skip) for reference in references]
    distance, which = torch.stack([each.distance.cpu() for each in found]).min(0)
    index = torch.stack([each.index.cpu() for each in found]).gather(0, which[None])[0]
    return Nearest(distance, index + which * len(references[0]))
