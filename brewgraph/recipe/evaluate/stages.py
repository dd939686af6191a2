"""Which losses are trained when, and how: stages, their tasks, how a step draws its task, and `train { }`."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from brewgraph.diagnostics import Collector, Label, listing, suggest
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.declare import Written, configure, constant, report_unknown, settle
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.evaluate.scope import Scope, word_of
from brewgraph.recipe.numbers import is_positive
from brewgraph.recipe.recipe import Frozen, Sample, Stage, Task, data_of, frozen_of
from brewgraph.recipe.settings.model_sources import Layers
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import FAULT, Evaluated, Fault, Group, Value, describe
from brewgraph.source import Span
from brewgraph.syntax import tree as t


def make_stages(e: Evaluator, outer: Written) -> tuple[Stage, ...] | None:
    """The stages in order, one without a name if the spec has none; None if something is at fault.

    `outer` is what the outer `train` says, which each stage overrides key by key.
    """
    scopes = [scope for scope in e.root.inner.values() if scope.kind == "stage"]
    blocks = [own_settings(e, scope) for scope in scopes] or [{}]
    made = [_stage(e, scope, outer, block) for scope, block in zip(scopes or [e.root], blocks, strict=True)]
    if scopes:
        _check_outside(e, scopes)
    stages = tuple(stage for stage in made if stage is not None)
    if len(stages) < len(made):
        return None
    _check_reports(e, [outer, *blocks], stages)
    return stages


def _stage(e: Evaluator, scope: Scope, outer: Written, block: Written) -> Stage | None:
    settings = dict(outer)
    statement = scope.statement
    if isinstance(statement, t.Stage):
        with e.inside(scope):
            length = stage_length(e, statement, block)
        if length or "epochs" in block or "steps" in block:
            settings = {k: x for k, x in settings.items() if k not in ("epochs", "steps")}
        if "baseline" in block:
            help = "move it into the outer `train`: it applies to the whole run"
            e.fault("B122", "`baseline` cannot be set per stage", block["baseline"][1], help=help)
        settings |= {**block, **length}
    place = scope.trains[0].span if scope.trains else statement.name_span if statement else Span(e.source, 0, 0)
    train = settle_train(settings, place, e.collector)
    freeze = settings["freeze"][0] if "freeze" in settings else ()
    tasks = _tasks(e, scope, _reports_of(settings))
    sample = _sample(e, scope, [task.name for task in tasks]) if tasks else None
    if train is None or not tasks or (sample is None and len(tasks) > 1):
        return None
    name = scope.path[-1] if scope.kind == "stage" else ""
    spans = {key: where for key, (_, where) in settings.items()}
    return Stage(name, tasks, sample, train, freeze, spans, span=statement.name_span if statement else place)


def _reports_of(settings: Written) -> dict[str, Value]:
    reports: dict[str, Value] = settings["report"][0] if "report" in settings else {}
    return reports


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
    for block in blocks:
        for name, value in _reports_of(block).items():
            if name not in reported:
                message = f"`{name}` is computed on {listing(data_of(value))}, which no loss reads"
                e.fault("B220", message, value.span, help="report it where a task has this data")


# ── tasks and their losses ───────────────────────────────────────────────────────────────────────────────────────────


def _tasks(e: Evaluator, scope: Scope, reports: dict[str, Value]) -> tuple[Task, ...]:
    """A body's tasks, else its loss; a stage with neither uses the outer ones. Empty if at fault."""
    bodies = [inner for inner in scope.inner.values() if inner.kind == "task"]
    if bodies and "loss" in scope.statements:
        loss = scope.statements["loss"]
        first = bodies[0].statement
        labels = (Label(first.name_span, "a task"),) if first is not None else ()
        help = "move the loss into the tasks"
        e.collector.add("B115", "both a loss and tasks are defined", loss.name_span, labels=labels, help=help)
        return ()
    if bodies:
        made = [_task(e, inner, inner.path[-1], reports) for inner in bodies]
        return tuple(task for task in made if task is not None) if all(made) else ()
    if "loss" not in scope.statements and scope.parent is not None and scope.kind == "stage":
        outside = any(inner.kind == "task" for inner in scope.parent.inner.values())
        if not outside and "loss" not in scope.parent.statements and scope.statement is not None:
            message = f"nothing is trained in `{scope.path[-1]}`: there is no `loss`"
            e.collector.add("B107", message, scope.statement.name_span, help="add `loss = …`, the sum of the terms")
            return ()
        return _tasks(e, scope.parent, reports)
    task = _task(e, scope, "", reports)
    return (task,) if task is not None else ()


