"""The best student and early stopping: which one is kept, when a stage ends, and that a resumed run agrees."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings.train import Train
from brewgraph.training.checkpoint import Progress
from brewgraph.training.folder import RunFolder
from brewgraph.training.state_files import read_state
from brewgraph.training.work import StageWork
from tests.training.toy import EVERY, TASKS, Student, Toy, material, run, settings, two_stages, weights

BEST = {"metric_for_best_model": "f1"}


def scripted(monkeypatch: pytest.MonkeyPatch, values: Sequence[float], seen: list[dict[str, torch.Tensor]]) -> None:
    """Let the evaluations after these steps of the student give these scores; note its weights at each."""

    def give(student: Any, *rest: Any) -> dict[str, float]:
        seen.append(weights(student))
        return {"f1": values[len(seen) - 1]}

    monkeypatch.setattr("brewgraph.training.loop.is_scored", lambda student, material: True)
    monkeypatch.setattr("brewgraph.training.loop.score", give)


def one(student: Student, name: str = "", **changes: Any) -> StageWork:
    return StageWork(name, lambda: Toy(student), {"": material()}, settings(**(BEST | changes)))


@pytest.mark.parametrize("kept_in_a_folder", [True, False])
@pytest.mark.parametrize(
    ("values", "less", "best"),
    [
        ([0.1, 0.7, 0.3, 0.7, 0.2], False, 1),
        ([0.9, 0.7, 0.3, 0.7, 0.3], True, 2),
        ([math.nan, 0.2, math.nan, 0.1, 0.1], False, 1),
    ],
)
def test_the_best_student_is_what_remains(
    values: list[float], less: bool, best: int, kept_in_a_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the score, the earliest of equal ones, never one that is no number; with its scores."""
    seen: list[dict[str, torch.Tensor]] = []
    scripted(monkeypatch, values, seen)
    student = Student()
    out = tmp_path / "run" if kept_in_a_folder else None
    outcome, _ = run([one(student, steps=5, greater_is_better=not less)], out)
    assert len(seen) == 5
    assert all(torch.equal(value, seen[best][name]) for name, value in weights(student).items())
    assert outcome.scores == {"f1": values[best]}
    assert outcome.step == 5
    if out is not None:
        log = [
            json.loads(line, parse_constant=pytest.fail) for line in (out / "metrics.jsonl").read_text().splitlines()
        ]
        written = [line["dev"]["f1"] for line in log if "dev" in line]
        assert written == [None if math.isnan(value) else value for value in values]
    if out is not None:
        said = read_state(RunFolder(out).best)
        assert (said["step"], said["stage"]) == (best + 1, 0)
        assert (RunFolder(out).best / "student" / "model.safetensors").is_file()
        assert (RunFolder(out).best / "projections.safetensors").is_file()


def test_without_a_score_that_is_a_number_the_last_student_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is the best: correlations of a student that says the same of all are no numbers."""
    seen: list[dict[str, torch.Tensor]] = []
    scripted(monkeypatch, [math.nan] * 3, seen)
    student = Student()
    outcome, _ = run([one(student, steps=3)], tmp_path / "run")
    assert all(torch.equal(value, seen[2][name]) for name, value in weights(student).items())
    assert math.isnan(outcome.scores["f1"])


def test_the_last_student_remains_where_the_best_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`load_best_model_at_end = false` with a metric: it is there for early stopping alone."""
    seen: list[dict[str, torch.Tensor]] = []
    scripted(monkeypatch, [0.9, 0.1, 0.1], seen)
    student = Student()
    stage = one(student, steps=9, load_best_model_at_end=False, early_stopping_patience=2)
    outcome, _ = run([stage], tmp_path / "run")
    assert all(torch.equal(value, seen[2][name]) for name, value in weights(student).items())
    assert outcome.step == 3
    assert not RunFolder(tmp_path / "run").best.exists()


