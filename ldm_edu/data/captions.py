"""Sentences for the real data sets: a class name for CIFAR-10, attributes for CelebA.

CelebA's captions say only what a picture shows: hair, smile, beard, things worn. Attributes
that judge a person's looks, or describe the picture's quality, are left out on purpose.
"""

import re
from collections.abc import Collection

from ldm_edu.errors import InputError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
HAIR_COLORS = {
    "Black_Hair": "black",
    "Blond_Hair": "blond",
    "Brown_Hair": "brown",
    "Gray_Hair": "gray",
}
HAIR_FORMS = {"Straight_Hair": "straight", "Wavy_Hair": "wavy"}
WORN = {
    "Wearing_Hat": "a hat",
    "Wearing_Earrings": "earrings",
    "Wearing_Necklace": "a necklace",
    "Wearing_Necktie": "a necktie",
    "Wearing_Lipstick": "lipstick",
}
SPOKEN = (  # every attribute that a caption may mention
    *("Male", "Smiling", "Bald", "Bangs", "Eyeglasses", "No_Beard", "Goatee", "Mustache"),
    *(*HAIR_COLORS, *HAIR_FORMS, *WORN),
)


def class_caption(name: str) -> str:
    """ "horse" -> "a photo of a horse". Raises InputError for a name outside CLASSES."""
    name = class_name(name)
    return f"a photo of {'an' if name[0] in 'aeiou' else 'a'} {name}"


def class_name(text: str) -> str:
    """The class in a caption or a plain name: "a photo of a horse" -> "horse".

    Case and extra spaces do not matter. Raises InputError if the text names no class.
    """
    words = re.fullmatch(r"(?:a photo of )?(?:an? )?(\w+)", " ".join(str(text).lower().split()))
    if words is None or words[1] not in CLASSES:
        raise InputError(f"{text!r} names no class, expected one of: {', '.join(CLASSES)}")
    return words[1]


def face_caption(present: Collection[str], index: int) -> str:
    """A sentence about a CelebA face, such as "a smiling woman with blond hair and glasses".

    present: the names of the attributes that the face has. index: the number of the picture; it
    alone picks one of four ways to say it, so the caption of a picture never changes.
    """
    present = frozenset(present)
    person = "man" if "Male" in present else "woman"
    bald = "bald " if "Bald" in present else ""
    smiling = "smiling " if "Smiling" in present else ""
    features = _features(present)
    worn = [word for name, word in WORN.items() if name in present]
    way = index % 4
    if way == 0:  # everything in one list
        return f"a {smiling}{bald}{person}{_with(features + worn)}"
    if way == 1:
        wearing = _listed(", wearing ", worn)
        return f"a photo of a {smiling}{bald}{person}{_with(features)}{wearing}"
    if way == 2:  # the smile at the end
        end = ", smiling" if smiling else ""
        return f"a portrait of a {bald}{person}{_with(features + worn)}{end}"
    return f"a {smiling}{bald}{person}{_with(features[:1] or worn[:1])}"  # one thing only


def _features(present):
    """What grows on the head, then glasses."""
    words = []
    if "Bald" not in present:
        form = [word for name, word in HAIR_FORMS.items() if name in present][:1]
        color = [word for name, word in HAIR_COLORS.items() if name in present][:1]
        words += [" ".join([*form, *color, "hair"])] if form or color else []
        words += ["bangs"] if "Bangs" in present else []
    if "Goatee" in present:
        words.append("a goatee")
    elif "No_Beard" not in present:
        words.append("a beard")
    words += ["a mustache"] if "Mustache" in present else []
    return words + (["glasses"] if "Eyeglasses" in present else [])


def _with(words):
    return _listed(" with ", words)


def _listed(opening, words):
    if not words:
        return ""
    return opening + " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
