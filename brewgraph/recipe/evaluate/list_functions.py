"""Functions across lists (`sum`, `mean`, `max`, `softmax`), and those on one tensor (`stop`, `words`, means)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from brewgraph.diagnostics import listing, suggest
from brewgraph.ops import DeclaredTransform
from brewgraph.ops.alone import ALONE
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.joining import axis_named
from brewgraph.recipe.evaluate.operations import token_mask
from brewgraph.recipe.numbers import compute, shares
from brewgraph.recipe.values import Evaluated, Group, Value, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t

FUNCTIONS = {
    "sum": "the sum over a list, over all its axes or the one that is named: `sum(x)`, `sum(x, over=teachers)`",
    "mean": "the mean over a list, over all its axes or the one that is named: `mean(x, over=teachers)`",
    "max": "the largest of a list, value by value: `max(x, over=teachers)`",
    "softmax": "shares that add up to one over a list: `softmax(x, over=teachers)`",
    **{name: x.summary for name, x in ALONE.items()},
}
"""What each of them does."""


def evaluate_across(e: Evaluator, name: str, call: t.Call, side: str | None) -> Evaluated:
    """`sum(x)`, `softmax(x, over=teachers)`: across all axes of a list, or across the one that is named."""
    over: str | None = None
    lists: list[t.Expression] = []
    for argument in call.arguments:
        if argument.is_plain:
            lists.append(argument.value)
        elif argument.name == "over" and isinstance(argument.value, t.Name):
            over = e.current.axis_of(argument.value)[0] or argument.value.id
        else:
            help = "`over=` names the `let` of a list: `sum(x, over=teachers)`"
            raise e.fault("B120", f"`{name}` takes a list, and `over=`", argument.place, help=help)
    if len(lists) != 1:
        raise e.fault("B209", f"`{name}` takes one list", call.span, help=f"write `{name}([a, b])`")
    value = e.evaluate(lists[0], side)
    if value == () or (isinstance(value, Group) and value.items == ()):
        raise e.fault("B211", f"`{name}` of an empty list", call.span, help="name its members")
    if isinstance(value, tuple):
        if v.are_numbers(value) and (over is None or name != "softmax"):
            return _fold(e, name, value, call.span)
        value = Group(value, span=lists[0].span)
    if isinstance(value, Value) and any(e.may_be_row(part) for part in v.walk(value)):
        return value  # the model will tell
    if not isinstance(value, Group):
        message = f"`{name}` reduces a list, got {describe(value)}"
        raise e.fault("B211", message, call.span, help=_help(name, value))
    if over is None:
        return _gather(e, name, value, call.span)
    depth = axis_named(value, over)
    if depth is None:
        names = [axis.name for axis in value.axes if axis.name]
        help = suggest(over, names) or (f"it runs over {listing(names)}" if names else "name the list by a `let`")
        raise e.fault("B211", f"this list has no axis `{over}`", call.span, help=help)
    return _along(value, depth, lambda group: _outermost(e, name, group, call.span))


def _operator(name: str) -> str:
    return "+" if name == "sum" else name


def _help(name: str, value: Evaluated) -> str:
    if isinstance(value, v.Row):
        return f"pick layers: `{value.take.span.text}[:]`"
    if not isinstance(value, Value):
        return f"write `{name}([a, b])`"
    if isinstance(value, v.Bundle):
        return f"a list is written with square brackets: `{name}([a, b])`"
    if value.kind == "loss":
        return "remove it: an operation already gives one number"
    if value.kind == "values":
        return "over the examples of a batch: `batch_mean(…)`"
    if name == "softmax":
        return "over the classes of logits: `probabilities(…)`"
    if name == "mean" and value.kind == "hidden":
        return "over the tokens of an example: `token_mean(…)`"
    return "an operation reduces its tensors: `mse(teacher.… -> student.…)`"


def _along(value: Evaluated, depth: int, function: Callable[[Group], Evaluated]) -> Evaluated:
    """Apply to the lists `depth` levels inside."""
    assert isinstance(value, Group)
    return function(value) if depth == 0 else value.map(lambda inner: _along(inner, depth - 1, function))


def _gather(e: Evaluator, name: str, group: Group, place: Span) -> Evaluated:
    """Reduce all members of a list at any depth."""
    if name == "softmax":
        return _softmax(e, group, place)
    if (kind := _open_kind(group)) is not None:
        return v.Combine(kind, _operator(name), (), span=place)
    members = tuple(v.leaves(group))
    if not members:
        raise e.fault("B211", f"`{name}` of an empty list", place, help="name its members")
    if v.are_numbers(members):
        return _fold(e, name, members, place)
    values = _alike(e, name, members, place)
    return values[0] if len(values) == 1 else v.Combine(_summable(values[0]), _operator(name), values, span=place)


def _open_kind(group: Group) -> str | None:
    """The kind of the members of a list of unknown length; else None."""
    if group.items is None:
        return group.kind
    return next((kind for x in group if isinstance(x, Group) and (kind := _open_kind(x)) is not None), None)


def _outermost(e: Evaluator, name: str, group: Group, place: Span) -> Evaluated:
    """Reduce the outer list only, for each member of the inner lists."""
    inner = [x for x in group if isinstance(x, Group)]
    if not inner or inner[0] is not next(iter(group)):
        return _gather(e, name, group, place)
    first = inner[0]
    if _open_kind(group) is not None:
        return group if name == "softmax" else first
    columns = zip(*(member.items or () for member in inner), strict=True)
    results = each(lambda column: _outermost(e, name, replace(group, items=column), place), columns)
    if name != "softmax":
        return replace(first, items=results)
    rows = zip(*(x.items or () for x in results if isinstance(x, Group)), strict=True)
    return replace(group, items=tuple(replace(first, items=row) for row in rows))


def _alike(e: Evaluator, name: str, members: Sequence[Evaluated], place: Span) -> tuple[Value, ...]:
    """The members of a list as values of one kind that can be joined."""
    items = [v.as_value(item, place) or item for item in members]
    values = tuple(item for item in items if isinstance(item, Value))
    if len(values) < len(items) or len({_summable(x) for x in values}) > 1:
        listed = listing(dict.fromkeys(describe(item) for item in items)).replace("`", "")
        message = f"`{name}` needs values of one kind, but the list holds {listed}"
        raise e.fault("B202", message, place, help="add losses to losses, features to features")
    if any(x.kind in ("labels", "temperature") for x in values):
        help = "compare them: `ce(data.labels -> model.logits)`"
        raise e.fault("B202", "labels do not support arithmetic", place, help=help)
    return values


def _softmax(e: Evaluator, group: Group, place: Span) -> Evaluated:
    """A list of shares that add up to one, where the list's members stood."""
    if group.items is None:
        return group
    if any(isinstance(item, Group | tuple) for item in group):
        help = "name the axis: `softmax(x, over=teachers)`"
        raise e.fault("B211", "a softmax needs a single axis, and this list has several", place, help=help)
    values = _alike(e, "softmax", group.items, place)
    kind = _summable(values[0])
    items = tuple(v.Combine(kind, "softmax", values, position, span=place) for position in range(len(values)))
    return replace(group, items=items, span=place)


