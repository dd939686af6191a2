"""The closing table: who has a row in it, on which rows it is scored, how models are timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import brewgraph as bg
from brewgraph.data.encoding.encode import encoded_chunks
from brewgraph.running.scores import faster, spread
from brewgraph.running.table import held_bytes
from brewgraph.running.timing import TimedBatch, measure
from tests.running.test_run import Steps
from tests.small import project, rows, save, write_data, write_rows

SPEC = """teacher early = hf("early")
teacher late = hf("late")
teacher elsewhere = hf("late")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4)
data other = files(train="other.jsonl", dev="dev.jsonl", batch=4)
stage one for 1 steps { loss = kd(early(d).logits -> tiny(d).logits) }
stage two for 1 steps { loss = kd(elsewhere(other).logits -> tiny(other).logits) }
stage three for 1 steps { loss = kd(late(d).logits -> tiny(d).logits) }
"""


def test_a_teacher_of_an_earlier_stage_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it taught on the data of the last stage; else it is said why there is none."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, train=4, dev=4)
    write_rows(tmp_path / "other.jsonl", rows(4, 7))
    for name in ("early", "late", "tiny"):
        save(tmp_path / name, layers=1)
    (tmp_path / "spec.brew").write_text(SPEC)
    reporter = Steps()
    result = bg.run(tmp_path / "spec.brew", reporter=reporter)
    assert [row.name for row in result.table] == ["early", "late", "tiny"]
    assert all("accuracy" in row.scores for row in result.table)
    assert len({(row.parameters, row.size) for row in result.table}) == 1  # one measure for saved and loaded models
    said = "elsewhere has no score in the table: it teaches on other, but the last stage is on d"
    assert [text for text in reporter.said if "no score" in text] == [said]


class Machine:
    """A clock that models move on: `pace` gives the seconds of a batch, by model and by how many batches ran before."""

    def __init__(self, pace: dict[str, float], load: Callable[[int], float] = lambda batch: 1.0):
        self.pace, self.load, self.now, self.ran = pace, load, 0.0, []

    def works(self, count: int = 4) -> dict[str, list[TimedBatch]]:
        return {name: [TimedBatch(10, partial(self.run, name)) for _ in range(count)] for name in self.pace}

    def run(self, name: str) -> None:
        self.now += self.pace[name] * self.load(len(self.ran))
        self.ran.append(name)

    def clock(self) -> float:
        return self.now


def test_models_take_turns_on_the_same_batches() -> None:
    """Each runs twice to warm up, then all of them on a batch before the next one, in seven rounds."""
    machine = Machine({"big": 3e-3, "small": 1e-3})
    found = measure(machine.works(2), machine.clock)
    assert machine.ran[:4] == ["big", "small", "big", "small"]
    assert machine.ran[4:8] == ["big", "small", "big", "small"]
    assert machine.ran[8:12] == ["small", "big", "small", "big"]
    assert len(machine.ran) == 4 + 7 * 4
    assert found == {"big": pytest.approx([3e-4] * 7), "small": pytest.approx([1e-4] * 7)}
    assert faster(found["small"], found["big"]) == pytest.approx(3.0)
    assert measure({"none": []}, machine.clock) == measure({}, machine.clock) == {}


def test_load_that_comes_and_goes_changes_no_ratio() -> None:
    """Other work slows the machine down for some rounds; equal models stay equal, and the ratio is that of their work."""
    machine = Machine({"big": 3e-3, "one": 1e-3, "two": 1e-3}, load=lambda batch: 5.0 if 30 < batch < 60 else 1.0)
    found = measure(machine.works(4), machine.clock)
    assert faster(found["one"], found["big"]) == pytest.approx(3.0)
    assert faster(found["one"], found["two"]) == pytest.approx(1.0)
    erratic = Machine({"big": 3e-3, "one": 1e-3}, load=lambda batch: 1.0 + 3.0 * (batch * 7 % 5))
    found = measure(erratic.works(1), erratic.clock)
    assert spread(found["big"]) > 0.2
    assert faster(found["one"], found["big"]) is None


def test_slow_models_are_not_timed_for_long() -> None:
    """Few batches and few rounds, and never none: measuring stays near three seconds where a batch allows it."""
    machine = Machine({"big": 0.1, "small": 0.02})
    assert all(len(rounds) == 7 for rounds in measure(machine.works(50), machine.clock).values())
    assert machine.now < 4
    machine = Machine({"big": 10.0, "small": 1.0})
    assert measure(machine.works(50), machine.clock) == {
        "big": pytest.approx([1.0] * 3),
        "small": pytest.approx([0.1] * 3),
    }
    assert machine.ran.count("big") == 5


def test_spread() -> None:
    """Of the quartiles, as numpy has them."""
    values = [1.0, 1.1, 1.3, 0.9, 4.0, 1.2]
    low, middle, high = numpy.percentile(values, [25, 50, 75])
    assert spread(values) == pytest.approx((high - low) / middle)
    assert spread([2.0]) == spread([]) == 0.0


def test_the_table_is_scored_on_test_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy of the saved student on test, computed with transformers; every model is timed on the same rows."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, train=4, dev=4)
    told = write_rows(tmp_path / "test.jsonl", rows(70, 9)).read_text().splitlines()
    for name in ("late", "tiny"):
        save(tmp_path / name, layers=1)
    (tmp_path / "spec.brew").write_text(
        'teacher late = hf("late")\nstudent tiny = hf("tiny")\n'
        'data d = files(train="train.jsonl", dev="dev.jsonl", test="test.jsonl", batch=4)\n'
        "loss = kd(late.logits -> tiny.logits)\ntrain { steps = 1 }\n"
    )
    result = bg.run(tmp_path / "spec.brew")
    model = AutoModelForSequenceClassification.from_pretrained(result.folder / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "student")
    hits = 0
    for row in map(json.loads, told):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        hits += model.config.id2label[int(logits.argmax())] == row["label"]
    student = result.table[-1]
    assert (student.splits, student.scores["accuracy"]) == ({"": "test"}, pytest.approx(hits / 70))
    assert all(len(row.seconds) >= 3 and row.per_second > 0 for row in result.table)
    assert bg.run(tmp_path / "spec.brew").table == result.table


def test_a_run_encodes_each_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher, student and baseline share a tokenizer: training, evaluation and the closing table read one encoding."""
    spec = project(tmp_path, train="steps = 2; baseline = true")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    seen = []

    def counted(split: datasets.Dataset, *args: Any, **more: Any) -> Any:
        seen.append((split.num_rows, split[0]["index"]))
        return encoded_chunks(split, *args, **more)

    monkeypatch.setattr("brewgraph.data.encoding.kept.encoded_chunks", counted)
    monkeypatch.setattr("brewgraph.running.run.check_teachers_agree", lambda *_: None)
    result = bg.run(spec)
    assert [row.name for row in result.table] == ["bert", "tiny alone", "tiny"]
    assert len(seen) == len(set(seen)) == 2


def test_a_forward_holds_its_largest_tensors_at_once() -> None:
    """Both sides of the activation, not the weights; a tensor that is freed makes room for the next."""
    layer, x = torch.nn.Linear(100, 50), torch.zeros(10, 100)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return layer(x).relu()

    @torch.no_grad()
    def twice() -> None:
        run()
        run()

    assert held_bytes(run) == 2 * 10 * 50 * 4
    assert held_bytes(twice) == held_bytes(run)
    assert held_bytes(partial(run, 1)) == 0


def test_a_row_tells_its_memory(tmp_path: Path) -> None:
    """More than its weights; the larger model has more."""
    result = bg.run(project(tmp_path, train="steps = 1"), out=tmp_path / "run")
    big, small = result.table
    assert big.memory > big.size
    assert big.memory > small.memory > small.size
    assert [row["memory"] for row in json.loads((tmp_path / "run" / "finished.json").read_text())["table"]] == [
        big.memory,
        small.memory,
    ]
