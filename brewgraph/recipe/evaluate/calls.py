"""Calls in equations: of operations, transforms, functions, schedules, and models on an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from brewgraph.diagnostics import MOST_NAMES, listing, suggest
from brewgraph.ops import OPERATIONS, SCHEDULES, TEMPERATURES, TRANSFORMS, DeclaredTransform, Operation, is_row
from brewgraph.ops.alone import ALONE
from brewgraph.ops.registry import refusal
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.indexing import whole_row
from brewgraph.recipe.evaluate.joining import axis_named, pair
from brewgraph.recipe.evaluate.scope import ACROSS, LATER, Scope, wrong_place
from brewgraph.recipe.numbers import WEIGHTS, compute, is_positive, shares
from brewgraph.recipe.values import Bundle, Evaluated, Faulty, Group, Match, Row, Value, as_value, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import foreign_words, instead

MASKS = ("none", "tokens", "pairs", "labels")
TOKEN_MASKS = ("none", "tokens")
"""The masks of a function from values to a value: it has no units to choose among, only tokens to hide."""
NOT_COMPARED = ("number", "schedule", "loss", "values", "temperature")


FUNCTIONS = {
    "sum": "the sum over a list, over all its axes or the one that is named: `sum(x)`, `sum(x, over=teachers)`",
    "mean": "the mean over a list, over all its axes or the one that is named: `mean(x, over=teachers)`",
    "max": "the largest of a list, value by value: `max(x, over=teachers)`",
    "softmax": "shares that add up to one over a list: `softmax(x, over=teachers)`",
    **{name: x.summary for name, x in ALONE.items()},
}
"""What each function across lists or of one value does."""


def is_of_the_language(name: str) -> bool:
    """Whether a call of this name is one of an operation or a function, whatever value of a spec is called so."""
    return any(name in x for x in (OPERATIONS, TRANSFORMS, SCHEDULES, ACROSS, ALONE, LATER, TEMPERATURES))


def evaluate_call(e: Evaluator, call: t.Call, side: str | None) -> Evaluated:
    """The value of a call."""
    function = call.function
    e.check_repeats(call.arguments)
    if isinstance(function, t.Attribute):
        return _of_namespace(e, call, function, side)
    if not isinstance(function, t.Name):
        return _model_on_input(e, e.evaluate(function, side), call)
    name, place = function.id, function.span
    for scope in e.current.outward():
        if name in scope.functions:
            return _own_function(e, scope, scope.functions[name], call, side)
    if name in OPERATIONS:
        return _operation(e, OPERATIONS[name], call, side)
    if name in TRANSFORMS:
        return _of_transform(e, TRANSFORMS[name], call, side)
    if name in SCHEDULES:
        return _schedule(e, name, call)
    if name in ACROSS:
        return _across(e, name, call, side)
    if name in ALONE:
        return _alone(e, name, call, side)
    if name in TEMPERATURES:
        return _temperature(e, name, call)
    if name in LATER:
        raise e.fault("B901", f"`{name}` is not supported yet", place)
    if name in e.current.known_names() or any(name in scope.modules for scope in e.current.outward()):
        return _model_on_input(e, e.value_of(name, place), call)
    if help := wrong_place(name):
        raise e.fault("B102", f"`{name}` cannot be used in an equation", place, help=help)
    functions = [f for scope in e.current.outward() for f in scope.functions]
    known = [*functions, *OPERATIONS, *TRANSFORMS, *SCHEDULES, *ACROSS, *ALONE, *TEMPERATURES]
    help = instead("call", name, known) or f"there are {listing(x for x in known if ':' not in x)}"
    raise e.fault("B101", f"there is no operation `{name}`", place, help=help)


def _of_namespace(e: Evaluator, call: t.Call, function: t.Attribute, side: str | None) -> Evaluated:
    """`lib.f(…)` of an imported spec, `my.huber(…)` of an imported module, `ner.bert(docs)` of a task."""
    owner = function.value
    word = owner.id if isinstance(owner, t.Name) else ""
    place = function.name_span
    for scope in e.current.outward():
        if word in scope.modules:
            module = scope.modules[word]
            declared = module.get(function.name)
            if isinstance(declared, Operation):
                return _operation(e, declared, call, side)
            if isinstance(declared, DeclaredTransform):
                return _of_transform(e, declared, call, side)
            help = suggest(function.name, module) or f"it declares {listing(module)}"
            raise e.fault("B101", f"`{word}` has no operation `{function.name}`", place, help=help)
    root = function.span.text.partition(".")[0]
    if root not in e.current.known_names() and function.name in foreign_words()["call"] and not wrong_place(root):
        help = instead("call", function.name)
        raise e.fault("B101", f"there is no operation `{function.span.text}`", function.span, help=help)
    value = e.evaluate(owner, side)
    if isinstance(value, Scope) and function.name in value.functions:
        return _own_function(e, value, value.functions[function.name], call, side)
    if isinstance(value, Scope) and function.name not in value.statements:
        known = [*value.functions, *value.statements]
        help = suggest(function.name, known) or f"it has {listing(known, MOST_NAMES)}"
        raise e.fault("B101", f"`{word}` has no function `{function.name}`", place, help=help)
    return _model_on_input(e, e.evaluate(function, side), call)


def _own_function(e: Evaluator, home: Scope, function: t.Function, call: t.Call, side: str | None) -> Evaluated:
    """The function's expression with its arguments. Names resolve where it is defined, data where it is called."""
    if any(scope.function is function for scope in e.current.outward(through_calls=True)):
        help = "recursion is not supported; write the equation out"
        raise e.fault("B108", f"`{function.name}` calls itself", call.function.span, help=help)
    parameters = {p.name: p for p in function.parameters}
    expressions: dict[str, tuple[t.Expression, Scope]] = {}
    free = list(parameters)
    for argument in call.arguments:
        if argument.key is not None or (argument.name is None and not free):
            takes = f"it takes {listing(parameters)}" if parameters else "it takes nothing"
            raise e.fault("B120", f"`{function.name}` takes no more arguments", argument.span, help=takes)
        name = argument.name if argument.name is not None else free[0]
        if name not in parameters:
            help = suggest(name, parameters) or f"it takes {listing(parameters)}"
            raise e.fault("B120", f"`{function.name}` has no parameter `{name}`", argument.place, help=help)
        if name in expressions:
            raise e.fault("B125", f"`{name}` is given twice", argument.place, help="remove one of them")
        free.remove(name)
        expressions[name] = (argument.value, e.current)
    if missing := [name for name in free if parameters[name].default is None]:
        message = f"`{function.name}` needs {listing(missing)}"
        e.fault("B209", message, call.span, help=f"write `{function.name}({', '.join(parameters)})`")
    values = dict(zip(expressions, e.evaluate_all((x for x, _ in expressions.values()), side), strict=True))
    if missing:
        raise Faulty
    inner = Scope("call", home.path, home, home.source, e.current, function, values=values, arguments=expressions)
    with e.inside(inner, call.span):
        return _body(e, inner, function)


