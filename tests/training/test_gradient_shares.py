"""What each term gives to the gradient on the student, and that measuring it changes no number of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.training.gradient_shares import _gradient
from tests.small import metrics, project, write_spec
from tests.training.test_loop import on_two_ranks, training
from tests.training.test_shards import FSDP2

GROUPS = ("gradient_norms", "gradient_shares", "gradient_cosines")
REPORT = "; report = [gradient_shares]"
PLAIN = (
    "optimizer = adamw(lr=1e-3, eps=1e-5); schedule = linear(warmup=40%)",
    "optimizer = sgd(lr=1); schedule = constant(); max_grad_norm = none",
)


def groups(folder: Path) -> list[dict[str, Any]]:
    """What was measured, line by line."""
    return [{name: line[name] for name in GROUPS} for line in metrics(folder) if "loss" in line]


@pytest.mark.parametrize("more", ["", "accumulate = 2; ", "gradient_checkpointing = true; ", "normalise = micro; "])
def test_measuring_changes_no_number(more: str, tmp_path: Path):
    """Weights to the bit, every loss and every score, with dropout drawn anew in each step."""
    spec = project(tmp_path, dropout=True, train=f"{more}steps = 3")
    every_second = spec.read_text().replace("logging_steps = 1", "logging_steps = 2")
    spec.write_text(every_second)
    weights, without = training(spec, tmp_path / "without")
    spec.write_text(every_second.replace("steps = 3", f"steps = 3{REPORT}"))
    again, measured = training(spec, tmp_path / "measured")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert [{k: x for k, x in line.items() if k not in GROUPS} for line in measured] == without
    assert [bool(line.get("gradient_shares")) for line in measured if "loss" in line] == [True, True]
    for line in groups(tmp_path / "measured"):
        assert sum(line["gradient_shares"].values()) == pytest.approx(1)
        assert list(line["gradient_shares"]) == list(line["gradient_cosines"])


def test_norms_are_those_of_the_gradients_that_train(tmp_path: Path):
    """A step of plain descent at a rate of 1 moves the student by its gradient: of the loss, and of one term alone."""

    def moved(loss: str, name: str) -> float:
        write_spec(tmp_path, loss=loss, train=f"steps = 1{REPORT}")
        spec.write_text(spec.read_text().replace(*PLAIN))
        weights, _ = training(spec, tmp_path / name)
        before = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tiny").state_dict()
        return math.sqrt(sum(float((weights[f"student.{k}"] - x).double().square().sum()) for k, x in before.items()))

    spec = project(tmp_path)
    loss = moved("soft + 0.3 * hard + sum(hidden)", "all")
    (line,) = groups(tmp_path / "all")
    norms = line["gradient_norms"]
    assert list(norms) == ["loss", "soft", "hard", "hidden[0]", "hidden[1]"]
    assert norms["loss"] == pytest.approx(loss, rel=1e-4)
    assert norms["hard"] == pytest.approx(moved("0.3 * hard", "one"), rel=1e-4)
    assert line["gradient_shares"]["hard"] == pytest.approx(norms["hard"] / (sum(norms.values()) - norms["loss"]))
    (alone,) = groups(tmp_path / "one")
    assert alone["gradient_shares"] == {"hard": 1.0}
    assert alone["gradient_cosines"]["hard"] == pytest.approx(1, abs=1e-6)
    # the gradients of terms add up to that of the loss, so their projections on it do
    assert sum(norms[k] * x for k, x in line["gradient_cosines"].items()) == pytest.approx(norms["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "more", "environment"),
    [(8, "", {}), (4, "accumulate = 2; ", {}), (8, "", FSDP2)],
    ids=["ranks", "parts", "shards"],
)
def test_two_ranks_measure_as_one(
    batch: int, more: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two ranks of 4, 2 x 2 of each, and two ranks that shard measure what one of 8 does."""
    spec = project(tmp_path, batch=8, train=f"steps = 2{REPORT}")
    training(spec, tmp_path / "whole")
    write_spec(tmp_path, batch=batch, train=f"{more}steps = 2{REPORT}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    on_two_ranks(spec, tmp_path / "ranks")
    for one, other in zip(groups(tmp_path / "ranks"), groups(tmp_path / "whole"), strict=True):
        for group in GROUPS:
            assert one[group] == pytest.approx(other[group], rel=1e-3, abs=1e-5)


def test_small_gradients_of_fp16_are_measured():
    """In fp16 a gradient of 1e-8 is zero; the scale of the step's own scaler keeps it."""
    weight, one = torch.ones(3, dtype=torch.float16, requires_grad=True), torch.ones(3, dtype=torch.float16)

    def small(scale: float) -> torch.Tensor:
        value = 1e-8 * (weight * one).float().sum()
        (gradient,) = _gradient(value, [weight], 0.5, scale, last=True)
        return gradient

    assert small(1.0).tolist() == [0.0] * 3
    assert small(2.0**16).tolist() == pytest.approx([0.5e-8] * 3, rel=0.01)
    assert _gradient(torch.ones(()), [weight], 1.0, 1.0, last=True)[0].tolist() == [0.0] * 3


def test_compiled_layers_are_refused(tmp_path: Path):
    """At the check, with the remedy."""
    spec = project(tmp_path, train=f"steps = 1; compile = true{REPORT}")
    with pytest.raises(bg.SpecError, match=r"compile and report = \[gradient_shares\] do not go together.*remove one"):
        check(read_spec(spec), {})


def test_an_equation_of_this_name_is_refused(tmp_path: Path):
    """A report of that name would not tell which of the two it is."""
    spec = project(tmp_path, train=f"steps = 1{REPORT}")
    spec.write_text(spec.read_text().replace("loss =", "gradient_shares = 2 * hard\nloss ="))
    with pytest.raises(bg.SpecError, match=r"is a word of `report`.*\n(.*\n)*.*rename the equation"):
        check(read_spec(spec), {})
