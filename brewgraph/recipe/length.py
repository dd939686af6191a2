"""Lengths with their units: of training, and of batches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """A stretch of training: `30%` (unit `share`, value 0.3), `1000 steps`, `3 epochs` (units `step`, `epoch`); the
    unit of `4096 tokens`, the length of a batch, is `token`.
    """

    value: float
    unit: str

    @property
    def is_of_training(self) -> bool:
        """Whether it says how long to train, not how long a batch is."""
        return self.unit != "token"

    def steps(self, total: int, per_epoch: int) -> int:
        """The same in optimizer steps."""
        factor = {"share": total, "step": 1, "epoch": per_epoch}[self.unit]
        return round(self.value * factor)

    def __str__(self) -> str:
        plural = "" if self.value == 1 else "s"
        return f"{self.value * 100:g}%" if self.unit == "share" else f"{self.value:.12g} {self.unit}{plural}"
