"""CLIP's published vocabulary and settings, and captions of every kind, for test_bpe*.py."""

import gzip
import json
import random
import unicodedata
from importlib.metadata import distribution

from transformers import CLIPTokenizer

from ldm_edu.bpe import START, STOP, byte_symbols
from ldm_edu.data.captions import CLASSES, SPOKEN, class_caption, face_caption
from ldm_edu.data.scenes import caption
from ldm_edu.data.shapes import random_scenes

# MIT, OpenAI's own file; its owner is named, so that its absence is an error and no skip
PUBLISHED = distribution("open_clip_torch").locate_file(
    "open_clip/bpe_simple_vocab_16e6.txt.gz"
)
ROOM = 77


def token(content, normalized=True, **more):
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    return {"content": content, "normalized": normalized, **flags, **more}


def old(content, normalized=True):
    return token(content, normalized, __type="AddedToken")


# the settings in the published folders: (tokenizer_config.json, special_tokens_map.json)
BEFORE = {"bos_token": old(START), "eos_token": old(STOP), "unk_token": old(STOP)}
BEFORE |= {"pad_token": STOP, "model_max_length": 77}
NAMED = {"bos_token": token(START), "eos_token": token(STOP), "unk_token": token(STOP)}
SETTINGS = {
    "none": (None, None),
    "SD 1": (BEFORE, {**NAMED, "pad_token": STOP}),
    "SD 2": (BEFORE, {**NAMED, "pad_token": "!"}),
    "SDXL 2": (
        {
            "added_tokens_decoder": {
                "0": token("!", False, special=True),
                "49406": token(START, special=True),
                "49407": token(STOP, special=True),
            },
            "bos_token": START,
            "eos_token": STOP,
            "unk_token": STOP,
            "pad_token": "!",
        },
        {**NAMED, "pad_token": "!"},
    ),
}  # fmt: skip


def write(folder, symbols, merges, config=None, special=None):
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vocab.json": {symbol: i for i, symbol in enumerate(symbols)},
        "tokenizer_config.json": config,
        "special_tokens_map.json": special,
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    return folder


def with_bytes(merges):
    """The symbols in CLIP's order: bytes, bytes at a word's end, merges, start and stop."""
    plain = sorted(byte_symbols())
    joined = [m.replace(" ", "") for m in merges]
    return [*plain, *(s + "</w>" for s in plain), *joined, START, STOP]


def published_folders(root):
    """One folder for each of SETTINGS, with CLIP's 49,408 symbols."""
    lines = gzip.decompress(PUBLISHED.read_bytes()).decode().split("\n")
    merges = lines[1 : 49_152 - 256 - 2 + 1]
    return {
        name: write(root / name, with_bytes(merges), merges, *both)
        for name, both in SETTINGS.items()
    }


def theirs_of(folder):
    return CLIPTokenizer.from_pretrained(str(folder))


def ids(theirs, captions, length=ROOM):
    return theirs(captions, padding="max_length", truncation=True, max_length=length).input_ids


def assert_same(ours, theirs, captions):
    found, expected = ours(captions).tolist(), ids(theirs, captions, ours.length)
    for caption_, f, e in zip(captions, found, expected, strict=True):
        assert f == e, ascii(caption_)


# ---- captions of every kind

PROMPTS = """
a photograph of an astronaut riding a horse
Hello, World!
(masterpiece:1.3), best quality, ultra-detailed, 8k, artstation, by Greg Rutkowski & Mucha
a photo of a cat's paw; it's Tom's, they're here, we've won, I'm sure you'll say he'd don't
IT'S UPPERCASE'S TURN 'TWAS ''quoted'' 'start 'll' 's's 'dd o'clock rock'n'roll
f/1.8, 35mm, 1920x1080, 50% off, $9.99, C++ & C#, snake_case __init__ a_b1c2, 2024-01-31
https://example.com/?q=a+b#c user@example.com <b>bold</b> &amp; &lt; #hashtag @name
Ein Bär süßt Äpfel, l'été à Noël, São Paulo, Đà Nẵng, Çeşme, Łódź, ŽIVOT, Ǆ ǅ ǆ ŉ ﬁ ﬀ
İSTANBUL Iğdır ıI ΟΔΟΣ Σ ΣΣ Ὀδυσσεύς ẞ Å Å Ω Ω K
фотография кота, Ёлка ёлка Й й, Ґ ґ, ЪЫЬ
写真 猫の絵 東京タワー 三十二 〇 ㈱ ① ½ Ⅷ ² ٣٤ ๓ १२३
고양이 사진 각 각 ᄀ ᄀᄀ ㄱ
صورة قطة العربية شَدَّة לָשׁוֹן ﷺ ﻻ ภาพถ่าย हिन्दी में தமிழ் ខ្មែរ မြန်မာ አማርኛ
👩‍🚀🐴 👍🏽 🇩🇪🇯🇵 ❤️ ❤ ☺️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ™ © → ∑ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ⓒ
""".strip().splitlines()

