"""Arithmetic in a spec: plain numbers at once, weights and features as values that training computes."""

from __future__ import annotations

from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.axes import FaultOf, pair
from brewgraph.recipe.numbers import WEIGHTS, at_progress, checked
from brewgraph.recipe.values import FAULT, Evaluated, Group, Value, describe
from brewgraph.source import Span


def combine(operator: str, left: Evaluated, right: Evaluated, place: Span, fault: FaultOf) -> Evaluated:
    """`left operator right`, member by member where lists are."""
    if left is FAULT or right is FAULT:
        return FAULT
    if v.is_number(left) and v.is_number(right):
        return _fold(operator, left, right, place, fault)
    left, right = (Group(side, span=place) if isinstance(side, tuple) and side else side for side in (left, right))
    if isinstance(left, Group) or isinstance(right, Group):
        result = pair(left, right, place, fault, lambda a, b: combine(operator, a, b, place, fault))
        if isinstance(result, Group) and result.items and v.are_numbers(result.items):
            return result.items
        return result
    a, b = v.as_value(left, place), v.as_value(right, place)
    if a is None or b is None:
        wrong = left if a is None else right
        message = f"`{operator}` joins numbers, schedules and features, got {describe(wrong)}"
        help = "pick layers first: `[0]`, or all of them: `[:]`" if isinstance(wrong, v.Row) else ""
        if isinstance(wrong, v.Length):
            help = f"a share is written as a number: `{wrong.value:g}`" if wrong.unit == "share" else ""
            help = help or "lengths stand in schedules: `after(1000 steps) * term`"
        if isinstance(wrong, v.ModelDeclaration):
            help = f"pick a feature of it: `{wrong.name}.logits`"
        return fault("B202", message, place, help=help or "losses are weighted and added: `0.5 * soft + hard`")
    return _combine_values(operator, a, b, place, fault)


def _fold(operator: str, a: float, b: float, place: Span, fault: FaultOf) -> Evaluated:
    try:
        return checked(operator, a, b)
    except ArithmeticError as error:
        return fault("B207", f"this cannot be computed: {error}", place, help="correct one of the numbers")


def _combine_values(operator: str, a: Value, b: Value, place: Span, fault: FaultOf) -> Evaluated:
    if "labels" in (a.kind, b.kind):
        help = "compare them: `ce(data.labels -> model.logits)`"
        return fault("B202", "labels are no numbers to compute with", place, help=help)
    if a.kind in WEIGHTS and b.kind in WEIGHTS:
        return _combine_weights(operator, a, b, place, fault)
    for x in (a, b):
        if x.kind.startswith("("):
            help = "compute with its members: `(0.5 * a, 0.5 * b)`"
            return fault("B202", f"`{operator}` does not apply to tuples", place, help=help)
        if x.kind == "temperature":
            help = "it belongs to a loss: `kd(a -> b, T=flsw(4))`"
            return fault("B208", f"`{operator}` does not apply to a temperature", place, help=help)
    if wrong := _why_not(operator, a, b):
        message, help = wrong
        return fault("B208", message, place, help=help)
    if operator == "/" and b.kind in WEIGHTS and _starts_at_zero(b):
        message = "this divides by zero" if isinstance(b, v.Number) else "this divides by zero at the first step"
        return fault("B207", message, b.span, help="divide by a number that is not zero")
    kinds = [x.kind for x in (a, b) if x.kind not in WEIGHTS]
    kind = next((k for k in kinds if k != "values"), "values") if "loss" not in kinds else "loss"
    return v.Combine(kind, operator, (a, b), span=place)


def _combine_weights(operator: str, a: Value, b: Value, place: Span, fault: FaultOf) -> Evaluated:
    joined = v.Combine("schedule", operator, (a, b), span=place)
    try:
        at_progress(joined, 0.0)
    except ArithmeticError as error:
        message = f"this cannot be computed at the first step: {error}"
        return fault("B207", message, place, help="let the schedule begin above zero")
    return joined


def _why_not(operator: str, a: Value, b: Value) -> tuple[str, str] | None:
    """Why two values cannot be joined, with the remedy; None where they can."""
    kinds = {a.kind, b.kind}
    if operator == "**" and not (a.kind == "values" and b.kind in WEIGHTS):
        return "powers are for numbers and schedules", (
            "`mse` squares a difference of features; a loss is weighted by `*`"
        )
    if operator in "+-" and kinds & set(WEIGHTS) and "values" not in kinds:
        number = a if a.kind in WEIGHTS else b
        return f"a number cannot be added to {describe(a if number is b else b)}", "weights multiply: `0.5 * x`"
    if operator == "/" and b.kind not in (*WEIGHTS, "values"):
        return "only a number or a schedule can divide", "a quotient of means depends on how the batch is split"
    if operator in "*/" and not kinds & {*WEIGHTS, "values"}:
        both = a.kind == b.kind == "loss"
        message = "two losses cannot be multiplied" if both else "features are multiplied by numbers only"
        return message, "a product of means depends on how the batch is split"
    if operator in "*/" and kinds == {"values", "loss"}:
        help = '`reduce="none"` on the loss keeps one number per example; `batch_mean(…)` makes one of them'
        return "per-example values and a loss cannot be combined", help
    # what a tap gives may be of any kind of feature
    rest = kinds - set(WEIGHTS)
    mixed = operator in "+-" and (len(rest - {"tensor"}) > 1 or rest == {"tensor", "loss"})
    if mixed:
        message = f"{describe(a)} and {describe(b)} cannot be combined by `{operator}`"
        return message, "both sides of `+` and `-` are of one kind"
    return None


def _starts_at_zero(x: Value) -> bool:
    try:
        return at_progress(x, 0.0) == 0
    except ArithmeticError:
        return False
