"""TensorBoard's event file beside metrics.jsonl, where the `board` extra is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Writes scalars; does nothing where TensorBoard is not installed. After a resume, what came later is purged."""

    def __init__(self, path: Path, done: int):
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def log(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """One scalar per value, under `group/name`; the x-axis counts optimizer steps."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
