"""The exercises of the notebooks: `check("name", answer)` and `hint("name", 1)`.

Worked solutions are in notebooks/solutions/, one file a notebook.
"""

from collections.abc import Callable

from ldm_edu.errors import InputError
from ldm_edu.lab.exercises import (
    compression,
    conditions,
    latent_space,
    latents,
    noise,
    pixels,
    points,
    start,
    steps,
    unet,
    words,
)
from ldm_edu.lab.exercises.checking import HINTS, Exercise, verdict

__all__ = ["EXERCISES", "check", "hint"]

# 00, 01, ...
_NOTEBOOKS = (
    start,
    noise,
    points,
    unet,
    pixels,
    compression,
    latent_space,
    latents,
    steps,
    conditions,
    words,
)
EXERCISES = {e.name: e for notebook in _NOTEBOOKS for e in notebook.EXERCISES}


def check(name: str, answer: Callable) -> None:
    """Try `answer` on cases whose result is known, and say what is right or wrong.

    An answer that raises NotImplementedError is reported as not attempted, so that Run All goes
    on. Raises InputError for a name that is no exercise.
    """
    print(f"{name}: {verdict(_exercise(name), answer)}")


def hint(name: str, number: int = 1) -> None:
    """Print hint 1, 2 or 3: each says more than the one before."""
    if number not in range(1, HINTS + 1):
        raise InputError(f"hints are numbered 1 to {HINTS}, got {number}")
    print(f"{name}, hint {number} of {HINTS}: {_exercise(name).hints[number - 1]}")


def _exercise(name: str) -> Exercise:
    if name not in EXERCISES:
        raise InputError(f"no exercise is called {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
