"""A name of a spec explained in lines and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brewgraph.cli.explain import print_name
from brewgraph.diagnostics import UsageError
from tests.cli.tiny import command, write_tiny


def test_a_term_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything in 80 columns; params are taken."""
    spec = str(write_tiny(tmp_path))
    print_name("soft", spec, ["T=7"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"soft: term, {spec}:10"
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "equation kd(big.logits -> small.logits, T=7)", "weight 1", "mean over examples", "shape one number"
    ]  # fmt: skip
    said = " ".join(" ".join(lines).split())
    # a step on this term alone: both models, no projections, no labels
    assert "cost alone 5.4 MFLOP forward" in said
    assert "made from big.logits, small.logits, teacher big, student small, data rows feeds loss" in said
    assert max(map(len, lines)) <= 80


def test_a_model_as_json(tmp_path: Path) -> None:
    """The same for machines, with the layers that run, by the command."""
    result = command("explain", "big", str(write_tiny(tmp_path)), "--format", "json")
    (found,) = json.loads(result.stdout)
    assert (found["kind"], found["line"]) == ("teacher model", 5)
    assert ["layers", "2 of 2 run"] in found["facts"]
    assert found["downstream"] == ["soft", "0.5 * hidden[0]", "0.5 * hidden[1]"]


def test_a_name_that_is_none(tmp_path: Path) -> None:
    """A near one is offered."""
    with pytest.raises(UsageError, match="did you mean `hard`"):
        print_name("hart", str(write_tiny(tmp_path)))
