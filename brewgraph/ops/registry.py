"""How an operation is declared: one decorated function says all there is to know about it.

The check reads its kinds, the docs its words, the runtime its maths. Nothing here, and nothing at the top of a module
in this folder, imports torch: the maths does when it is called.

Shape suffixes of tensor names: B examples, L tokens, H width, C classes, N heads; X any leading axes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

UNITS = {
    "example": "one value per example",
    "token": "one value per token; padding is masked",
    "pair": "one value per pair of tokens of an example; pairs with padding are masked",
    "label": "one value per label; -100 is masked",
    "position": "one value per example, or per token where the logits are per token",
}
"""What a loss is a mean over. An operation returns one value per unit; the program masks, sums and divides."""

KINDS = {
    "logits": "scores over classes: (batch, classes) or (batch, length, classes)",
    "positions": "scores over the tokens of an example: (batch, length)",
    "labels": "class indices: (batch) or (batch, length)",
    "hidden": "hidden states: (batch, length, width)",
    "attention": "attention probabilities: (batch, heads, length, length)",
    "scores": "attention scores before mask and softmax: (batch, heads, length, length)",
    "states": "queries, keys or values: (batch, heads, length, head size)",
    "vector": "one vector per example: (batch, width)",
    "tensor": "what a tap gives, its shape known from the model",
    "loss": "one scalar",
    "number": "a number",
    "schedule": "a number that changes with training",
}
"""Kinds of values in a spec."""


@dataclass(frozen=True)
class Option:
    """A keyword argument of an operation."""

    name: str
    default: Any
    kind: str
    text: str


@dataclass(frozen=True)
class Operation:
    """A loss: `takes` maps (kind from, kind to) to its unit; `same` names the axes that must agree on both sides."""

    name: str
    function: Callable[..., Any]
    takes: Mapping[tuple[str, str], str]
    same: frozenset[str]
    options: tuple[Option, ...]
    summary: str
    text: str
    source: str
    needs_layout: bool

    def unit(self, source: str, target: str) -> str | None:
        """The unit for these kinds, or None where the operation does not take them."""
        return self.takes.get((source, target))


OPERATIONS: dict[str, Operation] = {}


def operation(
    *, takes: Mapping[str, str], same: tuple[str, ...] = (), source: str, **options: tuple[str, str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a loss. `takes`: `{"hidden -> hidden": "token"}`; `source`: paper and equation; `options`: kind and words
    of each keyword argument (its default stands in the signature).

    The function gets `(from, to, *, options…)` and, where it names it, `layout`; it returns one value per unit.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.rstrip("_")
        signature = inspect.signature(function)
        known = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "layout"]
        assert {p.name for p in known} == set(options), f"{name}: options and signature differ"
        pairs: dict[tuple[str, str], str] = {}
        for pair, unit in takes.items():
            left, right = pair.split(" -> ")
            assert {left, right} <= KINDS.keys(), f"{name}: unknown kind in {pair}"
            assert unit in UNITS, f"{name}: unknown unit {unit}"
            pairs[left, right] = unit
        summary, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n")
        assert summary, f"{name}: a docstring is needed"
        OPERATIONS[name] = Operation(
            name=name,
            function=function,
            takes=pairs,
            same=frozenset(same),
            options=tuple(Option(p.name, p.default, *options[p.name]) for p in known),
            summary=summary,
            text=rest.strip(),
            source=source,
            needs_layout="layout" in signature.parameters,
        )
        return function

    return declare
