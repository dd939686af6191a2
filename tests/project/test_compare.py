"""The closing table: who has a row in it."""

from __future__ import annotations

from pathlib import Path

import pytest

import brewgraph as bg
from tests.project.small import rows, save, write_data, write_rows
from tests.project.test_run import Steps

SPEC = """teacher early = hf("early")
teacher late = hf("late")
teacher elsewhere = hf("late")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4)
data other = files(train="other.jsonl", dev="dev.jsonl", batch=4)
stage one for 1 steps { loss = kd(early(d).logits -> tiny(d).logits) }
stage two for 1 steps { loss = kd(elsewhere(other).logits -> tiny(other).logits) }
stage three for 1 steps { loss = kd(late(d).logits -> tiny(d).logits) }
"""


def test_a_teacher_of_an_earlier_stage_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it taught on the data of the last stage; else it is said why there is none."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, train=4, dev=4)
    write_rows(tmp_path / "other.jsonl", rows(4, 7))
    for name in ("early", "late", "tiny"):
        save(tmp_path / name, layers=1)
    (tmp_path / "spec.brew").write_text(SPEC)
    reporter = Steps()
    result = bg.run(tmp_path / "spec.brew", reporter=reporter)
    assert [row.name for row in result.table] == ["early", "late", "tiny"]
    assert all("accuracy" in row.scores for row in result.table)
    said = "elsewhere has no score in the table: it is a teacher on other, and the last stage is on d"
    assert [text for text in reporter.said if "no score" in text] == [said]
