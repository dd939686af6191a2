"""Arithmetic in a spec: plain numbers at once, weights and features as values that training computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import add, mul, sub, truediv
from typing import Any

from brewgraph.ops import SCHEDULES
from brewgraph.recipe.describe import as_value, describe, is_number
from brewgraph.recipe.values import FAULT, Combine, Group, ModelDeclaration, Number, Row, Scheduled, Value
from brewgraph.source import Span

FaultOf = Callable[..., Any]
"""Takes code, message, place and help of a fault, and gives the value that stands for it."""


def combine(operator: str, left: Any, right: Any, place: Span, fault: FaultOf) -> Any:
    """`left operator right`, member by member where lists are."""
    if left is FAULT or right is FAULT:
        return FAULT
    if is_number(left) and is_number(right):
        return _fold(operator, left, right, place, fault)
    left, right = (Group(side, span=place) if isinstance(side, tuple) and side else side for side in (left, right))
    if isinstance(left, Group) or isinstance(right, Group):
        result = pair(left, right, place, fault, lambda a, b: combine(operator, a, b, place, fault))
        if isinstance(result, Group) and result.items and all(map(is_number, result.items)):
            return result.items
        return result
    a, b = as_value(left, place), as_value(right, place)
    if a is None or b is None:
        wrong = left if a is None else right
        message = f"`{operator}` joins numbers, schedules and features, and this is {describe(wrong)}"
        help = "pick layers first: `[0]`, or all of them: `[:]`" if isinstance(wrong, Row) else ""
        if isinstance(wrong, ModelDeclaration):
            help = f"pick a feature of it: `{wrong.name}.logits`"
        return fault("B202", message, place, help=help or "losses are weighted and added: `0.5 * soft + hard`")
    return _combine_values(operator, a, b, place, fault)


def _fold(operator: str, a: Any, b: Any, place: Span, fault: FaultOf) -> Any:
    try:
        return arithmetic(operator, a, b)
    except ArithmeticError as error:
        return fault("B207", f"this cannot be computed: {error}", place, help="correct one of the numbers")


def _combine_values(operator: str, a: Value, b: Value, place: Span, fault: FaultOf) -> Any:
    weights = ("number", "schedule")
    if a.kind == "labels" or b.kind == "labels":
        help = "compare them: `ce(data.labels -> model.logits)`"
        return fault("B202", "labels are no numbers to compute with", place, help=help)
    if operator == "**" and not (a.kind in weights and b.kind in weights):
        help = "`mse` squares a difference of features; a loss is weighted by `*`"
        return fault("B208", "powers are for numbers and schedules", place, help=help)
    if a.kind in weights and b.kind in weights:
        joined = Combine("schedule", operator, (a, b), span=place)
        try:
            at_progress(joined, 0.0)
        except ArithmeticError as error:
            message = f"this cannot be computed at the first step: {error}"
            return fault("B207", message, place, help="let the schedule begin above zero")
        return joined
    if operator in "+-" and (a.kind in weights or b.kind in weights):
        number = a if a.kind in weights else b
        message = f"a number cannot be added to {describe(a if number is b else b)}"
        return fault("B208", message, place, help="weights multiply: `0.5 * x`")
    if operator == "/" and b.kind not in weights:
        help = "a quotient of means depends on how the batch is split"
        return fault("B208", "only a number or a schedule can divide", place, help=help)
    if operator == "/" and _starts_at_zero(b):
        message = "this divides by zero" if isinstance(b, Number) else "this divides by zero at the first step"
        return fault("B207", message, b.span, help="divide by a number that is not zero")
    if operator == "*" and a.kind not in weights and b.kind not in weights:
        message = (
            "two losses cannot be multiplied"
            if a.kind == b.kind == "loss"
            else "features are multiplied by numbers only"
        )
        return fault("B208", message, place, help="a product of means depends on how the batch is split")
    kind = b.kind if a.kind in weights else a.kind
    kinds = {a.kind, b.kind}
    mixed = len(kinds - {"tensor"}) > 1 or kinds == {"tensor", "loss"}  # what a tap gives may be of any kind of feature
    if not kinds & set(weights) and mixed:
        message = f"{describe(a)} and {describe(b)} cannot be joined by `{operator}`"
        return fault("B208", message, place, help="both sides of `+` and `-` are of one kind")
    return Combine(kind, operator, (a, b), span=place)


def _starts_at_zero(x: Value) -> bool:
    try:
        return at_progress(x, 0.0) == 0
    except ArithmeticError:
        return False


def pair(
    left: Any, right: Any, place: Span, fault: FaultOf, function: Callable[[Any, Any], Any], kind: str = ""
) -> Any:
    """Apply to each pair of two lists of equal length; a single value goes with every member of the other side.

    A list whose length is not known yet gives another one, of the kind `kind`, or else of its own.
    """
    weights = ("number", "schedule")
    kinds = [x.kind for x in (left, right) if isinstance(x, Group | Value)]
    kind = kind or next((k for k in kinds if k not in (*weights, "tensor")), "tensor")
    if isinstance(left, Group) and isinstance(right, Group):
        if left.items is None or right.items is None:
            return Group(None, span=place, kind=kind)
        if len(left.items) != len(right.items):
            message = f"a list of {len(left.items)} cannot be paired with a list of {len(right.items)}"
            return fault("B201", message, place, help="pair them with a layer map: `let map = [0, 4] -> [0, 1]`")
        items = tuple(function(a, b) for a, b in zip(left.items, right.items, strict=True))
    else:
        group = left if isinstance(left, Group) else right
        if group.items is None:
            return Group(None, span=place, kind=kind)
        items = tuple(function(a, right) if group is left else function(left, a) for a in group.items)
    return FAULT if FAULT in items else Group(items, span=place)


def at_progress(x: Any, progress: float) -> float:
    """The value of a number or a schedule when this share of training is done. Raises `ArithmeticError`."""
    if isinstance(x, Number):
        return x.value
    if isinstance(x, Scheduled):
        return SCHEDULES[x.name](progress, *x.arguments)
    if isinstance(x, Combine) and x.operands:
        values = [at_progress(operand, progress) for operand in x.operands]
        result = values[0]
        for value in values[1:]:
            result = arithmetic("+" if x.operator == "mean" else x.operator, result, value)
        return result / len(values) if x.operator == "mean" else result
    return float(x)


def is_positive(x: Any) -> bool:
    """Whether a number is above zero; of a schedule, whether it is at every moment that is tried."""
    try:
        return all(at_progress(x, step / 64) > 0 for step in range(64))
    except ArithmeticError:
        return False


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": add,
    "-": sub,
    "*": mul,
    "/": truediv,
    "**": pow,
}


def arithmetic(operator: str, a: Any, b: Any) -> Any:
    """`a operator b` for two plain numbers. Raises `ArithmeticError`, in plain words, where the result is no number."""
    if operator == "/" and b == 0:
        raise ArithmeticError("division by zero")
    if operator == "**" and a == 0 and b < 0:
        raise ArithmeticError("division by zero")
    if operator == "**" and isinstance(a, int) and isinstance(b, int) and abs(b) * a.bit_length() > 1000:
        raise ArithmeticError("the result is too large")  # found out without computing it
    try:
        result = _ARITHMETIC[operator](a, b)
        if isinstance(result, complex):
            raise ArithmeticError("a negative number has no such root")
        if not math.isfinite(float(result)):
            raise ArithmeticError("the result is too large")
    except OverflowError as error:
        raise ArithmeticError("the result is too large") from error
    return result
