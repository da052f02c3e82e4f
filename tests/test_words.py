"""The tokenizer of whole words."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_edu.data.captions import CLASSES, class_caption
from ldm_edu.data.scenes import caption
from ldm_edu.data.shapes import random_scenes
from ldm_edu.errors import InputError
from ldm_edu.text import FILLERS, WordTokenizer, split_words

WORDS = WordTokenizer(["blue", "circle", "red", "square"], length=4)


def test_words_have_ids_from_1_and_0_fills_up():
    found = WORDS(["a red circle", "Blue SQUARE.", ""])
    assert found.dtype == torch.int64
    assert found.tolist() == [[3, 2, 0, 0], [1, 4, 0, 0], [0, 0, 0, 0]]
    assert WORDS.vocabulary == 5 and WORDS.end == 0


def test_fillers_say_nothing():
    assert torch.equal(WORDS(["a photo of the red circle"]), WORDS(["red circle"]))
    assert WORDS([" ".join(FILLERS)]).tolist() == [[0, 0, 0, 0]]


def test_no_captions_are_no_rows():
    assert WORDS([]).shape == (0, 4) and WORDS([]).dtype == torch.int64


def test_a_word_is_letters_digits_and_inner_marks():
    found = split_words("A light-gray o'clock, (2nd) -x- 'y' a_b")
    assert found == ["a", "light-gray", "o'clock", "2nd", "x", "y", "a", "b"]
    assert split_words(" .,!") == []


def test_unknown_words_are_answered_by_near_ones():
    with pytest.raises(
        InputError, match=r"not know the word 'circel' in 'a red circel'.*circle"
    ):
        WORDS(["a red circel"])
    with pytest.raises(InputError, match=r"'xyzzy'.* knows blue, circle, red, square \.\.\."):
        WORDS(["xyzzy"])


def test_letters_outside_the_vocabulary_are_not_dropped():
    for word in ("кот", "猫", "café", "rød"):
        with pytest.raises(InputError, match=f"the word {word!r}"):
            WORDS([f"a red {word}"])


def test_too_many_words_are_refused():
    assert WORDS(["red red red"]).tolist() == [[3, 3, 3, 0]]
    with pytest.raises(InputError, match="has 4 words that count, at most 3"):
        WORDS(["red red red a red"])


@pytest.mark.parametrize("caption", [None, 3, b"red", ["red"]])
def test_a_caption_must_be_a_str(caption):
    with pytest.raises(InputError, match=f"must be a str, found {type(caption).__name__}"):
        WORDS([caption])


def test_one_str_is_no_list_of_captions():
    with pytest.raises(InputError, match="list of str, found the str 'red'"):
        WORDS("red")


@pytest.mark.parametrize(
    "words", [["red", "red"], ["red", "photo"], ["Red"], ["two words"], [""]]
)
def test_words_that_could_never_be_found_are_refused(words):
    with pytest.raises(InputError, match="words must be"):
        WordTokenizer(words)


@pytest.mark.parametrize("length", [0, -1])
def test_length_must_hold_the_end(length):
    with pytest.raises(InputError, match=f"at least 1, found {length}"):
        WordTokenizer(["red"], length=length)


def test_of_captions_fits_the_longest():
    tokenizer = WordTokenizer.of_captions(["a red circle", "a small red square on the left"])
    assert tokenizer.words == ["circle", "left", "red", "small", "square"]
    assert tokenizer.length == 5
    assert WordTokenizer.of_captions([""]).vocabulary == 1
    with pytest.raises(InputError, match="at least one caption"):
        WordTokenizer.of_captions([])


def test_of_captions_knows_all_of_our_data():
    texts = [caption(scene) for scene in random_scenes(300, seed=0)]
    tokenizer = WordTokenizer.of_captions(texts)
    ids = tokenizer(texts)
    assert ids.shape == (300, tokenizer.length) and ids.max() == tokenizer.vocabulary - 1
    assert len({tuple(row) for row in ids.tolist()}) == len(set(texts))  # nothing is confused
    classes = WordTokenizer.of_captions(map(class_caption, CLASSES))
    assert classes(list(CLASSES)).tolist() == [[i, 0] for i in range(1, 11)]


def test_arguments_survive_json():
    again = WordTokenizer(**json.loads(json.dumps(WORDS.to_dict())))
    assert again.to_dict() == WORDS.to_dict()
    assert torch.equal(again(["red square"]), WORDS(["red square"]))


@given(
    st.lists(st.sampled_from(WORDS.words), max_size=3), st.sampled_from([" ", ", ", " the "])
)
@settings(max_examples=60)
def test_ids_read_back_as_the_words(words, between):
    row = WORDS([between.join(words)])[0].tolist()
    assert [WORDS.words[i - 1] for i in row if i] == words
    assert row == sorted(row, key=lambda i: i == 0)  # the end only at the end


@given(st.text(max_size=30))
@settings(max_examples=100)
def test_a_text_of_other_words_is_refused_whole(text):
    count = len([w for w in split_words(text) if w not in FILLERS])
    if set(split_words(text)) <= {*WORDS.words, *FILLERS} and count < 4:
        assert WORDS([text]).shape == (1, 4)
        assert not set(filter(str.isalnum, text.lower())) - set(
            "".join([*WORDS.words, *FILLERS])
        )
    else:
        with pytest.raises(InputError, match=r"does not know the word|words that count"):
            WORDS([text])
