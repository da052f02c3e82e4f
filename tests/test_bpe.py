"""CLIP's tokenizer: transformers' ids on any text, and the algorithm by hand."""

import random
import unicodedata

import pytest
import torch
from clip_vocabulary import (
    LATER,
    SETTINGS,
    assert_same,
    assigned,
    corpus,
    published_folders,
    theirs_of,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_edu.bpe import START, STOP, ClipTokenizer, byte_symbols, merge, spell, split_words
from ldm_edu.characters import normalize
from ldm_edu.errors import InputError

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return published_folders(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def ours(folders):
    return ClipTokenizer.load(folders["SD 1"])


@pytest.mark.parametrize("name", SETTINGS)
def test_ids_equal_transformers(folders, name):
    texts = corpus()
    assert len(texts) > 2500
    assert_same(ClipTokenizer.load(folders[name]), theirs_of(folders[name]), texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
        (
            "a photograph of an astronaut riding a horse",
            [49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407],
        ),
        ("Hello, World!", [49406, 3306, 267, 1002, 256, 49407]),
        ("", [49406, 49407]),
    ],
)
def test_published_ids(ours, text, expected):
    found = ours([text])
    assert found.shape == (1, 77) and found.dtype == torch.int64
    assert found[0].tolist() == expected + [49407] * (77 - len(expected))
    assert ours.vocabulary == 49_408 and ours.length == 77 and ours.end == 49_407


def test_stable_diffusion_2_pads_with_an_exclamation_mark(folders):
    tokenizer = ClipTokenizer.load(folders["SD 2"])
    assert tokenizer(["a cat"])[0].tolist() == [49406, 320, 2368, 49407] + [0] * 73


def test_a_long_caption_is_cut_and_ends(ours):
    row = ours(["cat " * 100])[0].tolist()
    assert row == [49406] + [2368] * 75 + [49407]
    assert ours(["cat " * 75])[0].tolist() == row
    assert ours(["cat " * 74])[0].tolist() == [49406] + [2368] * 74 + [49407] * 2


def test_no_captions_are_no_rows(ours):
    assert ours([]).shape == (0, 77) and ours([]).dtype == torch.int64


@pytest.fixture(scope="module")
def reference(folders):
    return theirs_of(folders["SD 1"])


_any_text = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
_like_captions = st.lists(
    st.sampled_from(
        ["a", "Cat", " ", "'s", "'", "!", "1", "é", "\u0301", "_", STOP, "\n", "猫"]
    )
).map("".join)


@given(texts=st.lists(_any_text | _like_captions, min_size=1, max_size=5))
@settings(max_examples=150)
def test_any_text_has_transformers_ids(ours, reference, texts):
    assert_same(ours, reference, texts)


def test_every_character_is_lowered_and_split_as_theirs(reference):
    backend = reference.backend_tokenizer
    points = [*range(0x33480), *range(0xE0000, 0xE0200)]
    chars = [chr(c) for c in points if assigned(chr(c)) or c in LATER]
    for at in range(0, len(chars), 2000):
        text = "".join(f"a{c}1{c}{c}!" for c in chars[at : at + 2000])
        assert normalize(text) == backend.normalizer.normalize_str(text)
        expected = [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(normalize(text))]
        found = ["".join(spell(w)).removesuffix("</w>") for w in split_words(normalize(text))]
        assert found == expected


def test_combining_marks_keep_the_order_of_their_unicode(reference):
    normalizer, r = reference.backend_tokenizer.normalizer, random.Random(0)
    marks = [chr(c) for c in range(0x1F000) if unicodedata.combining(chr(c))]
    for _ in range(20_000):
        text = "e" + "".join(r.choices(marks, k=r.randint(2, 4)))
        assert normalize(text) == normalizer.normalize_str(text), ascii(text)


# ---- the algorithm, by hand


def test_merges_follow_the_order_in_which_they_were_learnt():
    word = ["l", "o", "w", "e", "r</w>"]
    ranks = {("l", "o"): 0, ("o", "w"): 1, ("lo", "w"): 2, ("e", "r</w>"): 3}
    assert merge(word, ranks) == ["low", "er</w>"]
    ranks = {("o", "w"): 0, ("l", "o"): 1, ("lo", "w"): 2, ("e", "r</w>"): 3}
    assert merge(word, ranks) == ["l", "ow", "er</w>"]
    assert merge("aaaaa", {("a", "a"): 0, ("aa", "aa"): 1}) == ["aaaa", "a"]
    assert merge(["a"], {}) == ["a"]


def test_only_the_last_symbol_of_a_word_ends_it():
    assert spell("cat") == ["c", "a", "t</w>"]
    assert spell("é") == ["Ã", "©</w>"]
    assert len(set(byte_symbols())) == 256
    assert all(len(s) == 1 and s.isprintable() and not s.isspace() for s in byte_symbols())


def test_words():
    assert split_words("it's 42, ok'll") == ["it", "'s", "4", "2", ",", "ok", "'ll"]
    assert split_words("a_b  !?'s  x½三") == ["a", "_", "b", "!?'", "s", "x", "½", "三"]
    assert split_words(f"!{STOP}{STOP}") == ["!<|", "endoftext", "|><|", "endoftext", "|>"]
    assert split_words(f"{STOP}!") == ["<|", "endoftext", "|>", "!"]
    assert split_words(" ") == split_words("") == []


_letters = st.text("abc", min_size=1, max_size=8)


@given(learnt=st.lists(st.tuples(*[st.integers(0, 99)] * 2), max_size=12), text=_letters)
@settings(max_examples=60)
def test_any_merges_give_transformers_ids(tmp_path_factory, learnt, text):
    symbols, merges = [*"abc", "a</w>", "b</w>", "c</w>"], []
    for i, j in learnt:
        opening = [s for s in symbols if not s.endswith("</w>")]
        left, right = opening[i % len(opening)], symbols[j % len(symbols)]
        if left + right not in symbols:
            symbols, merges = [*symbols, left + right], [*merges, f"{left} {right}"]
    folder = write(tmp_path_factory.mktemp("any"), [*symbols, START, STOP], merges)
    assert_same(ClipTokenizer.load(folder), theirs_of(folder), [text, f"{text} d{text}é"])


# ---- refusals


@pytest.mark.parametrize(
    "captions", [[3], [None], [["a"]], [b"cat"], ["\ud800"], ["a", "\udfff"]]
)
def test_captions_must_be_texts(ours, captions):
    with pytest.raises(InputError, match=r"must be a str of Unicode text, found"):
        ours(captions)


def test_one_str_is_no_list_of_captions(ours):
    with pytest.raises(InputError, match="list of str, found the str 'a cat'"):
        ours("a cat")
