"""Calls of operations: a match and options, over pairs and lists; and of transforms, from values to a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from brewgraph.diagnostics import listing, suggest
from brewgraph.ops import DeclaredTransform, Operation, is_row
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.indexing import whole_row
from brewgraph.recipe.evaluate.joining import pair
from brewgraph.recipe.numbers import WEIGHTS, is_positive
from brewgraph.recipe.values import Bundle, Evaluated, Faulty, Group, Match, Row, Value, as_value, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

MASKS = ("none", "tokens", "pairs", "labels")
TOKEN_MASKS = ("none", "tokens")
"""The masks of a function from values to a value: it has no units to choose among, only tokens to hide."""
NOT_COMPARED = ("number", "schedule", "loss", "values", "temperature")


@dataclass(frozen=True)
class _Call:
    """An operation with everything but its match: options, mask, and whether it reduces to one number."""

    operation: Operation
    options: Mapping[str, Evaluated]
    mask: str | v.Column | None
    reduced: bool
    span: Span


def evaluate_operation(e: Evaluator, operation: Operation, call: t.Call, side: str | None) -> Evaluated:
    """The losses that a call gives: one, or a list where its match or its options hold lists."""
    known = {option.name for option in operation.options}
    words = known | {"mask", "reduce"}
    first = next((argument for argument in call.arguments if argument.is_plain), None)
    matches: list[Match] = []
    options: dict[str, Evaluated] = {}
    mask: str | v.Column | None = None
    reduced = True

    def take(argument: t.Argument) -> None:
        nonlocal mask, reduced
        name, x = argument.name, argument.value
        if argument is first:
            match = e.evaluate(x, side)
            if not isinstance(match, Match):
                help = f"write `{operation.name}(teacher.… -> student.…)`: from the teacher, to the student"
                message = f"`{operation.name}` compares the two sides of an arrow"
                raise e.fault("B209", message, argument.span, help=help)
            matches.append(match)
        elif argument.is_plain and not matches:
            raise Faulty  # the first one is no match
        elif name == "mask":
            mask = _mask(e, argument)
        elif name == "reduce":
            if x.span.text not in ("none", '"none"'):
                help = '`reduce="none"` gives one number per example or token; default: their mean'
                raise e.fault("B122", '`reduce` can only be "none"', x.span, help=help)
            reduced = False
        elif name in known:
            options[name or ""] = _option(e, operation, argument, side)
        else:
            what = f"no option `{name}`" if name else "only one match"
            help = instead("option", name or "", words)
            if argument.key is not None and (key := argument.key.span.text) in words:
                help = f"write `{key}={x.span.text}`"
            help = help or f"it takes {listing(['a -> b', *sorted(known), 'mask', 'reduce'])}"
            raise e.fault("B120", f"`{operation.name}` takes {what}", argument.place, help=help)

    each(take, call.arguments)
    if not matches:
        help = f"write `{operation.name}(teacher.… -> student.…)`"
        raise e.fault("B209", f"`{operation.name}` needs a match", call.span, help=help)
    if not reduced and set(operation.takes.values()) == {"batch"}:
        help = "remove `reduce`: the result is already one number"
        raise e.fault("B208", f"`{operation.name}` compares whole batches", call.span, help=help)
    return _over_options(e, _Call(operation, options, mask, reduced, call.span), matches[0])


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _option(e: Evaluator, declared: Operation | DeclaredTransform, argument: t.Argument, side: str | None) -> Evaluated:
    """The value of a keyword argument: a number, a schedule, a word, or a list of them."""
    name, x = argument.name or "", argument.value
    option = next(o for o in declared.options if o.name == name)
    if isinstance(option.default, str):  # a word, bare or as a string
        if isinstance(x, t.String | t.Name):
            return x.value if isinstance(x, t.String) else x.id
        raise e.fault("B202", f"`{name}` is a word", x.span, help=f"{option.text}; default: {option.default}")
    value, place = e.evaluate(x, side), x.span
    if isinstance(value, tuple):
        value = Group(value, span=place)
    if isinstance(value, Group) and value.items == ():
        raise e.fault("B202", f"the list for `{name}` is empty", place, help=f"write `{name}=4`")
    for single in v.leaves(value) if isinstance(value, Group) else (value,):
        is_temperature = isinstance(single, v.Temperature) and name == "T"
        if not (is_temperature or v.is_number(single) or (isinstance(single, Value) and single.kind in WEIGHTS)):
            help = f"write `{name}=4`, `{name}=ramp(8 -> 1)`, or a list with one for each pair"
            raise e.fault("B202", f"`{name}` is a number or a schedule, got {describe(single)}", place, help=help)
        if name == "T" and not is_temperature and not is_positive(single):
            raise e.fault("B207", "a temperature must be positive", place, help="T=1 leaves the logits unchanged")
    return value


def token_mask(e: Evaluator, argument: t.Argument) -> str:
    """`mask=none` or `mask=tokens` of a function from values to a value."""
    x = argument.value
    choices = f"it is one of {listing(TOKEN_MASKS)}"
    if _mask_word(x) in MASKS or isinstance(x, t.Attribute):
        choices += " here; the loss around it takes the others"
    return _named_mask(e, x, TOKEN_MASKS, choices)


def _mask(e: Evaluator, argument: t.Argument) -> str | v.Column:
    x = argument.value
    value = e.evaluate(x) if isinstance(x, t.Attribute) else None
    if isinstance(value, v.Column) and value.kind in ("labels", "targets"):
        raise e.fault("B122", "labels cannot be a mask", x.span, help="`mask=labels` chooses what has a label")
    if isinstance(value, v.Column):
        return value
    return _named_mask(e, x, MASKS, f"it is one of {listing(MASKS)}, or a column of the data")


def _named_mask(e: Evaluator, x: t.Expression, masks: tuple[str, ...], choices: str) -> str:
    """A mask by its name; `choices` says what the masks are."""
    word = _mask_word(x)
    if word in masks:
        return word
    help = (suggest(word, masks) if word not in MASKS else "") or choices
    if isinstance(x, t.String) and x.value in masks:
        help = f"write it without quotes: `mask={x.value}`"
    raise e.fault("B122", "unknown mask", x.span, help=help)


def _mask_word(x: t.Expression) -> str:
    """The name of a mask, empty for any other expression."""
    if isinstance(x, t.Constant) and x.value is None:
        return "none"
    return x.id if isinstance(x, t.Name) else ""


def _settled(
    declared: Operation | DeclaredTransform, options: Mapping[str, Evaluated], place: Span
) -> tuple[tuple[str, v.Option], ...]:
    """Every option with its value, defaults filled in."""
    settled: list[tuple[str, v.Option]] = []
    for option in declared.options:
        chosen = options.get(option.name, option.default)
        value = chosen if isinstance(chosen, str) else as_value(chosen, place)
        assert isinstance(value, v.Number | v.Scheduled | v.Combine | v.Temperature | str), option.name
        settled.append((option.name, value))
    return tuple(settled)


# ── lists and pairs ──────────────────────────────────────────────────────────────────────────────────────────────────


def _over_options(e: Evaluator, call: _Call, match: Match) -> Evaluated:
    """The operation for each member of lists among its options, then for each pair of its match."""
    name = next((name for name, value in call.options.items() if isinstance(value, Group)), None)
    if name is None:
        return _over_pairs(e, call, match)
    values = call.options[name]
    assert isinstance(values, Group)
    if values.items is None:
        return Group(None, span=call.span, kind="loss")

    def join(a: Evaluated, b: Evaluated) -> Evaluated:
        if isinstance(a, Group) or isinstance(b, Group):
            return pair(a, b, call.span, e.fault, join, arrow=True)
        return Match(a, b, span=match.span)

    def with_option(m: Evaluated, x: Evaluated) -> Evaluated:
        if isinstance(m, Match) and not isinstance(x, Group):
            return _over_options(e, replace(call, options={**call.options, name: x}), m)
        return pair(m, x, call.span, e.fault, with_option, "loss")

    matches = join(match.source, match.target)
    pairs = matches.items if isinstance(matches, Group) and len(matches.axes) == 1 else None
    if pairs is not None and values.axis.kind == "list" and len(values.items) != len(pairs):
        message = f"`{name}` has {len(values.items)} values, and the match {len(pairs)} pairs"
        raise e.fault("B201", message, values.span, help=f"give one `{name}` for each pair, or a single one")
    return pair(matches, values, call.span, e.fault, with_option, "loss")


def _over_pairs(e: Evaluator, call: _Call, match: Match) -> Evaluated:
    source, target = match.source, match.target
    takes_rows = any(is_row(side) for sides in call.operation.takes for side in sides)
    if takes_rows:
        source, target = each(lambda side: whole_row(e, side) if isinstance(side, Row) else side, (source, target))

    def apply(a: Evaluated, b: Evaluated) -> Evaluated:
        if takes_rows:
            left, right = _as_row(a), _as_row(b)
            if isinstance(left, Bundle) and isinstance(right, Bundle):
                return _apply(e, call, left, right, match.span)
            if isinstance(a, Group) and isinstance(b, Group) and _is_table(a) != _is_table(b):
                # a list of models, and one row that goes with the row of each
                return a.map(lambda x: apply(x, b)) if _is_table(a) else b.map(lambda x: apply(a, x))
        if isinstance(a, Group) or isinstance(b, Group):
            if any(isinstance(side, Group) and side.items is None for side in (a, b)):
                # such a pair keeps nothing of what stands beside the list whose length is not known yet
                e.open.update(dict.fromkeys(v.takes_in(*v.members(a), *v.members(b))))
            kind = "loss" if call.reduced else "values"
            return pair(a, b, call.span, e.fault, apply, kind, arrow=True)
        return _apply(e, call, a, b, match.span)

    return apply(source, target)


def _is_table(side: Group) -> bool:
    return any(isinstance(x, Group) for x in side)


def _as_row(side: Evaluated) -> Evaluated:
    """A list of features of one kind as one argument, for operations that take a whole row.

    A row whose length is not known yet is one without members.
    """
    if not isinstance(side, Group):
        return side
    if side.items is None:
        return Bundle(f"{side.kind}...", (), span=side.span) if side.axis.kind == "row" else side
    values = tuple(x for x in side if isinstance(x, Value))
    kinds = {x.kind for x in values}
    whole = len(kinds) == 1 and len(values) == len(side.items)
    return Bundle(f"{kinds.pop()}...", values, span=side.span) if whole else side


def _apply(e: Evaluator, call: _Call, source: Evaluated, target: Evaluated, place: Span) -> Evaluated:
    operation = call.operation
    for side in (source, target):
        if isinstance(side, Row):
            help = f"pick layers: `{side.take.span.text}[0]`, or all of them: `{side.take.span.text}[:]`"
            raise e.fault("B202", f"`{side.take.feature.name}` is one value per layer", side.take.span, help=help)
        if not isinstance(side, Value) or side.kind in NOT_COMPARED:
            where = side.span if isinstance(side, Value) else place
            message = f"`{operation.name}` compares features, got {describe(side)}"
            raise e.fault("B202", message, where, help=_feature_of(side) or f"it takes {takes(operation)}")
    assert isinstance(source, Value)
    assert isinstance(target, Value)
    kinds = (source.kind, target.kind)
    if not any("tensor" in kind for kind in kinds) and operation.unit(*kinds) is None:
        help = f"it takes {takes(operation)}"
        if operation.unit(*reversed(kinds)):
            help = "reverse the arrow: labels and teachers belong on the left"
        if source.kind == "targets" and operation.name == "ce":
            help = "use `bce` for multi-label classes, `mse` for numbers"
        elif source.kind == "labels" and operation.name == "bce":
            help = 'use `ce` for single-label classes; multi-label data needs problem_type="multi_label"'
        message = f"`{operation.name}` does not compare {source.kind} with {target.kind}"
        raise e.fault("B210", message, place, help=help)
    temperature = next((x for x in call.options.values() if isinstance(x, v.Temperature)), None)
    if temperature is not None and any(kind not in ("logits", "positions", "tensor") for kind in kinds):
        message = f"`{temperature.name}` needs the logits of two models, got {describe(source)} and {describe(target)}"
        raise e.fault("B210", message, temperature.span, help="a number or a schedule serves here: `T=4`")
    return v.Apply(
        "loss" if call.reduced else "values",
        operation.key,
        source,
        target,
        _settled(operation, call.options, call.span),
        call.mask,
        call.reduced,
        frozenset(call.options),
        declared=operation,
        span=call.span,
    )


def _feature_of(x: Evaluated) -> str:
    """What to write instead of a model, or of a head of one; empty where it is neither."""
    if isinstance(x, v.Forwarded) and x.head is not None:
        return f"pick a feature of it: `{x.model.name}.{x.head}.logits`"
    model = x.model if isinstance(x, v.Forwarded) else x
    return f"pick a feature of it: `{model.name}.logits`" if isinstance(model, v.ModelDeclaration) else ""


def takes(operation: Operation) -> str:
    """What an operation compares, in the words of a spec."""
    return ", ".join(f"{a} -> {b}" for a, b in operation.takes)


# ── transforms ───────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_transform(e: Evaluator, transform: DeclaredTransform, call: t.Call, side: str | None) -> Evaluated:
    """`relation(bert.value[-1], heads=48)`: values and options to a value, over lists member by member.

    `mask=none` on one that hides padding makes it treat padding like real tokens.
    """
    arguments: list[Evaluated] = []
    options: dict[str, Evaluated] = {}
    mask: str | None = None
    known = {option.name for option in transform.options}

    def take(argument: t.Argument) -> None:
        nonlocal mask
        if argument.is_plain:
            arguments.append(e.evaluate(argument.value, side))
        elif argument.name in known:
            options[argument.name or ""] = _option(e, transform, argument, side)
        elif argument.name == "mask" and transform.needs_layout:
            mask = token_mask(e, argument)
        else:
            help = instead("option", argument.name or "", known) or f"it takes {_transforms(transform)}"
            if argument.name == "mask":
                help = f"`{transform.name}` includes padding; choose the mask in a loss: `mse(a -> b, mask=none)`"
            raise e.fault("B120", f"`{transform.name}` takes no option `{argument.name}`", argument.place, help=help)

    each(take, call.arguments)
    count = len(next(iter(transform.takes)))
    if len(arguments) != count:
        message = f"`{transform.name}` takes {count} value{'s' if count > 1 else ''}"
        raise e.fault("B209", message, call.span, help=f"it takes {_transforms(transform)}")

    def apply(*members: Evaluated) -> Evaluated:
        first = members[0]
        if not any(isinstance(m, Group) for m in members):
            return _transform(e, transform, members, options, mask, call.span)
        if len(members) == 1 and isinstance(first, Group):
            return first.map_values(apply)
        return pair(first, members[1], call.span, e.fault, apply)

    return apply(*arguments)


def _transform(
    e: Evaluator,
    transform: DeclaredTransform,
    members: tuple[Evaluated, ...],
    options: Mapping[str, Evaluated],
    mask: str | None,
    place: Span,
) -> v.Transform:
    for member in members:
        if not isinstance(member, Value):
            what = f"`{member.take.span.text}[0]`" if isinstance(member, Row) else "one feature"
            message = f"`{transform.name}` takes {_transforms(transform)}, got {describe(member)}"
            raise e.fault("B202", message, place, help=f"pick {what}")
    values = tuple(member for member in members if isinstance(member, Value))
    kinds = [x.kind for x in values]
    result = transform.result(*kinds)
    if result is None and "tensor" not in kinds:
        message = f"`{transform.name}` does not take {' and '.join(kinds)}"
        raise e.fault("B210", message, place, help=f"it takes {_transforms(transform)}")
    for name, value in options.items():
        if isinstance(value, Group):
            help = f"write `{name}=4`, and the call once for each of them"
            raise e.fault("B202", f"`{name}` of `{transform.name}` is one number, got a list", value.span, help=help)
        if isinstance(value, v.Temperature):
            message = f"`{value.name}` is a temperature for two models, and here is one value"
            raise e.fault("B210", message, value.span, help="write `T=4`, or use it in a loss: `kd(a -> b, T=…)`")
    return v.Transform(
        result or next(iter(transform.takes.values())),
        transform.key,
        values,
        _settled(transform, options, place),
        "none" if mask == "none" else None,
        frozenset(options),
        declared=transform,
        span=place,
    )


def _transforms(transform: DeclaredTransform) -> str:
    return " or ".join(", ".join(kinds) for kinds in transform.takes)
