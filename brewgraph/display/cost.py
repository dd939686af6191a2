"""What a batch costs, as plain values: who counts it stands below this room and hands it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ForwardCost:
    """One forward of a model: its FLOPs, and how many of its layers run of those that there are (0 of 0: not known)."""

    model: str
    flops: int
    layers: int
    present: int


@dataclass(frozen=True)
class Cost:
    """A step on one batch of `batch` examples, every one of them `length` tokens long.

    FLOPs are multiplications and additions, as torch's `FlopCounterMode` counts them: matrix products, convolutions and
    attention, nothing else. `peak` is the most bytes that a step holds at once beside parameters, their gradients, the
    optimizer and the batch; `kept` is what of it is alive between the forward and the backward pass: activations that
    gradients need, and teachers' values that losses compare.
    """

    batch: int
    length: int
    forward: int
    backward: int
    peak: int
    kept: int
    forwards: tuple[ForwardCost, ...]

    @property
    def losses(self) -> int:
        """FLOPs of projections and losses on the way forward."""
        return self.forward - sum(f.flops for f in self.forwards)


def flops(number: int) -> str:
    """FLOPs in a unit that leaves one to three digits before the point."""
    for unit, factor in (("TFLOP", 10**12), ("GFLOP", 10**9), ("MFLOP", 10**6), ("kFLOP", 10**3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number} FLOP"


def megabytes(size: int) -> str:
    """Bytes in a unit that leaves one to three digits before the point."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
