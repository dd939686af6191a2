"""The cost of a batch before weights are loaded: the FLOPs and bytes of one step on fake tensors.

The program of the training runs, with hooks, forward and backward, on models without memory. The counts are those of a
CPU; a GPU's fused attention keeps less where there is dropout.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from torch.utils.module_tracker import ModuleTracker

from brewgraph.display.cost import Cost, ForwardCost
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, nodes_of, of_kind, rewritten
from brewgraph.models.fake.shapes import OneEndEach, Reach
from brewgraph.models.heads import input_names, trunk_of
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.label_types import Form, LabelType
from brewgraph.runtime.distiller import Distiller
from brewgraph.runtime.instructions import Batch


def count_step(
    graph: Graph,
    models: Mapping[str, nn.Module],
    student: str,
    batch: Batch,
    mode: FakeTensorMode,
    precision: torch.dtype | None = None,
    *,
    reach: Reach | None = None,
    skip: Collection[str] = (),
    recompute: bool = False,
    places: Mapping[str, str] | None = None,
) -> Cost:
    """The cost of a step of a graph on a batch; models and batch are of fake tensors of `mode`. With `recompute` the
    student's layers run again in the backward pass; `places` are the devices of teachers that do not run where the
    student does.

    Raises whatever the models or the maths raise where they read values of fake tensors.
    """
    shape, forwards = first_shape(batch), list[ForwardCost]()
    graph = rewritten(graph, nodes_of(graph), replace(info(graph), caches={}))  # nothing may reach a cache on disk
    with mode:
        distiller = Distiller(graph, models, student, reach=reach, skip=skip, recompute=recompute)
        try:
            with ExitStack() as stack:
                for model in models.values():
                    stack.enter_context(OneEndEach(trunk_of(model)))  # fake texts have an end token
                for parameter in distiller.parameters():
                    if parameter.requires_grad:  # gradients are no activations: free each at once
                        stack.callback(parameter.register_post_accumulate_grad_hook(_drop_gradient).remove)
                flops, live = Flops(), LiveBytes()
                for name, model in models.items():
                    stack.enter_context(_watched(name, model, flops, forwards))
                    if places is not None and name in places:
                        stack.enter_context(_elsewhere(places[name], model, live))
                stack.enter_context(flops)
                stack.enter_context(live)
                with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
                    loss = distiller(batch).loss
                forward, kept = flops.get_total_flops(), live.now[_HERE]
                loss.backward()
                del loss
        finally:
            distiller.release()
    backward = flops.get_total_flops() - forward
    elsewhere = tuple((place, size) for place, size in live.peak.items() if place != _HERE)
    return Cost(*shape, forward, backward, live.peak[_HERE], kept, tuple(forwards), elsewhere)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


@contextmanager
def _watched(name: str, model: nn.Module, flops: Flops, forwards: list[ForwardCost]) -> Iterator[None]:
    """Note the FLOPs of each forward of a model and the layers that it runs, also where it ends early."""
    layers = dissect(model).every_layer
    ran: set[str] = set()
    original = model.forward

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        begun = flops.get_total_flops()
        ran.clear()
        try:
            return original(*args, **kwargs)
        finally:
            forwards.append(ForwardCost(name, flops.get_total_flops() - begun, len(ran), len(layers)))

    def note(path: str, *_: object) -> None:
        ran.add(path)

    handles = [model.get_submodule(path).register_forward_pre_hook(partial(note, path)) for path in layers]
    model.forward = forward
    try:
        yield
    finally:
        del model.forward
        for handle in handles:
            handle.remove()


@contextmanager
def _elsewhere(place: str, model: nn.Module, live: LiveBytes) -> Iterator[None]:
    """Count what a model's forward makes on its own device; what is left of it afterwards is moved to the student's."""
    original = model.forward

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with live.on(place):
            return original(*args, **kwargs)

    model.forward = forward
    try:
        yield
    finally:
        model.forward = original


class Flops(FlopCounterMode):
    """FLOPs of a whole step, not by module: for that torch's hooks would keep every part of the graph, also what no
    loss reaches, until the backward pass is over.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_ON_CPU)
        self.mod_tracker = _NoModules()


