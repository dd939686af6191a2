"""Metrics of tags per word: entities found as a whole, and single tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brewgraph.recipe.tag_schemes import OUTSIDE, Scheme, find_scheme
from brewgraph.training.metrics.counting import SummedMetric

Entity = tuple[str, int, int]
"""Type, first word, last word."""


def entities(tags: Sequence[str], scheme: Scheme, *, strict: bool = False) -> set[Entity]:
    """The entities that a sentence's tags mark.

    In IOB2 by the rules of CoNLL's scorer (Tjong Kim Sang and Buchholz 2000, "Introduction to the CoNLL-2000 Shared
    Task: Chunking"), which seqeval follows: an entity begins at `B-x`, and also at an `I-x` that goes on with none of
    type x; it ends before the first tag that does not go on with it. In the `strict` reading it begins at `B-x` alone.

    Schemes that mark the last word (IOBES, BILOU, BMES) have the strict reading alone, as seqeval's `mode="strict"`: an
    entity is one word marked as such, or a beginning, insides and an end of one type in a row.

    >>> iob2 = find_scheme(["B-PER", "I-PER"])
    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"], iob2))
    [('LOC', 3, 3), ('PER', 0, 1)]
    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"], iob2, strict=True))
    [('LOC', 3, 3)]
    >>> sorted(entities(["B-PER", "I-PER", "O", "U-PER"], find_scheme(["B-PER", "U-PER"])))
    [('PER', 3, 3)]
    """
    marked: set[Entity] = set()
    kind, begin = "", -1  # the open entity; `begin` is -1 without one
    for position, tag in enumerate([*tags, OUTSIDE]):
        mark, own = scheme.split(tag) or ("", "")
        if mark in ("I", "E") and begin >= 0 and own == kind:
            if mark == "E":
                marked.add((kind, begin, position))
                begin = -1
            continue
        if begin >= 0 and not scheme.closes:
            marked.add((kind, begin, position - 1))
        if mark == "S":
            marked.add((own, position, position))
        begins = mark == "B" or (mark == "I" and not (strict or scheme.closes))
        kind, begin = (own, position) if begins else ("", -1)
    return marked


class TagMetrics(SummedMetric):
    """Precision, recall and F1 of entities: one is right where its type, its first and its last word are.

    `strict_f1` reads tags in IOB2 strictly (see `entities`); `token_accuracy` is the share of words whose tag is right,
    `O` among them. Tags that mark no entities (parts of speech) have a `token_accuracy` and nothing else.

    `examples` are the rows of the split, with `index` and `tags`: every word of a sentence counts, whichever of its
    windows tags it. A word that a tokenizer leaves without a token is taken for `O`.
    """

    def __init__(self, classes: Sequence[str], examples: Any):
        self.classes = tuple(classes)
        self.scheme = find_scheme(classes)
        self.outside = self.classes.index(OUTSIDE) if OUTSIDE in self.classes else -1
        self.examples = examples
        self.labels: dict[int, list[int]] | None = None
        self.open: dict[int, dict[int, int]] = {}  # of sentences that are not tagged to the end, the words that are
        super().__init__(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BLC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Of each word that is tagged: the sentence's index, the word's number in it, the most likely tag; (N) each."""
        guess_BL, places_BW = logits_BLC.argmax(-1), batch["words"]
        row_N, word_N = (places_BW >= 0).nonzero(as_tuple=True)
        return batch["index"][row_N], batch["first"][row_N] + word_N, guess_BL[row_N, places_BW[row_N, word_N]]

    def update(self, index_N: Tensor, word_N: Tensor, guess_N: Tensor) -> None:
        if self.labels is None:
            self.labels = dict(zip(self.examples["index"], self.examples["tags"], strict=True))
        for index, word, guess in zip(index_N.tolist(), word_N.tolist(), guess_N.tolist(), strict=True):
            self.open.setdefault(index, {})[word] = guess
        for index in dict.fromkeys(index_N.tolist()):
            if len(self.open[index]) == len(self.labels[index]):
                self.add(*self._count(index, self.open.pop(index)))

    def _count(self, index: int, guesses: Mapping[int, int]) -> tuple[Tensor, Tensor]:
        """Entities, in both readings, and words of a sentence: right, guessed, there; right, there."""
        assert self.labels is not None
        labels = self.labels[index]
        guess = [guesses.get(word, self.outside) for word in range(len(labels))]
        words_2 = torch.tensor([sum(a == b for a, b in zip(guess, labels, strict=True)), len(labels)])
        entities_23 = torch.zeros(2, 3, dtype=torch.int64)
        if self.scheme is not None:
            names = [[self.classes[n] if n >= 0 else OUTSIDE for n in row] for row in (guess, labels)]
            for row, strict in enumerate((False, True)):
                guessed, there = (entities(tags, self.scheme, strict=strict) for tags in names)
                entities_23[row] = torch.tensor([len(guessed & there), len(guessed), len(there)])
        return entities_23, words_2

    def state(self) -> tuple[Tensor, ...]:
        rest = [(index, word, guess) for index, own in self.open.items() for word, guess in own.items()]
        return *self.sums, torch.tensor(rest, dtype=torch.int64).reshape(-1, 3).T

    def merge(self, *state: Tensor) -> None:
        *sums, open_3N = state
        self.add(*sums)
        self.update(*open_3N)

    def compute(self) -> dict[str, float]:
        entities_23, words_2 = self.sums
        for index, own in self.open.items():
            counted = self._count(index, own)
            entities_23, words_2 = entities_23 + counted[0], words_2 + counted[1]
        right, words = words_2.tolist()
        accuracy = {"token_accuracy": right / max(1, words)}
        if self.scheme is None:
            return accuracy
        (precision, recall, f1), (_, _, strict_f1) = (_scores(counts) for counts in entities_23.tolist())
        return {"f1": f1, "precision": precision, "recall": recall, "strict_f1": strict_f1, **accuracy}


def _scores(counts: Iterable[int]) -> tuple[float, float, float]:
    """Precision, recall and F1; each 0 for a divisor of 0."""
    right, guessed, there = counts
    return right / max(1, guessed), right / max(1, there), 2 * right / max(1, guessed + there)
