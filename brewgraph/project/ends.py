"""Heads that read the state at the token that ends a text: whether the tokenizer writes that token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.diagnostics import Collector, SourceFault
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.sources import Batches

if TYPE_CHECKING:
    from brewgraph.models.blueprint import Tokens
    from brewgraph.project.facts import FactsBook


def check_ends(recipe: Recipe, facts: FactsBook, collector: Collector) -> None:
    """B340: classifiers of encoder-decoders pick the state at `eos_token_id`, and stop where a text has none."""
    for model in recipe.models.values():
        known = facts(model)
        read = [recipe.data[name].source for name in facts.data.get(model.name, ())]
        if known is None or all(isinstance(source, Batches) for source in read):
            continue
        blueprint = known.blueprint
        end = getattr(blueprint.config, "eos_token_id", None)
        encodes = getattr(blueprint.config, "is_encoder_decoder", False)
        if blueprint.auto_class != "AutoModelForSequenceClassification" or not encodes or not isinstance(end, int):
            continue
        try:
            written = _special_tokens(blueprint.tokens)
        except SourceFault:
            continue  # said where the model is declared
        if end not in written:
            message = f"`{model.name}` reads its classes at the token {end}, with which its tokenizer ends no text"
            help = f"name the one that it ends texts with: eos_token_id={written[-1]}"
            if not written:
                help = "name a tokenizer that ends texts with a token: tokenizer=…"
            collector.add("B340", message, model.place("eos_token_id"), help=help)


def _special_tokens(tokens: Tokens) -> list[int]:
    """The ids that a tokenizer puts around every text, in their order."""
    from brewgraph.data.encoding import train_wordpiece

    tokenizer = train_wordpiece(["a"], 8) if tokens.name is None else tokens.load()
    return list(tokenizer("")["input_ids"])