def test_patience_ends_a_stage_and_the_next_goes_on_from_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of the run go on from the last one that was made; what was summed up by then is written down."""
    seen: list[dict[str, torch.Tensor]] = []
    scripted(monkeypatch, [0.5, 0.6, 0.6, 0.4, 0.1, 0.2, 0.3], seen)
    student = Student()
    began: list[dict[str, torch.Tensor]] = []

    def second() -> Toy:
        began.append(weights(student))
        return Toy(student)

    stages = [
        one(student, "one", steps=50, logging_steps=3, early_stopping_patience=2),
        StageWork("two", second, {"": material()}, settings(steps=3, **BEST)),
    ]
    outcome, lines = run(stages, tmp_path / "run")
    assert [(line["step"], line["stage"], line["stage_step"]) for line in lines if "dev" in line] == [
        (1, "one", 1), (2, "one", 2), (3, "one", 3), (4, "one", 4), (5, "two", 1), (6, "two", 2), (7, "two", 3)
    ]  # fmt: skip
    assert [line["step"] for line in lines if "loss" in line and line["stage"] == "one"] == [3, 4]
    assert all(torch.equal(value, seen[1][name]) for name, value in began[0].items())
    assert all(torch.equal(value, seen[6][name]) for name, value in weights(student).items())
    assert (outcome.step, outcome.scores) == (7, {"f1": 0.3})


@pytest.mark.parametrize("stop", [2, 3, 4, 5])
def test_a_resumed_run_keeps_the_same_best_and_ends_at_the_same_step(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before, at and after the best one, and after patience has run out."""
    values = [0.5, 0.4, 0.6, 0.1, 0.2, 0.9]

    def whole(out: str, done: int = 0, **options: Any) -> tuple[Any, Any]:
        scripted(monkeypatch, values[done:], [])
        student = Student(dropout=0.2)
        return run([one(student, steps=6, early_stopping_patience=2)], tmp_path / out, **options)

    expected, lines = whole("whole")
    assert expected.step == 5
    whole("stopped", stop_after=stop)
    found, again = whole("stopped", stop, resume=True)
    assert again == lines
    assert (found.step, found.scores) == (5, {"f1": 0.6})
    assert all(torch.equal(v, weights(expected.distiller)[k]) for k, v in weights(found.distiller).items())


def test_the_metric_of_a_task_and_values_that_are_reported(tmp_path: Path) -> None:
    """`ner/size`, or `size` where one task alone has it; here a value that is asked for, of which more is better."""
    both = {"ner": material(12, dev=5), "qa": material(20, seed=1)}
    for metric in ("ner/size", "size"):
        stages = two_stages(Student(TASKS), [])
        how = settings(steps=4, report=("size",), metric_for_best_model=metric, eval_steps=EVERY)
        from dataclasses import replace

        outcome, lines = run([replace(stages[1], materials=both, settings=how)], tmp_path / metric.replace("/", "-"))
        sizes = [line["dev"]["size"] for line in lines if "dev" in line]
        assert len(sizes) == 4
        assert outcome.scores["ner/size"] == max(sizes)


def test_a_metric_that_no_evaluation_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to evaluate is said before the first step; a name that is not there with those that are."""
    toy = Toy(Student())
    with pytest.raises(RunError, match="metric_for_best_model = `f1`: there is nothing to evaluate the student on"):
        run([StageWork("", lambda: toy, {"": material()}, settings(**BEST))], None)
    assert not toy.seen
    scripted(monkeypatch, [0.1], [])
    with pytest.raises(RunError, match="`accuracy` is not one score; an evaluation gives `f1`"):
        run([one(Student(), metric_for_best_model="accuracy")], None)


def test_patience_begins_anew_beyond_the_threshold() -> None:
    """As in transformers: a score a little better is the best, and does not renew patience."""
    how = Train(metric_for_best_model="f1", early_stopping_patience=2, early_stopping_threshold=0.1)
    progress = Progress()
    found = [
        (progress.take(v, i, {}, how), progress.misses, progress.exhausted(how))
        for i, v in enumerate((0.5, 0.55, 0.7, 0.75, 0.76))
    ]
    assert found == [(True, 0, False), (True, 1, False), (True, 0, False), (True, 1, False), (True, 2, True)]
    assert (progress.score, progress.step) == (0.76, 4)


def test_settings_follow_the_metric() -> None:
    """With a metric the best is loaded, and less is better where its name says so; what is written stands."""
    assert not Train().load_best_model_at_end
    assert Train(metric_for_best_model="f1").load_best_model_at_end
    assert not Train(metric_for_best_model="f1", load_best_model_at_end=False).load_best_model_at_end
    assert Train(metric_for_best_model="ner/f1").greater_is_better
    assert not Train(metric_for_best_model="lm/perplexity").greater_is_better
    assert Train(metric_for_best_model="loss", greater_is_better=True).greater_is_better
    for name, value in (("load_best_model_at_end", True), ("early_stopping_patience", 3)):
        with pytest.raises(ValidationError, match=f"{name} needs metric_for_best_model"):
            Train(**{name: value})
