"""Words to context: a tokenizer of whole words, and CLIP's text encoder at any size.

The U-Net reads a caption as tokens (B, N, D) through cross-attention (LDM section 3.3). With
`TextEncoderConfig.stable_diffusion_v1()` the encoder has CLIP ViT-L/14's 123,060,480
parameters and holds its published weights (`bpe.py` has CLIP's tokenizer); with small numbers
it is trained together with the U-Net on a vocabulary of a few dozen words.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_edu.errors import InputError, require_sizes
from ldm_edu.layers import Attention

# words of our captions that say nothing: "a photo of a horse" is one token, "horse"
FILLERS = ("a", "an", "the", "of", "at", "on", "in", "with", "photo", "portrait", "background")


class WordTokenizer:
    """Sentences to numbers, one a word: tokenizer(["a red circle"]) -> ids (1, length) int64.

    words: the vocabulary; word i has id i + 1. Id 0 ends a sentence and fills it up to
    `length`, so the empty caption "" is a row of zeros. `fillers` are known but skipped.
    Raises InputError for words that no sentence can hold, or a length below 1.
    """

    end = 0

    def __init__(
        self, words: Sequence[str], fillers: Sequence[str] = FILLERS, length: int = 16
    ):
        for i, word in enumerate(words):
            if split_words(word) != [word] or word in (*words[:i], *fillers):
                what = "single, lower-case, distinct and no fillers"
                raise InputError(f"words must be {what}, found {word!r}")
        if length < 1:
            raise InputError(f"length must be at least 1, found {length}")
        self.words, self.fillers, self.length = list(words), list(fillers), length
        self.ids = {word: i for i, word in enumerate(self.words, 1)}

    @classmethod
    def of_captions(cls, captions: Iterable[str]) -> "WordTokenizer":
        """The tokenizer that knows every word of these captions and fits the longest."""
        rows = [[w for w in split_words(c) if w not in FILLERS] for c in captions]
        if not rows:
            raise InputError("a vocabulary needs at least one caption, found none")
        return cls(sorted({w for row in rows for w in row}), length=max(map(len, rows)) + 1)

    @property
    def vocabulary(self) -> int:
        """Number of ids, the end token included."""
        return len(self.words) + 1

    def to_dict(self) -> dict:
        """Arguments that make this tokenizer again, JSON-able."""
        return {"words": self.words, "fillers": self.fillers, "length": self.length}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Raises InputError for a word it does not know, too many words, or no list."""
        if isinstance(captions, str):
            raise InputError(f"captions must be a list of str, found the str {captions!r}")
        rows = [self._row(c) for c in captions]
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, self.length)

    def _row(self, caption: str) -> list[int]:
        words = [word for word in split_words(caption) if word not in self.fillers]
        for word in words:
            if word not in self.ids:
                near = difflib.get_close_matches(word, self.words, n=3)
                known = near or self.words[:12]
                raise InputError(
                    f"this model does not know the word {word!r} in {caption!r}; "
                    f"it knows {', '.join(known)}{'' if near else ' ...'}"
                )
        if len(words) >= self.length:
            most = self.length - 1
            raise InputError(f"{caption!r} has {len(words)} words that count, at most {most}")
        return [self.ids[word] for word in words] + [self.end] * (self.length - len(words))


def split_words(sentence: str) -> list[str]:
    """Lower-case words of any script, no punctuation: "A red cat." -> ["a", "red", "cat"]."""
    if not isinstance(sentence, str):
        raise InputError(f"a caption must be a str, found {type(sentence).__name__}")
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", sentence.lower())


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a TextEncoder. Raises InputError if they do not fit together."""

    vocabulary: int  # number of token ids
    length: int  # most tokens in a sentence
    width: int = 64  # D of the context
    layers: int = 2
    heads: int = 4
    hidden: int | None = None  # width inside the feed-forward layers; None is 4 width
    causal: bool = False  # each token sees only earlier ones, as in CLIP
    activation: Literal["gelu", "quick_gelu"] = "gelu"

    def __post_init__(self):
        require_sizes(self, "vocabulary", "length", "width", "layers", "heads")
        if self.width % self.heads:
            raise InputError(f"width {self.width} must divide into heads = {self.heads}")
        if self.activation not in _ACTIVATIONS:
            known = sorted(_ACTIVATIONS)
            raise InputError(f"activation must be one of {known}, found {self.activation!r}")

    @classmethod
    def stable_diffusion_v1(cls) -> "TextEncoderConfig":
        """CLIP ViT-L/14's text encoder."""
        return cls(49_408, 77, 768, 12, 12, causal=True, activation="quick_gelu")

    def to_dict(self) -> dict:
        return asdict(self)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), which CLIP was trained with in place of GELU."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS = {"gelu": F.gelu, "quick_gelu": quick_gelu}


class TextBlock(nn.Module):
    """Self-attention, then two linear layers; both residual, norms first."""

    def __init__(self, c: TextEncoderConfig):
        super().__init__()
        hidden = c.hidden or 4 * c.width
        self.norm1 = nn.LayerNorm(c.width)
        self.attention = Attention(c.width, c.heads, bias=True, causal=c.causal)
        self.norm2 = nn.LayerNorm(c.width)
        self.linear1 = nn.Linear(c.width, hidden)
        self.linear2 = nn.Linear(hidden, c.width)
        self.activation = _ACTIVATIONS[c.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.linear2(self.activation(self.linear1(self.norm2(tokens))))


class TextEncoder(nn.Module):
    """Token ids (B, N) int64 -> context (B, N, width): a transformer (Radford et al. 2021).

    No token is masked as padding: the model learns what end tokens mean, as Stable Diffusion's.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = c = config
        self.token = nn.Embedding(c.vocabulary, c.width)
        self.position = nn.Embedding(c.length, c.width)
        self.blocks = nn.ModuleList(TextBlock(c) for _ in range(c.layers))
        self.norm_out = nn.LayerNorm(c.width)
        for embedding in (self.token, self.position):
            nn.init.normal_(embedding.weight)  # smaller, attention's mean would drown the words

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, N), N in 1..length, each in 0..vocabulary - 1. Raises InputError."""
        c = self.config
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= c.length or ids.dtype != torch.int64:
            want = f"int64 (B, N) with N in 1..{c.length}"
            raise InputError(f"ids must be {want}, found {ids.dtype} {tuple(ids.shape)}")
        if (outside := ids[(ids < 0) | (ids >= c.vocabulary)]).numel():  # CUDA would abort
            raise InputError(f"ids must be in 0..{c.vocabulary - 1}, found {outside[0].item()}")
        tokens = self.token(ids) + self.position.weight[: ids.shape[1]]  # (B, N, width)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm_out(tokens)
