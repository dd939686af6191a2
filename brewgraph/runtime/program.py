"""A graph laid out once as a flat list of calls: what runs per batch walks no graph and looks up no name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph import scalars
from brewgraph.graph.passes import execution_order, node
from brewgraph.graph.scalars import Horizon, schedule_value
from brewgraph.models.capture import Capture
from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from brewgraph.recipe.features import Feature
from brewgraph.runtime.forwards import NOT_INPUTS, Batch, Instruction, Step, base_of, forward_instruction
from brewgraph.runtime.layouts import Padded, label_mask, pick_words, token_mask

__all__ = ["NOT_INPUTS", "Batch", "Program"]
SHARED = frozenset({"example", "batch"})
"""Units that a mask of tokens says nothing about: such a mask is there for the maths alone."""


class Program:
    """The calls of a graph for given modules. `counted` says what each entry of `count`'s result counts."""

    def __init__(self, graph: nx.DiGraph, models: Mapping[str, nn.Module], projections: Mapping[str, nn.Module]):
        self.graph = graph
        order = execution_order(graph)
        self.slot = {key: i for i, key in enumerate(order)}
        self.counted: list[tuple[str, str | None, str]] = []
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
            into = self.inputs if isinstance(current, n.Input | n.Column | n.Mask) else self.instructions
            if instruction is not None:
                into.append(instruction)
        self.objective = self.slot[graph.graph["objective"]]
        self.terms = {name: self.slot[key] for name, key in graph.graph["terms"].items()}

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(
        self, batch: Batch, progress: float, counts: Tensor | None = None, horizon: Horizon | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the named terms. `counts` are those of the global batch; left out, of this batch alone."""
        step = Step(batch, [None] * len(self.slot), progress, None, horizon or Horizon())
        for instruction in self.inputs:
            instruction(step)
        # a batch in which nothing counts (every label -100) has a loss of zero, not of 0/0
        step.counts = (self._count(step) if counts is None else counts).clamp_min(1)
        for instruction in self.instructions:
            instruction(step)
        return step.slots[self.objective], {name: step.slots[i] for name, i in self.terms.items()}

    def count(self, batch: Batch) -> Tensor:
        """How many units of each kind the batch holds: one number per entry of `counted`. No model runs."""
        step = Step(batch, [None] * len(self.slot), 0.0, None, Horizon())
        for instruction in self.inputs:
            instruction(step)
        return self._count(step)

    def _count(self, step: Step) -> Tensor:
        found = []
        for unit, key, data in self.counted:
            if key is not None:
                layout: Padded = step.slots[self.slot[key]]
                found.append(layout.count(unit))
                continue
            first = _first_tensor(base_of(step.batch, data))
            found.append(torch.tensor(1 if unit == "batch" else first.shape[0], device=first.device))
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
                name, data = current.model, current.data

                def put_input(step: Step) -> None:
                    base = base_of(step.batch, data)
                    own = base.get(name)
                    step.slots[out] = own if isinstance(own, Mapping) else base

                return put_input
            case n.Column():
                return _column_instruction(current, into, out)
            case n.Mask():
                return _mask_instruction(current, into, out)
            case n.Forward():
                self.captures[key] = Capture(models[current.model], tuple(taps[key].values()))
                tapped = {self.slot[k]: feature for k, feature in taps[key].items()}
                entry = node(self.graph, current.inputs[0])
                data = entry.data if isinstance(entry, n.Input) else ""
                padding = {self.slot[k] for k in taps[key] if isinstance(t := node(self.graph, k), n.Tap) and t.padding}
                own = models[current.model]
                return forward_instruction(current, own, self.captures[key], into[0], tapped, data, padding)
            case n.Tap():
                return None  # its forward has put it into its slot
            case n.Bundle():

                def bundle(step: Step) -> None:
                    step.slots[out] = tuple(step.slots[i] for i in into)

                return bundle
            case n.Transform():
                return _transform_instruction(current, into, out)
            case n.Mean():
                return self._mean_instruction(current, into, out)
            case n.Temperature():
                return None  # the loss that it belongs to computes it from its own two sides
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
                schedule, arguments = current.name, current.arguments

                def put_schedule(step: Step) -> None:
                    step.slots[out] = schedule_value(schedule, arguments, step.progress, step.horizon)

                return put_schedule
            case n.Combine():
                operator, position = current.operator, current.position

                def combine(step: Step) -> None:
                    step.slots[out] = compute(operator, [step.slots[i] for i in into], position)

                return combine
        raise AssertionError(type(current).__name__)

    def _place(self, unit: str, mask: str | None, data: str) -> int:
        """Where the count of these units stands among all counts."""
        if mask is not None and unit in SHARED:
            chosen = node(self.graph, mask)
            mask = mask if isinstance(chosen, n.Mask) and chosen.which in ("column", "labels") else None
        counted = (unit, mask, "" if mask is not None else data)
        if counted not in self.counted:
            self.counted.append(counted)
        return self.counted.index(counted)

    def _loss_instruction(self, loss: n.Loss, into: list[int], out: int) -> Instruction:
        operation = OPERATIONS[loss.operation]
        function = operation.maths(*loss.kinds)
        mask = into[2] if loss.masked else None
        place = self._place(loss.unit, loss.inputs[2] if loss.masked else None, loss.data)
        words = dict(loss.words)
        options: list[tuple[str, int]] = []
        temperatures: list[tuple[str, Any, float, dict[str, float], bool]] = []
        first = 3 if loss.masked else 2
        for name, key, slot in zip(loss.options, loss.inputs[first:], into[first:], strict=True):
            value = node(self.graph, key)
            if isinstance(value, n.Temperature):
                own = TEMPERATURES[value.name]
                temperatures.append((name, own.function, value.base, dict(value.options), own.needs_layout))
            else:
                options.append((name, slot))
        everything = Padded(None)
        needs_layout, unit, source, target = operation.needs_layout, loss.unit, into[0], into[1]
        reduced = loss.reduced

        def lose(step: Step) -> None:
            layout: Padded = everything if mask is None else step.slots[mask]
            arguments: dict[str, Any] = {name: step.slots[i] for name, i in options} | words
            if needs_layout:
                arguments["layout"] = layout
            one, other = _full(step.slots[source]), _full(step.slots[target])
            with torch.autocast(_device(other).type, enabled=False):
                for name, own, base, more, asks in temperatures:
                    arguments[name] = own(one, other, base, **more, **({"layout": layout} if asks else {}))
                values = function(one, other, **arguments)
            if not reduced:
                step.slots[out] = layout.hide(values, unit)
                return
            assert step.counts is not None
            step.slots[out] = layout.sum(values, unit) / step.counts[place]

        return lose

    def _mean_instruction(self, mean: n.Mean, into: list[int], out: int) -> Instruction:
        mask = into[1] if mean.masked else None
        place = self._place(mean.unit, mean.inputs[1] if mean.masked else None, mean.data)
        unit, source, everything = mean.unit, into[0], Padded(None)

        def average(step: Step) -> None:
            layout: Padded = everything if mask is None else step.slots[mask]
            assert step.counts is not None
            step.slots[out] = layout.sum(step.slots[source], unit) / step.counts[place]

        return average

    def remove(self) -> None:
        """Take every hook away from the models."""
        for capture in self.captures.values():
            capture.remove()


def _full(x: Any) -> Any:
    """Losses are computed in full precision whatever the models run in."""
    if isinstance(x, tuple):
        return tuple(map(_full, x))
    return x.float() if x.is_floating_point() and x.dtype in (torch.float16, torch.bfloat16) else x


def _device(x: Any) -> torch.device:
    found: torch.device = x[0].device if isinstance(x, tuple) else x.device
    return found


def compute(operator: str, operands: list[Any], position: int | None = None) -> Any:
    """One arithmetic step over numbers and tensors; one number per example goes with all that its example has."""
    if operator == "softmax":
        stacked = torch.stack([torch.as_tensor(x) for x in operands])
        return torch.softmax(stacked.float(), 0)[position or 0]
    result = operands[0]
    for operand in operands[1:]:
        pair = _aligned(result, operand)
        if operator == "max":
            result = torch.maximum(*map(torch.as_tensor, pair))
        else:
            result = scalars.compute("+" if operator == "mean" else operator, list(pair))
    return result / len(operands) if operator == "mean" else result


def _aligned(one: Any, other: Any) -> tuple[Any, Any]:
    """Two tensors with as many axes: (batch) beside (batch, length, width) gets axes of one."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() and other.dim():
        while one.dim() < other.dim():
            one = one.unsqueeze(-1)
        while other.dim() < one.dim():
            other = other.unsqueeze(-1)
    return one, other


def _first_tensor(batch: Batch) -> Tensor:
    for value in batch.values():
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Mapping):
            return _first_tensor(value)
    raise RunError("the batch holds no tensor")


