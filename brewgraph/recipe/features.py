"""The features of a model, and what is known of a model before weights are loaded. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

ROWS = {
    "hidden": "hidden", "attention": "attention", "scores": "scores",
    "query": "states", "key": "states", "value": "states",
}  # fmt: skip
"""Features that come once per layer and are indexed, with their kinds."""
SINGLES = {"logits": "logits", "start": "positions", "end": "positions", "embeddings": "hidden", "pooled": "vector"}
"""Features that a model has once, with their kinds."""

Shape = tuple[int | str, ...]
"""Sizes, with the symbols `batch` and `length` where they vary: `("batch", "length", 768)`."""


@dataclass(frozen=True)
class Feature:
    """One value of one forward.

    A named feature: `name` is one of `ROWS` (with an `index` from 0) or `SINGLES`. A tap: `name` is `tap`, `path` the
    module, `input` selects its first input instead of its output, `item` an element of a tuple, `call` one of several
    calls. `head` is the head, if the model has several; a tap's path is then relative to it.
    """

    name: str
    index: int | None = None
    path: str | None = None
    input: bool = False
    item: int | None = None
    call: int = 0
    head: str | None = None

    def __str__(self) -> str:
        prefix = f"{self.head}." if self.head else ""
        if self.name != "tap":
            return prefix + (self.name if self.index is None else f"{self.name}[{self.index}]")
        side = "input " if self.input else ""
        again = f" (call {self.call})" if self.call else ""
        return f'@ {side}"{prefix}{self.path}"' + (f"[{self.item}]" if self.item is not None else "") + again


class ModelFacts(Protocol):
    """Facts of a model's configuration. Each method raises `SourceFault` if the model lacks the feature."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty without a head."""

    @property
    def tokenizer(self) -> str:
        """A fingerprint of tokenization: equal if two models share their tokens."""

    def vocabulary(self, head: str | None) -> int | None:
        """The vocabulary size of a head's logits; None if they are not over a vocabulary."""

    def row_length(self, name: str) -> int:
        """How many members the row `hidden`, `attention`, … has (`hidden`: layers + 1)."""

    def paths(self, pattern: str) -> tuple[str, ...]:
        """The module paths that match a tap's `*` pattern, in model order."""

    def calls(self, paths: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The calls of these modules in one forward, numbered from 0; a shared module may have several."""

    def shape(self, feature: Feature) -> Shape:
        """The feature's shape."""
