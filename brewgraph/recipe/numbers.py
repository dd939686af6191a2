"""Plain numbers: what operators make of them, what schedules come to, and by how much an operand counts in a result.

The one table of operators is here; recipes, lints, graphs and programs all compute by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from operator import add, mul, sub, truediv
from typing import Any

from brewgraph.ops import SCHEDULES
from brewgraph.recipe.values import Combine, Evaluated, Length, Number, Scheduled, Symbol

WEIGHTS = ("number", "schedule")
"""Kinds of values that are plain numbers."""
COMMUTES = frozenset({"+", "*", "mean", "max"})
"""Operators whose operands may stand in any order."""
OPERATORS: Mapping[str, Callable[[float, float], float]] = {
    "+": add, "-": sub, "*": mul, "/": truediv, "**": pow, "max": max,
}  # fmt: skip


def plain(operator: str, a: float, b: float) -> float:
    """`a operator b`, however large it grows, as in training."""
    return OPERATORS[operator](a, b)


def checked(operator: str, a: float, b: float) -> float:
    """`a operator b` for two plain numbers. Raises `ArithmeticError`, in plain words, where the result is no number."""
    if (operator == "/" and b == 0) or (operator == "**" and a == 0 and b < 0):
        raise ArithmeticError("division by zero")
    if operator == "**" and isinstance(a, int) and isinstance(b, int) and abs(b) * a.bit_length() > 1000:
        raise ArithmeticError("the result is too large")  # found out without computing it
    try:
        result = OPERATORS[operator](a, b)
        if isinstance(result, complex):
            raise ArithmeticError("a negative number has no such root")
        if not math.isfinite(float(result)):
            raise ArithmeticError("the result is too large")
    except OverflowError as error:
        raise ArithmeticError("the result is too large") from error
    return result


def shares(numbers: Sequence[float]) -> tuple[float, ...]:
    """The softmax of plain numbers."""
    largest = max(numbers)
    powers = [math.exp(x - largest) for x in numbers]
    return tuple(power / sum(powers) for power in powers)


def compute(
    operator: str,
    operands: Sequence[Any],
    position: int | None = None,
    *,
    two: Callable[[str, Any, Any], Any] = checked,
    softmax: Callable[[Sequence[Any]], Any] = shares,
) -> Any:
    """What a `Combine` makes of its operands; `two` joins two of them, `softmax` makes shares of all.

    As it is called here it takes plain numbers, and raises `ArithmeticError` where the result is none.
    """
    if operator == "softmax":
        return softmax(operands)[position or 0]
    total = reduce(partial(two, "+" if operator == "mean" else operator), operands)
    return total / len(operands) if operator == "mean" else total


def factors(operator: str, scalars: Sequence[float | None]) -> list[float | None]:
    """What the result of a `Combine` is times each of its operands, None where it is no multiple of one.

    `scalars` are the values of the operands that are numbers, None for the others.
    """
    match operator, len(scalars):
        case ("+", count):
            return [1.0] * count
        case ("mean", count):
            return [1 / count] * count
        case ("-", 2):
            return [1.0, -1.0]
        case ("*", 2):
            return [scalars[1], scalars[0]]
        case ("/", 2):
            return [1 / scalars[1] if scalars[1] else None, None]
    return [None] * len(scalars)


def share(length: Length) -> float | None:
    """A length as a share of training; None where only a run knows."""
    return length.value if length.unit == "share" else None


def schedule_value(
    name: str, arguments: Sequence[float | Length], progress: float, share: Callable[[Length], float | None] = share
) -> float | None:
    """The value of a schedule at this progress; None where a length in it is not known as a share of training."""
    known = [share(a) if isinstance(a, Length) else a for a in arguments]
    return None if None in known else SCHEDULES[name](progress, *known)


def scalar_value(
    x: Evaluated,
    progress: float = 0.0,
    share: Callable[[Length], float | None] = share,
    symbols: Mapping[str, float] | None = None,
    unknown: float | None = None,
) -> float | None:
    """The value of a number or a schedule of a recipe at this progress.

    What only a run or the data can tell is worth `unknown`, and without that makes the whole None, as does what is
    neither. Raises `ArithmeticError` where the result is no number.
    """
    value: float | None = None
    match x:
        case int() | float():
            return float(x)
        case Number():
            return x.value
        case Symbol():
            value = (symbols or {}).get(x.name)
        case Scheduled():
            value = schedule_value(x.name, x.arguments, progress, share)
        case Combine() if x.operands:
            known = [scalar_value(operand, progress, share, symbols, unknown) for operand in x.operands]
            return None if None in known else float(compute(x.operator, known, x.position))
    return unknown if value is None else value


def at_progress(x: Evaluated, progress: float, symbols: Mapping[str, float] | None = None) -> float:
    """The same as far as a spec alone tells: what else it takes is worth 1. Raises `ArithmeticError`."""
    value = scalar_value(x, progress, symbols=symbols, unknown=1.0)
    assert value is not None
    return value


def is_positive(x: Evaluated) -> bool:
    """Whether a number is above zero; of a schedule, whether it is at every moment that is tried."""
    try:
        return all(at_progress(x, step / 64) > 0 for step in range(64))
    except ArithmeticError:
        return False