def _column_instruction(column: n.Column, into: list[int], out: int) -> Instruction:
    """Labels along the tokens lie in a model's encoding, everything else beside the encodings."""
    name, data = column.column, column.data

    def put_column(step: Step) -> None:
        base = base_of(step.batch, data)
        encoding = step.slots[into[0]] if into else base
        found = encoding.get(name, base.get(name))
        if found is None:
            raise RunError(f"the batch has no `{name}`; it has {listing(base)}")
        step.slots[out] = found

    return put_column


def _mask_instruction(mask: n.Mask, into: list[int], out: int) -> Instruction:
    which = mask.which

    def put_mask(step: Step) -> None:
        bases = [step.slots[i] for i in into]
        if which == "labels":
            found = label_mask(bases[0])
        elif which == "column":
            found = bases[-1] != 0
            if len(bases) > 1:
                tokens = token_mask(bases[0])
                found = tokens & (found if found.dim() == tokens.dim() else found[:, None])
        elif which == "words" or (len(bases) > 1):
            kept = [base["words"] >= 0 for base in bases]
            found = torch.stack(kept).all(0) if which == "words" else torch.ones_like(kept[0])
        else:
            found = token_mask(bases[0])
            if which == "none":
                found = torch.ones_like(found)
        step.slots[out] = Padded(found, which)

    return put_mask


