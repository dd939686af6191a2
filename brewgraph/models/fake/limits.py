"""What a model can be called with: the arguments of its forward, and how many tokens it has positions for."""

from __future__ import annotations

import inspect

from torch import nn

from brewgraph.models.heads import trunk_of


def accepted(model: nn.Module) -> tuple[frozenset[str], bool, frozenset[str]]:
    """Names that a model's forward takes, whether it takes any other (and names none), and those it needs."""
    trunk = trunk_of(model)
    found = inspect.signature(trunk.forward).parameters.values()
    names = frozenset(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    rest = any(p.kind is p.VAR_KEYWORD for p in found) and not names
    required = frozenset(p.name for p in found if p.name in names and p.default is p.empty)
    main = getattr(trunk, "main_input_name", None)
    if main in names:
        required |= {main}  # transformers gives it a default, and then fails in words of its own
    return names, rest, required


def positions(model: nn.Module) -> int | None:
    """How many tokens a model has position embeddings for; None where it has no table of them.

    Works without weights.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in ("position_embeddings", "wpe"):
            offset = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa counts from behind its padding
            return part.num_embeddings - offset
    return None
