"""Answers: their agreement by the scorers' rules, and how they are read off the logits of windows."""

from __future__ import annotations

import collections
import random
import re
import string
from typing import Any

import pytest
import torch
from torchmetrics.text import SQuAD

from brewgraph.training.metrics import (
    LONGEST,
    SpanMetrics,
    agreement,
    best_spans,
    cmrc,
    is_chinese,
    longest_shared_run,
    squad,
)

WORDS = ["the", "a", "An", "tower,", "Tower", "of", "Paris", "in", "(1889)", "Eiffel's", "--", "and"]


def test_squad_equals_torchmetrics() -> None:
    """Random answers against up to three right ones: exact match and F1 are those of the official scorer."""
    chance = random.Random(0)
    for _ in range(300):
        answer, *right = (" ".join(chance.choices(WORDS, k=chance.randint(1, 4))) for _ in range(chance.randint(2, 4)))
        target = {"answers": {"text": right, "answer_start": [0] * len(right)}, "id": "x"}
        expected = SQuAD()([{"prediction_text": answer, "id": "x"}], [target])
        found = agreement(answer, right)
        assert found == pytest.approx((float(expected["exact_match"]) / 100, float(expected["f1"]) / 100)), answer


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The Eiffel  tower.", "eiffel tower", 1, 1),
        ("an Eiffel tower in Paris", "the tower", 0, 2 / 5),
        ("tower tower", "tower", 0, 2 / 3),
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
        ("", "", 1, 1),
        ("theatre", "atre", 0, 0),
    ],
)
def test_squad_by_hand(answer: str, right: str, exact: float, f1: float) -> None:
    """Case, punctuation, articles and blanks do not count; words do, as often as they are there."""
    assert squad(answer, right) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("北京大学", "北京大学。", 1, 1),
        ("在北京", "北京大学", 0, 4 / 7),
        ("北大京", "北京大", 0, 2 / 6),
        ("Windows 95系统", "windows 95", 0, 4 / 6),
        ("1998年", "1998", 0, 2 / 3),
        ("《红楼梦》", "红楼梦", 1, 1),
        ("甲", "乙", 0, 0),
    ],
)
def test_chinese_by_hand(answer: str, right: str, exact: float, f1: float) -> None:
    """Characters one by one, other words whole; what counts is the longest run, so order does."""
    assert cmrc(answer, right) == pytest.approx((exact, f1))


def test_the_best_of_several_right_answers_counts() -> None:
    """Each of the two scores by its own best; where there is no right answer, none is right."""
    assert agreement("Paris", ["in Paris", "paris"]) == (1.0, 1.0)
    assert agreement("big Paris", ["Paris in May", "Paris"]) == pytest.approx((0.0, 2 / 3))
    assert agreement("北京", ["上海", "北京"], chinese=True) == (1.0, 1.0)
    assert agreement("", []) == (1.0, 1.0)
    assert agreement("Paris", []) == (0.0, 0.0)


def test_which_rules_hold_is_seen_by_the_characters() -> None:
    """More than half of them Chinese, blanks left out."""
    assert is_chinese(["北京 2008", "北京大学"])
    assert not is_chinese(["北京 Beijing"])
    assert not is_chinese([])
    assert longest_shared_run("abcabd", "xabdy") == 3


def brute_force(start: list[float], end: list[float], offsets: list[list[int]]) -> tuple[float, int, int]:
    """The best span by trying all of them."""
    best = (-float("inf"), 0, 0)
    for i, first in enumerate(start):
        for j in range(i, min(len(end), i + 30)):
            if offsets[i][0] >= 0 and offsets[j][0] >= 0 and first + end[j] > best[0]:
                best = (first + end[j], offsets[i][0], offsets[j][1])
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_best_span_is_the_best_of_all(seed: int) -> None:
    """Question, special tokens and padding are outside; no span ends before it starts, or is longer than thirty."""
    torch.manual_seed(seed)
    start, end = torch.randn(4, 90) * 3, torch.randn(4, 90) * 3
    offsets = torch.full((4, 90, 2), -1)
    for row, (begin, count) in enumerate(((7, 60), (1, 3), (30, 59), (0, 0))):
        offsets[row, begin : begin + count, 0] = torch.arange(count) * 5
        offsets[row, begin : begin + count, 1] = torch.arange(count) * 5 + 4
    score, begin, finish = best_spans(start, end, offsets)
    for row in range(4):
        expected = brute_force(start[row].tolist(), end[row].tolist(), offsets[row].tolist())
        assert (float(score[row]), int(begin[row]), int(finish[row])) == pytest.approx(expected)