class _NoModules(ModuleTracker):
    """Tracks no modules."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are alive, by device: `now`, and the most at any time, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._device = _HERE
        self._sizes: dict[int, tuple[str, int]] = {}

    @contextmanager
    def on(self, device: str) -> Iterator[None]:
        """Tensors that are made in the block are on this device; those that outlive it move to the student's."""
        self._device = device
        try:
            yield
        finally:
            self._device = _HERE
            for place, (where, size) in list(self._sizes.items()):
                if where == device:
                    self._drop(place)
                    self._add(place, size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (place := _place(x)) not in inputs and place not in self._sizes:
                storage = x.untyped_storage()
                self._add(place, storage.nbytes())
                weakref.finalize(storage, self._drop, place)
        return out

    def _add(self, place: int, size: int) -> None:
        self._sizes[place] = self._device, size
        self.now[self._device] += size
        self.peak[self._device] = max(self.peak[self._device], self.now[self._device])

    def _drop(self, place: int) -> None:
        device, size = self._sizes.pop(place, (_HERE, 0))
        self.now[device] -= size


def _place(x: Tensor) -> int:
    place: int = x.untyped_storage()._cdata
    return place


_HERE = ""
"""The device of the student."""
_ON_CPU: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value),
}  # fmt: skip
"""Attention as a CPU computes it, which torch's counter leaves out; the arguments are shapes."""


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def first_shape(batch: Batch) -> tuple[int, int]:
    """Examples and tokens of a batch."""
    for value in batch.values():
        shape = first_shape(value) if isinstance(value, Mapping) else tuple(value.shape)
        if len(shape) == 2:
            return shape
    return ()  # type: ignore[return-value]


def example_batch(
    graph: Graph,
    models: Mapping[str, nn.Module],
    label_types: Mapping[str, LabelType],
    classes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, int]],
    given: Mapping[str, Batch] | None = None,
) -> Batch:
    """A batch with all that a graph reads: `shapes` are examples and tokens by data set, without padding; `given` are
    the batches of other data sets.
    """
    batches = dict(given or {})
    for data, (rows, length) in shapes.items():
        readers = sorted({x.model for _, x in of_kind(graph, n.Input) if x.data == data})
        columns = {x.column for _, x in of_kind(graph, n.Column) if x.data == data}
        columns |= {c for _, x in of_kind(graph, n.Forward) if x.model in readers for _, c in x.columns}
        kind = label_types[data]
        encodings = {model: _encoding(models[model], rows, length) for model in readers}
        tensors: dict[str, Tensor] = {}
        for column in sorted(columns):
            if column in kind.fields and kind.per_token:
                for encoding in encodings.values():
                    encoding["labels"] = torch.zeros(rows, length, dtype=torch.long)
            elif column in kind.fields and kind.form is Form.CLASSES:
                tensors["labels"] = torch.zeros(rows, classes[data])
            else:
                whole = column in kind.fields and not kind.is_float
                tensors[column] = torch.zeros(rows, dtype=torch.long if whole else None)
        for encoding in encodings.values():
            encoding.update({column: tensors[column] for column in ("start", "end") if column in tensors})
        batches[data] = {**encodings, **tensors}
    return batches if len(batches) > 1 else next(iter(batches.values()))


def _encoding(model: nn.Module, rows: int, length: int) -> dict[str, Tensor]:
    names = input_names(model)
    ones = {name: torch.ones(rows, length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    if "token_type_ids" in names:
        ones["token_type_ids"] = torch.zeros(rows, length, dtype=torch.long)
    if "decoder_input_ids" in names:
        ones["decoder_input_ids"] = ones["input_ids"]
    return {**ones, "words": torch.zeros(rows, length, dtype=torch.long)}
