"""A teacher that is the running average of the student's own weights.

Tarvainen and Valpola 2017, "Mean teachers are better role models", equation 3:
average = decay * average + (1 - decay) * weights, after each optimizer step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from brewgraph.diagnostics import RunError, listing

_UPDATES = "updates"
"""The key of the number of updates in `state`; names of weights all contain a dot."""


class EmaTeacher:
    """The average of a student's weights, beginning as a copy of it.

    `module` is of the student's class, frozen and in evaluation mode, with all features of the student. It is no part
    of the student: neither its parameters nor its state dict include it. With `warmup` the decay at update k is at most
    (1 + k) / (10 + k), so that the first, random weights are soon forgotten.
    """

    def __init__(self, student: nn.Module, decay: float = 0.999, *, warmup: bool = False):
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.module = copy.deepcopy(student).requires_grad_(False).eval()
        for parameter in self.module.parameters():
            parameter.grad = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take one step towards the student's weights; call it after each optimizer step. Buffers are copied.

        It does not synchronise with the device, and a weight that never changes stays exactly equal.
        """
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        for average, weight in zip(self.module.parameters(), student.parameters(), strict=True):
            average.lerp_(weight.to(average), 1 - decay)
        for buffer, current in zip(self.module.buffers(), student.buffers(), strict=True):
            buffer.copy_(current)
        self.updates += 1

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs to go on, as tensors of their own memory that safetensors writes."""
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in self._tensors()}
        return {**tensors, _UPDATES: torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the result of `state`. Raises RunError for that of another model."""
        tensors = dict(self._tensors())
        strange = (tensors.keys() | {_UPDATES}) ^ state.keys()
        strange |= {name for name in tensors.keys() & state.keys() if tensors[name].shape != state[name].shape}
        if strange:
            raise RunError(f"the saved average is of another model: {listing(sorted(strange)[:3])} do not fit")
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
        self.updates = int(state[_UPDATES])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, tied ones once, and the buffers that belong to a saved model."""
        kept = self.module.state_dict().keys()
        yield from ((f"module.{name}", tensor) for name, tensor in self.module.named_parameters())
        yield from ((f"module.{name}", tensor) for name, tensor in self.module.named_buffers() if name in kept)
