"""Statements that declare models, data and params, and the calls that configure them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from brewgraph.diagnostics import MOST_NAMES, Label, listing, shortened, suggest
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import FEATURE_KINDS, Evaluator
from brewgraph.recipe.evaluate.scope import wrong_place
from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.data_sources import DATA, Builtin, DataSource, Join
from brewgraph.recipe.settings.model_sources import ADAPTERS, HEADS, MODELS, Ema, Hf, Layers, SequenceClassifier
from brewgraph.recipe.values import Evaluated, Faulty, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

S = TypeVar("S", bound=Settings)
Written = dict[str, tuple[Any, Span]]
"""Argument name -> its value, which pydantic validates, and where it stands."""
CALLS: dict[str, Mapping[str, type[Settings]]] = {"adapter": ADAPTERS, "augment": AUGMENTATIONS}
"""Arguments that are calls themselves, and what they may call."""
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


# ── calls to settings ────────────────────────────────────────────────────────────────────────────────────────────────


def configure(
    e: Evaluator,
    x: t.Expression,
    registry: Mapping[str, type[S]],
    what: str,
    evaluate: Callable[[type[S], str, t.Expression], object],
) -> tuple[S, Written]:
    """The settings that a call of `registry` makes, with its arguments.

    `evaluate` gives the value of an argument, by the settings, its name and its expression.
    """
    function = x.function if isinstance(x, t.Call) else x
    name = function.id if isinstance(function, t.Name) else ""
    if isinstance(x, t.Call) and name in registry:
        settings = registry[name]
        arguments = _arguments(e, x, settings, name, lambda key, value: evaluate(settings, key, value))
        return settle(e, settings, arguments, x.span, name), arguments
    place = function.span
    word = name or (function.name if isinstance(function, t.Attribute) else place.text)
    if name in registry:
        raise e.fault("B101", f"`{name}` needs parentheses", place, help=f"write `{name}(…)`")
    if elsewhere := wrong_place(word):
        raise e.fault("B102", f"`{place.text}` is no {what}", place, help=elsewhere)
    help = instead(what, word, registry) or f"there are {listing(registry)}"
    if isinstance(x, t.String):
        file = 'files(train="…")' if re.search(r"\.(csv|tsv|jsonl?|parquet)(\.gz)?$", x.value) else 'hub("…")'
        call = {"model source": 'hf("…")', "data source": file}.get(what, "")
        help = f"write `{call.replace('…', x.value)}`" if call else help
    raise e.fault("B101", f"there is no {what} `{place.text}`", place, help=help)


def _arguments(
    e: Evaluator, call: t.Call, settings: type[Settings], name: str, evaluate: Callable[[str, t.Expression], object]
) -> Written:
    """The arguments of a call by field name."""
    arguments: Written = {}
    free = list(settings.positional)
    fields = [field for field in settings.model_fields if field != settings.extras]

    def take(argument: t.Argument) -> None:
        place = argument.place
        if argument.key is not None:
            raise e.fault("B121", f"`{name}` takes no `key: value` arguments", place, help="write `name=value`")
        if argument.name is None and not free:
            takes = f"only {listing(settings.positional)}" if settings.positional else "nothing"
            needed = [key for key in fields if settings.model_fields[key].is_required()]
            first = f"write `{needed[0]}={argument.span.text}`; or " if needed else ""
            help = f"{first}name it: {listing(fields)}"
            raise e.fault("B121", f"`{name}` takes {takes} without a name", place, help=help)
        key = argument.name or free[0]
        if key in free:
            free.remove(key)
        if settings.extras is None and key not in settings.model_fields:
            raise unknown_setting(e, key, place, fields, f"`{name}`")
        if key in arguments:
            raise e.fault("B125", f"`{key}` is given twice", place, help="remove one of them")
        arguments[key] = (evaluate(key, argument.value), argument.value.span)

    each(take, call.arguments)
    return arguments


def unknown_setting(
    e: Evaluator, key: str, place: Span, fields: Iterable[str], owner: str, kind: str = "argument"
) -> Faulty:
    """B120 for a setting that its owner does not have."""
    names = list(fields)
    help = instead(kind, key, names) or f"it has {listing(names)}"
    return e.fault("B120", f"{owner} has no setting `{key}`", place, help=help)


def constant(
    e: Evaluator, key: str, x: t.Expression, value: Evaluated, help: str, *, is_word: bool = False
) -> Evaluated:
    """The value of a setting that takes constants alone; `help` is the remedy for anything else."""
    if v.is_constant(value) or isinstance(value, v.Length):
        return value
    got = describe(value)
    if isinstance(value, v.Number) and isinstance(x, t.Name) and not is_word:
        got, help = "an equation", f"define it by `let {x.id} = …` or `param {x.id} = …`"
    raise e.fault("B202", f"`{key}` is a setting and needs a constant, got {got}", x.span, help=help)


def settle(e: Evaluator, settings: type[S], arguments: Written, place: Span, name: str) -> S:
    """The settings with these arguments, which pydantic validates."""
    values = {key: value for key, (value, _) in arguments.items()}
    if settings.extras is not None:
        known = settings.model_fields.keys() - {settings.extras}
        values[settings.extras] = {key: values.pop(key) for key in list(values) if key not in known}
    faults: dict[str, Faulty] = {}
    for key, value in values.items():  # pydantic would take true for 1
        info = settings.model_fields.get(key)
        takes_truth = key == settings.extras or info is None or info.annotation in (bool, bool | None)
        if isinstance(value, bool) and not takes_truth:
            help = _description(settings, key)
            faults[key] = e.fault("B122", f"`{key}` is not a boolean", arguments[key][1], help=help)
    try:
        made = settings.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[ErrorDetails]] = {}
        for fault in error.errors():
            found.setdefault(str(fault["loc"][0]) if fault["loc"] else "", []).append(fault)
        for field, same in found.items():
            if field not in faults:
                where = arguments[field][1] if field in arguments else place
                message, help = _words(same, field, name, _description(settings, field))
                faults[field] = e.fault("B122", message, where, help=help)
    if faults:
        raise next(iter(faults.values()))
    return made


def _takes_text(settings: type[Settings], key: str) -> bool:
    """Whether an argument may be a text, or a list of texts."""
    field = settings.model_fields.get(key)
    return (
        key == settings.extras or field is None or re.search(r"\bstr\b|Literal\['", str(field.annotation)) is not None
    )


def _description(settings: type[Settings], key: str) -> str:
    field = settings.model_fields.get(key)
    return f"`{key}`: {field.description}" if field is not None and field.description else ""


def _places(arguments: Written) -> Mapping[str, Span]:
    return MappingProxyType({key: span for key, (_, span) in arguments.items()})


_PLAIN = {
    "tuple_type": "a list",
    "string_type": "a string",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "dataclass_type": "a number with its unit",
    "model_type": "layers of a model",
}
"""What was expected, by pydantic's name of the error."""


