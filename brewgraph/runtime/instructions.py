"""Instructions of a program: one call per node that reads its inputs from their slots and puts its value into its own.

Everything that can be looked up is looked up when an instruction is made, nothing when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import BUILT_IN
from brewgraph.ops.registry import UNITS, is_own
from brewgraph.recipe import numbers
from brewgraph.recipe.numbers import schedule_value
from brewgraph.runtime.forwards import Batch, Instruction, Step, base_of
from brewgraph.runtime.layouts import Padded, label_mask, token_mask

SlotOf = Callable[[str], int]
"""Where in a step's slots a value lies, by its key."""


def simple_instruction(current: n.Node, at: SlotOf, out: int) -> Instruction | None:
    """The call of a node that needs nothing but its inputs; None where it is not one of those."""
    into = [at(key) for key in current.inputs]
    match current:
        case n.Input():
            name, data = current.model, current.data

            def put_input(step: Step) -> None:
                base = base_of(step.batch, data)
                own = base.get(name)
                step.slots[out] = own if isinstance(own, Mapping) else base

            return put_input
        case n.Column():
            return column_instruction(current, into, out)
        case n.Mask():
            return mask_instruction(current, into, out)
        case n.Bundle():

            def bundle(step: Step) -> None:
                step.slots[out] = tuple(step.slots[i] for i in into)

            return bundle
        case n.Transform():
            return transform_instruction(current, at, out)
        case n.Number():
            value = current.value

            def put_number(step: Step) -> None:
                step.slots[out] = value

            return put_number
        case n.Schedule():
            schedule, arguments = current.name, current.arguments

            def put_schedule(step: Step) -> None:
                step.slots[out] = schedule_value(schedule, arguments, step.progress, step.horizon.share)

            return put_schedule
        case n.Combine():
            operator, position = current.operator, current.position

            def combine(step: Step) -> None:
                step.slots[out] = compute(operator, [step.slots[i] for i in into], position)

            return combine
    return None


def loss_instruction(loss: n.Loss, options: Mapping[str, n.Node], at: SlotOf, out: int, place: int) -> Instruction:
    """The call of a loss. `options` are the nodes of its options; its count stands at `place` among all counts."""
    values_of, arguments_of = _maths(loss, options, at)
    source, target, mask = at(loss.source), at(loss.target), _slot(loss.mask, at)
    unit, reduced, everything = loss.unit, loss.reduced, Padded(None)

    def lose(step: Step) -> None:
        layout: Padded = everything if mask is None else step.slots[mask]
        values = values_of(step.slots[source], step.slots[target], layout, arguments_of(step))
        if not reduced:
            step.slots[out] = layout.hide(values, unit)
            return
        assert step.counts is not None
        step.slots[out] = layout.sum(values, unit) / step.counts[place]

    return lose


def _slot(key: str | None, at: SlotOf) -> int | None:
    return None if key is None else at(key)


def _maths(loss: n.Loss, options: Mapping[str, n.Node], at: SlotOf) -> tuple[Any, Any]:
    """What a loss gives per unit, from its two sides, their layout and its arguments; and these, from a step."""
    operation = OPERATIONS[loss.operation]
    function = operation.maths(*loss.kinds)
    words = dict(loss.words)
    plain: list[tuple[str, int]] = []
    temperatures: list[tuple[str, Any, float, dict[str, float], bool]] = []
    for name, value in options.items():
        if isinstance(value, n.Temperature):
            own = TEMPERATURES[value.name]
            temperatures.append((name, own.function, value.base, dict(value.options), own.needs_layout))
        else:
            plain.append((name, at(loss.arguments[name])))
    needs_layout, foreign = operation.needs_layout, not is_own(operation.module)
    pairs = [kind in ("attention", "scores") for kind in loss.kinds]

    def arguments_of(step: Step) -> dict[str, Any]:
        return {name: step.slots[i] for name, i in plain} | words

    def values_of(one: Any, other: Any, layout: Padded, arguments: dict[str, Any]) -> Any:
        if needs_layout:
            arguments = {**arguments, "layout": layout}
        one, other = (_shielded(_full(x), layout, by) for x, by in zip((one, other), pairs, strict=True))
        with torch.autocast(_device(other).type, enabled=False):
            for name, own, base, more, asks in temperatures:
                arguments[name] = own(one, other, base, **more, **({"layout": layout} if asks else {}))
            values = function(one, other, **arguments)
        if foreign:
            _check_values(loss, values, other, layout)
        return values

    return values_of, arguments_of


_AXES = {"example": "B", "token": "BL", "word": "BL", "pair": "BLL", "batch": ""}


def _check_values(loss: n.Loss, values: Any, other: Any, layout: Padded) -> None:
    """A `RunError` where an operation of the user's own does not give one floating-point number per unit."""
    unit, mask = loss.unit, layout.mask_BL
    sizes = {"B": len(other[0] if isinstance(other, tuple) else other)}
    if mask is not None and mask.dim() > 1:
        sizes["L"] = mask.shape[1]
    if unit == "label" and mask is not None:
        expected: list[int | None] = list(mask.shape)
    elif unit in _AXES:
        expected = [sizes.get(axis) for axis in _AXES[unit]]
    else:  # labels without a mask: along the examples at least
        expected = [sizes["B"], *[None] * (getattr(values, "dim", lambda: 1)() - 1)]
    _check_returned(loss.operation, values, expected, f"its unit is `{unit}`: {UNITS[unit]}")