def _body(e: Evaluator, inner: Scope, function: t.Function) -> Evaluated:
    """The value of a function's expression in its scope; parameters without a value take their defaults."""
    e.evaluated.add(id(function))
    for parameter in function.parameters:
        if parameter.default is not None and parameter.name not in inner.values:
            try:
                inner.values[parameter.name] = e.evaluate(parameter.default)
            except Faulty:
                inner.faulty.append(parameter.name)
    value = e.evaluate(function.value)
    if isinstance(value, v.Match):
        help = "use it in an operation: `mse(a -> b)`"
        raise e.fault("B209", "an arrow alone is a value only between layers", function.value.span, help=help)
    return value


def check_function(e: Evaluator, home: Scope, function: t.Function) -> None:
    """Check a function that is never called, with unknown parameters and input."""
    if id(function) in e.evaluated:
        return
    unknown = [parameter.name for parameter in function.parameters if parameter.default is None]
    inner = Scope("call", home.path, home, home.source, None, function, faulty=unknown)
    opened, e.open, e.needs_input = e.open, {}, False
    with e.inside(inner, function.value.span), suppress(Faulty):
        _body(e, inner, function)
    e.open, e.needs_input = opened, True


def _model_on_input(e: Evaluator, model: Evaluated, call: t.Call) -> Evaluated:
    """`bert(mnli)`, `bert(mnli, pass=2)`: a model on a data set; another pass is a separate forward."""
    if isinstance(model, Group):
        return model.map(lambda each: _model_on_input(e, each, call))
    if isinstance(model, v.Forwarded) and model.head is not None:
        help = f"apply the trunk to the input: `{model.model.name}(mnli).{model.head}`"
        raise e.fault("B202", f"a head is not called, and `{model.head}` is one", call.function.span, help=help)
    if not isinstance(model, v.ModelDeclaration):
        message = f"only functions and models can be called, got {describe(model)}"
        raise e.fault("B202", message, call.function.span, help="name the input of a model: `bert(mnli).logits`")
    data: v.DataDeclaration | None = None
    passing = 1
    for argument in call.arguments:
        value = e.evaluate(argument.value)
        if argument.is_plain and data is None and isinstance(value, v.DataDeclaration):
            data = value
        elif argument.name == "pass" and v.is_whole(value) and value > 0:
            passing = value
        else:
            help = f"write `{model.name}(mnli)`, or `{model.name}(mnli, pass=2)` for a separate forward"
            raise e.fault("B209", "a model takes a data set", argument.span, help=help)
    if data is None and not e.needs_input:
        return v.Forwarded(model, "", passing)
    return v.Forwarded(model, (data or e.data_in_scope(call.span)).name, passing)


