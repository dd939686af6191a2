"""Values that a spec keeps on disk, in a program: what identifies them, and how a batch goes to a store and comes back.

Each example is kept without its padding, and gets that of whichever batch it comes back to: zeros, or for scores over
positions what hides them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import structure_hashes
from brewgraph.graph.container import Graph, execution_order, info, node
from brewgraph.paths import locate
from brewgraph.recipe.features import Shape
from brewgraph.runtime.forwards import NOT_INPUTS, Step, base_of
from brewgraph.runtime.layouts import HIDDEN_SCORE, token_mask
from brewgraph.runtime.store import Store, example_digests, weights_digest, weights_stamp

FORMAT = 2
"""Of what stands in a row; another one is another store."""
PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids", "special_tokens_mask"})
"""Tensors of an encoding whose second axis are its tokens, so that their padding is no part of an example."""


@dataclass
class CachedValue:
    """One kept value of a program. `entries` and `columns` are the slots of all that it is computed from; `extra` are
    columns of data sets that its models get beside their tokens. Of the batch that was looked for last, `examples` are
    the digests and `real` marks the tokens, (B, L). `weights` are the digests of models and `stamps`
    the weights that these were made of; all values share both.
    """

    graph: Graph
    key: str
    name: str
    folder: Path
    slots: Mapping[str, int]
    models: Mapping[str, nn.Module]
    weights: dict[str, str]
    stamps: dict[str, object]
    stores: dict[object, Store] = field(default_factory=dict)
    examples: list[bytes] = field(default_factory=list)
    real: Tensor | None = None

    def __post_init__(self) -> None:
        kept = node(self.graph, self.key)
        assert kept.shape is not None
        self.shape: Shape = kept.shape
        self.slot = self.slots[self.key]
        self.made_by = kept.forward if isinstance(kept, n.Tap) else self.key
        below = nx.ancestors(self.graph, self.key)
        nodes = {k: node(self.graph, k) for k in execution_order(self.graph) if k in below}
        self.entries = [self.slots[k] for k, x in nodes.items() if isinstance(x, n.Input)]
        self.columns = [self.slots[k] for k, x in nodes.items() if isinstance(x, n.Column)]
        self.words = any(isinstance(x, n.Transform) and x.entry is not None for x in (*nodes.values(), kept))
        forwards = [x for x in nodes.values() if isinstance(x, n.Forward)]
        self.used = list(dict.fromkeys(x.model for x in forwards))
        self.extra = [(_data_of(self.graph, x), column) for x in forwards for _, column in x.columns]
        positions = isinstance(kept, n.Tap) and kept.feature.name in ("start", "end") and not kept.padding
        self.fill = HIDDEN_SCORE if positions else 0.0

    def find(self, step: Step, known: dict[object, list[bytes]]) -> bool:
        """Whether the store has the value for every example of the batch, which is then in its slot.

        `known` are the digests of this batch that other values have asked for, by what entered them.
        """
        entering = (tuple(self.entries), tuple(self.columns), tuple(self.extra), self.words)
        if entering not in known:
            known[entering] = example_digests(self._parts(step))
        self.examples, self.real = known[entering], self._real(step)
        found = self._store().get(self.examples)
        if found is None:
            return False
        device = next(x.device for x in step.slots[self.entries[0]].values() if isinstance(x, Tensor))
        step.slots[self.slot] = restore(found, self.shape, self.real, self.fill).to(device)
        return True

    def keep(self, step: Step) -> None:
        """Write the value of the batch that `find` has looked for, and go on with what is on disk.

        The last bits of a value depend on the batch that it is computed in. An example that another batch has written
        keeps that value, so that a run that goes on after it was killed, and reads, has the numbers of one that wrote.
        """
        computed: Tensor = step.slots[self.slot]
        kept = self._store().put(self.examples, trim(computed, self.shape, self.real))
        step.slots[self.slot] = restore(kept, self.shape, self.real, self.fill).to(computed.device)

    def _parts(self, step: Step) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """All tensors that enter, each with its name and with the places of it that count: (B, L) bool, or all."""
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
        encoding = step.slots[self.entries[0]]
        if "words" in self.shape:
            found: Tensor = encoding["words"] >= 0
            return found
        return token_mask(encoding) if "length" in self.shape else None

    def _store(self) -> Store:
        """The store for the weights that models have now and the precision in which they run: others give others."""
        device = next((p.device.type for name in self.used for p in self.models[name].parameters()), "cpu")
        precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
        stamps = {name: weights_stamp(self.models[name]) for name in self.used}
        key = (precision, tuple(stamps.values()))
        if key not in self.stores:
            for name, stamp in stamps.items():
                if self.stamps.get(name) != stamp:
                    self.stamps[name], self.weights[name] = stamp, weights_digest(self.models[name])
            hashes = structure_hashes(self.graph, partial(_content, weights=self.weights), ordered=True)
            self.stores[key] = Store(self.folder, digest(FORMAT, hashes[self.key], precision))
        return self.stores[key]

    @property
    def read(self) -> int:
        """Examples that were read instead of computed."""
        return sum(store.read for store in self.stores.values())

    @property
    def written(self) -> int:
        """Examples that were computed and written."""
        return sum(store.written for store in self.stores.values())


def cached_values(
    graph: Graph, folder: Path, slots: Mapping[str, int], models: Mapping[str, nn.Module]
) -> tuple[CachedValue, ...]:
    """The values of a graph that its spec keeps; relative folders lie in `folder`."""
    weights, stamps = dict[str, str](), dict[str, object]()
    return tuple(
        CachedValue(graph, key, name, locate(path, folder), slots, models, weights, stamps)
        for key, (name, path) in sorted(info(graph).caches.items())
        if key in slots
    )


def _data_of(graph: Graph, forward: n.Forward) -> str:
    entry = node(graph, forward.entry)
    return entry.data if isinstance(entry, n.Input) else ""


def _content(x: n.Node, weights: Mapping[str, str]) -> tuple[Any, ...]:
    """What a node is: a model its weights, data nothing, since each example stands for itself."""
    match x:
        case n.Input():
            return ()
        case n.Column():
            return (x.column,)
        case n.Forward():
            return (weights.get(x.model), x.passing, x.columns)
    return x.content()


def trim(x: Tensor, shape: Shape, real_BL: Tensor | None) -> list[Tensor]:
    """The value of each example by itself, its axes of tokens as long as its real tokens are many."""
    if real_BL is None:
        return list(x.unbind())
    axes = [i - 1 for i, symbol in enumerate(shape) if symbol in ("length", "words")]
    found = []
    for row, real in zip(x, real_BL.to(x.device), strict=True):
        (places,) = real.nonzero(as_tuple=True)
        for axis in axes:
            row = row.index_select(axis, places)
        found.append(row)
    return found


def restore(rows: Sequence[Tensor], shape: Shape, real_BL: Tensor | None, fill: float) -> Tensor:
    """The value of a batch from those of its examples, with `fill` where they have no token."""
    if real_BL is None:
        return torch.stack(list(rows))
    axes = [i - 1 for i, symbol in enumerate(shape) if symbol in ("length", "words")]
    sizes = [real_BL.shape[1] if i in axes else size for i, size in enumerate(rows[0].shape)]
    whole = rows[0].new_full((len(rows), *sizes), fill)
    for row, into, real in zip(rows, whole, real_BL.cpu(), strict=True):
        (places,) = real.nonzero(as_tuple=True)
        grid = [torch.arange(size) for size in sizes]
        for axis in axes:
            grid[axis] = places
        into[torch.meshgrid(*grid, indexing="ij")] = row
    return whole
