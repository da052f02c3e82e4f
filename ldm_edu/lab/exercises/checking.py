"""How an answer is judged: against the right result, and against results of known mistakes.

A mistake is kept as the function that makes it. An answer that agrees with it in all cases has
made it too, however it is written.
"""

import copy
import numbers
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HINTS = 3


@dataclass(frozen=True)
class Exercise:
    """One exercise: cases to try, the right answer, mistakes by what is said of them, hints."""

    name: str  # of the function that the student writes
    cases: Callable[[], Mapping[str, tuple]]  # in words -> arguments
    right: Callable
    mistakes: Mapping[str, Callable]  # what to say -> a function that makes the mistake
    hints: Sequence[str]  # three, each says more
    praise: str  # one sentence: what the result is good for
    whole: bool = False  # whole numbers are asked for


def number(value: float) -> Tensor:
    """One number as an argument: `ab**0.5`, `ab.sqrt()` and `math.sqrt(ab)` all work."""
    return torch.tensor(value, dtype=torch.float64)


def verdict(exercise: Exercise, answer: Callable) -> str:
    """What to tell the student of `answer`, in one or two sentences."""
    found = {}
    for case, args in _cases(exercise).items():
        try:
            found[case] = _in_double(answer, args)
        except Exception as error:
            if isinstance(error, NotImplementedError) and not error.args:  # torch's say why
                return "not attempted yet."
            return f"stopped for {case} with {_told(error, answer)}"
        trouble = _unfit(found[case]) or _changed(args, _cases(exercise)[case])
        if trouble:
            return f"not yet. For {case}, {trouble}."
    wanted = _results(exercise, exercise.right)
    if _agree(found, wanted):
        if exercise.whole and any(_tensor(v).is_floating_point() for v in found.values()):
            return (
                "not yet. Right, but whole numbers are asked for: use //, or int() at the end."
            )
        return f"right. {exercise.praise}"
    for said, mistake in exercise.mistakes.items():
        if _agree(found, _results(exercise, mistake)):
            return f"not yet. {said}"
    return f"not yet. {_difference(found, wanted)} Stuck? hint({exercise.name!r}, 1)"


def _cases(exercise: Exercise) -> dict:
    return copy.deepcopy(dict(exercise.cases()))  # an answer may write into what it is given


def _results(exercise: Exercise, function: Callable) -> dict:
    return {case: function(*args) for case, args in _cases(exercise).items()}


def _in_double(answer: Callable, args: tuple):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # what an answer makes should go with its arguments
    try:
        return answer(*args)
    finally:
        torch.set_default_dtype(before)


def _told(error: Exception, answer: Callable) -> str:
    code = getattr(answer, "__code__", None)
    lines = [n for frame, n in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    where = f" in line {lines[-1] - code.co_firstlineno + 1} of your function" if lines else ""
    power = (
        " (In Python a power is **, not ^.)" if "xor" in str(error) or "^" in str(error) else ""
    )
    return f"{type(error).__name__}{where}: {error}{power}"


def _unfit(found) -> str:
    if found is None:
        return "your function returns nothing: is its `return` missing"
    kind = type(found).__name__
    try:
        value = _tensor(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        if isinstance(found, list | tuple):
            return f"something in the {kind} that your function returns is not a plain number"
        return f"your function returns a {kind}, not numbers"
    if value.is_complex():
        return "the result is complex: is there a root of a negative number"
    return ""


def _changed(args: tuple, fresh: tuple) -> str:
    for k, (now, before) in enumerate(zip(args, fresh, strict=True), 1):
        if isinstance(before, Tensor):
            same = torch.equal(now, before)
        else:
            same = not isinstance(before, list | dict) or now == before
        if not same:
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
    return _tensor(value).detach().double()


def _tensor(value) -> Tensor:
    """What an answer returned, also what `torch.as_tensor` alone cannot read."""
    if isinstance(value, np.ndarray):
        value = value.copy()  # it may be a view turned round
    elif isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        value = float(value)
    elif isinstance(value, list | tuple) and all(isinstance(v, Tensor) for v in value):
        value = torch.stack(tuple(value)) if value else value
    return torch.as_tensor(value)


def _difference(found: Mapping, wanted: Mapping) -> str:
    case = next(case for case in wanted if not _close(found[case], wanted[case]))
    f, w = _numbers(found[case]), _numbers(wanted[case])
    if f.shape != w.shape:
        asked = tuple(w.shape) if w.ndim else "a single number"
        return f"For {case}, the result has shape {tuple(f.shape)}, expected {asked}."
    k = int((f - w).abs().nan_to_num(torch.inf).argmax())
    place = [int(axis) for axis in np.unravel_index(k, f.shape)]
    at = f" at place {place[0] if len(place) == 1 else place}" if place else ""
    f, w = f.flatten()[k], w.flatten()[k]
    digits = next(d for d in range(4, 18) if f"{f:.{d}g}" != f"{w:.{d}g}")
    return f"For {case}, found {f:.{digits}g}{at}, expected {w:.{digits}g}."
