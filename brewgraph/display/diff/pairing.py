"""Which things of two specs belong together: models, data, stages, tasks and terms, by what they are before names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from brewgraph.display.diff.alignment import Difference
from brewgraph.display.lines import one_line
from brewgraph.recipe.settings.sources import Join, Settings, setting_text

T = TypeVar("T")


@dataclass(frozen=True)
class Paired(Generic[T]):
    """What belongs together, and what is left of the first (`removed`) and of the second (`added`)."""

    pairs: tuple[tuple[T, T], ...]
    removed: tuple[T, ...]
    added: tuple[T, ...]


def pair(ones: Sequence[T], others: Sequence[T], likeness: Callable[[T, T], float], least: float) -> Paired[T]:
    """Pairs by likeness, the most alike first, none below `least`; of equal ones the first in both orders."""
    scores = [(-likeness(a, b), abs(i - j), i, j) for i, a in enumerate(ones) for j, b in enumerate(others)]
    mine: dict[int, int] = {}
    theirs: set[int] = set()
    for score, _, i, j in sorted(scores):
        if -score >= least and i not in mine and j not in theirs:
            mine[i] = j
            theirs.add(j)
    return Paired(
        tuple((ones[i], others[mine[i]]) for i in sorted(mine)),
        tuple(x for i, x in enumerate(ones) if i not in mine),
        tuple(x for j, x in enumerate(others) if j not in theirs),
    )


@dataclass(frozen=True)
class Pairs:
    """`names` maps names of the second spec to those of the first for the same model or data set."""

    names: dict[str, str]
    removed: tuple[str, ...]
    added: tuple[str, ...]


def pair_declarations(
    ones: Mapping[str, Any], others: Mapping[str, Any], identities: Mapping[str, str], theirs: Mapping[str, str]
) -> Pairs:
    """Models, or data sets, of two specs: what is the same, then what has the same name, then what is alike."""

    def likeness(a: str, b: str) -> float:
        one, other = ones[a], others[b]
        if getattr(one, "role", "") != getattr(other, "role", ""):
            return -1.0
        mine, yours = _fields(one.source), _fields(other.source)
        share = sum(mine.get(key) == value for key, value in yours.items()) / max(1, len(yours))
        alike = share if type(one.source) is type(other.source) else 0.0
        return 2 * (identities[a] == theirs[b]) + (a == b) + alike

    found = pair(list(ones), list(others), likeness, 0.0)
    return Pairs({b: a for a, b in found.pairs}, found.removed, found.added)


def _fields(source: Any) -> dict[str, Any]:
    """What a source says, its keyword arguments spelled out."""
    found: dict[str, Any] = {}
    for name in type(source).model_fields:
        value = getattr(source, name)
        found |= {f"{name}.{k}": x for k, x in value.items()} if isinstance(value, dict) else {name: value}
    return found


def source_differences(one: Any, other: Any, names: Mapping[str, str]) -> Iterator[Difference]:
    """In what two declarations differ; where the second names a model, `names` say what it is called in the first."""
    a, b = one.source, other.source
    if type(a) is not type(b):
        yield Difference("source", *(one_line(x.span.text) for x in (one, other)))
        return
    mine, theirs = _fields(a), _fields(b)
    for name in dict.fromkeys([*mine, *theirs]):
        x, y = mine.get(name), theirs.get(name)
        if name == "init" and y is not None:
            y = y.model_copy(update={"model": names.get(y.model, y.model)})
        if name in ("tokenizer", "model") and isinstance(y, str):
            y = names.get(y, y)
        yield from value_differences(name.removeprefix("config."), x, y)
    for head in dict.fromkeys([*getattr(one, "heads", {}), *getattr(other, "heads", {})]):
        yield from value_differences(f"head {head}", one.heads.get(head), other.heads.get(head))


def value_differences(name: str, x: Any, y: Any) -> Iterator[Difference]:
    """In what two values of a setting differ, field by field where they are of one kind."""
    if x == y and type(x) is type(y):
        return
    if isinstance(x, Settings) and type(x) is type(y) and not isinstance(x, Join):
        for key in type(x).model_fields:
            yield from value_differences(f"{name}.{key}", getattr(x, key), getattr(y, key))
    elif name == "parts" and len(x) == len(y):
        for i, (one, other) in enumerate(zip(x, y, strict=True)):
            yield from value_differences(f"parts[{i}]", one, other)
    elif x != y:
        yield Difference(name, *("none" if z is None else setting_text(z) for z in (x, y)))
    else:
        yield Difference(name, *(f"{type(z).__name__.lower()} {setting_text(z)}" for z in (x, y)))
