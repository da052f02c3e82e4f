"""Does the picture show what the prompt says? Asked of the judges, for each data set.

First the questions, which need no model: prompts, and what must be seen for each. Then the
answers, from samples as bytes. Guidance exaggerates what a prompt says, and with it these
numbers: read them beside recall, which pays for it.
"""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_edu.classifier import Classifier
from ldm_edu.data import ImageDataset, celeba
from ldm_edu.data.captions import CLASSES, face_caption
from ldm_edu.data.judge import Verdict, judge, matches
from ldm_edu.data.scenes import Scene
from ldm_edu.errors import InputError
from ldm_edu.judges import Rates, rates

ASKED = {  # attribute -> the word that says it in a caption
    "Smiling": "smiling",
    "Male": "man",
    "Blond_Hair": "blond",
    "Eyeglasses": "glasses",
    "Wearing_Hat": "hat",
}


class ShapeScore(NamedTuple):
    """Shares of pictures: see `shape_score`."""

    clean: float
    match: float
    exact: float
    count: int


def shape_score(samples: Tensor, scenes: list[Scene]) -> ShapeScore:
    """Samples uint8 (N, 3, 32, 32) of the captions of N scenes, read by the judge of `shapes`.

    clean: a plain background, one or two readable objects and nothing else. match: clean, and
    shape, colour and place of every object are those of the scene, none missing, none added.
    exact: sizes and background too. Raises InputError for other images or another N.
    """
    if len(samples) != len(scenes):
        raise InputError(f"found {len(samples)} samples of {len(scenes)} scenes")
    pairs = list(zip(judge(samples), scenes, strict=True))
    found = [(v.accepted, _objects(v) == _objects(s), matches(v, s)) for v, s in pairs]
    clean, match, exact = torch.tensor(found).double().mean(0).tolist()
    return ShapeScore(clean, match, exact, len(scenes))


class FacePrompts(NamedTuple):
    """N captions; each asks about one attribute: its index in ASKED, and whether it is said."""

    captions: list[str]
    attribute: Tensor  # int64 (N,)
    said: Tensor  # bool (N,)


def face_prompts(faces: ImageDataset, count: int) -> FacePrompts:
    """About `count` captions of CelebA faces in which each of ASKED is said as often as not.

    A tenth of them says, a tenth leaves out each attribute; the rest of a caption is a real
    face's, so that prompts stay natural. Where few faces have an attribute they come again. The
    captions are written so as to leave nothing out. Raises InputError for a count below 10, or
    if an attribute is never or always there.
    """
    share = count // (2 * len(ASKED))
    if share < 1:
        raise InputError(f"count must be at least {2 * len(ASKED)}, found {count}")
    present = celeba.attributes(faces.labels).tolist()
    names = [
        [name for name, bit in zip(celeba.ATTRIBUTES, bits, strict=True) if bit]
        for bits in present
    ]
    # the fourth way to write a caption names one thing only
    captions = [face_caption(name, index % 3) for index, name in enumerate(names)]
    said = torch.tensor(
        [[_says(caption, word) for word in ASKED.values()] for caption in captions]
    )
    rows, attribute, due = [], [], []
    for k, name in enumerate(ASKED):
        for value in (True, False):
            having = (said[:, k] == value).nonzero()[:, 0].tolist()
            if not having:
                raise InputError(f"no face in {faces.split} with {name} {value}: take more")
            rows += [having[i % len(having)] for i in range(share)]
            attribute += [k] * share
            due += [value] * share
    return FacePrompts(
        [captions[row] for row in rows], torch.tensor(attribute), torch.tensor(due)
    )


def face_score(judge: Classifier, samples: Tensor, prompts: FacePrompts) -> dict[str, Rates]:
    """Of samples uint8 (N, 3, 64, 64): seen where it was said, not seen where it was not.

    One entry for each of ASKED, and "all" for them together. Raises InputError for other
    images or another N.
    """
    if len(samples) != len(prompts.captions):
        raise InputError(f"found {len(samples)} samples of {len(prompts.captions)} prompts")
    columns = torch.tensor([judge.config.names.index(name) for name in ASKED])
    seen = judge.decide(samples)[torch.arange(len(samples)), columns[prompts.attribute]]
    own = {name: prompts.attribute == k for k, name in enumerate(ASKED)}
    score = {name: rates(seen[rows], prompts.said[rows]) for name, rows in own.items()}
    return {**score, "all": rates(seen, prompts.said)}


def class_score(judge: Classifier, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of images uint8 (N, 3, 32, 32) that the judge takes for their class, labels (N,).

    One entry for each class that occurs, and "all".
    """
    right = judge.decide(images)[torch.arange(len(images)), labels].double()
    own = {name: right[labels == k] for k, name in enumerate(CLASSES)}
    score = {name: found.mean().item() for name, found in own.items() if len(found)}
    return {**score, "all": right.mean().item()}


def _objects(shown: Verdict | Scene) -> list[tuple[str, str, str]]:
    return sorted((o.shape, o.color, o.place) for o in shown.objects)


def _says(caption: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", caption) is not None
