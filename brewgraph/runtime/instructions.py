"""Instructions of a program: one call per node that reads its inputs from their slots and fills its own.

Everything that can be looked up is looked up when an instruction is made, nothing when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.scalars import Horizon
from brewgraph.models.capture.attention import PackedTokens
from brewgraph.models.capture.capture import Capture
from brewgraph.models.capture.packing import Packing
from brewgraph.models.fake.shapes import accepted
from brewgraph.models.heads import HeadedModel, can_end_early, may_draw, trunk_of
from brewgraph.models.padding import moved, moved_inputs, padding_shift, padding_side
from brewgraph.models.standby import awake
from brewgraph.models.structure.decoder import Decoder
from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import BUILT_IN
from brewgraph.ops.registry import UNITS, is_own
from brewgraph.ops.tensors import one_per_example
from brewgraph.recipe import numbers
from brewgraph.recipe.features import Feature
from brewgraph.recipe.numbers import schedule_value
from brewgraph.runtime.layouts import (
    HIDDEN_SCORE,
    Packed,
    Padded,
    Slots,
    SplitLogits,
    hide_padding,
    label_mask,
    token_mask,
)
from brewgraph.runtime.ranks import Ranks, Share

Batch = Mapping[str, Any]
NOT_INPUTS = frozenset({"labels", "index", "start", "end", "null", "first", "words", "offsets", "weights"})
"""What a batch holds beside a model's inputs."""
WHOLE_BATCHES = "`recipe.collator()` and `recipe.dataloaders()` make whole batches"
"""The remedy for a batch that lacks a field."""


@dataclass
class Step:
    """What the calls of one forward share: the batch, the values so far, progress, counts that divide losses.

    `ranks` are those that run this forward together, None where this process runs it alone; `divided` says whether each
    of them adds its part of a loss that all compute from the whole batch, because `counts` are those of all.
    """

    batch: Batch
    slots: Slots
    progress: float
    counts: Tensor | None
    horizon: Horizon
    ranks: Ranks | None = None
    divided: bool = False


Instruction = Callable[[Step], None]


def base_of(batch: Batch, data: str) -> Batch:
    """The part of a batch that belongs to a data set: under its name if there are several, else the whole batch."""
    own = batch.get(data)
    return own if isinstance(own, Mapping) else batch


