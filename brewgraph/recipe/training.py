"""`train { }` to its settings."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Literal, get_origin

from brewgraph.diagnostics import listing, suggest
from brewgraph.recipe.configure import Written, report_unknown, settle, written_arguments
from brewgraph.recipe.describe import describe, is_constant, wrong_place
from brewgraph.recipe.evaluate import Evaluator
from brewgraph.recipe.settings import LATER, OTHER_WORDS, Train
from brewgraph.recipe.values import FAULT, Length
from brewgraph.source import Span
from brewgraph.syntax import tree as t


def train_settings(trains: Sequence[t.Train], evaluator: Evaluator, names: Container[str]) -> Train | None:
    """The settings of the first `train`, defaults where there is none; None where they are at fault."""
    collector = evaluator.collector
    written: Written = {}
    for statement in trains[0].block.statements if trains else ():
        if not isinstance(statement, t.Equation):
            collector.add("B110", "`train` holds settings only", statement.span, help="write `name = value`")
            continue
        name, place = statement.name, statement.name_span
        if name in LATER:
            collector.add("B901", f"the setting `{name}` is not supported yet", place)
        elif name not in Train.model_fields:
            report_unknown(name, place, Train.model_fields, collector, "`train`", OTHER_WORDS)
        elif name in written:
            collector.add("B125", f"`{name}` is given twice", place, help="remove one of them")
        elif (value := _value(name, statement.value, evaluator, names)) is not FAULT:
            written[name] = (value, statement.value.span)
    if "epochs" in written and "steps" in written:
        second = max((written["epochs"][1], written["steps"][1]), key=lambda span: span.start)
        collector.add("B122", "give epochs or steps, not both", second, help="remove one of them")
        return None
    place = trains[0].span if trains else Span(evaluator.source, 0, 0)
    return settle(Train, written, place, collector, "train")


def _value(name: str, x: t.Expression, evaluator: Evaluator, names: Container[str]) -> Any:
    registry = Train.calls.get(name)
    if registry is None:
        field = Train.model_fields[name]
        if isinstance(x, t.Name) and x.id not in names and get_origin(field.annotation) is Literal:
            return x.id  # a bare word: precision = bf16
        return _constant(name, x, evaluator)
    call = x if isinstance(x, t.Call) else t.Call(x, (), span=x.span)
    word = call.function.id if isinstance(call.function, t.Name) else ""
    if word not in registry:
        if elsewhere := wrong_place(word):
            return evaluator.fault("B102", f"`{word}` is no {name}", call.function.span, help=elsewhere)
        help = suggest(word, registry) or f"there are {listing(registry)}"
        return evaluator.fault("B101", f"there is no {name} `{call.function.span.text}`", call.function.span, help=help)
    collector = evaluator.collector
    evaluate = lambda key, value: _constant(key, value, evaluator)  # noqa: E731
    written = written_arguments(call, registry[word], evaluate, collector, word)
    return FAULT if written is None else settle(registry[word], written, x.span, collector, word) or FAULT


def _constant(name: str, x: t.Expression, evaluator: Evaluator) -> Any:
    value = evaluator.evaluate(x)
    if value is FAULT or is_constant(value) or isinstance(value, Length):
        return value
    message = f"`{name}` is a setting and needs a constant, and this is {describe(value)}"
    return evaluator.fault("B202", message, x.span, help="write a number, a word, or a length such as 10%")
