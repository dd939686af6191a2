"""`brewgraph diff`: text, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny import command, write_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The tiny spec."""
    return write_tiny(tmp_path)


def changed(tiny: Path, *changes: tuple[str, str]) -> str:
    """The spec beside it with other words."""
    text = tiny.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    other = tiny.parent / "other.brew"
    other.write_text(text)
    return str(other)


def test_changes_in_lines(tiny: Path) -> None:
    """Added, removed and changed, each in one line, with the first spec's names; the exit code is 0 all the same."""
    other = changed(
        tiny, ("soft + 0.5 * hard", "soft"), ("hidden[0, 2]", "hidden[0, 1]"), ("steps = 2", "optimizer = adamw(lr=1e-4)"),
        ("small", "mini"), ("soft", "gentle"), ("hidden_size=16", "hidden_size=8"),
    )  # fmt: skip
    result = command("diff", str(tiny), other)
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("hash ")
    assert lines == [
        "~ student small: hidden_size 16 -> 8",
        "- term hard: 0.5 * ce(rows.labels -> small.logits)",
        "~ term hidden[1]: tap big.hidden[2] -> big.hidden[1]",
        "~ setting epochs: none -> 3",
        "~ setting steps: 2 -> none",
        "~ setting optimizer.lr: 5e-05 -> 0.0001",
    ]


def test_one_spec_at_two_params(tiny: Path) -> None:
    """`--then` is for the second alone; `--exit-code` tells scripts."""
    result = command("diff", str(tiny), "--then", "T=8", "--exit-code")
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (1, ["~ term soft: T 2 -> 8"])
    result = command("diff", str(tiny), "--set", "T=8", "--exit-code")
    assert result.exit_code == 0
    assert result.stdout.startswith("the same: hash ")


def test_changes_as_json(tiny: Path) -> None:
    """Everything that the lines say, with the lines of both specs."""
    result = command("diff", str(tiny), changed(tiny, ("0.5 * hard", "hard")), "--format", "json")
    found = json.loads(result.stdout)
    assert (found["same"], len(set(found["hashes"])), found["notes"]) == (False, 2, [])
    assert found["changes"] == [
        {"how": "changed", "subject": "term", "name": "hard", "aspect": "weight", "before": "0.5", "after": "1",
         "where": "", "lines": [11, 11]}
    ]  # fmt: skip


def test_another_spec_behind_a_teacher(tiny: Path) -> None:
    """What the teacher's own spec trains is part of what is compared, though its path is the same."""
    there = tiny.parent / "there"
    there.mkdir()
    other = write_tiny(there)
    assert command("diff", str(tiny), str(other)).stdout.startswith("the same: hash ")
    teacher = there / "teacher.brew"
    teacher.write_text(teacher.read_text().replace("steps = 2", "steps = 4"))
    lines = command("diff", str(tiny), str(other)).stdout.splitlines()
    assert [line[: line.rindex(" content ")] for line in lines[1:]] == ["~ teacher big:"]
