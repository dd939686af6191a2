"""What a training writes down: means since the last line, in metrics.jsonl and for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from brewgraph.training.board import Board, named
from brewgraph.training.folder import RunFolder
from brewgraph.training.work import Placed


@dataclass
class Sums:
    """Loss and terms of each task, added up over its steps since the last line, and how many these were.

    `seen` counts the steps in which each of them was computed: a term that a schedule has at zero is not.
    """

    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, task: str, output: Mapping[str, Tensor]) -> None:
        """A micro-batch's share of a step."""
        own = self.values.setdefault(task, {})
        for name, value in output.items():
            own[name] = own[name] + value if name in own else value

    def end_step(self, task: str, computed: Iterable[str]) -> None:
        """Count a step of a task, and what was computed in it."""
        self.steps[task] = self.steps.get(task, 0) + 1
        own = self.seen.setdefault(task, {})
        for name in computed:
            own[name] = own.get(name, 0) + 1

    def gathered(self, accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
        """Over all ranks; those of one process as they are."""
        if accelerator.num_processes == 1:
            return self.values
        gathered: dict[str, dict[str, Tensor]] = accelerator.reduce(self.values, "sum")
        return gathered

    def held_by(self, accelerator: Accelerator) -> Sums:
        """The sums after a resume: of what was gathered over the ranks the first one holds the whole."""
        device, main = accelerator.device, accelerator.is_main_process
        values = {
            task: {k: v.to(device) if main else torch.zeros_like(v, device=device) for k, v in own.items()}
            for task, own in self.values.items()
        }
        return Sums(values, dict(self.steps), {task: dict(own) for task, own in self.seen.items()})


@dataclass(frozen=True)
class Record:
    """Where lines go: a run's folder and TensorBoard, or nowhere but in the first process of a run with a folder."""

    folder: RunFolder | None
    board: Board

    def write(self, placed: Placed, step: int, stage_step: int, task: str, content: Mapping[str, Any]) -> None:
        """A line: `step` counts the whole run, `stage_step` and `epoch` the stage; stages and tasks where there are."""
        if self.folder is None:
            return
        line: dict[str, Any] = {"step": step}
        if placed.work.name:
            line |= {"stage": placed.work.name, "stage_step": stage_step}
        line["epoch"] = stage_step / placed.length.per_epoch
        if task:
            line["task"] = task
        self.folder.log({**line, **content})
        self.board.log(step, content, task)


def task_line(
    sums: Mapping[str, Tensor],
    seen: Mapping[str, int],
    task: str,
    weights: Mapping[str, float],
    reported: Mapping[str, float],
) -> dict[str, Any]:
    """Means of a task over its steps: the loss, its terms as they are and as they count in it, and what else is asked
    for. `seen` says over how many steps each was added up."""
    terms = {named(task, name): float(value) / seen[name] for name, value in sums.items()}
    loss = terms.pop(named(task, "loss"))
    factors = {named(task, name): weight for name, weight in weights.items()}
    line: dict[str, Any] = {
        "loss": loss,
        "terms": terms,
        "weighted": {name: value * factors[name] for name, value in terms.items()},
    }
    if reported:
        line["report"] = dict(reported)
    return line
