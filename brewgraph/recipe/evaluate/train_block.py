"""`train { }` to its settings; those of a stage override the outer ones key by key."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Literal, get_args, get_origin

from brewgraph.diagnostics import Collector, listing
from brewgraph.recipe.evaluate.configure import Written, report_unknown, settle, written_arguments
from brewgraph.recipe.evaluate.describe import describe, is_constant, wrong_place
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.recipe import Frozen, frozen_of
from brewgraph.recipe.settings.sources import Layers
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import FAULT, Forwarded, Group, Length, ModelDeclaration, Number, Take, Value, leaves
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

__all__ = ["Written", "own_settings", "settle_train", "stage_length"]
VALUES = ("freeze", "report")
"""Settings that are no constants: what does not learn, and what is reported beside the loss."""


def own_settings(trains: Sequence[t.Train], evaluator: Evaluator, names: Container[str]) -> Written:
    """What the first of these `train` says, each setting with its place; those at fault are left out."""
    collector = evaluator.collector
    written: Written = {}
    for statement in trains[0].block.statements if trains else ():
        if not isinstance(statement, t.Equation):
            collector.add("B110", "`train` holds settings only", statement.span, help="write `name = value`")
            continue
        name, place = statement.name, statement.name_span
        if name in written:
            collector.add("B125", f"`{name}` is given twice", place, help="remove one of them")
        elif name in VALUES:
            value = (_freeze if name == "freeze" else _report)(statement.value, evaluator)
            if value is not FAULT:
                written[name] = (value, statement.value.span)
        elif name not in Train.model_fields:
            report_unknown(name, place, Train.model_fields, collector, "`train`", "setting")
        elif (value := _value(name, statement.value, evaluator, names)) is not FAULT:
            written[name] = (value, statement.value.span)
    if "epochs" in written and "steps" in written:
        second = max((written["epochs"][1], written["steps"][1]), key=lambda span: span.start)
        collector.add("B122", "give epochs or steps, not both", second, help="remove one of them")
        del written["steps"]
    return written


def settle_train(written: Written, place: Span, collector: Collector) -> Train | None:
    """The settings, defaults filled in; None where one of them is at fault."""
    constants = {key: value for key, value in written.items() if key not in VALUES}
    for key in VALUES:
        if key in written and key in Train.model_fields:
            value, span = written[key]
            said = value if isinstance(value, dict) else [x.span.text for x in value]
            constants[key] = (tuple(said), span)
    return settle(Train, constants, place, collector, "train")


def stage_length(stage: t.Stage, own: Written, evaluator: Evaluator) -> Written:
    """`for 3 epochs` as a setting; empty where it is left out, or at fault."""
    if stage.length is None:
        return {}
    value = evaluator.evaluate(stage.length)
    help = "write `for 3 epochs` or `for 1000 steps`"
    if value is FAULT:
        return {}
    if not isinstance(value, Length) or value.unit == "share" or value.value <= 0:
        evaluator.fault("B122", "a stage lasts a number of epochs or steps", stage.length.span, help=help)
        return {}
    for key in ("epochs", "steps"):
        if key in own:
            message = f"`for` and `{key}` both say how long the stage lasts"
            evaluator.fault("B122", message, own[key][1], help="remove one of them")
            return {}
    if value.unit == "step" and value.value != int(value.value):
        evaluator.fault("B122", "a number of steps is whole", stage.length.span, help=help)
        return {}
    key, number = ("epochs", value.value) if value.unit == "epoch" else ("steps", int(value.value))
    return {key: (number, stage.length.span)}


def _freeze(x: t.Expression, e: Evaluator) -> Any:
    """`[tiny @ "embeddings", W]`: modules of a student, named projections, whole models."""
    found: list[Frozen] = []
    for part in x.items if isinstance(x, t.List | t.Tuple) else (x,):
        e.needs_input = False
        value = e.evaluate(part)
        e.needs_input = True
        for item in leaves(value) if isinstance(value, Group | tuple) else [value]:
            if item is FAULT:
                return FAULT
            if isinstance(item, ModelDeclaration) and item.role == "teacher":
                help = "leave it out: teachers never learn"
                return e.fault("B202", f"`{item.name}` is a teacher, which learns nothing", part.span, help=help)
            frozen = frozen_of(item, part.span)
            if frozen is None:
                message = f"`freeze` names what learns, got {describe(item)}"
                return e.fault("B202", message, part.span, help=_freeze_help(item))
            if frozen.kind == "module" and e.models[frozen.name].role == "teacher":
                help = "leave it out: teachers never learn"
                return e.fault("B202", f"`{frozen.name}` is a teacher, which learns nothing", part.span, help=help)
            found.append(frozen)
    return tuple(found)


def _freeze_help(item: Any) -> str:
    """What to write for something that cannot be frozen."""
    if isinstance(item, Take | Layers):
        path = item.feature.path if isinstance(item, Take) and item.feature.path else "encoder.layer.0"
        return f'name the module by its path: `{item.model} @ "{path}"`; `brewgraph params SPEC` shows them all'
    if isinstance(item, Forwarded):
        return f"a model is frozen on any input: write `{item.model.name}`"
    if isinstance(item, str):
        return f'say whose module it is: `tiny @ "{item}"`'
    return 'write `freeze = [tiny @ "embeddings", tiny.ner, W]`: modules and heads of the student, or projections'


def _report(x: t.Expression, e: Evaluator) -> Any:
    """`[x, y]`: values to report, by the text that names them."""
    found: dict[str, Value] = {}
    for item in x.items if isinstance(x, t.List) else (x,):
        value = e.evaluate(item)
        if value is FAULT:
            return FAULT
        listed = list(leaves(value)) if isinstance(value, Group) else [value]
        for i, single in enumerate(listed):
            if not isinstance(single, Value) or single.kind != "loss":
                help = "an equation of one number: a loss, or `batch_mean(…)`"
                return e.fault("B202", f"`report` needs scalars, got {describe(single)}", item.span, help=help)
            name = item.span.text.replace(".", "/") if isinstance(item, t.Attribute) else item.span.text
            found[f"{name}[{i}]" if isinstance(value, Group) else name] = single
    return found


def _value(name: str, x: t.Expression, evaluator: Evaluator, names: Container[str]) -> Any:
    registry = Train.calls.get(name)
    if registry is None:
        if isinstance(x, t.Name) and x.id not in names and _takes_word(name):
            return x.id  # a bare word: precision = bf16
        if name == "metric_for_best_model" and isinstance(x, t.Attribute | t.Binary):
            return x.span.text.replace(".", "/").replace(" ", "")
        return _constant(name, x, evaluator)
    call = x if isinstance(x, t.Call) else t.Call(x, (), span=x.span)
    word = call.function.id if isinstance(call.function, t.Name) else ""
    if word not in registry:
        called = call.function.name if isinstance(call.function, t.Attribute) else call.function.span.text
        if elsewhere := wrong_place(word):
            return evaluator.fault("B102", f"`{word}` is no {name}", call.function.span, help=elsewhere)
        help = instead(name, called, registry) or f"there are {listing(registry)}"
        return evaluator.fault("B101", f"there is no {name} `{call.function.span.text}`", call.function.span, help=help)
    collector = evaluator.collector
    evaluate = lambda key, value: _constant(key, value, evaluator)  # noqa: E731
    written = written_arguments(call, registry[word], evaluate, collector, word)
    return FAULT if written is None else settle(registry[word], written, x.span, collector, word) or FAULT


def _takes_word(name: str) -> bool:
    """Whether a setting is a word, which may stand bare."""
    annotation = Train.model_fields[name].annotation
    return get_origin(annotation) is Literal or annotation is str or str in get_args(annotation)


def _constant(name: str, x: t.Expression, evaluator: Evaluator) -> Any:
    value = evaluator.evaluate(x)
    if value is FAULT or is_constant(value) or isinstance(value, Length):
        return value
    message = f"`{name}` is a setting and needs a constant, got {describe(value)}"
    help = "write a number, a word, or a length such as 10%"
    if isinstance(x, t.Name) and name in Train.model_fields and _takes_word(name):
        help = f'`{x.id}` is a name of the spec: in quotes it is a word, `{name} = "{x.id}"`'
    elif isinstance(x, t.Name) and isinstance(value, Number):
        message = f"`{name}` is a setting and needs a constant, got an equation"
        help = f"define it by `let {x.id} = …` or `param {x.id} = …`"
    return evaluator.fault("B202", message, x.span, help=help)
