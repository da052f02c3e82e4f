"""Everything joined, on models too small to be any good: what is asked, told and refused."""

import json

import pytest
import torch
from helpers import captioned_pipeline

from ldm_edu import (
    LatentDiffusion,
    checkpoint,
)
from ldm_edu import evaluate as evaluation
from ldm_edu.classifier import Classifier, ClassifierConfig
from ldm_edu.data import ImageDataset, celeba, shapes
from ldm_edu.data.captions import CLASSES, SPOKEN, class_caption
from ldm_edu.data.scenes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES
from ldm_edu.errors import CheckpointError, InputError
from ldm_edu.evaluate import data_of, evaluate, plain
from ldm_edu.evaluation_table import as_text
from ldm_edu.measures import likeness
from ldm_edu.memorisation import Copies
from ldm_edu.prompt_accuracy import ASKED

SPACES = {"toy": lambda x: x[:, :, ::8, ::8].flatten(1)}
WORDS = [" ".join([*SHAPES, *COLORS, *SIZES, *BACKGROUNDS, *PLACES, "and background"])]
ROWS = ["other real pictures", "their reconstructions", "samples"]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    monkeypatch.setattr(evaluation, "sampling_time", lambda pipe: 1.5)


def measured(name, words, train, test, judge=None):
    found = evaluate(captioned_pipeline(words), train, test, SPACES, judge, count=12, steps=1)
    assert found["data"] == name and found["count"] == 12
    assert list(found["likeness"]["toy"]) == ROWS
    assert json.loads(json.dumps(plain(found), allow_nan=False))["count"] == 12
    return found, as_text(found)


def test_shapes_with_captions():
    train, test = shapes.make(24, 1, "never"), shapes.make(8, 2)
    found, text = measured("shapes", WORDS, train, test)
    assert list(found["prompts"]) == ["seen combinations", "new combinations"]
    assert found["prompts"]["new combinations"].count == 12
    assert found["reconstruction"].count == 8
    assert found["loss"].count == sum(
        not any(map(shapes.held_out, shapes.parse(c).objects)) for c in test.captions
    )
    assert list(found["copies"]) == ["pixels", "toy"]
    shown = [found["neighbours"][8 * row : 8 * row + 8] for row in range(4)]
    for space, theirs in zip(("pixels", "toy"), shown[1::2], strict=True):
        rows = [pair.train for pair in found["copies"][space].pairs]
        assert torch.equal(theirs, train.images[rows])
    for words in ("N = 12", "guidance 2.0", "toy", "new combinations", "PSNR", "gap", "1.50 s"):
        assert words in text


def test_the_table_shows_the_nearest_of_all_three():
    train, test = shapes.make(24, 1, "never"), shapes.make(8, 2)
    found, _ = measured("shapes", WORDS, train, test)
    found["copies"] = {
        "pixels": Copies(near=3, closest=2, samples=0.1, restored=0.2, unseen=0.3, pairs=[])
    }
    head, row = as_text(found).split("nearest training pictures")[1].splitlines()[:2]
    assert head.split()[-3:] == ["samples", "restored", "unseen"]
    assert " ".join(row.split()) == "in pixels 3 2 10.0 % 20.0 % 30.0 %"


def test_shapes_without_captions_are_only_clean_or_not():
    train, test = shapes.make(24, 1, "never"), shapes.make(8, 2)
    found, text = measured("shapes", None, train, test)
    assert found["prompts"] == {"samples": {"clean": 0.0}}
    assert found["sampling"]["guidance"] is None and "guidance" not in text


def test_guidance_is_the_models_own_unless_told(monkeypatch):
    train, test, asked = shapes.make(24, 1, "never"), shapes.make(8, 2), []
    pipe, sample = captioned_pipeline(WORDS), LatentDiffusion.sample

    def spy(self, n, **options):
        asked.append(options.get("guidance"))
        return sample(self, n, **options)

    monkeypatch.setattr(LatentDiffusion, "sample", spy)
    found = evaluate(pipe, train, test, SPACES, count=12, steps=1, guidance=None)
    assert found["sampling"]["guidance"] == pipe.guidance and set(asked) == {None}
    asked.clear()
    found = evaluate(pipe, train, test, SPACES, count=12, steps=1, guidance=3.0)
    assert found["sampling"]["guidance"] == 3 and set(asked) == {3.0}


