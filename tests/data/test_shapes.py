"""The procedural data set: its language, its drawing, its seeds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldm_edu import data
from ldm_edu.data import scenes as vocabulary
from ldm_edu.data.scenes import (
    BACKGROUNDS,
    COLORS,
    MAX_JITTER,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    ShapeObject,
    apart,
    caption,
    held_out,
    parse,
)
from ldm_edu.data.shapes import make, one_object, random_scene, random_scenes, render
from ldm_edu.errors import InputError

objects = st.builds(
    ShapeObject,
    st.sampled_from(SHAPES),
    st.sampled_from(list(COLORS)),
    st.sampled_from(list(SIZES)),
    st.sampled_from(list(PLACES)),
)
pairs = st.tuples(objects, objects).filter(lambda pair: apart(pair[0].place, pair[1].place))
scenes = st.builds(
    Scene, st.one_of(st.tuples(objects), pairs), st.sampled_from(list(BACKGROUNDS))
)
ALL = [ShapeObject(s, c, "small", p) for s in SHAPES for c in COLORS for p in PLACES]


@given(scenes)
def test_parse_inverts_caption(scene):
    assert parse(caption(scene)) == scene
    assert parse("  " + caption(scene).upper().replace(" ", "  ")) == scene


def test_caption_is_the_documented_sentence():
    blue = ShapeObject("square", "blue", "small", "at the top left")
    red = ShapeObject("circle", "red", "large", "at the bottom right")
    text = "a small blue square at the top left and a large red circle at the bottom right"
    assert caption(Scene((blue, red), "pale yellow")) == text + " on a pale yellow background"


@given(st.text())
def test_other_sentences_are_refused(text):
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a large pink circle in the center on a white background", "pink"),
        ("a huge red circle in the center on a white background", "huge"),
        ("a large red heart in the center on a white background", "heart"),
        ("a large red circle in the sky on a white background", "sky"),
        ("a large red circle in the center on a mauve background", "mauve"),
        ("a large red circle on a white background", "large red circle"),
        (
            "a large red circle at the top and a small blue ring in the center "
            "on a white background",
            "too close",
        ),
        (7, "int"),
    ],
)
def test_error_names_what_cannot_be_read(text, word):
    with pytest.raises(InputError, match=word) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("jitter", [(0.8, 0.0), (0.0, -0.8), (math.nan, 0.0), (0.0,)])
def test_jitter_beyond_its_limit_is_refused(jitter):
    with pytest.raises(InputError, match="jitter"):
        ShapeObject("circle", "red", "small", "at the top", jitter)


def test_a_scene_has_one_or_two_objects():
    disc = ShapeObject("circle", "red", "small", "at the top left")
    for number in (0, 3):
        with pytest.raises(InputError, match=f"found {number}"):
            Scene((disc,) * number, "white")


def test_colors_are_told_apart():
    def nearest(a, b):
        return min(math.dist(x, y) for x in a.values() for y in b.values() if x != y)

    assert nearest(COLORS, COLORS) > 100
    assert nearest(BACKGROUNDS, BACKGROUNDS) > 50
    assert nearest(COLORS, BACKGROUNDS) > 170


AREA = {  # of the outline of radius 1, from geometry
    "circle": math.pi,
    "square": (2 * 0.88) ** 2,
    "triangle": 3 * math.sqrt(3) / 4 * 1.1**2,
    "ring": math.pi * (1 - 0.25),
    "cross": 2 * (2 * 0.72) - 0.72**2,
}


@given(objects, st.tuples(*[st.floats(-MAX_JITTER, MAX_JITTER)] * 2))
def test_drawing_has_the_area_and_the_center_of_the_shape(obj, jitter):
    obj = ShapeObject(obj.shape, obj.color, obj.size, obj.place, jitter)
    image = render([Scene((obj,), "white")])[0].double()
    ground = torch.tensor(BACKGROUNDS["white"]).double()[:, None, None]
    ink = torch.tensor(COLORS[obj.color]).double()[:, None, None]
    cover = ((image - ground) * (ink - ground)).sum(0) / ((ink - ground) ** 2).sum()
    expected = AREA[obj.shape] * SIZES[obj.size] ** 2
    assert cover.sum() == pytest.approx(expected, rel=0.06)
    pixel = torch.arange(32) + 0.5
    x, y = (
        (cover.sum(0) * pixel).sum() / cover.sum(),
        (cover.sum(1) * pixel).sum() / cover.sum(),
    )
    assert (x, y) == (
        pytest.approx(obj.center[0], abs=0.2),
        pytest.approx(obj.center[1], abs=0.2),
    )


def test_triangle_points_up():
    image = render([parse("a large black triangle in the center on a white background")])
    width = (image[0, 0] < 128).sum(1)
    inside = width[width > 0]
    assert inside[0] < inside[-1]
    assert (inside.diff() >= 0).all()


def test_edges_are_antialiased_and_the_rest_is_plain():
    image = render([parse("a large red circle in the center on a white background")])[0]
    red, white = torch.tensor(COLORS["red"]), torch.tensor([255, 255, 255])
    full = (image == red[:, None, None]).all(0)
    empty = (image == white[:, None, None]).all(0)
    between = ~(full | empty)
    assert full[16, 16] and empty[0, 0]
    assert 20 < between.sum() < 70  # about the outline, 41 pixels long


def test_two_objects_are_both_drawn_and_lie_apart():
    for scene in random_scenes(300, 5):
        alone = [render([Scene((obj,), scene.background)])[0] for obj in scene.objects]
        plain = torch.tensor(BACKGROUNDS[scene.background]).byte()[:, None, None]
        drawn = [(image != plain).any(0) for image in alone]
        both = (render([scene])[0] != plain).any(0)
        assert torch.equal(both, torch.stack(drawn).any(0))
        assert len(drawn) == 1 or not (drawn[0] & drawn[1]).any()


def test_render_draws_each_scene_as_if_alone(monkeypatch):
    monkeypatch.setattr("ldm_edu.data.shapes._CHUNK", 7)
    many = random_scenes(20, 3)
    assert torch.equal(render(many), torch.cat([render([scene]) for scene in many]))


def test_render_needs_a_scene():
    with pytest.raises(InputError, match="no scenes"):
        render([])


def test_a_scene_depends_on_seed_and_index_alone():
    first, more = make(12, 4), make(30, 4)
    assert first.captions == more.captions[:12]
    assert torch.equal(first.images, more.images[:12])
    assert torch.equal(make(5, 4, start=7).images, first.images[7:])
    assert random_scene(4, 11) == random_scenes(12, 4)[11]
    assert make(12, 5).captions != first.captions


def test_labels_are_shape_and_color_of_the_first_object():
    made = make(200, 6)
    for text, label in zip(made.captions, made.labels.tolist(), strict=True):
        first = parse(text).objects[0]
        assert (SHAPES[label // 6], list(COLORS)[label % 6]) == (first.shape, first.color)
    assert made.labels.dtype == torch.int64 and vocabulary.LABELS == 30


def test_scenes_use_every_word_evenly():
    scenes = random_scenes(6000, 8)
    objs = [obj for scene in scenes for obj in scene.objects]
    assert len(objs) / len(scenes) == pytest.approx(1.5, abs=0.03)
    for name, words in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
        seen = [getattr(obj, name) for obj in objs]
        for word in words:
            assert seen.count(word) / len(seen) == pytest.approx(1 / len(words), abs=0.03)
    assert {obj.place for obj in objs} == set(PLACES)
    jitter = np.array([obj.jitter for obj in objs])
    assert np.abs(jitter.mean(0)).max() < 0.03
    assert jitter.min() < -0.7 and jitter.max() > 0.7


def test_a_tenth_of_the_combinations_is_held_out_and_every_pair_is_seen():
    marked = [obj for obj in ALL if held_out(obj)]
    assert len(marked) == 28 and len(ALL) == 270
    kept = [obj for obj in ALL if not held_out(obj)]
    assert len({(o.color, o.shape) for o in kept}) == 30
    assert len({(o.color, o.place) for o in kept}) == 54
    assert len({(o.shape, o.place) for o in kept}) == 45


@pytest.mark.parametrize(
    ("shape", "color", "place", "marked"),
    [
        ("circle", "red", "at the top left", True),  # 0 + 0 + 0
        ("circle", "red", "at the top", False),  # 0 + 0 + 1
        ("square", "orange", "at the top left", True),  # 3 + 7 + 0
        ("square", "red", "on the left", True),  # 0 + 7 + 3
        ("circle", "orange", "at the bottom", True),  # 3 + 0 + 7
        ("cross", "black", "at the bottom", True),  # 15 + 28 + 7
        ("cross", "black", "at the bottom right", False),  # 15 + 28 + 8
    ],
)
def test_the_rule_is_the_documented_one(shape, color, place, marked):
    assert held_out(ShapeObject(shape, color, "large", place)) is marked


def test_held_out_combinations_are_left_out_or_kept_alone():
    def marks(rule):
        return [[held_out(o) for o in scene.objects] for scene in random_scenes(3000, 2, rule)]

    assert not any(any(mark) for mark in marks("never"))
    assert all(all(mark) for mark in marks("only"))
    assert 0.10 < sum(any(mark) for mark in marks("any")) / 3000 < 0.19
    assert {len(mark) for mark in marks("only")} == {1, 2}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"count": 0, "seed": 1}, "count"),
        ({"count": 2.0, "seed": 1}, "count"),
        ({"count": 2, "seed": -1}, "seed"),
        ({"count": 2, "seed": 2**63}, "seed"),
        ({"count": 2, "seed": 1, "start": -1}, "start"),
        ({"count": 2, "seed": 1, "held_out": "some"}, "held_out"),
    ],
)
def test_bad_arguments_of_make(arguments, name):
    with pytest.raises(InputError, match=f"^{name} is "):
        make(**arguments)


def test_one_object_keeps_the_single_ones_whole_and_in_order():
    whole = make(60, seed=3)
    single = one_object(whole)
    kept = [i for i, text in enumerate(whole.captions) if " and " not in text]
    assert 0 < len(kept) < 60 and single.captions == [whole.captions[i] for i in kept]
    assert torch.equal(single.images, whole.images[kept])
    assert torch.equal(single.labels, whole.labels[kept])


def test_load_gives_the_two_splits():
    train, test = data.load("shapes", "train"), data.load("shapes", "test")
    assert train.images.shape == (20_000, 3, 32, 32) and train.images.dtype == torch.uint8
    assert test.images.shape == (2_000, 3, 32, 32) and test.labels.shape == (2_000,)
    assert (train.name, train.split, test.split) == ("shapes", "train", "test")
    assert len(train.captions) == 20_000
    assert not any(held_out(o) for text in train.captions for o in parse(text).objects)
    assert any(held_out(o) for text in test.captions for o in parse(text).objects)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)
