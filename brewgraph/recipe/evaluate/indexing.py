"""Indices: members of rows and lists, as in PyTorch; a layer map picks its column by the side of an arrow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.evaluate.describe import describe
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.settings.sources import Layers
from brewgraph.recipe.values import (
    FAULT,
    Axis,
    Bundle,
    Combine,
    Group,
    LayerMap,
    ModelDeclaration,
    Row,
    Take,
)
from brewgraph.source import Span
from brewgraph.syntax import tree as t


def evaluate_index(e: Evaluator, x: t.Index, side: str | None) -> Any:
    """What an index expression picks."""
    if isinstance(x.value, t.At):
        item = e.evaluate(x.items[0]) if len(x.items) == 1 and isinstance(x.items[0], t.Expression) else None
        if item is FAULT:
            return FAULT
        if not isinstance(item, int) or isinstance(item, bool):
            place = x.items[0].span.to(x.items[-1].span)
            help = f"write one whole number: `{x.value.span.text}[0]`"
            return e.fault("B203", "an element of a tuple is picked by one number", place, help=help)
        return e.tap(x.value, item)
    if isinstance(x.value, t.Attribute) and x.value.name == "layers":
        owner = e.evaluate(x.value.value, side)
        if isinstance(owner, ModelDeclaration) or owner is FAULT:
            return _layers(e, owner, x) if isinstance(owner, ModelDeclaration) else FAULT
    return pick(e, e.evaluate(x.value, side), x, side)


def pick(e: Evaluator, value: Any, x: t.Index, side: str | None) -> Any:
    """Pick from a row, a list, or each model's row in a list of models."""
    if value is FAULT:
        return FAULT
    if isinstance(value, Group) and value.items and all(isinstance(i, Row | Group) for i in value):
        rows = [i for i in value if isinstance(i, Row)]
        if rows or (value.axis.kind == "models" and all(isinstance(i, Group) for i in value)):
            return value.map(lambda item: pick(e, item, x, side))
    if isinstance(value, Row):
        return _from_row(e, value, x, side)
    if isinstance(value, Take) and e.may_be_row(value):
        value = e.open_row(value, Axis("", "row", f"tap {value.feature.path}"))
    items = value.items if isinstance(value, Group) else value
    if isinstance(value, Group) and items is None:
        single = (
            len(x.items) == 1 and isinstance(x.items[0], t.Expression) and isinstance(e.evaluate(x.items[0], side), int)
        )
        return Combine(value.kind, "+", (), span=x.span) if single else value
    if not isinstance(items, tuple):
        help = "rows (`bert.hidden[3]`) and lists are indexed"
        if isinstance(value, ModelDeclaration):
            help = f"pick a feature first: `{value.name}.hidden[3]`"
        elif isinstance(value, Take) and value.feature.name == "tap":
            help = 'an element of a module\'s tuple is picked beside its path: `(model @ "path")[0]`'
        elif isinstance(value, Bundle):
            help = "a tuple is one argument: name its members before, `let a = bert.hidden[0]`, and use their names"
        return e.fault("B202", f"{describe(value)} cannot be indexed", x.span, help=help)
    picks = _picks(e, x, len(items), side, "")
    if picks is FAULT:
        return FAULT
    if isinstance(picks, int):
        return items[picks]
    chosen = tuple(items[i] for i in picks)
    if not isinstance(value, Group):
        return chosen
    axis = replace(value.axis, key=f"{value.axis.key}{picks}") if picks != tuple(range(len(items))) else value.axis
    return replace(value, items=chosen, axis=axis, span=x.span)


def _from_row(e: Evaluator, row: Row, x: t.Index, side: str | None) -> Any:
    count = _count(e, row.take)
    if count is FAULT:
        return FAULT
    picks = _picks(e, x, count, side, str(row.take.feature))
    if picks is FAULT:
        return FAULT
    axis = _axis(e, x, picks)
    if picks is None:
        return e.open_row(replace(row.take, span=x.span), axis)

    def take(i: int) -> Take:
        return replace(row.take, feature=replace(row.take.feature, index=i), span=x.span)

    return take(picks) if isinstance(picks, int) else Group(tuple(take(i) for i in picks), span=x.span, axis=axis)


