"""A graph laid out once as a flat list of calls: what runs per batch walks no graph and looks up no name."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import execution_order, node
from brewgraph.graph.scalars import compute
from brewgraph.models.capture import Capture
from brewgraph.ops import OPERATIONS, SCHEDULES
from brewgraph.recipe.features import Feature
from brewgraph.runtime.layouts import Padded, label_mask, token_mask

Batch = Mapping[str, Any]
NOT_INPUTS = frozenset({"labels", "index"})
"""What a batch carries beside a model's inputs."""


@dataclass
class Step:
    """What the calls of one forward share: the batch, the values so far, progress, and what losses are divided by."""

    batch: Batch
    slots: list[Any]
    progress: float
    counts: Tensor | None


Instruction = Callable[[Step], None]


class Program:
    """The calls of a graph for given modules. `counted` says what each entry of `count`'s result counts."""

    def __init__(self, graph: nx.DiGraph, models: Mapping[str, nn.Module], projections: Mapping[str, nn.Module]):
        self.graph = graph
        order = execution_order(graph)
        self.slot = {key: i for i, key in enumerate(order)}
        self.counted: list[tuple[str, str | None]] = []
        self.captures: dict[str, Capture] = {}
        taps: dict[str, dict[str, Feature]] = defaultdict(dict)
        for key in order:
            if isinstance(tap := node(graph, key), n.Tap):
                taps[tap.inputs[0]][key] = tap.feature
        self.inputs: list[Instruction] = []
        self.instructions: list[Instruction] = []
        for key in order:
            current = node(graph, key)
            instruction = self._lay_out(key, current, models, projections, taps)
            into = self.inputs if isinstance(current, n.Input | n.Labels | n.Mask) else self.instructions
            if instruction is not None:
                into.append(instruction)
        self.objective = self.slot[graph.graph["objective"]]
        self.terms = {name: self.slot[key] for name, key in graph.graph["terms"].items()}

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, batch: Batch, progress: float, counts: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the named terms. `counts` are those of the global batch; left out, of this batch alone."""
        step = Step(batch, [None] * len(self.slot), progress, None)
        for instruction in self.inputs:
            instruction(step)
        # a batch in which nothing counts (every label -100) has a loss of zero, not of 0/0
        step.counts = (self._count(step) if counts is None else counts).clamp_min(1)
        for instruction in self.instructions:
            instruction(step)
        return step.slots[self.objective], {name: step.slots[i] for name, i in self.terms.items()}

    def count(self, batch: Batch) -> Tensor:
        """How many units of each kind the batch holds: one number per entry of `counted`. No model runs."""
        step = Step(batch, [None] * len(self.slot), 0.0, None)
        for instruction in self.inputs:
            instruction(step)
        return self._count(step)

    def _count(self, step: Step) -> Tensor:
        first = _first_tensor(step.batch)
        found = []
        for unit, key in self.counted:
            if key is None:
                found.append(torch.tensor(first.shape[0], device=first.device))
                continue
            layout: Padded = step.slots[self.slot[key]]
            found.append(layout.count(unit))
        return torch.stack([x.float() for x in found]) if found else torch.zeros(0)

    # ── laying out ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _lay_out(
        self,
        key: str,
        current: n.Node,
        models: Mapping[str, nn.Module],
        projections: Mapping[str, nn.Module],
        taps: Mapping[str, dict[str, Feature]],
    ) -> Instruction | None:
        out = self.slot[key]
        into = [self.slot[used] for used in current.inputs]
        match current:
            case n.Input():
                name = current.model

                def put_input(step: Step) -> None:
                    own = step.batch.get(name)
                    step.slots[out] = own if isinstance(own, Mapping) else step.batch

                return put_input
            case n.Labels():

                def put_labels(step: Step) -> None:
                    if "labels" not in step.batch:
                        raise RunError(f"the batch has no `labels`; it has {listing(step.batch)}")
                    step.slots[out] = step.batch["labels"]

                return put_labels
            case n.Mask():
                return _mask_instruction(current, into[0], out)
            case n.Forward():
                self.captures[key] = Capture(models[current.model], tuple(taps[key].values()))
                tapped = {self.slot[k]: feature for k, feature in taps[key].items()}
                return _forward_instruction(current, models[current.model], self.captures[key], into[0], tapped)
            case n.Tap():
                return None  # its forward has put it into its slot
            case n.Projection():
                projection = projections[current.site]

                def project(step: Step) -> None:
                    step.slots[out] = projection(step.slots[into[0]])

                return project
            case n.Loss():
                return self._loss_instruction(current, into, out)
            case n.Number():
                value = current.value

                def put_number(step: Step) -> None:
                    step.slots[out] = value

                return put_number
            case n.Schedule():
                schedule, arguments = SCHEDULES[current.name], current.arguments

                def put_schedule(step: Step) -> None:
                    step.slots[out] = schedule(step.progress, *arguments)

                return put_schedule
            case n.Combine():
                operator = current.operator

                def combine(step: Step) -> None:
                    step.slots[out] = compute(operator, [step.slots[i] for i in into])

                return combine
        raise AssertionError(type(current).__name__)

    def _loss_instruction(self, loss: n.Loss, into: list[int], out: int) -> Instruction:
        operation = OPERATIONS[loss.operation]
        function = operation.function
        mask = into[2] if loss.masked else None
        counted = (loss.unit, loss.inputs[2] if loss.masked else None)
        if counted not in self.counted:
            self.counted.append(counted)
        place = self.counted.index(counted)
        options = list(zip(loss.options, into[3 if loss.masked else 2 :], strict=True))
        everything = Padded(None)
        needs_layout, unit, source, target = operation.needs_layout, loss.unit, into[0], into[1]

        def lose(step: Step) -> None:
            layout: Padded = everything if mask is None else step.slots[mask]
            arguments = {name: step.slots[i] for name, i in options}
            if needs_layout:
                arguments["layout"] = layout
            one, other = _full(step.slots[source]), _full(step.slots[target])
            with torch.autocast(one.device.type, enabled=False):
                values = function(one, other, **arguments)
            assert step.counts is not None
            step.slots[out] = layout.sum(values, unit) / step.counts[place]

        return lose

    def remove(self) -> None:
        """Take every hook away from the models."""
        for capture in self.captures.values():
            capture.remove()


def _full(x: Tensor) -> Tensor:
    """Losses are computed in full precision whatever the models run in."""
    return x.float() if x.is_floating_point() and x.dtype in (torch.float16, torch.bfloat16) else x


def _first_tensor(batch: Batch) -> Tensor:
    for value in batch.values():
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Mapping):
            return _first_tensor(value)
    raise RunError("the batch holds no tensor")


def _mask_instruction(mask: n.Mask, source: int, out: int) -> Instruction:
    which = mask.which

    def put_mask(step: Step) -> None:
        base = step.slots[source]
        if which == "labels":
            found = label_mask(base)
        else:
            found = token_mask(base)
            if which == "none":
                found = torch.ones_like(found)
        step.slots[out] = Padded(found, which)

    return put_mask


def _forward_instruction(
    forward: n.Forward, model: nn.Module, capture: Capture, source: int, tapped: Mapping[int, Feature]
) -> Instruction:
    names, rest, required = _parameters(model)
    main = getattr(model, "main_input_name", None)
    if main in names:
        required |= {main}  # transformers gives it a default, and then fails in words of its own
    trainable = forward.role == "student"
    name = forward.model

    def run_forward(step: Step) -> None:
        encoding = step.slots[source]
        given = {
            key: value
            for key, value in encoding.items()
            if (key in names or rest) and key not in NOT_INPUTS and isinstance(value, Tensor)
        }
        missing = required - given.keys() - ({main} if "inputs_embeds" in given else set())
        if missing:
            raise RunError(
                f"the forward of `{name}` needs {listing(sorted(missing))}, and the batch has {listing(encoding)}"
            )
        with capture.armed(), torch.set_grad_enabled(trainable and torch.is_grad_enabled()):
            output = model(**given)
        values = capture.collect(output)
        for slot, feature in tapped.items():
            step.slots[slot] = values[feature]

    return run_forward


def _parameters(model: nn.Module) -> tuple[frozenset[str], bool, frozenset[str]]:
    """Names that a model's forward takes, whether it takes any other (and names none), and those it needs."""
    found = inspect.signature(model.forward).parameters.values()
    names = frozenset(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    rest = any(p.kind is p.VAR_KEYWORD for p in found) and not names
    required = frozenset(p.name for p in found if p.name in names and p.default is p.empty)
    return names, rest, required
