"""Statements that declare: where a model or a data set comes from, a model's heads, a param's value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from brewgraph.diagnostics import Label, listing, suggest
from brewgraph.recipe.evaluate.configure import Written, places, settle, takes_text, written_arguments
from brewgraph.recipe.evaluate.describe import describe, is_constant, wrong_place
from brewgraph.recipe.evaluate.expressions import FEATURE_KINDS, Evaluator
from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
from brewgraph.recipe.settings.sources import (
    ADAPTERS,
    DATA,
    HEADS,
    MODELS,
    Builtin,
    Ema,
    Hf,
    Join,
    Layers,
    SequenceClassifier,
    Settings,
)
from brewgraph.recipe.values import FAULT, DataDeclaration, Group, Length, ModelDeclaration, Number
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

CALLS: dict[str, Mapping[str, type[Settings]]] = {"adapter": ADAPTERS, "augment": AUGMENTATIONS}
"""Arguments that are calls themselves, and what they may call."""
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


def declare_model(evaluator: Evaluator, s: t.Model, name: str) -> ModelDeclaration:
    """A teacher or a student. A faulty source still leaves a model behind, so that more faults are found in one run."""
    found = _source(evaluator, s.source, MODELS, "model source")
    heads, head_places = _heads(evaluator, s)
    if found is FAULT:
        return ModelDeclaration(name, s.role, Hf(), heads, span=s.span, places={})
    made, written = found
    if made.averaged is not None and s.role == "teacher":
        student = evaluator.models[made.averaged]
        if student.role != "student":
            help = "teachers stay as they are: name the student, `ema(tiny)`"
            place = written["model"][1]
            evaluator.collector.add("B331", f"`{student.name}` is no student to average", place, help=help)
        heads = heads or student.heads
    if isinstance(made, Hf):
        _check_hf(evaluator, made, s.source, written)
    elif s.block is not None:
        help = "write them on a model from hf(…)"
        evaluator.collector.add("B117", "only models from hf(…) take heads", s.block.span, help=help)
    if made.averaged is not None and s.role == "student":
        evaluator.fault(
            "B117", "an average of a student is no student", s.source.span, help=f"teacher {s.name} = ema(…)"
        )
    where = {**places(written), **head_places}
    return ModelDeclaration(
        name, s.role, made, heads, span=s.source.span, places=where, params=_params(evaluator, s.source, written)
    )


def _params(evaluator: Evaluator, x: t.Expression, written: Written) -> Mapping[str, frozenset[str]]:
    """Of each argument of a call the params that it is made of."""
    spans = {argument.value.span: argument.value for argument in getattr(x, "arguments", ())}
    return {key: evaluator.current.params_in(spans[span]) for key, (_, span) in written.items() if span in spans}


def _heads(evaluator: Evaluator, s: t.Model) -> tuple[Mapping[str, Settings], Mapping[str, Span]]:
    """The heads in a model's braces, and where each has its name, under `head NAME`."""
    heads: dict[str, Settings] = {}
    first: dict[str, t.Head] = {}
    for head in s.block.statements if s.block is not None else ():
        if not isinstance(head, t.Head):
            help = "write `head ner = token_classifier(labels=9)`"
            evaluator.collector.add("B110", "a model's braces hold heads only", head.span, help=help)
        elif head.name in first:
            labels = (Label(first[head.name].name_span, "first here"),)
            message = f"the head `{head.name}` is given twice"
            evaluator.collector.add("B105", message, head.name_span, labels=labels, help="rename one of them")
        elif head.name in FEATURE_KINDS or head.name == "layers":
            message = f"`{head.name}` is a feature of every model, and no name for a head"
            evaluator.collector.add("B105", message, head.name_span, help=f"call it `{head.name}_head`")
        else:
            first[head.name] = head
            found = _source(evaluator, head.source, HEADS, "head")
            # a head at fault is there all the same: what names it is none of its own faults
            heads[head.name] = SequenceClassifier() if found is FAULT else found[0]
    return heads, {f"head {name}": head.name_span for name, head in first.items()}