def test_no_span_is_longer_than_thirty_tokens() -> None:
    """The likeliest start and end lie thirty-one tokens apart, so one of them gives way."""
    start, end = torch.zeros(1, 40), torch.zeros(1, 40)
    start[0, 2], end[0, 2 + LONGEST] = 5.0, 4.0
    offsets = torch.stack([torch.arange(40), torch.arange(40) + 1], -1)[None]
    score, begin, _ = best_spans(start, end, offsets)
    assert (float(score), int(begin)) == (5.0, 2)
    end[0, 1 + LONGEST] = 3.0
    score, begin, finish = best_spans(start, end, offsets)
    assert (float(score), int(begin), int(finish)) == (8.0, 2, 2 + LONGEST)


EXAMPLES: list[dict[str, Any]] = [
    {"index": 0, "text_1": "Paris is in France.", "answers": {"text": ["Paris"], "start": [0]}},
    {"index": 1, "text_1": "The tower was built in 1889.", "answers": {"text": ["in 1889", "1889"], "start": [20, 23]}},
    {"index": 2, "text_1": "Nobody is here.", "answers": {"text": ["Nobody"], "start": [0]}},
]


def test_the_best_of_an_examples_windows_wins_on_whichever_rank() -> None:
    """Two windows of one example, seen by two ranks; an example that no rank saw does not count."""
    here, there = SpanMetrics(EXAMPLES), SpanMetrics(EXAMPLES)
    none = torch.zeros(2)
    here.update(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), torch.tensor([5, 9]), none)
    there.update(torch.tensor([1]), torch.tensor([2.5]), torch.tensor([23]), torch.tensor([27]), none[:1])
    alone = here.compute()
    assert alone == pytest.approx({"exact_match": 0.5, "f1": 0.5})
    state = here.state()
    here.merge(*there.state())
    there.merge(*state)
    assert here.compute() == there.compute() == {"exact_match": 1.0, "f1": 1.0}


def test_a_window_without_context_never_wins() -> None:
    """Its score is lower than any; an example with nothing else is answered by nothing."""
    metric = SpanMetrics(EXAMPLES)
    logits = (torch.zeros(2, 3), torch.zeros(2, 3))
    outside = torch.full((2, 3, 2), -1)
    null = {"null": torch.zeros(2, dtype=torch.int64)}
    metric.update(*metric.reduce(logits, {"index": torch.tensor([0, 2]), "offsets": outside, **null}))
    inside = torch.tensor([[[0, 5], [6, 8], [-1, -1]]])
    logits = (torch.tensor([[2.0, 0, 9]]), torch.tensor([[1.0, 0, 9]]))
    metric.update(*metric.reduce(logits, {"index": torch.tensor([0]), "offsets": inside, "null": torch.tensor([2])}))
    assert (metric.best[0].score, metric.best[0].end) == (3.0, 5)
    assert metric.compute() == {"exact_match": 0.5, "f1": 0.5}


def test_chinese_answers_are_scored_as_such() -> None:
    """A half-right Chinese answer has an F1, where words between blanks would give none."""
    row = {"index": 5, "text_1": "他在北京大学读书", "answers": {"text": ["北京大学"], "start": [2]}}
    metric = SpanMetrics([row])
    metric.update(torch.tensor([5]), torch.tensor([0.0]), torch.tensor([2]), torch.tensor([4]), torch.tensor([9.0]))
    assert metric.compute() == pytest.approx({"exact_match": 0.0, "f1": 2 / 3})


# ── questions without an answer ──────────────────────────────────────────────────────────────────────────────────────


def normalize_answer(text: str) -> list[str]:
    """As `evaluate-v2.0.py`: lower case, no punctuation, no articles, words."""
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def compute_f1(gold: str, pred: str) -> float:
    """As `evaluate-v2.0.py`: where either has no words, 1 if both have none, else 0."""
    gold_toks, pred_toks = normalize_answer(gold), normalize_answer(pred)
    same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
    if not gold_toks or not pred_toks:
        return float(gold_toks == pred_toks)
    if same == 0:
        return 0.0
    precision, recall = same / len(pred_toks), same / len(gold_toks)
    return 2 * precision * recall / (precision + recall)


def official(rows: list[dict[str, Any]], predictions: dict[int, str]) -> dict[str, float]:
    """What `evaluate-v2.0.py` makes of predictions, under the names that brewgraph has for them."""
    exact, f1 = {}, {}
    for row in rows:
        gold = [text for text in row["answers"]["text"] if normalize_answer(text)] or [""]
        pred = predictions[row["index"]]
        exact[row["index"]] = max(float(normalize_answer(text) == normalize_answer(pred)) for text in gold)
        f1[row["index"]] = max(compute_f1(text, pred) for text in gold)
    has = [row["index"] for row in rows if row["answers"]["text"]]
    no = [row["index"] for row in rows if not row["answers"]["text"]]
    found = {}
    for prefix, ids in (("", [*has, *no]), ("has_answer_", has), ("no_answer_", no)):
        found[f"{prefix}exact" if prefix else "exact_match"] = sum(exact[i] for i in ids) / len(ids)
        found[f"{prefix}f1"] = sum(f1[i] for i in ids) / len(ids)
    return found


