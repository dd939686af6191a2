"""An adapted student through the stages of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import brewgraph as bg
from tests.running.test_averages import Interrupting
from tests.small import metrics, save, write_data

SPEC = """teacher big = hf("big")
student tiny = hf("tiny", adapter=lora(r=2, alpha=4, dropout=0.1))
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4)
hidden = mse(big.hidden[1] -> tiny.hidden[1] via linear)
stage one for 2 steps { loss = hidden }
stage two for 3 steps { loss = kd(big.logits -> tiny.logits) + hidden; train { freeze = [tiny @ "classifier"] } }
stage three for 2 steps { loss = ce(d.labels -> tiny.logits) }
train { optimizer = adamw(lr=1e-2); logging_steps = 1; save_steps = 1 steps; baseline = true }
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["two", "three"])
def test_an_interrupted_run_of_an_adapted_student_ends_as_a_whole_one(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapter, head and projections go on where the checkpoint left them; the baseline of such a run is not repeated."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    save(tmp_path / "big", width=32, layers=1)
    save(tmp_path / "tiny", layers=1, dropout=True)
    spec = tmp_path / "spec.brew"
    spec.write_text(SPEC)
    whole = bg.run(spec, out=tmp_path / "whole")

    class Later(Interrupting):
        """Breaks off in the distilled student, not in its baseline."""

        def begin(self, name: str, steps: int, done: int) -> None:
            self.stage = "" if "without" in name else name.rpartition(" ")[2]

    with pytest.raises(KeyboardInterrupt):
        bg.run(spec, out=tmp_path / "out", reporter=Later(stage, 2))
    result = bg.run(spec, out=tmp_path / "out")
    assert metrics(result.folder) == metrics(whole.folder)
    assert [row.name for row in whole.table] == ["big", "tiny alone", "tiny"]
    assert [(row.name, row.scores) for row in result.table] == [(row.name, row.scores) for row in whole.table]
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        found, expected = (load_file(run.folder / "student" / file) for run in (result, whole))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
