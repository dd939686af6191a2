"""How two lists meet: along the same axis member by member, along axes that differ as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brewgraph.recipe.values import FAULT, Group, Value
from brewgraph.source import Span

PAIR = "pair them with a layer map: `let map = [0, 4] -> [0, 1]`"
FaultOf = Callable[..., Any]
"""Takes code, message, place and help of a fault, and gives the value that stands for it."""


def pair(
    left: Any,
    right: Any,
    place: Span,
    fault: FaultOf,
    function: Callable[[Any, Any], Any],
    kind: str = "",
    *,
    arrow: bool = False,
) -> Any:
    """Apply to each pair of members; a single value goes with every member of the other side.

    Two lists pair when their axes are the same, or one is written out and equally long; across an `arrow` rows pair by
    position. A list of models and another axis make a table, the models outside. Everything else is B201. Only the
    outermost axis is settled here: `function` comes back for the inner ones. A list whose length is not known yet gives
    another one, of the kind `kind`, or else of its own.
    """
    if not isinstance(left, Group) or not isinstance(right, Group):
        if isinstance(left, Group):
            return _each(left, right, function, True, _kind(left, right, kind), place)
        return _each(right, left, function, False, _kind(left, right, kind), place)
    one, other = left.axis, right.axis
    if left.items is not None and right.items is not None and one.key != other.key:
        for table, written in ((left, right), (right, left)):
            if _fits_twice(table, written):
                message = f"{_said(written)} fits {_axes(table)}: which of them?"
                return fault("B201", message, place, help="go across one of them first: `sum(…, over=NAME)`")
        if _holds(right, left):
            return _each(right, left, lambda a, b: function(b, a), True, kind, place)
        if _holds(left, right):
            return _each(left, right, function, True, kind, place)
    if left.items is None or right.items is None:
        if one.kind == "models" and left.items is not None:
            return _each(left, right, function, True, kind, place)
        if other.kind == "models" and right.items is not None:
            return _each(right, left, lambda a, b: function(b, a), True, kind, place)
        return Group(None, span=place, kind=_kind(left, right, kind), axis=other if one.kind == "list" else one)
    by_position = (
        one.key == other.key or "list" in (one.kind, other.kind) or (arrow and one.kind == other.kind == "row")
    )
    if by_position:
        return _zip(left, right, place, fault, function)
    if "models" in (one.kind, other.kind):
        if one.kind == "models":
            return _each(left, right, function, True, kind, place)
        return _each(right, left, lambda a, b: function(b, a), True, kind, place)
    message = f"{_said(left)} and {_said(right)} run over different things"
    help = PAIR if arrow else "go across each list first, `sum(a) + sum(b)`, or index both by one layer map"
    return fault("B201", message, place, help=help)


def _zip(left: Group, right: Group, place: Span, fault: FaultOf, function: Callable[[Any, Any], Any]) -> Any:
    mine, theirs = left.items or (), right.items or ()
    if len(mine) != len(theirs):
        message = f"a list of {len(mine)} cannot be paired with a list of {len(theirs)}"
        kinds = {left.axis.kind, right.axis.kind}
        return fault("B201", message, place, help=PAIR if kinds == {"row"} else "give one for each member of the other")
    items = tuple(function(a, b) for a, b in zip(mine, theirs, strict=True))
    axis = right.axis if left.axis.kind == "list" and right.axis.kind != "list" else left.axis
    return FAULT if FAULT in items else Group(items, span=place, axis=axis)


def _each(group: Group, other: Any, function: Callable[[Any, Any], Any], is_left: bool, kind: str, place: Span) -> Any:
    """The list with the other side beside each member."""
    if group.items is None:
        return Group(None, span=place, kind=kind or group.kind, axis=group.axis)
    items = tuple(function(a, other) if is_left else function(other, a) for a in group.items)
    return FAULT if FAULT in items else Group(items, span=place, axis=group.axis)


def _kind(left: Any, right: Any, kind: str) -> str:
    kinds = [x.kind for x in (left, right) if isinstance(x, Group | Value)]
    return kind or next((k for k in kinds if k not in ("number", "schedule", "tensor")), "tensor")


def _holds(group: Group, other: Group) -> bool:
    """Whether the other list's axis lies deeper inside a list: the same axis, or one as long as a list written out."""
    if any(inner.key == other.axis.key for inner in group.axes[1:]):
        return True
    lengths = _lengths(group)
    written = other.axis.kind == "list" and group.axis.kind != "list"
    return written and lengths[0] != len(other.items or ()) and len(other.items or ()) in lengths[1:]


def _fits_twice(table: Group, written: Group) -> bool:
    """Whether a list that is written out is as long as several axes of a table of lists."""
    literal = written.axis.kind == "list" and all(axis.kind != "list" for axis in table.axes)
    return literal and len(written.axes) == 1 and _lengths(table).count(len(written.items or ())) > 1


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