def postprocess(windows: list[dict[str, Any]], rows: list[dict[str, Any]], threshold: float) -> dict[int, str]:
    """As `postprocess_qa_predictions` of transformers' examples with `version_2_with_negative`, by a plain loop."""
    predictions = {}
    for row in rows:
        own = [w for w in windows if w["index"] == row["index"]]
        null = min(w["start"][w["null"]] + w["end"][w["null"]] for w in own)
        best = max(
            (w["start"][i] + w["end"][j], row["text_1"][w["offsets"][i][0] : w["offsets"][j][1]])
            for w in own
            for i in range(len(w["start"]))
            for j in range(i, min(len(w["start"]), i + LONGEST))
            if w["offsets"][i][0] >= 0 and w["offsets"][j][0] >= 0
        )
        predictions[row["index"]] = "" if null - best[0] > threshold else best[1]
    return predictions


@pytest.mark.parametrize("threshold", [0.0, 2.5, -3.0])
@pytest.mark.parametrize("seed", range(4))
def test_answers_that_may_be_none_equal_the_official_scorer(seed: int, threshold: float) -> None:
    """Random logits of one to three windows a question, CLS before or behind, on one rank and on two: exact match and F1
    of all questions, of those that have an answer, and of those that have none."""
    chance = random.Random(seed)
    rows, windows = [], []
    for index in range(40):
        words = chance.choices(WORDS, k=12)
        gold = [] if chance.random() < 0.4 else [" ".join(words[a : a + chance.randint(1, 3)]) for a in (2, 5)]
        rows.append({"index": index, "text_1": " ".join(words), "answers": {"text": gold, "start": [0] * len(gold)}})
        places = [(m.start(), m.end()) for m in re.finditer(r"\S+", rows[-1]["text_1"])]
        for _ in range(chance.randint(1, 3)):
            null = chance.choice([0, 8])
            inside = iter(places[chance.randint(0, 5) :][:7])
            offsets = [next(inside, (-1, -1)) if n != null else (-1, -1) for n in range(9)]
            logits = {name: [chance.gauss(2.0 * (n == null), 2) for n in range(9)] for name in ("start", "end")}
            windows.append({"index": index, "null": null, "offsets": offsets, **logits})
    metrics = [SpanMetrics(rows, threshold) for _ in range(3)]
    for number in range(0, len(windows), 8):
        batch = {key: torch.tensor([w[key] for w in windows[number : number + 8]]) for key in windows[0]}
        reduced = SpanMetrics.reduce((batch["start"], batch["end"]), batch)
        metrics[0].update(*reduced)
        metrics[1 + (number // 8) % 2].update(*reduced)
    metrics[1].merge(*metrics[2].state())
    predictions = postprocess(windows, rows, threshold)
    expected = official(rows, predictions)
    assert metrics[0].compute() == pytest.approx(expected)
    assert metrics[1].compute() == pytest.approx(expected)
    assert 0 < sum(not text for text in predictions.values()) < 40
    plain = SpanMetrics(rows)
    plain.merge(*metrics[0].state())
    assert set(plain.compute()) == {"exact_match", "f1"}, "without such questions the rules are those of version 1.1"


def test_no_answer_has_to_win_in_every_window() -> None:
    """A question whose second window is sure of an answer has one, whatever the first says; the threshold moves that."""
    metric = SpanMetrics(EXAMPLES, 0.0)
    index, begin, end = torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0]), torch.tensor([8, 5, 6])
    metric.update(index, torch.tensor([1.0, 6.0, 3.0]), begin, end, torch.tensor([9.0, 5.5, 4.0]))
    assert [metric.best[n].null_score for n in (0, 2)] == [5.5, 4.0]
    assert [metric.best[n].text(EXAMPLES[n]["text_1"], 0.0) for n in (0, 2)] == ["Paris", ""]
    assert [metric.best[n].text(EXAMPLES[n]["text_1"], 1.0) for n in (0, 2)] == ["Paris", "Nobody"]
    assert [metric.best[n].text(EXAMPLES[n]["text_1"], -1.0) for n in (0, 2)] == ["", ""]


def test_a_right_answer_of_articles_alone_is_none() -> None:
    """As in the scorer for version 2.0, which passes over answers of which nothing is left."""
    row = {"index": 0, "text_1": "the Paris", "answers": {"text": ["the", "Paris"], "start": [0, 4]}}
    for threshold, expected in ((0.0, 0.0), (None, 1.0)):
        metric = SpanMetrics([row], threshold)
        metric.update(*(torch.tensor([x]) for x in (0, 1.0, 0, 3, 0.0)))
        assert metric.compute()["exact_match"] == expected
