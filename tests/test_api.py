"""What the public verbs say beside what they return: warnings at the caller's line, notes in the log."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

import brewgraph as bg
from tests.project.small import project

LOST = "x = ce(d.labels -> tiny.logits)"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec with one warning: a term that no loss reaches."""
    path = project(tmp_path, train="steps = 1")
    path.write_text(path.read_text().replace("loss = ", f"{LOST}\nloss = ", 1))
    assert [d.code for d in bg.check(path)] == ["W205"]
    return path


@pytest.mark.parametrize("verb", ["load", "loads", "run"])
def test_warnings_are_given_at_the_callers_line(verb: str, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, place and remedy, as the command prints them; once, also where a run checks and trains."""
    monkeypatch.chdir(spec.parent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", bg.BrewWarning)
        {"load": bg.load, "loads": lambda path: bg.loads(path.read_text()), "run": bg.run}[verb](spec)
    (warning,) = [w for w in caught if issubclass(w.category, bg.BrewWarning)]
    assert warning.filename == __file__
    assert warning.message.diagnostic.code == "W205"
    head, place, *_, help = str(warning.message).splitlines()
    line = spec.read_text().splitlines().index(LOST) + 1
    assert head.startswith("W205: ")
    assert place.strip() == f"--> {'<string>' if verb == 'loads' else spec}:{line}:1"
    assert "= help: " in help


def test_a_recipe_that_is_built_has_warned_already(spec: Path) -> None:
    """`build` and `plan` say nothing anew."""
    with pytest.warns(bg.BrewWarning, match="W205"):
        recipe = bg.load(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.build()
        recipe.plan(cost=False)
    assert [d.code for d in recipe.warnings] == ["W205"]


def test_one_kind_can_be_filtered(spec: Path) -> None:
    """By the category and the code with which the text begins; in a spec by its comment."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(bg.BrewWarning, match="W205"):
            bg.load(spec)
        warnings.filterwarnings("ignore", "W205", bg.BrewWarning)
        bg.load(spec)
        warnings.filterwarnings("error", "W205", bg.BrewWarning)
        spec.write_text(spec.read_text().replace(LOST, f"{LOST}  # brew: ignore[W205] later"))
        bg.load(spec)


def test_a_run_logs_what_the_command_prints(spec: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Steps with their losses, scores, notes; under the name `brewgraph`."""
    caplog.set_level(logging.INFO, "brewgraph")
    with pytest.warns(bg.BrewWarning):
        result = bg.run(spec)
    with pytest.warns(bg.BrewWarning):
        bg.run(spec)
    told = [record.getMessage() for record in caplog.records if record.name == "brewgraph"]
    assert told[0] == "spec: 1 steps"
    assert any(line.startswith("step 1: loss ") and ", soft " in line for line in told)
    assert told[-1] == f"{result.folder} is finished already; --force runs it again"
