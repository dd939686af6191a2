"""The recipes under specs, as they lie there."""

from __future__ import annotations

from pathlib import Path

import pytest

import brewgraph as bg
from brewgraph.checking.check import check_names, read_spec

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
