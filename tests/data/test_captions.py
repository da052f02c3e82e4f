"""Sentences for CIFAR-10 and CelebA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldm_edu.data.captions import CLASSES, SPOKEN, class_caption, class_name, face_caption
from ldm_edu.data.celeba import ATTRIBUTES
from ldm_edu.errors import InputError

JUDGING = {
    *("Attractive", "Chubby", "Double_Chin", "Big_Nose", "Big_Lips", "Pale_Skin", "Young"),
    *("Bags_Under_Eyes", "Narrow_Eyes", "Pointy_Nose", "Receding_Hairline", "Blurry"),
    *("Oval_Face", "High_Cheekbones", "Rosy_Cheeks", "Heavy_Makeup"),
}
faces = st.frozensets(st.sampled_from(ATTRIBUTES))
indices = st.integers(0, 10**6)


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_can_be_read_from_its_caption(name):
    assert class_name(class_caption(name)) == name
    assert class_name(name) == class_name(f" A  photo of A {name.upper()}") == name


def test_articles():
    assert class_caption("horse") == "a photo of a horse"
    assert class_caption("airplane") == "a photo of an airplane"


@pytest.mark.parametrize(
    "text", ["", "zebra", "a photo of a", "a horse and a dog", "horses", 3]
)
def test_other_texts_name_no_class(text):
    with pytest.raises(InputError, match="airplane, automobile"):
        class_name(text)
    with pytest.raises(InputError):
        class_caption(text)


def test_the_four_ways_to_say_it():
    seen = {"Smiling", "Blond_Hair", "Wavy_Hair", "Eyeglasses", "Wearing_Hat", "No_Beard"}
    hair = "wavy blond hair"
    assert [face_caption(seen, index) for index in range(4)] == [
        f"a smiling woman with {hair}, glasses and a hat",
        f"a photo of a smiling woman with {hair} and glasses, wearing a hat",
        f"a portrait of a woman with {hair}, glasses and a hat, smiling",
        f"a smiling woman with {hair}",
    ]


@pytest.mark.parametrize(
    ("present", "text"),
    [
        ({"No_Beard"}, "a woman"),
        ({"Male", "No_Beard"}, "a man"),
        ({"Male", "Bald", "Black_Hair", "Bangs", "No_Beard"}, "a bald man"),
        ({"Male"}, "a man with a beard"),
        ({"Male", "Goatee"}, "a man with a goatee"),
        ({"Male", "Mustache", "No_Beard", "Gray_Hair"}, "a man with gray hair and a mustache"),
        ({"Bangs", "No_Beard", "Straight_Hair"}, "a woman with straight hair and bangs"),
        (
            {"Wearing_Lipstick", "Wearing_Earrings", "No_Beard"},
            "a woman with earrings and lipstick",
        ),
        ({"Male", "Wearing_Necktie", "No_Beard"}, "a man with a necktie"),
        ({"Wearing_Necklace", "No_Beard"}, "a woman with a necklace"),
    ],
)
def test_what_is_said(present, text):
    assert face_caption(present, 0) == text


@given(faces, indices)
def test_captions_judge_nobody(present, index):
    assert face_caption(present, index) == face_caption(present & set(SPOKEN), index)
    assert not JUDGING & set(SPOKEN)
    assert set(SPOKEN) <= set(ATTRIBUTES)


@given(faces, indices)
def test_captions_are_clean_sentences(present, index):
    text = face_caption(present, index)
    assert text == face_caption(sorted(present), index)
    assert "  " not in text and " ," not in text and text == text.strip() and "_" not in text
    assert ("woman" in text.replace(",", "").split()) == ("Male" not in present)
    assert ("smiling" in text) == ("Smiling" in present)