def _words(faults: Sequence[ErrorDetails], field: str, name: str, description: str) -> tuple[str, str]:
    """Message and remedy for pydantic's errors of one field: one for each type that it may have."""
    fault = next((x for x in faults if any(isinstance(step, int) for step in x["loc"])), faults[0])  # that of a member
    kind, value, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    if kind == "missing" and len(fault["loc"]) == 1:
        return f"`{name}` needs `{field}`", f"add {field}=…"
    if kind == "literal_error":
        expected = str(context.get("expected", ""))
        words = [w.strip("' ") for w in expected.replace(" or ", ", ").split(",")]
        if name in ("glue", "builtin") and re.search(r"\.\w+$", str(value)):
            return f"`{field}` cannot be `{value}`", f"`files(train=…)` reads a file; it is one of {expected}"
        return f"`{field}` cannot be `{value}`", suggest(str(value), words) or f"it is one of {expected}"
    text = str(fault["msg"]).removeprefix("Value error, ").removesuffix(" after validation")
    if kind in ("missing", "too_long", "too_short"):
        text = "wrong number of members"
    elif kind == "string_pattern_mismatch":
        text = "it is written module:name"
    if kind in _PLAIN:
        alike = (x["type"] for x in faults if x["input"] is fault["input"])
        text = f"expected {' or '.join(dict.fromkeys(_PLAIN[x] for x in alike if x in _PLAIN))}"
    text = (text[0].lower() + text[1:]).replace("input should be", "it must be")
    shown = f", got `{value}`" if isinstance(value, str | int | float) and kind != "value_error" else ""
    if not field:
        return text, "correct one of them"
    return f"`{field}`: {text}{shown}", description or "correct it"