def forward_instruction(
    forward: n.Forward,
    model: nn.Module,
    capture: Capture,
    source: int,
    taps: Mapping[int, n.Tap],
    data: str,
    find_packing: Callable[[], Packing | None] | None = None,
    decoder: Decoder | None = None,
    place: torch.device | None = None,
) -> Instruction:
    """The call of a model on its encoding, with exactly the tensors that its forward names.

    `taps` are its features by their slots. Padding is moved to the side that the model expects, and features are moved
    back. A forward that stops ends with its last feature, unless it would have drawn random numbers afterwards. Split
    logits are left to whoever reads them: the forward ends before its `decoder`, behind which nothing is drawn. A model
    with a `place` of its own gets its inputs there, and its features go back to the device of the batch. A model that
    stands by is loaded before its packing is asked for.
    """
    names, rest, required = accepted(model)
    main = getattr(trunk_of(model), "main_input_name", None)
    trainable = forward.role == "student"
    name, columns, side = forward.model, forward.columns, padding_side(model)
    layer = cast(nn.Linear, model.get_submodule(decoder.path)) if decoder is not None else None
    heads = tuple(sorted({tap.feature.head for tap in taps.values() if tap.feature.head is not None}))
    extra: dict[str, Any] = {"heads": heads} if isinstance(model, HeadedModel) else {}
    if "use_cache" in names:
        extra["use_cache"] = False  # keys and values for a generation take memory, and each layer its own compiled code
    low = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)

    def plan(decoder: Decoder | None) -> tuple[dict[int, Feature], frozenset[Feature], bool]:
        """The features that fill the slots, and whether the forward can end with them."""
        takes = {slot: enters(decoder) if decoder is not None and x.split else x.feature for slot, x in taps.items()}
        wanted = frozenset(takes.values())
        before = decoder is not None and enters(decoder) in wanted
        return (
            takes,
            wanted,
            capture.can_stop(wanted) and (before or (forward.stops and not (trainable and may_draw(model)))),
        )

    usual, whole = plan(decoder), plan(None)

    def run_forward(step: Step) -> None:
        encoding = step.slots[source]
        inputs: dict[str, Tensor] = {
            key: value
            for key, value in encoding.items()
            if (key in names or rest) and key not in NOT_INPUTS and isinstance(value, Tensor)
        }
        for argument, column in columns:
            base = base_of(step.batch, data)
            if column not in base:
                raise RunError(
                    f"`{name}` gets `{argument}` from `{column}`, but the batch has {listing(base)}; {WHOLE_BATCHES}"
                )
            inputs[argument] = base[column]
        missing = sorted(required - inputs.keys() - ({main} if "inputs_embeds" in inputs else set()))
        if missing:
            there = f"but the batch has {listing(encoding)}"
            raise RunError(f"the forward of `{name}` needs {listing(missing)}, {there}; {WHOLE_BATCHES}")
        if place is not None:
            home = first_tensor(encoding).device
            inputs = {key: x.to(place) for key, x in inputs.items()}
        if low is not None:
            inputs = {key: x.to(low) if x.is_floating_point() else x for key, x in inputs.items()}
        shift_B = padding_shift(inputs, side)
        if shift_B is not None:
            inputs = moved_inputs(inputs, shift_B)
        awake(model)
        packing = find_packing() if find_packing is not None else None
        takes, wanted, stops = whole if layer is not None and _is_hooked(layer) else usual
        output = None  # stays so where the forward ends early
        until = wanted if stops and can_end_early(model) else ()
        learning = torch.set_grad_enabled(trainable and torch.is_grad_enabled())
        mask_BL = inputs.get("attention_mask")
        packed: AbstractContextManager[PackedTokens | None] = nullcontext()
        if packing is not None and mask_BL is not None and mask_BL.dim() == 2:
            packed = packing.packed(mask_BL)
        with packed as tokens, capture.armed(until), learning:
            output = model(**inputs, **extra)
        values = capture.collect(output, wanted)
        if tokens is not None and packing is not None:
            inside = {
                x for x in values if packing.is_inside(capture.anatomy.site(x).path) and tokens.is_packed(values[x])
            }
        else:
            inside = set()
        for slot, tap in taps.items():
            value = values[takes[slot]]
            if decoder is not None and layer is not None and takes[slot] != tap.feature:
                hidden_BLH = value if shift_B is None else moved(value, -shift_B, [1])
                step.slots[slot] = SplitLogits(hidden_BLH, layer, decoder, full=low is not None)
                continue
            if low is not None and value.dtype == low:  # losses are computed in fp32
                value = value.float()
            if tap.feature in inside and tokens is not None:
                if shift_B is None:
                    if place is None:
                        step.slots[slot] = Packed(value, tokens)
                    else:
                        step.slots[slot] = Packed(value.to(home), tokens.to(home))
                    continue
                value = tokens.unpack(value)
            if shift_B is not None:
                value = moved(value, -shift_B, _token_axes(tap))
            if place is not None:
                value = value.to(home)
            hidden = tap.feature.name in ("start", "end") and not tap.padding
            step.slots[slot] = hide_padding(value, encoding) if hidden else value

    return run_forward


def _is_hooked(layer: nn.Module) -> bool:
    """Whether a module computes more than its class says: it has hooks of its user's, or another forward."""
    hooks = (*layer._forward_hooks.values(), *layer._forward_pre_hooks.values())
    foreign = (hook for hook in hooks if not getattr(hook, "__module__", "").startswith("brewgraph."))
    return "forward" in vars(layer) or next(foreign, None) is not None


def enters(decoder: Decoder) -> Feature:
    """What enters the last linear layer of a model."""
    return Feature("tap", path=decoder.path, input=True)


def _token_axes(tap: n.Tap) -> list[int]:
    """The axes of a feature that hold the tokens of each example. Raises `RunError` where they are not known."""
    sizes = tap.shape or ()
    axes = [i for i, size in enumerate(sizes) if "length" in str(size) and "decoder_length" not in str(size)]
    if tap.shape is None or any(sizes[i] != "length" for i in axes):
        raise RunError(
            f"the batch is padded on the left, but `{tap.model}` needs padding on the right; `{tap.feature}` cannot be "
            "moved back, as its axes of tokens are not known: pad the batch on the right "
            '(`tokenizer.padding_side = "right"`)'
        )
    return axes


