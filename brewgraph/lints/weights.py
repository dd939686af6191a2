"""Weights and temperatures: schedules that end late or stand still, temperatures that reach zero, weights that do not
add up, soft targets without their factor."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, node, of_kind
from brewgraph.lints.subject import MOMENTS, Subject, at, share, weighted
from brewgraph.ops import TEMPERATURES
from brewgraph.ops.schedules import FORMS
from brewgraph.ops.temperatures import FLOOR
from brewgraph.recipe import values as v
from brewgraph.recipe.recipe import Stage
from brewgraph.recipe.values import Length

NEARLY = (0.75, 1.25)
"""Sums of weights that look like a failed mean of teachers; others are taken as intended."""
ROUNDED = 0.015
"""How far from one a sum of rounded weights may lie: 0.33 + 0.33 + 0.33."""


# ── schedules and temperatures ───────────────────────────────────────────────────────────────────────────────────────


def find_late_schedules(subject: Subject) -> Iterator[Diagnostic]:
    """W207: a point of a schedule, of weights or of the learning rate, that lies after the end of its stage."""
    for stage in subject.recipe.stages:
        where = f"the stage `{stage.name}`" if stage.name else "training"
        for x in _scheduled(stage):
            starts = FORMS[x.name] == "start"  # one that starts at the very end never counts
            late = [a for a in x.arguments if isinstance(a, Length) and _is_late(a, stage, at_end=starts)]
            if late:
                never = "nothing ever counts" if starts else "what comes there is never reached"
                help = f"write a share of it: `{x.name}(30%)`" if starts else "write shares: `30%: 0.2`"
                yield Diagnostic("W207", f"{where} is over {_ends(stage, late[0])}: {never}", x.span, help)
        warmup = getattr(stage.train.schedule, "warmup", None)
        if isinstance(warmup, Length) and _is_late(warmup, stage, at_end=True):
            message = f"{where} is over {_ends(stage, warmup)}: the full rate is never reached"
            place = stage.places.get("schedule", subject.recipe.train_span)
            yield Diagnostic("W207", message, place, "write a share of it: `warmup=10%`")


def _is_late(length: Length, stage: Stage, *, at_end: bool) -> bool:
    part = share(length, stage)
    return part is not None and (part >= 1 if at_end else part > 1)


def _ends(stage: Stage, length: Length) -> str:
    """When a stage is over, in the unit of a length."""
    if length.unit == "share":
        return "at 100%"
    if length.unit == "step":
        return f"after {stage.train.steps} steps"
    return f"after {Length(stage.train.epochs or 0, 'epoch')}"


def find_still_schedules(subject: Subject) -> Iterator[Diagnostic]:
    """W208: a schedule that has one value from the first step to the last."""
    for stage in subject.recipe.stages:
        for x in _scheduled(stage):
            if len(values := _values(x)) == 1:
                (value,) = values
                help = "write the number" if value != 1 else "leave it out, or let it go somewhere: `ramp(1 -> 0)`"
                yield Diagnostic("W208", f"this schedule never moves: it is {value:g} throughout", x.span, help)


def _values(x: v.Scheduled) -> set[float]:
    """The values that a schedule starts from or comes near to."""
    first, form = x.arguments[0], FORMS[x.name]
    if form == "start":
        return {1.0} if isinstance(first, Length) and first.value <= 0 else {0.0, 1.0}
    numbers = x.arguments[1::2] if form == "points" else x.arguments
    return {a for a in numbers if not isinstance(a, Length)}


def find_vanishing_temperatures(subject: Subject) -> Iterator[Diagnostic]:
    """W209: a temperature that reaches zero, or whose formula could take it there."""
    for stage in subject.recipe.stages:
        for x in (x for x in _parts(stage) if isinstance(x, v.Apply | v.Transform)):
            for name, option in x.options:
                if name == "T" and isinstance(option, v.Value) and (fault := _vanishes(option, stage)):
                    yield Diagnostic("W209", fault[0], option.span if option.span.text else x.span, fault[1])
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            yield from _falling_by_classes(graph) if graph is not None else ()


def _falling_by_classes(graph: Graph) -> Iterator[Diagnostic]:
    """W209 of temperatures whose fall depends on the number of classes, which only a graph knows."""
    for _, loss in of_kind(graph, n.Loss):
        shape = node(graph, loss.target).shape
        classes = shape[-1] if shape else None
        for _, x in of_kind(graph, n.Temperature, loss.arguments.values()):
            known = TEMPERATURES[x.name].fall(None, **dict(x.options)) is not None
            if not known and isinstance(classes, int) and (fault := _falls(x, classes)):
                yield Diagnostic("W209", f"with {classes} classes {fault[0]}", x.span, fault[1])


def _falls(x: v.Temperature | n.Temperature, classes: int | None) -> tuple[str, str] | None:
    """Message and remedy where the formula of a temperature could take it below zero."""
    options = dict(x.options)
    fall = TEMPERATURES[x.name].fall(classes, **options)
    if fall is None or x.base >= fall:
        return None
    message = f"`{x.name}` can lower T={x.base:g} by up to {fall:.3g}; it would be clamped at {FLOOR:g}"
    return message, f"a smaller {' or '.join(f'`{name}`' for name in options)}, or a base above that"


def _vanishes(option: v.Value, stage: Stage) -> tuple[str, str] | None:
    """Message and remedy where a temperature reaches zero; None also where that depends on the classes."""
    if isinstance(option, v.Temperature):
        return _falls(option, None)
    values = [x for moment in MOMENTS if (x := at(option, moment, stage)) is not None]
    if not values and isinstance(option, v.Scheduled) and FORMS[option.name] == "points":
        values = list(_values(option))
    if not values or min(values) > 0:
        return None
    message = f"this temperature falls to {min(values):g}: logits are divided by it, and grow without bound"
    return message, "end at 1: `ramp(4 -> 1)`"


def _parts(stage: Stage) -> list[v.Value]:
    """Everything that the losses of a stage are made from, each once."""
    return list({id(x): x for task in stage.tasks for x in v.walk(task.loss)}.values())


def _scheduled(stage: Stage) -> list[v.Scheduled]:
    return [x for x in _parts(stage) if isinstance(x, v.Scheduled)]


# ── weights of terms ─────────────────────────────────────────────────────────────────────────────────────────────────

Weighted = tuple[str, float, v.Value]
"""A teacher, a weight, and the value that has it."""


def find_uneven_means(subject: Subject) -> Iterator[Diagnostic]:
    """W210: one operation onto one feature from several teachers, with weights that nearly sum to one."""
    seen: set[int] = set()
    for x in (x for loss in subject.losses for x in v.walk(loss)):
        if not isinstance(x, v.Combine) or x.operator != "+" or id(x) in seen:
            continue
        addends = list(_addends(x, seen))
        total = sum(weight for _, weight in addends)
        groups: dict[object, list[Weighted]] = {}
        for value, weight in addends:
            if (match := _teacher_of(value)) is not None:
                groups.setdefault(match[1], []).append((match[0], weight, value))
        for group in groups.values():
            if (message := _uneven(group, total)) is not None:
                first, last = group[0][2].span, group[-1][2].span
                place = x.span if first.source != last.source or last.start < first.start else first.to(last)
                help = "make them sum to one, or write `mean(…)` over the list of teachers"
                yield Diagnostic("W210", message, place, help)


def _uneven(group: list[Weighted], total: float) -> str | None:
    weights = [weight for _, weight, _ in group]
    several = len({teacher for teacher, _, _ in group}) == len(group) > 1
    if not several or not all(0 < weight < 1 for weight in weights) or not NEARLY[0] <= sum(weights) <= NEARLY[1]:
        return None
    if abs(total - 1) <= ROUNDED or abs(sum(weights) - 1) <= ROUNDED:
        return None
    return f"the weights of the teachers sum to {sum(weights):.4g}, not to 1: {' + '.join(f'{w:g}' for w in weights)}"


def _addends(x: v.Value, seen: set[int]) -> Iterator[tuple[v.Value, float]]:
    """The addends of a sum and of the sums in it, each with its weight where that is one number."""
    match x:
        case v.Combine(operator="+"):
            seen.add(id(x))
            for operand in x.operands:
                yield from _addends(operand, seen)
        case v.Combine(operator="*", operands=(v.Number() as weight, value)):
            yield value, weight.value
        case v.Combine(operator="*", operands=(value, v.Number() as weight)):
            yield value, weight.value
        case v.Apply() | v.Take():
            yield x, 1.0


def _teacher_of(x: v.Value) -> tuple[str, object] | None:
    """The model of a feature, or of a match's source, and the rest of it, which other teachers may share."""
    if isinstance(x, v.Take):
        return x.model, ("feature", x.data, x.feature, x.passing)
    if isinstance(x, v.Apply) and isinstance(x.source, v.Take):
        source = x.source
        feature = (source.data, source.feature.name, source.feature.head)
        return source.model, (x.operation, feature, x.target, x.options, x.mask)
    return None


