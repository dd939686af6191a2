"""How losses take features: layer maps off by one, and caches that save nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.lints.subject import Subject
from brewgraph.recipe import values as v

PER_LAYER = ("attention", "scores", "query", "key", "value")
"""Rows of features that count from the first layer, 0 to n - 1; `hidden` counts from the embeddings, 0 to n."""


@dataclass(frozen=True)
class MappedLayers:
    """What an operation compares between a row of two models: pairs of indices, each with one place of it."""

    teacher: str
    student: str
    feature: str
    pairs: dict[tuple[int, int], v.Apply]


def find_shifted_maps(subject: Subject) -> Iterator[Diagnostic]:
    """W206: layers that are counted as another row counts them."""
    maps = _layer_maps(subject)
    for hidden in maps:
        if hidden.feature != "hidden" or len(hidden.pairs) < 2:
            continue
        if (shifted := _shifted(subject, hidden)) is not None:
            yield shifted
            continue
        models = hidden.teacher, hidden.student
        for other in maps:
            if other.feature not in PER_LAYER or (other.teacher, other.student) != models:
                continue
            if other.pairs.keys() == hidden.pairs.keys():
                one, two = next(iter(hidden.pairs.values())), next(iter(other.pairs.values()))
                message = f"the same indices as for `hidden`, but `{other.feature}[i]` belongs to the layer after"
                i, j = max(hidden.pairs)
                help = (
                    f"`hidden[{i}]` is the output of layer {i}, `{other.feature}[{i}]` belongs to layer {i + 1}: "
                    f"write one less here, {i - 1} -> {j - 1} for {i} -> {j}"
                )
                labels = (Label(one.source.span, "these count from the embeddings"),)
                yield Diagnostic("W206", message, two.source.span.to(two.target.span), help, labels=labels)
                break


def _shifted(subject: Subject, hidden: MappedLayers) -> Diagnostic | None:
    """What is wrong with pairs of hidden states; None where nothing is."""
    counts = subject.count(hidden.teacher, "hidden"), subject.count(hidden.student, "hidden")
    if counts[0] is None or counts[1] is None or (0, 0) in hidden.pairs:
        return None
    last = counts[0] - 1, counts[1] - 1
    highest = max(i for i, _ in hidden.pairs), max(j for _, j in hidden.pairs)
    pair = next((pair for pair in hidden.pairs if 0 in pair), None)
    if pair is not None and highest != last:
        i, j = pair
        layer = f"the teacher's layer {i}" if j == 0 else f"the student's layer {j}"
        message = f"this matches embeddings with {layer}: `hidden[0]` is before the first layer"
    elif highest == (last[0] - 1, last[1]):
        pair = max(hidden.pairs)
        message = f"the student's last layer learns from the teacher's last but one: `hidden` goes to {last[0]}"
    else:
        return None
    apply = hidden.pairs[pair]
    ends = f"0 to {last[0]} of `{hidden.teacher}` and 0 to {last[1]} of `{hidden.student}`"
    help = f"`hidden[n]` is the output of layer n, {ends}"
    return Diagnostic("W206", message, apply.source.span.to(apply.target.span), help)


def _layer_maps(subject: Subject) -> list[MappedLayers]:
    """The matches of single layers between two models, by operation and row, over all losses."""
    maps: dict[tuple[str, str, str, str], MappedLayers] = {}
    for x in (x for loss in subject.losses for x in v.walk(loss) if isinstance(x, v.Apply)):
        sides = [v.takes_in(x.source), v.takes_in(x.target)]
        if [len(takes) for takes in sides] != [1, 1]:
            continue
        one, two = sides[0][0], sides[1][0]
        i, j = one.feature.index, two.feature.index
        if one.model == two.model or one.feature.name != two.feature.name or i is None or j is None:
            continue
        key = (x.operation, one.model, two.model, one.feature.name)
        maps.setdefault(key, MappedLayers(*key[1:], {})).pairs.setdefault((i, j), x)
    return list(maps.values())


Forward = tuple[str, str, int]
"""A model, the data that it runs on, and the pass."""


def find_idle_caches(subject: Subject) -> Iterator[Diagnostic]:
    """W216: a cache of a teacher whose forward runs anyway, for a feature that is not kept."""
    reported: set[Forward] = set()
    for loss in subject.losses:
        kept: dict[Forward, list[v.Cached]] = defaultdict(list)
        uncached: list[v.Take] = []
        _sort(loss, kept, uncached)
        for take in uncached:
            forward = _forward(take)
            # what is taken beside its cache is one value with it
            if not kept[forward] or forward in reported or any(cached.value == take for cached in kept[forward]):
                continue
            reported.add(forward)
            cached = kept[forward][0]
            message = f"the forward of `{take.model}` runs for this, so the cache `{cached.name}` saves nothing"
            labels = (Label(cached.span, "what is kept"),)
            help = f'keep it too: `cache NAME = {take.model}.{take.feature} at "{cached.path}"`'
            yield Diagnostic("W216", message, take.span, help, labels=labels)


def _forward(take: v.Take) -> Forward:
    return take.model, take.data, take.passing


def _sort(x: v.Value, kept: dict[Forward, list[v.Cached]], uncached: list[v.Take]) -> None:
    """Sort the features in a value into those inside of caches and the others."""
    if isinstance(x, v.Cached):
        for take in v.takes_in(x):
            kept[_forward(take)].append(x)
    elif isinstance(x, v.Take):
        uncached.append(x)
    else:
        for part in v.parts(x):
            _sort(part, kept, uncached)
