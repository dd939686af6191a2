"""How values meet: two lists along their axes, and arithmetic on numbers, weights and features."""

from __future__ import annotations

from collections.abc import Callable

from brewgraph.recipe import values as v
from brewgraph.recipe.numbers import WEIGHTS, at_progress, checked
from brewgraph.recipe.values import Evaluated, Faulty, Group, Value, describe, each
from brewgraph.source import Span

PAIR = "pair them with a layer map: `let map = [0, 4] -> [0, 1]`"
Joining = Callable[[Evaluated, Evaluated], Evaluated]
FaultOf = Callable[..., Faulty]
"""Reports code, message, place and help of a fault; the caller raises the result."""


def pair(
    left: Evaluated,
    right: Evaluated,
    place: Span,
    fault: FaultOf,
    function: Joining,
    kind: str = "",
    *,
    arrow: bool = False,
) -> Group:
    """Apply to each pair of members; a single value pairs with every member of the other side. One side is a list.

    Two lists pair if they have the same axis or one is a literal of the same length; across an `arrow` rows pair by
    position. A list of models and another axis make a table, models outside. Anything else is B201. Only the outermost
    axis is paired: `function` calls back for inner ones. A list of unknown length gives another, of kind `kind` or its
    own.
    """

    def check_size(outer: Evaluated, inner: Evaluated) -> None:
        if not isinstance(outer, Group) or not isinstance(inner, Group):
            return
        if (size := len(outer.items or ()) * inner.size) > v.MOST_PARTS:
            message = f"this makes a table of {size:,} members, more than {v.MOST_PARTS:,}"
            raise fault("B016", message, place, help="reduce one of the lists first")

    def each_left(kind: str = kind) -> Group:
        check_size(left, right)
        return _each(left, lambda a: function(a, right), kind, place)

    def each_right(kind: str = kind) -> Group:
        check_size(right, left)
        return _each(right, lambda b: function(left, b), kind, place)

    if not isinstance(left, Group):
        return each_right(_kind(left, right, kind))
    if not isinstance(right, Group):
        return each_left(_kind(left, right, kind))
    one, other = left.axis, right.axis
    if left.items is None or right.items is None:
        if one.kind == "models" and left.items is not None:
            return each_left()
        if other.kind == "models" and right.items is not None:
            return each_right()
        return Group(None, span=place, kind=_kind(left, right, kind), axis=other if one.kind == "list" else one)
    if one.key != other.key:
        for table, literal in ((left, right), (right, left)):
            if _fits_twice(table, literal):
                axes = " and ".join(f"`{axis.name}`" if axis.name else "a row" for axis in table.axes)
                message = f"{_said(literal)} fits {axes}: which of them?"
                raise fault("B201", message, place, help="reduce one of them first: `sum(…, over=NAME)`")
        if _holds(right, left):
            return each_right()
        if _holds(left, right):
            return each_left()
    if one.key == other.key or "list" in (one.kind, other.kind) or (arrow and one.kind == other.kind == "row"):
        return _zip(left, right, place, fault, function)
    if one.kind == "models":
        return each_left()
    if other.kind == "models":
        return each_right()
    message = f"{_said(left)} and {_said(right)} have different axes"
    help = PAIR if arrow else "reduce each list first, `sum(a) + sum(b)`, or index both by one layer map"
    raise fault("B201", message, place, help=help)


def _zip(left: Group, right: Group, place: Span, fault: FaultOf, function: Joining) -> Group:
    mine, theirs = left.items or (), right.items or ()
    if len(mine) != len(theirs):
        message = f"a list of {len(mine)} cannot be paired with a list of {len(theirs)}"
        kinds = {left.axis.kind, right.axis.kind}
        raise fault("B201", message, place, help=PAIR if kinds == {"row"} else "give one for each member of the other")
    axis = right.axis if left.axis.kind == "list" and right.axis.kind != "list" else left.axis
    return Group(each(function, mine, theirs), span=place, axis=axis)


def _each(group: Evaluated, function: Callable[[Evaluated], Evaluated], kind: str, place: Span) -> Group:
    """The function applied to each member."""
    assert isinstance(group, Group)
    if group.items is None:
        return Group(None, span=place, kind=kind or group.kind, axis=group.axis)
    return Group(each(function, group.items), span=place, axis=group.axis)


