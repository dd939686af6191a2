"""The last linear layer of a language model: from hidden states to logits over a vocabulary, and what follows it.

Nothing here knows an architecture by name. One forward tells what happens to the layer's output: a final softcap
(`final_logit_softcapping`), a scale (`logit_scale`, `logits_scaling`), a change of type. Works on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from brewgraph.models.heads import HeadedModel, evaluating

_ELEMENTWISE = frozenset(
    {"div", "true_divide", "__truediv__", "mul", "multiply", "__mul__", "__rmul__", "tanh", "float", "to", "contiguous"}
)
"""What may follow the layer: functions of each logit by itself, whose other arguments are no tensors."""


@dataclass(frozen=True)
class Decoder:
    """The last linear layer of a model, by its path, and the methods of a tensor that its output goes through, each
    with its arguments: `(("div", (30.0,)), ("tanh", ()), ("mul", (30.0,)))`.
    """

    path: str
    tail: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def finish(self, x: Tensor) -> Tensor:
        """The model's logits, of the layer's output."""
        for name, arguments in self.tail:
            x = getattr(x, name)(*arguments)
        return x


def decoder_of(model: nn.Module, run: Callable[[], Any]) -> Decoder | str:
    """The last linear layer of a model, or why its logits cannot be computed from it alone; `run` runs the model."""
    if isinstance(model, HeadedModel):
        return "it has several heads"
    layer = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if type(layer) is not nn.Linear:
        return "its head does not end in a linear layer"
    if hasattr(model, "_orig_mod") or hasattr(layer, "_hf_hook"):
        return "its head is compiled, or its weights are moved for each call"
    watch = _Watch(layer)
    try:
        with evaluating(model), torch.no_grad(), watch:
            output = run()
    except Exception as error:  # whatever a model's own code may raise
        return f"it does not run on tensors without values ({type(error).__name__})"
    if not watch.reason and (not isinstance(output, Mapping) or output.get("logits") is not watch.now):
        return "its logits are not the output of its last linear layer"
    path = next(path for path, module in model.named_modules() if module is layer)
    return watch.reason or Decoder(path, tuple(watch.tail))


class _Watch(TorchFunctionMode):
    """Notes what is computed from the layer's first call on: `tail`, or the `reason` why that is no chain of functions
    of each logit. `now` is its last value.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight = layer.weight
        self.tail: list[tuple[str, tuple[Any, ...]]] = []
        self.now: Tensor | None = None
        self.reason = ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if func is F.linear and args[1] is self.weight:
            self.reason = self.reason or ("its last linear layer runs several times" if self.now is not None else "")
            self.now = cast(Tensor, result)
        elif self.now is not None and isinstance(result, Tensor) and not self.reason:
            alone = not kwargs and not any(isinstance(x, Tensor) for x in args[1:])
            if alone and args and args[0] is self.now and name in _ELEMENTWISE:
                self.tail.append((name, tuple(args[1:])))
                self.now = result
            else:
                self.reason = f"`{name}` follows its last linear layer"
        return result
