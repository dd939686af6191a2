"""Calls that say where a model or a data set comes from: `teacher NAME = hf(…)`, `data NAME = files(…)`."""

from __future__ import annotations

from typing import Any

from brewgraph.diagnostics import listing, suggest
from brewgraph.recipe.configure import places, settle, written_arguments
from brewgraph.recipe.describe import describe, is_constant, wrong_place
from brewgraph.recipe.evaluate import Evaluator
from brewgraph.recipe.sources import Hf, Layers, Settings
from brewgraph.recipe.values import FAULT, ModelDeclaration
from brewgraph.syntax import tree as t

LATER_ARGUMENTS = frozenset({"adapter", "inputs"})
"""Arguments of `hf(...)` whose meaning is still to come."""


def declare(
    evaluator: Evaluator, s: t.Named, x: t.Expression, registry: Any, later: Any, what: str, build: Any, **more: Any
) -> Any:
    """What `build` makes of a call of `registry`; a fault, diagnosed, where the call is no such source."""
    name = x.function.id if isinstance(x, t.Call) and isinstance(x.function, t.Name) else None
    if name in later:
        return evaluator.fault("B901", f"`{name}` is not supported yet", x.span)
    if name is None or name not in registry or not isinstance(x, t.Call):
        if isinstance(x, t.Binary) and isinstance(s, t.Data):
            return evaluator.fault("B901", "joining data sets is not supported yet", x.span)
        place = x.function.span if isinstance(x, t.Call) else x.span
        if place.text in registry:
            return evaluator.fault("B101", f"`{place.text}` needs its brackets", place, help=f"write `{place.text}(…)`")
        if elsewhere := wrong_place(name or place.text):
            return evaluator.fault("B102", f"`{place.text}` is no {what}", place, help=elsewhere)
        help = suggest(name or x.span.text, registry) or f"there are {listing(registry)}"
        return evaluator.fault("B101", f"there is no {what} `{place.text}`", place, help=help)
    settings = registry[name]
    written = written_arguments(
        x, settings, lambda key, value: _setting(evaluator, settings, key, value), evaluator.collector, name
    )
    made = settle(settings, written, x.span, evaluator.collector, name) if written is not None else None
    if made is None or written is None:
        return FAULT
    _check_source(evaluator, made, x, written)
    return build(s.name, source=made, span=x.span, places=places(written), **more)


def _check_source(evaluator: Evaluator, made: Settings, x: t.Call, written: Any) -> None:
    if not isinstance(made, Hf):
        return
    if (made.name is None) == (made.model_type is None):
        help = 'hf("name or folder"), or hf(model_type="bert", …) for a model from scratch'
        evaluator.collector.add("B123", "a model needs a name or a model_type, and not both", x.span, help=help)
    elif "revision" in written and made.name is None:
        place = written["revision"][1]
        evaluator.collector.add("B123", "a model from scratch has no revision", place, help="leave `revision` out")


def _setting(evaluator: Evaluator, settings: type[Settings], key: str, x: t.Expression) -> Any:
    """The value of a source's argument: a bare name is a column, or another model."""
    if key in getattr(settings, "columns", ()):
        names = x.items if isinstance(x, t.List) else (x,)
        if all(isinstance(n, t.Name | t.String) for n in names):
            words = tuple(_column(evaluator, n) for n in names)
            if FAULT in words:
                return FAULT
            if key == "text" or len(words) == 1:
                return words if key == "text" else words[0]
        if isinstance(x, t.Constant) and x.value is None and key == "label":
            return None
        return evaluator.fault(
            "B122",
            "`text` names one or two columns" if key == "text" else "`label` names one column, or is none",
            x.span,
            help="write `text=column`, or `text=[first, second]`" if key == "text" else "write `label=column`",
        )
    if key in LATER_ARGUMENTS and settings is Hf:
        return evaluator.fault("B901", f"`{key}` is not supported yet", x.span)
    value = evaluator.evaluate(x)
    if isinstance(value, ModelDeclaration):
        if key == "tokenizer":
            return value.name
        help = f"pick layers: `{value.name}.layers[0, 4, 8]`" if key == "init" else "write a number or a string"
        return evaluator.fault("B202", f"`{key}` cannot be a model", x.span, help=help)
    if value is not FAULT and not is_constant(value) and not (isinstance(value, Layers) and key == "init"):
        message = f"`{key}` is a setting and needs a constant, and this is {describe(value)}"
        return evaluator.fault("B202", message, x.span, help="write a number, a string, or a list of them")
    return value


def _column(evaluator: Evaluator, x: t.Expression) -> Any:
    """The name of a column, bare or as a string."""
    return evaluator.interpolate(x) if isinstance(x, t.String) else x.span.text
