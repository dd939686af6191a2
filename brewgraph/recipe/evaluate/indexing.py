"""Indices: members of rows and lists, as in PyTorch; a layer map picks its column by the side of an arrow."""

from __future__ import annotations

from dataclasses import replace

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.settings.model_sources import Layers
from brewgraph.recipe.values import Evaluated, Faulty, Group, describe
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.format import on_one_line

Picks = int | tuple[int, ...] | None
"""One member, several, or None where the number of members is needed and unknown."""


def evaluate_index(e: Evaluator, x: t.Index, side: str | None) -> Evaluated:
    """What an index expression picks."""
    if isinstance(x.value, t.At):
        item = e.evaluate(x.items[0]) if len(x.items) == 1 and isinstance(x.items[0], t.Expression) else None
        if not v.is_whole(item):
            place = x.items[0].span.to(x.items[-1].span)
            help = f"write one integer: `{x.value.span.text}[0]`"
            raise e.fault("B203", "an element of a tuple needs a single index", place, help=help)
        return e.tap(x.value, item)
    if isinstance(x.value, t.Attribute) and x.value.name == "layers":
        owner = e.evaluate(x.value.value, side)
        if isinstance(owner, v.ModelDeclaration):
            return _layers(e, owner, x)
    return pick(e, e.evaluate(x.value, side), x, side)


def pick(e: Evaluator, value: Evaluated, x: t.Index, side: str | None) -> Evaluated:
    """Pick from a row, a list, or each model's row in a list of models."""
    if isinstance(value, Group) and value.items and all(isinstance(i, v.Row | Group) for i in value):
        has_rows = any(isinstance(i, v.Row) for i in value)
        if has_rows or value.axis.kind == "models":
            one = pick(e, value.items[0], x, side)  # with as many members as the others
            if (size := len(value.items) * v.size_of(one)) > v.MOST_PARTS:
                raise e.too_many(size, x.span)
            return value.map(lambda item: pick(e, item, x, side))
    if isinstance(value, v.Row):
        return _from_row(e, value, x, side)
    if isinstance(value, v.Take) and e.may_be_row(value):
        value = e.open_row(value, v.Axis("", "row", f"tap {value.feature.path}"))
    if isinstance(value, Group) and value.items is None:
        first = x.items[0] if len(x.items) == 1 else None
        is_single = isinstance(first, t.Expression) and isinstance(e.evaluate(first, side), int)
        return v.Combine(value.kind, "+", (), span=x.span) if is_single else value
    items = value.items if isinstance(value, Group) else value if isinstance(value, tuple) else None
    if items is None:
        help = "rows (`bert.hidden[3]`) and lists are indexed"
        if isinstance(value, v.ModelDeclaration):
            help = f"pick a feature first: `{value.name}.hidden[3]`"
        elif isinstance(value, v.Take) and value.feature.name == "tap":
            help = 'an index after the path selects an element of a module\'s tuple: `(model @ "path")[0]`'
        elif isinstance(value, v.Bundle):
            help = "a tuple is one argument: name its members before, `let a = bert.hidden[0]`, and use their names"
        raise e.fault("B202", f"{describe(value)} cannot be indexed", x.span, help=help)
    picks = _picks(e, x, len(items), side, "")
    if isinstance(picks, int):
        return items[picks]
    chosen = picks or ()
    if isinstance(value, tuple):
        return tuple(value[i] for i in chosen)
    assert isinstance(value, Group)
    is_whole_list = chosen == tuple(range(len(items)))
    axis = value.axis if is_whole_list else replace(value.axis, key=f"{value.axis.key}{chosen}")
    return replace(value, items=tuple(items[i] for i in chosen), axis=axis, span=x.span)


def _from_row(e: Evaluator, row: v.Row, x: t.Index, side: str | None) -> Evaluated:
    count = _count(e, row.take)
    picks = _picks(e, x, count, side, str(row.take.feature))
    axis = _axis(e, x, picks)
    if picks is None:
        return e.open_row(replace(row.take, span=x.span), axis)
    if isinstance(picks, int):
        return _member(row, picks, x.span)
    return Group(tuple(_member(row, i, x.span) for i in picks), span=x.span, axis=axis)


def _member(row: v.Row, index: int, span: Span) -> v.Take:
    take = row.take
    return v.Take(take.kind, take.model, take.data, replace(take.feature, index=index), take.passing, span=span)