# ── models and data ───────────────────────────────────────────────────────────────────────────────────────────────────


def declare_model(e: Evaluator, s: t.Model, name: str) -> v.ModelDeclaration:
    """A teacher or a student. A faulty source still declares a model, so that one check finds more faults."""
    heads, head_places = _heads(e, s)
    try:
        made, arguments = _source(e, s.source, MODELS, "model source")
    except Faulty:
        return v.ModelDeclaration(name, s.role, Hf(), heads, span=s.span, places={})
    if made.averaged is not None and s.role == "teacher":
        student = e.models[made.averaged]
        if student.role != "student":
            help = "teachers do not change: name the student, `ema(tiny)`"
            place = arguments["model"][1]
            e.collector.add("B331", f"`{student.name}` is no student to average", place, help=help)
        heads = heads or student.heads
    if made.device is not None and s.role == "student":
        help = "leave `device` out; `accelerate launch` decides where a run trains"
        e.fault("B117", f"`{s.name}` is trained, and has no device of its own", arguments["device"][1], help=help)
    if isinstance(made, Hf):
        if (made.name is None) == (made.model_type is None):
            help = 'hf("name or folder"), or hf(model_type="bert", …) for a model from scratch'
            e.fault("B123", "a model needs either a name or a model_type", s.source.span, help=help)
        elif s.role == "student" and made.dtype not in (None, "fp32"):
            help = "leave `dtype` out; `train { precision = bf16 }` computes in bf16 with weights in fp32"
            message = f"`{s.name}` is trained, and its weights stay in fp32"
            e.fault("B117", message, arguments["dtype"][1], help=help)
        elif made.quantize is not None and s.role == "student":
            help = "leave `quantize` out; quantize the student once it is trained"
            message = f"`{s.name}` is trained, and rounded weights cannot be"
            e.fault("B117", message, arguments["quantize"][1], help=help)
        elif made.quantize is not None and (made.is_random or made.init or made.adapter or heads):
            help = 'save the model first, and name its folder: hf("folder", quantize=…)'
            message = "only weights that are loaded as they were saved can be quantized"
            e.fault("B123", message, arguments["quantize"][1], help=help)
        elif "revision" in arguments and made.name is None:
            place = arguments["revision"][1]
            e.fault("B123", "a model from scratch has no revision", place, help="remove `revision`")
    elif s.block is not None:
        help = "declare them on a model from hf(…)"
        e.collector.add("B117", "only models from hf(…) take heads", s.block.span, help=help)
    if made.averaged is not None and s.role == "student":
        e.fault("B117", "`ema(…)` declares a teacher, not a student", s.source.span, help=f"teacher {s.name} = ema(…)")
    where = {**_places(arguments), **head_places}
    return v.ModelDeclaration(
        name, s.role, made, heads, span=s.source.span, places=where, params=_params(e, s.source, arguments)
    )


def _params(e: Evaluator, x: t.Expression, arguments: Written) -> Mapping[str, frozenset[str]]:
    """The params that each argument of a call uses."""
    spans = {argument.value.span: argument.value for argument in getattr(x, "arguments", ())}
    return {key: e.current.params_in(spans[span]) for key, (_, span) in arguments.items() if span in spans}


