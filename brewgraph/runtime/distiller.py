"""`Distiller`: student, projections and the compiled loss as one torch module that fits any training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import networkx as nx
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from transformers.utils import ModelOutput

from brewgraph.data.batches import derive_seed
from brewgraph.diagnostics import UsageError
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import node
from brewgraph.graph.scalars import objective_weights
from brewgraph.runtime.program import Batch, Program


@dataclass
class DistillerOutput(ModelOutput):
    """What a forward gives: the scalar `loss`, and `terms`, the named equations that it is made of, unweighted."""

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None


class Projected(nn.Module):
    """A linear map with bias and an activation behind it. Weights begin at N(0, 0.02), biases at zero."""

    def __init__(self, projection: n.Projection, seed: int):
        super().__init__()
        if projection.into is None or projection.out is None:
            raise UsageError(f"the sizes of projection `{projection.site}` are not known: write `linear(in -> out)`")
        # its own initialisation would draw from the global generator
        self.linear = skip_init(nn.Linear, projection.into, projection.out)
        self.activation = projection.activation
        generator = torch.Generator().manual_seed(derive_seed(seed, projection.seed))
        with torch.no_grad():
            self.linear.weight.normal_(0.0, 0.02, generator=generator)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return x if not self.activation else getattr(torch, self.activation)(x)


class Distiller(nn.Module):
    """The student, its projections and the loss between them and the teachers.

        out = distiller(batch)
        out.loss.backward()

    `batch` is one dictionary: the inputs of a model under the model's name where it has its own (`batch["bert"]`), else
    at the top, and `labels`. Teachers stand beside the module: moved with it, always in eval mode, never in its
    parameters or state dict, and run without gradients. The module begins in train mode, the student with it: a
    transformers model comes from its folder in eval mode, and would be trained without dropout.
    """

    def __init__(self, graph: nx.DiGraph, models: Mapping[str, nn.Module], student: str, *, seed: int = 0):
        super().__init__()
        self.graph = graph
        self.student = models[student]
        projections = {p.site: p for key in graph if isinstance(p := node(graph, key), n.Projection)}
        self.projections = nn.ModuleDict(
            {parameter_name(site): Projected(p, seed) for site, p in sorted(projections.items())}
        )
        self.progress = 0.0
        """Where training stands, k/N: what schedules of weights go by. A loop of your own sets it before each step."""
        self.horizon = (0, 0)
        """How long training goes on: optimizer steps in all, and in an epoch."""
        self._teachers = tuple(model for name, model in models.items() if name != student)
        self._before = [
            ([(m, m.training) for m in teacher.modules()], [(p, p.requires_grad) for p in teacher.parameters()])
            for teacher in self._teachers
        ]
        for teacher in self._teachers:
            teacher.requires_grad_(False).eval()
        modules = {site: self.projections[parameter_name(site)] for site in projections}
        self.program = Program(graph, models, modules)
        self.train()

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        return self._teachers

    @property
    def identity(self) -> str:
        """A hash of what is computed: the same for equal losses, however they are written."""
        return str(self.graph.graph["objective"])

    def forward(self, batch: Batch, counts: Tensor | None = None, task: str = "") -> DistillerOutput:
        """The loss on a batch. `counts`, as `count` gives them, divide its sums; left out, the batch's own do."""
        loss, terms = self.program.run(batch, self.progress, counts)
        return DistillerOutput(loss=loss, terms=terms)

    def count(self, batch: Batch, task: str = "") -> Tensor:
        """Units in the batch (examples, tokens, pairs, labels) that the losses are means over.

        Add them up over the parts of a split batch and hand the sum to each part's forward, and the split does not
        change the loss.
        """
        return self.program.count(batch)

    def weights(self, task: str = "") -> dict[str, float]:
        """By how much each named term counts in the loss now."""
        found = objective_weights(self.graph, self.progress)
        return {name: found[key] for name, key in self.graph.graph["terms"].items()}

    def report(self, batch: Batch, task: str = "") -> dict[str, Tensor]:
        """Values that are reported beside the terms of the loss, without gradients."""
        return {}

    def after_step(self) -> None:
        """Move what follows the student, once an optimizer step is done."""

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside parameters and buffers."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `extra_state` gave."""

    def optimizer_options(self) -> dict[str, dict[str, float]]:
        """The optimizer settings that projections were given in the spec, by parameter prefix."""
        found = (node(self.graph, key) for key in self.graph)
        return {
            f"projections.{parameter_name(p.site)}.": dict(p.options)
            for p in found
            if isinstance(p, n.Projection) and p.options
        }

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for teacher in self._teachers:
            teacher._apply(fn)
        return self

    def release(self) -> None:
        """Take all hooks away from the models, which are then as they were before; teachers are no longer frozen."""
        self.program.remove()
        for modules, parameters in self._before:
            for module, training in modules:
                module.training = training
            for parameter, requires_grad in parameters:
                parameter.requires_grad_(requires_grad)


def parameter_name(site: str) -> str:
    """A projection's name among the module's parameters: no dots there, and no other site's name either."""
    return site.replace(".", ":")
