"""Logits over vocabularies that are compared: cut to what both have where their tokens are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.diagnostics import Label
from brewgraph.graph.tokens import may_share
from brewgraph.recipe import values as v

if TYPE_CHECKING:
    from brewgraph.graph.build import Builder


def common_size(builder: Builder, x: v.Value) -> int | None:
    """As many entries as every vocabulary has whose logits a value compares or joins; None where nothing is cut.

    A vocabulary may hold more places than its tokenizer has tokens, and be compared with one that holds fewer (W305).
    Those of different tokenizers have nothing to do with each other: 0, and B223.
    """
    takes = {(t.model, t.feature.head): t for t in v.walk(x) if isinstance(t, v.Take) and t.feature.name == "logits"}
    sizes: dict[str, int] = {}
    tokens: dict[str, str] = {}
    for (model, head), _ in takes.items():
        known = builder.facts(builder.recipe.models[model])
        size = known.vocabulary(head) if known is not None else None
        if known is not None and size is not None and known.tokenizer:
            sizes[model], tokens[model] = size, known.tokenizer
    if len(sizes) < 2:
        return None
    one, other = sorted(sizes, key=lambda name: sizes[name])[:: len(sizes) - 1]
    places = {t.model: t.span for t in takes.values()}
    stranger = next((name for name in tokens if tokens[name] != tokens[one]), None)
    if stranger is not None:
        message = f"`{one}` and `{stranger}` have tokenizers of their own: one number stands for two tokens"
        labels = (Label(places[one], f"{sizes[one]:,} entries"),)
        help = "match hidden states, `words(…)` on both sides"
        if fresh := next((name for name in (one, stranger) if may_share(builder, name)), None):
            help = f"give both one tokenizer: tokenizer={stranger if fresh == one else one}; or {help}"
        builder.collector.add(
            "B223", message, places[stranger], note=f"{sizes[stranger]:,} entries", labels=labels, help=help
        )
        return 0
    if sizes[one] == sizes[other]:
        return None
    message = f"the vocabularies of `{one}` and `{other}` have {sizes[one]:,} and {sizes[other]:,} entries"
    help = f"one tokenizer fills both: the first {sizes[one]:,} are compared, the others stand for no token"
    builder.collector.add("W305", message, places[other], help=help)
    return sizes[one]
