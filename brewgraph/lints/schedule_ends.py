"""Schedules that go on after training, or stand still; temperatures that come to zero."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, node
from brewgraph.lints.subject import MOMENTS, Subject, at, share
from brewgraph.ops import TEMPERATURES
from brewgraph.ops.temperatures import FLOOR
from brewgraph.recipe import values as v
from brewgraph.recipe.recipe import Stage
from brewgraph.recipe.values import Length


def find_late_schedules(subject: Subject) -> Iterator[Diagnostic]:
    """W207: a point of a schedule, of weights or of the learning rate, that lies behind the end of its stage."""
    for stage in subject.recipe.stages:
        where = f"the stage `{stage.name}`" if stage.name else "training"
        for x in _scheduled(stage):
            late = [a for a in x.arguments if isinstance(a, Length) and _is_late(a, x.name, stage)]
            if late:
                never = "nothing ever counts" if x.name == "after" else "what comes there is never reached"
                message = f"{where} is over {_ends(stage, late[0])}: {never}"
                help = "write a share of it: `after(30%)`" if x.name == "after" else "write shares: `30%: 0.2`"
                yield Diagnostic("W207", message, x.span, help)
        warmup = getattr(stage.train.schedule, "warmup", None)
        part = share(warmup, stage) if isinstance(warmup, Length) else None
        if isinstance(warmup, Length) and part is not None and part >= 1:
            message = f"{where} is over {_ends(stage, warmup)}: the full rate is never reached"
            place = stage.places.get("schedule", subject.recipe.train_span)
            yield Diagnostic("W207", message, place, "write a share of it: `warmup=10%`")


def _is_late(length: Length, name: str, stage: Stage) -> bool:
    part = share(length, stage)
    return part is not None and (part >= 1 if name == "after" else part > 1)


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
            values = set(x.arguments[1::2] if x.name == "piecewise" else x.arguments)
            if x.name == "after":
                first = x.arguments[0]
                values = {1.0} if isinstance(first, Length) and first.value <= 0 else {0.0, 1.0}
            if len(values) == 1:
                (value,) = values
                help = "write the number" if value != 1 else "leave it out, or let it go somewhere: `ramp(1 -> 0)`"
                yield Diagnostic("W208", f"this schedule never moves: it is {value:g} throughout", x.span, help)


def find_vanishing_temperatures(subject: Subject) -> Iterator[Diagnostic]:
    """W209: a temperature that gets to zero, or that formulas of its own would take there."""
    for stage in subject.recipe.stages:
        for x in _parts(stage):
            if not isinstance(x, v.Apply | v.Transform):
                continue
            for name, option in x.options:
                if name == "T" and isinstance(option, v.Value) and (said := _vanishes(option, stage)):
                    yield Diagnostic("W209", said[0], option.span if option.span.text else x.span, said[1])
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            yield from _falling_by_classes(graph) if graph is not None else ()


def _falling_by_classes(graph: Graph) -> Iterator[Diagnostic]:
    """W209 of temperatures that fall as far as there are classes: only a graph knows how many."""
    for x in (node(graph, key) for key in graph):
        if not isinstance(x, n.Loss):
            continue
        shape = node(graph, x.target).shape
        classes = shape[-1] if shape else None
        for own in (found for key in x.arguments.values() if isinstance(found := node(graph, key), n.Temperature)):
            known = TEMPERATURES[own.name].fall(None, **dict(own.options)) is not None
            if not known and isinstance(classes, int) and (said := _falls(own, classes)):
                yield Diagnostic("W209", f"with {classes} classes {said[0]}", own.span, said[1])


def _falls(own: v.Temperature | n.Temperature, classes: int | None) -> tuple[str, str] | None:
    """What is wrong with a temperature whose formula may go below zero, and the remedy; None where it may not."""
    options = dict(own.options)
    fall = TEMPERATURES[own.name].fall(classes, **options)
    if fall is None or own.base >= fall:
        return None
    message = f"`{own.name}` can lower T={own.base:g} by up to {fall:.3g}; it would be clamped at {FLOOR:g}"
    return message, f"a smaller {' or '.join(f'`{name}`' for name in options)}, or a base above that"


def _vanishes(option: v.Value, stage: Stage) -> tuple[str, str] | None:
    """What is wrong with a temperature, and the remedy; None where nothing is, or where it depends on the classes."""
    if isinstance(option, v.Temperature):
        return _falls(option, None)
    values = [x for moment in MOMENTS if (x := at(option, moment, stage)) is not None]
    if not values and isinstance(option, v.Scheduled) and option.name == "piecewise":
        values = [x for x in option.arguments[1::2] if isinstance(x, float)]
    if not values or min(values) > 0:
        return None
    return (
        f"this temperature comes to {min(values):g}: what is divided by it grows without bound",
        "end at 1: `ramp(4 -> 1)`",
    )


def _parts(stage: Stage) -> list[v.Value]:
    """Everything that the losses of a stage are made from, each once."""
    return list({id(x): x for task in stage.tasks for x in v.walk(task.loss)}.values())


def _scheduled(stage: Stage) -> list[v.Scheduled]:
    return [x for x in _parts(stage) if isinstance(x, v.Scheduled)]
