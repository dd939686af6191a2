"""Answers that are stretches of a text: from logits to characters, the best of several windows, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brewgraph.training.metrics.answers import agreement, is_chinese

LONGEST = 30
"""Tokens of an answer at most, as in BERT's own evaluation of SQuAD."""


@dataclass(frozen=True)
class Answer:
    """A stretch of the context by character offsets, `end` excluded. `score` is the sum of its two logits."""

    score: float
    begin: int
    end: int


def best_spans(start_BL: Tensor, end_BL: Tensor, offsets_BL2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best span of each window: (B,) scores, first and last characters (the last one excluded).

    A span starts no later than it ends, has at most `LONGEST` tokens, and both ends lie in the context, where offsets
    are not negative. A window that holds nothing of the context scores minus infinity, from 0 to 0.
    """
    inside_BL = offsets_BL2[..., 0] >= 0
    start_BL = start_BL.float().masked_fill(~inside_BL, -torch.inf)
    end_BL = end_BL.float().masked_fill(~inside_BL, -torch.inf)
    # the end comes 0 to LONGEST - 1 tokens (the axis K) after the start
    ends_BLK = torch.nn.functional.pad(end_BL, (0, LONGEST - 1), value=-torch.inf).unfold(1, LONGEST, 1)
    score_B, where_B = (start_BL[:, :, None] + ends_BLK).flatten(1).max(-1)
    first_B, more_B = where_B // LONGEST, where_B % LONGEST
    row_B = torch.arange(len(start_BL), device=start_BL.device)
    found_B = score_B > -torch.inf
    last_B = (first_B + more_B).clamp(max=start_BL.shape[1] - 1)
    begin_B = torch.where(found_B, offsets_BL2[row_B, first_B, 0], 0)
    finish_B = torch.where(found_B, offsets_BL2[row_B, last_B, 1], 0)
    return score_B, begin_B, finish_B


class BestAnswers:
    """For each example, by its index, the best answer of all its windows, whichever rank saw them."""

    def __init__(self) -> None:
        self.found: dict[int, Answer] = {}

    @staticmethod
    def reduce(logits: tuple[Tensor, Tensor], batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Index, score, first and last character of each window's best span."""
        start_BL, end_BL = logits
        return batch["index"], *best_spans(start_BL, end_BL, batch["offsets"])

    def update(self, index_B: Tensor, score_B: Tensor, begin_B: Tensor, end_B: Tensor) -> None:
        columns = (index_B, score_B.double(), begin_B, end_B)
        for index, score, begin, end in zip(*(x.tolist() for x in columns), strict=True):
            # of equal ones that which begins first: the same on any number of ranks
            new, old = Answer(score, begin, end), self.found.get(index)
            if old is None or (new.score, -new.begin, -new.end) > (old.score, -old.begin, -old.end):
                self.found[index] = new

    def state(self) -> tuple[Tensor, ...]:
        answers = self.found.values()
        return (
            torch.tensor(list(self.found), dtype=torch.int64),
            torch.tensor([a.score for a in answers], dtype=torch.float64),
            torch.tensor([a.begin for a in answers], dtype=torch.int64),
            torch.tensor([a.end for a in answers], dtype=torch.int64),
        )

    def merge(self, index_N: Tensor, score_N: Tensor, begin_N: Tensor, end_N: Tensor) -> None:
        self.update(index_N, score_N, begin_N, end_N)


class SpanMetrics(BestAnswers):
    """Exact match and F1 of answers, the mean over examples.

    `examples` are the rows of the split, with `index`, `text_1` (the context) and `answers` ({"text": […], …}). Chinese
    answers (more than half of their characters) are scored as in CMRC 2018, all others as in SQuAD v1.1.
    """

    def __init__(self, examples: Any):
        super().__init__()
        self.examples = examples

    def compute(self) -> dict[str, float]:
        asked = [row for row in self.examples if row["index"] in self.found]
        chinese = is_chinese(text for row in asked for text in row["answers"]["text"])
        found = []
        for row in asked:
            answer = self.found[row["index"]]
            text = row["text_1"][answer.begin : answer.end]
            found.append(agreement(text, row["answers"]["text"], chinese=chinese))
        count = max(1, len(found))
        return {"exact_match": sum(exact for exact, _ in found) / count, "f1": sum(f1 for _, f1 in found) / count}
