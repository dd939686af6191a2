"""A graph laid out once as a flat list of calls: running a batch walks no graph and looks up no name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from brewgraph.data.batching.order import is_idle
from brewgraph.display.equation import spell
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Reached, info, node, of_kind, used_by
from brewgraph.graph.optimize import all_reached, chunk_groups, needed, reached, releases, running_order
from brewgraph.graph.scalars import Horizon, scalar_keys
from brewgraph.models.capture.capture import Capture
from brewgraph.models.capture.packing import Packing, packing_of
from brewgraph.models.capture.recompute import entered_again
from brewgraph.models.fake.shapes import Reach
from brewgraph.models.heads import may_draw
from brewgraph.models.standby import stands_by
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.decoder import Decoder
from brewgraph.runtime.instructions import (
    NOT_INPUTS,
    Batch,
    Instruction,
    Step,
    base_of,
    enters,
    first_tensor,
    forward_instruction,
    loss_call,
    mean_call,
    put,
    simple_call,
)
from brewgraph.runtime.kept_values import cached_values
from brewgraph.runtime.kernels import fast_kernels
from brewgraph.runtime.layouts import Packed, Padded, Slots
from brewgraph.runtime.ranks import Ranks, is_first_rank, several_ranks
from brewgraph.runtime.vocabulary import chunked

__all__ = ["NOT_INPUTS", "Batch", "Program"]
SHARED = frozenset({"example", "batch"})
"""Units that a mask of tokens does not choose among: such a mask is only there for the maths."""
MARK = "brewgraph: "
"""What the name of a node in a profile begins with."""
_NOTHING = nullcontext()
ParametersOf = Callable[[Reached], Mapping[str, nn.Parameter]]


@dataclass(frozen=True)
class Listing:
    """What runs while some products of the loss are zero: instructions, each with its node and the slots that are
    cleared after it.

    `terms` are the slots of the terms that are computed; `zeros` the parameters that no gradient reaches now, and that
    get one of zero, as they would if everything ran.
    """

    steps: tuple[tuple[str, Instruction, tuple[int, ...]], ...]
    terms: Mapping[str, int]
    zeros: tuple[nn.Parameter, ...]


class Program:
    """The calls of an optimized graph for these modules. `counted` says what each entry of `count`'s result counts.

    `parameters_of` gives the parameters that gradients reach, by name: for graphs whose terms may be left out.
    `anatomies` are those of models that were loaded without unneeded layers, as they are with them. Folders of caches
    are relative to `folder`. `places` are the devices of models that stay on one of their own.
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
        places: Mapping[str, torch.device] | None = None,
    ):
        self.graph, self.models, self.projections, self.info = graph, models, projections, info(graph)
        self.order = running_order(graph)
        self.slot = {key: i for i, key in enumerate(self.order)}
        self.counted: list[tuple[str, str | None, str]] = []
        self._data_of_counted: list[set[str]] = []
        self.captures: dict[str, Capture] = {}
        self.packings: dict[str, Packing | None] = {}
        self.decoders: dict[str, Decoder] = {}
        self._parameters_of, self._anatomies, self._places = parameters_of, anatomies or {}, places or {}
        self._taps: dict[str, dict[str, n.Tap]] = defaultdict(dict)
        for key, tap in of_kind(graph, n.Tap, self.order):
            self._taps[tap.forward][key] = tap
        self.inputs: list[Instruction] = []
        self.scalars: list[Instruction] = []
        self.instructions: dict[str, Instruction] = {}
        scalars = scalar_keys(graph)
        for key in self.order:
            current = node(graph, key)
            instruction = self._lay_out(key, current)
            if instruction is None:
                continue
            if isinstance(current, n.Input | n.Column | n.Mask):
                self.inputs.append(instruction)
            elif key in scalars:
                self.scalars.append(instruction)
            else:
                self.instructions[key] = instruction
        self._groups = {key: group for group in chunk_groups(graph) for key in group}
        guards = (self.info.guards or {}).items()
        self.guards = [(key, [self.slot[weight] for weight in weights]) for key, weights in guards]
        self.objective = self.slot[self.info.objective]
        self.compares_examples = any(n.compares_examples(node(graph, key)) is not None for key in self.order)
        """Whether something in it compares the examples of a batch."""
        self.caches = cached_values(graph, folder, self.slot, models)
        self._listings: dict[tuple[tuple[str, ...], tuple[str, ...]], Listing] = {}
        self._alive: dict[tuple[str, ...], frozenset[str]] = {}
        self._fills: dict[tuple[str, ...], tuple[tuple[str, Instruction, tuple[int, ...]], ...]] = {}

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(
        self,
        batch: Batch,
        progress: float,
        counts: Tensor | None = None,
        horizon: Horizon | None = None,
        *,
        gather: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the named terms that count in it now.

        `counts` are those of the global batch; left out, of this batch alone. With `gather` all ranks run it together,
        and what compares the examples of a batch gets those of all.
        """
        step = self._begin(batch, progress, horizon or Horizon())
        idle = self._idle(batch)
        if gather and self.compares_examples and several_ranks():
            step.ranks, step.divided = Ranks(idle), counts is not None
        # a batch in which nothing counts (every label -100) has a loss of zero, not of 0/0
        step.counts = (self._count(step) if counts is None else counts).clamp_min(1)
        if any(idle):  # rows borrowed from another rank: their sums, and gradients, are divided to zero
            step.counts = step.counts.masked_fill(torch.tensor(idle, device=step.counts.device), torch.inf)
        for instruction in self.scalars:
            instruction(step)
        slots = step.slots
        dead = tuple(key for key, weights in self.guards if any(slots[i] == 0 for i in weights))
        held = self._look_up(step, dead) if self.caches else ()
        listing = self._listings.get((dead, held)) or self._list(dead, held)
        for key in dead:
            slots[self.slot[key]] = 0.0
        with entered_again(fast_kernels):
            profiled = torch.autograd._profiler_enabled()
            for key, instruction, released in listing.steps:
                with record_function(MARK + self._title(key)) if profiled else _NOTHING:
                    instruction(step)
                for i in released:
                    slots[i] = None
        loss = slots[self.objective]
        zeros = [p for p in listing.zeros if p.requires_grad]
        if not isinstance(loss, Tensor):  # every term is switched off
            like = zeros[0] if zeros else torch.zeros(())
            loss = torch.full((), loss, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
        if zeros and torch.is_grad_enabled():
            loss = with_zeros(loss, zeros)
        terms = {name: slots[i] for name, i in listing.terms.items()}
        return loss, {name: value for name, value in terms.items() if isinstance(value, Tensor)}

    def count(self, batch: Batch, *, gather: bool = False) -> Tensor:
        """How many units of each kind the batch holds: one number per entry of `counted`. No model runs.

        A batch that is one rank's share of one that ranks `gather` is counted by the first rank.
        """
        counts = self._count(self._begin(batch, 0.0, Horizon()))
        if gather and several_ranks() and not is_first_rank():
            counts = counts.masked_fill(torch.tensor([x[0] == "batch" for x in self.counted], device=counts.device), 0)
        return counts

    @torch.no_grad()
    def fill(self, batch: Batch) -> None:
        """Write to disk what the spec keeps of this batch and is not there yet. Neither student nor losses run."""
        step, known = self._begin(batch, 0.0, Horizon()), dict[object, Any]()
        missing = tuple(cached.key for cached in self.caches if not cached.find(step, known))
        if not missing:
            return
        if missing not in self._fills:
            self._fills[missing] = self._steps(used_by(self.graph, missing))
        step.counts = self._count(step).clamp_min(1)
        with fast_kernels():
            for instruction in self.scalars:
                instruction(step)
            for _, instruction, _ in self._fills[missing]:
                instruction(step)

    def _begin(self, batch: Batch, progress: float, horizon: Horizon) -> Step:
        step = Step(batch, Slots([None] * len(self.slot)), progress, None, horizon)
        for instruction in self.inputs:
            instruction(step)
        return step

    def _count(self, step: Step) -> Tensor:
        counts = []
        for (unit, key, data), idle in zip(self.counted, self._idle(step.batch), strict=True):
            first = first_tensor(step.batch if idle else base_of(step.batch, data))
            if key is not None and not idle:
                layout: Padded = step.slots[self.slot[key]]
                counts.append(layout.count(unit))
            else:
                counts.append(torch.tensor(0 if idle else 1 if unit == "batch" else len(first), device=first.device))
        return torch.stack([x.float() for x in counts]) if counts else torch.zeros(0)

    def _idle(self, batch: Batch) -> list[bool]:
        """For each entry of `counted` whether its rows were borrowed from another rank."""
        return [any(is_idle(base_of(batch, name)) for name in names) for names in self._data_of_counted]

    def _look_up(self, step: Step, dead: tuple[str, ...]) -> tuple[str, ...]:
        """The values that are on disk for every example of the batch, among those that the loss needs now."""
        if dead not in self._alive:
            self._alive[dead] = frozenset(needed(self.graph, dead))
        wanted, known = self._alive[dead], dict[object, Any]()
        return tuple(cached.key for cached in self.caches if cached.key in wanted and cached.find(step, known))

    def _title(self, key: str) -> str:
        """A node in a profile."""
        current = node(self.graph, key)
        title = f"forward of {current.model}" if isinstance(current, n.Forward) else spell(self.graph, key)
        return title if len(title) <= 70 else f"{title[:69]}…"

    # ── what runs when ───────────────────────────────────────────────────────────────────────────────────────────────

    def forget_parameters(self) -> None:
        """List anew what runs: the listings name parameters."""
        self._listings.clear()

    def _list(self, dead: tuple[str, ...], held: tuple[str, ...] = ()) -> Listing:
        """What runs while these products are zero and these values are read from disk; listed once for each set."""
        graph = self.graph
        live = needed(graph, {*dead, *held})
        running = live - {*dead, *held}
        students = (k for k, x in of_kind(graph, n.Forward) if x.role == "student" and may_draw(self.models[x.model]))
        drawing = [tap for key in students for tap in self._taps[key]]  # a student that draws dropout still draws it
        running |= used_by(graph, drawing)
        terms = {name: self.slot[key] for name, key in self.info.terms.items() if key in live}
        listing = self._listings[dead, held] = Listing(self._steps(running), terms, self._zeros(dead))
        return listing

    def _steps(self, running: Collection[str]) -> tuple[tuple[str, Instruction, tuple[int, ...]], ...]:
        """The instructions of these nodes, in order, each forward for those of its taps that are among them."""
        running = frozenset(running)
        released = releases(self.graph, running) if self.info.released else {}
        steps: list[tuple[str, Instruction, tuple[int, ...]]] = []
        grouped: set[str] = set()
        for key in self.order:
            instruction = self.instructions.get(key)
            if key not in running or instruction is None or key in grouped:
                continue
            if key in self._groups:
                group = [x for x in self._groups[key] if x in running]
                grouped.update(group)
                gone = tuple(self.slot[used] for x in group for used in released.get(x, ()))
                steps.append((key, self._chunked(group), gone))
                continue
            if isinstance(current := node(self.graph, key), n.Forward) and not running.issuperset(self._taps[key]):
                instruction = self._forward(key, current, {tap for tap in self._taps[key] if tap in running})
            steps.append((key, instruction, tuple(self.slot[used] for used in released.get(key, ()))))
            steps += [
                (key, cached.keep, ()) for cached in self.caches if cached.made_by == key and cached.key in running
            ]
        return tuple(steps)

    def _chunked(self, group: list[str]) -> Instruction:
        """The call of values that are computed a chunk of tokens at a time."""
        inputs = dict.fromkeys(used for key in group for used in node(self.graph, key).inputs if used not in group)
        masks = [self.slot[key] for key, _ in of_kind(self.graph, n.Mask, inputs)]
        scalars = [self.slot[key] for key in inputs if node(self.graph, key).shape == ()]
        values = [i for key in inputs if (i := self.slot[key]) not in masks and i not in scalars]
        losses = [self.slot[key] for key, _ in of_kind(self.graph, n.Loss, group)]
        return chunked([self.instructions[key] for key in group], values, masks, scalars, losses)

    def _zeros(self, dead: tuple[str, ...]) -> tuple[nn.Parameter, ...]:
        """The parameters that gradients would reach if everything ran, but do not reach now."""
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
                splits = any(tap.split for tap in self._taps[key].values())
                if splits and current.model not in self._places:  # chunks are multiplied where the losses are
                    decoder = Reach(model, anatomy).decoder
                    if isinstance(decoder, Decoder):
                        self.decoders[key] = decoder
                        features += (enters(decoder),)
                self.captures[key] = Capture(model, features, anatomy, all_eager=all_eager)
                if current.packed and not stands_by(model):
                    self._packing(key, model)
                return self._forward(key, current, set(self._taps[key]))
            case n.Tap() | n.Temperature():
                return None  # a forward fills the slots of its features, a loss computes its temperature
            case n.Mean():
                return put(mean_call(current, at, self._place(current.unit, current.mask, current.data)), out)
            case n.Projection():
                projection, source = self.projections[current.site], at(current.value)
                return put(lambda step: _projected(projection, step.slots.raw(source)), out)
            case n.Loss():
                options = {name: node(self.graph, used) for name, used in current.arguments.items()}
                place = self._place(current.unit, current.mask, current.data)
                return put(loss_call(current, options, at, place), out)
        return put(simple_call(current, at), out)

    def _forward(self, key: str, forward: n.Forward, taps: set[str]) -> Instruction:
        """The call of a forward for some of its taps."""
        entry = node(self.graph, forward.entry)
        assert isinstance(entry, n.Input)
        slots = {self.slot[tap]: x for tap, x in self._taps[key].items() if tap in taps}
        model, source = self.models[forward.model], self.slot[forward.entry]
        capture, decoder, place = self.captures[key], self.decoders.get(key), self._places.get(forward.model)
        packing = partial(self._packing, key, model) if forward.packed else None
        return forward_instruction(forward, model, capture, source, slots, entry.data, packing, decoder, place)

    def _packing(self, key: str, model: nn.Module) -> Packing | None:
        """What packs a forward, tried once its model has weights; None where it runs padded."""
        if key not in self.packings:
            packing = packing_of(model, self.captures[key].anatomy)
            self.packings[key] = packing if isinstance(packing, Packing) else None
        return self.packings[key]

    def _place(self, unit: str, mask: str | None, data: str) -> int:
        """The place of the count of these units among all counts."""
        if mask is not None and unit in SHARED:
            chosen = node(self.graph, mask)
            mask = mask if isinstance(chosen, n.Mask) and chosen.which in ("column", "labels") else None
        counted = (unit, mask, "" if mask is not None else data)
        if counted not in self.counted:
            self.counted.append(counted)
            self._data_of_counted.append(self._data_of(mask) if mask is not None else {data})
        return self.counted.index(counted)

    def _data_of(self, key: str) -> set[str]:
        """The data sets that a value is made from."""
        below = (node(self.graph, used) for used in used_by(self.graph, [key]))
        return {x.data for x in below if isinstance(x, n.Input | n.Column)}

    def remove(self) -> None:
        """Remove every hook from the models."""
        for capture in self.captures.values():
            capture.remove()
        while self.packings:
            if (packing := self.packings.popitem()[1]) is not None:
                packing.release()


def _projected(projection: nn.Module, x: Tensor | Packed) -> Tensor | Packed:
    """A linear map of rows, also of packed ones."""
    return Packed(projection(x.x_N), x.tokens) if isinstance(x, Packed) else projection(x)


def with_zeros(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The same loss, whose gradient for more parameters is zero."""
    more: Tensor = _WithZeros.apply(loss, *parameters)
    return more


class _WithZeros(torch.autograd.Function):
    """The same loss, whose gradient for more parameters is zero: an optimizer would not act on none."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients[0], *(torch.zeros_like(p) for p in ctx.parameters)