def _heads(e: Evaluator, s: t.Model) -> tuple[Mapping[str, Settings], Mapping[str, Span]]:
    """The heads in a model's braces, and the places of their names under `head NAME`."""
    heads: dict[str, Settings] = {}
    first: dict[str, t.Head] = {}
    for head in s.block.statements if s.block is not None else ():
        if not isinstance(head, t.Head):
            help = "write `head ner = token_classifier(labels=9)`"
            e.collector.add("B110", "a model's braces may hold only heads", head.span, help=help)
        elif head.name in first:
            labels = (Label(first[head.name].name_span, "first here"),)
            message = f"the head `{head.name}` is given twice"
            e.collector.add("B105", message, head.name_span, labels=labels, help="rename one of them")
        elif head.name in FEATURE_KINDS or head.name == "layers":
            message = f"`{head.name}` is a feature of every model and cannot name a head"
            e.collector.add("B105", message, head.name_span, help=f"call it `{head.name}_head`")
        else:
            first[head.name] = head
            heads[head.name] = SequenceClassifier()  # a head at fault is there all the same, for what names it
            with suppress(Faulty):
                heads[head.name] = _source(e, head.source, HEADS, "head")[0]
    return heads, {f"head {name}": head.name_span for name, head in first.items()}


def declare_data(e: Evaluator, s: t.Data, name: str) -> v.DataDeclaration:
    """A data set. A faulty source still leaves one behind."""
    try:
        return _declare_data(e, s, name)
    except Faulty:
        return v.DataDeclaration(name, Builtin(name="python-docs"), span=s.span, places={}, known=False)


def _declare_data(e: Evaluator, s: t.Data, name: str) -> v.DataDeclaration:
    """A data set, or several joined by `+`."""
    parts = addends(s.source)
    forms = "write `data both = a + b`, or sources: `files(…) + files(…)`"
    wrong = next((p for p in parts if isinstance(p, t.Binary | t.List | t.Tuple)), None)
    if wrong is not None:
        raise e.fault("B202", "data sets can only be joined by `+`", wrong.span, help=forms)
    if len(parts) == 1 and not isinstance(s.source, t.Name):
        made, arguments = _source(e, s.source, DATA, "data source")
        params = _params(e, s.source, arguments)
        return v.DataDeclaration(name, made, span=s.source.span, places=_places(arguments), params=params)
    joined: list[DataSource] = []
    for part in parts:
        if isinstance(part, t.Call):
            joined.append(_source(e, part, DATA, "data source")[0])
            continue
        value = e.evaluate(part)
        if isinstance(value, v.DataDeclaration) and len(parts) == 1:
            return replace(value, name=name, span=s.source.span)
        if not isinstance(value, v.DataDeclaration):
            message, help = f"only data sets can be joined, got {describe(value)}", forms
            if len(parts) == 1:
                message = f"expected a data source, got {describe(value)}"
                help = "write `data NAME = files(…)`, or the name of another data set"
            raise e.fault("B202", message, part.span, help=help)
        joined += value.source.sources
    kinds = {part.label_type for part in joined}
    if len(kinds) > 1:
        said = [f"data labelled `{kind}`" if kind else "unlabelled data" for kind in sorted(kinds, reverse=True)]
        help = "both need the same kind of labels; for several, write tasks"
        raise e.fault("B118", f"cannot join {' with '.join(said)}", s.source.span, help=help)
    return v.DataDeclaration(name, Join(parts=tuple(joined)), span=s.source.span, places={})


def addends(x: t.Expression) -> list[t.Expression]:
    """The parts of `a + b + c`."""
    if isinstance(x, t.Binary) and x.operator == "+":
        return [*addends(x.left), *addends(x.right)]
    return [x]