def _transform_instruction(transform: n.Transform, into: list[int], out: int) -> Instruction:
    """A value from others; what is compared is in full precision, as in losses."""
    name = transform.name
    if name == "stop":

        def stop(step: Step) -> None:
            step.slots[out] = step.slots[into[0]].detach()

        return stop
    if name == "words":

        def pick(step: Step) -> None:
            encoding = step.slots[into[1]]
            if "words" not in encoding:
                raise RunError(f"the batch has no `words`, the first token of each word; it has {listing(encoding)}")
            step.slots[out] = pick_words(step.slots[into[0]], encoding["words"])

        return pick
    if name == "token_mean":

        def average(step: Step) -> None:
            layout: Padded = step.slots[into[1]] if transform.masked else Padded(None)
            step.slots[out] = layout.mean_over_tokens(step.slots[into[0]])

        return average
    declared = TRANSFORMS[name]
    function, words, needs_layout = declared.function, dict(transform.words), declared.needs_layout
    count = len(into) - len(transform.options) - transform.masked
    options = list(zip(transform.options, into[len(into) - len(transform.options) :], strict=True))

    def make(step: Step) -> None:
        arguments: dict[str, Any] = {key: step.slots[i] for key, i in options} | words
        if needs_layout:
            arguments["layout"] = step.slots[into[count]] if transform.masked else Padded(None)
        given = [_full(step.slots[i]) for i in into[:count]]
        with torch.autocast(given[0].device.type, enabled=False):
            step.slots[out] = function(*given, **arguments)

    return make