# ── other nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────


SlotOf = Callable[[str], int]
"""The slot of a value among those of a step, by its key."""
Side: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""A side of a loss; the members of a tuple or a row come as a tuple."""
_EVERYTHING = Padded(None)
_FILLS = {"labels": -100.0, "positions": HIDDEN_SCORE}
"""What a rank's values of these kinds are lengthened with to the longest example of all ranks; others with zero."""


def put(call: Callable[[Step], Any], out: int) -> Instruction:
    """The instruction that puts the result of a call into a slot."""

    def run(step: Step) -> None:
        step.slots[out] = call(step)

    return run


def simple_call(current: n.Node, at: SlotOf) -> Callable[[Step], Any]:
    """The call of a node that needs only its inputs."""
    into = [at(key) for key in current.inputs]
    match current:
        case n.Input():
            return partial(_input, current)
        case n.Column():
            return partial(_column, current, into)
        case n.Mask():
            return lambda step: Padded(_mask(current.which, [step.slots[i] for i in into]), current.which)
        case n.Bundle():
            return lambda step: tuple(step.slots[i] for i in into)
        case n.Transform():
            return _built_in(current, at) if current.name in BUILT_IN else _transform(current, at)
        case n.Number():
            return lambda step: current.value
        case n.Schedule():
            return lambda step: schedule_value(current.name, current.arguments, step.progress, step.horizon.share)
        case n.Combine():
            return lambda step: compute(current.operator, [step.slots[i] for i in into], current.position)
    raise NotImplementedError(type(current).__name__)


def _input(entry: n.Input, step: Step) -> Batch:
    """The part of a batch that a model reads: under its name where it has its own."""
    base = base_of(step.batch, entry.data)
    encoding = base.get(entry.model)
    return encoding if isinstance(encoding, Mapping) else base


def _column(column: n.Column, into: list[int], step: Step) -> Any:
    """Labels along the tokens lie in a model's encoding, everything else beside the encodings."""
    base = base_of(step.batch, column.data)
    encoding = step.slots[into[0]] if into else base
    values = encoding.get(column.column, base.get(column.column))
    if values is None:
        raise RunError(f"the batch has no `{column.column}`; it has {listing(base)}; {WHOLE_BATCHES}")
    return values


def _mask(which: str, inputs: Sequence[Any]) -> Tensor:
    """The units that count: bool. The inputs are encodings; of `labels` and `column` the last one is that column."""
    if which == "labels":
        return label_mask(inputs[0])
    if which == "column":
        marked: Tensor = inputs[-1] != 0
        if len(inputs) == 1:
            return marked
        tokens = token_mask(inputs[0])
        return tokens & (marked if marked.dim() == tokens.dim() else marked[:, None])
    if which == "words" or len(inputs) > 1:
        kept = [encoding["words"] >= 0 for encoding in inputs]
        return torch.stack(kept).all(0) if which == "words" else torch.ones_like(kept[0])
    tokens = token_mask(inputs[0])
    return torch.ones_like(tokens) if which == "none" else tokens


# ── transforms ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _built_in(transform: n.Transform, at: SlotOf) -> Callable[[Step], Any]:
    """A function of the language itself, on one value."""
    built, words = BUILT_IN[transform.name], dict(transform.words)
    value, mask, entry = at(transform.values[0]), _slot(transform.mask, at), _slot(transform.entry, at)

    def call(step: Step) -> Any:
        arguments: dict[str, Any] = dict(words)
        if built.needs_layout:
            arguments["layout"] = _layout(step, mask)
        if entry is not None:
            arguments["words"] = _first_tokens(step.slots[entry])
        return built.function(step.slots[value], **arguments)

    return call


def _first_tokens(encoding: Mapping[str, Tensor]) -> Tensor:
    """The place of each word's first token, (B, W), -1 where there is none."""
    if "words" not in encoding:
        there = f"it has {listing(encoding)}; {WHOLE_BATCHES}"
        raise RunError(f"the batch has no `words`, the first token of each word; {there}")
    return encoding["words"]


