"""Calls in equations, by name: operations, functions of the spec, schedules, models on an input."""

from __future__ import annotations

from contextlib import suppress

from brewgraph.diagnostics import listing, suggest
from brewgraph.ops import OPERATIONS, SCHEDULES, TEMPERATURES, TRANSFORMS, DeclaredTransform, Operation
from brewgraph.ops.alone import ALONE
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.list_functions import evaluate_across, evaluate_alone
from brewgraph.recipe.evaluate.operations import evaluate_operation, evaluate_transform
from brewgraph.recipe.evaluate.scope import ACROSS, LATER, Scope, wrong_place
from brewgraph.recipe.numbers import is_positive
from brewgraph.recipe.values import Evaluated, Faulty, Group, describe
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import foreign_words, instead


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
        return evaluate_operation(e, OPERATIONS[name], call, side)
    if name in TRANSFORMS:
        return evaluate_transform(e, TRANSFORMS[name], call, side)
    if name in SCHEDULES:
        return _schedule(e, name, call)
    if name in ACROSS:
        return evaluate_across(e, name, call, side)
    if name in ALONE:
        return evaluate_alone(e, name, call, side)
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
            if module is None:
                raise Faulty
            declared = module.get(function.name)
            if isinstance(declared, Operation):
                return evaluate_operation(e, declared, call, side)
            if isinstance(declared, DeclaredTransform):
                return evaluate_transform(e, declared, call, side)
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
        help = suggest(function.name, known) or f"it has {listing(known)}"
        raise e.fault("B101", f"`{word}` has no function `{function.name}`", place, help=help)
    return _model_on_input(e, e.evaluate(function, side), call)


def _own_function(e: Evaluator, home: Scope, function: t.Function, call: t.Call, side: str | None) -> Evaluated:
    """The function's expression with its arguments. Names resolve where it is defined, data where it is called."""
    if any(scope.function is function for scope in e.current.data_outward()):
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
    values = dict(zip(expressions, e.evaluate_all((x for x, _ in expressions.values()), side), strict=True))
    missing = [name for name in free if parameters[name].default is None]
    if missing:
        message = f"`{function.name}` needs {listing(missing)}"
        raise e.fault("B209", message, call.span, help=f"write `{function.name}({', '.join(parameters)})`")
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
        if isinstance(first, v.Length):
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
        if not isinstance(at, v.Length) or not v.is_number(value):
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
