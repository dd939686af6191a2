"""A graph laid out once as a flat list of calls: what runs per batch walks no graph and looks up no name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brewgraph.data.batching.order import is_idle
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Reached, info, node, used_by
from brewgraph.graph.optimize import all_reached, needed, reached, releases, running_order
from brewgraph.graph.scalars import Horizon
from brewgraph.models.capture.capture import Capture
from brewgraph.models.capture.packing import Packing, packing_of
from brewgraph.models.fake.reach import may_draw
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.runtime.forwards import NOT_INPUTS, Batch, Instruction, Step, base_of, forward_instruction
from brewgraph.runtime.instructions import (
    first_tensor,
    loss_instruction,
    mean_instruction,
    simple_instruction,
)
from brewgraph.runtime.kept_values import cached_values
from brewgraph.runtime.kernels import fast_linear
from brewgraph.runtime.layouts import Padded

__all__ = ["NOT_INPUTS", "Batch", "Program"]
SHARED = frozenset({"example", "batch"})
"""Units that a mask of tokens says nothing about: such a mask is there for the maths alone."""
ParametersOf = Callable[[Reached], Mapping[str, nn.Parameter]]


@dataclass(frozen=True)
class Listing:
    """What runs while some products of the loss are zero: instructions, each with the slots that are cleared behind it.

    `terms` are those that are computed, by their slots; `zeros` the parameters that no gradient reaches now and that
    get one of zero, as they would if everything ran.
    """

    steps: tuple[tuple[Instruction, tuple[int, ...]], ...]
    terms: Mapping[str, int]
    zeros: tuple[nn.Parameter, ...]


class Program:
    """The calls of an optimized graph for given modules. `counted` says what each entry of `count`'s result counts.

    `parameters_of` gives the parameters that gradients reach, by name: for graphs of which something is left out.
    `anatomies` are those of models that have lost layers which nobody needs, as they were before. Folders of caches are
    relative to `folder`.
    """

    def __init__(
        self,
        graph: Graph,
        models: Mapping[str, nn.Module],
        projections: Mapping[str, nn.Module],
        *,
        parameters_of: ParametersOf | None = None,
        anatomies: Mapping[str, Anatomy] | None = None,
        folder: Path = Path(),
    ):
        self.graph, self.models, self.projections, self.info = graph, models, projections, info(graph)
        self.order = running_order(graph)
        self.slot = {key: i for i, key in enumerate(self.order)}
        self.counted: list[tuple[str, str | None, str]] = []
        self._data_of_counted: list[set[str]] = []
        self.captures: dict[str, Capture] = {}
        self.packings: dict[str, Packing] = {}
        self._parameters_of, self._anatomies = parameters_of, anatomies or {}
        self._taps: dict[str, dict[str, n.Tap]] = defaultdict(dict)
        for key in self.order:
            if isinstance(tap := node(graph, key), n.Tap):
                self._taps[tap.forward][key] = tap
        self.inputs: list[Instruction] = []
        self.scalars: list[Instruction] = []
        self.instructions: dict[str, Instruction] = {}
        plain: set[str] = set()
        for key in self.order:
            current = node(graph, key)
            if isinstance(current, n.Number | n.Schedule | n.Combine) and plain.issuperset(current.inputs):
                plain.add(key)
            instruction = self._lay_out(key, current)
            if instruction is None:
                continue
            if isinstance(current, n.Input | n.Column | n.Mask):
                self.inputs.append(instruction)
            elif key in plain:
                self.scalars.append(instruction)
            else:
                self.instructions[key] = instruction
        guards = (self.info.guards or {}).items()
        self.guards = [(key, [self.slot[weight] for weight in weights]) for key, weights in guards]
        self.objective = self.slot[self.info.objective]
        self.caches = cached_values(graph, folder, self.slot, models)
        self._listings: dict[tuple[tuple[str, ...], tuple[str, ...]], Listing] = {}
        self._alive: dict[tuple[str, ...], frozenset[str]] = {}

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(
        self, batch: Batch, progress: float, counts: Tensor | None = None, horizon: Horizon | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the named terms that count in it now.

        `counts` are those of the global batch; left out, of this batch alone.
        """
        step = Step(batch, [None] * len(self.slot), progress, None, horizon or Horizon())
        for instruction in self.inputs:
            instruction(step)
        # a batch in which nothing counts (every label -100) has a loss of zero, not of 0/0
        step.counts = (self._count(step) if counts is None else counts).clamp_min(1)
        idle = self._idle(batch)
        if any(idle):  # rows that belong to another rank: whatever they sum to is divided to zero, gradients too
            step.counts = step.counts.masked_fill(torch.tensor(idle, device=step.counts.device), torch.inf)
        for instruction in self.scalars:
            instruction(step)
        slots = step.slots
        dead = tuple(key for key, weights in self.guards if any(slots[i] == 0 for i in weights))
        held = self._look_up(step, dead) if self.caches else ()
        listing = self._listings.get((dead, held)) or self._list(dead, held)
        for key in dead:
            slots[self.slot[key]] = 0.0
        with fast_linear():
            for instruction, released in listing.steps:
                instruction(step)
                for i in released:
                    slots[i] = None
        loss = slots[self.objective]
        zeros = [p for p in listing.zeros if p.requires_grad]
        if not isinstance(loss, Tensor):  # every term is switched off
            like = zeros[0] if zeros else torch.zeros(())
            loss = torch.full((), loss, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
        if zeros and torch.is_grad_enabled():
            loss = _WithZeros.apply(loss, *zeros)
        terms = {name: slots[i] for name, i in listing.terms.items()}
        return loss, {name: value for name, value in terms.items() if isinstance(value, Tensor)}

    def count(self, batch: Batch) -> Tensor:
        """How many units of each kind the batch holds: one number per entry of `counted`. No model runs."""
        step = Step(batch, [None] * len(self.slot), 0.0, None, Horizon())
        for instruction in self.inputs:
            instruction(step)
        return self._count(step)

    def _count(self, step: Step) -> Tensor:
        found = []
        for (unit, key, data), idle in zip(self.counted, self._idle(step.batch), strict=True):
            if idle:
                found.append(torch.zeros((), device=first_tensor(step.batch).device))
                continue
            if key is not None:
                layout: Padded = step.slots[self.slot[key]]
                found.append(layout.count(unit))
                continue
            first = first_tensor(base_of(step.batch, data))
            found.append(torch.tensor(1 if unit == "batch" else first.shape[0], device=first.device))
        return torch.stack([x.float() for x in found]) if found else torch.zeros(0)

    def _idle(self, batch: Batch) -> list[bool]:
        """For each entry of `counted` whether its rows were borrowed from another rank."""
        return [any(is_idle(base_of(batch, name)) for name in names) for names in self._data_of_counted]

    def _look_up(self, step: Step, dead: tuple[str, ...]) -> tuple[str, ...]:
        """The values that were found on disk for every example of the batch, among those that the loss needs now."""
        if dead not in self._alive:
            self._alive[dead] = frozenset(needed(self.graph, dead))
        wanted, known = self._alive[dead], dict[object, list[bytes]]()
        return tuple(cached.key for cached in self.caches if cached.key in wanted and cached.find(step, known))

    # ── what runs when ───────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self, dead: tuple[str, ...], held: tuple[str, ...] = ()) -> Listing:
        """What runs while these products are zero and these values were read; found out once for each set of them."""
        graph = self.graph
        live = needed(graph, {*dead, *held})
        running = live - {*dead, *held}
        # a student that draws random numbers goes on drawing them
        drawing = [tap for forward, taps in self._taps.items() if self._draws(forward) for tap in taps]
        running |= used_by(graph, drawing)
        released = releases(graph, running) if self.info.released else {}
        steps: list[tuple[Instruction, tuple[int, ...]]] = []
        for key in self.order:
            instruction = self.instructions.get(key)
            if key not in running or instruction is None:
                continue
            if isinstance(current := node(graph, key), n.Forward) and not running.issuperset(self._taps[key]):
                instruction = self._forward(key, current, {tap for tap in self._taps[key] if tap in running})
            steps.append((instruction, tuple(self.slot[used] for used in released.get(key, ()))))
            steps += [(cached.keep, ()) for cached in self.caches if cached.made_by == key and cached.key in running]
        terms = {name: self.slot[key] for name, key in self.info.terms.items() if key in live}
        listing = self._listings[dead, held] = Listing(tuple(steps), terms, self._zeros(dead))
        return listing

    def _draws(self, forward: str) -> bool:
        found = node(self.graph, forward)
        return isinstance(found, n.Forward) and found.role == "student" and may_draw(self.models[found.model])

    def _zeros(self, dead: tuple[str, ...]) -> tuple[nn.Parameter, ...]:
        """The parameters that gradients would reach if everything ran, and do not reach now."""
        if self._parameters_of is None or (self.info.kept is None and not dead):
            return ()
        whole = self._parameters_of(all_reached(self.graph))
        now = self._parameters_of(reached(self.graph, dead))
        return tuple(parameter for name, parameter in whole.items() if name not in now)

    # ── laying out ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _lay_out(self, key: str, current: n.Node) -> Instruction | None:
        out, at = self.slot[key], self.slot.__getitem__
        match current:
            case n.Forward():
                features = tuple(tap.feature for tap in self._taps[key].values())
                anatomy = self._anatomies.get(current.model)
                model, all_eager = self.models[current.model], not current.narrow
                capture = self.captures[key] = Capture(model, features, anatomy, all_eager=all_eager)
                if current.packed and isinstance(packing := packing_of(model, capture.anatomy), Packing):
                    self.packings[key] = packing
                return self._forward(key, current, set(self._taps[key]))
            case n.Tap() | n.Temperature():
                return None  # a forward puts its features into their slots, a loss computes its temperature
            case n.Mean():
                return mean_instruction(current, at, out, self._place(current.unit, current.mask, current.data))
            case n.Projection():
                projection, source = self.projections[current.site], at(current.value)

                def project(step: Step) -> None:
                    step.slots[out] = projection(step.slots[source])

                return project
            case n.Loss():
                options = {name: node(self.graph, used) for name, used in current.arguments.items()}
                place = self._place(current.unit, current.mask, current.data)
                return loss_instruction(current, options, at, out, place)
        found = simple_instruction(current, at, out)
        assert found is not None, type(current).__name__
        return found

    def _forward(self, key: str, forward: n.Forward, taps: set[str]) -> Instruction:
        """The call of a forward for some of its taps."""
        own = {tap: x for tap, x in self._taps[key].items() if tap in taps}
        tapped = {self.slot[tap]: x.feature for tap, x in own.items()}
        entry = node(self.graph, forward.entry)
        data = entry.data if isinstance(entry, n.Input) else ""
        padding = {self.slot[tap] for tap, x in own.items() if x.padding}
        shapes = {self.slot[tap]: x.shape for tap, x in own.items()}
        model, source = self.models[forward.model], self.slot[forward.entry]
        capture, packing = self.captures[key], self.packings.get(key)
        return forward_instruction(forward, model, capture, source, tapped, data, padding, shapes, packing)

    def _place(self, unit: str, mask: str | None, data: str) -> int:
        """Where the count of these units stands among all counts."""
        if mask is not None and unit in SHARED:
            chosen = node(self.graph, mask)
            mask = mask if isinstance(chosen, n.Mask) and chosen.which in ("column", "labels") else None
        counted = (unit, mask, "" if mask is not None else data)
        if counted not in self.counted:
            self.counted.append(counted)
            self._data_of_counted.append(self._data_of(mask) if mask is not None else {data})
        return self.counted.index(counted)

    def _data_of(self, key: str) -> set[str]:
        """The data sets whose batch a value is made from."""
        current = node(self.graph, key)
        if isinstance(current, n.Input | n.Column):
            return {current.data}
        return {data for used in current.inputs for data in self._data_of(used)}

    def remove(self) -> None:
        """Take every hook away from the models."""
        for capture in self.captures.values():
            capture.remove()
        while self.packings:
            self.packings.popitem()[1].release()


class _WithZeros(torch.autograd.Function):
    """The same loss, whose gradient in some more parameters is zero: not none, on which an optimizer would not act."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients[0], *(torch.zeros_like(p) for p in ctx.parameters)
