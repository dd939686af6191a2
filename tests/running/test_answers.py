"""Questions that may have no answer, as in SQuAD 2.0, in whole runs: trained, evaluated, and predicted with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import brewgraph as bg
from brewgraph.checking.check import check
from brewgraph.running.finished import open_run
from brewgraph.running.predict import labelled_rows, load_student, predict, read_like, score
from brewgraph.source import Source
from tests.training.test_spans import official, postprocess

FRUITS = ("apple", "cherry", "grape", "lemon", "mango", "olive", "peach", "plum")
TOWNS = ("Arles", "Basle", "Cadiz", "Delft", "Essen", "Faro", "Ghent", "Hull")

KINDS = [True, True, False, False, True, False, False, True, False, True, False, True] * 4

SPEC = """
teacher big = brew("big.brew")
student tiny = hf(model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    hidden_dropout_prob=0, attention_probs_dropout_prob=0)
data d = squad(train="train.json", dev="dev.json", batch=16, max_length=20, stride=6)
loss = ce(d.start -> tiny.start) + ce(d.end -> tiny.end) + kd(big.start -> tiny.start) + kd(big.end -> tiny.end)
train { steps = 500; optimizer = adamw(lr=3e-3); metric_for_best_model = exact_match; schedule = linear(warmup=10%) }
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


def asked(fruit: int, *, answered: bool, number: int) -> dict[str, Any]:
    """Where a fruit is sold, of a text of two or three windows that says it, or says it of others alone."""
    others = [(fruit + n) % 8 for n in range(1, 4)]
    told = [f"they sell {FRUITS[n]} in {TOWNS[n]} ." for n in others]
    if answered:
        told.insert(number % 4, f"they sell {FRUITS[fruit]} in {TOWNS[fruit]} .")
    context = " ".join(told)
    answers = [{"text": TOWNS[fruit], "answer_start": context.index(TOWNS[fruit])}] if answered else []
    question = {"id": f"q{number}", "question": f"where is {FRUITS[fruit]}", "answers": answers}
    return {"context": context, "qas": [question | ({} if answered else {"is_impossible": True})]}


def write(path: Path, kinds: Sequence[bool]) -> Path:
    """A question for each kind: with an answer, or without."""
    paragraphs = [asked(n % 8, answered=kind, number=n) for n, kind in enumerate(kinds)]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def write_spec(folder: Path, text: str = SPEC) -> Path:
    """The spec, and that of its teacher, which learns the same from the labels alone."""
    lines = [line.partition(" + kd(")[0] for line in text.splitlines() if not line.startswith("teacher")]
    (folder / "big.brew").write_text("\n".join(lines).replace("tiny", "big").replace("steps = 500", "steps = 700"))
    (folder / "spec.brew").write_text(text)
    return folder / "spec.brew"


