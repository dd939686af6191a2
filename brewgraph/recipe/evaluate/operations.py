"""Calls of operations: a match and options, over pairs and lists; and of transforms, from values to a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from brewgraph.diagnostics import listing, suggest
from brewgraph.ops import DeclaredTransform, Operation, is_row
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.axes import pair
from brewgraph.recipe.evaluate.describe import as_value, describe, is_number
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.indexing import whole_row
from brewgraph.recipe.numbers import WEIGHTS, is_positive
from brewgraph.recipe.values import FAULT, Bundle, Group, Match, Row, Value
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

MASKS = ("none", "tokens", "pairs", "labels")
TOKEN_MASKS = ("none", "tokens")
"""What a function from values to a value can be told: it has no units to choose among, only tokens to hide."""
NOT_COMPARED = ("number", "schedule", "loss", "values", "temperature")


@dataclass(frozen=True)
class _Call:
    """An operation with everything but its match: options, mask, and whether it reduces to one number."""

    operation: Operation
    options: Mapping[str, Any]
    mask: str | v.Column | None
    reduced: bool
    span: Span


def evaluate_operation(e: Evaluator, operation: Operation, call: t.Call, side: str | None) -> Any:
    """The losses that a call gives: one, or a list where its match or its options hold lists."""
    match: Any = None
    options: dict[str, Any] = {}
    mask: str | v.Column | None = None
    reduced = True
    known = {option.name for option in operation.options}
    seen: set[str] = set()
    for argument in call.arguments:
        name, place = argument.name, argument.name_span or argument.span
        if name is not None and name in seen:
            return e.fault("B125", f"`{name}` is given twice", place, help="remove one of them")
        seen.add(name or "")
        if name is None and argument.key is None and match is None:
            match = e.evaluate(argument.value, side)
            if match is not FAULT and not isinstance(match, Match):
                help = f"write `{operation.name}(teacher.… -> student.…)`: from the teacher, to the student"
                message = f"`{operation.name}` compares the two sides of an arrow"
                return e.fault("B209", message, argument.span, help=help)
        elif name == "mask":
            found = _mask(e, argument)
            if found is None:
                return FAULT
            mask = found
        elif name == "reduce":
            if not _is_reduce(argument.value):
                help = '`reduce="none"` gives one number per example or token; left out, their mean'
                return e.fault("B122", '`reduce` can only be "none"', argument.value.span, help=help)
            reduced = False
        elif name in known:
            options[name or ""] = _option(e, operation, argument, side)
        else:
            what = f"no option `{name}`" if name else "only one match"
            help = instead("option", name or "", known | {"mask", "reduce"})
            if argument.key is not None and (key := argument.key.span.text) in known | {"mask", "reduce"}:
                help = f"write `{key}={argument.value.span.text}`"
            help = help or f"it takes {listing(['a -> b', *sorted(known), 'mask', 'reduce'])}"
            return e.fault("B120", f"`{operation.name}` takes {what}", place, help=help)
    if match is None:
        help = f"write `{operation.name}(teacher.… -> student.…)`"
        return e.fault("B209", f"`{operation.name}` needs a match", call.span, help=help)
    if match is FAULT or FAULT in options.values():
        return FAULT
    if not reduced and set(operation.takes.values()) == {"batch"}:
        help = "leave `reduce` out: what it gives is one number already"
        return e.fault("B208", f"`{operation.name}` compares whole batches", call.span, help=help)
    return _over_options(e, _Call(operation, options, mask, reduced, call.span), match)


def _is_reduce(x: t.Expression) -> bool:
    return (isinstance(x, t.String) and x.value == "none") or (isinstance(x, t.Constant) and x.value is None)


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _option(e: Evaluator, operation: Operation | DeclaredTransform, argument: t.Argument, side: str | None) -> Any:
    """The value of a keyword argument: a number, a schedule, a word, or a list of them."""
    name, x = argument.name or "", argument.value
    option = next(o for o in operation.options if o.name == name)
    if isinstance(option.default, str):
        return _word(e, option.default, name, x, option.text)
    value, place = e.evaluate(x, side), x.span
    if value is FAULT:
        return FAULT
    if isinstance(value, tuple):
        value = Group(value, span=place)
    if isinstance(value, Group) and value.items == ():
        return e.fault("B202", f"the list for `{name}` is empty", place, help=f"write `{name}=4`")
    for single in v.leaves(value) if isinstance(value, Group) else (value,):
        own = isinstance(single, v.Temperature) and name == "T"
        if not (own or is_number(single) or (isinstance(single, Value) and single.kind in WEIGHTS)):
            help = f"write `{name}=4`, `{name}=ramp(8 -> 1)`, or a list with one for each pair"
            message = f"`{name}` is a number or a schedule, got {describe(single)}"
            return e.fault("B202", message, place, help=help)
        if name == "T" and not own and not is_positive(single):
            return e.fault("B207", "a temperature is above zero", place, help="T=1 leaves the logits as they are")
    return value


def _word(e: Evaluator, default: str, name: str, x: t.Expression, text: str) -> Any:
    """An option that is a word: bare or as a string."""
    if isinstance(x, t.String | t.Name):
        return x.value if isinstance(x, t.String) else x.id
    return e.fault("B202", f"`{name}` is a word", x.span, help=f"{text}; left out, {default}")


def token_mask(e: Evaluator, argument: t.Argument) -> str | None:
    """`mask=none` or `mask=tokens` on what makes a value of others; None, with a diagnostic, for anything else."""
    x = argument.value
    word = _mask_word(x)
    if word in TOKEN_MASKS:
        return word
    help = suggest(word, TOKEN_MASKS) or f"it is one of {listing(TOKEN_MASKS)}"
    if word in MASKS or isinstance(x, t.Attribute):
        help = f"it is one of {listing(TOKEN_MASKS)} here; the loss around it takes the others"
    if isinstance(x, t.String) and x.value in TOKEN_MASKS:
        help = f"write it without quotes: `mask={x.value}`"
    e.fault("B122", "unknown mask", x.span, help=help)
    return None


def _mask_word(x: t.Expression) -> str:
    """A mask's name as it was written, empty for what is none."""
    if isinstance(x, t.Constant) and x.value is None:
        return "none"
    return x.id if isinstance(x, t.Name) else ""


