"""The README keeps its word: its spec is the quickstart's, its commands and targets are there, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import brewgraph as bg
from brewgraph.cli.main import COMMANDS
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
QUICKSTART = REPOSITORY / "specs" / "quickstart"


def block(language: str) -> str:
    """The first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.S)
    assert found, f"the README has no {language} block"
    return found[1]


def test_its_spec_is_the_quickstart(tmp_path: Path) -> None:
    """The spec that the README opens with computes what `make quickstart` runs, trains alike, and is formatted."""
    shutil.copy(QUICKSTART / "teacher.brew", tmp_path)
    spec = tmp_path / "student.brew"
    spec.write_text(block("brew"))
    shown, run = bg.load(spec), bg.load(QUICKSTART / "student.brew")
    assert shown.graph.graph == run.graph.graph
    assert shown._checked.recipe.train == run._checked.recipe.train
    assert bg.format_text(block("brew")) == block("brew")


def test_its_commands_exist() -> None:
    """Every `brewgraph VERB` and every `make TARGET` of the README is there."""
    verbs = set(re.findall(r"(?:`|\$ )brewgraph ([a-z]+)", README))
    assert {"run", "check", "plan", "graph", "fmt", "ops", "new"} <= verbs <= set(COMMANDS)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z]+)`", README)) | set(re.findall(r"^\$ make ([a-z]+)", README, re.M))
    assert targets == {"quickstart", "test", "site"}
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_its_links_lead_somewhere(target: str) -> None:
    """A link names a file or folder of the repository."""
    assert (REPOSITORY / target).exists()