def _source(e: Evaluator, x: t.Expression, registry: Mapping[str, type[S]], what: str) -> tuple[S, Written]:
    return configure(e, x, registry, what, lambda settings, key, value: _setting(e, settings, key, value))


# ── arguments of sources ─────────────────────────────────────────────────────────────────────────────────────────────


def _setting(e: Evaluator, settings: type[Settings], key: str, x: t.Expression) -> object:
    """The value of a source's argument: a bare name is a column, or another model."""
    if key in getattr(settings, "columns", ()):
        return _columns(e, settings, key, x)
    if isinstance(x, t.Mapping):
        return _mapping(e, key, x)
    calls = CALLS.get(key, {})
    if calls and (isinstance(x, t.Call | t.List) or (isinstance(x, t.Name) and x.id in calls)):
        return _calls(e, key, calls, x)
    if calls and not isinstance(x, t.Constant):
        raise e.fault("B122", f"`{key}` needs a call", x.span, help=f"write `{key}={next(iter(calls))}(…)`")
    if key == "inputs" and issubclass(settings, Hf):
        help = "write `inputs={token_type_ids: column}`"
        raise e.fault("B122", "`inputs` maps names to columns", x.span, help=help)
    if isinstance(x, t.Name) and x.id not in e.current.known_names() and key in settings.bare:
        return x.id
    if (words := _unquoted(e, x)) and _takes_text(settings, key):
        known = e.current.known_names()
        near = suggest(words[0], known) if x.span.text == words[0] else ""
        if key not in settings.model_fields and not near and known:  # a number just as well
            near = f"the spec has {listing(known, MOST_NAMES)};"
        help = f"{near} strings need quotes: {_quoted(x)}".strip()
        raise e.fault("B101", f"there is no `{words[0]}`", x.span, help=help)
    value = e.evaluate(x)
    if isinstance(value, str) and settings is Ema and key == "model":
        raise e.fault("B122", "`ema` takes a model of this spec", x.span, help="write its name: `ema(tiny)`")
    if isinstance(value, v.ModelDeclaration):
        if key == "tokenizer" or (settings is Ema and key == "model"):
            return value.name
        help = f"pick layers: `{value.name}.layers[0, 4, 8]`" if key == "init" else "write a number or a string"
        raise e.fault("B202", f"`{key}` cannot be a model", x.span, help=help)
    if isinstance(value, Layers) and key == "init":
        return value
    help = "pick layers: `bert.layers[0, 4, 8]`" if key == "init" else "write a number, a string, or a list of them"
    if isinstance(value, v.Length) and (key not in settings.model_fields or key == settings.extras):
        raise e.fault("B202", f"`{key}` is a setting and needs a constant, got {describe(value)}", x.span, help=help)
    return constant(e, key, x, value, help)


def _unquoted(e: Evaluator, x: t.Expression) -> list[str]:
    """The words of a setting that look like unquoted strings (`train.jsonl`, `[joy, anger]`), up to the first dot; none
    if any is a known name.
    """
    items = [item for item in (x.items if isinstance(x, t.List) else (x,)) if not isinstance(item, t.String)]
    if not all(re.fullmatch(r"[A-Za-z_][\w./-]*", item.span.text) for item in items):
        return []
    words = [re.split(r"\W", item.span.text)[0] for item in items if not isinstance(item, t.Constant)]
    return words if not set(words) & set(e.current.known_names()) else []


def _quoted(x: t.Expression) -> str:
    """The same words with quotes."""
    items = [item.span.text.strip('"') for item in (x.items if isinstance(x, t.List) else (x,))]
    text = ", ".join(f'"{item}"' for item in items)
    return f"`[{text}]`" if isinstance(x, t.List) else f"`{text}`"


