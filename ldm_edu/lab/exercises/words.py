"""Exercises of notebook 10, Draw from words."""

import math

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise, number

_IDS = {"blue": 1, "circle": 2, "left": 3, "red": 4, "ring": 5, "square": 6, "top": 7}


def _row(caption, ids):
    return [ids[word] for word in caption.split() if word in ids]


def _tokenize(caption, ids, length):
    row = _row(caption, ids)
    return row + [0] * (length - len(row))


def _fillers_kept(caption, ids, length):
    row = [ids.get(word, 0) for word in caption.split()][:length]
    return row + [0] * (length - len(row))


tokenize = Exercise(
    name="tokenize",
    cases=lambda: {
        "'red ring'": ("red ring", _IDS, 4),
        "'a red ring on the left'": ("a red ring on the left", _IDS, 8),
        "'a red ring and a red square'": ("a red ring and a red square", _IDS, 4),
        "the empty caption": ("", _IDS, 3),
    },
    right=_tokenize,
    mistakes={
        "The end tokens stand before the words. Words come first, in their order.": (
            lambda caption, ids, length: _tokenize(caption, ids, length)[::-1]
        ),
        "The zeros are on the wrong side: fill up behind the words.": (
            lambda caption, ids, length: (
                [0] * (length - len(_row(caption, ids))) + _row(caption, ids)
            )
        ),
        "The words are right, but the row is not filled up to `length`.": (
            lambda caption, ids, length: _row(caption, ids)
        ),
        "You write a 0 for each word that is not in `ids`, but 0 ends the sentence. Leave "
        "these words out.": _fillers_kept,
        "There is one entry too many: the zeros are there to reach `length`, not to pass it.": (
            lambda caption, ids, length: [*_tokenize(caption, ids, length), 0]
        ),
    },
    hints=(
        "caption.split() gives the words. Which of them have an id?",
        "row = [ids[word] for word in caption.split() if word in ids]. How many places are "
        "left?",
        "return row + [0] * (length - len(row))",
    ),
    praise="The empty caption is a row of zeros: guidance calls that no condition.",
)


def _scores(seed: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, dtype=torch.float64, generator=generator)


def _causal(scores, diagonal=1, fill=-math.inf, dim=-1):
    later = torch.ones_like(scores, dtype=torch.bool).triu(diagonal)
    return torch.softmax(scores.masked_fill(later, fill), dim)


causal_weights = Exercise(
    name="causal_weights",
    cases=lambda: {f"{n} tokens": (_scores(n, n),) for n in (3, 5)},
    right=_causal,
    mistakes={
        "Nothing is masked: each token still sees all others.": (
            lambda scores: torch.softmax(scores, -1)
        ),
        "You mask after the softmax, so the rows no longer add up to 1. Mask the scores.": (
            lambda scores: torch.softmax(scores, -1).tril()
        ),
        "A score of 0 is not nothing: e^0 = 1. What is hidden needs the score -inf.": (
            lambda scores: torch.softmax(scores.tril(), -1)
        ),
        "You hide the earlier tokens and show the later ones: the other triangle.": (
            lambda scores: _causal(scores.flip(0, 1)).flip(0, 1)
        ),
        "A token has to see itself too: else the first one sees nothing.": (
            lambda scores: _causal(scores, diagonal=0)
        ),
        "The softmax runs over the wrong axis: each row has to add up to 1.": (
            lambda scores: _causal(scores, dim=0)
        ),
    },
    hints=(
        "Entry (i, j) is what token i makes of token j. Which entries lie in the future, "
        "j > i? What must the score be for the softmax to make 0 of it?",
        "torch.ones_like(scores).triu(1).bool() marks them. masked_fill puts -inf there.",
        "later = torch.ones_like(scores).triu(1).bool(), then "
        "return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)",
    ),
    praise="CLIP, which reads for Stable Diffusion, is built so; our small encoder sees all.",
)