def declare_data(evaluator: Evaluator, s: t.Data, name: str) -> DataDeclaration:
    """A data set, or two joined by `+`."""
    anything = DataDeclaration(name, Builtin(name="python-docs"), span=s.span, places={}, known=False)
    parts = _addends(s.source)
    wrong = next((p for p in parts if isinstance(p, t.Binary | t.List | t.Tuple)), None)
    if wrong is not None:
        help = "write `data both = a + b`, or sources: `files(…) + files(…)`"
        evaluator.fault("B202", "data are joined by `+` alone", wrong.span, help=help)
        return anything
    if len(parts) == 1 and not isinstance(s.source, t.Name):
        found = _source(evaluator, s.source, DATA, "data source")
        if found is FAULT:
            return anything
        params = _params(evaluator, s.source, found[1])
        return DataDeclaration(name, found[0], span=s.source.span, places=places(found[1]), params=params)
    joined: list[Any] = []
    if len(parts) == 1:
        value = evaluator.evaluate(parts[0])
        if isinstance(value, DataDeclaration):
            return replace(value, name=name, span=s.source.span)
        if value is not FAULT:
            help = "write `data NAME = files(…)`, or the name of another data set"
            evaluator.fault("B202", f"data come from a source, got {describe(value)}", s.source.span, help=help)
        return anything
    for part in parts:
        if isinstance(part, t.Call):
            found = _source(evaluator, part, DATA, "data source")
            value = FAULT if found is FAULT else found[0]
        else:
            value = evaluator.evaluate(part)
            if value is not FAULT and not isinstance(value, DataDeclaration):
                help = "write `data both = a + b`, or sources: `files(…) + files(…)`"
                value = evaluator.fault("B202", f"data are joined, got {describe(value)}", part.span, help=help)
            value = value.source if isinstance(value, DataDeclaration) else value
        if value is FAULT:
            return anything
        joined += value.parts if isinstance(value, Join) else (value,)
    kinds = {source.label_type for source in joined}
    if len(kinds) > 1:
        help = "both need the same kind of labels; for several, write tasks"
        said = [f"data labelled `{kind}`" if kind else "unlabelled data" for kind in sorted(kinds, reverse=True)]
        message = f"cannot join {' with '.join(said)}"
        evaluator.fault("B118", message, s.source.span, help=help)
        return anything
    return DataDeclaration(name, Join(parts=tuple(joined)), span=s.source.span, places={})


def _addends(x: t.Expression) -> list[t.Expression]:
    if isinstance(x, t.Binary) and x.operator == "+":
        return [*_addends(x.left), *_addends(x.right)]
    return [x]


def _source(evaluator: Evaluator, x: t.Expression, registry: Any, what: str) -> Any:
    """The settings that a call of `registry` makes, with what was written; a fault, diagnosed, where it is none."""
    name = x.function.id if isinstance(x, t.Call) and isinstance(x.function, t.Name) else None
    if name is None or name not in registry or not isinstance(x, t.Call):
        place = x.function.span if isinstance(x, t.Call) else x.span
        if place.text in registry:
            return evaluator.fault("B101", f"`{place.text}` needs its brackets", place, help=f"write `{place.text}(…)`")
        if elsewhere := wrong_place(name or place.text):
            return evaluator.fault("B102", f"`{place.text}` is no {what}", place, help=elsewhere)
        help = instead(what, name or place.text, registry) or f"there are {listing(registry)}"
        if isinstance(x, t.String):
            file = 'files(train="…")' if re.search(r"\.(csv|tsv|jsonl?|parquet)(\.gz)?$", x.value) else 'hub("…")'
            call = {"model source": 'hf("…")', "data source": file}.get(what, "")
            help = f"write `{call.replace('…', x.value)}`" if call else help
        return evaluator.fault("B101", f"there is no {what} `{place.text}`", place, help=help)
    settings = registry[name]
    evaluate = lambda key, value: _setting(evaluator, settings, key, value)  # noqa: E731
    written = written_arguments(x, settings, evaluate, evaluator.collector, name)
    made = settle(settings, written, x.span, evaluator.collector, name) if written is not None else None
    return FAULT if made is None or written is None else (made, written)


