"""The files of a CLIP tokenizer, read and written, with the ids that transformers has then."""

import itertools
import json

import pytest
from clip_vocabulary import (
    SETTINGS,
    assert_same,
    corpus,
    old,
    published_folders,
    theirs_of,
    token,
    with_bytes,
    write,
)

from ldm_edu.bpe import START, STOP, ClipTokenizer, byte_symbols
from ldm_edu.errors import CheckpointError, InputError, StorageError

pytestmark = pytest.mark.parity

SMALL = ["a t</w>", "c at</w>", "d o", "do g</w>"]
CALLS = ["a cat!", f"{START}cat{STOP}dog", "<|STARTOFTEXT|> <|EndOfText|>", f"{STOP}\u0338"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return published_folders(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def ours(folders):
    return ClipTokenizer.load(folders["SD 1"])


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small", with_bytes(SMALL), SMALL)


KINDS = {"a string": STOP, "before": old(STOP, False), "after": old(STOP, True)}


@pytest.mark.parametrize("stop", KINDS)
@pytest.mark.parametrize("start", [START, old(START, False), old(START, True)])
def test_special_tokens_are_looked_for_when_transformers_does(tmp_path, start, stop):
    for unknown, pad in itertools.product(KINDS.values(), [*KINDS.values(), "!"]):
        config = {"bos_token": start, "eos_token": KINDS[stop], "model_max_length": 12}
        config |= {"unk_token": unknown, "pad_token": pad}
        folder = write(tmp_path, with_bytes(SMALL), SMALL, config)
        assert_same(ClipTokenizer.load(folder), theirs_of(folder), CALLS)


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json"])
def test_a_token_taught_later_has_its_own_id(small, where):
    content = {"<my-cat>": 518, "<My-Dog>": 519, "<my-cat>2": 520}  # one begins another
    if where == "tokenizer_config.json":
        rows = {str(i): token(name, special=False) for name, i in content.items()}
        content = {"added_tokens_decoder": rows}
    (small / where).write_text(json.dumps(content))
    tokenizer = ClipTokenizer.load(small)
    assert tokenizer.vocabulary == 521
    assert tokenizer(["a <my-cat> cat"])[0, 1:4].tolist() == [tokenizer.ids["a</w>"], 518, 513]
    texts = [*CALLS, "<my-cat><MY-CAT>!", "the <my-dog><My-Dog> x", "<my-cat>2<my-cat>22"]
    assert_same(tokenizer, theirs_of(small), texts)
    tokenizer.save(small)
    assert_same(tokenizer, theirs_of(small), texts)


@pytest.mark.parametrize("name", SETTINGS)
def test_saved_files_give_transformers_the_same_ids(folders, tmp_path, name):
    tokenizer = ClipTokenizer.load(folders[name])
    tokenizer.save(tmp_path / "deep" / "folder")
    theirs = theirs_of(tmp_path / "deep" / "folder")
    assert theirs.model_max_length == 77
    assert_same(tokenizer, theirs, corpus()[::5])
    again = ClipTokenizer.load(tmp_path / "deep" / "folder")
    assert again.to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_tokenizer_json_is_read(folders, tmp_path, name):
    theirs_of(folders[name]).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    tokenizer = ClipTokenizer.load(tmp_path)
    assert_same(tokenizer, theirs_of(tmp_path), corpus()[::5])
    whole = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    whole["model"]["merges"] = [" ".join(m) for m in whole["model"]["merges"]]  # as before 2024
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    assert ClipTokenizer.load(tmp_path).to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "added_tokens.json"])
def test_where_two_files_disagree_the_one_counts_that_does_in_transformers(small, name, after):
    theirs_of(small).save_pretrained(small)
    content = json.loads((small / "tokenizer.json").read_text(encoding="utf-8"))
    for row in content["added_tokens"]:
        row["normalized"] = after
    content["added_tokens"].append(token("cat", after, id=518, special=False))
    (small / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    rows = {"517": token(STOP, not after, special=True), "518": token("cat", not after)}
    other = {"cat": 518} if name == "added_tokens.json" else {"added_tokens_decoder": rows}
    (small / name).write_text(json.dumps(other))
    (small / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    assert_same(ClipTokenizer.load(small), theirs_of(small), [*CALLS, "Cat cat CAT"])


def test_arguments_survive_json(ours):
    again = ClipTokenizer(**json.loads(json.dumps(ours.to_dict())))
    assert again.to_dict() == ours.to_dict()
    assert again(CALLS).tolist() == ours(CALLS).tolist()


def test_symbols_outside_the_vocabulary_are_unknown(tmp_path):
    symbols = [*"act", "t</w>", "at</w>", "cat</w>", "!", START, STOP]
    folder = write(tmp_path, symbols, ["a t</w>", "c at</w>"], {"pad_token": "!"})
    tokenizer = ClipTokenizer.load(folder)
    assert tokenizer(["cat zt"])[0, :5].tolist() == [7, 5, 8, 3, 8]
    assert_same(tokenizer, theirs_of(folder), ["cat cad zat act!", "é", "tt a"])


# ---- refusals


def test_a_folder_without_a_tokenizer_says_what_it_holds(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected CLIP's: .* found nothing"):
        ClipTokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="found no folder"):
        ClipTokenizer.load(tmp_path / "absent")
    (tmp_path / "spiece.model").write_bytes(b"\x00")
    with pytest.raises(CheckpointError, match=r"found spiece\.model"):
        ClipTokenizer.load(tmp_path)
    with pytest.raises(InputError, match="is a path, not 3"):
        ClipTokenizer.load(3)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"type": "Unigram", "vocab": [["a", 0.0]]}, "type Unigram .* SentencePiece, as T5"),
        ({"type": "WordPiece", "vocab": {}}, "type WordPiece"),
        ({"type": "BPE", "end_of_word_suffix": "", "vocab": {}}, "BPE with word ends ''"),
        ({}, "type None"),
        (None, "type None"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, model, found):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(CheckpointError, match=found):
        ClipTokenizer.load(tmp_path)


