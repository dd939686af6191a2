"""Metrics of tags per word: entities found as a whole, and single tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brewgraph.recipe.metrics import marks_entities
from brewgraph.training.metrics.counting import IGNORED

Entity = tuple[str, int, int]
"""Type, first word, last word."""


def entities(tags: Sequence[str], *, strict: bool = False) -> set[Entity]:
    """The entities that a sentence's tags mark, by the rules of CoNLL's scorer (Tjong Kim Sang and Buchholz 2000,
    "Introduction to the CoNLL-2000 Shared Task: Chunking"), which seqeval follows.

    An entity begins at `B-x`, and also at an `I-x` that goes on with none of type x; it ends before the first tag that
    does not go on with it. `S-x` is an entity of one word, `E-x` the last word of one. In the `strict` reading (IOB2)
    it begins at `B-x` or `S-x` alone, and an `I-x` that goes on with nothing is outside.

    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"]))
    [('LOC', 3, 3), ('PER', 0, 1)]
    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"], strict=True))
    [('LOC', 3, 3)]
    """
    found: set[Entity] = set()
    kind, begin, ended = "", -1, True  # the entity before this word; `begin` is -1 where there is none
    for position, tag in enumerate([*tags, "O"]):
        prefix, type_ = tag[:1], tag[1:].lstrip("-") or "_"
        inside = prefix in ("I", "E")
        if inside and not ended and type_ == kind:
            ended = prefix == "E"
            continue
        if begin >= 0:
            found.add((kind, begin, position - 1))
        if prefix in ("B", "S") or (inside and not strict):
            kind, begin, ended = type_, position, prefix in ("S", "E")
        else:
            kind, begin, ended = "", -1, True
    return found


class TagMetrics:
    """Precision, recall and F1 of entities: one is right where its type, its first and its last word are.

    `strict_f1` reads the tags by IOB2 alone; `token_accuracy` is the share of words whose tag is right, `O` among them.
    Tags that mark no entities (parts of speech) have a `token_accuracy` and nothing else.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.marks = marks_entities(classes)
        self.entities_23 = torch.zeros(2, 3, dtype=torch.int64)
        self.words_2 = torch.zeros(2, dtype=torch.int64)

    @staticmethod
    def reduce(logits_BLC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The most likely tag of each token, and its label, -100 for all but the first token of a word."""
        return logits_BLC.argmax(-1), batch["labels"]

    def update(self, guess_BL: Tensor, labels_BL: Tensor) -> None:
        guess_BL, labels_BL = guess_BL.cpu(), labels_BL.cpu()
        counted = labels_BL != IGNORED
        right = (guess_BL == labels_BL) & counted
        self.words_2 += torch.stack([right.sum(), counted.sum()])
        if not self.marks:
            return
        for guess, labels, mask in zip(guess_BL, labels_BL, counted, strict=True):
            self._count(self._names(guess[mask]), self._names(labels[mask]))

    def _names(self, numbers: Tensor) -> list[str]:
        return [self.classes[number] for number in numbers.tolist()]

    def _count(self, guess: Sequence[str], labels: Sequence[str]) -> None:
        for row, strict in enumerate((False, True)):
            guessed, there = entities(guess, strict=strict), entities(labels, strict=strict)
            self.entities_23[row] += torch.tensor([len(guessed & there), len(guessed), len(there)])

    def state(self) -> tuple[Tensor, ...]:
        return self.entities_23, self.words_2

    def merge(self, entities_23: Tensor, words_2: Tensor) -> None:
        self.entities_23, self.words_2 = self.entities_23 + entities_23, self.words_2 + words_2

    def compute(self) -> dict[str, float]:
        right, words = self.words_2.tolist()
        accuracy = {"token_accuracy": right / max(1, words)}
        if not self.marks:
            return accuracy
        (precision, recall, f1), (_, _, strict_f1) = (_scores(counts) for counts in self.entities_23.tolist())
        return {"f1": f1, "precision": precision, "recall": recall, "strict_f1": strict_f1, **accuracy}


def _scores(counts: Iterable[int]) -> tuple[float, float, float]:
    """Precision, recall and F1; each 0 where there is nothing to divide by."""
    right, guessed, there = counts
    return right / max(1, guessed), right / max(1, there), 2 * right / max(1, guessed + there)
