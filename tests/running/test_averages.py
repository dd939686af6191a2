"""Averages of a student through the stages of whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.reporter import Reporter
from tests.small import metrics, save, write_data

SPEC = """student tiny = hf("tiny")
teacher mean = ema(tiny, decay=0.5)
data d = files(train="train.jsonl", batch=4)
hard = ce(d.labels -> tiny.logits)
stage one for 2 steps { loss = hard + mse(mean.logits -> tiny.logits) }
stage two for 3 steps { loss = hard }
stage three for 2 steps { loss = hard + mse(mean.logits -> tiny.logits) }
train { optimizer = adamw(lr=1e-2); logging_steps = 1; save_steps = 1 steps }
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three stages, of which the middle one does without the average."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    save(tmp_path / "tiny", layers=1)
    path = tmp_path / "spec.brew"
    path.write_text(SPEC)
    return path


class Interrupting(Reporter):
    """Breaks off at a step of a stage."""

    def __init__(self, stage: str, step: int):
        self.at, self.stage = (stage, step), ""

    def begin(self, name: str, steps: int, done: int) -> None:
        self.stage = name.rpartition(" ")[2]

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        if (self.stage, step) == self.at:
            raise KeyboardInterrupt


def test_an_average_follows_the_student_through_a_stage_that_does_without_it(spec: Path) -> None:
    """It is one and the same teacher: a stage that has no use for it moves it on all the same."""
    builder = SpecBuilder(check(read_spec(spec)))
    for stage in ("one", "two", "three"):
        distiller = builder.distiller(stage=stage)
        assert list(distiller.extra_state()) == ["mean"]
        name, weight = next(iter(distiller.student.named_parameters()))
        before = distiller.teachers[0].get_parameter(name).clone()
        with torch.no_grad():
            weight.add_(1.0)
        distiller.after_step()
        expected = before + 0.5 * (weight - before)
        torch.testing.assert_close(distiller.teachers[0].get_parameter(name), expected)
        distiller.release()


def test_a_run_interrupted_where_the_average_rests_ends_as_a_whole_one(spec: Path, tmp_path: Path) -> None:
    """The third stage finds the average that the first two left, whether or not the second was interrupted."""
    whole = bg.run(spec, out=tmp_path / "whole").folder
    with pytest.raises(KeyboardInterrupt):
        bg.run(spec, out=tmp_path / "out", reporter=Interrupting("two", 3))
    result = bg.run(spec, out=tmp_path / "out").folder
    assert metrics(result) == metrics(whole)
    found, expected = (load_file(f / "student" / "model.safetensors") for f in (result, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