def whole_row(e: Evaluator, row: v.Row) -> Group:
    """Every member of a row, for operations that take all of it: `emd(bert.hidden -> tiny.hidden)`."""
    count = _count(e, row.take)
    axis = v.Axis("", "row", "row [:]")
    if count is None:
        return e.open_row(row.take, axis)
    return Group(tuple(_member(row, i, row.take.span) for i in range(count)), span=row.take.span, axis=axis)


def _axis(e: Evaluator, x: t.Index, picks: Picks) -> v.Axis:
    """The axis of an indexed row: the same for both columns of a map, and for equal indices."""
    first = x.items[0] if len(x.items) == 1 else None
    name, key = e.current.axis_of(first) if isinstance(first, t.Expression) else ("", "")
    said = picks if picks is not None else ", ".join(on_one_line(item.span.text) for item in x.items)
    return v.Axis(name, "row", f"row {key or said}")


def _layers(e: Evaluator, model: v.ModelDeclaration, x: t.Index) -> Layers:
    picks = _picks(e, x, None, None, "the layers")
    if picks is not None:  # one number is a list of one: a model starts from layers, never from a value
        return Layers(model=model.name, layers=(picks,) if isinstance(picks, int) else picks)
    raise e.fault("B203", "`layers` needs a list of numbers", x.span, help=f"write `{model.name}.layers[0, 4, 8]`")


def _count(e: Evaluator, take: v.Take) -> int | None:
    model = e.models[take.model]
    facts = e.facts_of(model)
    try:
        return facts.row_length(take.feature.name) if facts else None
    except SourceFault as fault:
        raise e.source_fault(fault, model, take.span) from fault


def _picks(e: Evaluator, x: t.Index, count: int | None, side: str | None, what: str) -> Picks:
    """Indices from 0. `what` names the row in messages, empty for a list."""
    first = x.items[0]
    if len(x.items) == 1 and isinstance(first, t.Slice):
        return _slice(e, first, count, what)
    picks: list[int] = []
    is_single = len(x.items) == 1
    for part in x.items:
        if isinstance(part, t.Slice):
            raise e.fault("B203", "a slice must be the only index", part.span, help="or list each number")
        value = e.evaluate(part, side)
        if isinstance(value, v.LayerMap):
            if side is None:
                help = f"pick a column: `{part.span.text}.from` or `{part.span.text}.to`"
                message = "a layer map as an index needs an arrow to choose its column"
                raise e.fault("B205", message, part.span, help=help)
            value = value.left if side == "from" else value.right
        for index in value if isinstance(value, tuple) else (value,):
            if not v.is_whole(index):
                message = f"an index must be an integer, got {describe(index)}"
                raise e.fault("B203", message, part.span, help="indices count from 0; -1 is the last")
            if count is not None and not -count <= index < count:
                raise e.fault("B206", f"{index} is out of range", part.span, help=_members(what, count))
            picks.append(index % count if count is not None else index)
        is_single = is_single and not isinstance(value, tuple)
    if not picks:
        raise _nothing(e, first.span, what, count)
    return picks[0] if is_single else tuple(picks)


def _slice(e: Evaluator, x: t.Slice, count: int | None, what: str) -> Picks:
    bounds: list[int | None] = []
    for part in (x.start, x.stop, x.step):
        value = None if part is None else e.evaluate(part)
        if part is not None and not v.is_whole(value):
            raise e.fault("B203", "a slice needs integers", x.span, help="write `[::4]`, `[1:]` or `[:]`")
        bounds.append(value if v.is_whole(value) else None)
    if bounds[2] == 0:
        raise e.fault("B203", "a slice cannot step by zero", x.span, help="`[::1]` takes every member")
    if count is None:
        return None
    if picks := tuple(range(count))[slice(*bounds)]:
        return picks
    raise _nothing(e, x.span, what, count)


def _nothing(e: Evaluator, place: Span, what: str, count: int | None) -> Faulty:
    help = "list the members to select" if count is None else _members(what, count)
    return e.fault("B203", "this selects nothing", place, help=help)


def _members(what: str, count: int) -> str:
    return f"{f'`{what}`' if what else 'the list'} has {count} members, 0 to {count - 1}"
