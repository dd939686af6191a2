"""Every pass leaves loss, gradients and trained weights as they are without it, and saves what it is there to save."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import brewgraph as bg
from brewgraph.diagnostics import UsageError
from brewgraph.graph.optimizing import NAMES
from brewgraph.project.build import Workshop
from brewgraph.runtime.distiller import Distiller
from tests.project.small import metrics, save, write_data
from tests.runtime.test_distiller import batch

SPEC = """brew 1
teacher bert = hf("bert")
teacher other = hf("other")
student tiny = hf("{student}")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
let map = [0, 2] -> [0, 1]
soft = kd(bert.logits -> tiny.logits, T=4)
hard = ce(d.labels -> tiny.logits)
second = kd(other.logits -> tiny.logits)
rows = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
low = mse(bert.hidden[1] -> tiny.hidden[0] via linear)
again = mse(bert.hidden[1] -> tiny.hidden[0] via linear)
looks = mse(bert.attention[1] -> tiny.attention[0])
gram = nst(bert.hidden[map] -> tiny.hidden[map])
far = nst(bert.hidden[3] -> tiny.hidden[2])
twice = kl(tiny.logits -> tiny(pass=2).logits)
loss = {loss}
train {{ {train}; optimizer = adamw(lr=1e-2, eps=1e-5, weight_decay=0.1); schedule = constant(); logging_steps = 3 }}
"""
LOSSES = {
    "layers": "low + sum(gram)",
    "zero": "0 * soft + 0 * sum(rows) + hard",
    "zero inside": "0.5 * (0 * second + soft) + hard",
    "nothing left": "0 * soft",
    "schedule": "after(50%) * soft + hard + piecewise(0%: 1, 30%: 0) * sum(rows)",
    "schedule alone": "after(50%) * soft",
    "difference": "hard - after(50%) * (soft + second)",
    "two passes": "hard + after(50%) * twice",
    "attention": "looks + hard + after(50%) * low",
    "rows": "sum(rows) + 0.5 * sum(gram) + low + again",
    "same": "gram[0] + 0.5 * nst(bert.hidden[0] -> tiny.hidden[0]) + soft + kd(bert.logits -> tiny.logits, T=4)",
    "stopped": "after(50%) * kd(bert.logits -> stop(tiny.logits)) + low",
}  # fmt: skip
"""Losses in which each pass has something to do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, two teachers of four and of two layers, and two students of two layers, one of them with dropout."""
    path = tmp_path_factory.mktemp("passes")
    write_data(path)
    save(path / "bert", width=32, layers=4, seed=1)
    save(path / "other", width=16, layers=2, seed=2)
    save(path / "plain", width=16, layers=2, seed=3)
    save(path / "drops", width=16, layers=2, seed=3, dropout=True)
    return path


def spec(folder: Path, loss: str, student: str = "plain", train: str = "steps = 6") -> Path:
    """The spec of these tests with a loss."""
    path = folder / "spec.brew"
    path.write_text(SPEC.format(loss=loss, student=student, train=train))
    return path


def build(folder: Path, loss: str, student: str = "plain", skip: tuple[str, ...] = ()) -> Distiller:
    """The distiller of a loss, in double precision, where rounding cannot be mistaken for another number."""
    return bg.load(spec(folder, loss, student)).build(skip=skip).double()


Step = tuple[Tensor, dict[str, Tensor | None], dict[str, Tensor]]


def steps(distiller: Distiller, count: int = 5) -> Iterator[Step]:
    """Loss, gradients and terms of some steps of AdamW through the whole of training."""
    own = dict(distiller.named_parameters())
    optimizer = torch.optim.AdamW(own.values(), lr=0.01, weight_decay=0.1)
    torch.manual_seed(11)
    for i in range(count):
        distiller.progress = i / count
        output = distiller(batch())
        output.loss.backward()
        yield (
            output.loss.detach(),
            {k: None if p.grad is None else p.grad.clone() for k, p in own.items()},
            output.terms,
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


EXACT = frozenset(NAMES) - {"merge_equal_nodes", "batch_equal_losses", "narrow_attention"}
"""Passes that leave every single operation as it is, and with it every bit (eager and fused attention round apart)."""


def assert_equal(folder: Path, name: str, student: str, skips: Iterable[tuple[str, ...]]) -> None:
    """Losses, terms and gradients of five steps with all passes are those without some of them."""
    everything = list(steps(build(folder, LOSSES[name], student)))
    for skip in skips:
        compare = {"rtol": 0.0, "atol": 0.0} if EXACT.issuperset(skip) else {"rtol": 1e-6, "atol": 1e-9}
        said = lambda text, skip=skip: f"{name} without {skip}: {text}"  # noqa: E731
        for one, other in zip(everything, steps(build(folder, LOSSES[name], student, skip)), strict=True):
            torch.testing.assert_close(one[0], other[0], **compare, msg=said)
            assert {k for k, g in one[1].items() if g is None} == {k for k, g in other[1].items() if g is None}, skip
            for key, gradient in one[1].items():
                torch.testing.assert_close(gradient, other[1][key], **compare, msg=said)
            for term, value in one[2].items():
                torch.testing.assert_close(value, other[2][term], **compare, msg=said)


@pytest.mark.parametrize("name", LOSSES)
def test_all_passes_together_change_no_number(folder: Path, name: str) -> None:
    """With a student that draws dropout, and under AdamW, whose weight decay and means act where a gradient is zero."""
    assert_equal(folder, name, "drops", [NAMES])


@pytest.mark.slow
@pytest.mark.parametrize("student", ["plain", "drops"])
@pytest.mark.parametrize("name", LOSSES)
def test_no_pass_changes_a_number(folder: Path, name: str, student: str) -> None:
    """Each pass by itself, bit for bit where no operation is another one."""
    assert_equal(folder, name, student, [*((one,) for one in NAMES), NAMES])
