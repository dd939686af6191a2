"""How two lists meet: along the same axis member by member, along axes that differ as a table."""

from __future__ import annotations

from collections.abc import Callable

from brewgraph.recipe.values import FAULT, Evaluated, Fault, Group, Value
from brewgraph.source import Span

PAIR = "pair them with a layer map: `let map = [0, 4] -> [0, 1]`"
Joining = Callable[[Evaluated, Evaluated], Evaluated]
FaultOf = Callable[..., Fault]
"""Takes code, message, place and help of a fault, and gives the value that stands for it."""


def pair(
    left: Evaluated,
    right: Evaluated,
    place: Span,
    fault: FaultOf,
    function: Joining,
    kind: str = "",
    *,
    arrow: bool = False,
) -> Group | Fault:
    """Apply to each pair of members; a single value goes with every member of the other side. One side is a list.

    Two lists pair when their axes are the same, or one is written out and equally long; across an `arrow` rows pair by
    position. A list of models and another axis make a table, the models outside. Everything else is B201. Only the
    outermost axis is settled here: `function` comes back for the inner ones. A list whose length is not known yet gives
    another one, of the kind `kind`, or else of its own.
    """

    def each_left(kind: str = kind) -> Group | Fault:
        return _each(left, lambda a: function(a, right), kind, place)

    def each_right(kind: str = kind) -> Group | Fault:
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
                message = f"{_said(literal)} fits {_axes(table)}: which of them?"
                return fault("B201", message, place, help="go across one of them first: `sum(…, over=NAME)`")
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
    message = f"{_said(left)} and {_said(right)} run over different things"
    help = PAIR if arrow else "go across each list first, `sum(a) + sum(b)`, or index both by one layer map"
    return fault("B201", message, place, help=help)


def _zip(left: Group, right: Group, place: Span, fault: FaultOf, function: Joining) -> Group | Fault:
    mine, theirs = left.items or (), right.items or ()
    if len(mine) != len(theirs):
        message = f"a list of {len(mine)} cannot be paired with a list of {len(theirs)}"
        kinds = {left.axis.kind, right.axis.kind}
        return fault("B201", message, place, help=PAIR if kinds == {"row"} else "give one for each member of the other")
    items = tuple(function(a, b) for a, b in zip(mine, theirs, strict=True))
    axis = right.axis if left.axis.kind == "list" and right.axis.kind != "list" else left.axis
    return FAULT if FAULT in items else Group(items, span=place, axis=axis)


def _each(group: Evaluated, function: Callable[[Evaluated], Evaluated], kind: str, place: Span) -> Group | Fault:
    """The list of what the function makes of each member."""
    assert isinstance(group, Group)
    if group.items is None:
        return Group(None, span=place, kind=kind or group.kind, axis=group.axis)
    items = tuple(map(function, group.items))
    return FAULT if FAULT in items else Group(items, span=place, axis=group.axis)


def _kind(left: Evaluated, right: Evaluated, kind: str) -> str:
    kinds = [x.kind for x in (left, right) if isinstance(x, Group | Value)]
    return kind or next((k for k in kinds if k not in ("number", "schedule", "tensor")), "tensor")


def _holds(group: Group, other: Group) -> bool:
    """Whether the other list's axis lies deeper inside a list: the same axis, or one as long as a list written out."""
    if any(inner.key == other.axis.key for inner in group.axes[1:]):
        return True
    lengths, length = _lengths(group), len(other.items or ())
    literal = other.axis.kind == "list" and group.axis.kind != "list"
    return literal and lengths[0] != length and length in lengths[1:]


def _fits_twice(table: Group, literal: Group) -> bool:
    """Whether a list that is written out is as long as several axes of a table of lists."""
    differs = literal.axis.kind == "list" and all(axis.kind != "list" for axis in table.axes)
    return differs and len(literal.axes) == 1 and _lengths(table).count(len(literal.items or ())) > 1


def _axes(group: Group) -> str:
    return " and ".join(f"`{axis.name}`" if axis.name else "a row" for axis in group.axes)


def _lengths(group: Group) -> list[int]:
    inner = next((x for x in group if isinstance(x, Group)), None)
    return [len(group.items or ()), *(_lengths(inner) if inner is not None else [])]


def _said(group: Group) -> str:
    named = f"`{group.axis.name}`" if group.axis.name else "a list"
    return f"{named} of {len(group.items or ())}"


def axis_named(group: Group, name: str) -> int | None:
    """How deep an axis of this name lies; None where the list has none."""
    return next((depth for depth, axis in enumerate(group.axes) if axis.name == name), None)
