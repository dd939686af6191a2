"""The functions of one value that belong to the language itself, declared as transforms are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brewgraph.ops.registry import KINDS, DeclaredTransform


def _declare(name: str, text: str, takes: Mapping[str, str], function: Any, **flags: Any) -> DeclaredTransform:
    """`text` says what it is for, `takes` maps the kind of its value to that of its result."""
    kinds: dict[tuple[str, ...], str] = {(kind,): result for kind, result in takes.items()}
    common: dict[str, Any] = {"options": (), "text": "", "source": "", "shape": None, "needs_layout": False, **flags}
    return DeclaredTransform(name=name, module=__name__, function=function, summary=text, takes=kinds, **common)


def _pick_words(x: Any, *, words: Any) -> Any:
    """(B, L, …) to (B, W, …): what stands at the first token of each word; for labels -100 where there is none."""
    import torch

    picked = x[torch.arange(len(x), device=x.device)[:, None], words.clamp_min(0)]
    return picked if x.is_floating_point() else torch.where(words >= 0, picked, -100)


_ALONE = (
    _declare(
        "stop",
        "a value without its gradient: `stop(x)`",
        {k: k for k in KINDS if k not in ("labels", "targets", "number", "integer", "schedule", "temperature")},
        lambda x: x.detach(),
        stops=True,
    ),
    _declare(
        "words",
        "one value per word, its first token's: `words(bert.hidden[4])`",
        {k: k for k in ("hidden", "logits", "tensor", "labels")},
        _pick_words,
        on_words=True,
    ),
    _declare(
        "token_mean",
        "the mean over the tokens of each example: `token_mean(bert.hidden[4])`; mask=none: padding counts",
        {"hidden": "vector", "values": "values", "tensor": "vector"},
        lambda x, *, layout: layout.mean_over_tokens(x),
        needs_layout=True,
        mean="tokens",
    ),
    # without a function: a graph has a node of its own for it, since a program divides by what the global batch holds
    _declare(
        "batch_mean",
        'the mean over a batch of what `reduce="none"` left: `batch_mean(x)`',
        {"values": "loss"},
        None,
        mean="batch",
    ),
)
ALONE = {x.name: x for x in _ALONE}
"""Those that a spec may call."""
BUILT_IN = {**ALONE, "cut": _declare("cut", "the first entries of an axis", {}, lambda x, *, to: x[..., : int(to)])}
"""These, and what graphs put in by themselves."""
