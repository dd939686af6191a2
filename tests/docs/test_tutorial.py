"""The tutorial does what it says: its spec is the one that `brewgraph new` writes, and its commands run in order."""

from __future__ import annotations

import csv
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.tiny import command
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
SPECS = REPOSITORY / "specs" / "tutorial"
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


def test_it_has_five_steps() -> None:
    assert re.findall(r"^## (\d)\. ", TEXT, re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_its_spec_is_the_one_that_is_written() -> None:
    block = re.search(r"```brew\n(.*?)```", TEXT, re.DOTALL)
    assert block
    assert block[1] == (SPECS / "student.brew").read_text(encoding="utf-8")


def test_its_rows_are_those_that_are_written() -> None:
    """The rows that it shows, their number, and the length of a row."""
    lines = (SPECS / "train.csv").read_text(encoding="utf-8").splitlines()
    assert "\n".join(lines[:3]) in TEXT
    assert f"on {len(lines) - 1} messages" in TEXT
    with (SPECS / "dev.csv").open(encoding="utf-8") as file:
        dev = {row["message"] for row in csv.DictReader(file)}
    with (SPECS / "train.csv").open(encoding="utf-8") as file:
        assert not dev & {row["message"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command, in order, with two steps of training in place of epochs; the report and the predictions are there."""
    monkeypatch.chdir(tmp_path)
    run = ""
    for line in COMMANDS:
        words = shlex.split(line.removeprefix("$ "))
        if words[0] == "cd":
            monkeypatch.chdir(Path.cwd() / words[1])
            for spec in Path.cwd().glob("*.brew"):
                shorter = re.sub(r"epochs +=.*?(?=;|\n)", "steps = 2", spec.read_text(encoding="utf-8"))
                spec.write_text(shorter, encoding="utf-8")
            continue
        result = command(*(run if word == "RUN" else word for word in words[1:]))
        assert result.exit_code == 0, (line, result.output)
        if words[1:] == ["run", "student.brew"]:
            named = re.search(r"the student is in (\S+)/student", result.stdout)
            assert named
            run = named[1]
    assert {"report.html", "student"} <= set(os.listdir(run))
    assert len((Path.cwd() / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 7