def _levels_left(strength, levels):
    return levels[-int(strength * len(levels)) :]


levels_left = Exercise(
    name="levels_left",
    cases=lambda: {
        "strength 0.5 of 20 levels": (0.5, list(range(1000, 0, -50))),
        "strength 0.7 of 7 levels": (0.7, [999, 900, 800, 750, 650, 50, 1]),
        "strength 1": (1.0, [900, 600, 300]),
    },
    right=_levels_left,
    mistakes={
        "These are the first levels. The picture is there already: the last ones are left.": (
            lambda strength, levels: levels[: int(strength * len(levels))]
        ),
        "You leave out as many as should be taken: at strength 1 all levels are taken.": (
            lambda strength, levels: levels[int(strength * len(levels)) :]
        ),
        "One too many. Take the whole steps only: 0.7 of 7 is 4.9, so 4.": (
            lambda strength, levels: levels[-math.ceil(strength * len(levels)) :]
        ),
        "The list is right but turned round: a sampler goes down.": (
            lambda strength, levels: _levels_left(strength, levels)[::-1]
        ),
        "You choose by the value of t. Count steps: levels need not be evenly spaced.": (
            lambda strength, levels: [t for t in levels if t <= strength * levels[0]]
        ),
    },
    hints=(
        "How many of the len(levels) steps are taken? The number has to be whole.",
        "taken = int(strength * len(levels)). They are the last ones of the list.",
        "return levels[-int(strength * len(levels)):]",
    ),
    praise="The first of them says how much noise the picture gets; `vary` does the same.",
)


def _blend_case(seed: int, ab: float) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    z_t, z0, eps = torch.randn(3, 2, 4, 4, 4, dtype=torch.float64, generator=generator)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., 1:3, :3] = 1
    return z_t, z0, mask, eps, number(ab)


def _noised(z, eps, ab):
    return ab**0.5 * z + (1 - ab) ** 0.5 * eps


def _blend(z_t, z0, mask, eps, ab):
    return mask * z_t + (1 - mask) * _noised(z0, eps, ab)


blend = Exercise(
    name="blend",
    cases=lambda: {f"alpha_bar = {ab}": _blend_case(k, ab) for k, ab in enumerate((0.7, 0.1))},
    right=_blend,
    mistakes={
        "The mask is the wrong way round: where it is 1, z_t stays as the sampler left it.": (
            lambda z_t, z0, mask, eps, ab: _blend(z_t, z0, 1 - mask, eps, ab)
        ),
        "You put the clean latent in. At level t all places need as much noise as z_t has.": (
            lambda z_t, z0, mask, eps, ab: mask * z_t + (1 - mask) * z0
        ),
        "Square roots are missing: alpha_bar and 1 - alpha_bar are variances.": (
            lambda z_t, z0, mask, eps, ab: mask * z_t + (1 - mask) * (ab * z0 + (1 - ab) * eps)
        ),
        "z_t is noised once more. It is at level t already: only z0 needs noise.": (
            lambda z_t, z0, mask, eps, ab: _noised(mask * z_t + (1 - mask) * z0, eps, ab)
        ),
        "What is masked keeps something of z0: there it has to be z_t alone.": (
            lambda z_t, z0, mask, eps, ab: mask * z_t + _noised(z0, eps, ab)
        ),
    },
    hints=(
        "Two latents, one mask: mask * (what is new) + (1 - mask) * (what is known). Both have "
        "to be at the same noise level.",
        "z_t is at level t. z0 is clean: q_sample brings it there, "
        "ab**0.5 * z0 + (1 - ab)**0.5 * eps.",
        "return mask * z_t + (1 - mask) * (ab**0.5 * z0 + (1 - ab) ** 0.5 * eps)",
    ),
    praise="Do that at every step, and the sampler paints the hole so that it fits.",
)

EXERCISES = (tokenize, causal_weights, levels_left, blend)