def _mask(e: Evaluator, argument: t.Argument) -> str | v.Column | None:
    x = argument.value
    word = _mask_word(x)
    if word in MASKS:
        return word
    if isinstance(x, t.String) and x.value in MASKS:
        e.fault("B122", "unknown mask", x.span, help=f"write it without quotes: `mask={x.value}`")
        return None
    if isinstance(x, t.Attribute):
        value = e.evaluate(x)
        if isinstance(value, v.Column) and value.kind in ("labels", "targets"):
            e.fault("B122", "labels cannot be a mask", x.span, help="`mask=labels` chooses what has a label")
            return None
        if isinstance(value, v.Column) or value is FAULT:
            return value if isinstance(value, v.Column) else None
    help = suggest(word, MASKS) or f"it is one of {listing(MASKS)}, or a column of the data"
    e.fault("B122", "unknown mask", x.span, help=help)
    return None


def _over_options(e: Evaluator, call: _Call, match: Match) -> Any:
    """The operation for each member of lists among its options, then for each pair of its match."""
    for name, value in call.options.items():
        if not isinstance(value, Group):
            continue
        rest = {k: x for k, x in call.options.items() if k != name}
        if value.items is None:
            return Group(None, span=call.span, kind="loss")

        def with_option(m: Match, x: Any, name: str = name, rest: dict[str, Any] = rest) -> Any:
            if isinstance(m, Group) or isinstance(x, Group):
                return pair(m, x, call.span, e.fault, with_option, "loss")
            return _over_options(e, replace(call, options={**rest, name: x}), m)

        matches = _pairs(e, call, match)
        if matches is FAULT:
            return FAULT
        known = isinstance(matches, Group) and matches.items is not None and len(matches.axes) == 1
        if known and value.axis.kind == "list" and len(value.items) != len(matches.items):
            message = f"`{name}` has {len(value.items)} values, and the match {len(matches.items)} pairs"
            help = f"give one `{name}` for each pair, or a single one"
            return e.fault("B201", message, value.span, help=help)
        return pair(matches, value, call.span, e.fault, with_option, "loss")
    return _over_pairs(e, call, match.source, match.target, match.span)


def _pairs(e: Evaluator, call: _Call, match: Match) -> Any:
    """The match as one, or a list of matches of single values."""

    def join(a: Any, b: Any) -> Any:
        if isinstance(a, Group) or isinstance(b, Group):
            return pair(a, b, call.span, e.fault, join, arrow=True)
        return Match(a, b, span=match.span)

    return join(match.source, match.target)


