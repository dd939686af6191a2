"""What a spec can take from a model, and what is known about it before weights are loaded. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

ROWS = ("hidden", "attention", "scores", "query", "key", "value")
"""Features that come once per layer and are indexed."""

SINGLES = ("logits", "start", "end", "embeddings", "pooled")
"""Features that a model has once."""

Shape = tuple[int | str, ...]
"""Sizes, with the symbols `batch` and `length` where they vary: `("batch", "length", 768)`."""


@dataclass(frozen=True)
class Feature:
    """One value of one forward.

    Named: `name` is one of `ROWS` (then `index` counts from 0) or `SINGLES`. A tap: `name` is `tap`, `path` that of the
    module, `input` whether its first input is meant instead of its output, `item` the element where that is a tuple,
    `call` which of its calls where a shared module runs several times. `head` is the head that gives a result, where
    the model has several; a tap's path is then relative to that head.
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
    """What a model's configuration tells. Each method raises `SourceFault` where the model has no such thing."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits; empty where the model has no head."""

    @property
    def tokenizer(self) -> str:
        """A fingerprint of how text becomes tokens: equal where the tokens of two models are the same."""

    def vocabulary(self, head: str | None) -> int | None:
        """How many entries the logits of a head have where they are over a vocabulary; None where they are not."""

    def row_length(self, name: str) -> int:
        """How many members the row `hidden`, `attention`, … has (`hidden`: layers + 1)."""

    def paths(self, pattern: str) -> tuple[str, ...]:
        """The module paths that a tap's `*` pattern stands for, in the order of the model."""

    def calls(self, paths: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """The calls of these modules in one forward: each once, but those of a shared one that runs several times in
        the order of the forward, numbered from 0.
        """

    def shape(self, feature: Feature) -> Shape:
        """The feature's shape."""
