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
"""Under which name `state` keeps how many updates there were; no weight's name, as these all hold a dot."""


class EmaTeacher:
    """The average of a student's weights, beginning as a copy of it.

    `module` is of the student's class, frozen and in evaluation mode, so it has every feature that the student
    has. It is no part of the student: neither its parameters nor its state dict hold it. With `warmup` the decay at
    update k is at most (1 + k) / (10 + k), so that the first, random weights are soon forgotten.
    """

    def __init__(self, student: nn.Module, decay: float = 0.999, *, warmup: bool = False):
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.module = copy.deepcopy(student).requires_grad_(False).eval()
        for parameter in self.module.parameters():
            parameter.grad = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take one step towards the student's weights; call it after each optimizer step. Buffers are copied.

        Nothing waits for the device, and a weight that never changes stays exactly as it is.
        """
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        for own, theirs in zip(self.module.parameters(), student.parameters(), strict=True):
            own.lerp_(theirs.to(own), 1 - decay)
        for kept, now in zip(self.module.buffers(), student.buffers(), strict=True):
            kept.copy_(now)
        self.updates += 1

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs to go on, as tensors of their own memory that safetensors writes."""
        found = {name: tensor.detach().clone().contiguous() for name, tensor in self._tensors()}
        return {**found, _UPDATES: torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave. Raises RunError where it is that of another model."""
        own = dict(self._tensors())
        strange = (own.keys() | {_UPDATES}) ^ state.keys()
        strange |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
        if strange:
            raise RunError(f"the saved average is of another model: {listing(sorted(strange)[:3])} do not fit")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.updates = int(state[_UPDATES])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, tied ones once, and the buffers that belong to a saved model."""
        kept = self.module.state_dict().keys()
        yield from ((f"module.{name}", tensor) for name, tensor in self.module.named_parameters())
        yield from ((f"module.{name}", tensor) for name, tensor in self.module.named_buffers() if name in kept)
