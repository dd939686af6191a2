"""What a recipe asks of its models and data: features, labels that heads learn from, columns, words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from brewgraph.recipe import values as v
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import LabelType
from brewgraph.recipe.recipe import Recipe

OWN_COLUMNS = frozenset({"labels", "start", "end", "weights"})
"""Column names with a fixed meaning in every data set."""


def takes(recipe: Recipe) -> Iterator[v.Take]:
    """Every feature that the equations use; whole rows while their length is unknown."""
    yield from recipe.open
    yield from v.takes_in(*recipe.values())


def _parts(recipe: Recipe) -> Iterator[v.Value]:
    return (part for value in recipe.values() for part in v.walk(value))


def features_used(recipe: Recipe) -> Mapping[str, frozenset[Feature]]:
    """The features that the equations use, per model; a student's include those of its average."""
    features_of: dict[str, set[Feature]] = {name: set() for name in recipe.models}
    for take in takes(recipe):
        features_of[take.model].add(take.feature)
        if student := recipe.models[take.model].source.averaged:
            features_of[student].add(take.feature)
    return {name: frozenset(features) for name, features in features_of.items()}


def data_used(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """The data sets that each model runs on, in the order of the spec."""
    data_of: dict[str, set[str]] = {name: set() for name in recipe.models}
    for take in takes(recipe):
        data_of[take.model].add(take.data)
    return {name: tuple(d for d in recipe.data if d in used) for name, used in data_of.items()}


@dataclass(frozen=True)
class Lesson:
    """What a head learns from: the type of the labels, and the data sets that they come from."""

    label_type: LabelType
    data: str


def lessons(recipe: Recipe) -> Mapping[tuple[str, str | None], tuple[Lesson, ...]]:
    """What each head learns: the labels it is matched with, else what a model that it is matched with learns.

    Keys are a model and its head, None for a model with a single head.
    """
    lessons_of: dict[tuple[str, str | None], dict[Lesson, None]] = {}
    pairs: list[tuple[tuple[str, str | None], tuple[str, str | None]]] = []
    for apply in (x for x in _parts(recipe) if isinstance(x, v.Apply)):
        left, right = _heads(apply.source), _heads(apply.target)
        for column in (c for c in v.walk(apply.source) if isinstance(c, v.Column)):
            if column.kind in ("labels", "targets"):
                lesson = Lesson(recipe.data[column.data].source.label_type, column.data)
                for head in right:
                    lessons_of.setdefault(head, {})[lesson] = None
        pairs += [(a, b) for a in left for b in right]
    for _ in pairs:  # what one learns, the other is compared by: a chain is no longer than there are pairs
        before = sum(map(len, lessons_of.values()))
        for one, other in pairs:
            for a, b in ((one, other), (other, one)):
                if b in lessons_of and a not in lessons_of:
                    lessons_of[a] = dict(lessons_of[b])
        if sum(map(len, lessons_of.values())) == before:
            break
    return {head: tuple(learnt) for head, learnt in lessons_of.items()}


def partners(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """For each model the models whose logits are compared with its own, in the order of the equations."""
    partners_of: dict[str, dict[str, None]] = {}
    for apply in (x for x in _parts(recipe) if isinstance(x, v.Apply)):
        for left, _ in _heads(apply.source):
            for right, _ in _heads(apply.target):
                partners_of.setdefault(left, {})[right] = None
                partners_of.setdefault(right, {})[left] = None
    return {name: tuple(others) for name, others in partners_of.items()}


def _heads(x: v.Value) -> list[tuple[str, str | None]]:
    names = ("logits", "start", "end")
    return [(t.model, t.feature.head) for t in v.takes_in(x) if t.feature.name in names]


def columns_used(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """The columns that each data set must keep: those in equations and those for inputs of models."""
    columns_of: dict[str, set[str]] = {name: set() for name in recipe.data}
    for part in _parts(recipe):
        if isinstance(part, v.Column) and part.column not in OWN_COLUMNS:
            columns_of[part.data].add(part.column)
    for model, data in data_used(recipe).items():
        for name in data:
            columns_of[name] |= set(recipe.models[model].source.forward_columns.values())
    return {name: tuple(sorted(columns)) for name, columns in columns_of.items()}


def words_used(recipe: Recipe) -> frozenset[str]:
    """The data sets whose words are used."""
    data: set[str] = set()
    for part in _parts(recipe):
        if isinstance(part, v.Transform) and part.declared.on_words:
            data |= {x.data for x in v.walk(part) if isinstance(x, v.Take | v.Column)}
    return frozenset(data)
