"""Exercises of notebook 09, Condition and guide."""

import torch
from torch import Tensor

from ldm_edu.lab.exercises.checking import Exercise


def _tokens(seed: int, places: int, words: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(places, d, dtype=torch.float64, generator=generator)
    return q, torch.randn(words, d, dtype=torch.float64, generator=generator)


def _map(q, k, word, width, power=0.5, dim=1, turned=False):
    shares = torch.softmax(q @ k.T / q.shape[1] ** power, dim)[:, word]
    picture = shares.reshape(-1, width)
    return shares.reshape(width, -1).T if turned else picture


word_map = Exercise(
    name="word_map",
    cases=lambda: {
        "3 x 4 places, 5 words": (*_tokens(0, 12, 5, 8), 1, 4),
        "2 x 2 places, 3 words": (*_tokens(1, 4, 3, 4), 2, 2),
    },
    right=_map,
    mistakes={
        "The softmax runs over the places. A place shares its attention among the words, so at "
        "each place the shares add up to 1.": lambda *args: _map(*args, dim=0),
        "The division by the root of d is missing.": lambda *args: _map(*args, power=0),
        "You divide by d. It has to be its square root.": lambda *args: _map(*args, power=1),
        "These are scores, not shares: the softmax is missing.": (
            lambda q, k, word, width: (q @ k[word] / q.shape[1] ** 0.5).reshape(-1, width)
        ),
        "The picture is turned: places come row by row, each `width` long.": (
            lambda *args: _map(*args, turned=True)
        ),
        "The shares are right, but still a list. Put them in rows of `width` places.": (
            lambda *args: _map(*args).flatten()
        ),
        "This is another word's map: words count from 0.": (
            lambda q, k, word, width: _map(q, k, word - 1, width)
        ),
    },
    hints=(
        "First the scores of all places with all words, (places, words). Then shares: over "
        "which of the two axes do they add up to 1?",
        "torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1) are the shares. The map is one of "
        "its columns.",
        "w = torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=1), then "
        "return w[:, word].reshape(-1, width)",
    ),
    praise="Such maps, one a word, are what you see in the film further down.",
)


def _ids(seed: int, n: int, length: int, share: float) -> tuple[Tensor, Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 20, (n, length), generator=generator)
    ids[:, -1] = 0  # the end token
    u = torch.rand(n, generator=generator)
    u[0] = share  # which is not below
    return ids, u, share


def _drop(ids, u, share):
    return ids.where((u >= share)[:, None], 0)


drop_captions = Exercise(
    name="drop_captions",
    cases=lambda: {
        f"{n} captions, share {share}": _ids(n, n, length, share)
        for n, length, share in ((8, 4, 0.4), (6, 6, 0.6), (5, 3, 0.0))
    },
    right=_drop,
    mistakes={
        "The condition is the wrong way round: a caption goes where u is below the share.": (
            lambda ids, u, share: ids.where((u < share)[:, None], 0)
        ),
        "You take rows away. The pictures are still there: an empty caption is a row of "
        "zeros.": lambda ids, u, share: ids[u >= share],
        "You empty a column, the same word of all captions, instead of a whole caption.": (
            lambda ids, u, share: torch.stack(
                [
                    row if k >= len(u) or u[k] >= share else 0 * row
                    for k, row in enumerate(ids.T)
                ],
                1,
            )
        ),
        "The first captions go, always. Which ones go is for u to say.": (
            lambda ids, u, share: ids.where(
                (torch.arange(len(ids)) >= round(share * len(ids)))[:, None], 0
            )
        ),
        "Only the first word is taken away. All of them have to go.": (
            lambda ids, u, share: torch.cat([_drop(ids, u, share)[:, :1], ids[:, 1:]], 1)
        ),
        "The rest is scaled up as in dropout of neurons. These are numbers of words: leave "
        "them as they are.": lambda ids, u, share: _drop(ids, u, share) / (1 - share),
    },
    hints=(
        "Each caption is a row, with one random number. Which rows keep their words?",
        "u >= share says which, with shape (B,). (u >= share)[:, None] has (B, 1) and fits to "
        "whole rows.",
        "return ids.where((u >= share)[:, None], 0)",
    ),
    praise="The same network learns both answers, and no number of it is spent on that.",
)


def _bent(z_t, t, context):
    # different for each context, and not linear in it
    told = context.square().sum((1, 2))[:, None] + context.sum((1, 2))[:, None]
    return torch.sin(z_t + told) + t[:, None] / 500 + told * z_t


def _guided_case(seed: int, w: float) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    z_t, context, nothing = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((3, 4), (3, 2, 5), (3, 2, 5))
    )
    return _bent, z_t, torch.tensor([10, 400, 900]), context, nothing, w


def _guided(model, z_t, t, context, nothing, w):
    unconditional, conditional = model(z_t, t, nothing), model(z_t, t, context)
    return unconditional + w * (conditional - unconditional)


guided = Exercise(
    name="guided",
    cases=lambda: {f"w = {w}": _guided_case(k, w) for k, w in enumerate((2.0, 0.5, 7.5))},
    right=_guided,
    mistakes={
        "The two answers are swapped: at w = 1 the condition alone has to be left.": (
            lambda model, z_t, t, context, nothing, w: _guided(
                model, z_t, t, nothing, context, w
            )
        ),
        "You start from the conditional answer. That is the other convention, in which w = 0 "
        "is plain conditioning; ours starts from the unconditional one.": (
            lambda *args: _guided(*args[:-1], args[-1] + 1)
        ),
        "You mix the contexts and ask once. Mix the answers of two questions.": (
            lambda model, z_t, t, context, nothing, w: model(
                z_t, t, nothing + w * (context - nothing)
            )
        ),
        "The unconditional answer counts twice: w goes with the difference of both.": (
            lambda model, z_t, t, context, nothing, w: (
                model(z_t, t, nothing) + w * model(z_t, t, context)
            )
        ),
        "The sign of w is swapped: you move away from the condition.": (
            lambda *args: _guided(*args[:-1], -args[-1])
        ),
        "This is the conditional answer alone, which w has not touched.": (
            lambda *args: _guided(*args[:-1], 1.0)
        ),
    },
    hints=(
        "Two questions: what does the model say with `nothing`, what with `context`? Then the "
        "formula.",
        "The two can be asked at once: a batch twice as long, torch.cat([z_t, z_t]), the same "
        "with t, and torch.cat([nothing, context]). answer.chunk(2) takes it apart.",
        "u, c = model(torch.cat([z_t, z_t]), torch.cat([t, t]), "
        "torch.cat([nothing, context])).chunk(2), then return u + w * (c - u)",
    ),
    praise="Every picture with guidance that you have seen was drawn with this line.",
)

EXERCISES = (word_map, drop_captions, guided)