def _transform(transform: n.Transform, at: SlotOf) -> Callable[[Step], Any]:
    """A declared transform, in full precision as losses are."""
    declared, mask, values = TRANSFORMS[transform.name], _slot(transform.mask, at), list(map(at, transform.values))
    options, words = [(name, at(key)) for name, key in transform.arguments.items()], dict(transform.words)
    foreign = not is_own(declared.module)

    def make(step: Step) -> Any:
        arguments: dict[str, Any] = {name: step.slots[i] for name, i in options} | words
        layout = _layout(step, mask)
        if declared.needs_layout:
            arguments["layout"] = layout
        shielded = [layout.shield(_full(step.slots[i])) for i in values]
        with torch.autocast(shielded[0].device.type, enabled=False):
            made = declared.function(*shielded, **arguments)
        if foreign:
            axes = max(1, made.dim()) if isinstance(made, Tensor) else 1
            rest = [None] * (axes - 1)
            _check_returned(transform.name, made, [len(shielded[0]), *rest], "its first axis is that of examples")
        return made

    return make


# ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def loss_call(loss: n.Loss, options: Mapping[str, n.Node], at: SlotOf, place: int) -> Callable[[Step], Tensor]:
    """The call of a loss. `options` are the nodes of its options; its count is at `place` among all counts."""
    operation, mask, unit = OPERATIONS[loss.operation], _slot(loss.mask, at), loss.unit
    function, words = operation.maths(*loss.kinds), dict(loss.words)
    temperatures = [(name, x, TEMPERATURES[x.name]) for name, x in options.items() if isinstance(x, n.Temperature)]
    plain = [(name, at(loss.arguments[name])) for name, x in options.items() if not isinstance(x, n.Temperature)]
    needs_layout, foreign = operation.needs_layout, not is_own(operation.module)
    couples = any(n.compares_examples(x) is not None for x in (loss, *options.values()))
    sides = [
        (at(key), kind in ("attention", "scores"))
        for key, kind in zip((loss.source, loss.target), loss.kinds, strict=True)
    ]

    by_row = (  # one number for each row of both sides, whatever stands beside it
        loss.reduced
        and unit == "token"
        and loss.kinds == ("hidden", "hidden")
        and not (needs_layout or foreign or temperatures)
    )

    def lose(step: Step) -> Tensor:
        layout = _layout(step, mask)
        tokens = layout.tokens if by_row else None
        arguments: dict[str, Any] = {name: step.slots[i] for name, i in plain} | words
        if tokens is not None:
            one, other = (_full(step.slots.rows(i, tokens)) for i, _ in sides)
        else:
            one, other = (_shielded(_full(step.slots[i]), layout, pairs) for i, pairs in sides)
        share, spread = None, layout
        if couples and step.ranks is not None:
            share = step.ranks.at(place)
            if unit == "batch" and operation.gathers != "sums":
                one, other, arguments, layout = _gathered(loss, share, one, other, arguments, layout)
                spread = layout
            else:
                spread = replace(layout, share=share)
        if needs_layout:
            arguments["layout"] = spread if unit == "batch" else layout
        first = other[0] if isinstance(other, tuple) else other
        with torch.autocast(first.device.type, enabled=False):
            for name, x, declared in temperatures:
                more = {"layout": spread} if declared.needs_layout else {}
                arguments[name] = declared.function(one, other, x.base, **dict(x.options), **more)
            values: Tensor = function(one, other, **arguments)
        if foreign:
            _check_values(loss, values, len(first), layout)
        if not loss.reduced:
            return layout.hide(values, unit)
        assert step.counts is not None
        count = step.counts[place]
        if share is not None and unit == "batch" and step.divided:
            count = count * share.busy
        return (layout.sum(values, unit) if tokens is None else values.sum()) / count

    return lose


def _gathered(
    loss: n.Loss, share: Share, source: Side, target: Side, arguments: Mapping[str, Any], layout: Padded
) -> tuple[Side, Side, dict[str, Any], Padded]:
    """Sides, options and layout of a loss that compares examples, with the examples of all ranks."""
    how = OPERATIONS[loss.operation].gathers
    if how == "first":
        source, target, layout = one_per_example(source, layout), one_per_example(target, layout), _EVERYTHING
    sides = tuple(zip((loss.source, loss.target), loss.kinds, (source, target), strict=True))
    options = {name: x for name, x in arguments.items() if isinstance(x, Tensor) and x.dim()}
    values: dict[Hashable, tuple[Tensor, float]] = {
        (how, key, loss.mask, i): (x, _FILLS.get(kind, 0.0))
        for key, kind, side in sides
        for i, x in enumerate(side if isinstance(side, tuple) else (side,))
    }
    values |= {("option", loss.arguments[name]): (x, 0.0) for name, x in options.items()}
    if layout.mask_BL is not None:
        values["mask", loss.mask] = layout.mask_BL, 0.0
    whole = share.gather(values)
    source, target = (
        tuple(whole[how, key, loss.mask, i] for i in range(len(side)))
        if isinstance(side, tuple)
        else whole[how, key, loss.mask, 0]
        for key, _, side in sides
    )
    if layout.mask_BL is not None:
        layout = Padded(whole["mask", loss.mask], layout.which)
    return source, target, {**arguments, **{x: whole["option", loss.arguments[x]] for x in options}}, layout


