"""`brewgraph new`: starters that are sound, and files that are never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.paths import shipped_text
from tests.cli.tiny import command


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_quickstart_is_two_specs_in_a_folder_and_sound(here: Path):
    """What is written is said, with what to do next, and the check finds nothing."""
    result = command("new")
    assert (result.exit_code, result.stdout) == (
        0,
        "wrote quickstart/student.brew\nwrote quickstart/teacher.brew\n"
        "next: brewgraph check quickstart/student.brew, then brewgraph run quickstart/student.brew\n",
    )
    assert (here / "quickstart/student.brew").read_text() == shipped_text("specs/quickstart/student.brew")
    assert command("check", "quickstart/student.brew").stdout == "quickstart/student.brew: fine\n"


def test_the_student_can_have_another_name(here: Path):
    """`new my.brew` writes it under that name, its teacher beside it."""
    result = command("new", "deep/my.brew")
    assert result.stdout.splitlines()[:2] == ["wrote deep/my.brew", "wrote deep/teacher.brew"]
    assert command("new", "teacher.brew").exit_code == 2


def test_mnli_is_one_spec(here: Path):
    """It is sound as far as it can be known without the hub, and formatted."""
    result = command("new", "--from", "mnli", "m.brew")
    assert result.stdout == "wrote m.brew\nnext: brewgraph check m.brew, then brewgraph run m.brew\n"
    assert command("check", "m.brew", "-q").exit_code == 0
    assert command("fmt", "--check", "m.brew").exit_code == 0


def test_nothing_is_overwritten(here: Path):
    """Where one of the files exists, none is written; exit code 2."""
    (here / "teacher.brew").write_text("mine")
    result = command("new", "my.brew")
    assert (result.exit_code, result.stderr) == (2, "error: `teacher.brew` exists already; name another file\n")
    assert sorted(p.name for p in here.iterdir()) == ["teacher.brew"]
    assert (here / "teacher.brew").read_text() == "mine"


def test_an_unknown_starter_ends_with_2():
    """The known ones are listed."""
    result = command("new", "--from", "nothing")
    assert result.exit_code == 2
    assert "quickstart" in result.output


def test_the_tutorial_is_a_folder_of_specs_and_data(here: Path):
    """Two specs and three files of rows; the teacher's spec is sound, and the student's once its teacher exists."""
    result = command("new", "t", "--from", "tutorial")
    assert result.stdout.splitlines() == [
        *(f"wrote t/{name}" for name in ("teacher.brew", "student.brew", "train.csv", "dev.csv", "new.csv")),
        "next: brewgraph check t/teacher.brew, then brewgraph run t/teacher.brew",
    ]
    assert command("check", "t/teacher.brew", "--data").exit_code == 0
    assert command("fmt", "--check", "t").exit_code == 0
    assert command("new", "t.brew", "--from", "tutorial").exit_code == 2
