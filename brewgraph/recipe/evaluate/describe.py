"""Values in the words of a message, and the small questions about them that every part of the evaluator asks."""

from __future__ import annotations

from typing import Any

from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
from brewgraph.recipe.evaluate.scope import Scope
from brewgraph.recipe.settings.sources import DATA, HEADS, MODELS, Layers
from brewgraph.recipe.settings.train import OPTIMIZERS
from brewgraph.recipe.settings.train import SCHEDULES as RATES
from brewgraph.recipe.values import (
    Bundle,
    DataDeclaration,
    Forwarded,
    Group,
    LayerMap,
    Length,
    Match,
    ModelDeclaration,
    Number,
    Projector,
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


_KINDS = {
    "loss": "a loss",
    "labels": "labels",
    "logits": "logits",
    "hidden": "hidden states",
    "attention": "attention probabilities",
    "scores": "attention scores",
    "states": "queries, keys or values",
    "positions": "scores over tokens",
    "targets": "labels that are numbers",
    "values": "one number per example or token",
    "probabilities": "probabilities of classes",
    "places": "probabilities of tokens",
}


def describe(x: Any) -> str:
    """What a value is, in the words of a message."""
    if isinstance(x, Scheduled):
        return "a schedule"
    if isinstance(x, Bundle):
        return "a tuple" if x.kind.startswith("(") else "a row of features"
    if isinstance(x, Forwarded) and x.head is not None:
        return "a head of a model"
    if isinstance(x, Scope):
        return f"a {x.kind}" if x.kind in ("task", "stage") else "an imported spec"
    if isinstance(x, Value):
        return _KINDS.get(x.kind, f"a {x.kind}")
    named: dict[type, str] = {
        Group: "a list", Row: "a row of features", LayerMap: "a layer map", Match: "a match", Length: "a length",
        ModelDeclaration: "a model", Forwarded: "a model on an input", DataDeclaration: "a data set",
        tuple: "a list", str: "a string",
        bool: "a truth value", int: "a number", float: "a number", type(None): "none", Layers: "layers of a model",
        Projector: "a projection",
    }  # fmt: skip
    return next((words for kind, words in named.items() if isinstance(x, kind)), type(x).__name__)


LATER = frozenset({"generate"})
"""Functions of the language whose meaning is still to come."""


def wrong_place(name: str) -> str:
    """Where a name of the language belongs; empty where it is none. For messages about names that stand elsewhere."""
    places = (
        (OPERATIONS, f"`{name}` is an operation: write `{name}(teacher.… -> student.…)`"),
        (TRANSFORMS, f"`{name}` makes a value of others: write `{name}(teacher.…)`"),
        (TEMPERATURES, f"`{name}` is a temperature: write `T={name}(4)`"),
        (SCHEDULES, f"`{name}` is a weight that changes with training: write `{name}(1 -> 0) * term`"),
        (MODELS, f"`{name}` is a model source: write `teacher NAME = {name}(…)` or `student NAME = {name}(…)`"),
        (HEADS, f"`{name}` is a head: write `student NAME = hf(…) {{ head NAME = {name}(…) }}`"),
        (DATA, f"`{name}` is a data source: write `data NAME = {name}(…)`"),
        (OPTIMIZERS, f"`{name}` is an optimizer: write `optimizer = {name}(…)` in `train {{ }}`"),
        (PROJECTIONS, f"`{name}` is a projection: write `x via {name}`"),
        (RATES, f"`{name}` is a schedule of the learning rate: write `schedule = {name}(…)` in `train {{ }}`"),
    )
    return next((words for registry, words in places if name in registry), "")


def is_constant(x: Any) -> bool:
    """Whether a value is a plain one: a number, a string, true, false, none, or a list of them."""
    return all(map(is_constant, x)) if isinstance(x, tuple) else x is None or isinstance(x, int | float | str)


def is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def are_layers(x: Any) -> bool:
    return isinstance(x, tuple) and bool(x) and all(isinstance(i, int) and not isinstance(i, bool) for i in x)
