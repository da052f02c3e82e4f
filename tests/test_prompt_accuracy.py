"""Scores on pictures whose answer is known, and the questions that are asked."""

import re
from dataclasses import replace

import pytest
import torch

from ldm_edu.data import ImageDataset, celeba, shapes
from ldm_edu.data.captions import CLASSES
from ldm_edu.errors import InputError
from ldm_edu.judges import Rates
from ldm_edu.prompt_accuracy import (
    ASKED,
    class_score,
    face_prompts,
    face_score,
    shape_score,
)

SCENES = shapes.random_scenes(24, seed=5)


def changed(scene, **fields):
    """The scene with another first object; jitter stays."""
    return replace(scene, objects=(replace(scene.objects[0], **fields), *scene.objects[1:]))


def other(name, names):
    return next(n for n in names if n != name)


def test_true_pictures_score_1():
    assert shape_score(shapes.render(SCENES), SCENES) == (1.0, 1.0, 1.0, 24)


def test_another_size_or_background_is_a_match_but_not_exact():
    sizes = [changed(s, size=other(s.objects[0].size, ("small", "large"))) for s in SCENES]
    assert shape_score(shapes.render(sizes), SCENES) == (1.0, 1.0, 0.0, 24)
    grounds = [
        replace(s, background=other(s.background, ("white", "pale blue"))) for s in SCENES
    ]
    assert shape_score(shapes.render(grounds), SCENES) == (1.0, 1.0, 0.0, 24)


@pytest.mark.parametrize(
    ("field", "names"), [("shape", ("circle", "cross")), ("color", ("red", "blue"))]
)
def test_another_shape_or_colour_is_clean_but_no_match(field, names):
    wrong = [changed(s, **{field: other(getattr(s.objects[0], field), names)}) for s in SCENES]
    assert shape_score(shapes.render(wrong), SCENES) == (1.0, 0.0, 0.0, 24)


def test_a_missing_or_an_added_object_is_no_match():
    two = [s for s in SCENES if len(s.objects) == 2]
    one = [replace(s, objects=s.objects[:1]) for s in two]
    assert shape_score(shapes.render(one), two)[:2] == (1.0, 0.0)
    assert shape_score(shapes.render(two), one)[:2] == (1.0, 0.0)


def test_objects_that_changed_places_are_no_match():
    two = [s for s in SCENES if len(s.objects) == 2]
    two = [s for s in two if s.objects[0].shape != s.objects[1].shape]
    swapped = [
        replace(
            s,
            objects=(
                replace(s.objects[0], place=s.objects[1].place),
                replace(s.objects[1], place=s.objects[0].place),
            ),
        )
        for s in two
    ]
    assert shape_score(shapes.render(swapped), two)[:2] == (1.0, 0.0)


def test_noise_is_neither_clean_nor_a_match():
    noise = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8)
    half = shapes.render(SCENES)
    half[::2] = noise[::2]
    assert shape_score(half, SCENES) == (0.5, 0.5, 0.5, 24)


def faces(n=60):
    """Attributes in which each of ASKED is there in one of three faces."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.zeros(n, dtype=torch.int64)
    for name in (*ASKED, "Wavy_Hair", "No_Beard"):
        on = torch.rand(n, generator=generator) < 1 / 3
        bits |= on.long() << celeba.ATTRIBUTES.index(name)
    return ImageDataset("celeba64", "test", torch.zeros(n, 3, 8, 8).byte(), [""] * n, bits)


def test_each_attribute_is_said_as_often_as_not():
    asked = face_prompts(faces(), 205)
    assert len(asked.captions) == 200
    for k in range(5):
        own = asked.attribute == k
        assert own.sum() == 40 and asked.said[own].sum() == 20


def test_what_is_said_stands_in_the_caption():
    words = [r"smiling", r"man", r"blond hair", r"glasses", r"hat"]
    asked = face_prompts(faces(), 100)
    for caption, k, said in zip(*asked, strict=True):
        found = re.search(rf"\b{words[k]}\b", caption.replace("wavy blond", "blond"))
        assert bool(found) == bool(said), caption


def test_captions_leave_nothing_out():
    every = sum(1 << celeba.ATTRIBUTES.index(name) for name in (*ASKED, "No_Beard"))
    none = 1 << celeba.ATTRIBUTES.index("No_Beard")
    mixed = faces(8)._replace(labels=torch.tensor([every] * 4 + [none] * 4))
    for caption in face_prompts(mixed, 80).captions:
        found = [
            w in re.findall(r"\w+", caption)
            for w in ("smiling", "man", "blond", "glasses", "hat")
        ]
        assert all(found) or not any(found), caption


def test_few_faces_come_again_and_none_is_an_error():
    one = faces()
    has = celeba.attributes(one.labels)[:, celeba.ATTRIBUTES.index("Wearing_Hat")]
    rows = torch.cat([(~has).nonzero()[:, 0], has.nonzero()[:1, 0]])
    few = one._replace(labels=one.labels[rows])
    asked = face_prompts(few, 100)
    hats = [c for c, k, said in zip(*asked, strict=True) if k == 4 and said]
    assert len(hats) == 10 and len(set(hats)) == 1
    with pytest.raises(InputError, match="Wearing_Hat True"):
        face_prompts(few._replace(labels=few.labels[:-1]), 100)
    with pytest.raises(InputError, match="at least 10, found 9"):
        face_prompts(one, 9)


class Oracle:
    """A judge that answers from a table instead of looking."""

    def __init__(self, names, table):
        self.config = type("Config", (), {"names": names})
        self.table = table

    def decide(self, images):
        return self.table


def test_faces_are_asked_for_the_prompt_s_own_attribute():
    asked = face_prompts(faces(), 100)
    names = ("Bald", *reversed(ASKED))  # in another order than ASKED
    table = torch.zeros(100, len(names), dtype=torch.bool)
    for i, (_, k, said) in enumerate(zip(*asked, strict=True)):
        table[i] = ~said  # wrong everywhere but in the column that is asked for
        table[i, names.index(list(ASKED)[k])] = said
    images = torch.zeros(100, 3, 8, 8, dtype=torch.uint8)
    score = face_score(Oracle(names, table), images, asked)
    assert score == {**dict.fromkeys(ASKED, Rates(1.0, 1.0, 10, 10)), "all": (1.0, 1.0, 50, 50)}
    always = face_score(Oracle(names, table | True), images, asked)
    assert always["all"].yes == 1 and always["all"].no == 0


def test_classes_are_counted_one_by_one():
    labels = torch.tensor([0, 0, 1, 1, 1, 9])
    decided = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 1, 2, 9]), 10).bool()
    found = class_score(Oracle(CLASSES, decided), torch.zeros(6, 3, 8, 8).byte(), labels)
    expected = {"airplane": 1 / 2, "automobile": 2 / 3, "truck": 1.0, "all": 4 / 6}
    assert found == pytest.approx(expected)


def test_samples_and_prompts_must_be_as_many():
    with pytest.raises(InputError, match="found 24 samples of 23 scenes"):
        shape_score(shapes.render(SCENES), SCENES[:-1])
    with pytest.raises(InputError, match="found 1 samples of 100 prompts"):
        face_score(Oracle((), None), torch.zeros(1, 3, 8, 8).byte(), face_prompts(faces(), 100))