def _check_returned(name: str, value: Any, expected: Sequence[int | str | None], why: str) -> None:
    """A `RunError` where what a function of the user's own returns has other axes; None or a symbol is any size."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    fits = shape is not None and len(shape) == len(expected)
    if fits and all(not isinstance(e, int) or e == s for s, e in zip(shape or (), expected, strict=True)):
        if value.is_floating_point():
            return
        raise RunError(f"`{name}` returns {value.dtype}; {why}. Return a floating-point tensor")
    said = type(value).__name__ if shape is None else f"a tensor of shape {shape}"
    wanted = "(" + ", ".join("n" if e is None else str(e) for e in expected) + ("," * (len(expected) == 1)) + ")"
    raise RunError(f"`{name}` returns {said}; {why}. Return a tensor of shape {wanted}")


def mean_instruction(mean: n.Mean, at: SlotOf, out: int, place: int) -> Instruction:
    """The mean over the units of a batch, which are counted at `place`."""
    unit, source, mask, everything = mean.unit, at(mean.value), _slot(mean.mask, at), Padded(None)

    def average(step: Step) -> None:
        layout: Padded = everything if mask is None else step.slots[mask]
        assert step.counts is not None
        step.slots[out] = layout.sum(step.slots[source], unit) / step.counts[place]

    return average


def _full(x: Any) -> Any:
    """Losses are computed in full precision whatever the models run in."""
    if isinstance(x, tuple):
        return tuple(map(_full, x))
    return x.float() if x.is_floating_point() and x.dtype in (torch.float16, torch.bfloat16) else x


def _shielded(x: Any, layout: Padded, pairs: bool) -> Any:
    """A side through which no gradient reaches padding."""
    return tuple(layout.shield(y) for y in x) if isinstance(x, tuple) else layout.shield(x, pairs=pairs)


def _device(x: Any) -> torch.device:
    found: torch.device = x[0].device if isinstance(x, tuple) else x.device
    return found


def compute(operator: str, operands: list[Any], position: int | None = None) -> Any:
    """One arithmetic step over numbers and tensors; one number per example goes with all that its example has."""
    return numbers.compute(operator, operands, position, two=_join, softmax=_softmax)


def _softmax(operands: Sequence[Any]) -> Tensor:
    return torch.softmax(torch.stack([torch.as_tensor(x) for x in operands]).float(), 0)


def _join(operator: str, one: Any, other: Any) -> Any:
    """`one operator other`; of two tensors (batch) beside (batch, length, width) gets axes of one."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() and other.dim():
        while one.dim() < other.dim():
            one = one.unsqueeze(-1)
        while other.dim() < one.dim():
            other = other.unsqueeze(-1)
    if operator == "max":
        return torch.maximum(torch.as_tensor(one), torch.as_tensor(other))
    return numbers.plain(operator, one, other)


def first_tensor(batch: Batch) -> Tensor:
    """The first tensor in a batch, however deep."""
    for value in batch.values():
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Mapping):
            return first_tensor(value)
    raise RunError("the batch holds no tensor")


def column_instruction(column: n.Column, into: list[int], out: int) -> Instruction:
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


def mask_instruction(mask: n.Mask, into: list[int], out: int) -> Instruction:
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


def _word_places(encoding: Mapping[str, Any]) -> Tensor:
    """The place of each word's first token, (B, W), -1 where there is none."""
    if "words" not in encoding:
        raise RunError(f"the batch has no `words`, the first token of each word; it has {listing(encoding)}")
    found: Tensor = encoding["words"]
    return found


def transform_instruction(transform: n.Transform, at: SlotOf, out: int) -> Instruction:
    """A value from others; what is compared is in full precision, as in losses."""
    name, mask, values = transform.name, _slot(transform.mask, at), [at(key) for key in transform.values]
    words = dict(transform.words)
    if name in BUILT_IN:
        built, first, entry = BUILT_IN[name], values[0], _slot(transform.entry, at)

        def call(step: Step) -> None:
            given: dict[str, Any] = dict(words)
            if built.needs_layout:
                given["layout"] = Padded(None) if mask is None else step.slots[mask]
            if entry is not None:
                given["words"] = _word_places(step.slots[entry])
            step.slots[out] = built.function(step.slots[first], **given)

        return call
    declared = TRANSFORMS[name]
    function, needs_layout = declared.function, declared.needs_layout
    options, foreign = [(key, at(used)) for key, used in transform.arguments.items()], not is_own(declared.module)

    def make(step: Step) -> None:
        arguments: dict[str, Any] = {key: step.slots[i] for key, i in options} | words
        layout: Padded = Padded(None) if mask is None else step.slots[mask]
        if needs_layout:
            arguments["layout"] = layout
        given = [layout.shield(_full(step.slots[i])) for i in values]
        with torch.autocast(given[0].device.type, enabled=False):
            made = step.slots[out] = function(*given, **arguments)
        if foreign:
            axes = max(1, made.dim()) if isinstance(made, Tensor) else 1
            _check_returned(name, made, [len(given[0]), *[None] * (axes - 1)], "its first axis is that of examples")

    return make