def _kind(left: Evaluated, right: Evaluated, kind: str) -> str:
    kinds = [x.kind for x in (left, right) if isinstance(x, Group | Value)]
    return kind or next((k for k in kinds if k not in ("number", "schedule", "tensor")), "tensor")


def _holds(group: Group, other: Group) -> bool:
    """Whether an inner axis of `group` is that of `other`, or as long as `other`, a literal list."""
    if any(inner.key == other.axis.key for inner in group.axes[1:]):
        return True
    lengths, length = _lengths(group), len(other.items or ())
    literal = other.axis.kind == "list" and group.axis.kind != "list"
    return literal and lengths[0] != length and length in lengths[1:]


def _fits_twice(table: Group, literal: Group) -> bool:
    """Whether a literal list fits several axes of a table."""
    differs = literal.axis.kind == "list" and all(axis.kind != "list" for axis in table.axes)
    return differs and len(literal.axes) == 1 and _lengths(table).count(len(literal.items or ())) > 1


def _lengths(group: Group) -> list[int]:
    inner = next((x for x in group if isinstance(x, Group)), None)
    return [len(group.items or ()), *(_lengths(inner) if inner is not None else [])]


def _said(group: Group) -> str:
    named = f"`{group.axis.name}`" if group.axis.name else "a list"
    return f"{named} of {len(group.items or ())}"


def axis_named(group: Group, name: str) -> int | None:
    """The depth of the axis of this name, or None."""
    return next((depth for depth, axis in enumerate(group.axes) if axis.name == name), None)


def combine(operator: str, left: Evaluated, right: Evaluated, place: Span, fault: FaultOf) -> Evaluated:
    """`left operator right`, member by member for lists."""
    if v.is_number(left) and v.is_number(right):
        try:
            return checked(operator, left, right)
        except ArithmeticError as error:
            message = f"this cannot be computed: {error}"
            raise fault("B207", message, place, help="correct one of the numbers") from error
    left, right = (Group(side, span=place) if isinstance(side, tuple) and side else side for side in (left, right))
    if isinstance(left, Group) or isinstance(right, Group):
        result = pair(left, right, place, fault, lambda a, b: combine(operator, a, b, place, fault))
        if result.items and v.are_numbers(result.items):
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
        raise fault("B202", message, place, help=help or "losses are weighted and added: `0.5 * soft + hard`")
    return _combine_values(operator, a, b, place, fault)


def _combine_values(operator: str, a: Value, b: Value, place: Span, fault: FaultOf) -> Evaluated:
    if "labels" in (a.kind, b.kind):
        help = "compare them: `ce(data.labels -> model.logits)`"
        raise fault("B202", "labels do not support arithmetic", place, help=help)
    if a.kind in WEIGHTS and b.kind in WEIGHTS:
        return _combine_weights(operator, a, b, place, fault)
    for x in (a, b):
        if x.kind.startswith("("):
            help = "compute with its members: `(0.5 * a, 0.5 * b)`"
            raise fault("B202", f"`{operator}` does not apply to tuples", place, help=help)
        if x.kind == "temperature":
            help = "it belongs to a loss: `kd(a -> b, T=flsw(4))`"
            raise fault("B208", f"`{operator}` does not apply to a temperature", place, help=help)
    if wrong := _why_not(operator, a, b):
        message, help = wrong
        raise fault("B208", message, place, help=help)
    if operator == "/" and b.kind in WEIGHTS and _starts_at_zero(b):
        message = "this divides by zero" if isinstance(b, v.Number) else "this divides by zero at the first step"
        raise fault("B207", message, b.span, help="divide by a number that is not zero")
    kinds = [x.kind for x in (a, b) if x.kind not in WEIGHTS]
    kind = next((k for k in kinds if k != "values"), "values") if "loss" not in kinds else "loss"
    return v.Combine(kind, operator, (a, b), span=place)


def _combine_weights(operator: str, a: Value, b: Value, place: Span, fault: FaultOf) -> Evaluated:
    joined = v.Combine("schedule", operator, (a, b), span=place)
    try:
        at_progress(joined, 0.0)
    except ArithmeticError as error:
        message = f"this cannot be computed at the first step: {error}"
        raise fault("B207", message, place, help="let the schedule begin above zero") from error
    return joined


def _why_not(operator: str, a: Value, b: Value) -> tuple[str, str] | None:
    """Message and remedy if the operator does not apply; else None."""
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
