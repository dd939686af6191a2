"""Which losses are trained when, and how: stages, their tasks, how a step draws its task, and `train { }`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal, get_args, get_origin

from brewgraph.diagnostics import MOST_NAMES, Label, listing, suggest
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.declare import Written, configure, constant, settle, unknown_setting
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.scope import Scope, word_of
from brewgraph.recipe.numbers import is_positive
from brewgraph.recipe.recipe import Frozen, Sample, Stage, Task, data_of, frozen_of
from brewgraph.recipe.settings.model_sources import Layers
from brewgraph.recipe.settings.train import GRADIENT_SHARES, Train
from brewgraph.recipe.values import Evaluated, Faulty, Group, Value, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.format import on_one_line


def make_stages(e: Evaluator, outer: Written) -> tuple[Stage, ...]:
    """The stages in order, one without a name if the spec has none.

    `outer` is what the outer `train` says, which each stage overrides key by key.
    """
    scopes = [scope for scope in e.root.inner.values() if scope.kind == "stage"]
    blocks = [own_settings(e, scope) for scope in scopes] or [{}]
    if scopes:
        _check_outside(e, scopes)
    stages = each(lambda scope, block: _stage(e, scope, outer, block), scopes or [e.root], blocks)
    _check_reports(e, [outer, *blocks], stages)
    return stages


def _stage(e: Evaluator, scope: Scope, outer: Written, block: Written) -> Stage:
    settings = dict(outer)
    statement = scope.statement
    if isinstance(statement, t.Stage):
        length: Written = {}
        with e.inside(scope), suppress(Faulty):
            length = _stage_length(e, statement, block)
        if length or "epochs" in block or "steps" in block:
            settings = {k: x for k, x in settings.items() if k not in ("epochs", "steps")}
        for key in OF_THE_RUN & block.keys():
            help = "move it into the outer `train`: it applies to the whole run"
            e.fault("B122", f"`{key}` cannot be set per stage", block[key][1], help=help)
        settings |= {**block, **length}
    place = scope.trains[0].span if scope.trains else statement.name_span if statement else Span(e.source, 0, 0)
    freeze = settings["freeze"][0] if "freeze" in settings else ()
    try:
        tasks = _tasks(e, scope, _values(settings))
        sample = _sample(e, scope, [task.name for task in tasks])
    finally:
        train = settle_train(e, settings, place)  # its faults are reported even where the tasks have some
    name = scope.path[-1] if scope.kind == "stage" else ""
    spans = {key: where for key, (_, where) in settings.items()}
    return Stage(name, tasks, sample, train, freeze, spans, span=statement.name_span if statement else place)


def _check_outside(e: Evaluator, stages: list[Scope]) -> None:
    """Tasks outside stages need a stage that has neither tasks nor a loss."""
    complete = [s for s in stages if "loss" in s.statements or any(i.kind == "task" for i in s.inner.values())]
    if len(complete) < len(stages):
        return
    for task in (inner.statement for inner in e.root.inner.values() if inner.kind == "task"):
        if task is not None:
            help = "move it into a stage, or leave out the loss of a stage that is to train it"
            message = f"the task `{task.name}` is never trained: every stage has a loss or tasks of its own"
            e.collector.add("W102", message, task.name_span, help=help)
    for sample in e.root.samples:
        help = "move it into the stage that has these tasks"
        e.collector.add("B116", "no stage uses this `sample`", word_of(sample, "sample"), help=help)


def _check_reports(e: Evaluator, blocks: list[Written], stages: tuple[Stage, ...]) -> None:
    """Reported values must be computed on the data of some task."""
    reported = {name for stage in stages for task in stage.tasks for name in task.reports}
    for block in (block for block in blocks if "report" in block):
        for name, value in _values(block).items():
            if name not in reported:
                message = f"`{name}` is computed on {listing(data_of(value))}, which no loss reads"
                e.fault("B220", message, value.span, help="report it where a task has this data")


# ── tasks and their losses ───────────────────────────────────────────────────────────────────────────────────────────


def _tasks(e: Evaluator, scope: Scope, reports: dict[str, Value]) -> tuple[Task, ...]:
    """A body's tasks, else its loss; a stage with neither uses the outer ones."""
    bodies = [inner for inner in scope.inner.values() if inner.kind == "task"]
    if bodies and "loss" in scope.statements:
        loss = scope.statements["loss"]
        first = bodies[0].statement
        labels = (Label(first.name_span, "a task"),) if first is not None else ()
        help = "move the loss into the tasks"
        raise e.fault("B115", "both a loss and tasks are defined", loss.name_span, labels=labels, help=help)
    if bodies:
        return each(lambda inner: _task(e, inner, inner.path[-1], reports), bodies)
    outer = scope.parent
    if "loss" not in scope.statements and outer and any(inner.kind == "task" for inner in outer.inner.values()):
        return _tasks(e, outer, reports)
    return (_task(e, scope, "", reports),)


