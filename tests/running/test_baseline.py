"""The student without its teacher: what is left of the loss, what is said of it, and what is looked at before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.training.reporter import Reporter
from tests.small import LABELS, WORDS, project, write_rows


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


class Names(Reporter):
    """Remembers what was trained, and for how many steps in all."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []

    def begin(self, name: str, steps: int, done: int) -> None:
        self.trained.append((name, steps))


def line_of(spec: Path, start: str) -> int:
    """The first line that begins so, from 1."""
    return next(n for n, line in enumerate(spec.read_text().splitlines(), 1) if line.startswith(start))


def test_a_baseline_of_nothing_is_found_by_check(tmp_path: Path) -> None:
    """Before any teacher is loaded or trained; without `baseline` the same loss is sound."""
    spec = project(tmp_path, loss="soft", train="steps = 1; baseline = true")
    (fault,) = bg.check(spec)
    assert (fault.code, fault.message) == ("B335", "`baseline = true`, but every term of the loss needs a teacher")
    assert (fault.span.position[0], fault.span.text) == (line_of(spec, "train {"), "true")
    # what is left of the project's terms is lost, and that is all there is to say
    assert {d.code for d in bg.check(project(tmp_path, loss="soft", train="steps = 1"))} == {"W205"}


def test_stages_that_a_baseline_does_not_have_are_named(tmp_path: Path) -> None:
    """The baseline skips the stage of the teacher's terms, and is said to train for less; so it does."""
    spec = project(tmp_path, train="baseline = true")
    lines = spec.read_text().splitlines()
    stages = (
        "stage inner for 2 steps { loss = sum(hidden) + sum(gram) }\nstage outer for 3 steps { loss = soft + hard }\n"
    )
    lines[line_of(spec, "loss =") - 1] = stages
    spec.write_text("\n".join(lines))
    (warning,) = bg.check(spec)
    assert (warning.code, warning.message) == ("W303", "the baseline skips `inner`: every term there needs a teacher")
    reporter = Names()
    bg.run(spec, reporter=reporter)
    alone = "spec without its teacher"
    assert reporter.trained == [(f"{alone}: outer", 3), ("spec: inner", 2), ("spec: outer", 3)]


def test_a_baseline_may_be_asked_for_later(tmp_path: Path) -> None:
    """The student that is there stays as it is; the baseline alone is trained, and the table has both."""
    spec = project(tmp_path, train="steps = 2; baseline = false")
    before = bg.run(spec)
    saved = (before.folder / "student" / "model.safetensors").read_bytes()
    spec.write_text(spec.read_text().replace("baseline = false", "baseline = true"))
    reporter = Names()
    after = bg.run(spec, reporter=reporter)
    assert (after.folder, after.fresh, reporter.trained) == (before.folder, True, [("spec without its teacher", 2)])
    assert [row.name for row in after.table] == ["bert", "tiny alone", "tiny"]
    assert (after.folder / "student" / "model.safetensors").read_bytes() == saved
    assert after.table[-1].scores == pytest.approx(before.table[-1].scores)
    again = bg.run(spec, reporter=reporter)
    assert (again.fresh, again.table, len(reporter.trained)) == (False, after.table, 1)


def test_a_teacher_that_numbers_its_classes_otherwise_stops_before_the_baseline(tmp_path: Path) -> None:
    """Its rows of the classifier are turned around on disk, its label names are not: nothing trains for it."""
    spec = project(tmp_path, train="steps = 1; baseline = true")
    words = {"bad": "worst", "fair": "times", "good": "light"}
    ends = [f"{one} {two}" for one in WORDS[:10] for two in WORDS[5:9]]
    told = [{"text": f"{words[label]} of {end}", "label": label} for label in LABELS for end in ends]
    write_rows(tmp_path / "train.jsonl", told)
    teach = tmp_path / "teach.brew"
    teach.write_text(
        'student bert = hf("bert")\n'
        'data d = files(train="train.jsonl", text=text, label=label, batch=20, max_length=32)\n'
        "loss = ce(d.labels -> bert.logits)\n"
        "train { steps = 40; optimizer = adamw(lr=3e-3) }\n"
    )
    folder = bg.run(teach).folder / "student"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    model.save_pretrained(tmp_path / "bert")
    reporter = Names()
    with pytest.raises(bg.SpecError, match="`bert`") as raised:
        bg.run(spec, reporter=reporter)
    assert [d.code for d in raised.value.diagnostics] == ["B332"]
    assert reporter.trained == []