def test_the_vocabulary_of_gpt_2_is_refused(tmp_path):
    write(tmp_path, [*byte_symbols(), "<|endoftext|>"], [])
    with pytest.raises(CheckpointError, match=r"ends in '</w>'.* another kind of BPE"):
        ClipTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("vocab.json", "{", "no JSON"),
        ("vocab.json", "[1]", "JSON object, found list"),
        ("vocab.json", '{"a</w>": "1"}', "ids 0, 1"),
        ("vocab.json", '{"a</w>": -1}', "ids 0, 1"),
        ("vocab.json", '{"a</w>": 1}', "merge 'a t</w>' needs 'a'"),
        ("merges.txt", "a t</w>\nq q q\n", "merge 'q q q' needs"),
        ("merges.txt", "at</w>\n", "merge 'at</w>' needs ''"),
        ("merges.txt", "d g\n", "needs 'dg', which has no id"),
        ("tokenizer_config.json", "nothing", "no JSON"),
        ("tokenizer_config.json", '{"pad_token": "<pad>"}', "'<pad>' has no id among 518"),
        ("tokenizer_config.json", '{"pad_token": 3}', "malformed"),
        ("tokenizer_config.json", '{"model_max_length": "77"}', "malformed"),
        ("tokenizer_config.json", '{"model_max_length": 1}', "at least 2, found 1"),
        ("tokenizer_config.json", '{"model_max_length": 7.5}', r"whole number.* 7\.5"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "malformed"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"3": {}}}', "malformed"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}', "malformed"),
        ("special_tokens_map.json", "[]", "JSON object"),
        (
            "special_tokens_map.json",
            json.dumps({"pad_token": token("!", rstrip=True)}),
            "token '!' has rstrip",
        ),
    ],
)
def test_malformed_files_are_refused(small, name, text, found):
    (small / name).write_text(text)
    with pytest.raises(CheckpointError, match=found):
        ClipTokenizer.load(small)


def test_bytes_that_are_no_text_are_refused(small):
    (small / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"cannot read .*merges\.txt"):
        ClipTokenizer.load(small)


def test_a_file_in_the_way_of_the_folder(ours, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot save the tokenizer"):
        ours.save(tmp_path / "file")
