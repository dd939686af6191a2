"""Values in the words of a message, and the small questions about them that every part of the evaluator asks."""

from __future__ import annotations

from typing import Any

from brewgraph.ops import OPERATIONS
from brewgraph.recipe.sources import DATA, MODELS, Layers
from brewgraph.recipe.values import (
    DataDeclaration,
    Group,
    LayerMap,
    Length,
    Match,
    ModelDeclaration,
    Number,
    Row,
    Scheduled,
    Value,
)
from brewgraph.source import Span


def as_value(x: Any, place: Span) -> Value | None:
    """A plain number as a value; None for what training cannot compute with."""
    if is_number(x):
        return Number("number", float(x), span=place)
    return x if isinstance(x, Value) else None


def describe(x: Any) -> str:
    """What a value is, in the words of a message."""
    if isinstance(x, Scheduled):
        return "a schedule"
    if isinstance(x, Value):
        return {"loss": "a loss", "labels": "labels", "logits": "logits", "hidden": "hidden states"}.get(
            x.kind, f"a {x.kind}"
        )
    named: dict[type, str] = {
        Group: "a list", Row: "a row of features", LayerMap: "a layer map", Match: "a match", Length: "a length",
        ModelDeclaration: "a model", DataDeclaration: "a data set", tuple: "a list", str: "a string", bool: "a truth value",
        int: "a number", float: "a number", type(None): "none", Layers: "layers of a model",
    }  # fmt: skip
    return next((words for kind, words in named.items() if isinstance(x, kind)), type(x).__name__)


def wrong_place(name: str) -> str:
    """Help for a name that exists, but not as a value."""
    if name in OPERATIONS:
        return f"`{name}` is an operation: write `{name}(teacher -> student)`"
    if name in MODELS or name in DATA:
        return f"`{name}` is a source: write `{name}(…)`"
    return ""


def is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def are_layers(x: Any) -> bool:
    return isinstance(x, tuple) and bool(x) and all(isinstance(i, int) and not isinstance(i, bool) for i in x)
