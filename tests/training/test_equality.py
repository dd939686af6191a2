"""The equation in a spec means what a loop written by hand computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.data.batching.order import BatchOrder, derive_seed, loader
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.folder import RunFolder
from brewgraph.training.loop import train
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import StageWork
from tests.small import metrics, project

PAIRS = ((0, 0), (2, 1))


class ByHand:
    """The recipe of `small.SPEC` in plain torch and transformers."""

    def __init__(self, folder: Path, projections: list[torch.nn.Linear]):
        load = AutoModelForSequenceClassification.from_pretrained
        self.teacher, self.student = load(folder / "bert").eval(), load(folder / "tiny").train()
        self.projections = torch.nn.ModuleList(torch.nn.Linear(16, 32) for _ in projections)
        for own, given in zip(self.projections, projections, strict=True):
            own.load_state_dict(given.state_dict())
        named = [*self.student.named_parameters(), *self.projections.named_parameters()]
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.parameters = [p for _, p in named]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, eps=1e-5)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, 2, 5)

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            teacher = self.teacher(**inputs, output_hidden_states=True)
        student = self.student(**inputs, output_hidden_states=True)
        mask = batch["attention_mask"].float()
        pairs = mask[:, :, None] * mask[:, None, :]
        soft = -((teacher.logits / 4).softmax(-1) * (student.logits / 4).log_softmax(-1)).sum(-1).mean()
        hard = F.cross_entropy(student.logits, batch["labels"])
        hidden, gram = [], []
        for projection, (i, j) in zip(self.projections, PAIRS, strict=True):
            t, s = teacher.hidden_states[i], student.hidden_states[j]
            hidden.append((((t - projection(s)) ** 2).mean(-1) * mask).sum() / mask.sum())
            grams = torch.bmm(t, t.transpose(1, 2)) / 32 - torch.bmm(s, s.transpose(1, 2)) / 16
            gram.append((grams**2 * pairs).sum() / pairs.sum())
        loss = soft + 0.3 * hard + sum(hidden) + 0.5 * sum(gram)
        return {"loss": loss, "soft": soft, "hard": hard, "hidden[0]": hidden[0], "gram[1]": gram[1]}

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def both(folder: Path) -> tuple[Any, Any, ByHand, list[Any]]:
    """The spec's distiller and material, the loop by hand from the same weights, and the batches of five steps."""
    builder = SpecBuilder(check(read_spec(project(folder))))
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    projections = [distiller.projections[name].linear for name in ("hidden:0", "hidden:1")]
    rows = material.feeds["d"].dataset
    batches = list(loader(rows, BatchOrder(20, 4, seed=derive_seed(0, "order")), material.collator))
    return distiller, material, ByHand(folder, projections), batches


def test_losses_and_gradients_equal_a_loop_by_hand(tmp_path: Path) -> None:
    """Loss, terms, and gradients of student and projections agree to 1e-6 at each of five steps."""
    distiller, _, hand, batches = both(tmp_path)
    ours = [*distiller.student.parameters(), *(p for m in distiller.projections.values() for p in m.parameters())]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in ours if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in ours if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-3,
        eps=1e-5,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 2, 5)
    for batch in batches:
        output, expected = distiller(batch), hand.loss(batch)
        output.loss.backward()
        expected["loss"].backward()
        found = {"loss": output.loss, **output.terms}
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert output.loss > 0.1
        for own, other in zip(ours, hand.parameters, strict=True):
            assert (own.grad is None) == (other.grad is None)
            if own.grad is not None:
                torch.testing.assert_close(own.grad, other.grad, atol=1e-6, rtol=1e-5)
        torch.nn.utils.clip_grad_norm_(ours, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        hand.step()


def test_training_equals_a_loop_by_hand(tmp_path: Path) -> None:
    """The real loop logs the same losses, terms and rates at every step, and ends with the same weights."""
    distiller, material, hand, batches = both(tmp_path)
    settings = check(read_spec(tmp_path / "spec.brew")).recipe.train
    folder = RunFolder(tmp_path / "out")
    folder.prepare()
    before = distiller.student.classifier.weight.detach().clone()
    work = StageWork("", lambda: distiller, {"": material}, settings)
    train([work], "tiny", folder, Reporter(), name="spec")
    lines = [line for line in metrics(folder.path) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line, batch in zip(lines, batches, strict=True):
        expected = hand.loss(batch)
        expected["loss"].backward()
        hand.step()
        expected = {name: value.detach() for name, value in expected.items()}
        assert abs(line["loss"] - float(expected.pop("loss"))) < 1e-6
        for name, value in expected.items():
            assert abs(line["terms"][name] - float(value)) < 1e-6, name
        assert abs(line["weighted"]["hard"] - 0.3 * float(expected["hard"])) < 1e-6
        assert abs(line["lr"] - hand.schedule.get_last_lr()[0]) < 1e-12
    assert not torch.equal(before, distiller.student.classifier.weight)
    for (name, own), other in zip(distiller.student.named_parameters(), hand.student.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for own, other in zip(distiller.projections.values(), hand.projections, strict=True):
        torch.testing.assert_close(own.linear.weight, other.weight, atol=1e-6, rtol=1e-5)


def test_build_gives_what_run_trains(tmp_path: Path) -> None:
    """`load().build()` begins with the same student and projections as a run of the same spec."""
    spec = project(tmp_path)
    one, other = bg.load(spec).build(), SpecBuilder(check(read_spec(spec))).distiller()
    for (name, own), given in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(own, given), name
