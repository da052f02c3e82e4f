"""Judges of prompts for the real data sets: trained on real images only, by one command.

    ldm-edu train classifier --recipe celeba64 --root FOLDER --out runs/celeba64-judge

A judge's word is worth what it reaches on real test images, so `accuracy` is told with it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu import checkpoint, data
from ldm_edu.classifier import Classifier, ClassifierConfig
from ldm_edu.data import ImageDataset, celeba
from ldm_edu.data.captions import CLASSES, SPOKEN
from ldm_edu.errors import InputError
from ldm_edu.latents import image_batch
from ldm_edu.pretrained import weights_folder
from ldm_edu.run_files import Log, make_folder, steps_of
from ldm_edu.runs import run_stage
from ldm_edu.seeds import check_seed, seeded
from ldm_edu.training import TrainConfig, batch_index

STAGE = "classifier"  # as a folder and the log name it


@dataclass(frozen=True)
class JudgeRecipe:
    """One data set's judge: sizes, and how long it learns."""

    classifier: ClassifierConfig
    steps: int
    batch_size: int = 128
    lr: float = 3e-3
    warmup: int = 300
    weight_decay: float = 0.05
    ema: float = 0.995
    shift: int = 4  # pixels, most, each way


_SIZES = {"channels": (48, 96, 176)}  # 2 MB in half precision
JUDGES = {
    # all that a caption may say, though fewer are asked: each word teaches the others
    "celeba64": JudgeRecipe(
        ClassifierConfig(SPOKEN, exclusive=False, patch=4, dropout=0.2, **_SIZES), steps=2000
    ),
    "cifar10": JudgeRecipe(ClassifierConfig(CLASSES, exclusive=True, **_SIZES), steps=8000),
}


def train_classifier(
    name: str,
    root: str | None,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
) -> Classifier:
    """Train the judge of data set `name` in the folder `out`.

    root: where the data lie, as for `data.load`. steps: instead of the recipe's. resume: go on
    with a training that was stopped, of the same seed and steps. Saves the averaged weights, in
    half precision, in out/model and returns them as they are stored. Raises Stopped after
    Ctrl-C, with everything saved; an LdmEduError for bad input.
    """
    if name not in JUDGES:
        raise InputError(f"no judge of {name!r}: use one of {', '.join(JUDGES)}")
    check_seed(seed)
    if steps is not None and steps < 2:
        raise InputError(f"steps must be at least 2, found {steps}")
    if checkpoint.exists(out / STAGE) and not resume:
        raise InputError(f"{out / STAGE} already exists: add --resume to go on with it")
    recipe, train_set = JUDGES[name], data.load(name, "train", root)
    make_folder(out)
    with seeded(seed, 1):
        model = Classifier(recipe.classifier).to(memory_format=torch.channels_last)
    names = ("lr", "warmup", "weight_decay", "ema")
    config = TrainConfig(steps=1, seed=seed, **{name: getattr(recipe, name) for name in names})
    log = Log(out / "log.jsonl")
    try:
        loss_fn = _loss(recipe, train_set, seed)
        length = steps or steps_of(out / STAGE) or recipe.steps
        judge = run_stage(out / STAGE, STAGE, model, loss_fn, config, length, log).ema
    finally:
        log.close()
    judge.save(out / "model", data=name, steps=length, seed=seed)
    return Classifier.load(out / "model")


def load_judge(name: str) -> Classifier:
    """The shipped judge of a data set. Raises InputError if there is none for it."""
    if name not in JUDGES:
        raise InputError(f"no judge of {name!r}: use one of {', '.join(JUDGES)}")
    return Classifier.load(weights_folder() / "judges" / name)


def truth(dataset: ImageDataset, names: tuple[str, ...]) -> Tensor:
    """What a real data set says of its images: bool (N, K), one column for each of `names`.

    names: classes of CIFAR-10 or attributes of CelebA. Raises InputError for another set.
    """
    if dataset.name == "cifar10":
        return dataset.labels[:, None] == torch.tensor([CLASSES.index(name) for name in names])
    if dataset.name == "celeba64":
        columns = [celeba.ATTRIBUTES.index(name) for name in names]
        return celeba.attributes(dataset.labels)[:, columns]
    raise InputError(f"{dataset.name!r} has no labels to judge by: use {', '.join(JUDGES)}")


class Rates(NamedTuple):
    """How often a yes is said where one is due, and a no where a no is; of how many."""

    yes: float
    no: float
    yes_count: int
    no_count: int

    @property
    def balanced(self) -> float:
        """As if both were asked equally often: 0.5 is chance."""
        return (self.yes + self.no) / 2


def rates(decided: Tensor, due: Tensor) -> Rates:
    """Compare decisions with what is due, both bool (N,); a share of none is NaN."""
    yes, no = decided[due].double(), ~decided[~due]
    return Rates(yes.mean().item(), no.double().mean().item(), len(yes), len(no))


def accuracy(judge: Classifier, dataset: ImageDataset) -> dict[str, Rates]:
    """How right the judge is about real images, for each of its names."""
    decided, due = judge.decide(dataset.images), truth(dataset, judge.config.names)
    return {name: rates(decided[:, k], due[:, k]) for k, name in enumerate(judge.config.names)}


def _loss(recipe: JudgeRecipe, dataset: ImageDataset, seed: int):
    images, config = dataset.images, recipe.classifier
    due = truth(dataset, config.names).float()
    log_odds = torch.logit(due.mean(0), eps=1e-3)

    def loss_fn(model: nn.Module, step: int) -> Tensor:
        index = batch_index(len(images), recipe.batch_size, seed, step)
        mirrored = index + len(images) * torch.randint(2, index.shape)
        x = _shifted(image_batch(images, mirrored), recipe.shift)
        with torch.autocast("cpu", torch.bfloat16):  # nearly twice the images a second
            logits = model(x).float()
        if config.exclusive:
            return F.cross_entropy(logits, due[index])
        # what is rare is owed to the prior: without it, yes and no weigh the same
        # (Menon et al. 2021, arXiv 2007.07314, eq. 10)
        return F.binary_cross_entropy_with_logits(logits + log_odds, due[index])

    return loss_fn


def _shifted(x: Tensor, most: int) -> Tensor:
    """Each image moved by up to `most` pixels each way, its edge mirrored."""
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, [most] * 4, mode="reflect")
    tops, lefts = torch.randint(2 * most + 1, (2, n)).tolist()
    moved = [
        image[:, top : top + height, left : left + width]
        for image, top, left in zip(padded, tops, lefts, strict=True)
    ]
    return torch.stack(moved).to(memory_format=torch.channels_last)