def _check_hf(evaluator: Evaluator, made: Hf, x: t.Expression, written: Written) -> None:
    if (made.name is None) == (made.model_type is None):
        help = 'hf("name or folder"), or hf(model_type="bert", …) for a model from scratch'
        evaluator.collector.add("B123", "a model needs a name or a model_type, and not both", x.span, help=help)
    elif "revision" in written and made.name is None:
        place = written["revision"][1]
        evaluator.collector.add("B123", "a model from scratch has no revision", place, help="leave `revision` out")


# ── arguments of sources ─────────────────────────────────────────────────────────────────────────────────────────────


def _setting(evaluator: Evaluator, settings: type[Settings], key: str, x: t.Expression) -> Any:
    """The value of a source's argument: a bare name is a column, or another model."""
    if key in getattr(settings, "columns", ()):
        return _columns(evaluator, settings, key, x)
    if isinstance(x, t.Mapping):
        return _mapping(evaluator, settings, key, x)
    calls = CALLS.get(key, {})
    if calls and (isinstance(x, t.Call | t.List) or (isinstance(x, t.Name) and x.id in calls)):
        return _calls(evaluator, key, calls, x)
    if calls and not isinstance(x, t.Constant):
        help = f"write `{key}={next(iter(calls))}(…)`"
        return evaluator.fault("B122", f"`{key}` is written as a call", x.span, help=help)
    if key == "inputs" and issubclass(settings, Hf):
        help = "write `inputs={token_type_ids: column}`"
        return evaluator.fault("B122", "`inputs` maps names to columns", x.span, help=help)
    if isinstance(x, t.Name) and x.id not in evaluator.current.known_names() and key in settings.bare:
        return x.id
    if (words := _unquoted(evaluator, x)) and takes_text(settings, key):
        known = evaluator.current.known_names()
        near = suggest(words[0], known) if x.span.text == words[0] else ""
        if key not in settings.model_fields and not near and known:  # a number just as well
            near = f"the spec has {listing(known)};"
        help = f"{near} a text stands in quotes: {_quoted(x)}".strip()
        return evaluator.fault("B101", f"there is no `{words[0]}`", x.span, help=help)
    value = evaluator.evaluate(x)
    if isinstance(value, str) and settings is Ema and key == "model":
        return evaluator.fault(
            "B122", "`ema` averages a model of this spec", x.span, help="write its name: `ema(tiny)`"
        )
    if isinstance(value, ModelDeclaration):
        if key == "tokenizer" or (settings is Ema and key == "model"):
            return value.name
        help = f"pick layers: `{value.name}.layers[0, 4, 8]`" if key == "init" else "write a number or a string"
        return evaluator.fault("B202", f"`{key}` cannot be a model", x.span, help=help)
    a_length = isinstance(value, Length) and key in settings.model_fields and key != settings.extras
    constant = is_constant(value) or a_length or (isinstance(value, Layers) and key == "init")
    if value is not FAULT and not constant:
        message = f"`{key}` is a setting and needs a constant, got {describe(value)}"
        help = "pick layers: `bert.layers[0, 4, 8]`" if key == "init" else "write a number, a string, or a list of them"
        if isinstance(value, Number) and isinstance(x, t.Name):
            message = f"`{key}` is a setting and needs a constant, got an equation"
            help = f"define it by `let {x.id} = …` or `param {x.id} = …`"
        return evaluator.fault("B202", message, x.span, help=help)
    return value


def _unquoted(evaluator: Evaluator, x: t.Expression) -> list[str]:
    """The words in a setting that look like texts without their quotes: `train.jsonl`, `[joy, anger]`; none if any is
    known. Of each the first name."""
    items = [item for item in (x.items if isinstance(x, t.List) else (x,)) if not isinstance(item, t.String)]
    if not all(re.fullmatch(r"[A-Za-z_][\w./-]*", item.span.text) for item in items):
        return []
    words = [re.split(r"\W", item.span.text)[0] for item in items if not isinstance(item, t.Constant)]
    return words if not set(words) & set(evaluator.current.known_names()) else []


def _quoted(x: t.Expression) -> str:
    """What was meant by words without quotes."""
    items = [item.span.text.strip('"') for item in (x.items if isinstance(x, t.List) else (x,))]
    text = ", ".join(f'"{item}"' for item in items)
    return f"`[{text}]`" if isinstance(x, t.List) else f"`{text}`"