def pictures(name, split, n, captions, labels):
    images = torch.randint(256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(n))
    return ImageDataset(name, split, images.byte(), captions, labels)


def test_cifar10_has_its_judge_s_word_for_samples_and_for_real_pictures():
    labels = torch.arange(30) % 10
    captions = [class_caption(CLASSES[label]) for label in labels]
    train = pictures("cifar10", "train", 30, captions, labels)
    test = pictures("cifar10", "test", 10, captions[:10], labels[:10])
    judge = Classifier(ClassifierConfig(CLASSES, True, channels=(8, 8))).eval()
    found, text = measured("cifar10", captions, train, test, judge)
    assert list(found["prompts"]) == ["real pictures", *ROWS[1:]]
    assert all(0 <= row["all"] <= 1 for row in found["prompts"].values())
    assert "automobile" in text


def test_faces_are_asked_for_each_attribute():
    bits = [1 << celeba.ATTRIBUTES.index(name) for name in ASKED]
    labels = torch.tensor(bits * 5)
    captions = [
        "a smiling man with blond hair, glasses and a hat",
        "a woman wearing a beard",
    ] * 13
    train = pictures("celeba64", "train", 25, captions[:25], labels)
    test = pictures("celeba64", "test", 10, captions[:10], labels[:10])
    judge = Classifier(ClassifierConfig(SPOKEN, False, channels=(8, 8), patch=4)).eval()
    found, text = measured("celeba64", captions, train, test, judge)
    assert list(found["prompts"]["samples"]) == [*ASKED, "all"]
    assert found["prompts"]["real pictures"]["Smiling"][2:] == (2, 8)
    assert "Eyeglasses" in text and "said and seen" in text


def test_what_is_compared_to_is_never_what_is_compared(monkeypatch):
    """Each training picture carries its number: none may be on both sides."""
    train, test, seen = shapes.make(24, 1, "never"), shapes.make(4, 2), []
    marked = train.images.clone()
    marked[:, 0, 0, 0] = torch.arange(24, dtype=torch.uint8)

    def spy(real, other):
        seen.append([((x[:, 0] + 1) * 127.5).round().int().tolist() for x in (real, other)])
        return likeness(real, other)

    monkeypatch.setattr(evaluation, "likeness", spy)
    evaluate(
        captioned_pipeline(), train._replace(images=marked), test, SPACES, count=12, steps=1
    )
    (reference, floor), *others = seen
    assert sorted(reference + floor) == list(range(24)) and reference != list(range(12))
    assert len(others) == 2 and all(real == reference for real, _ in others)


def test_what_cannot_be_measured_is_said_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(LatentDiffusion, "sample", lambda *a, **k: pytest.fail("too late"))
    train, test = shapes.make(24, 1, "never"), shapes.make(4, 2)
    for count in (9, 13):
        with pytest.raises(InputError, match=f"from 10 to 12, .* found {count}"):
            evaluate(captioned_pipeline(), train, test, SPACES, count=count)
    with pytest.raises(InputError, match="images of 64 pixels, shapes has 32"):
        evaluate(captioned_pipeline(side=64), train, test, SPACES, count=12)
    with pytest.raises(InputError, match="the prompts of cifar10 need a judge"):
        evaluate(captioned_pipeline(), train._replace(name="cifar10"), test, SPACES, count=12)
    with pytest.raises(InputError, match="does not know the word"):
        evaluate(captioned_pipeline(["red"]), train, test, SPACES, count=12)


def test_a_model_says_what_it_was_trained_on(tmp_path):
    assert data_of("celeba64") == "celeba64"
    checkpoint.save(tmp_path / "a", {"notes": {"data": "cifar10"}}, {})
    assert data_of(tmp_path / "a") == "cifar10"
    checkpoint.save(tmp_path / "b", {"notes": {}}, {})
    with pytest.raises(InputError, match="give --data"):
        data_of(tmp_path / "b")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        data_of(tmp_path / "none")


def test_plain_has_objects_for_tuples_with_names_and_null_for_nan():
    found = plain({"a": [float("nan"), 1.5], "b": {"c": measured}, "d": None})
    assert found == {"a": [None, 1.5], "b": {"c": measured}, "d": None}