ODD = [
    *("", " ", "   \t\n ", "\n", "\u00a0", "\u3000\u2003", "\x00", "a\x00b", "\x1c", "\ufeff"),
    *("a\tb", "a\r\nb", "a\x0bb\x0cc", "a\x1cb\x1db\x1eb\x1fb", "a\x85b", "a\u2028b\u2029c"),
    *("a\u200bb", "a\u200d\u200cb", "a\u2060b\u00adc", "a\u180eb", "\u202eabc\u202c", "\ufffd"),
    *("e\u0301", "é", "a\u0323\u0302", "a\u0302\u0323", "\u0301", " \u0301x", "\u0344 \u0f73"),
    *("A\u030a", "\u212b", "q\u0307\u0323", "\u1e9b\u0323", "\u0338>", ">\u0338", "\ufb1d"),
    *("\u07fd\u0334", "a\u08d3\u0301", "\U00011935\U00011930", "a\U0001e131\u0327"),
    *("a\u2ebf0", "a\U0002ebf0b", "\U00031350a1", "\ua7cbx", "\U00010d50", "\U00016ea0"),
    *(START, STOP, f"a {START} b{STOP}c", f"{START}{START}", "<|startoftext|", "|endoftext|>"),
    *(
        "<|STARTOFTEXT|>",
        "a<|EndOfText|>!",
        "!<|ENDOFTEXT|>",
        "<|endoftext|>\u0338x",
        STOP * 90,
    ),
    *(f"{START}\u0338", "x</w>", "</w>", "a </W> b", "!", "hi!", "!!! !?!", "a!b", "wow !"),
    *("word " * 200, "x" * 300, "lo" * 200, "!" * 500, "9" * 100, "猫" * 60, "a cat " * 37),
    *("a " * 74, "a " * 75, "a " * 76, "a " * 77, "Ab'S " * 40, "é" * 200, "\u0301" * 90),
]


# scripts of Unicode 15 and 16, with capitals and digits: Python 3.11 does not know them
_LATER = """
    1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D65 10D70-10D85 11380-113B5 116D0-116E3
    11BC0-11BE0 11BF0-11BF9 11F04-11F33 11F50-11F59 13460-143FA 16100-16139 16D40-16D79
    1CCF0-1CCF9 1D2C0-1D2D3 1E030-1E06D 1E4D0-1E4F9 1E5D0-1E5ED 1E5F1-1E5FA 2EBF0-2EE5D
    31350-323AF
"""
_ENDS = [[int(end, 16) for end in r.split("-")] for r in _LATER.split()]
LATER = {c for first, last in _ENDS for c in range(first, last + 1)}


def face(r, i):
    return face_caption(r.sample(SPOKEN, r.randint(0, 8)), i)


def random_text(r):
    """Neighbours from a few blocks: scripts mix as they do in captions, and less so."""
    text = ""
    for _ in range(r.randint(1, 4)):
        block = r.choice([0x20, 0x3000, 0x11000, 0x20000, 0x30000, 0xE1000])
        start = r.randrange(block)
        for _ in range(r.randint(1, 5)):
            text += chr(start + r.randrange(0x60))
        text += r.choice(["", "", " ", "'s ", "!", "a", STOP, "<|StartOfText|>"])
    return "".join(c for c in text if assigned(c))


def assigned(c):
    """No surrogate, and no character younger than this Python, on which tables may differ."""
    return unicodedata.category(c) not in ("Cs", "Cn")


def corpus():
    """Over 2,500 distinct captions, the same ones every time."""
    r = random.Random(0)
    texts = [caption(scene) for scene in random_scenes(400, seed=0)]
    texts += [face(r, i) for i in range(400)] + [class_caption(name) for name in CLASSES]
    texts += [*PROMPTS, *ODD, *" ".join(PROMPTS).split(), *(p.upper() for p in PROMPTS)]
    texts += [unicodedata.normalize("NFD", p) for p in PROMPTS]
    texts += [random_text(r) for _ in range(2000)]
    return list(dict.fromkeys(texts))