def _task(e: Evaluator, scope: Scope, name: str, reports: dict[str, Value]) -> Task:
    home = next((s for s in scope.outward() if "loss" in s.statements), None)
    if home is None:
        where = scope.statement.name_span if scope.statement is not None else e.source.end
        message = f"nothing is trained{f' in `{scope.path[-1]}`' if scope.path else ''}: there is no `loss`"
        raise e.fault("B107", message, where, help="add `loss = …`, the sum of the terms")
    place = home.statements["loss"].name_span
    loss = _loss(e, e.value_inside(home, "loss", place), place)
    data = data_of(loss) or tuple(e.data)[:1]  # lists that are still open name none
    mine = {key: value for key, value in reports.items() if set(data_of(value)) <= set(data)}
    return Task(name, loss, data, mine, place)


def _loss(e: Evaluator, value: Evaluated, place: Span) -> Value:
    students = {m.name for m in e.models.values() if m.role == "student"}
    if isinstance(value, Group):
        help = "write `sum(…)` or `mean(…)` around the list"
        raise e.fault("B213", "the loss is a list, not one number", place, help=help)
    if not isinstance(value, Value) or value.kind != "loss":
        help = "a loss is made by an operation: `mse(teacher.… -> student.…)`"
        if isinstance(value, Value) and value.kind == "values":
            help = "`batch_mean(…)` makes one number of it"
        message = f"the loss is {describe(value)}; it must be a sum of losses"
        raise e.fault("B213", message, place, help=help)
    if students and not any(_may_learn(x, students) for x in v.walk(value)):
        help = f"match something with {listing(sorted(students))}: `mse(teacher.… -> {min(students)}.…)`"
        raise e.fault("B213", "nothing in the loss depends on the student", place, help=help)
    return value


def _may_learn(x: Value, students: set[str]) -> bool:
    """Whether this is taken from a student, or made of a list whose members are not known yet."""
    is_open = (isinstance(x, v.Combine) and not x.operands) or (isinstance(x, v.Bundle) and not x.items)
    return is_open or (isinstance(x, v.Take) and x.model in students)


SIZES = ("size", "batches")
"""What the law of a `sample` may ask of a task."""


# ── how tasks are drawn ──────────────────────────────────────────────────────────────────────────────────────────────


def _sample(e: Evaluator, scope: Scope, tasks: list[str]) -> Sample | None:
    """How tasks are drawn: by `sample`, else in proportion to their sizes; None without tasks."""
    has_tasks = any(inner.kind == "task" for inner in scope.inner.values())
    home = scope if has_tasks or scope.parent is None else scope.parent
    sample = next((s.samples[0] for s in (scope, home) if s.samples), None)
    if tasks == [""]:
        if sample is not None and sample in scope.samples:
            place = word_of(sample, "sample")
            e.collector.add("B116", "there are no tasks to draw", place, help="write them: `task ner { … }`")
        return None
    if sample is None:
        return Sample(v.Symbol("number", "size", span=Span(scope.source, 0, 0)))
    listed = _task_names(e, sample.tasks, tasks)
    if twice := next((task for i, task in enumerate(listed) if task in listed[:i]), None):
        help = f"to draw it more often write a law, `~ size ** 0.5`, or an order: `order=[{', '.join(listed)}]`"
        raise e.fault("B116", f"the task `{twice}` is given twice", sample.tasks.span, help=help)
    missing = [task for task in tasks if task not in listed]
    if missing:
        message = f"{listing(missing, MOST_NAMES)} {'is' if len(missing) == 1 else 'are'} never drawn"
        raise e.fault("B116", message, sample.tasks.span, help=f"write `sample [{', '.join(tasks)}]`")
    try:
        order, floor = _options(e, sample, tasks)
    finally:
        law = _law(e, scope, sample)
    return Sample(law, order, floor)