def _calls(evaluator: Evaluator, key: str, registry: Mapping[str, type[Settings]], x: t.Expression) -> Any:
    """`adapter=lora(r=8)`, `augment=[masking(p=0.1)]`: settings of their own."""
    found = []
    for item in x.items if isinstance(x, t.List) else (x,):
        if isinstance(item, t.Name) and item.id in registry:
            item = t.Call(item, (), span=item.span)  # `augment=masking` leaves everything at its default
        made = _source(evaluator, item, registry, {"augment": "augmentation"}.get(key, key))
        if made is FAULT:
            return FAULT
        found.append(made[0])
    return tuple(found) if isinstance(x, t.List) or key == "augment" else found[0]


def _mapping(evaluator: Evaluator, settings: type[Settings], key: str, x: t.Mapping) -> Any:
    """`inputs={token_type_ids: column}`: an argument of the model's forward, and the column that it gets."""
    if key != "inputs":
        return evaluator.fault("B122", f"`{key}` is not a mapping", x.span, help="only `inputs` maps names to columns")
    found: dict[str, str] = {}
    for item in x.items:
        words = [
            _column(evaluator, part) if isinstance(part, t.Name | t.String) else None for part in (item.key, item.value)
        ]
        if None in words:
            help = "write `inputs={token_type_ids: column}`"
            return evaluator.fault("B122", "`inputs` maps a name to a column", item.span, help=help)
        if FAULT in words:
            return FAULT
        if words[0] in found:
            return evaluator.fault("B125", f"`{words[0]}` is given twice", item.key.span, help="remove one of them")
        found[str(words[0])] = str(words[1])
    return found


def _columns(evaluator: Evaluator, settings: type[Settings], key: str, x: t.Expression) -> Any:
    """One column or several, by bare names or strings."""
    names = x.items if isinstance(x, t.List) else (x,)
    several = key == "text" or (key == "label" and "problem_type" in settings.model_fields)
    if isinstance(x, t.Constant) and (x.value is None or isinstance(x.value, int)) and key != "text":
        return x.value
    if all(isinstance(n, t.Name | t.String) for n in names):
        words = tuple(_column(evaluator, n) for n in names)
        if FAULT in words:
            return FAULT
        if key == "text":
            return words
        if len(words) == 1 or several:
            return words[0] if len(words) == 1 else words
    message = "`text` names one or two columns" if key == "text" else f"`{key}` names one column, or is none"
    help = "write `text=column`, or `text=[first, second]`" if key == "text" else f"write `{key}=column`"
    return evaluator.fault("B122", message, x.span, help=help)


def _column(evaluator: Evaluator, x: t.Expression) -> Any:
    """The name of a column, bare or as a string."""
    return evaluator.interpolate(x) if isinstance(x, t.String) else x.span.text


# ── params ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_param(evaluator: Evaluator, s: t.Param, given: Mapping[str, Any]) -> Any:
    """The value of a param: what was given from outside, else its default, of the type that it declares."""
    if s.name in given:
        value = tuple(given[s.name]) if isinstance(given[s.name], list) else given[s.name]
    elif s.default is None:
        help = f"give it: `--set {s.name}=…`, or a default in the spec"
        return evaluator.fault("B106", f"the param `{s.name}` has no value", s.name_span, help=help)
    else:
        value = evaluator.evaluate(s.default)
    if value is FAULT:
        return FAULT
    declared = s.type
    if declared is not None and declared not in TYPES:
        help = suggest(declared, TYPES) or f"there are {listing(TYPES)}"
        return evaluator.fault("B109", f"there is no type `{declared}`", s.span, help=help)
    if not is_constant(value) or isinstance(value, Group):
        message = f"the param `{s.name}` is a constant, got {describe(value)}"
        place = s.default.span if s.default is not None else s.name_span
        return evaluator.fault("B109", message, place, help="a `let` names any value")
    default = None if declared or s.default is None else evaluator.evaluate(s.default)
    wanted = TYPES[declared] if declared else type(default) if isinstance(default, int | float | str) else None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is int and declared is None and isinstance(value, float):
        return value
    if wanted is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        message = f"the param `{s.name}` is {wanted.__name__}, and {value!r} is not"
        return evaluator.fault("B109", message, s.name_span, help="correct the value, or the param's type")
    return value
