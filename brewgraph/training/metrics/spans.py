"""Answers as spans of a text: from logits to characters, the best of several windows, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from brewgraph.training.metrics.answers import Agreement, agreement, is_blank, is_chinese

LONGEST = 30
"""The maximum number of tokens of an answer, as in BERT's evaluation of SQuAD."""


@dataclass(frozen=True)
class Answer:
    """A span of the context by character offsets, `end` excluded. `score` is the sum of its two logits, `null_score`
    that of the token for "no answer", the lowest of all windows.
    """

    score: float
    begin: int
    end: int
    null_score: float

    def is_null(self, threshold: float | None) -> bool:
        """Whether "no answer" scores higher by more than `threshold`; never without a threshold."""
        return threshold is not None and self.null_score - self.score > threshold

    def text(self, context: str, threshold: float | None) -> str:
        """The text of the answer, empty for "no answer"."""
        return "" if self.is_null(threshold) else context[self.begin : self.end]


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
    """The best answer of each example, by its index, over all its windows and all ranks.

    As in `run_qa.py` of transformers' examples, a question has no answer only if every window says so: the lowest score
    of "no answer" counts.
    """

    def __init__(self) -> None:
        self.best: dict[int, Answer] = {}

    @staticmethod
    def reduce(logits: tuple[Tensor, Tensor], batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Index, score, first and last character of each window's best span, and the score of no answer."""
        start_BL, end_BL = logits
        row_B = torch.arange(len(start_BL), device=start_BL.device)
        null_B = start_BL[row_B, batch["null"]].float() + end_BL[row_B, batch["null"]].float()
        return batch["index"], *best_spans(start_BL, end_BL, batch["offsets"]), null_B

    def update(self, index_B: Tensor, score_B: Tensor, begin_B: Tensor, end_B: Tensor, null_B: Tensor) -> None:
        columns = (index_B, score_B.double(), begin_B, end_B, null_B.double())
        for index, *values in zip(*(x.tolist() for x in columns), strict=True):
            new = Answer(*values)
            old = self.best.get(index, new)
            # of equal ones the first, so that the number of ranks does not matter
            best = max(new, old, key=lambda answer: (answer.score, -answer.begin, -answer.end))
            self.best[index] = replace(best, null_score=min(new.null_score, old.null_score))

    def state(self) -> tuple[Tensor, ...]:
        answers = self.best.values()
        return (
            torch.tensor(list(self.best), dtype=torch.int64),
            torch.tensor([a.score for a in answers], dtype=torch.float64),
            torch.tensor([a.begin for a in answers], dtype=torch.int64),
            torch.tensor([a.end for a in answers], dtype=torch.int64),
            torch.tensor([a.null_score for a in answers], dtype=torch.float64),
        )

    def merge(self, index_N: Tensor, score_N: Tensor, begin_N: Tensor, end_N: Tensor, null_N: Tensor) -> None:
        self.update(index_N, score_N, begin_N, end_N, null_N)


class SpanMetrics(BestAnswers):
    """Exact match and F1 of answers, the mean over examples.

    `examples` are the rows of the split, with `index`, `text_1` (the context) and `answers` ({"text": […], …}). Chinese
    answers (more than half of their characters) are scored as in CMRC 2018, all others as in SQuAD v1.1.

    With a `null_threshold` questions may have no answer, and the rules are those of SQuAD 2.0 (Rajpurkar et al. 2018,
    `evaluate-v2.0.py`): no answer is right where there is none. Beside the mean over all examples there are those over
    the questions that have an answer, and over those that have none, where there are such.
    """

    def __init__(self, examples: Any, null_threshold: float | None = None):
        super().__init__()
        self.examples, self.null_threshold = examples, null_threshold

    def compute(self) -> dict[str, float]:
        asked = [row for row in self.examples if row["index"] in self.best]
        chinese = is_chinese(text for row in asked for text in row["answers"]["text"])
        by_kind: dict[bool, list[Agreement]] = {True: [], False: []}
        for row in asked:
            text = self.best[row["index"]].text(row["text_1"], self.null_threshold)
            right = row["answers"]["text"]
            if self.null_threshold is not None and not chinese:
                right = [answer for answer in right if not is_blank(answer)]
            by_kind[bool(row["answers"]["text"])].append(agreement(text, right, chinese=chinese))
        values = _means(by_kind[True] + by_kind[False])
        if self.null_threshold is not None:
            names = {True: "has_answer", False: "no_answer"}
            for kind, members in by_kind.items():
                means = _means(members) if members else {}
                values |= {f"{names[kind]}_{name.split('_')[0]}": x for name, x in means.items()}
        return values


def _means(agreements: Sequence[Agreement]) -> dict[str, float]:
    """The means of exact matches and F1; 0 without any."""
    count = max(1, len(agreements))
    exact, f1 = (sum(values) / count for values in zip(*agreements, strict=True)) if agreements else (0.0, 0.0)
    return {"exact_match": exact, "f1": f1}
