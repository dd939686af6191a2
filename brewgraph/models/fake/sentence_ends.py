"""Shapes of heads that read the one token at the end of a text, which fake tensors do not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

_MARK = "_marks_ends_of_texts"
_KEEPS_MARK = ("to", "sum", "bool", "int", "long")


class OneEndEach(TorchFunctionMode):
    """Inside, each example of fake tokens has one token `eos_token_id`, as a tokenizer appends it.

    Encoder-decoders with a classifier (BART, mBART, T5) read the state at that token: they compare `input_ids` with its
    id, and index by the mask, `hidden[mask, :]`. No other mask is assumed, so other code that reads values raises as
    before.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.end = getattr(getattr(model, "config", None), "eos_token_id", None)

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], FakeTensor) else None
        if first is None:
            return func(*args, **(kwargs or {}))
        if name == "unique_consecutive" and hasattr(first, _MARK):
            return first.new_ones(1)
        if name == "__getitem__" and (rest := _after_mask(first, args[1])) is not None:
            return first[(slice(None), 0, *rest)]
        result = func(*args, **(kwargs or {}))
        operand = args[1] if name in ("eq", "__eq__") and len(args) > 1 else None
        compared = operand is not None and not isinstance(operand, Tensor) and operand == self.end
        if isinstance(result, Tensor) and (compared or (name in _KEEPS_MARK and hasattr(first, _MARK))):
            setattr(result, _MARK, True)
        return result


def _after_mask(value: Tensor, index: object) -> tuple[Any, ...] | None:
    """The rest of an index behind a mask of ends; None for an index that does not begin with one."""
    parts = index if isinstance(index, tuple) else (index,)
    mask = parts[0] if parts else None
    if not isinstance(mask, Tensor) or not hasattr(mask, _MARK) or mask.dtype != torch.bool:
        return None
    return parts[1:] if value.shape[:2] == mask.shape else None