def _calls(
    e: Evaluator, key: str, registry: Mapping[str, type[Settings]], x: t.Expression
) -> Settings | tuple[Settings, ...]:
    """`adapter=lora(r=8)`, `augment=[masking(p=0.1)]`: settings of their own."""
    made: list[Settings] = []
    for item in x.items if isinstance(x, t.List) else (x,):
        if isinstance(item, t.Name) and item.id in registry:
            item = t.Call(item, (), span=item.span)  # `augment=masking` leaves everything at its default
        made.append(_source(e, item, registry, {"augment": "augmentation"}.get(key, key))[0])
    return tuple(made) if isinstance(x, t.List) or key == "augment" else made[0]


def _mapping(e: Evaluator, key: str, x: t.Mapping) -> dict[str, str]:
    """`inputs={token_type_ids: column}`: an argument of the model's forward, and the column that it gets."""
    if key != "inputs":
        raise e.fault("B122", f"`{key}` is not a mapping", x.span, help="only `inputs` maps names to columns")
    columns: dict[str, str] = {}
    for item in x.items:
        if not isinstance(item.key, t.Name | t.String) or not isinstance(item.value, t.Name | t.String):
            help = "write `inputs={token_type_ids: column}`"
            raise e.fault("B122", "`inputs` maps a name to a column", item.span, help=help)
        name, column = each(lambda word: _column(e, word), (item.key, item.value))
        if name in columns:
            raise e.fault("B125", f"`{name}` is given twice", item.key.span, help="remove one of them")
        columns[name] = column
    return columns


def _columns(e: Evaluator, settings: type[Settings], key: str, x: t.Expression) -> v.Plain | tuple[str, ...]:
    """One column or several, by bare names or strings."""
    names = x.items if isinstance(x, t.List) else (x,)
    several = key == "text" or (key == "label" and "problem_type" in settings.model_fields)
    if isinstance(x, t.Constant) and (x.value is None or isinstance(x.value, int)) and key != "text":
        return x.value
    columns = each(lambda n: _column(e, n), [n for n in names if isinstance(n, t.Name | t.String)])
    if len(columns) == len(names) and (key == "text" or several or len(names) == 1):
        words = tuple(str(column) for column in columns)
        return words if key == "text" or len(words) != 1 else words[0]
    message = "`text` names one or two columns" if key == "text" else f"`{key}` names one column, or is none"
    help = "write `text=column`, or `text=[first, second]`" if key == "text" else f"write `{key}=column`"
    raise e.fault("B122", message, x.span, help=help)


def _column(e: Evaluator, x: t.Name | t.String) -> str:
    """The name of a column, bare or as a string."""
    return e.interpolate(x) if isinstance(x, t.String) else x.id


def evaluate_param(e: Evaluator, s: t.Param, params: Mapping[str, object]) -> Evaluated:
    """The value of a param: from outside, else its default, checked against its type."""
    if s.name not in params and s.default is None:
        help = f"set it: `--set {s.name}=…`, or a default in the spec"
        raise e.fault("B106", f"the param `{s.name}` has no value", s.name_span, help=help)
    asks_default = s.name not in params or s.type is None
    default = e.evaluate(s.default) if s.default is not None and asks_default else None
    value: object = params.get(s.name, default)
    value = tuple(value) if isinstance(value, list) else value
    if s.type is not None and s.type not in TYPES:
        help = suggest(s.type, TYPES) or f"there are {listing(TYPES)}"
        raise e.fault("B109", f"there is no type `{s.type}`", s.span, help=help)
    if not v.is_constant(value):
        message = f"the param `{s.name}` must be a constant, got {describe(value)}"
        place = s.default.span if s.default is not None else s.name_span
        raise e.fault("B109", message, place, help="use `let` for other values")
    wanted = TYPES[s.type] if s.type else type(default) if isinstance(default, int | float | str) else None
    if wanted is float and v.is_whole(value):
        return float(value)
    if wanted is int and s.type is None and isinstance(value, float):
        return value
    if wanted is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        message = f"the param `{s.name}` must be {wanted.__name__}, got {shortened(repr(value))}"
        raise e.fault("B109", message, s.name_span, help="correct the value, or the param's type")
    return value