def _schedule(e: Evaluator, name: str, call: t.Call) -> Evaluated:
    """`ramp(1 -> 0)`, `cosine(1 -> 0)`, `piecewise(0%: 1, 30%: 0.2)`, `after(30%)`."""
    if name == "piecewise":
        return _piecewise(e, call)
    values = e.evaluate_all(argument.value for argument in call.arguments)
    first = values[0] if len(values) == 1 and call.arguments[0].is_plain else None
    if name == "after":
        if isinstance(first, v.Length) and first.unit == "share" and first.value > 1:
            raise e.fault("B209", "never reached: training ends at 100%", call.span, help="write `after(30%)`")
        if isinstance(first, v.Length) and first.is_of_training:
            return v.Scheduled("schedule", name, (first,), span=call.span)
        help = "write `after(30%)`, `after(1000 steps)` or `after(1 epochs)`"
        raise e.fault("B209", "`after` takes a length of training", call.span, help=help)
    if isinstance(first, v.Match):
        ends = (v.as_value(first.source, call.span), v.as_value(first.target, call.span))
        if isinstance(ends[0], v.Number) and isinstance(ends[1], v.Number):
            return v.Scheduled("schedule", name, (ends[0].value, ends[1].value), span=call.span)
    message = f"`{name}` needs two numbers"
    help = f"write `{name}(1 -> 0)`" + ("; the loss is `cos(a -> b)`" if name == "cosine" else "")
    raise e.fault("B209", message, call.span, help=help)


def _piecewise(e: Evaluator, call: t.Call) -> Evaluated:
    points: list[float | v.Length] = []
    before: v.Length | None = None
    help = "write `piecewise(0%: 1, 30%: 0.2)`, in the order of training"
    for argument in call.arguments:
        *keys, value = e.evaluate_all(filter(None, (argument.key, argument.value)))
        at = keys[0] if keys else None
        at = v.Length(0.0, "share") if v.is_number(at) and at == 0 else at
        if not isinstance(at, v.Length) or not at.is_of_training or not v.is_number(value):
            raise e.fault("B209", "`piecewise` takes points: a length and a number each", argument.span, help=help)
        if at.unit == "share" and at.value > 1:
            raise e.fault("B209", "never reached: training ends at 100%", argument.span, help=help)
        if before is not None and (at.value == 0 or (before.unit == at.unit and at.value <= before.value)):
            raise e.fault("B209", "the points of `piecewise` must be in order", argument.span, help=help)
        before = at
        points += [at, float(value)]
    if not points:
        raise e.fault("B209", "`piecewise` needs points", call.span, help=help)
    return v.Scheduled("schedule", "piecewise", tuple(points), span=call.span)


