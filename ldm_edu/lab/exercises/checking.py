"""How an answer is judged: against the right result, and against results of known mistakes.

A mistake is kept as the function that makes it. An answer that agrees with it in all cases has
made it too, however it is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HINTS = 3


@dataclass(frozen=True)
class Exercise:
    """One exercise: cases to try, the right answer, mistakes by what is said of them, hints."""

    name: str  # of the function that the student writes
    cases: Callable[[], Mapping[str, tuple]]  # in words -> arguments; new tensors at each call
    right: Callable
    mistakes: Mapping[str, Callable]  # what to say -> a function that makes the mistake
    hints: Sequence[str]  # three, each says more
    praise: str  # one sentence: what the result is good for


def verdict(exercise: Exercise, answer: Callable) -> str:
    """What to tell the student of `answer`, in one or two sentences."""
    found = {}
    for case, args in exercise.cases().items():
        try:
            found[case] = answer(*args)
        except NotImplementedError:
            return "not attempted yet."
        except Exception as error:
            return f"stopped for {case} with {type(error).__name__}: {error}"
        trouble = _unfit(found[case]) or _changed(args, exercise.cases()[case])
        if trouble:
            return f"not yet. For {case}, {trouble}."
    wanted = _results(exercise, exercise.right)
    if _agree(found, wanted):
        return f"right. {exercise.praise}"
    for said, mistake in exercise.mistakes.items():
        if _agree(found, _results(exercise, mistake)):
            return f"not yet. {said}"
    return f"not yet. {_difference(found, wanted)} Stuck? hint({exercise.name!r}, 1)"


def _results(exercise: Exercise, function: Callable) -> dict:
    return {case: function(*args) for case, args in exercise.cases().items()}


def _unfit(found) -> str:
    if found is None:
        return "your function returns nothing: is its `return` missing"
    try:
        _numbers(found)
    except (TypeError, ValueError, RuntimeError):
        return f"your function returns a {type(found).__name__}, not numbers"
    return ""


def _changed(args: tuple, fresh: tuple) -> str:
    for k, (now, before) in enumerate(zip(args, fresh, strict=True), 1):
        if isinstance(before, Tensor) and not torch.equal(now, before):
            return f"your function changes its argument number {k}: work on a copy"
    return ""


def _agree(found: Mapping, wanted: Mapping) -> bool:
    return all(_close(found[case], wanted[case]) for case in wanted)


def _close(found, wanted) -> bool:
    found, wanted = _numbers(found), _numbers(wanted)
    if found.shape != wanted.shape:
        return False
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-6, equal_nan=True)


def _numbers(value) -> Tensor:
    return torch.as_tensor(value).detach().double()


def _difference(found: Mapping, wanted: Mapping) -> str:
    case = next(case for case in wanted if not _close(found[case], wanted[case]))
    f, w = _numbers(found[case]), _numbers(wanted[case])
    if f.shape != w.shape:
        return f"For {case}, the result has shape {tuple(f.shape)}, expected {tuple(w.shape)}."
    f, w = f.flatten(), w.flatten()
    k = int((f - w).abs().nan_to_num(torch.inf).argmax())
    place = f" at place {k}" if len(w) > 1 else ""
    return f"For {case}, found {f[k]:.4g}{place}, expected {w[k]:.4g}."