def _task_names(e: Evaluator, x: t.Expression, tasks: list[str]) -> tuple[str, ...]:
    """The tasks in a list of names; a param or a `let` may hold such a list, of strings."""
    items = x.items if isinstance(x, t.List) else (x,)
    words = [(item.id if isinstance(item, t.Name) else "", item.span) for item in items]
    if isinstance(x, t.Name) and x.id not in tasks and x.id in e.current.known_names():
        value = e.evaluate(x)
        listed = value if isinstance(value, tuple) else (value,)
        words = [(word if isinstance(word, str) else "", x.span) for word in listed]
    if not words:
        raise e.fault("B116", "this names no task", x.span, help=f"the tasks are {listing(tasks, MOST_NAMES)}")
    for word, place in words:
        if word not in tasks:
            help = suggest(word, tasks) or f"the tasks are {listing(tasks, MOST_NAMES)}"
            raise e.fault("B116", f"there is no task `{word or place.text}` here", place, help=help)
    return tuple(word for word, _ in words)


def _options(e: Evaluator, sample: t.Sample, tasks: list[str]) -> tuple[tuple[str, ...], float]:
    """The `order` and the `floor` of a `sample`."""
    order: tuple[str, ...] = ()
    floor = 0.0
    e.check_repeats(sample.options)

    def take(option: t.Argument) -> None:
        nonlocal order, floor
        if option.name == "order":
            order = _task_names(e, option.value, tasks)
        elif option.name == "floor":
            value = e.evaluate(option.value)
            if not v.is_number(value) or not 0 <= value <= 1 / len(tasks):
                help = f"with {len(tasks)} tasks a share from 0 to {1 / len(tasks):g}"
                raise e.fault("B116", "`floor` is the smallest share of a task", option.value.span, help=help)
            floor = float(value)
        else:
            help = "`order=[ner, qa, qa]` gives the order, `floor=0.1` the smallest share of a task"
            raise e.fault("B120", f"`sample` has no option `{option.name}`", option.place, help=help)

    each(take, sample.options)
    if order and sample.law is not None:
        raise e.fault("B116", "an order excludes a random draw", sample.law.span, help="remove one of them")
    if order and floor:
        place = next(option.span for option in sample.options if option.name == "floor")
        raise e.fault("B116", "an order excludes a random draw", place, help="remove `floor` or `order`")
    if order and (lost := [task for task in tasks if task not in order]):
        raise e.fault(
            "B116", f"{listing(lost, MOST_NAMES)} is missing from this order", sample.span, help="name every task"
        )
    return order, floor


def _law(e: Evaluator, scope: Scope, sample: t.Sample) -> Value:
    """The weight of a task as an expression of `size` (its training examples) and `batches`."""
    place = sample.law.span if sample.law is not None else sample.span
    if sample.law is None:
        return v.Number("number", 1.0, span=place)
    known = {word: v.Symbol("number", word, span=place) for word in SIZES}
    with e.inside(Scope("call", scope.path, scope, scope.source, values=dict(known))):
        value = e.evaluate(sample.law)
    law = v.as_value(value, place)
    if law is None or not all(isinstance(x, v.Number | v.Symbol | v.Combine) for x in v.walk(law)):
        help = "write `~ size ** 0.5` or `~ batches ** 0.5`; without `~` all tasks have the same weight"
        raise e.fault("B116", f"the weight of a task must be a number, got {describe(value)}", place, help=help)
    if not any(isinstance(x, v.Combine) and x.operator == "-" for x in v.walk(law)) and not is_positive(law):
        raise e.fault("B116", "the weight of a task is not positive", place, help="a weight must be positive")
    return law


