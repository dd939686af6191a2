"""Tokens that heads rely on, and whether the tokenizer writes them: at the end of a text, and in place of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.checking.agreement import data_facts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import SPANS

if TYPE_CHECKING:
    from brewgraph.facts.book import CheckContext
    from brewgraph.facts.model import UnbuiltModelFacts


def check_ends(context: CheckContext) -> None:
    """B340: classifiers of encoder-decoders pick the state at `eos_token_id`, and stop where a text has none."""
    recipe, facts, collector = context
    for model in recipe.models.values():
        known = facts(model)
        read = [recipe.data[name].source for name in facts.data.get(model.name, ())]
        if known is None or all(source.holds_tensors for source in read):
            continue
        end = known.outline.reads_end
        if end is None:
            continue
        try:
            behind = _written_behind(known)
        except SourceFault:
            continue  # said where the model is declared
        if end not in behind:
            where = f"`{model.name}` classifies at token id {end} (`eos_token_id`)"
            message = f"{where}, but its tokenizer never appends that token"
            help = "name a tokenizer that ends texts with a token: tokenizer=…"
            if behind:
                help = f"name the one that it ends texts with: eos_token_id={behind[-1]}"
            collector.add("B340", message, model.place("eos_token_id"), help=help)


def check_nulls(context: CheckContext) -> None:
    """W320: that a question has no answer is learnt at a token of the question where the tokenizer adds none."""
    recipe, facts, collector = context
    student = recipe.student
    known = facts(student)
    for name in facts.data.get(student.name, ()) if known is not None else ():
        source = recipe.data[name].source
        if source.label_type != SPANS or source.holds_tensors:
            continue
        try:
            lost = data_facts(source, facts.folder, facts.memory).unanswerable.get("train", 0)
            marked = not lost or known.token_facts.null  # type: ignore[union-attr]
        except SourceFault:
            continue  # said where data or model are declared
        if not marked:
            message = (
                f"{lost} questions of `{name}` have no answer, which `{student.name}` learns at their first token: "
                "its tokenizer adds neither CLS nor BOS"
            )
            help = "use a tokenizer that begins or ends texts with such a token, and a model that reads both directions"
            collector.add("W320", message, student.span, help=help)


def _written_behind(known: UnbuiltModelFacts) -> tuple[int, ...]:
    """The ids that a model's tokenizer puts behind every text; one that the data trains does what BERT's does."""
    if known.tokens.name is not None:
        return known.token_facts.behind
    from brewgraph.data.encoding.encode import train_wordpiece
    from brewgraph.models.tokenization import ids_behind

    return ids_behind(train_wordpiece(["a"], 8))
