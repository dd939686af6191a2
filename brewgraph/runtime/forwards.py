"""Forwards of models in a program: which tensors of a batch each one gets, and which features are taken from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
from brewgraph.runtime.layouts import Packed, Slots, hide_padding

Batch = Mapping[str, Any]
NOT_INPUTS = frozenset({"labels", "index", "start", "end", "null", "first", "words", "offsets", "weights"})
"""What a batch holds beside a model's inputs."""


@dataclass
class Step:
    """What the calls of one forward share: the batch, the values so far, progress, counts that divide losses."""

    batch: Batch
    slots: Slots
    progress: float
    counts: Tensor | None
    horizon: Horizon


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
    packing: Packing | None = None,
) -> Instruction:
    """The call of a model on its encoding, with exactly the tensors that its forward names.

    `taps` are its features by their slots. Padding is moved to the side that the model expects, and features are moved
    back. A forward that stops ends with its last feature, unless it would have drawn random numbers afterwards.
    """
    names, rest, required = accepted(model)
    main = getattr(trunk_of(model), "main_input_name", None)
    trainable = forward.role == "student"
    name, columns, side = forward.model, forward.columns, padding_side(model)
    wanted = frozenset(tap.feature for tap in taps.values())
    heads = tuple(sorted({feature.head for feature in wanted if feature.head is not None}))
    extra: dict[str, Any] = {"heads": heads} if isinstance(model, HeadedModel) else {}
    low = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    stops = forward.stops and capture.can_stop(wanted) and not (trainable and may_draw(model))

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
                raise RunError(f"`{name}` gets `{argument}` from `{column}`, but the batch has {listing(base)}")
            inputs[argument] = base[column]
        missing = sorted(required - inputs.keys() - ({main} if "inputs_embeds" in inputs else set()))
        if missing:
            raise RunError(f"the forward of `{name}` needs {listing(missing)}, but the batch has {listing(encoding)}")
        if low is not None:
            inputs = {key: x.to(low) if x.is_floating_point() else x for key, x in inputs.items()}
        shift_B = padding_shift(inputs, side)
        if shift_B is not None:
            inputs = moved_inputs(inputs, shift_B)
        output = None  # stays so where the forward ends early
        until = wanted if stops and can_end_early(model) else ()
        learning = torch.set_grad_enabled(trainable and torch.is_grad_enabled())
        with packed(packing, inputs) as tokens, capture.armed(until), learning:
            output = model(**inputs, **extra)
        values = capture.collect(output, wanted)
        if tokens is not None and packing is not None:
            inside = {
                x for x in values if packing.is_inside(capture.anatomy.site(x).path) and tokens.is_packed(values[x])
            }
        else:
            inside = set()
        for slot, tap in taps.items():
            value = values[tap.feature]
            if low is not None and value.dtype == low:  # losses are computed in fp32
                value = value.float()
            if tap.feature in inside and tokens is not None:
                if shift_B is None:
                    step.slots[slot] = Packed(value, tokens)
                    continue
                value = tokens.unpack(value)
            if shift_B is not None:
                value = moved(value, -shift_B, _token_axes(tap))
            hidden = tap.feature.name in ("start", "end") and not tap.padding
            step.slots[slot] = hide_padding(value, encoding) if hidden else value

    return run_forward


@contextmanager
def packed(packing: Packing | None, inputs: Mapping[str, Tensor]) -> Iterator[PackedTokens | None]:
    """Run the forward inside the block on packed tokens, where the model can and the batch has a mask (B, L)."""
    mask_BL = inputs.get("attention_mask")
    if packing is None or mask_BL is None or mask_BL.dim() != 2:
        yield None
        return
    with packing.packed(mask_BL) as tokens:
        yield tokens


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
