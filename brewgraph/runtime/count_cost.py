"""What a batch costs before any weight is loaded: one step on fake tensors, its FLOPs and bytes counted.

The models are those that train, without memory: the same program runs, hooks and all, forward and backward. What is
counted is what a CPU would do; a GPU's fused attention keeps less of what has dropout in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
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
from brewgraph.graph.container import Graph, info, node, nodes_of, rewritten
from brewgraph.models.fake.reach import Reach, layers_of
from brewgraph.models.fake.sentence_ends import OneEndEach
from brewgraph.models.heads import input_names, trunk_of
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.label_types import CLASSES, LabelType
from brewgraph.runtime.distiller import Distiller


def count_step(
    graph: Graph,
    models: Mapping[str, nn.Module],
    student: str,
    batch: Mapping[str, Any],
    mode: FakeTensorMode,
    precision: torch.dtype | None = None,
    *,
    reach: Reach | None = None,
    skip: Collection[str] = (),
) -> Cost:
    """The cost of a step of a graph on a batch; models and batch are of fake tensors of `mode`.

    Whatever the models or the maths raise where values of fake tensors are asked for is raised.
    """
    shape = first_shape(batch)
    # nothing of this may reach a cache on disk
    graph = rewritten(graph, nodes_of(graph), replace(info(graph), caches={}))
    with mode:
        distiller = Distiller(graph, models, student, reach=reach, skip=skip)
        try:
            with _dropped(distiller), _ended(models), measured(models) as meter:
                with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
                    loss = distiller(batch).loss
                meter.turn()
                loss.backward()
                del loss
        finally:
            distiller.release()
    forwards = tuple(ForwardCost(*found) for found in meter.forwards)
    total = meter.flops.get_total_flops()
    return Cost(*shape, meter.forward, total - meter.forward, meter.bytes.peak, meter.kept, forwards)


@contextmanager
def _ended(models: Mapping[str, nn.Module]) -> Iterator[None]:
    """Fake texts have an end, by the numbers that the models know it by."""
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(OneEndEach(trunk_of(model)))
        yield


class Meter:
    """What was counted. `forwards` are the runs of models, in order: name, FLOPs, layers that ran, layers there are."""

    def __init__(self) -> None:
        self.flops = Flops()
        self.bytes = LiveBytes()
        self.forward = self.kept = 0
        self.forwards: list[tuple[str, int, int, int]] = []

    def turn(self) -> None:
        """The forward pass has ended."""
        self.forward, self.kept = self.flops.get_total_flops(), self.bytes.now


@contextmanager
def measured(models: Mapping[str, nn.Module]) -> Iterator[Meter]:
    """Count what runs inside, on real tensors or fake ones."""
    meter = Meter()
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(_watched(name, model, meter))
        stack.enter_context(meter.flops)
        stack.enter_context(meter.bytes)
        yield meter


@contextmanager
def _watched(name: str, model: nn.Module, meter: Meter) -> Iterator[None]:
    """Count the FLOPs of each forward of a model, and the layers that it runs, also where it is stopped on its way."""
    layers = layers_of(dissect(model))
    ran: set[str] = set()
    original = model.forward

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        begun = meter.flops.get_total_flops()
        ran.clear()
        try:
            return original(*args, **kwargs)
        finally:
            meter.forwards.append((name, meter.flops.get_total_flops() - begun, len(ran), len(layers)))

    handles = [model.get_submodule(path).register_forward_pre_hook(_adding(ran, path)) for path in layers]
    model.forward = forward
    try:
        yield
    finally:
        del model.forward
        for handle in handles:
            handle.remove()


def _adding(ran: set[str], path: str) -> Callable[..., None]:
    return lambda *_: ran.add(path)


@contextmanager
def _dropped(distiller: Distiller) -> Iterator[None]:
    """Gradients of parameters are let go as soon as they are there: they are no activations."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(drop) for p in distiller.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Flops(FlopCounterMode):
    """FLOPs of a whole step. Which module they are of is not asked: torch finds that out by hooks that keep every part
    of the graph, also what no loss reaches, until the backward pass is over.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_ON_CPU)
        self.mod_tracker = _NoModules()


class _NoModules(ModuleTracker):
    """Tracks nothing: all is of the whole."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are still there: `now`, and the most there ever were, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_place(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and _place(x) not in given:
                self._add(x)
        return out

    def _add(self, x: Tensor) -> None:
        storage, place = x.untyped_storage(), _place(x)
        if place in self._sizes:
            return
        self._sizes[place] = storage.nbytes()
        self.now += self._sizes[place]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, place)

    def _drop(self, place: int) -> None:
        self.now -= self._sizes.pop(place, 0)


def _place(x: Tensor) -> int:
    found: int = x.untyped_storage()._cdata
    return found


def _sdpa(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def _sdpa_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    flops: int = sdpa_backward_flop_count(grad, query, key, value)
    return flops


_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ON_CPU: dict[Any, Any] = {
    _ATTENTION: _sdpa,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
}
"""Attention as a CPU computes it, which torch's counter leaves out."""


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def first_shape(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Examples and tokens of a batch."""
    for value in batch.values():
        found = first_shape(value) if isinstance(value, Mapping) else tuple(value.shape)
        if len(found) == 2:
            return found
    return ()  # type: ignore[return-value]


def example_batch(
    graph: Graph,
    models: Mapping[str, nn.Module],
    label_types: Mapping[str, LabelType],
    classes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, int]],
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """A batch with all that a graph reads: `shapes` are examples and tokens by data set, every token a real one. Those
    of other data sets are `given`.
    """
    nodes = [node(graph, key) for key in graph]
    found: dict[str, Any] = dict(given or {})
    for data, (rows, length) in shapes.items():
        readers = {x.model for x in nodes if isinstance(x, n.Input) and x.data == data}
        columns = {x.column for x in nodes if isinstance(x, n.Column) and x.data == data}
        columns |= {c for x in nodes if isinstance(x, n.Forward) and x.model in readers for _, c in x.columns}
        kind = label_types[data]
        own: dict[str, Any] = {model: _encoding(models[model], rows, length) for model in sorted(readers)}
        for column in sorted(columns):
            if column in kind.fields and kind.per_token:
                for encoding in own.values():
                    encoding["labels"] = torch.zeros(rows, length, dtype=torch.long)
            elif column in kind.fields and kind == CLASSES:
                own["labels"] = torch.zeros(rows, classes[data])
            elif column in kind.fields and not kind.is_float:
                own[column] = torch.zeros(rows, dtype=torch.long)
            else:
                own[column] = torch.zeros(rows)
        for column in ("start", "end"):
            if column in own:
                for model in readers:
                    own[model][column] = own[column]
        found[data] = own
    return found if len(found) > 1 else next(iter(found.values()))


def _encoding(model: nn.Module, rows: int, length: int) -> dict[str, Tensor]:
    names = input_names(model)
    ones = {name: torch.ones(rows, length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    if "token_type_ids" in names:
        ones["token_type_ids"] = torch.zeros(rows, length, dtype=torch.long)
    if "decoder_input_ids" in names:
        ones["decoder_input_ids"] = ones["input_ids"]
    return {**ones, "words": torch.zeros(rows, length, dtype=torch.long)}