def mean_call(mean: n.Mean, at: SlotOf, place: int) -> Callable[[Step], Tensor]:
    """The mean over the units of a batch; their count is at `place` among all counts."""
    unit, source, mask = mean.unit, at(mean.value), _slot(mean.mask, at)

    def average(step: Step) -> Tensor:
        assert step.counts is not None
        return _layout(step, mask).sum(step.slots[source], unit) / step.counts[place]

    return average


_AXES = {"example": "B", "token": "BL", "word": "BL", "pair": "BLL", "batch": ""}


def _check_values(loss: n.Loss, values: object, rows: int, layout: Padded) -> None:
    """A `RunError` where a user's operation does not return one floating-point number per unit."""
    unit, mask = loss.unit, layout.mask_BL
    sizes = {"B": rows, **({"L": mask.shape[1]} if mask is not None and mask.dim() > 1 else {})}
    if unit == "label" and mask is not None:
        expected: list[int | None] = list(mask.shape)
    elif unit in _AXES:
        expected = [sizes.get(axis) for axis in _AXES[unit]]
    else:  # labels without a mask: along the examples at least
        expected = [rows, *[None] * (getattr(values, "dim", lambda: 1)() - 1)]
    _check_returned(loss.operation, values, expected, f"its unit is `{unit}`: {UNITS[unit]}")


def _check_returned(name: str, value: object, expected: Sequence[int | None], why: str) -> None:
    """A `RunError` where a user's function returns other axes than expected; None is any size."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    fits = shape is not None and len(shape) == len(expected)
    if isinstance(value, Tensor) and fits and all(e in (None, s) for s, e in zip(value.shape, expected, strict=True)):
        if value.is_floating_point():
            return
        raise RunError(f"`{name}` returns {value.dtype}; {why}. Return a floating-point tensor")
    returned = type(value).__name__ if shape is None else f"a tensor of shape {shape}"
    wanted = "(" + ", ".join("n" if e is None else str(e) for e in expected) + ("," * (len(expected) == 1)) + ")"
    raise RunError(f"`{name}` returns {returned}; {why}. Return a tensor of shape {wanted}")


def _slot(key: str | None, at: SlotOf) -> int | None:
    return None if key is None else at(key)


def _layout(step: Step, mask: int | None) -> Padded:
    layout: Padded = _EVERYTHING if mask is None else step.slots[mask]
    return layout


def _full(x: Any) -> Any:
    """Losses are computed in full precision whatever the models run in."""
    if isinstance(x, tuple):
        return tuple(map(_full, x))
    return x.float() if x.is_floating_point() and x.dtype in (torch.float16, torch.bfloat16) else x


def _shielded(x: Side, layout: Padded, pairs: bool) -> Side:
    """A side through which no gradient reaches padding."""
    return tuple(layout.shield(y) for y in x) if isinstance(x, tuple) else layout.shield(x, pairs=pairs)


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────────


def compute(operator: str, operands: list[Any], position: int | None = None) -> Any:
    """One arithmetic step over numbers and tensors; a number per example applies to all values of its example."""
    return numbers.compute(operator, operands, position, two=_join, softmax=_softmax)


def _softmax(operands: Sequence[Any]) -> Tensor:
    return torch.softmax(torch.stack([torch.as_tensor(x) for x in operands]).float(), 0)


def _join(operator: str, one: Any, other: Any) -> Any:
    """`one operator other`; of two tensors the one with fewer axes gets axes of one behind its own."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() and other.dim():
        axes = max(one.dim(), other.dim())
        one, other = (x.view(*x.shape, *[1] * (axes - x.dim())) for x in (one, other))
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
