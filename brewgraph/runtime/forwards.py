"""Forwards of models inside a program: what of a batch each one gets, and what is taken from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.scalars import Horizon
from brewgraph.models.capture.capture import Capture
from brewgraph.models.fake.reach import can_end_early, may_draw
from brewgraph.models.fake.shapes import accepted
from brewgraph.models.heads import HeadedModel, trunk_of
from brewgraph.models.padding import moved, moved_inputs, padding_shift, padding_side
from brewgraph.recipe.features import Feature, Shape
from brewgraph.runtime.layouts import hide_padding

Batch = Mapping[str, Any]
NOT_INPUTS = frozenset({"labels", "index", "start", "end", "null", "first", "words", "offsets", "weights"})
"""What a batch carries beside a model's inputs."""


@dataclass
class Step:
    """What the calls of one forward share: the batch, the values so far, progress, and what losses are divided by."""

    batch: Batch
    slots: list[Any]
    progress: float
    counts: Tensor | None
    horizon: Horizon


Instruction = Callable[[Step], None]


def base_of(batch: Batch, data: str) -> Batch:
    """A data set's part of a batch: under its name where there are several, else the batch itself."""
    own = batch.get(data)
    return own if isinstance(own, Mapping) else batch


def forward_instruction(
    forward: n.Forward,
    model: nn.Module,
    capture: Capture,
    source: int,
    tapped: Mapping[int, Feature],
    data: str,
    padding: Collection[int] = (),
    shapes: Mapping[int, Shape | None] | None = None,
) -> Instruction:
    """The call of a model on its encoding, with exactly the tensors that its forward names.

    `tapped` are its features by the slots where they go, `shapes` their shapes; in the slots of `padding` scores of
    padding stay as they are. Padding is moved to the side where the model expects it, and features are moved back.
    A forward that stops ends with the last of them, unless it would have drawn random numbers afterwards.
    """
    names, rest, required = accepted(model)
    main = getattr(trunk_of(model), "main_input_name", None)
    trainable = forward.role == "student"
    name, columns, side = forward.model, forward.columns, padding_side(model)
    heads = tuple(sorted({feature.head for feature in tapped.values() if feature.head is not None}))
    extra: dict[str, Any] = {"heads": heads} if isinstance(model, HeadedModel) else {}
    wanted = frozenset(tapped.values())
    stops = forward.stops and capture.can_stop(wanted) and not (trainable and may_draw(model))

    def run_forward(step: Step) -> None:
        encoding = step.slots[source]
        given = {
            key: value
            for key, value in encoding.items()
            if (key in names or rest) and key not in NOT_INPUTS and isinstance(value, Tensor)
        }
        for argument, column in columns:
            base = base_of(step.batch, data)
            if column not in base:
                raise RunError(f"`{name}` gets `{argument}` from `{column}`, and the batch has {listing(base)}")
            given[argument] = base[column]
        missing = required - given.keys() - ({main} if "inputs_embeds" in given else set())
        if missing:
            raise RunError(
                f"the forward of `{name}` needs {listing(sorted(missing))}, and the batch has {listing(encoding)}"
            )
        shift_B = padding_shift(given, side)
        if shift_B is not None:
            given = moved_inputs(given, shift_B)
        output: Any = None
        until = wanted if stops and can_end_early(model) else ()
        with capture.armed(until), torch.set_grad_enabled(trainable and torch.is_grad_enabled()):
            output = model(**given, **extra)
        values = capture.collect(output, wanted)
        for slot, feature in tapped.items():
            value = values[feature]
            if shift_B is not None:
                value = moved(value, -shift_B, _token_axes(name, feature, (shapes or {}).get(slot)))
            hidden = feature.name in ("start", "end") and slot not in padding
            step.slots[slot] = hide_padding(value, encoding) if hidden else value

    return run_forward


def _token_axes(model: str, feature: Feature, shape: Shape | None) -> list[int]:
    """The axes of a feature that hold the tokens of each example. Raises `RunError` where they cannot be told."""
    named = [i for i, size in enumerate(shape or ()) if "length" in str(size) and "decoder_length" not in str(size)]
    if shape is None or any(shape[i] != "length" for i in named):
        raise RunError(
            f"the batch has padding on the left, and `{model}` needs it on the right; `{feature}` cannot be moved "
            'back, as its axes of tokens are not known: pad the batch on the right (`tokenizer.padding_side = "right"`)'
        )
    return named
