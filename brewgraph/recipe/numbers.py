"""Numbers: operators, values of schedules, and the factor of an operand in a result.

Recipes, lints, graphs and programs all use this table of operators.
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
    """`a operator b` without checks, as in training."""
    return OPERATORS[operator](a, b)


def checked(operator: str, a: float, b: float) -> float:
    """`a operator b`. Raises `ArithmeticError`, with a message, if the result is not a finite real number."""
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
    """The result of a `Combine`; `two` joins two operands, `softmax` makes shares of all. The defaults take numbers and
    raise `ArithmeticError`.
    """
    if operator == "softmax":
        return softmax(operands)[position or 0]
    total = reduce(partial(two, "+" if operator == "mean" else operator), operands)
    return total / len(operands) if operator == "mean" else total


def factors(operator: str, scalars: Sequence[float | None]) -> list[float | None]:
    """The factor of each operand in the result of a `Combine`, None if it is not linear in it. `scalars` are the values
    of operands that are numbers, None for others.
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
    """A length as a share of training; None if it depends on the run."""
    return length.value if length.unit == "share" else None


def schedule_value(
    name: str, arguments: Sequence[float | Length], progress: float, share: Callable[[Length], float | None] = share
) -> float | None:
    """The value of a schedule at this progress; None if the share of one of its lengths is unknown."""
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

    What depends on the run or the data counts as `unknown`; if that is None, so is the result, as for other values.
    Raises `ArithmeticError` as `checked`.
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
    """The same, with 1 for everything that the spec does not determine. Raises `ArithmeticError`."""
    value = scalar_value(x, progress, symbols=symbols, unknown=1.0)
    assert value is not None
    return value


def is_positive(x: Evaluated) -> bool:
    """Whether a number is positive; for a schedule, at 64 points of training."""
    try:
        return all(at_progress(x, step / 64) > 0 for step in range(64))
    except ArithmeticError:
        return False
