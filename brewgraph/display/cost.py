"""The cost of a batch as plain values; the runtime counts it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ForwardCost:
    """One forward of a model: its FLOPs, how many of its layers run and how many are present (0 and 0: not known)."""

    model: str
    flops: int
    layers: int
    present: int


@dataclass(frozen=True)
class Cost:
    """A step on one batch of `batch` examples of `length` tokens each.

    FLOPs are multiplications and additions, as torch's `FlopCounterMode` counts them: only matrix products,
    convolutions and attention. `peak` is the most bytes that a step holds at once beside parameters, their gradients,
    the optimizer and the batch; `kept` are those alive between the forward and the backward pass: activations that
    gradients need, and teachers' values that losses compare. Both are those where the student runs; `elsewhere` gives
    the most bytes that a step holds on each other device.
    """

    batch: int
    length: int
    forward: int
    backward: int
    peak: int
    kept: int
    forwards: tuple[ForwardCost, ...]
    elsewhere: tuple[tuple[str, int], ...] = ()

    @property
    def losses(self) -> int:
        """FLOPs of projections and losses in the forward pass."""
        return self.forward - sum(f.flops for f in self.forwards)


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device in a stage, `device` being empty where the student runs: the weights of each model, without
    buffers, of those whose number is known; gradients and what the optimizer keeps per parameter of student and
    projections; the most activations of any of the stage's batches (None: not counted or not known). `unknown` are
    models of which nothing is known before they are built. Over `ranks` that shard, the bytes are those of one of them,
    and `gathered` those of student and projections as a whole, which it holds for an evaluation and a checkpoint.
    """

    device: str
    weights: tuple[tuple[str, int], ...]
    gradients: int
    optimizer: int
    activations: int | None
    unknown: tuple[str, ...] = ()
    gathered: int = 0
    ranks: int = 1

    @property
    def total(self) -> int:
        """All that is known."""
        weights = sum(size for _, size in self.weights) + self.gathered
        return weights + self.gradients + self.optimizer + (self.activations or 0)


def flops(number: int) -> str:
    """FLOPs in a unit that leaves one to three digits before the point."""
    return _in_unit(number, "FLOP", ("TFLOP", "GFLOP", "MFLOP", "kFLOP"), ".3g")


def megabytes(size: int) -> str:
    """Bytes in a unit that leaves one to three digits before the point."""
    return _in_unit(size, "bytes", ("GB", "MB", "kB"), ".1f")


def _in_unit(number: int, one: str, units: tuple[str, ...], digits: str) -> str:
    """A number in the largest unit below it; each unit is a thousand of the next one, the last a thousand of `one`."""
    for power, unit in zip(range(len(units), 0, -1), units, strict=True):
        if number >= 1000**power:
            return f"{number / 1000**power:{digits}} {unit}"
    return f"{number} {one}"
