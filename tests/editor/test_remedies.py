"""Edits from the remedies of diagnostics: each is tried before it is offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.editor.analysis import Analysis, Fault, analyse
from brewgraph.editor.remedies import remedies
from brewgraph.source import Source

SPEC = """\
brew 1
param T = 4
teacher big = hf("b")
student tiny = hf("t")
data d = glue("mnli")
soft = kd(big.logits -> tiny.logits, T=T)
loss = soft + ce(d.labels -> tiny.logits)
train { epochs = 3 }
"""


def read(text: str) -> Analysis:
    return analyse(Source(text, "spec.brew"))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("big.logits", "bigg.logits"),
        ("big.logits", "big.logit"),
        ("kd(big", "kdd(big"),
        ("epochs = 3", "epoch = 3"),
        ('glue("mnli")', 'gleu("mnli")'),
        ('glue("mnli")', 'glue("mnl")'),
        ("ce(d.labels", "ce(d.label"),
    ],
)
def test_a_slip_is_corrected_by_an_edit(right: str, wrong: str):
    """The suggested name replaces the wrong one, and the text is the right one again."""
    analysis = read(SPEC.replace(right, wrong, 1))
    offered = [edit.applied(analysis.source.text) for x in analysis.faults for edit in remedies(x, analysis, read)]
    assert SPEC in offered


def test_no_edit_is_offered_that_leaves_the_fault():
    """A remedy that must be filled in, or that does not help, is no edit."""
    analysis = read(SPEC.replace("student tiny", "teacher tiny"))
    assert [x.code for x in analysis.faults] == ["B107"]
    assert remedies(analysis.faults[0], analysis, read) == []


def test_a_projection_is_added_where_widths_differ():
    """A fault of shapes, which only models tell, has its edit, too."""
    text = SPEC.replace("loss = soft", "h = mse(big.hidden[1] -> tiny.hidden[1])\nloss = soft + h")
    start = text.index("tiny.hidden[1]")
    fault = Fault("B204", "widths differ", "add a projection: `tiny.hidden[1] via linear`", "", start, start + 14)
    first, *_ = remedies(fault, read(text), read)
    assert first.applied(text) == text.replace("tiny.hidden[1])", "tiny.hidden[1] via linear)")


def test_a_warning_can_be_silenced():
    """Above the statement, with its indentation; the warning is gone then."""
    text = SPEC.replace("train {", "task ner {\n    T = 2\n}\ntrain {")
    analysis = read(text)
    fault = next(x for x in analysis.faults if x.code == "W101")
    edit = remedies(fault, analysis, read)[-1]
    after = edit.applied(text)
    assert (edit.title, "    # brew: ignore[W101]\n    T = 2" in after) == ("ignore W101 here", True)
    assert "W101" not in [x.code for x in read(after).faults]


def test_faults_of_another_file_stand_where_it_is_named(tmp_path: Path):
    """A fault in an imported spec is shown at the import, with its own place beside it."""
    (tmp_path / "lib.brew").write_text("x = )\n")
    source = Source(SPEC.replace("brew 1", 'brew 1\nimport "lib.brew" as lib'), str(tmp_path / "spec.brew"))
    fault = next(x for x in analyse(source).faults if x.spots)
    assert source.text[fault.start : fault.end] == 'import "lib.brew" as lib'
    assert (Path(fault.spots[0].file).name, fault.spots[0].row, fault.spots[0].column) == ("lib.brew", 0, 4)