def _over_pairs(e: Evaluator, call: _Call, source: Any, target: Any, place: Span) -> Any:
    whole = any(is_row(side) for sides in call.operation.takes for side in sides)

    if whole:
        source, target = (whole_row(e, side) if isinstance(side, Row) else side for side in (source, target))
        if FAULT in (source, target):
            return FAULT

    def apply(a: Any, b: Any) -> Any:
        if whole and all(isinstance(side, Bundle) for side in (_as_row(a), _as_row(b))):
            return _apply(e, call, _as_row(a), _as_row(b), place)
        if whole and isinstance(a, Group) and isinstance(b, Group) and _is_table(a) != _is_table(b):
            # a list of models, and one row that goes with the row of each
            table, function = (a, lambda x: apply(x, b)) if _is_table(a) else (b, lambda x: apply(a, x))
            return table.map(function)
        if isinstance(a, Group) or isinstance(b, Group):
            kind = "loss" if call.reduced else "values"
            _note_uses(e, a, b)
            return pair(a, b, call.span, e.fault, apply, kind, arrow=True)
        return _apply(e, call, a, b, place)

    return apply(source, target)


def _note_uses(e: Evaluator, *sides: Any) -> None:
    """Keep what is taken beside a list whose length is not known yet: of such a pair nothing else is left."""
    if any(isinstance(side, Group) and side.items is None for side in sides):
        e.open.update(dict.fromkeys(v.takes_in(*(x for side in sides for x in v.members(side)))))


def _is_table(side: Group) -> bool:
    return any(isinstance(x, Group) for x in side)


def _as_row(side: Any) -> Any:
    """A list of features of one kind as one argument, for operations that take a whole row.

    A row whose length is not known yet is one without members.
    """
    if isinstance(side, Group) and side.items is None and side.axis.kind == "row":
        return Bundle(f"{side.kind}...", (), span=side.span)
    if isinstance(side, Group) and side.items and all(isinstance(x, Value) for x in side.items):
        kinds = {x.kind for x in side.items}
        return Bundle(f"{kinds.pop()}...", side.items, span=side.span) if len(kinds) == 1 else side
    return side


def _apply(e: Evaluator, call: _Call, source: Any, target: Any, place: Span) -> Any:
    operation = call.operation
    for side in (source, target):
        if isinstance(side, Row):
            help = f"pick layers: `{side.take.span.text}[0]`, or all of them: `{side.take.span.text}[:]`"
            message = f"`{side.take.feature.name}` is one value per layer"
            return e.fault("B202", message, side.take.span, help=help)
        if not isinstance(side, Value) or side.kind in NOT_COMPARED:
            where = side.span if isinstance(side, Value) else place
            message = f"`{operation.name}` compares features, got {describe(side)}"
            return e.fault("B202", message, where, help=_feature_of(side) or f"it takes {takes(operation)}")
    open_kind = any("tensor" in side.kind for side in (source, target))
    if not open_kind and operation.unit(source.kind, target.kind) is None:
        reverse = operation.unit(target.kind, source.kind)
        help = (
            "turn the arrow round: labels and teachers stand on the left" if reverse else f"it takes {takes(operation)}"
        )
        if source.kind == "targets" and operation.name == "ce":
            help = "labels of several classes at once are compared by `bce`, numbers by `mse`"
        elif source.kind == "labels" and operation.name == "bce":
            help = 'labels of one class are compared by `ce`; of several at once: data with problem_type="multi_label"'
        message = f"`{operation.name}` does not compare {source.kind} with {target.kind}"
        return e.fault("B210", message, place, help=help)
    own = next((x for x in call.options.values() if isinstance(x, v.Temperature)), None)
    if own is not None and any(side.kind not in ("logits", "positions", "tensor") for side in (source, target)):
        message = f"`{own.name}` weighs two models' logits, got {describe(source)} and {describe(target)}"
        return e.fault("B210", message, own.span, help="a number or a schedule serves here: `T=4`")
    options = _settled(operation, call.options, call.span)
    kind = "loss" if call.reduced else "values"
    means, written = (call.mask, call.reduced, operation), frozenset(call.options)
    return v.Apply(kind, operation.key, source, target, options, *means, written, span=call.span)


def _feature_of(x: Any) -> str:
    """What to write instead of a model, or of a head of one; empty where it is neither."""
    if isinstance(x, v.Forwarded) and x.head is not None:
        return f"pick a feature of it: `{x.model.name}.{x.head}.logits`"
    model = x.model if isinstance(x, v.Forwarded) else x
    return f"pick a feature of it: `{model.name}.logits`" if isinstance(model, v.ModelDeclaration) else ""


