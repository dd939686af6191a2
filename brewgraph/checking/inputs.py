"""What models are called with: arguments, as many tokens as there are positions, padding, tokens that heads rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.recipe.label_types import SPANS, TAGS
from brewgraph.recipe.settings.data_sources import Batches

if TYPE_CHECKING:
    from brewgraph.checking.context import CheckContext
    from brewgraph.facts.models import UnbuiltModelFacts


def check_built(context: CheckContext) -> None:
    """Every model that reads data can be built from its configuration, even if no shape of it was needed so far."""
    for model, facts in context.models():
        try:
            _ = facts.call if context.facts.data.get(model.name) else None
        except SourceFault as fault:
            context.facts.report(model, fault)
            context.facts.models[model.name] = None  # for the checks that follow


def check_lengths(context: CheckContext) -> None:
    """B320: no model gets more tokens than it has positions."""
    for model, facts, data in context.readers():
        wanted = data.source.max_length
        limit = facts.positions if wanted else None
        if wanted and limit is not None and limit < wanted:
            message = f"`{model.name}` has {limit} positions, but examples have up to {wanted} tokens"
            help = f"set max_length={limit}, or use a model with more positions"
            context.collector.add("B320", message, data.place("max_length"), help=help)


def check_inputs(context: CheckContext) -> None:
    """B337, B338: the tokenizer, the data or `inputs` supply every argument that a model's forward needs, and the
    forward takes every argument that `inputs` names.
    """
    for model, facts, data in context.readers():
        if not model.source.has_configuration:
            continue
        call = facts.call
        unknown = next(
            (name for name in model.source.forward_columns if name not in call.names and not call.rest), None
        )
        if unknown is not None:
            message = f"the forward of `{model.name}` takes no `{unknown}`"
            help = suggest(unknown, call.names) or f"it takes {listing(sorted(call.names)[:8])}"
            context.collector.add("B338", message, model.place("inputs"), help=help)
            continue
        required, supplied = call.needs, set(model.source.forward_columns)
        if isinstance(data.source, Batches):
            from brewgraph.data.sources.tensor_batches import batch_fields

            try:
                supplied |= batch_fields(data.source, context.recipe.source.folder, model.name)
            except SourceFault:
                continue  # reported with the data
            required -= {"input_ids"} if "inputs_embeds" in supplied else set()
        elif required - supplied - _FROM_EVERY_TOKENIZER:
            supplied |= facts.token_facts.inputs
        else:
            continue
        if missing := sorted(required - supplied):
            needed = f"the forward of `{model.name}` needs {listing(missing)}"
            message = f"{needed}, which neither its tokenizer nor `{data.name}` supplies"
            help = f"name a column: inputs={{{missing[0]}: column}}"
            if missing[0] == "decoder_input_ids" and facts.outline.classifies_tokens:
                help += '; or use its encoder alone: task="token-classification"'
            context.collector.add("B337", message, model.span, help=help)


_FROM_EVERY_TOKENIZER = frozenset({"input_ids", "attention_mask"})


def check_tokenizers(context: CheckContext) -> None:
    """B314, B339, W307: every model that reads text has a tokenizer, with a token to pad batches with, that keeps words
    apart: it must not read `the cat` as `thecat`.
    """
    for model, facts, data in context.readers():
        of_text, of_words = not data.source.holds_tensors, data.source.label_type == TAGS
        if facts.tokens.name is None or not (of_text or of_words):
            continue
        try:
            tokenizer = facts.token_facts
        except SourceFault as fault:
            if of_text:
                context.facts.report(model, fault)
            continue
        if of_text and not tokenizer.pads:
            message = f"the tokenizer of `{model.name}` has no padding token, which the batches of `{data.name}` need"
            help = "set its `pad_token` and save it with `save_pretrained`, or name another tokenizer: tokenizer=…"
            context.collector.add("B339", message, model.place("tokenizer"), help=help)
        if of_words and tokenizer.joins:
            message = f"the tokenizer of `{model.name}` puts no space between the words of `{data.name}`"
            help = "load it with `add_prefix_space=True`, save it, and name that folder: tokenizer=…"
            context.collector.add("W307", message, model.place("tokenizer"), help=help)


def check_own_tokens(context: CheckContext) -> None:
    """W306: pretrained weights read the token ids of the tokenizer that they were trained with."""
    for model, facts in context.models():
        if model.source.has_configuration and not facts.reads_its_own_tokens:
            message = f"the weights of `{model.name}` were trained with another tokenizer"
            help = "remove `tokenizer`, or start from random weights: pretrained=false"
            context.collector.add("W306", message, model.place("tokenizer"), help=help)


def check_ends(context: CheckContext) -> None:
    """B340: classifiers of encoder-decoders pool the state at `eos_token_id`, and fail on a text without that token."""
    for model, facts in context.models():
        read = [context.recipe.data[name].source for name in context.facts.data.get(model.name, ())]
        end = None if all(source.holds_tensors for source in read) else facts.outline.reads_end
        if end is None:
            continue
        try:
            appended = _appended(facts)
        except SourceFault:
            continue  # reported where the model is declared
        if end not in appended:
            where = f"`{model.name}` classifies at token id {end} (`eos_token_id`)"
            message = f"{where}, but its tokenizer never appends that token"
            help = "name a tokenizer that ends texts with a token: tokenizer=…"
            if appended:
                help = f"name the token that it appends: eos_token_id={appended[-1]}"
            context.collector.add("B340", message, model.place("eos_token_id"), help=help)


def _appended(facts: UnbuiltModelFacts) -> tuple[int, ...]:
    """The ids that a model's tokenizer appends to every text; one trained on the data appends what BERT's does."""
    if facts.tokens.name is not None:
        return facts.token_facts.behind
    from brewgraph.data.encoding.encode import train_wordpiece
    from brewgraph.models.tokenization import ids_behind

    return ids_behind(train_wordpiece(["a"], 8))


def check_nulls(context: CheckContext) -> None:
    """W320: "no answer" is learnt at a token of the question if the tokenizer adds no special one."""
    student = context.recipe.student
    for model, facts, data in context.readers():
        if model.name != student.name or data.source.label_type != SPANS or data.source.holds_tensors:
            continue
        known = context.facts.data_facts[data.name]
        unanswerable = known.unanswerable.get("train", 0) if known is not None else 0
        try:
            marked = not unanswerable or facts.token_facts.null
        except SourceFault:
            continue  # reported where the model is declared
        if not marked:
            message = (
                f"{unanswerable} questions of `{data.name}` have no answer, which `{student.name}` learns at their "
                "first token: its tokenizer adds neither CLS nor BOS"
            )
            help = "use a tokenizer that adds such a token at either end, and a model that attends in both directions"
            context.collector.add("W320", message, student.span, help=help)
