"""Functions across lists (`sum`, `mean`, `max`, `softmax`), and those on one tensor (`stop`, `words`, means)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from brewgraph import ops
from brewgraph.diagnostics import listing, suggest
from brewgraph.ops.alone import ALONE
from brewgraph.recipe.evaluate.axes import axis_named
from brewgraph.recipe.evaluate.describe import as_value, describe, is_number
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.operations import token_mask
from brewgraph.recipe.numbers import compute, shares
from brewgraph.recipe.values import FAULT, Bundle, Combine, Group, Row, Transform, Value, leaves, walk
from brewgraph.source import Span
from brewgraph.syntax import tree as t

ACROSS = ("sum", "mean", "max", "softmax")
"""Functions across a list."""

FUNCTIONS = {
    "sum": "the sum over a list, over all its axes or the one that is named: `sum(x)`, `sum(x, over=teachers)`",
    "mean": "the mean over a list, over all its axes or the one that is named: `mean(x, over=teachers)`",
    "max": "the largest of a list, value by value: `max(x, over=teachers)`",
    "softmax": "shares that add up to one over a list: `softmax(x, over=teachers)`",
    **{name: x.summary for name, x in ALONE.items()},
}
"""All of them with what they are for."""

NO_NUMBERS = ("labels", "temperature")


def evaluate_across(e: Evaluator, name: str, call: t.Call, side: str | None) -> Any:
    """`sum(x)`, `softmax(x, over=teachers)`: across all axes of a list, or across the one that is named."""
    over: str | None = None
    given: list[t.Argument] = []
    for argument in call.arguments:
        if argument.name is None and argument.key is None:
            given.append(argument)
        elif argument.name == "over" and isinstance(argument.value, t.Name):
            over = e.current.axis_of(argument.value)[0] or argument.value.id
        else:
            place = argument.name_span or argument.span
            help = "`over=` names the `let` of a list: `sum(x, over=teachers)`"
            return e.fault("B120", f"`{name}` takes a list, and `over=`", place, help=help)
    if len(given) != 1:
        return e.fault("B209", f"`{name}` takes one list", call.span, help=f"write `{name}([a, b])`")
    value = e.evaluate(given[0].value, side)
    if value is FAULT:
        return FAULT
    if value == () or (isinstance(value, Group) and value.items == ()):
        return e.fault("B211", f"`{name}` of an empty list", call.span, help="name its members")
    if isinstance(value, tuple) and all(map(is_number, value)) and (over is None or name != "softmax"):
        return _fold(e, name, value, call.span)
    if isinstance(value, tuple):
        value = Group(value, span=given[0].span)
    if isinstance(value, Value) and any(e.may_be_row(part) for part in walk(value)):
        return value  # the model will tell
    if not isinstance(value, Group):
        message = f"`{name}` goes across a list, got {describe(value)}"
        return e.fault("B211", message, call.span, help=_help(name, value))
    if over is not None:
        depth = axis_named(value, over)
        if depth is None:
            names = [axis.name for axis in value.axes if axis.name]
            help = suggest(over, names) or (f"it runs over {listing(names)}" if names else "name the list by a `let`")
            return e.fault("B211", f"this list does not run over `{over}`", call.span, help=help)
        return _along(value, depth, lambda group: _outermost(e, name, group, call.span))
    return _gather(e, name, value, call.span)


def _operator(name: str) -> str:
    return "+" if name == "sum" else name


def _help(name: str, value: Any) -> str:
    if isinstance(value, Row):
        return f"pick layers: `{value.take.span.text}[:]`"
    if not isinstance(value, Value):
        return f"write `{name}([a, b])`"
    if isinstance(value, Bundle):
        return f"a list is written with square brackets: `{name}([a, b])`"
    if value.kind == "loss":
        return "leave it out: an operation already gives one number"
    if value.kind == "values":
        return "over the examples of a batch: `batch_mean(…)`"
    if name == "softmax":
        return "over the classes of logits: `probabilities(…)`"
    if name == "mean" and value.kind == "hidden":
        return "over the tokens of an example: `token_mean(…)`"
    return "an operation reduces its tensors: `mse(teacher.… -> student.…)`"


def _along(group: Group, depth: int, function: Callable[[Group], Any]) -> Any:
    """Apply to the lists that lie `depth` levels inside; what stood outside them stays a list."""
    return function(group) if depth == 0 else group.map(lambda inner: _along(inner, depth - 1, function))


def _gather(e: Evaluator, name: str, group: Group, place: Span) -> Any:
    """Across everything that a list holds, of whatever depth."""
    if name == "softmax":
        return _softmax(e, group, place)
    if (kind := _open_kind(group)) is not None:
        return Combine(kind, _operator(name), (), span=place)
    if all(map(is_number, leaves(group))):
        return _fold(e, name, tuple(leaves(group)), place)
    found = [as_value(item, place) or item for item in leaves(group)]
    items = tuple(item for item in found if isinstance(item, Value))
    if fault := _mixed(e, name, found, items, place):
        return fault
    if len(items) == 1:
        return items[0]
    return Combine(_summable(items[0].kind), _operator(name), items, span=place)


def _open_kind(group: Group) -> str | None:
    """The kind of the members of a list where nobody knows yet how many they are; None where that is known."""
    if group.items is None:
        return group.kind
    return next((kind for x in group if isinstance(x, Group) and (kind := _open_kind(x)) is not None), None)


def _outermost(e: Evaluator, name: str, group: Group, place: Span) -> Any:
    """Across the outer list alone, for each member of the lists inside it."""
    first = next(iter(group), None)
    if not isinstance(first, Group):
        return _gather(e, name, group, place)
    if _open_kind(group) is not None:
        return group if name == "softmax" else first
    results = [
        _outermost(e, name, replace(group, items=column), place)
        for column in zip(*(m.items or () for m in group), strict=True)
    ]
    if FAULT in results:
        return FAULT
    if name != "softmax":
        return replace(first, items=tuple(results))
    rows = zip(*(r.items for r in results), strict=True)
    return replace(group, items=tuple(replace(first, items=tuple(row)) for row in rows))


def _mixed(e: Evaluator, name: str, found: list[Any], items: tuple[Value, ...], place: Span) -> Any:
    """The fault of a list whose members cannot be joined; None where they can."""
    if len(items) < len(found) or len({_summable(i.kind) for i in items}) > 1:
        listed = listing(dict.fromkeys(describe(item) for item in found)).replace("`", "")
        message = f"`{name}` needs a list of values of one kind, and this holds {listed}"
        return e.fault("B202", message, place, help="add up losses with losses, features with features")
    if any(i.kind in NO_NUMBERS for i in items):
        help = "compare them: `ce(data.labels -> model.logits)`"
        return e.fault("B202", "labels are no numbers to compute with", place, help=help)
    return None


def _softmax(e: Evaluator, group: Group, place: Span) -> Any:
    """A list of shares that add up to one, where the list's members stood."""
    if group.items is None:
        return group
    members = [as_value(item, place) or item for item in group]
    if any(isinstance(m, Group | tuple) for m in members):
        help = "name the axis: `softmax(x, over=teachers)`"
        return e.fault("B211", "a softmax goes across one axis, and this list has several", place, help=help)
    items = tuple(m for m in members if isinstance(m, Value))
    if fault := _mixed(e, "softmax", members, items, place):
        return fault
    kind = _summable(items[0].kind)
    shares = tuple(Combine(kind, "softmax", items, position, span=place) for position in range(len(items)))
    return replace(group, items=shares, span=place)


