"""Packed tokens: the layers of a model run on the real tokens of a batch alone, attention on each example by itself.

The model's own modules stay as they are. Hooks pack the states before the first layer and unpack them after the last;
the registered attention function (`attention`) knows where each example begins. Everything outside the layers
(embeddings, pooler, heads) sees padded tensors, with zeros at padding where the layers gave states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import SourceFault
from brewgraph.models.capture import attention
from brewgraph.models.capture.attention import WORTHWHILE, PackedTokens
from brewgraph.models.capture.capture import Finished
from brewgraph.models.capture.compiled import is_compiled
from brewgraph.models.capture.recompute import entered_again, recomputes_otherwise
from brewgraph.models.heads import evaluating, trunk_of
from brewgraph.models.padding import padding_side
from brewgraph.models.structure.anatomy import Anatomy

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}


class Packing:
    """A model whose layers can run on packed tokens. Several users share one; the last to `release` it removes it.

    Shapes: B examples of L places, N real tokens among them; states are (B, L, H) outside the layers, (1, N, H) inside.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy):
        modules = dict(model.named_modules())
        self.paths = tuple(path for path in anatomy.layer_paths if path in modules)
        self.layers = [modules[path] for path in self.paths]
        self._checkpointing = [m for m in modules.values() if hasattr(m, "gradient_checkpointing")]
        self.users = 0
        self._tokens: PackedTokens | None = None
        self._undo: list[Callable[[], None]] = []
        first, last = self.layers[0], self.layers[-1]
        try:
            self._undo.append(attention.borrow(cast(PreTrainedModel, trunk_of(model)), attention.NAME))
            for layer in dict.fromkeys(self.layers):
                hook = self._packing(layer, is_first=layer is first)
                self._undo.append(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            self._undo.append(last.register_forward_hook(self._unpacking(last)).remove)
        except BaseException:
            self.remove()
            raise

    @contextmanager
    def packed(self, mask_BL: Tensor) -> Iterator[PackedTokens | None]:
        """Pack the forwards inside the block, and their layers where they run again in the backward pass. None, and
        they run padded, if the batch has next to no padding, or if layers run again that were told so by others.
        """
        real = int(mask_BL.sum())
        runs_again = torch.is_grad_enabled() and any(map(recomputes_otherwise, self._checkpointing))
        if runs_again or not real or real > WORTHWHILE * mask_BL.numel():
            yield None
            return
        tokens = PackedTokens(mask_BL)
        with entered_again(lambda: self._on(tokens)):
            yield tokens

    @contextmanager
    def _on(self, tokens: PackedTokens) -> Iterator[None]:
        """Inside, the layers run on these tokens."""
        self._tokens = tokens
        try:
            with attention.on(tokens):
                yield
        finally:
            self._tokens = None

    def is_inside(self, path: str) -> bool:
        """Whether a module runs on packed tokens."""
        return any(path == layer or path.startswith(f"{layer}.") for layer in self.paths)

    def release(self) -> None:
        """Give the packing back; the last user removes it."""
        self.users -= 1
        if self.users <= 0:
            self.remove()

    @property
    def is_removed(self) -> bool:
        return not self._undo

    def remove(self) -> None:
        """Take the hooks away. Harmless when repeated."""
        while self._undo:
            self._undo.pop()()

    # Hooks are closures that know their module: in a deep copy of the model they stay silent.

    def _packing(self, layer: nn.Module, *, is_first: bool) -> Callable[..., Any]:
        names = list(inspect.signature(layer.forward).parameters)
        states = names[0]

        def pack(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tokens = self._tokens
            if tokens is None or called is not layer:
                return None

            def of(name: str, value: Any) -> Any:
                if name == states:
                    return tokens.pack(value) if is_first and tokens.is_padded(value) else value
                return value if "mask" in name else _mapped(value, tokens)

            return tuple(map(of, names, args)), {name: of(name, value) for name, value in kwargs.items()}

        return pack

    def _unpacking(self, layer: nn.Module) -> Callable[..., Any]:
        def unpack(called: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            tokens = self._tokens
            if tokens is None or called is not layer:
                return None
            if isinstance(output, Tensor):
                return tokens.unpack(output)
            return (tokens.unpack(output[0]), *output[1:])

        return unpack


def _mapped(value: Any, tokens: PackedTokens) -> Any:
    """What comes with the states of every layer, as rotary embeddings do: a row for each token, alike for all examples
    or for each its own.
    """
    if isinstance(value, Tensor):
        return tokens.pack(value) if tokens.is_padded(value) else value
    if isinstance(value, tuple | list):
        return type(value)(_mapped(x, tokens) for x in value)
    return {k: _mapped(x, tokens) for k, x in value.items()} if isinstance(value, dict) else value


_packings: WeakValueDictionary[int, Packing] = WeakValueDictionary()
"""Packings by the id of their model, alive as long as it is: its hooks hold them."""


def packing_of(model: nn.Module, anatomy: Anatomy) -> Packing | str:
    """The packing of a model, installed and checked once, or why it has none. Each user ends with `release`."""
    known = _packings.get(id(model))
    packing = _install(model, anatomy) if known is None or known.is_removed else known
    if isinstance(packing, Packing):
        _packings[id(model)] = packing
        packing.users += 1
    return packing


def _install(model: nn.Module, anatomy: Anatomy) -> Packing | str:
    parameter = next(model.parameters(), None)
    if anatomy.padded_because:
        return anatomy.padded_because
    if parameter is None or parameter.device.type == "meta" or type(parameter.data) is not Tensor:
        return "its weights are not loaded"
    if is_compiled(model):
        return "it is compiled"
    try:
        packing = Packing(model, anatomy)
    except SourceFault as fault:
        return fault.message
    try:
        reason = _difference(model, packing)
    except Exception as error:  # whatever a layer of an unknown architecture raises
        reason = f"its layers do not take packed tokens ({type(error).__name__})"
    if reason:
        packing.remove()
    return reason or packing


def _difference(model: nn.Module, packing: Packing) -> str:
    """How two small examples differ, packed and padded, by the largest relative difference; empty where they agree."""
    trunk = cast(PreTrainedModel, trunk_of(model))
    words = cast(nn.Embedding, trunk.get_input_embeddings()).weight
    generator = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(min(8, len(words) - 1), len(words), (2, 6), generator=generator).to(words.device)
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, slice(0, 3) if padding_side(model) == "left" else slice(3, 6)] = 0
    ids_BL[mask_BL == 0] = getattr(getattr(trunk, "config", None), "pad_token_id", None) or 0

    def states() -> list[Tensor]:
        """What the last layer gives at real tokens; what follows it may not be loaded."""
        with _ended(packing.layers) as given:
            model(input_ids=ids_BL, attention_mask=mask_BL)
        return real_outputs(given[-1:], mask_BL)

    with evaluating(model), torch.no_grad():
        padded = states()
        with packing.packed(mask_BL):
            packed = states()
    pairs = zip(padded, packed, strict=True)
    worst = max([0.0, *(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)])
    agrees = worst <= _TOLERANCE.get(words.dtype, 5e-2)
    return "" if agrees else f"its layers give other values on packed tokens (off by {worst:.1g})"


@contextmanager
def _ended(layers: list[nn.Module]) -> Iterator[list[Tensor]]:
    """A forward inside ends with the last of the layers; the states that this module gave."""
    given: list[Tensor] = []

    def end(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given.append(output if isinstance(output, Tensor) else output[0])
        if len(given) == layers.count(layer):  # layers may share one module
            raise Finished

    hook = layers[-1].register_forward_hook(end)
    try:
        with suppress(Finished):
            yield given
    finally:
        hook.remove()


def real_outputs(output: Any, mask_BL: Tensor | None) -> list[Tensor]:
    """The tensors of an output in fp32, without what stands at padding."""
    output = getattr(output, "heads", None) or output
    values = list(output.values() if isinstance(output, Mapping) else output)
    flat = [y for x in values for y in (x.values() if isinstance(x, Mapping) else (x,))]
    tensors = [x.float() for x in flat if isinstance(x, Tensor) and x.is_floating_point()]
    return [x if mask_BL is None or x.shape[:2] != mask_BL.shape else x[mask_BL.bool()] for x in tensors]