def whole_row(e: Evaluator, row: Row) -> Any:
    """Every member of a row, for operations that take all of it: `emd(bert.hidden -> tiny.hidden)`."""
    count = _count(e, row.take)
    axis = Axis("", "row", "row [:]")
    if count is FAULT:
        return FAULT
    if count is None:
        return e.open_row(row.take, axis)
    takes = tuple(replace(row.take, feature=replace(row.take.feature, index=i)) for i in range(count))
    return Group(takes, span=row.take.span, axis=axis)


def _axis(e: Evaluator, x: t.Index, picks: Any) -> Axis:
    """The axis of what is picked from a row: the same for both columns of a map, and for equal picks."""
    first = x.items[0] if len(x.items) == 1 else None
    name, key = e.current.axis_of(first) if isinstance(first, t.Expression) else ("", "")
    return Axis(name, "row", f"row {key}" if key else f"row {x.items[0].span.text if picks is None else picks}")


def _layers(e: Evaluator, model: ModelDeclaration, x: t.Index) -> Any:
    picks = _picks(e, x, None, None, "the layers")
    if isinstance(picks, tuple):
        return Layers(model=model.name, layers=picks)
    if picks is FAULT:
        return FAULT
    help = f"write `{model.name}.layers[0, 4, 8]`"
    return e.fault("B203", "layers are picked by a list of numbers", x.span, help=help)


def _count(e: Evaluator, take: Take) -> Any:
    model = e.models[take.model]
    known = e.facts_of(model)
    try:
        return known.row_length(take.feature.name) if known else None
    except SourceFault as fault:
        return e.source_fault(fault, model, take.span)


def _picks(e: Evaluator, x: t.Index, count: int | None, side: str | None, what: str) -> Any:
    """Indices from 0: one int, a tuple, or None where the count is needed and not known."""
    first = x.items[0]
    if len(x.items) == 1 and isinstance(first, t.Slice):
        parts = [None if p is None else e.evaluate(p) for p in (first.start, first.stop, first.step)]
        if FAULT in parts:
            return FAULT
        if any(p is not None and (not isinstance(p, int) or isinstance(p, bool)) for p in parts):
            help = "write `[::4]`, `[1:]` or `[:]`"
            return e.fault("B203", "a slice is made of whole numbers", first.span, help=help)
        if parts[2] == 0:
            return e.fault("B203", "a slice cannot step by zero", first.span, help="`[::1]` takes every member")
        if count is None:
            return None
        chosen = tuple(range(count))[slice(*parts)]
        return chosen or _nothing(e, first.span, what, count)
    picks: list[int] = []
    single = len(x.items) == 1
    for part in x.items:
        if isinstance(part, t.Slice):
            return e.fault("B203", "a slice stands alone in its brackets", part.span, help="or list each number")
        value = e.evaluate(part, side)
        if isinstance(value, LayerMap):
            if side is None:
                help = f"pick a column: `{part.span.text}.from` or `{part.span.text}.to`"
                return e.fault(
                    "B205",
                    "a layer map picks its column from the side of an arrow, and here is none",
                    part.span,
                    help=help,
                )
            value = value.left if side == "from" else value.right
        if value is FAULT:
            return FAULT
        for pick in value if isinstance(value, tuple) else (value,):
            if isinstance(pick, bool) or not isinstance(pick, int):
                message = f"an index is a whole number, got {describe(pick)}"
                return e.fault("B203", message, part.span, help="members count from 0; -1 is the last")
            if count is not None and not -count <= pick < count:
                help = _members(what, count)
                return e.fault("B206", f"{pick} is out of range", part.span, help=help)
            picks.append(pick % count if count is not None else pick)
        single = single and not isinstance(value, tuple)
    if not picks:
        return _nothing(e, first.span, what, count)
    return picks[0] if single else tuple(picks)


def _nothing(e: Evaluator, place: Span, what: str, count: int | None) -> Any:
    help = "name the members to pick" if count is None else _members(what, count)
    return e.fault("B203", "this picks nothing", place, help=help)


def _members(what: str, count: int) -> str:
    return f"{f'`{what}`' if what else 'the list'} has {count} members, 0 to {count - 1}"