def _settled(
    operation: Operation | DeclaredTransform, options: Mapping[str, Any], place: Span
) -> tuple[tuple[str, v.Option], ...]:
    """Every option with its value, defaults filled in."""
    settled: list[tuple[str, v.Option]] = []
    for option in operation.options:
        given = options.get(option.name, option.default)
        value = given if isinstance(given, str) else as_value(given, place)
        assert isinstance(value, v.Number | v.Scheduled | v.Combine | v.Temperature | str), option.name
        settled.append((option.name, value))
    return tuple(settled)


def takes(operation: Operation) -> str:
    """What an operation compares, in the words of a spec."""
    return ", ".join(f"{a} -> {b}" for a, b in operation.takes)


# ── transforms ───────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_transform(e: Evaluator, transform: DeclaredTransform, call: t.Call, side: str | None) -> Any:
    """`relation(bert.value[-1], heads=48)`: values and options to a value, over lists member by member.

    `mask=none` on one that hides padding makes it treat padding like real tokens.
    """
    given: list[Any] = []
    options: dict[str, Any] = {}
    masked: str | None = None
    known = {option.name for option in transform.options}
    for argument in call.arguments:
        if argument.name is None and argument.key is None:
            given.append(e.evaluate(argument.value, side))
        elif argument.name in options:
            place = argument.name_span or argument.span
            return e.fault("B125", f"`{argument.name}` is given twice", place, help="remove one of them")
        elif argument.name in known:
            options[argument.name or ""] = _option(e, transform, argument, side)
        elif argument.name == "mask" and transform.needs_layout:
            if masked is not None:
                place = argument.name_span or argument.span
                return e.fault("B125", "`mask` is given twice", place, help="remove one of them")
            masked = token_mask(e, argument)
            if masked is None:
                return FAULT
        else:
            place = argument.name_span or argument.span
            help = instead("option", argument.name or "", known) or f"it takes {_transforms(transform)}"
            if argument.name == "mask":
                help = f"`{transform.name}` treats padding like any token; a loss chooses: `mse(a -> b, mask=none)`"
            return e.fault("B120", f"`{transform.name}` takes no option `{argument.name}`", place, help=help)
    if FAULT in given or FAULT in options.values():
        return FAULT
    wanted = len(next(iter(transform.takes)))
    if len(given) != wanted:
        message = f"`{transform.name}` takes {wanted} value{'s' if wanted > 1 else ''}"
        return e.fault("B209", message, call.span, help=f"it takes {_transforms(transform)}")

    def apply(*members: Any) -> Any:
        if any(isinstance(m, Group) for m in members):
            if len(members) == 1 and members[0].items is None and members[0].kind != "tensor":
                like = apply(Value(members[0].kind, span=members[0].span))
                return FAULT if like is FAULT else replace(members[0], kind=like.kind)
            if len(members) == 1:
                return members[0].map(apply)
            return pair(members[0], members[1], call.span, e.fault, apply)
        return _transform(e, transform, members, options, masked, call)

    return apply(*given)


def _transform(
    e: Evaluator,
    transform: DeclaredTransform,
    members: tuple[Any, ...],
    options: Mapping[str, Any],
    masked: str | None,
    call: t.Call,
) -> Any:
    for member in members:
        if not isinstance(member, Value):
            what = f"`{member.take.span.text}[0]`" if isinstance(member, Row) else "one feature"
            message = f"`{transform.name}` takes {_transforms(transform)}, got {describe(member)}"
            return e.fault("B202", message, call.span, help=f"pick {what}")
    kinds = [m.kind for m in members]
    result = transform.result(*kinds)
    if result is None and "tensor" not in kinds:
        message = f"`{transform.name}` does not take {' and '.join(kinds)}"
        return e.fault("B210", message, call.span, help=f"it takes {_transforms(transform)}")
    for name, value in options.items():
        if isinstance(value, Group):
            help = f"write `{name}=4`, and the call once for each of them"
            return e.fault("B202", f"`{name}` of `{transform.name}` is one number, got a list", value.span, help=help)
        if isinstance(value, v.Temperature):
            message = f"`{value.name}` is a temperature between two models, and here is one value"
            return e.fault("B210", message, value.span, help="write `T=4`, or use it in a loss: `kd(a -> b, T=…)`")
    settled = _settled(transform, options, call.span)
    result = result or next(iter(transform.takes.values()))
    mask = "none" if masked == "none" else None
    return v.Transform(result, transform.key, members, settled, mask, transform, frozenset(options), span=call.span)


def _transforms(transform: DeclaredTransform) -> str:
    return " or ".join(", ".join(kinds) for kinds in transform.takes)
