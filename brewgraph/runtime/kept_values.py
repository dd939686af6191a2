"""Values that a spec keeps on disk, in a program: what identifies them, and how batches go to a store and back.

Each example is kept without padding, and gets the padding of the batch that reads it: zeros, or for scores over
positions a score that hides them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import structure_hashes
from brewgraph.graph.container import Graph, Kept, execution_order, info, node, of_kind, used_by
from brewgraph.models.capture.attention import PackedTokens
from brewgraph.models.loading import DTYPES
from brewgraph.paths import locate
from brewgraph.recipe.features import Shape
from brewgraph.runtime.instructions import NOT_INPUTS, Step, base_of
from brewgraph.runtime.layouts import HIDDEN_SCORE, Packed, token_mask
from brewgraph.runtime.store import Store, example_digests, weights_digest, weights_stamp

FORMAT = 3
"""The format of a row; another format is another store."""
PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids", "special_tokens_mask"})
"""Tensors of an encoding whose second axis is that of tokens, so that their padding is no part of an example."""


@dataclass
class CachedValue:
    """One kept value of a program. `entries` and `columns` are the slots of what it is computed from; `extra` are
    columns of data sets that its models get beside their tokens. `examples` are the digests of the last batch, `real`
    marks its tokens, (B, L), and `store` has them. `weights` are digests of models and `stamps` the weights that they
    were made of; all values share both.
    """

    graph: Graph
    key: str
    kept: Kept
    folder: Path
    slots: Mapping[str, int]
    models: Mapping[str, nn.Module]
    weights: dict[str, str]
    stamps: dict[str, object]
    stores: dict[object, Store] = field(default_factory=dict)
    examples: list[bytes] = field(default_factory=list)
    real: Tensor | None = None
    store: Store | None = None

    def __post_init__(self) -> None:
        value = node(self.graph, self.key)
        assert value.shape is not None
        self.shape: Shape = value.shape
        self.dtype = None if self.kept.dtype is None else DTYPES[self.kept.dtype]
        self.slot = self.slots[self.key]
        self.made_by = value.forward if isinstance(value, n.Tap) else self.key
        used = used_by(self.graph, [self.key])
        below = [key for key in execution_order(self.graph) if key in used]
        inputs = dict(of_kind(self.graph, n.Input, below))
        self.entries = [self.slots[key] for key in inputs]
        self.columns = [self.slots[key] for key, _ in of_kind(self.graph, n.Column, below)]
        self.words = any(x.entry is not None for _, x in of_kind(self.graph, n.Transform, below))
        forwards = [x for _, x in of_kind(self.graph, n.Forward, below)]
        self.used = list(dict.fromkeys(x.model for x in forwards))
        self.extra = [(inputs[x.entry].data, column) for x in forwards for _, column in x.columns]
        positions = isinstance(value, n.Tap) and value.feature.name in ("start", "end") and not value.padding
        self.fill = HIDDEN_SCORE if positions else 0.0

    def find(self, step: Step, known: dict[object, Any]) -> bool:
        """Whether the store has the value for every example of the batch, which then is in its slot.

        `known` holds what other values of this batch have found out: digests, by the tensors that they are made of, and
        stamps of weights, by model.
        """
        entering = (tuple(self.entries), tuple(self.columns), tuple(self.extra), self.words)
        if entering not in known:
            known[entering] = example_digests(self._parts(step))
        self.examples, self.real = known[entering], self._real(step)
        device = next(x.device for x in step.slots[self.entries[0]].values() if isinstance(x, Tensor))
        self.store = self._store(device.type, known)
        rows = self.store.get(self.examples)
        if rows is None:
            return False
        self._read(step, rows, device)
        return True

    def keep(self, step: Step) -> None:
        """Write the value of the batch of the last `find`, and continue with what is on disk.

        The last bits of a value depend on its batch. An example that another batch wrote keeps that value, so that a
        resumed run, which reads, has the same numbers as one that writes.
        """
        computed: Tensor = step.slots[self.slot]
        written = computed if self.dtype is None else computed.to(self.dtype)
        assert self.store is not None
        rows = self.store.put(self.examples, trim(written, self.shape, self.real))
        self._read(step, rows, computed.device)

    def _read(self, step: Step, rows: Sequence[Tensor], device: torch.device) -> None:
        def ready(x: Tensor) -> Tensor:
            return x.to(device) if self.dtype is None else x.to(device).float()

        if self.real is not None and _token_axes(self.shape) == [0] and "length" in self.shape and not self.fill:
            step.slots[self.slot] = Packed(ready(torch.cat(list(rows)))[None], PackedTokens(self.real))
        else:
            step.slots[self.slot] = ready(restore(rows, self.shape, self.real, self.fill))

    def _parts(self, step: Step) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """All tensors that the value is made of, each with its name and its real places: (B, L) bool, None for all."""
        for position, slot in enumerate(self.entries):
            encoding = step.slots[slot]
            real = token_mask(encoding)
            for name in sorted(x for x in encoding.keys() - NOT_INPUTS if isinstance(encoding[x], Tensor)):
                yield f"{position} {name}", encoding[name], real if name in PER_TOKEN else None
            if self.words:
                yield f"{position} words", encoding["words"], encoding["words"] >= 0
        for position, slot in enumerate(self.columns):
            yield f"column {position}", step.slots[slot], None
        for data, column in self.extra:
            yield f"extra {column}", base_of(step.batch, data)[column], None

    def _real(self, step: Step) -> Tensor | None:
        """Which places of an axis of tokens, or of words, are real: (B, L) bool; None where there is no such axis."""
        encoding: Mapping[str, Tensor] = step.slots[self.entries[0]]
        if "words" in self.shape:
            return encoding["words"] >= 0
        return token_mask(encoding) if "length" in self.shape else None

    def _store(self, device: str, known: dict[object, Any]) -> Store:
        """The store for the current weights of the models and the precision in which they run."""
        precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
        for name in self.used:
            if name not in known:
                known[name] = weights_stamp(self.models[name])
        stamps = {name: known[name] for name in self.used}
        key = (precision, tuple(stamps.values()))
        if key not in self.stores:
            for name, stamp in stamps.items():
                if self.stamps.get(name) != stamp:
                    self.stamps[name], self.weights[name] = stamp, weights_digest(self.models[name])
            hashes = structure_hashes(self.graph, partial(_content, weights=self.weights), ordered=True)
            self.stores[key] = Store(
                self.folder, digest(FORMAT, hashes[self.key], precision, self.kept.dtype), self.kept.limit
            )
        return self.stores[key]

    @property
    def read(self) -> int:
        """Examples that were read instead of computed."""
        return sum(store.read for store in self.stores.values())

    @property
    def written(self) -> int:
        """Examples that were computed and written."""
        return sum(store.written for store in self.stores.values())

    @property
    def left_out(self) -> int:
        """Examples that were computed and not written, since the limit of the folder left no room."""
        return sum(store.left_out for store in self.stores.values())


def cached_values(
    graph: Graph, folder: Path, slots: Mapping[str, int], models: Mapping[str, nn.Module]
) -> tuple[CachedValue, ...]:
    """The values of a graph that its spec keeps; relative folders lie in `folder`."""
    weights, stamps = dict[str, str](), dict[str, object]()
    return tuple(
        CachedValue(graph, key, kept, locate(kept.folder, folder), slots, models, weights, stamps)
        for key, kept in sorted(info(graph).caches.items())
        if key in slots
    )


def _content(x: n.Node, weights: Mapping[str, str]) -> n.Content:
    """What a node is: of a model its weights, of data nothing, since each example stands for itself."""
    match x:
        case n.Input():
            return ()
        case n.Column():
            return (x.column,)
        case n.Forward():
            return (weights.get(x.model), x.passing, x.columns)
    return x.content()


def trim(x: Tensor, shape: Shape, real_BL: Tensor | None) -> list[Tensor]:
    """The value of each example by itself, its axes of tokens without padding."""
    if real_BL is None:
        return list(x.unbind())
    real_BL = real_BL.to(x.device)
    if _token_axes(shape) == [0]:
        return list(x[real_BL].split(real_BL.sum(1).tolist()))
    rows = []
    for row, real in zip(x, real_BL, strict=True):
        (places,) = real.nonzero(as_tuple=True)
        for axis in _token_axes(shape):
            row = row.index_select(axis, places)
        rows.append(row)
    return rows


def restore(rows: Sequence[Tensor], shape: Shape, real_BL: Tensor | None, fill: float) -> Tensor:
    """The value of a batch from those of its examples, with `fill` at padding."""
    if real_BL is None:
        return torch.stack(list(rows))
    real_BL = real_BL.cpu()
    axes = _token_axes(shape)
    sizes = [real_BL.shape[1] if i in axes else size for i, size in enumerate(rows[0].shape)]
    whole = rows[0].new_full((len(rows), *sizes), fill)
    if axes == [0]:
        whole[real_BL] = torch.cat(list(rows))
        return whole
    for row, into, real in zip(rows, whole, real_BL, strict=True):
        (places,) = real.nonzero(as_tuple=True)
        grid = [torch.arange(size) for size in sizes]
        for axis in axes:
            grid[axis] = places
        into[torch.meshgrid(*grid, indexing="ij")] = row
    return whole


def _token_axes(shape: Shape) -> list[int]:
    """The axes of tokens or words in the value of one example."""
    return [i - 1 for i, symbol in enumerate(shape) if symbol in ("length", "words")]
