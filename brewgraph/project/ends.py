"""Heads that read the state at the token that ends a text: whether the tokenizer writes that token there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.diagnostics import Collector, SourceFault
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.sources import Batches

if TYPE_CHECKING:
    from brewgraph.project.facts import FactsBook
    from brewgraph.project.model_facts import BlueprintFacts


def check_ends(recipe: Recipe, facts: FactsBook, collector: Collector) -> None:
    """B340: classifiers of encoder-decoders pick the state at `eos_token_id`, and stop where a text has none."""
    for model in recipe.models.values():
        known = facts(model)
        read = [recipe.data[name].source for name in facts.data.get(model.name, ())]
        if known is None or all(isinstance(source, Batches) for source in read):
            continue
        end = known.outline.reads_end
        if end is None:
            continue
        try:
            behind = _written_behind(known)
        except SourceFault:
            continue  # said where the model is declared
        if end not in behind:
            message = f"`{model.name}` reads its classes at the token {end}, with which its tokenizer ends no text"
            help = "name a tokenizer that ends texts with a token: tokenizer=…"
            if behind:
                help = f"name the one that it ends texts with: eos_token_id={behind[-1]}"
            collector.add("B340", message, model.place("eos_token_id"), help=help)


def _written_behind(known: BlueprintFacts) -> tuple[int, ...]:
    """The ids that a model's tokenizer puts behind every text; one that the data trains does what BERT's does."""
    if known.tokens.name is not None:
        return known.token_facts.behind
    from brewgraph.data.encoding import train_wordpiece
    from brewgraph.models.tokens import ids_behind

    return ids_behind(train_wordpiece(["a"], 8))
