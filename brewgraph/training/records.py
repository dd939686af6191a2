"""What a training records: means since the last line, in metrics.jsonl and for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


def full_name(task: str, name: str) -> str:
    """A task's name for something, qualified by the task: `ner/soft`; unchanged if the task has no name."""
    return name if not task or name.startswith(f"{task}/") else f"{task}/{name}"


class Board:
    """Writes scalars for TensorBoard into a folder; does nothing without one, or if TensorBoard is not installed.

    A resumed run has `done` steps behind it: what an earlier run wrote after them is purged.
    """

    def __init__(self, path: Path | None, done: int):
        self._writer: Any = None
        if path is not None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def log(self, step: int, content: Mapping[str, Any], task: str = "") -> None:
        """Write one scalar per number, those of a group as `group/name`, those of a task under its name; the x-axis
        counts optimizer steps of the run.
        """
        if self._writer is None:
            return
        for group, value in content.items():
            if isinstance(value, Mapping):
                values = {f"{group}/{full_name(task, name)}": x for name, x in value.items()}
            else:
                values = {full_name(task, group): value}
            for name, number in values.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@dataclass
class Sums:
    """Loss and terms of each task, summed over its `steps` since the last line.

    `seen` counts the steps that computed each of them: a term that a schedule has at zero is not computed.
    """

    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, task: str, output: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's share of a step."""
        own = self.values.setdefault(task, {})
        for name, value in output.items():
            own[name] = own[name] + value if name in own else value

    def end_step(self, task: str, computed: Iterable[str]) -> None:
        """Count a step of a task, and the terms that it computed."""
        self.steps[task] = self.steps.get(task, 0) + 1
        own = self.seen.setdefault(task, {})
        for name in computed:
            own[name] = own.get(name, 0) + 1

    def gathered(self, accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
        """The sums over all ranks."""
        if accelerator.num_processes == 1:
            return self.values
        gathered: dict[str, dict[str, Tensor]] = accelerator.reduce(self.values, "sum")
        return gathered

    def held_by(self, accelerator: Accelerator) -> Sums:
        """The sums after a resume: the first rank holds all that was gathered over the ranks."""
        device, main = accelerator.device, accelerator.is_main_process
        values = {
            task: {k: v.to(device) if main else torch.zeros_like(v, device=device) for k, v in own.items()}
            for task, own in self.values.items()
        }
        return Sums(values, dict(self.steps), {task: dict(own) for task, own in self.seen.items()})


def task_line(
    sums: Mapping[str, Tensor],
    seen: Mapping[str, int],
    task: str,
    weights: Mapping[str, float],
    reported: Mapping[str, float],
) -> dict[str, Any]:
    """The means of a task over its steps: the loss, its terms unweighted and weighted, and `reported` values. `seen`
    says over how many steps each was summed.
    """
    terms = {full_name(task, name): float(value) / seen[name] for name, value in sums.items()}
    loss = terms.pop(full_name(task, "loss"))
    factors = {full_name(task, name): weight for name, weight in weights.items()}
    line: dict[str, Any] = {
        "loss": loss,
        "terms": terms,
        "weighted": {name: value * factors[name] for name, value in terms.items()},
    }
    if reported:
        line["report"] = dict(reported)
    return line
