"""Calls that configure (sources, optimizers, schedules, `train { }`) to their pydantic models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from brewgraph.diagnostics import Collector, listing, suggest
from brewgraph.recipe.settings.sources import Settings
from brewgraph.recipe.values import FAULT
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

S = TypeVar("S", bound=Settings)
Written = dict[str, tuple[Any, Span]]
"""Argument name -> its evaluated value and where it stands."""


def written_arguments(
    call: t.Call,
    settings: type[Settings],
    evaluate: Callable[[str, t.Expression], Any],
    collector: Collector,
    name: str,
) -> Written | None:
    """The arguments of a call by field name; None where one is at fault (diagnosed)."""
    written: Written = {}
    sound = True
    free = list(settings.positional)
    for argument in call.arguments:
        if argument.key is not None:
            collector.add("B121", f"`{name}` takes no `key: value` arguments", argument.span, help="write `name=value`")
            sound = False
            continue
        if argument.name is None:
            if not free:
                takes = f"only {listing(settings.positional)}" if settings.positional else "nothing"
                needed = [key for key in fields_of(settings) if settings.model_fields[key].is_required()]
                first = f"write `{needed[0]}={argument.span.text}`; or " if needed else ""
                help = f"{first}name it: {listing(fields_of(settings))}"
                collector.add("B121", f"`{name}` takes {takes} without a name", argument.span, help=help)
                sound = False
                continue
            key, place = free.pop(0), argument.span
        else:
            key, place = argument.name, argument.name_span or argument.span
            if key in free:
                free.remove(key)
        if not known(settings, key):
            report_unknown(key, place, fields_of(settings), collector, f"`{name}`")
            sound = False
        elif key in written:
            collector.add("B125", f"`{key}` is given twice", place, help="remove one of them")
            sound = False
        else:
            value = evaluate(key, argument.value)
            sound = sound and value is not FAULT
            written[key] = (value, argument.value.span)
    return written if sound else None


def fields_of(settings: type[Settings]) -> list[str]:
    return [field for field in settings.model_fields if field != settings.extras]


def known(settings: type[Settings], key: str) -> bool:
    return settings.extras is not None or key in settings.model_fields


def report_unknown(
    key: str,
    place: Span,
    fields: Iterable[str],
    collector: Collector,
    owner: str,
    kind: str = "argument",
) -> None:
    names = list(fields)
    help = instead(kind, key, names) or f"it knows {listing(names)}"
    collector.add("B120", f"{owner} has no setting `{key}`", place, help=help)


def settle(settings: type[S], written: Written, place: Span, collector: Collector, name: str) -> S | None:
    """Validate what was written; None and diagnostics where pydantic objects."""
    values = {key: value for key, (value, _) in written.items()}
    if settings.extras is not None:
        own = settings.model_fields.keys() - {settings.extras}
        extra = {key: values.pop(key) for key in list(values) if key not in own}
        values[settings.extras] = extra
    found: dict[str, Any] = {}
    for key, value in values.items():  # pydantic would take true for 1
        if isinstance(value, bool) and not _takes_truth(settings, key):
            message = f"`{key}` is neither true nor false"
            collector.add("B122", message, written[key][1], help=_description(settings, key))
            found[key] = message
    try:
        made = settings.model_validate(values)
        return None if found else made
    except ValidationError as error:
        for fault in error.errors():
            field = str(fault["loc"][0]) if fault["loc"] else ""
            if field in found:
                continue
            found[field] = fault
            where = written[field][1] if field in written else place
            message, help = _words(fault, field, name, _description(settings, field))
            collector.add("B122", message, where, help=help)
        return None


def _takes_truth(settings: type[Settings], key: str) -> bool:
    field = settings.model_fields.get(key)
    return key == settings.extras or field is None or field.annotation in (bool, bool | None)


def takes_text(settings: type[Settings], key: str) -> bool:
    """Whether an argument may be a text, or a list of texts."""
    field = settings.model_fields.get(key)
    return (
        key == settings.extras or field is None or re.search(r"\bstr\b|Literal\['", str(field.annotation)) is not None
    )


def _description(settings: type[Settings], key: str) -> str:
    field = settings.model_fields.get(key)
    return f"`{key}`: {field.description}" if field is not None and field.description else ""


def places(written: Written) -> Mapping[str, Span]:
    return MappingProxyType({key: span for key, (_, span) in written.items()})


_PLAIN = {
    "tuple_type": "a list is wanted",
    "string_type": "a string is wanted",
    "bool_parsing": "true or false is wanted",
    "bool_type": "true or false is wanted",
    "int_type": "a whole number is wanted",
    "int_parsing": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "float_type": "a number is wanted",
    "float_parsing": "a number is wanted",
    "dataclass_type": "a list of layers is wanted",
    "model_type": "layers of a model are wanted",
}
"""What pydantic finds, in the words of a spec."""


def _words(fault: Any, field: str, name: str, description: str) -> tuple[str, str]:
    """Message and remedy for one pydantic error, in the words of a spec."""
    kind, given, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    if kind == "missing" and len(fault["loc"]) == 1:
        return f"`{name}` needs `{field}`", f"add {field}=…"
    if kind == "literal_error":
        expected = str(context.get("expected", ""))
        words = [w.strip("' ") for w in expected.replace(" or ", ", ").split(",")]
        if name in ("glue", "builtin") and re.search(r"\.\w+$", str(given)):
            return f"`{field}` cannot be `{given}`", f"`files(train=…)` reads a file; it is one of {expected}"
        return f"`{field}` cannot be `{given}`", suggest(str(given), words) or f"it is one of {expected}"
    text = str(fault["msg"]).removeprefix("Value error, ").removesuffix(" after validation")
    if kind in ("missing", "too_long", "too_short"):
        text = "another number of members is wanted"
    elif kind == "string_pattern_mismatch":
        text = "it is written module:name"
    text = _PLAIN.get(kind, text[0].lower() + text[1:]).replace("input should be", "it must be")
    shown = f", got `{given}`" if isinstance(given, str | int | float) and kind != "value_error" else ""
    if not field:
        return text, "correct one of them"
    return f"`{field}`: {text}{shown}", description or "correct it"