def _temperature(e: Evaluator, name: str, call: t.Call) -> Evaluated:
    """`flsw(4, beta=1, gamma=2)`."""
    declared = TEMPERATURES[name]
    options = {o.name: o.default for o in declared.options}
    base: float | None = None
    for argument in call.arguments:
        value = e.evaluate(argument.value)
        known = argument.name in options or (argument.is_plain and base is None)
        if not known or not v.is_number(value):
            named = "".join(f", {o}=1" for o in options)
            raise e.fault("B120", f"`{name}` does not take this", argument.span, help=f"write `{name}(4{named})`")
        if argument.name is None:
            base = float(value)
        else:
            options[argument.name] = float(value)
    if base is None or not is_positive(base):
        raise e.fault("B207", f"`{name}` needs a positive temperature", call.span, help=f"write `{name}(4)`")
    return v.Temperature("temperature", name, base, tuple(options.items()), span=call.span)


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Call:
    """An operation with everything but its match: options, mask, and whether it reduces to one number."""

    operation: Operation
    options: Mapping[str, Evaluated]
    mask: str | v.Column | None
    reduced: bool
    span: Span


def _operation(e: Evaluator, operation: Operation, call: t.Call, side: str | None) -> Evaluated:
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
            mask = _mask(e, argument, MASKS)
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


def _mask(e: Evaluator, argument: t.Argument, masks: tuple[str, ...]) -> str | v.Column:
    """The mask of a loss, one of `MASKS` or a column, or of a function from values to a value, one of `TOKEN_MASKS`."""
    x = argument.value
    word = "none" if isinstance(x, t.Constant) and x.value is None else x.id if isinstance(x, t.Name) else ""
    if word in masks:
        return word
    choices = f"it is one of {listing(masks)}"
    if masks == MASKS:
        choices += ", or a column of the data"
        value = e.evaluate(x) if isinstance(x, t.Attribute) else None
        if isinstance(value, v.Column) and value.kind in ("labels", "targets"):
            help = "`mask=labels` chooses what has a label"
            raise e.fault("B122", "labels cannot be a mask", x.span, help=help)
        if isinstance(value, v.Column):
            return value
    elif word in MASKS or isinstance(x, t.Attribute):
        choices += " here; the loss around it takes the others"
    help = (suggest(word, masks) if word not in MASKS else "") or choices
    if isinstance(x, t.String) and x.value in masks:
        help = f"write it without quotes: `mask={x.value}`"
    raise e.fault("B122", "unknown mask", x.span, help=help)


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
            raise e.fault("B202", message, where, help=_feature_of(side) or f"it takes {operation.sides}")
    assert isinstance(source, Value)
    assert isinstance(target, Value)
    kinds = (source.kind, target.kind)
    if not any("tensor" in kind for kind in kinds) and operation.unit(*kinds) is None:
        message, help = refusal(operation, *kinds)
        raise e.fault("B210", message, place, help=help)
    temperature = next((x for x in call.options.values() if isinstance(x, v.Temperature)), None)
    if temperature is not None and any(kind not in ("logits", "positions", "tensor") for kind in kinds):
        message = f"`{temperature.name}` needs the logits of two models, got {describe(source)} and {describe(target)}"
        raise e.fault("B210", message, temperature.span, help="a number or a schedule serves here: `T=4`")
    kind, options = "loss" if call.reduced else "values", _settled(operation, call.options, call.span)
    return v.Apply(
        kind, operation.key, source, target, options, call.mask, call.reduced, frozenset(call.options),
        declared=operation, span=call.span,
    )  # fmt: skip