def _fold(e: Evaluator, name: str, numbers: tuple[Any, ...], place: Span) -> Any:
    """Plain numbers joined at once: a number, or for `softmax` a list of them."""
    try:
        return shares(numbers) if name == "softmax" else compute(_operator(name), numbers)
    except ArithmeticError as error:
        return e.fault("B207", f"this cannot be computed: {error}", place, help="correct one of the numbers")


def _summable(kind: str) -> str:
    return "schedule" if kind == "number" else kind


# ── one value ────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_alone(e: Evaluator, name: str, call: t.Call, side: str | None) -> Any:
    """`stop(x)`, `words(x)`, `token_mean(x, mask=none)`, `batch_mean(x)`; on a list, of each member."""
    declared = ALONE[name]
    given = call.arguments[:1] if declared.needs_layout else call.arguments
    if len(given) != 1 or given[0].name or given[0].key or len(call.arguments) > 2:
        return e.fault("B209", f"`{name}` takes one value", call.span, help=declared.summary)
    mask: str | None = None
    for argument in call.arguments[1:]:
        if argument.name != "mask":
            place = argument.name_span or argument.span
            return e.fault("B120", f"`{name}` takes one value, and `mask=`", place, help=declared.summary)
        mask = token_mask(e, argument)
        if mask is None:
            return FAULT
    value = e.evaluate(call.arguments[0].value, side)

    def apply(x: Any) -> Any:
        if x is FAULT:
            return FAULT
        if isinstance(x, Group) and x.items is None and x.kind != "tensor":
            like = apply(Value(x.kind, span=x.span))
            return FAULT if like is FAULT else replace(x, kind=like.kind)
        if isinstance(x, Group):
            return x.map(apply)
        if isinstance(x, Row):
            help = f"pick layers: `{x.take.span.text}[0]`"
            return e.fault("B202", f"`{x.take.feature.name}` is one value per layer", x.take.span, help=help)
        if isinstance(x, Bundle):
            items = tuple(apply(i) for i in x.items)
            return FAULT if FAULT in items else replace(x, items=items)
        result = declared.result(x.kind) if isinstance(x, Value) else None
        if result is None:
            message = f"`{name}` does not take {describe(x)}"
            return e.fault("B202", message, call.span, help=_remedy(declared, x))
        if mask == "none" and x.kind == "values":
            help = "what they are a mean over was chosen by the loss: give it `mask=none`"
            return e.fault("B122", "these numbers have a mask already", call.arguments[1].span, help=help)
        padded = "none" if mask == "none" else None
        return Transform(result, name, (x,), mask=padded, declared=declared, span=call.span)

    return apply(value)


def _remedy(declared: ops.DeclaredTransform, x: Any) -> str:
    if declared.mean == "batch" and isinstance(x, Value) and x.kind == "loss":
        return 'a loss is a mean already; `reduce="none"` keeps one number per example'
    return declared.summary