# ── `train { }` ──────────────────────────────────────────────────────────────────────────────────────────────────────


def own_settings(e: Evaluator, scope: Scope) -> Written:
    """The settings of a body's first `train`, with their places, without those at fault."""
    settings: Written = {}
    for statement in scope.trains[0].block.statements if scope.trains else ():
        with e.inside(scope), suppress(Faulty):
            if not isinstance(statement, t.Equation):
                raise e.fault("B110", "`train` holds settings only", statement.span, help="write `name = value`")
            name, place = statement.name, statement.name_span
            if name in settings:
                raise e.fault("B125", f"`{name}` is given twice", place, help="remove one of them")
            if name not in (*VALUES, *Train.model_fields):
                raise unknown_setting(e, name, place, Train.model_fields, "`train`", "setting")
            settings[name] = (VALUES.get(name, _setting)(e, name, statement.value), statement.value.span)
    if "epochs" in settings and "steps" in settings:
        second = max((settings["epochs"][1], settings["steps"][1]), key=lambda span: span.start)
        e.fault("B122", "set epochs or steps, not both", second, help="remove one of them")
        del settings["steps"]
    return settings


def settle_train(e: Evaluator, settings: Written, place: Span) -> Train:
    """The settings with defaults."""
    constants = {key: value for key, value in settings.items() if key not in VALUES}
    for key in VALUES:
        if key in settings and key in Train.model_fields:
            value, span = settings[key]
            said = value if isinstance(value, dict) else [on_one_line(x.span.text) for x in value]
            constants[key] = (tuple(said), span)
    return settle(e, Train, constants, place, "train")


def _stage_length(e: Evaluator, stage: t.Stage, block: Written) -> Written:
    """`for 3 epochs` as a setting; empty if missing."""
    if stage.length is None:
        return {}
    value = e.evaluate(stage.length)
    help = "write `for 3 epochs` or `for 1000 steps`"
    if not isinstance(value, v.Length) or value.unit not in ("step", "epoch") or value.value <= 0:
        raise e.fault("B122", "the length of a stage is a number of epochs or steps", stage.length.span, help=help)
    for key in ("epochs", "steps"):
        if key in block:
            message = f"`for` and `{key}` both set the length of the stage"
            raise e.fault("B122", message, block[key][1], help="remove one of them")
    if value.unit == "step" and value.value != int(value.value):
        raise e.fault("B122", "the number of steps must be an integer", stage.length.span, help=help)
    key, number = ("epochs", value.value) if value.unit == "epoch" else ("steps", int(value.value))
    return {key: (number, stage.length.span)}


def _freeze(e: Evaluator, name: str, x: t.Expression) -> tuple[Frozen, ...]:
    """`[tiny @ "embeddings", W]`: modules of a student, named projections, whole models."""
    parts: list[Frozen] = []
    for part in x.items if isinstance(x, t.List | t.Tuple) else (x,):
        e.needs_input = False
        try:
            value = e.evaluate(part)
        finally:
            e.needs_input = True
        for item in v.leaves(value) if isinstance(value, Group | tuple) else [value]:
            if isinstance(item, v.ModelDeclaration) and item.role == "teacher":
                help = "remove it: teachers are never trained"
                raise e.fault("B202", f"`{item.name}` is a teacher and never trained", part.span, help=help)
            frozen = frozen_of(item, part.span)
            if frozen is None:
                message = f"`freeze` lists trainable parts, got {describe(item)}"
                raise e.fault("B202", message, part.span, help=_freeze_help(item))
            if frozen.kind == "module" and e.models[frozen.name].role == "teacher":
                help = "remove it: teachers are never trained"
                raise e.fault("B202", f"`{frozen.name}` is a teacher and never trained", part.span, help=help)
            parts.append(frozen)
    return tuple(parts)


