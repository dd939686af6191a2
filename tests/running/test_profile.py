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
    (trace,) = (world / "runs").iterdir()
    events = json.loads(trace.read_text())["traceEvents"]
    assert {x["name"] for x in events} >= {"brewgraph: forward of bert", "brewgraph: kd(bert.logits -> tiny.logits)"}