def _feature_of(x: Evaluated) -> str:
    """What to write instead of a model, or of a head of one; empty where it is neither."""
    if isinstance(x, v.Forwarded) and x.head is not None:
        return f"pick a feature of it: `{x.model.name}.{x.head}.logits`"
    model = x.model if isinstance(x, v.Forwarded) else x
    return f"pick a feature of it: `{model.name}.logits`" if isinstance(model, v.ModelDeclaration) else ""


# ── transforms ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_transform(e: Evaluator, transform: DeclaredTransform, call: t.Call, side: str | None) -> Evaluated:
    """`relation(bert.value[-1], heads=48)`: values and options to a value, over lists member by member.

    `mask=none` on one that hides padding makes it treat padding like real tokens.
    """
    place = call.span
    arguments: list[Evaluated] = []
    options: dict[str, Evaluated] = {}
    mask: str | v.Column | None = None
    known = {option.name for option in transform.options}

    def take(argument: t.Argument) -> None:
        nonlocal mask
        if argument.is_plain:
            arguments.append(e.evaluate(argument.value, side))
        elif argument.name in known:
            options[argument.name or ""] = _option(e, transform, argument, side)
        elif argument.name == "mask" and transform.needs_layout:
            mask = _mask(e, argument, TOKEN_MASKS)
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
            return transformed(*members)
        if len(members) == 1 and isinstance(first, Group):
            return first.map_values(apply)
        return pair(first, members[1], place, e.fault, apply)

    def transformed(*members: Evaluated) -> v.Transform:
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
                help, message = (
                    f"write `{name}=4`, and the call once for each of them",
                    f"`{name}` of `{transform.name}`",
                )
                raise e.fault("B202", f"{message} is one number, got a list", value.span, help=help)
            if isinstance(value, v.Temperature):
                message = f"`{value.name}` is a temperature for two models, and here is one value"
                help = "write `T=4`, or use it in a loss: `kd(a -> b, T=…)`"
                raise e.fault("B210", message, value.span, help=help)
        kind, settled = result or next(iter(transform.takes.values())), _settled(transform, options, place)
        padded = "none" if mask == "none" else None
        made = v.Transform(kind, transform.key, values, settled, padded, declared=transform, span=place)
        return replace(made, written=frozenset(options))

    return apply(*arguments)


def _transforms(transform: DeclaredTransform) -> str:
    return " or ".join(", ".join(kinds) for kinds in transform.takes)


# ── functions across lists, and of one value ─────────────────────────────────────────────────────────────────────────


def _across(e: Evaluator, name: str, call: t.Call, side: str | None) -> Evaluated:
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


def _alone(e: Evaluator, name: str, call: t.Call, side: str | None) -> Evaluated:
    """`stop(x)`, `words(x)`, `token_mean(x, mask=none)`, `batch_mean(x)`; on a list, of each member."""
    declared = ALONE[name]
    values = call.arguments[:1] if declared.needs_layout else call.arguments
    if len(values) != 1 or values[0].name or values[0].key or len(call.arguments) > 2:
        raise e.fault("B209", f"`{name}` takes one value", call.span, help=declared.summary)
    mask: str | v.Column | None = None
    for argument in call.arguments[1:]:
        if argument.name != "mask":
            message = f"`{name}` takes one value, and `mask=`"
            raise e.fault("B120", message, argument.place, help=declared.summary)
        mask = _mask(e, argument, TOKEN_MASKS)

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
            help = declared.summary
            if declared.mean == "batch" and isinstance(x, Value) and x.kind == "loss":
                help = 'a loss is a mean already; `reduce="none"` keeps one number per example'
            raise e.fault("B202", f"`{name}` does not take {describe(x)}", call.span, help=help)
        if mask == "none" and x.kind == "values":
            help = "the loss chooses their mask: set `mask=none` there"
            raise e.fault("B122", "these values are already masked", call.arguments[1].span, help=help)
        padded = "none" if mask == "none" else None
        return v.Transform(result, name, (x,), mask=padded, declared=declared, span=call.span)

    return apply(e.evaluate(call.arguments[0].value, side))