def _freeze_help(item: Evaluated) -> str:
    """The remedy for something that cannot be frozen."""
    if isinstance(item, v.Take | Layers):
        path = item.feature.path if isinstance(item, v.Take) and item.feature.path else "encoder.layer.0"
        return f'name the module by its path: `{item.model} @ "{path}"`; `brewgraph params SPEC` shows them all'
    if isinstance(item, v.Forwarded):
        return f"a model is frozen on any input: write `{item.model.name}`"
    if isinstance(item, str):
        return f'say whose module it is: `tiny @ "{item}"`'
    return 'write `freeze = [tiny @ "embeddings", tiny.ner, W]`: modules and heads of the student, or projections'


def _values(block: Written) -> dict[str, Value]:
    """What a block reports that is computed as a value."""
    reports: dict[str, Value | None] = block["report"][0] if "report" in block else {}
    return {name: value for name, value in reports.items() if value is not None}


def _report(e: Evaluator, name: str, x: t.Expression) -> dict[str, Value | None]:
    """`[x, y]`: values to report, by the text that names them; None for the word `gradient_shares`."""
    reports: dict[str, Value | None] = {}
    for item in x.items if isinstance(x, t.List) else (x,):
        if isinstance(item, t.Name) and item.id == GRADIENT_SHARES:
            if item.id in e.current.known_names():
                message = f"`{item.id}` is a word of `report`, and this spec has an equation of that name"
                raise e.fault("B202", message, item.span, help="rename the equation")
            reports[item.id] = None
            continue
        value = e.evaluate(item)
        listed = list(v.leaves(value)) if isinstance(value, Group) else [value]
        for i, single in enumerate(listed):
            if not isinstance(single, Value) or single.kind != "loss":
                help = "an equation of one number: a loss, or `batch_mean(…)`"
                raise e.fault("B202", f"`report` needs scalars, got {describe(single)}", item.span, help=help)
            text = on_one_line(item.span.text)
            if isinstance(item, t.Attribute):
                text = text.replace(".", "/")
            reports[f"{text}[{i}]" if isinstance(value, Group) else text] = single
    return reports


VALUES: Mapping[str, Callable[[Evaluator, str, t.Expression], object]] = {"freeze": _freeze, "report": _report}
"""Settings that are not constants."""


OF_THE_RUN = frozenset({"baseline", "trackers"})
"""Settings that no stage can override."""


def _setting(e: Evaluator, name: str, x: t.Expression) -> object:
    registry = Train.calls.get(name)
    if registry is None:
        if isinstance(x, t.List) and _lists_words(name):
            return tuple(_setting(e, name, item) for item in x.items)
        if isinstance(x, t.Name) and x.id not in e.current.known_names() and _takes_word(name):
            return x.id  # a bare word: precision = bf16
        if name == "metric_for_best_model" and isinstance(x, t.Attribute | t.Binary):
            return on_one_line(x.span.text).replace(".", "/").replace(" ", "")
        return _constant(e, name, x)
    call = x if isinstance(x, t.Call) else t.Call(x, (), span=x.span)
    return configure(e, call, registry, name, lambda _, key, value: _constant(e, key, value))[0]


def _takes_word(name: str) -> bool:
    """Whether a setting is a word, which may stand bare."""
    annotation = Train.model_fields[name].annotation
    return get_origin(annotation) is Literal or annotation is str or str in get_args(annotation) or _lists_words(name)


def _lists_words(name: str) -> bool:
    """Whether a setting is a list of words of its own."""
    parts = get_args(Train.model_fields[name].annotation)
    return any(get_origin(part) is tuple and get_origin(get_args(part)[0]) is Literal for part in parts)


def _constant(e: Evaluator, name: str, x: t.Expression) -> Evaluated:
    help = "write a number, a word, or a length such as 10%"
    is_word = isinstance(x, t.Name) and name in Train.model_fields and _takes_word(name)
    if is_word:
        help = f'`{x.span.text}` is a name of the spec: in quotes it is a word, `{name} = "{x.span.text}"`'
    return constant(e, name, x, e.evaluate(x), help, is_word=is_word)