@torch.no_grad()
def by_hand(folder: Path, rows: Any, threshold: float) -> dict[int, str]:
    """What transformers' `run_qa.py` would predict: its windows, its reading of the logits."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    windows = []
    for row in rows:
        made = tokenizer(
            row["text_0"],
            row["text_1"],
            truncation="only_second",
            max_length=20,
            stride=6,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for i, (ids, offsets) in enumerate(zip(made["input_ids"], made["offset_mapping"], strict=True)):
            inside = [s == 1 for s in made.sequence_ids(i)]
            types = torch.tensor([made["token_type_ids"][i]])
            out = model(torch.tensor([ids]), token_type_ids=types)
            offsets = [span if held else (-1, -1) for span, held in zip(offsets, inside, strict=True)]
            logits = {"start": out.start_logits[0].tolist(), "end": out.end_logits[0].tolist()}
            windows.append({"index": row["index"], "null": 0, "offsets": offsets, **logits})
    return postprocess(windows, rows, threshold)


@pytest.mark.slow
def test_no_answer_is_learnt_scored_and_predicted(tmp_path: Path) -> None:
    """Half of the questions have none: teacher and student find that out; the scores are those of the official scorer on
    what transformers' own reading of the student gives, whatever the threshold, and `predict` answers nothing there."""
    write(tmp_path / "train.json", KINDS)
    write(tmp_path / "dev.json", KINDS)
    result = bg.run(write_spec(tmp_path))
    big, tiny = result.table
    assert (big.name, tiny.name) == ("big", "tiny")
    assert set(big.scores.values()) == {1.0}
    assert tiny.columns == ("exact_match", "f1", "has_answer_f1", "no_answer_f1")
    run = open_run(result.folder)
    task = run.task(None)
    assert task.null_threshold == 0.0
    student, rows = load_student(task), labelled_rows(task, "dev")
    right = list(rows)
    expected = by_hand(task.model, right, 0.0)
    assert tiny.scores == pytest.approx(official(right, expected))
    assert set(tiny.scores.values()) == {1.0}, "learnt by heart"
    assert score(student, rows).values == pytest.approx(tiny.scores)
    found = list(predict(student, rows))
    assert {row["index"]: row["answer"] for row in found} == expected
    for row in found:
        null = row["null_score"] > row["score"]
        assert (row["answer"] == "", row["start"] is None, row["end"] is None) == (null, null, null)
    # a file without `answers` is not one of questions that cannot be answered
    bare = json.loads((tmp_path / "dev.json").read_text())
    for paragraph in bare["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            del question["answers"]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    again = list(predict(student, read_like(task, tmp_path / "bare.json", labelled=False)))
    assert [row["answer"] for row in again] == [row["answer"] for row in found]
    # questions that it has not seen, at thresholds that part them
    write(tmp_path / "other.json", [*KINDS[5:], *KINDS[:5]])
    other = labelled_rows(task, str(tmp_path / "other.json"))
    margins = sorted(row["null_score"] - row["score"] for row in predict(student, other))
    for place in (len(margins) // 4, len(margins) // 2, 3 * len(margins) // 4):
        threshold = (margins[place - 1] + margins[place]) / 2
        moved = load_student(replace(task, null_threshold=threshold))
        expected = by_hand(task.model, list(other), threshold)
        assert score(moved, other).values == pytest.approx(official(list(other), expected))
        assert {row["index"]: row["answer"] for row in predict(moved, other)} == expected
        assert 0 < sum(not text for text in expected.values()) < len(expected)
    # the student may answer nothing where the file that it is scored on has an answer everywhere
    write(tmp_path / "whole.json", [True] * 16)
    whole = labelled_rows(task, str(tmp_path / "whole.json"))
    scores = score(student, whole).values
    assert set(scores) == {"exact_match", "f1", "has_answer_exact", "has_answer_f1"}
    assert scores["exact_match"] == scores["has_answer_exact"]


def test_the_threshold_is_a_setting(tmp_path: Path) -> None:
    """It moves what is scored and predicted, and is part of what a run is; the default is not, so that no run moves."""
    write(tmp_path / "train.json", [True, False] * 4)
    write(tmp_path / "dev.json", [True, False] * 4)
    text = SPEC.replace("steps = 500", "steps = 1")
    text = "\n".join(line.partition(" + kd(")[0] for line in text.splitlines() if not line.startswith("teacher"))
    hashes, scores = [], []
    for said in ("", ", null_threshold=0", ", null_threshold=-99", ", null_threshold=99"):
        (tmp_path / "spec.brew").write_text(text.replace("stride=6", "stride=6" + said))
        hashes.append(check(Source.read(tmp_path / "spec.brew")).spec_hash)
        if said:
            result = bg.run(tmp_path / "spec.brew")
            assert open_run(result.folder).task(None).null_threshold == float(said.partition("=")[2])
            scores.append([result.table[0].scores[name] for name in ("has_answer_exact", "no_answer_exact")])
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert scores[1] == [0.0, 1.0], "always nothing"
    assert scores[2][1] == 0.0, "never nothing"


def test_where_every_question_has_an_answer_nothing_changes(tmp_path: Path) -> None:
    """The rules of version 1.1: two scores, no score of no answer, and no metric of that name to choose a model by."""
    write(tmp_path / "train.json", [True] * 8)
    write(tmp_path / "dev.json", [True] * 8)
    lines = [line.partition(" + kd(")[0] for line in SPEC.splitlines() if not line.startswith("teacher")]
    text = "\n".join(lines).replace("steps = 500", "steps = 1").replace("= exact_match", "= no_answer_f1")
    spec = tmp_path / "spec.brew"
    spec.write_text(text)
    (found,) = [d for d in bg.check(spec) if d.severity == "error"]
    assert (found.code, found.message) == ("B126", "there is no metric `no_answer_f1`")
    assert found.help.endswith("the metrics here are `exact_match`, `f1` and `loss`")
    write(tmp_path / "train.json", [True, False] * 4)
    (found,) = [d for d in bg.check(spec) if d.severity == "error"]
    assert "`has_answer_f1`" in found.help, "dev alone has an answer everywhere"
    write(tmp_path / "train.json", [True] * 8)
    spec.write_text(text.replace("no_answer_f1", "f1"))
    result = bg.run(spec)
    assert set(result.table[0].scores) == {"exact_match", "f1"}
    task = open_run(result.folder).task(None)
    assert task.null_threshold is None
    found = list(predict(load_student(task), labelled_rows(task, "dev")))
    assert all(set(row) == {"index", "id", "answer", "score", "start", "end"} for row in found)
    assert all(row["answer"] for row in found)


@pytest.mark.parametrize("impossible", [False, True])
def test_answers_that_no_window_holds_end_a_run_before_it_trains(tmp_path: Path, impossible: bool) -> None:
    """B412, also where other questions have no answer; a window that holds one of them is enough."""
    context = " ".join(f"word{n}" for n in range(30))
    answer = {"text": " ".join(f"word{n}" for n in range(20)), "answer_start": 0}
    asked = [{"id": "a", "question": "which words", "answers": [answer]}]
    if impossible:
        asked.append({"id": "b", "question": "which other words", "answers": [], "is_impossible": True})
    paragraphs = [{"context": context, "qas": asked}]
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    (tmp_path / "dev.json").write_text((tmp_path / "train.json").read_text())
    text = write_spec(tmp_path, SPEC.replace("steps = 500", "steps = 1")).with_name("big.brew")
    with pytest.raises(bg.SpecError, match="no window of `d` holds a whole answer") as caught:
        bg.run(text)
    (found,) = [d for d in caught.value.diagnostics if d.severity == "error"]
    assert (found.code, found.span.text) == ("B412", "20")
    asked[0]["answers"] = [{"text": "word3", "answer_start": context.index("word3")}]
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    bg.run(text)
