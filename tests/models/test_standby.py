"""A teacher that stands by in a user's own loop: whoever takes hold of it gets its weights, and in another number format
its own values.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.diagnostics import RunError
from brewgraph.runtime.distiller import Distiller
from tests.small import WORDS, save, tokenizer, write_data


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Distiller]:
    """Builds the loss of a spec whose teacher's values of the batch are all kept, its `hf` with more options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREWGRAPH_FACTS", str(tmp_path / "facts"))
    write_data(tmp_path)
    save(tmp_path / "bert", width=32, seed=1)
    save(tmp_path / "tiny", layers=1, seed=2)

    def make(options: str = "") -> Distiller:
        (tmp_path / "spec.brew").write_text(
            f'teacher bert = hf("bert"{options})\nstudent tiny = hf("tiny")\ncache auto at "store"\n'
            'data d = files(train="train.jsonl", batch=4, max_length=32)\nloss = kd(bert.logits -> tiny.logits, T=1)\n'
        )
        bg.load("spec.brew").build()(batch())  # the values are written, and the digest of the weights is remembered
        distiller = bg.load("spec.brew").build()
        assert all(p.is_meta for teacher in distiller._teachers for p in teacher.parameters())
        return distiller

    return make


def batch() -> dict[str, Any]:
    """Two texts."""
    return dict(tokenizer()([" ".join(WORDS[:6]), " ".join(WORDS[6:9])], padding=True, return_tensors="pt"))


USES: dict[str, Callable[[Any], torch.Tensor]] = {
    "state dict": lambda teacher: teacher.state_dict()["classifier.bias"],
    "parameters": lambda teacher: next(teacher.parameters()),
    "forward of a part": lambda teacher: teacher.bert(**batch()).pooler_output,
    "deep copy": lambda teacher: copy.deepcopy(teacher)(**batch()).logits,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whoever_takes_hold_of_it(build: Callable[..., Distiller], use: Callable[[nn.Module], torch.Tensor]) -> None:
    """All of it is there, as of a model that is loaded."""
    (teacher,) = build().teachers
    loaded = AutoModelForSequenceClassification.from_pretrained("bert").eval()
    assert torch.equal(use(teacher), use(loaded))


@pytest.mark.parametrize("options", ["", ', device="cpu"', ', dtype="bf16"'])
def test_moved_and_in_another_number_format(build: Callable[..., Distiller], options: str) -> None:
    """A move reads no weight. In another number format its values are computed anew, as a loaded teacher's are."""
    distiller = build(options).to("cpu")
    distiller(batch())
    assert distiller.cached() == {"auto": (0, 2, 0)}
    assert all(p.is_meta for teacher in distiller._teachers for p in teacher.parameters())
    double = distiller.double()(batch()).loss
    assert distiller.cached() == {"auto": (2, 2, 0)}
    assert {p.dtype for p in distiller.teachers[0].parameters()} == {torch.float64}
    teacher, student = (model(**batch()).logits for model in (distiller.teachers[0], distiller.student))
    assert double is not None
    assert torch.isclose(double, kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean"))


def test_loaded_at_its_first_forward(build: Callable[..., Distiller], tmp_path: Path) -> None:
    """Its layers run packed from the first batch on: the loss has the bits of a loaded teacher's."""
    distiller = build()
    shutil.rmtree(tmp_path / "store")
    loss = distiller(batch()).loss
    assert distiller.cached() == {"auto": (2, 0, 0)}
    assert [packing is not None for packing in distiller.program.packings.values()] == [True, True]
    path = tmp_path / "spec.brew"
    path.write_text(path.read_text().replace('cache auto at "store"\n', ""))
    assert torch.equal(loss, bg.load(path).build()(batch()).loss)


def test_a_fault_of_the_batch(build: Callable[..., Distiller]) -> None:
    """Is explained by what is wrong with it, not by where a model is that is not loaded."""
    wrong = {"bert": batch(), "tiny": batch() | {"input_ids": batch()["input_ids"] + 500}}
    with pytest.raises(RunError, match=r"`input_ids` holds 5\d\d, and `tiny` has 120 tokens"):
        build()(wrong)
