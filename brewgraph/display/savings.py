"""What each pass saves, counted before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from brewgraph.diagnostics import listing
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, execution_order, info, node, of_kind
from brewgraph.graph.optimize import (
    SKIPPABLE,
    all_reached,
    check_names,
    features_of,
    is_over_vocabulary,
    pack_tokens,
    running_order,
    skip_scheduled_zeros,
    split_vocabularies,
    truncate_models,
)
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.train import COMPILED


class LayerCount(Protocol):
    """How many layers a forward runs, and how many there are."""

    @property
    def run(self) -> int: ...
    @property
    def present(self) -> int: ...


class ModelReach(Protocol):
    """What is asked of a model: whether its forward `draws` random numbers in training; its `depth` for some features,
    None where no stack of layers is known; those features that come `late`, when all layers have run; the names of the
    `parameters` that features reach, None where that is not known; why its layers stay padded (`padded_because`).
    """

    @property
    def draws(self) -> bool: ...
    @property
    def attention_layers(self) -> int: ...
    @property
    def padded_because(self) -> str: ...
    @property
    def whole_because(self) -> str: ...
    @property
    def names(self) -> frozenset[str]: ...
    def depth(self, features: Collection[Feature]) -> LayerCount | None: ...
    def late(self, features: Collection[Feature]) -> Collection[Feature]: ...
    def parameters(self, features: Collection[Feature]) -> frozenset[str] | None: ...


ReachOf = Callable[[str], ModelReach | None]


@dataclass(frozen=True)
class CountChange:
    """A count without a pass and with it."""

    what: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.what} {self.before:,} -> {self.after:,}"


@dataclass(frozen=True)
class PassSavings:
    """What a pass changes in the loss of a task, after the passes before it; `skipped` says that it is left out."""

    name: str
    changes: tuple[CountChange, ...]
    skipped: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "left out" if self.skipped else ", ".join(map(str, self.changes)) or ("" if self.notes else "nothing")
        return "; ".join(filter(None, [said, *self.notes]))


WORDS = {
    "values": "values computed",
    "terms": "terms",
    "models": "models that run",
    "forwards": "forwards per batch",
    "layers": "layers run",
    "eager": "layers with eager attention",
    "calls": "calls of losses",
    "held": "values held at once",
    "trained": "parameter tensors trained",
    "pausing": "terms computed while their weight is zero",
}
"""What is counted, in words."""


def savings(unmerged: Graph, reach: ReachOf, skip: Collection[str] = ()) -> tuple[PassSavings, ...]:
    """What each pass saves on a canonical graph whose equal nodes are not merged yet, in the order of the passes."""
    check_names(skip)
    saved, graph, before = [], unmerged, count(unmerged, reach)
    for rewrite in SKIPPABLE:
        name = rewrite.__name__
        if name in skip:
            saved.append(PassSavings(name, (), skipped=True))
            continue
        graph = rewrite(graph)
        after = count(graph, reach)
        changes = [CountChange(words, before[k], after[k]) for k, words in WORDS.items() if before[k] != after[k]]
        notes = NOTES[name](graph, reach) if name in NOTES else ()
        saved.append(PassSavings(name, tuple(changes), notes=notes))
        before = after
    return tuple(saved)


def count(graph: Graph, reach: ReachOf) -> Mapping[str, int]:
    """The count of each of `WORDS`; what is not known of a model counts as nothing."""
    known, forwards = info(graph), dict(of_kind(graph, n.Forward))
    return {
        "values": len(graph) - len(list(of_kind(graph, n.Number))),
        "terms": len(known.terms),
        "models": len({x.model for x in forwards.values()}),
        "forwards": len(forwards),
        "layers": sum(_layers(graph, key, x, reach(x.model)) for key, x in forwards.items()),
        "eager": sum(_eager(graph, key, x, reach(x.model)) for key, x in forwards.items()),
        "calls": len(list(of_kind(graph, n.Loss))),
        "held": _held(graph),
        "trained": _trained(graph, reach),
        "pausing": len(info(skip_scheduled_zeros(graph)).guards or ()) if known.guards is None else 0,
    }


def _layers(graph: Graph, key: str, forward: n.Forward, model: ModelReach | None) -> int:
    depth = model.depth(features_of(graph, key)) if model is not None else None
    if model is None or depth is None:
        return 0
    stops = forward.stops and not (forward.role == "student" and model.draws)
    return depth.run if stops else depth.present


def _uncut(graph: Graph, reach: ReachOf) -> tuple[str, ...]:
    """The models that cannot end after a feature in their middle, and why."""
    reasons = {}
    for key, x in of_kind(graph, n.Forward, execution_order(graph)):
        features, model = features_of(graph, key), reach(x.model)
        if model is not None and (late := model.late(features)):
            rows = listing(sorted({feature.name for feature in late}))
            reasons[x.model] = (
                f"all layers of {x.model} run: no module of it gives its {rows} as the model returns them"
            )
        elif model is None or model.depth(features) is None:
            reasons[x.model] = f"how many layers of {x.model} run is not known"
    return tuple(reasons[name] for name in sorted(reasons))


def _padded(graph: Graph, reach: ReachOf) -> tuple[str, ...]:
    """Which models run on real tokens alone, and why the others do not."""
    packed, reasons = [], []
    for _, x in of_kind(graph, n.Forward, execution_order(graph)):
        model = reach(x.model)
        reason = "a loss or transform without a mask reads its padding" if not x.packed else ""
        reason = reason or ("nothing is known of its layers" if model is None else model.padded_because)
        packed += [] if reason else [x.model]
        reasons += [f"{x.model} stays padded: {reason}"] if reason else []
    names = sorted(set(packed))
    first = [f"layers of {listing(names)} run on real tokens alone"] if names else []
    return (*first, *sorted(set(reasons)))


def _whole(graph: Graph, reach: ReachOf) -> tuple[str, ...]:
    """Whose logits over a vocabulary are computed a chunk of tokens at a time, and why the others are whole."""
    split, reasons = [], []
    for _, tap in of_kind(graph, n.Tap, execution_order(graph)):
        if not is_over_vocabulary(tap):
            continue
        model = reach(tap.model)
        reason = "" if tap.split else "something other than a mean over tokens reads them, or a cache keeps them"
        reason = reason or ("nothing is known of its head" if model is None else model.whole_because)
        split += [] if reason else [tap.model]
        reasons += [f"the logits of {tap.model} are held as a whole: {reason}"] if reason else []
    names = sorted(set(split))
    first = [f"the logits of {listing(names)} are computed a chunk of tokens at a time"] if names else []
    return (*first, *sorted(set(reasons)))


UNPACKED = f"no model runs on real tokens alone: {COMPILED}"
"""What there is to say of packing where layers are compiled."""
NOTES: Mapping[str, Callable[[Graph, ReachOf], tuple[str, ...]]] = {
    truncate_models.__name__: _uncut,
    pack_tokens.__name__: _padded,
    split_vocabularies.__name__: _whole,
}
"""What there is to say of a pass beside counts."""


def _eager(graph: Graph, key: str, forward: n.Forward, model: ModelReach | None) -> int:
    used = {x.index for x in features_of(graph, key) if x.name == "attention"}
    if not used or model is None:
        return 0
    return len(used) if forward.narrow else model.attention_layers


def _held(graph: Graph) -> int:
    """The most values that are held at once."""
    released = info(graph).released or {}
    held = most = 0
    for key in running_order(graph):
        held += _is_value(graph, key)
        most = max(most, held)
        held -= sum(_is_value(graph, x) for x in released.get(key, ()))
    return most


def _is_value(graph: Graph, key: str) -> bool:
    return not isinstance(node(graph, key), n.Forward | n.Temperature)


def _trained(graph: Graph, reach: ReachOf) -> int:
    """The student's tensors that the optimizer holds."""
    student = next((x.model for _, x in of_kind(graph, n.Forward) if x.role == "student"), "")
    model = reach(student) if student else None
    if model is None:
        return 0
    names = model.parameters(all_reached(graph).features) if info(graph).frozen else None
    return len(model.names if names is None else names)