def find_unscaled_targets(subject: Subject) -> Iterator[Diagnostic]:
    """W213: cross-entropy with a model at a high temperature beside a loss on labels, without the factor T²."""
    for loss in subject.losses:
        moments = [{id(x): (x, w) for x, w in weighted(loss, 1.0, progress)} for progress in (0.0, 0.5, 63 / 64)]
        applied = {key: x for moment in moments for key, (x, _) in moment.items()}
        heights = {key: max(abs(m[key][1]) for m in moments if key in m) for key in applied}
        on_labels = [key for key, x in applied.items() if _is_on_labels(x)]
        if not on_labels:
            continue
        highest = max(on_labels, key=lambda key: heights[key])
        for key, x in applied.items():
            T = _temperature(x)
            if T is None or T < 2 or not heights[key] or heights[key] / (heights[highest] or 1.0) >= T * T / 2:
                continue
            name, factor = x.declared.name, f"{T * T:g}"
            message = f"`{name}` has no factor T²: at T={T:g} its gradient is about {factor} times smaller than at 1"
            remedy = x.declared.unscaled
            help = f"{remedy}, or `{factor} * {name}(…)`, to bring its weight to the scale of the labels' loss"
            same_file = applied[highest].span.source == x.span.source
            labels = (Label(applied[highest].span, "the loss on labels"),) if same_file else ()
            yield Diagnostic("W213", message, x.span, help, labels=labels)
            break  # once for start and end, or for several teachers


def _is_on_labels(x: v.Apply) -> bool:
    return isinstance(x.source, v.Column) and x.source.kind in ("labels", "targets")


def _temperature(x: v.Apply) -> float | None:
    """The temperature at which a match of two models' logits begins; None for other losses."""
    if not x.declared.unscaled or isinstance(x.source, v.Column):
        return None
    if not {x.source.kind, x.target.kind} <= {"logits", "positions"}:
        return None
    option = dict(x.options).get("T")
    if isinstance(option, v.Temperature):
        return option.base
    return at(option, 0.0) if isinstance(option, v.Value) else None
