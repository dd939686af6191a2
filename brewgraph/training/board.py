"""TensorBoard's event file beside metrics.jsonl, where the `board` extra is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def named(task: str, name: str) -> str:
    """What a task calls by this name, as all of them see it: `ner/soft`; unchanged where tasks have no names."""
    return name if not task or name.startswith(f"{task}/") else f"{task}/{name}"


class Board:
    """Writes scalars into a folder; does nothing without one, or where TensorBoard is not installed.

    `done` steps lie behind a run that goes on: what an earlier one wrote after them is purged.
    """

    def __init__(self, path: Path | None, done: int):
        self._writer: Any = None
        if path is not None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def log(self, step: int, content: Mapping[str, Any], task: str = "") -> None:
        """One scalar per number, those of a group under `group/name`; the x-axis counts optimizer steps of the run.

        A task's own numbers stand under its name, as do its terms by theirs.
        """
        if self._writer is None:
            return
        for group, value in content.items():
            if isinstance(value, Mapping):
                values = {f"{group}/{named(task, name)}": x for name, x in value.items()}
            else:
                values = {named(task, group): value}
            for name, number in values.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
