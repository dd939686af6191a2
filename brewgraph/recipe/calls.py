"""Calls in equations: operations on matches, schedules, `sum` and `mean` over lists, projections behind `via`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from brewgraph.diagnostics import listing, suggest
from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, Operation
from brewgraph.recipe.arithmetic import is_positive, pair
from brewgraph.recipe.describe import as_value, describe, is_number, wrong_place
from brewgraph.recipe.evaluate import Evaluator
from brewgraph.recipe.values import (
    FAULT,
    Apply,
    Combine,
    Group,
    Match,
    ModelDeclaration,
    Number,
    Project,
    Projector,
    Row,
    Scheduled,
    Value,
    leaves,
)
from brewgraph.source import Span
from brewgraph.syntax import tree as t

MASKS = ("none", "tokens", "pairs", "labels")
LATER = frozenset(
    [
        "emd",
        "fsp",
        "gram",
        "mmd",
        "pkd",
        "attn",
        "relation",
        "words",
        "softmax",
        "max",
        "token_mean",
        "batch_mean",
        "probabilities",
        "flsw",
        "cwsm",
        "stop",
        "rkd",
        "crd",
        "cosine",
        "piecewise",
        "after",
        "ema",
        "shift",
        "generate",
    ]
)
"""Functions of the language whose meaning is still to come."""
ACROSS = ("sum", "mean")


def evaluate_call(evaluator: Evaluator, call: t.Call, side: str | None, functions: dict[str, Span]) -> Any:
    """A call in an equation, by the name that is called."""
    if not isinstance(call.function, t.Name):
        return evaluator.fault("B901", "names of imported specs are not supported yet", call.function.span)
    name, place = call.function.id, call.function.span
    if name in functions:
        return evaluator.fault("B901", "calling functions of the spec is not supported yet", place)
    if name in OPERATIONS:
        return _operation(evaluator, OPERATIONS[name], call, side)
    if name in SCHEDULES:
        return _schedule(evaluator, name, call)
    if name in ACROSS:
        return _across(evaluator, name, call, side)
    if name in LATER:
        return evaluator.fault("B901", f"`{name}` is not supported yet", place)
    known = [*OPERATIONS, *SCHEDULES, *ACROSS]
    if help := wrong_place(name):
        return evaluator.fault("B102", f"`{name}` has no place in an equation", place, help=help)
    if name in evaluator.scope.known_names() and isinstance(evaluator.scope.value_of(name, place), ModelDeclaration):
        return evaluator.fault(
            "B901", "naming a model's input, `M(D)`, is not supported yet", call.span, help=f"write `{name}.…`"
        )
    help = suggest(name, known) or f"there are {listing(known)}"
    return evaluator.fault("B101", f"there is no operation `{name}`", place, help=help)


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _operation(evaluator: Evaluator, operation: Operation, call: t.Call, side: str | None) -> Any:
    match: Any = None
    options: dict[str, Any] = {}
    mask: str | None = None
    known = {option.name for option in operation.options}
    seen: set[str] = set()
    for argument in call.arguments:
        if argument.name is not None and argument.name in seen:
            place = argument.name_span or argument.span
            return evaluator.fault("B125", f"`{argument.name}` is given twice", place, help="remove one of them")
        seen.add(argument.name or "")
        if argument.name is None and argument.key is None and match is None:
            match = evaluator.evaluate(argument.value, side)
            if match is not FAULT and not isinstance(match, Match):
                help = f"write `{operation.name}(teacher.… -> student.…)`: from the teacher, to the student"
                return evaluator.fault(
                    "B209", f"`{operation.name}` compares the two sides of an arrow", argument.span, help=help
                )
        elif argument.name == "mask":
            mask = _mask(evaluator, argument)
            if mask is None:
                return FAULT
        elif argument.name == "reduce":
            return evaluator.fault("B901", "`reduce` is not supported yet", argument.span)
        elif argument.name in known:
            options[argument.name or ""] = _option(evaluator, argument, side)
        else:
            place = argument.name_span or argument.span
            what = f"no option `{argument.name}`" if argument.name else "only one match"
            help = (
                suggest(argument.name or "", known | {"mask"})
                or f"it takes {listing(['a -> b', *sorted(known), 'mask'])}"
            )
            return evaluator.fault("B120", f"`{operation.name}` takes {what}", place, help=help)
    if match is None:
        help = f"write `{operation.name}(teacher.… -> student.…)`"
        return evaluator.fault("B209", f"`{operation.name}` needs a match", call.span, help=help)
    if match is FAULT or FAULT in options.values():
        return FAULT
    return _over_options(evaluator, operation, match, options, mask, call.span)


def _option(evaluator: Evaluator, argument: t.Argument, side: str | None) -> Any:
    """The value of a keyword argument of an operation: a number, a schedule, or a list of them."""
    value, name, place = evaluator.evaluate(argument.value, side), argument.name, argument.value.span
    if value is FAULT:
        return FAULT
    if isinstance(value, tuple):
        value = Group(value, span=place)
    if isinstance(value, Group) and value.items == ():
        return evaluator.fault("B202", f"the list for `{name}` is empty", place, help=f"write `{name}=4`")
    for single in value if isinstance(value, Group) else (value,):
        if not (is_number(single) or (isinstance(single, Value) and single.kind in ("number", "schedule"))):
            help = f"write `{name}=4`, `{name}=ramp(8 -> 1)`, or a list with one for each pair"
            message = f"`{name}` is a number or a schedule, and this is {describe(single)}"
            return evaluator.fault("B202", message, place, help=help)
        if name == "T" and not is_positive(single):
            return evaluator.fault(
                "B207", "a temperature is above zero", place, help="T=1 leaves the logits as they are"
            )
    return value


def _mask(evaluator: Evaluator, argument: t.Argument) -> str | None:
    value = argument.value
    word = (
        "none"
        if isinstance(value, t.Constant) and value.value is None
        else value.id
        if isinstance(value, t.Name)
        else ""
    )
    if word in MASKS:
        return word
    if isinstance(value, t.Attribute):
        evaluator.fault("B901", "masks from a column are not supported yet", value.span)
    else:
        evaluator.fault(
            "B122", "there is no such mask", value.span, help=suggest(word, MASKS) or f"it is one of {listing(MASKS)}"
        )
    return None


def _over_options(
    evaluator: Evaluator, operation: Operation, match: Match, options: dict[str, Any], mask: str | None, place: Span
) -> Any:
    """The operation for each member of lists among its options, then for each pair of its match."""
    for name, value in options.items():
        if isinstance(value, Group):
            if value.items is None:
                return Group(None, span=place, kind="loss")
            if isinstance(match.source, Group) or isinstance(match.target, Group):
                join = lambda a, b: Match(a, b, span=match.span)  # noqa: E731
                pairs = pair(match.source, match.target, place, evaluator.fault, join)
                if pairs is FAULT:
                    return FAULT
                if pairs.items is None:
                    return Group(None, span=place, kind="loss")
                if len(value.items) != len(pairs.items):
                    message = f"`{name}` has {len(value.items)} values, and the match {len(pairs.items)} pairs"
                    help = f"give one `{name}` for each pair, or a single one"
                    return evaluator.fault("B201", message, value.span, help=help)
                rest = {k: v for k, v in options.items() if k != name}
                results = tuple(
                    _over_options(evaluator, operation, m, {**rest, name: v}, mask, place)
                    for m, v in zip(pairs, value.items, strict=True)
                )
            else:
                results = tuple(
                    _over_options(evaluator, operation, match, {**options, name: v}, mask, place) for v in value.items
                )
            return FAULT if FAULT in results else Group(results, span=place)

    def apply(source: Any, target: Any) -> Any:
        if isinstance(source, Group) or isinstance(target, Group):
            return pair(source, target, place, evaluator.fault, apply, "loss")
        return _apply(evaluator, operation, Match(source, target, span=match.span), options, mask, place)

    return apply(match.source, match.target)


def _apply(
    evaluator: Evaluator, operation: Operation, match: Match, options: dict[str, Any], mask: str | None, place: Span
) -> Any:
    sides = []
    for side in (match.source, match.target):
        if isinstance(side, Row):
            help = f"pick layers: `{side.take.span.text}[0]`, or all of them: `{side.take.span.text}[:]`"
            return evaluator.fault(
                "B202", f"`{side.take.feature.name}` is one value per layer", side.take.span, help=help
            )
        if not isinstance(side, Value) or side.kind in ("number", "schedule", "loss"):
            where = side.span if isinstance(side, Value) else match.span
            help = f"it takes {_takes(operation)}"
            return evaluator.fault(
                "B202", f"`{operation.name}` compares features, and this is {describe(side)}", where, help=help
            )
        sides.append(side)
    source, target = sides
    if "tensor" not in (source.kind, target.kind) and operation.unit(source.kind, target.kind) is None:
        reverse = operation.unit(target.kind, source.kind)
        help = (
            "turn the arrow round: labels and teachers stand on the left"
            if reverse
            else f"it takes {_takes(operation)}"
        )
        message = f"`{operation.name}` does not compare {source.kind} with {target.kind}"
        return evaluator.fault("B210", message, match.span, help=help)
    settled: list[tuple[str, Number | Scheduled | Combine]] = []
    for option in operation.options:
        value = as_value(options.get(option.name, option.default), place)
        assert isinstance(value, Number | Scheduled | Combine), option.name
        settled.append((option.name, value))
    return Apply("loss", operation.name, source, target, tuple(settled), mask, span=place)


def _takes(operation: Operation) -> str:
    return ", ".join(f"{a} -> {b}" for a, b in operation.takes)


# ── schedules, lists ─────────────────────────────────────────────────────────────────────────────────────────────────


def _schedule(evaluator: Evaluator, name: str, call: t.Call) -> Any:
    values = [evaluator.evaluate(a.value) for a in call.arguments]
    if FAULT in values:
        return FAULT
    match = values[0] if len(values) == 1 and all(a.name is None for a in call.arguments) else None
    if isinstance(match, Match):
        ends = (as_value(match.source, call.span), as_value(match.target, call.span))
        if isinstance(ends[0], Number) and isinstance(ends[1], Number):
            return Scheduled("schedule", name, (ends[0].value, ends[1].value), span=call.span)
    return evaluator.fault(
        "B209", f"`{name}` goes from one number to another", call.span, help=f"write `{name}(1 -> 0)`"
    )


def _across(evaluator: Evaluator, name: str, call: t.Call, side: str | None) -> Any:
    for argument in call.arguments:
        if argument.name is not None:
            return evaluator.fault("B901", f"`{argument.name}=` is not supported yet", argument.span)
    if len(call.arguments) != 1:
        return evaluator.fault("B209", f"`{name}` takes one list", call.span, help=f"write `{name}([a, b])`")
    value = evaluator.evaluate(call.arguments[0].value, side)
    if value is FAULT:
        return FAULT
    if value == () or (isinstance(value, Group) and value.items == ()):
        return evaluator.fault("B211", f"`{name}` of an empty list", call.span, help="name its members")
    if isinstance(value, tuple) and all(map(is_number, value)):
        return sum(value) / (len(value) if name == "mean" else 1)
    if isinstance(value, tuple):
        value = Group(value, span=call.arguments[0].span)
    if not isinstance(value, Group):
        help = "leave it out: an operation already gives one number"
        if isinstance(value, Row):
            help = f"pick layers: `{value.take.span.text}[:]`"
        elif not (isinstance(value, Value) and value.kind == "loss"):
            help = "an operation reduces its tensors: `mse(teacher.… -> student.…)`"
        return evaluator.fault(
            "B211", f"`{name}` goes across a list, and this is {describe(value)}", call.span, help=help
        )
    if value.items is None:
        kind = value.kind
        return Combine(kind, "mean" if name == "mean" else "+", (), span=call.span)
    found = [as_value(item, call.span) or item for item in leaves(value)]
    items = tuple(item for item in found if isinstance(item, Value))
    if len(items) < len(found) or len({_summable(i.kind) for i in items}) > 1:
        listed = listing(dict.fromkeys(describe(item) for item in found)).replace("`", "")
        message = f"`{name}` needs a list of values of one kind, and this holds {listed}"
        return evaluator.fault("B202", message, call.span, help="add up losses with losses, features with features")
    if any(i.kind == "labels" for i in items):
        help = "compare them: `ce(data.labels -> model.logits)`"
        return evaluator.fault("B202", "labels are no numbers to compute with", call.span, help=help)
    if len(items) == 1:
        return items[0]
    return Combine(_summable(items[0].kind), "mean" if name == "mean" else "+", items, span=call.span)


def _summable(kind: str) -> str:
    return "schedule" if kind == "number" else kind


# ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────────


def make_projector(
    evaluator: Evaluator, expression: t.Expression, name: str | None, site: str, place: Span
) -> Projector | None:
    """A projection from `linear`, `linear(312 -> 768, lr=1e-3)`; None and a diagnostic where it is none."""
    call = expression if isinstance(expression, t.Call) else None
    called = call.function if call else expression
    word = called.id if isinstance(called, t.Name) else ""
    if word not in PROJECTIONS:
        help = suggest(word, PROJECTIONS) or f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
        evaluator.fault("B101", f"there is no projection `{expression.span.text}`", expression.span, help=help)
        return None
    into = out = None
    options: list[tuple[str, float]] = []
    seen: set[str | None] = set()
    for argument in call.arguments if call else ():
        if argument.name in seen:
            what = f"`{argument.name}` is" if argument.name else "the sizes are"
            evaluator.fault("B125", f"{what} given twice", argument.span, help="remove one of them")
            return None
        seen.add(argument.name)
        value = evaluator.evaluate(argument.value)
        if value is FAULT:
            return None
        if (
            argument.name is None
            and isinstance(value, Match)
            and all(isinstance(size, int) and is_number(size) and size > 0 for size in (value.source, value.target))
        ):
            into, out = value.source, value.target
        elif (
            argument.name in ("lr", "weight_decay")
            and is_number(value)
            and value >= 0
            and (value > 0 or argument.name != "lr")
        ):
            options.append((argument.name, float(value)))
        else:
            help = f"write `{word}(312 -> 768, lr=1e-3)`; sizes and settings may be left out"
            evaluator.fault("B120", f"`{word}` does not take this", argument.span, help=help)
            return None
    return Projector(name, PROJECTIONS[word].activation, into, out, tuple(options), site, span=place)


def evaluate_via(
    evaluator: Evaluator, x: t.Via, side: str | None, find: Callable[[], Projector | None], inline: bool
) -> Any:
    """The value with its projection; a list gets one inline projection per member, a named one is shared."""
    value = evaluator.evaluate(x.value, side)
    projector = find()
    if value is FAULT or projector is None:
        return FAULT

    def project(item: Any, path: str) -> Any:
        if isinstance(item, Group):
            if item.items is None:
                return item
            projected = tuple(project(v, f"{path}.{i}") for i, v in enumerate(item.items))
            return FAULT if FAULT in projected else Group(projected, span=x.span)
        if not isinstance(item, Value) or item.kind not in ("hidden", "vector", "tensor", "states", "logits"):
            where = item.span if isinstance(item, Value) else x.value.span
            message = f"a projection maps features, and this is {describe(item)}"
            help = "hidden states and vectors can be projected: `tiny.hidden[0] via linear`"
            return evaluator.fault("B212", message, where, help=help)
        own = projector
        if inline:
            own = Projector(
                None, projector.activation, projector.into, projector.out, projector.options, path, span=projector.span
            )
        return Project(item.kind, item, own, span=x.span)

    result = project(value, projector.site)
    return result
