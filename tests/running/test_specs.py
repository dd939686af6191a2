"""The recipes under specs, as they lie there."""

from __future__ import annotations

from pathlib import Path

import pytest

import brewgraph as bg
from brewgraph.checking.check import check, check_names, read_spec
from brewgraph.diagnostics import SpecError

SPECS = Path(__file__).parents[2] / "specs"
THERE = (path for folder in ("papers", "textbrewer") for path in (SPECS / folder).glob("**/*.brew"))
RECIPES = sorted(path for path in THERE if "runs" not in path.relative_to(SPECS).parts)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(SPECS)))
def test_every_recipe_is_formatted_and_its_names_are_sound(path: Path) -> None:
    """Without any model or data; what is imported, a library of functions, has no loss of its own."""
    text = path.read_text()
    assert bg.format_text(text) == text
    assert max(map(len, text.splitlines())) <= 120
    if path.parent.name == "lib":
        assert "loss =" not in text
    else:
        check_names(read_spec(path), {})


PAPERS = [path for path in RECIPES if path.is_relative_to(SPECS / "papers") and path.parent.name != "lib"]


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(SPECS / "papers")))
def test_papers_check_as_they_are(path: Path) -> None:
    """On the few rows beside them: without a network only the models of the hub are unchecked."""
    checked = check(read_spec(path), {})
    assert {warning.code for warning in checked.warnings} <= {"W301", "W204"}
    facts = checked.facts.data_facts
    assert facts
    assert all(known is not None for known in facts.values())
    assert all("rows" in file for data in checked.recipe.data.values() for file in data.source.files.values())


def test_papers_still_check_what_they_are_given() -> None:
    """A file that is not there is a fault, whatever the default."""
    with pytest.raises(SpecError) as error:
        check(read_spec(SPECS / "papers" / "r-drop.brew"), {"train": "nowhere.jsonl"})
    assert [x.code for x in error.value.diagnostics if x.severity == "error"] == ["B401"]
