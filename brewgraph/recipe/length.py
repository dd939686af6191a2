"""Lengths with their units: of training, and of batches."""

from __future__ import annotations

from dataclasses import dataclass

from brewgraph.diagnostics import SourceFault


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


def fewest_tokens(longest: int) -> int:
    """The least number of tokens of a batch: batches are cut between rows, the longest of which has so many tokens."""
    return 2 * longest - 1


def too_few_tokens(tokens: int, longest: str) -> str:
    """Why a batch of so few tokens cannot be; `longest` says how many the longest example has."""
    return (
        f"the longest example has {longest} tokens, and batches are cut between examples: a batch of {tokens} tokens "
        "is too small"
    )


def check_batch(batch: int | Length, longest: int, at_least: str = "") -> None:
    """Raise `SourceFault` B413 if a batch of tokens is too small for an example with so many, or `at_least` so many."""
    if isinstance(batch, Length) and batch.value < (fewest := fewest_tokens(longest)):
        help = f"use `batch={fewest} tokens` or more, or a smaller `max_length`"
        message = too_few_tokens(int(batch.value), f"{at_least}{longest}")
        raise SourceFault("B413", message, help=help, field="batch")
