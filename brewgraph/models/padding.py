"""The side on which a model expects padding, and the shift of batches to that side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from brewgraph.models.exported import ExportedModel
from brewgraph.models.heads import trunk_of

_PACKAGES = ("transformers.", "brewgraph.models.", "peft.")
"""Packages of the classes whose padding side is known."""


def padding_side(model: nn.Module) -> str | None:
    """`right`, `left`, or None for a module of other code, which gets its batches unchanged.

    transformers' models count positions from the first place of a row, and encoders read a text's class there, even if
    it is padding: padded on the right, a row gives the same in a batch as alone. XLNet's classifier reads the last.
    """
    uncompiled = getattr(model, "_orig_mod", model)
    if isinstance(uncompiled, ExportedModel):
        return uncompiled.record.padding
    if not type(trunk_of(uncompiled)).__module__.startswith(_PACKAGES):
        return None
    return "left" if any(getattr(part, "summary_type", None) == "last" for part in model.modules()) else "right"


def padding_shift(inputs: Mapping[str, Tensor], side: str | None) -> Tensor | None:
    """How far each row's tokens are to the right of their proper place: (B) int64.

    None if no row has to move, without a mask of shape (B, L), and for fake tensors, which have no values.
    """
    mask_BL = inputs.get("attention_mask")
    if side is None or mask_BL is None or mask_BL.dim() != 2 or not mask_BL.numel() or isinstance(mask_BL, FakeTensor):
        return None
    real_BL = mask_BL != 0
    # a row without any token has its first maximum at 0, and stays where it is
    shift_B = real_BL.int().argmax(1) if side == "right" else -real_BL.flip(1).int().argmax(1)
    return shift_B if bool(shift_B.any()) else None


def moved_inputs(inputs: Mapping[str, Tensor], shift_B: Tensor) -> dict[str, Tensor]:
    """The inputs of a model with the tokens of row i moved by `shift_B[i]` places to the left, around the end.

    Only inputs of shape (B, L, …) move, and no inputs of a decoder.
    """
    shape = inputs["attention_mask"].shape
    return {
        name: moved(x, shift_B, (1,)) if x.shape[:2] == shape and not name.startswith("decoder_") else x
        for name, x in inputs.items()
    }


def moved(x: Tensor, shift_B: Tensor, axes: Iterable[int]) -> Tensor:
    """(B, …) with row i moved by `shift_B[i]` places to the left along each of `axes`, around the end."""
    for axis in axes:
        size = x.shape[axis]
        index_BL = (torch.arange(size, device=x.device) + shift_B.to(x.device)[:, None]) % size
        view = [size if i == axis else len(x) if i == 0 else 1 for i in range(x.dim())]
        x = x.gather(axis, index_BL.view(view).expand_as(x))
    return x