def _task(e: Evaluator, scope: Scope, name: str, reports: dict[str, Value]) -> Task | None:
    home = next((s for s in scope.outward() if "loss" in s.statements), None)
    if home is None:
        where = scope.statement.name_span if scope.statement is not None else e.source.end
        message = f"nothing is trained{f' in `{name}`' if name else ''}: there is no `loss`"
        e.collector.add("B107", message, where, help="add `loss = …`, the sum of the terms")
        return None
    place = home.statements["loss"].name_span
    loss = _loss(e, home.values.get("loss", FAULT), place)
    if loss is None:
        return None
    data = data_of(loss) or tuple(e.data)[:1]  # lists that are still open name none
    mine = {key: value for key, value in reports.items() if set(data_of(value)) <= set(data)}
    return Task(name, loss, data, mine, place)


def _loss(e: Evaluator, value: Evaluated, place: Span) -> Value | None:
    collector = e.collector
    students = {m.name for m in e.models.values() if m.role == "student"}
    if value is FAULT:
        return None
    if isinstance(value, Group):
        help = "write `sum(…)` or `mean(…)` around the list"
        collector.add("B213", "the loss is a list, not one number", place, help=help)
    elif not isinstance(value, Value) or value.kind != "loss":
        help = "a loss is made by an operation: `mse(teacher.… -> student.…)`"
        if isinstance(value, Value) and value.kind == "values":
            help = "`batch_mean(…)` makes one number of it"
        message = f"the loss is {describe(value)}; it must be a sum of losses"
        collector.add("B213", message, place, help=help)
    elif students and not any(_may_learn(x, students) for x in v.walk(value)):
        help = f"match something with {listing(sorted(students))}: `mse(teacher.… -> {min(students)}.…)`"
        collector.add("B213", "nothing in the loss depends on the student", place, help=help)
    else:
        return value
    return None


def _may_learn(x: Value, students: set[str]) -> bool:
    """Whether this is taken from a student, or made of a list whose members are not known yet."""
    is_open = (isinstance(x, v.Combine) and not x.operands) or (isinstance(x, v.Bundle) and not x.items)
    return is_open or (isinstance(x, v.Take) and x.model in students)


# ── how tasks are drawn ──────────────────────────────────────────────────────────────────────────────────────────────


def _sample(e: Evaluator, scope: Scope, tasks: list[str]) -> Sample | None:
    """How tasks are drawn: by `sample`, else in proportion to their sizes; None if at fault."""
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
    if listed is None:
        return None
    if twice := next((task for i, task in enumerate(listed) if task in listed[:i]), None):
        help = f"to draw it more often write a law, `~ size ** 0.5`, or an order: `order=[{', '.join(listed)}]`"
        e.fault("B116", f"the task `{twice}` is given twice", sample.tasks.span, help=help)
        return None
    missing = [task for task in tasks if task not in listed]
    if missing:
        message = f"{listing(missing)} {'is' if len(missing) == 1 else 'are'} never drawn"
        e.fault("B116", message, sample.tasks.span, help=f"write `sample [{', '.join(tasks)}]`")
        return None
    options, law = _options(e, sample, tasks), _law(e, scope, sample)
    return Sample(law, *options) if law is not None and options is not None else None


def _task_names(e: Evaluator, x: t.Expression, tasks: list[str]) -> tuple[str, ...] | None:
    """The tasks in a list of names; a param or a `let` may hold such a list, of strings."""
    items = x.items if isinstance(x, t.List) else (x,)
    words = [(item.id if isinstance(item, t.Name) else "", item.span) for item in items]
    if isinstance(x, t.Name) and x.id not in tasks and x.id in e.current.known_names():
        value = e.evaluate(x)
        if value is FAULT:
            return None
        listed = value if isinstance(value, tuple) else (value,)
        words = [(word if isinstance(word, str) else "", x.span) for word in listed]
    if not words:
        e.fault("B116", "this names no task", x.span, help=f"the tasks are {listing(tasks)}")
        return None
    for word, place in words:
        if word not in tasks:
            help = suggest(word, tasks) or f"the tasks are {listing(tasks)}"
            e.fault("B116", f"there is no task `{word or place.text}` here", place, help=help)
            return None
    return tuple(word for word, _ in words)


