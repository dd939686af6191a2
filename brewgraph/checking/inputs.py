"""What models are called with: the arguments that they need, as many tokens as they have positions, padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.recipe.label_types import TAGS
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.sources import Batches, Hf
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration

if TYPE_CHECKING:
    from brewgraph.facts.book import CheckContext, FactsBook
    from brewgraph.facts.model import UnbuiltModelFacts


def _meetings(
    recipe: Recipe, facts: FactsBook
) -> Iterator[tuple[ModelDeclaration, UnbuiltModelFacts, DataDeclaration]]:
    """Every model of which something is known, with each data set that it runs on."""
    for model in recipe.models.values():
        known = facts(model)
        for name in facts.data.get(model.name, ()) if known is not None else ():
            assert known is not None
            yield model, known, recipe.data[name]


def check_built(context: CheckContext) -> None:
    """A model can be built from its configuration, also where no shape of it was asked for."""
    recipe, facts, _ = context
    for model in recipe.models.values():
        known = facts(model) if facts.data.get(model.name) else None
        try:
            _ = known.call if known is not None else None
        except SourceFault as fault:
            facts.report(model, fault)
            facts.known[model.name] = None  # to what is checked from here on


def check_lengths(context: CheckContext) -> None:
    """No model is given more tokens than it has positions."""
    recipe, facts, collector = context
    for model, known, data in _meetings(recipe, facts):
        wanted = data.source.max_length
        limit = known.positions if wanted else None
        if wanted and limit is not None and limit < wanted:
            message = f"`{model.name}` has {limit} positions, fewer than the {wanted} tokens of an example"
            help = f"max_length={limit}, or a model with more positions"
            collector.add("B320", message, data.place("max_length"), help=help)


def check_inputs(context: CheckContext) -> None:
    """Every argument that a model's forward needs comes from its tokenizer, the data, or `inputs`; and it takes those
    that `inputs` names.
    """
    recipe, facts, collector = context
    for model, known, data in _meetings(recipe, facts):
        if not isinstance(model.source, Hf):
            continue
        call = known.call
        unknown = next((name for name in model.source.inputs if name not in call.names and not call.rest), None)
        if unknown is not None:
            message = f"the forward of `{model.name}` takes no `{unknown}`"
            help = suggest(unknown, call.names) or f"it takes {listing(sorted(call.names)[:8])}"
            collector.add("B338", message, model.place("inputs"), help=help)
            continue
        required, given = call.needs, set(model.source.inputs)
        if isinstance(data.source, Batches):
            from brewgraph.data.sources.tensor_batches import batch_fields

            try:
                given |= batch_fields(data.source, recipe.source.folder, model.name)
            except SourceFault:
                continue  # said already, where the data was looked at
            required -= {"input_ids"} if "inputs_embeds" in given else set()
        elif required - given - _FROM_EVERY_TOKENIZER:
            given |= known.token_facts.inputs
        else:
            continue
        missing = sorted(required - given)
        if missing:
            needed = f"the forward of `{model.name}` needs {listing(missing)}"
            message = f"{needed}, which neither its tokenizer nor `{data.name}` gives"
            collector.add("B337", message, model.span, help=_remedy(known, missing[0]))


_FROM_EVERY_TOKENIZER = frozenset({"input_ids", "attention_mask"})


def _remedy(known: UnbuiltModelFacts, missing: str) -> str:
    help = f"name a column: inputs={{{missing}: column}}"
    if missing == "decoder_input_ids" and known.outline.classifies_tokens:
        help += '; or run its encoder alone: task="token-classification"'
    return help


def check_padding(context: CheckContext) -> None:
    """Every text has a tokenizer. Rows of unequal length are padded, with a token that it has for that, or for the end
    of a text.
    """
    recipe, facts, collector = context
    for model, known, data in _meetings(recipe, facts):
        if known.tokens.name is None or isinstance(data.source, Batches):
            continue
        try:
            pads = known.token_facts.pads
        except SourceFault as fault:
            facts.report(model, fault)
            continue
        if not pads:
            message = f"the tokenizer of `{model.name}` has no token to pad the batches of `{data.name}` with"
            help = "set its `pad_token` and save it again with `save_pretrained`, or name another: tokenizer=…"
            collector.add("B339", message, model.place("tokenizer"), help=help)


def check_words(context: CheckContext) -> None:
    """A tokenizer tells given words from each other: of `the cat` it must not make `thecat`."""
    recipe, facts, collector = context
    for model, known, data in _meetings(recipe, facts):
        if known.tokens.name is None or data.source.label_type != TAGS:
            continue
        try:
            joins = known.token_facts.joins
        except SourceFault:
            continue  # said already, where padding was looked at
        if joins:
            message = f"the tokenizer of `{model.name}` puts no space between the words of `{data.name}`"
            help = "load it with `add_prefix_space=True`, save it, and name that folder: tokenizer=…"
            collector.add("W307", message, model.place("tokenizer"), help=help)


def check_own_tokens(context: CheckContext) -> None:
    """Pretrained weights know the ids of their own tokenizer; those of another one mean other words to them."""
    recipe, facts, collector = context
    for model in recipe.models.values():
        known = facts(model) if isinstance(model.source, Hf) else None
        if known is not None and not known.reads_its_own_tokens:
            message = f"the weights of `{model.name}` were trained on the tokens of another tokenizer than this"
            help = "leave `tokenizer` out, or let it begin at random: pretrained=false"
            collector.add("W306", message, model.place("tokenizer"), help=help)
