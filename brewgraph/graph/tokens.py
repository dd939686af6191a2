"""Whether values that meet are computed on the same examples, and cut into the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brewgraph.diagnostics import Label
from brewgraph.recipe import values as v
from brewgraph.recipe.features import Shape
from brewgraph.recipe.sources import Hf

if TYPE_CHECKING:
    from brewgraph.graph.build import Builder

TOKENWISE = ("token", "pair")


def check_tokens(builder: Builder, x: v.Apply, unit: str, shapes: tuple[Shape | None, Shape | None]) -> None:
    """Both sides are computed on the same examples, and token by token only where their tokens are the same."""
    found = [[t for t in v.walk(side) if isinstance(t, v.Take)] for side in (x.source, x.target)]
    if _meet_others(builder, x):
        return
    on_words = ["words" in (shape or ()) for shape in shapes]
    if unit in (*TOKENWISE, "word") and None not in shapes and on_words[0] != on_words[1]:
        labels = (Label(x.source.span, "one per word" if on_words[0] else "one per token"),)
        note = "one per word" if on_words[1] else "one per token"
        message = "words are compared with words, and tokens with tokens"
        builder.collector.add(
            "B214", message, x.target.span, note=note, labels=labels, help="write `words(…)` on both sides"
        )
        return
    if unit not in TOKENWISE or on_words[1] or not found[0] or not found[1] or found[0][0].model == found[1][0].model:
        return
    if stranger(builder, [found[0][0], found[1][0]]) is None:
        return
    learner = found[1][0].model
    shared = f"give the student the teacher's tokenizer: tokenizer={found[0][0].model}; "
    help = (
        f"{shared if may_share(builder, learner) else ''}match words: "
        f"`words({x.source.span.text}) -> words({x.target.span.text})`; "
        "or match what has no tokens (`pooled`, `logits`)"
    )
    labels = (Label(x.source.span, "other tokens"),)
    message = "the two models cut the text into different tokens"
    builder.collector.add("B214", message, x.target.span, labels=labels, help=help)


def _meet_others(builder: Builder, x: v.Apply) -> bool:
    """B220 where a loss reads two data sets: their rows are others, and those of one file in another order, so that
    nothing that is compared, joined or told apart within a batch belongs together.
    """
    left, right = ([y for y in v.walk(side) if isinstance(y, v.Take | v.Column)] for side in (x.source, x.target))
    first = (*left, *right)[0] if left or right else None
    other = next((y for y in (*left, *right) if first is not None and y.data != first.data), None)
    if first is None or other is None:
        return False
    sides = [list(dict.fromkeys(y.data for y in side)) for side in (left, right)]
    if [len(side) for side in sides] == [1, 1]:
        message = f"the left side is computed on `{first.data}`, the right one on `{other.data}`"
        place, label = x.target.span, Label(x.source.span, "other examples")
    else:
        message = f"values of `{first.data}` and of `{other.data}` are joined, and are of other examples"
        place, label = other.span, Label(first.span, f"examples of `{first.data}`")
    builder.collector.add("B220", message, place, labels=(label,), help="name one input for all: `model(data).…`")
    return True


def check_joined(builder: Builder, x: v.Combine) -> None:
    """Values along tokens are joined where the tokens are the same."""
    takes = [t for t in v.walk(x) if isinstance(t, v.Take)]
    other = stranger(builder, takes) if takes else None
    if other is None:
        return
    lengths = [f"(batch, length@{take.model}, …)" for take in (takes[0], other)]
    message = f"`{takes[0].model}` and `{other.model}` cut the text into different tokens"
    labels = (Label(takes[0].span, lengths[0]),) if takes[0].span != other.span else ()
    joined = dict.fromkeys(f"`words({take.span.text})`" for take in (takes[0], other))
    help = f"join words: {', '.join(joined)}"
    if any(may_share(builder, take.model) for take in (takes[0], other)):
        help += "; or give both one tokenizer"
    builder.collector.add("B214", message, other.span, note=lengths[1], labels=labels, help=help)


def stranger(builder: Builder, takes: Sequence[v.Take]) -> v.Take | None:
    """The first feature whose model cuts texts into other tokens than that of the first one; None while unknown."""
    known = {take.model: builder.facts(builder.recipe.models[take.model]) for take in takes}
    tokens = {model: facts.tokenizer for model, facts in known.items() if facts is not None and facts.tokenizer}
    first = next(iter(tokens.values()), "")
    return next((take for take in takes if tokens.get(take.model, first) != first), None)


def may_share(builder: Builder, model: str) -> bool:
    """Whether a model may get the tokenizer of another one: pretrained weights only know the tokens of their own."""
    source = builder.recipe.models[model].source
    return isinstance(source, Hf) and (source.name is None or not source.pretrained)