def _options(e: Evaluator, sample: t.Sample, tasks: list[str]) -> tuple[tuple[str, ...], float] | None:
    """The `order` and the `floor` of a `sample`; None if at fault."""
    order: tuple[str, ...] | None = ()
    floor: float | None = 0.0
    if e.repeats(sample.options):
        return None
    for option in sample.options:
        if option.name == "order":
            order = _task_names(e, option.value, tasks)
        elif option.name == "floor":
            value = e.evaluate(option.value)
            floor = float(value) if v.is_number(value) and 0 <= value <= 1 / len(tasks) else None
            if floor is None:
                help = f"with {len(tasks)} tasks a share from 0 to {1 / len(tasks):g}"
                e.fault("B116", "`floor` is the smallest share of a task", option.value.span, help=help)
        else:
            help = "`order=[ner, qa, qa]` gives the order, `floor=0.1` the smallest share of a task"
            e.fault("B120", f"`sample` has no option `{option.name}`", option.name_span or option.span, help=help)
            order = None
    if order is None or floor is None:
        return None
    if order and sample.law is not None:
        e.fault("B116", "an order excludes a random draw", sample.law.span, help="remove one of them")
        return None
    if order and floor:
        place = next(option.span for option in sample.options if option.name == "floor")
        e.fault("B116", "an order excludes a random draw", place, help="remove `floor` or `order`")
        return None
    if order and (lost := [task for task in tasks if task not in order]):
        e.fault("B116", f"{listing(lost)} is missing from this order", sample.span, help="name every task")
        return None
    return order, floor


def _law(e: Evaluator, scope: Scope, sample: t.Sample) -> Value | None:
    """The weight of a task as an expression of `size` (its training examples) and `batches`."""
    place = sample.law.span if sample.law is not None else sample.span
    if sample.law is None:
        return v.Number("number", 1.0, span=place)
    known = {word: v.Symbol("number", word, span=place) for word in ("size", "batches")}
    with e.inside(Scope("call", scope.path, scope, scope.source, values=dict(known))):
        value = e.evaluate(sample.law)
    if value is FAULT:
        return None
    law = v.as_value(value, place)
    if law is None or not all(isinstance(x, v.Number | v.Symbol | v.Combine) for x in v.walk(law)):
        help = "write `~ size ** 0.5` or `~ batches ** 0.5`; without `~` all tasks have the same weight"
        e.fault("B116", f"the weight of a task must be a number, got {describe(value)}", place, help=help)
        return None
    if not any(isinstance(x, v.Combine) and x.operator == "-" for x in v.walk(law)) and not is_positive(law):
        e.fault("B116", "the weight of a task is not positive", place, help="a weight must be positive")
        return None
    return law


# ── `train { }` ──────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = ("freeze", "report")
"""Settings that are not constants."""


def own_settings(e: Evaluator, scope: Scope) -> Written:
    """The settings of a body's first `train`, with their places, without those at fault."""
    settings: Written = {}
    with e.inside(scope):
        for statement in scope.trains[0].block.statements if scope.trains else ():
            if not isinstance(statement, t.Equation):
                e.fault("B110", "`train` holds settings only", statement.span, help="write `name = value`")
                continue
            name, place = statement.name, statement.name_span
            if name in settings:
                e.fault("B125", f"`{name}` is given twice", place, help="remove one of them")
            elif name in VALUES:
                parts = _freeze(e, statement.value) if name == "freeze" else _report(e, statement.value)
                if parts is not FAULT:
                    settings[name] = (parts, statement.value.span)
            elif name not in Train.model_fields:
                report_unknown(e, name, place, Train.model_fields, "`train`", "setting")
            elif (value := _setting(e, name, statement.value)) is not FAULT:
                settings[name] = (value, statement.value.span)
    if "epochs" in settings and "steps" in settings:
        second = max((settings["epochs"][1], settings["steps"][1]), key=lambda span: span.start)
        e.fault("B122", "set epochs or steps, not both", second, help="remove one of them")
        del settings["steps"]
    return settings


def settle_train(settings: Written, place: Span, collector: Collector) -> Train | None:
    """The settings with defaults; None if one is at fault."""
    constants = {key: value for key, value in settings.items() if key not in VALUES}
    for key in VALUES:
        if key in settings and key in Train.model_fields:
            value, span = settings[key]
            said = value if isinstance(value, dict) else [x.span.text for x in value]
            constants[key] = (tuple(said), span)
    return settle(Train, constants, place, collector, "train")


