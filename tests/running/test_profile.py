"""`brewgraph run --profile`: where a step goes, by node of the loss, and a trace that Perfetto opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brewgraph.checking.check import check, read_spec
from brewgraph.running.profile import STEPS, profile_run
from brewgraph.running.run import Options
from brewgraph.training.reporter import Reporter
from tests.cli.tiny import command
from tests.small import write_pair

SPEC = """teacher bert = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch={batch}, max_length=32)
loss = kd(bert.logits -> tiny.logits) + mse(bert.hidden[1] -> tiny.hidden[1] via linear)
train {{ epochs = 1 }}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a large teacher and a small student."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path, width=128, layers=6)
    (tmp_path / "spec.brew").write_text(SPEC.format(batch=2))
    return tmp_path


def test_each_node_has_its_time(world: Path) -> None:
    """Teachers have no backward pass, the student and projections have one; all parts together are a step."""
    profile = profile_run(check(read_spec(world / "spec.brew")), Options(), Reporter())
    nodes = {x.name: x for x in profile.nodes}
    teacher, student = nodes["forward of bert"], nodes["forward of tiny"]
    assert teacher.backward is None
    assert student.backward is not None
    assert student.backward > 0
    assert teacher.forward > student.forward
    assert nodes["kd(bert.logits -> tiny.logits)"].backward is not None
    assert nodes["tiny.hidden[1] via linear(16 -> 128)"].backward is not None
    assert nodes["optimizer"].forward > 0
    whole = sum(x.forward + (x.backward or 0) for x in profile.nodes)
    assert whole == pytest.approx(profile.step, rel=0.05)
    assert profile.steps == STEPS


def test_the_command(world: Path) -> None:
    """Prints the table, writes the trace, and keeps no run."""
    result = command("run", "spec.brew", "--profile")
    assert result.exit_code == 0, result.stderr
    assert "forward of bert" in result.stdout
    (trace,) = (world / "runs").glob("*/*")
    assert trace.name == "profile.json"
    events = json.loads(trace.read_text())["traceEvents"]
    assert {x["name"] for x in events} >= {"brewgraph: forward of bert", "brewgraph: kd(bert.logits -> tiny.logits)"}


def test_out_names_the_folder_of_the_trace(world: Path) -> None:
    """A run into the same folder goes on as into an empty one, and leaves the trace there."""
    result = command("run", "spec.brew", "--profile", "--out", "here")
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (world / "here").iterdir()] == ["profile.json"]
    assert f"trace: {Path('here/profile.json')}" in result.stdout
    assert not (world / "runs").exists()
    (world / "spec.brew").write_text(SPEC.format(batch=2).replace("epochs = 1", "steps = 1"))
    result = command("run", "spec.brew", "--out", "here", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert {"profile.json", "finished.json"} < {path.name for path in (world / "here").iterdir()}
    (world / "taken").write_text("a file")
    result = command("run", "spec.brew", "--profile", "--out", "taken")
    assert result.exit_code == 3
    assert "the run folder `taken` cannot be written" in result.stderr
    assert "choose another folder with --out" in result.stderr


@pytest.mark.parametrize(
    ("option", "why"), [("--dry-run", "each trains a few steps"), ("--force", "it repeats no run")]
)
def test_options_that_say_nothing_about_a_profile(world: Path, option: str, why: str) -> None:
    """They are refused rather than ignored."""
    result = command("run", "spec.brew", "--profile", option)
    assert result.exit_code == 2
    assert f"--profile and {option} exclude each other ({why}): leave one of them out" in result.stderr
    assert not (world / "runs").exists()
