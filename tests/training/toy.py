"""A student of four matrices and a loss written by hand, with what the loop wants of a distiller: steps in no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brewgraph.recipe.recipe import Frozen
from brewgraph.recipe.settings.train import Adamw, Constant, Train
from brewgraph.recipe.values import Length
from brewgraph.runtime.distiller import DistillerOutput
from brewgraph.source import Source, Span
from brewgraph.training.folder import RunFolder
from brewgraph.training.loop import Outcome, train
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import Draw, Material, RowFeed, StageWork
from tests.small import metrics

EVERY = Length(1, "step")


class Student(nn.Module):
    """Two layers, dropout, and a head of three classes for each task."""

    base_model_prefix = "base"

    def __init__(self, tasks: Sequence[str] = ("",), dropout: float = 0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.base = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8)])})
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({f"head_{task}": nn.Linear(8, 3) for task in tasks})
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0.0, 0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.base["layers"]:
            x = self.dropout(torch.tanh(layer(x)))
        return x


class Toy(nn.Module):
    """Cross-entropy and half a squared projection per task, both means over examples. It follows its first matrix with
    a running average, and notes `progress` at each step."""

    def __init__(self, student: nn.Module, tasks: Sequence[str] = ("",), kind: str = "toy"):
        super().__init__()
        self.identity, self.student = kind, student
        self.projections = nn.ModuleDict({f"proj_{task}": nn.Linear(8, 2) for task in tasks})
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for parameter in self.projections.parameters():
                parameter.normal_(0.0, 0.5, generator=generator)
        self.progress, self.horizon = 0.0, (0, 0)
        self.average = student.base["layers"][0].weight.detach().clone()
        self.seen: list[tuple[str, float, list[int]]] = []

    def forward(
        self, batch: Any, counts: Tensor | None = None, task: str = "", *, gather: bool = False
    ) -> DistillerOutput:
        self.seen.append((task, self.progress, batch["index"].tolist()))
        units = self.count(batch, task) if counts is None else counts
        hidden = self.student(batch["x"])
        logits = self.student.heads[f"head_{task}"](hidden)
        hard = F.cross_entropy(logits.float(), batch["labels"], reduction="sum") / units[0]
        soft = self.projections[f"proj_{task}"](hidden).float().square().mean(-1).sum() / units[0]
        return DistillerOutput(loss=hard + 0.5 * soft, terms={"hard": hard, "soft": soft})

    def count(self, batch: Any, task: str = "", *, gather: bool = False) -> Tensor:
        return torch.tensor([float(len(batch["labels"]))])

    def unreached_by(self, task: str) -> None:
        """It is not told."""

    def weights(self, task: str = "") -> dict[str, float]:
        return {"hard": 1.0, "soft": 0.5}

    def compares_examples(self, task: str = "") -> bool:
        return False

    def report(self, batch: Any, task: str = "", *, gather: bool = False) -> dict[str, Tensor]:
        return {"size": self.student(batch["x"]).square().mean()}

    def optimizer_options(self) -> dict[str, dict[str, float]]:
        return {}

    def unreached(self) -> list[nn.Parameter]:
        return []

    def cached(self) -> dict[str, tuple[int, int]]:
        """Nothing is kept on disk."""
        return {}

    def after_step(self) -> None:
        self.average = 0.9 * self.average + 0.1 * self.student.base["layers"][0].weight.detach()

    def extra_state(self) -> dict[str, Tensor]:
        return {"average": self.average}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.average = state["average"].clone()

    def release(self) -> None:
        pass


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows of `table` to a batch."""
    return {
        "x": torch.tensor([row["x"] for row in rows]),
        "labels": torch.tensor([row["label"] for row in rows]),
        "index": torch.tensor([row["index"] for row in rows]),
    }


def table(rows: int, seed: int = 0) -> datasets.Dataset:
    """Rows of four numbers, a class of three, and their place."""
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    label = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return datasets.Dataset.from_dict({"x": x.tolist(), "label": label.tolist(), "index": list(range(rows))})


def material(rows: int = 12, batch: int = 4, seed: int = 0, dev: int = 0) -> Material:
    """One data set called `d`."""
    held_out = table(dev, seed + 100) if dev else None
    return Material({"d": RowFeed(table(rows, seed), collate, batch)}, held_out, collate, batch)


def settings(**changes: Any) -> Train:
    """Settings for steps large enough to be seen, a line and a checkpoint at each."""
    plain = {
        "optimizer": Adamw(lr=0.05, weight_decay=0.1),
        "schedule": Constant(),
        "logging_steps": 1,
        "save_steps": EVERY,
        "eval_steps": EVERY,
    }
    return Train(**(plain | ({} if {"steps", "epochs"} & changes.keys() else {"steps": 4}) | changes))


TASKS = ("ner", "qa")


def two_stages(student: nn.Module, made: list[Toy], **changes: Any) -> list[StageWork]:
    """First the task `ner` alone, then both by draw, with an optimizer of another rate."""

    def make(tasks: Sequence[str], kind: str) -> Toy:
        made.append(Toy(student, tasks, kind))
        return made[-1]

    both = {"ner": material(12), "qa": material(20, seed=1)}
    return [
        StageWork("warm", lambda: make(["ner"], "one"), {"ner": both["ner"]}, settings(steps=4, **changes)),
        StageWork(
            "joint",
            lambda: make(TASKS, "two"),
            both,
            settings(steps=6, logging_steps=2, accumulate=2, **changes | {"optimizer": Adamw(lr=0.02)}),
            Draw({"ner": 3.0, "qa": 5.0}),
        ),
    ]


def run(
    stages: Sequence[StageWork], out: Path | None, reporter: Reporter | None = None, **options: Any
) -> tuple[Outcome, list[dict[str, Any]]]:
    """Train, and the lines of metrics."""
    folder = None if out is None else RunFolder(out)
    if folder is not None:
        folder.prepare()
    outcome = train(stages, "tiny", folder, reporter or Reporter(), name="toy", **options)
    return outcome, [] if out is None else metrics(out)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def frozen_part(kind: str, name: str, path: str = "") -> Frozen:
    """What a stage does not train, of no spec."""
    return Frozen(kind, name, path, span=Span(Source(""), 0, 0))
