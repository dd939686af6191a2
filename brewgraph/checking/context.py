"""What every check of a spec looks at, and where its diagnostics go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from brewgraph.diagnostics import Collector
from brewgraph.facts.models import FactsBook, UnbuiltModelFacts
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration


class CheckContext(NamedTuple):
    """The one argument of a check."""

    recipe: Recipe
    facts: FactsBook
    collector: Collector

    def models(self) -> Iterator[tuple[ModelDeclaration, UnbuiltModelFacts]]:
        """Every model whose facts are known."""
        for model in self.recipe.models.values():
            if (facts := self.facts(model)) is not None:
                yield model, facts

    def readers(self) -> Iterator[tuple[ModelDeclaration, UnbuiltModelFacts, DataDeclaration]]:
        """Every model whose facts are known, with each data set that it reads."""
        for model, facts in self.models():
            for name in self.facts.data.get(model.name, ()):
                yield model, facts, self.recipe.data[name]
