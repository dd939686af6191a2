"""Short specs for tests: a teacher, a student and data, and what a test adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import Collector, Diagnostic, SourceFault, SpecError
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.features import Feature, Shape
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.source import Source
from brewgraph.syntax.parser import parse

HEAD = """\
teacher big = hf("big")
student tiny = hf(model_type="bert")
data d = files(train="train.jsonl")
"""
LOSS = "loss = ce(d.labels -> tiny.logits)\n"


def spec(body: str, loss: str = LOSS) -> str:
    """A whole spec with these lines from line 4 on; the loss is the last line."""
    return f"{HEAD}{body}\n{loss}"


def names(body: str, loss: str = LOSS, **params: Any) -> Recipe:
    """The recipe of `spec(body)`, checked without any model."""
    return check_names(Source(spec(body, loss)), params)


def faults(text: str, **params: Any) -> tuple[Diagnostic, ...]:
    """Every fault of a whole spec, checked without any model; empty where it is sound."""
    try:
        check_names(Source(text), params)
    except SpecError as error:
        return error.diagnostics
    return ()


def fault(body: str, loss: str = LOSS, **params: Any) -> Diagnostic:
    """The one fault of `spec(body)`."""
    found = faults(spec(body, loss), **params)
    assert len(found) == 1, [f"{d.code} {d.message}" for d in found]
    return found[0]


@dataclass(frozen=True)
class FakeFacts:
    """What a configuration would tell: so many layers of such a width, and no torch behind it."""

    layers: int
    width: int
    classes: int = 3
    tokenizer: str = "one"
    labels: tuple[str, ...] = ()

    def vocabulary(self, head: str | None) -> int | None:
        return None

    def row_length(self, name: str) -> int:
        return self.layers + (name == "hidden")

    def paths(self, pattern: str) -> tuple[str, ...]:
        if "layer" not in pattern:
            raise SourceFault("B301", f"there is no module `{pattern}`", help="did you mean `layer`?")
        return tuple(pattern.replace("*", str(i)) for i in range(self.layers)) if "*" in pattern else (pattern,)

    def calls(self, paths: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        return tuple((path, call) for path in paths for call in range(3 if "shared" in path else 1))

    def shape(self, feature: Feature) -> Shape:
        if feature.name == "logits":
            return ("batch", self.classes)
        if feature.name in ("attention", "scores"):
            return ("batch", 4, "length", "length")
        return ("batch", self.width) if feature.name == "pooled" else ("batch", "length", self.width)


FACTS = {"big": FakeFacts(12, 768), "tiny": FakeFacts(3, 384)}


def known(body: str, loss: str = LOSS, facts: Mapping[str, FakeFacts] = FACTS) -> Recipe:
    """The recipe of `spec(body)` where the number of layers is known: 12 of the teacher, 3 of the student."""
    source, collector = Source(spec(body, loss)), Collector()

    def facts_of(model: ModelDeclaration) -> FakeFacts | None:
        return facts.get(model.name)

    recipe = elaborate(parse(source, collector), source, {}, collector, facts_of)
    collector.raise_errors()
    assert recipe is not None
    return recipe


def known_fault(body: str) -> Diagnostic:
    """The one fault of `spec(body)` that the number of layers shows."""
    with pytest.raises(SpecError) as error:
        known(body)
    (found,) = error.value.diagnostics
    return found