def stage_length(e: Evaluator, stage: t.Stage, block: Written) -> Written:
    """`for 3 epochs` as a setting; empty if missing or at fault."""
    if stage.length is None:
        return {}
    value = e.evaluate(stage.length)
    help = "write `for 3 epochs` or `for 1000 steps`"
    if value is FAULT:
        return {}
    if not isinstance(value, v.Length) or value.unit not in ("step", "epoch") or value.value <= 0:
        e.fault("B122", "the length of a stage is a number of epochs or steps", stage.length.span, help=help)
        return {}
    for key in ("epochs", "steps"):
        if key in block:
            message = f"`for` and `{key}` both set the length of the stage"
            e.fault("B122", message, block[key][1], help="remove one of them")
            return {}
    if value.unit == "step" and value.value != int(value.value):
        e.fault("B122", "the number of steps must be an integer", stage.length.span, help=help)
        return {}
    key, number = ("epochs", value.value) if value.unit == "epoch" else ("steps", int(value.value))
    return {key: (number, stage.length.span)}


def _freeze(e: Evaluator, x: t.Expression) -> tuple[Frozen, ...] | Fault:
    """`[tiny @ "embeddings", W]`: modules of a student, named projections, whole models."""
    parts: list[Frozen] = []
    for part in x.items if isinstance(x, t.List | t.Tuple) else (x,):
        e.needs_input = False
        value = e.evaluate(part)
        e.needs_input = True
        for item in v.leaves(value) if isinstance(value, Group | tuple) else [value]:
            if item is FAULT:
                return FAULT
            if isinstance(item, v.ModelDeclaration) and item.role == "teacher":
                help = "remove it: teachers are never trained"
                return e.fault("B202", f"`{item.name}` is a teacher and never trained", part.span, help=help)
            frozen = frozen_of(item, part.span)
            if frozen is None:
                message = f"`freeze` lists trainable parts, got {describe(item)}"
                return e.fault("B202", message, part.span, help=_freeze_help(item))
            if frozen.kind == "module" and e.models[frozen.name].role == "teacher":
                help = "remove it: teachers are never trained"
                return e.fault("B202", f"`{frozen.name}` is a teacher and never trained", part.span, help=help)
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


def _report(e: Evaluator, x: t.Expression) -> dict[str, Value] | Fault:
    """`[x, y]`: values to report, by the text that names them."""
    reports: dict[str, Value] = {}
    for item in x.items if isinstance(x, t.List) else (x,):
        value = e.evaluate(item)
        if value is FAULT:
            return FAULT
        listed = list(v.leaves(value)) if isinstance(value, Group) else [value]
        for i, single in enumerate(listed):
            if not isinstance(single, Value) or single.kind != "loss":
                help = "an equation of one number: a loss, or `batch_mean(…)`"
                return e.fault("B202", f"`report` needs scalars, got {describe(single)}", item.span, help=help)
            name = item.span.text.replace(".", "/") if isinstance(item, t.Attribute) else item.span.text
            reports[f"{name}[{i}]" if isinstance(value, Group) else name] = single
    return reports


def _setting(e: Evaluator, name: str, x: t.Expression) -> object:
    registry = Train.calls.get(name)
    if registry is None:
        if isinstance(x, t.Name) and x.id not in e.current.known_names() and _takes_word(name):
            return x.id  # a bare word: precision = bf16
        if name == "metric_for_best_model" and isinstance(x, t.Attribute | t.Binary):
            return x.span.text.replace(".", "/").replace(" ", "")
        return _constant(e, name, x)
    call = x if isinstance(x, t.Call) else t.Call(x, (), span=x.span)
    made = configure(e, call, registry, name, lambda _, key, value: _constant(e, key, value))
    return FAULT if made is None else made[0]


def _takes_word(name: str) -> bool:
    """Whether a setting is a word, which may stand bare."""
    annotation = Train.model_fields[name].annotation
    return get_origin(annotation) is Literal or annotation is str or str in get_args(annotation)


def _constant(e: Evaluator, name: str, x: t.Expression) -> Evaluated:
    help = "write a number, a word, or a length such as 10%"
    is_word = isinstance(x, t.Name) and name in Train.model_fields and _takes_word(name)
    if is_word:
        help = f'`{x.span.text}` is a name of the spec: in quotes it is a word, `{name} = "{x.span.text}"`'
    return constant(e, name, x, e.evaluate(x), help, is_word=is_word)