def _fold(e: Evaluator, name: str, numbers: tuple[int | float, ...], place: Span) -> Evaluated:
    """Plain numbers joined at once: a number, or for `softmax` a list of them."""
    try:
        return shares(numbers) if name == "softmax" else compute(_operator(name), numbers)
    except ArithmeticError as error:
        message = f"this cannot be computed: {error}"
        raise e.fault("B207", message, place, help="correct one of the numbers") from error


def _summable(x: Value) -> str:
    return "schedule" if x.kind == "number" else x.kind


def evaluate_alone(e: Evaluator, name: str, call: t.Call, side: str | None) -> Evaluated:
    """`stop(x)`, `words(x)`, `token_mean(x, mask=none)`, `batch_mean(x)`; on a list, of each member."""
    declared = ALONE[name]
    values = call.arguments[:1] if declared.needs_layout else call.arguments
    if len(values) != 1 or values[0].name or values[0].key or len(call.arguments) > 2:
        raise e.fault("B209", f"`{name}` takes one value", call.span, help=declared.summary)
    mask: str | None = None
    for argument in call.arguments[1:]:
        if argument.name != "mask":
            message = f"`{name}` takes one value, and `mask=`"
            raise e.fault("B120", message, argument.place, help=declared.summary)
        mask = token_mask(e, argument)

    def apply(x: Evaluated) -> Evaluated:
        if isinstance(x, Group):
            return x.map_values(apply)
        if isinstance(x, v.Row):
            help = f"pick layers: `{x.take.span.text}[0]`"
            raise e.fault("B202", f"`{x.take.feature.name}` is one value per layer", x.take.span, help=help)
        if isinstance(x, v.Bundle):
            items = each(apply, x.items)
            return replace(x, items=tuple(i for i in items if isinstance(i, Value)))
        result = declared.result(x.kind) if isinstance(x, Value) else None
        if result is None or not isinstance(x, Value):
            raise e.fault("B202", f"`{name}` does not take {describe(x)}", call.span, help=_remedy(declared, x))
        if mask == "none" and x.kind == "values":
            help = "the loss chooses their mask: set `mask=none` there"
            raise e.fault("B122", "these values are already masked", call.arguments[1].span, help=help)
        padded = "none" if mask == "none" else None
        return v.Transform(result, name, (x,), mask=padded, declared=declared, span=call.span)

    return apply(e.evaluate(call.arguments[0].value, side))


def _remedy(declared: DeclaredTransform, x: Evaluated) -> str:
    if declared.mean == "batch" and isinstance(x, Value) and x.kind == "loss":
        return 'a loss is a mean already; `reduce="none"` keeps one number per example'
    return declared.summary
