"""Which entries of a student no training can agree on, found from gradients and not from names.

A bias of all keys cancels in attention's softmax, and what is added to the scores of all tokens in that over the tokens.
Such an entry has the gradient zero; in float32 it gets what rounding left over, and Adam, which divides a gradient by its
own size, makes whole steps of that. So the same training is done a second time in double precision: where its gradient
is zero but for rounding in every step, the entry is one of these. Nothing lies between such zeros and real gradients,
which is asked for, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

ZERO, REAL = 1e-13, 1e-8
"""Gradients in double precision over the student's largest: up to the first they are rounding, from the second on real."""
ROUNDED = 1e-6
"""What float32 makes of such a zero, over the student's largest gradient."""


class Largest:
    """The largest size that each entry's gradient had in any step."""

    def __init__(self) -> None:
        self._seen: dict[Tensor, Tensor] = {}

    def take(self, parameters: Iterator[Tensor]) -> None:
        """A step is about to be made of these parameters' gradients."""
        for parameter in parameters:
            if parameter.grad is not None:
                size = parameter.grad.detach().abs()
                before = self._seen.get(parameter)
                self._seen[parameter] = size.clone() if before is None else torch.maximum(before, size)

    def of(self, student: nn.Module) -> dict[str, Tensor]:
        """Those of a student's parameters by name; none for a parameter that no step reached."""
        return {name: self._seen[p] for name, p in student.named_parameters() if p in self._seen}


@contextmanager
def gradients_seen() -> Iterator[Largest]:
    """The gradients of all optimizer steps that are made inside."""
    largest = Largest()

    def note(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        largest.take(p for group in optimizer.param_groups for p in group["params"])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield largest
    finally:
        handle.remove()


def made_of_rounding(double: Mapping[str, Tensor], single: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each parameter which entries have a gradient in single precision and none in double.

    Raises `AssertionError` where a gradient is neither plainly zero nor plainly real, or where what single precision
    makes of a zero is more than rounding.
    """
    assert double.keys() == single.keys()
    largest = max(float(sizes.max()) for sizes in double.values())
    found = {}
    for name, sizes in double.items():
        zero = sizes <= ZERO * largest
        assert not (~zero & (sizes < REAL * largest)).any(), f"`{name}` has gradients that are neither zero nor real"
        found[name] = zero & (single[name] > 0)
        assert not (single[name][found[name]] > ROUNDED * largest).any(), f"float32 has a gradient in `{name}`"
    return found
