"""CLIP's tokenizer: text to byte pairs, so that no word is unknown.

A word starts as its UTF-8 bytes; the pair of neighbours that was learnt first is joined, until
no learnt pair is left (Sennrich et al. 2016, 1508.07909). CLIP learnt 48,894 joins on
lower-case text, and marks a word's last symbol by "</w>" (Radford et al. 2021, section 2.4).
Ids equal those of transformers' CLIPTokenizer, which Stable Diffusion uses.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ldm_edu import bpe_files
from ldm_edu.bpe_files import START, STOP
from ldm_edu.characters import kinds, normalize
from ldm_edu.errors import CheckpointError, InputError


class ClipTokenizer:
    """Captions to ids: tokenizer(["a cat"]) -> (1, length) int64: start, symbols, stop, pad.

    A caption of more than `length` - 2 symbols is cut there, as CLIP's is.
    ids: symbol -> id. merges: "t h", "th e</w>", ... in the order in which they were learnt.
    added: tokens that are found inside a caption too, such as "<|endoftext|>", and whether
    after normalisation (True) or before; None is start, stop and pad, before.
    pad: Stable Diffusion 1 fills up with the stop token, 2 with "!".
    unknown: stands for bytes that the vocabulary lacks; CLIP's has all 256.
    Raises InputError if these do not fit together. `load` reads them from a folder.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        merges: Sequence[str],
        added: Mapping[str, bool] | None = None,
        start: str = START,
        stop: str = STOP,
        pad: str = STOP,
        unknown: str = STOP,
        length: int = 77,
    ):
        _check(ids, merges, (start, stop, pad, unknown, *(added or ())), length)
        self.ids, self.merges, self.length = dict(ids), list(merges), length
        self.start, self.stop, self.pad, self.unknown = start, stop, pad, unknown
        self.added = dict.fromkeys((start, stop, pad), False) if added is None else dict(added)
        self.end = self.ids[stop]
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(self.merges)}
        self._before = _any_of(token for token, after in self.added.items() if not after)
        # looked for in normalised text, so normalised itself
        self._normalised = {normalize(token): token for token, a in self.added.items() if a}
        self._after = _any_of(self._normalised)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ClipTokenizer":
        """Read a `tokenizer` folder: tokenizer.json, or vocab.json and merges.txt.

        Raises CheckpointError if they are missing, malformed or of another kind of tokenizer.
        """
        settings = bpe_files.read(folder)
        try:
            return cls(**settings)
        except InputError as error:
            raise CheckpointError(f"{folder} holds no CLIP tokenizer: {error}") from error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the four files that transformers' CLIPTokenizer reads. Raises StorageError."""
        bpe_files.write(folder, self.to_dict())

    def to_dict(self) -> dict:
        """Arguments that make this tokenizer again, JSON-able."""
        names = ("ids", "merges", "added", "start", "stop", "pad", "unknown", "length")
        return {name: getattr(self, name) for name in names}

    @property
    def vocabulary(self) -> int:
        """Number of ids, 49,408 for CLIP."""
        return max(self.ids.values()) + 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Raises InputError for anything but a sequence of texts."""
        if isinstance(captions, str):
            raise InputError(f"captions must be a list of str, found the str {captions!r}")
        rows = [self._row(c) for c in captions]
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, self.length)

    def _row(self, caption: str) -> list[int]:
        if not isinstance(caption, str) or re.search("[\ud800-\udfff]", caption):
            raise InputError(f"a caption must be a str of Unicode text, found {caption!r}")
        body = list(self._encode(caption))[: self.length - 2]
        row = [self.ids[self.start], *body, self.end]
        return row + [self.ids[self.pad]] * (self.length - len(row))

    def _encode(self, caption: str) -> Iterator[int]:
        for i, part in enumerate(self._before.split(caption)):
            if i % 2:  # re.split puts what it found at odd places
                yield self.ids[part]
                continue
            for j, text in enumerate(self._after.split(normalize(part))):
                if j % 2:
                    yield self.ids[self._normalised[text]]
                    continue
                for word in split_words(text):
                    for symbol in merge(spell(word), self._ranks):
                        yield self.ids.get(symbol, self.ids[self.unknown])


def split_words(text: str) -> list[str]:
    """Lower-case text to words: "it's 42, ok" -> ["it", "'s", "4", "2", ",", "ok"].

    A word is an English ending, a run of letters, one digit, or a run of anything else but
    spaces. The tokenizer's own tokens, if they come here, are taken apart.
    """
    kind, words, at = kinds(text), [], 0
    while at < len(text):
        if own := _OWN_TOKEN.match(text, at):
            words += own.groups()
        else:
            own = _ENDING.match(text, at) or _RUN.match(kind, at)
            words += [text[at : own.end()]] if kind[at] != "S" else []
        at = own.end()
    return words


_OWN_TOKEN = re.compile(r"(<\|)(startoftext|endoftext)(\|>)")
_ENDING = re.compile(r"'(?:s|t|re|ve|m|ll|d)")
_RUN = re.compile(r"L+|N|O+|S+")


def byte_symbols() -> list[str]:
    """A printable character for each byte: itself, or one from U+0100 on (GPT-2's table)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]


_SYMBOLS = byte_symbols()


def spell(word: str) -> list[str]:
    """One symbol a byte, the last one marked: "cat" -> ["c", "a", "t</w>"]."""
    symbols = [_SYMBOLS[byte] for byte in word.encode()]
    return [*symbols[:-1], symbols[-1] + "</w>"]


def merge(symbols: Sequence[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join the neighbours that were learnt first, everywhere; again, until none is left.

    ranks: pair -> when it was learnt, 0 first. Sennrich et al. 2016, algorithm 1.
    """
    symbols = list(symbols)
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        first, at = min(pairs, key=ranks.get), 0
        while at < len(symbols) - 1:
            if (symbols[at], symbols[at + 1]) == first:
                symbols[at : at + 2] = ["".join(first)]
            at += 1
    return symbols


def _any_of(tokens) -> re.Pattern:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _check(ids, merges, tokens, length) -> None:
    if not any(symbol.endswith("</w>") for symbol in ids):
        raise InputError("no symbol ends in '</w>', as CLIP's words do: another kind of BPE")
    for merge in merges:
        left, _, right = merge.partition(" ")
        if missing := [s for s in (left, right, left + right) if s not in ids]:
            raise InputError(f"merge {merge!r} needs {missing[0]!r}, which has no id")
    if absent := [token for token in tokens if token not in ids]:
        raise InputError(f"the special token {absent[0]!r} has no id among {len(ids):,}")
    if type(length) is not int or length < 2:
        raise InputError(f"length must be a whole number, at least 2, found {length!r}")
