"""Places of the boxes and lines of a drawing: columns from left to right, few crossings, no overlaps.

A layered layout after Sugiyama, Tagawa and Toda (1981): each box in a column behind all that it is made from, an order
in each column by the mean place of its neighbours, and heights that keep that order and bring neighbours near.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean

import networkx as nx

from brewgraph.graph.container import Graph

SWEEPS = 12
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """`places` are the boxes: left, top, width, height, as wide as their column; `lines` the points of each line, its
    ends included, by source and target; `width` and `height` those of the whole, all in the unit of the sizes.
    """

    places: Mapping[str, tuple[float, float, float, float]]
    lines: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def lay_out(
    sizes: Mapping[str, tuple[float, float]],
    lines: Sequence[tuple[str, str]],
    *,
    gap: float = 56,
    apart: float = 14,
    margin: float = 16,
) -> Layout:
    """Places for boxes of these sizes (width, height), in their order where crossings do not matter.

    `gap` is between columns, `apart` between boxes of one column, `margin` around everything.
    """
    lines = list(dict.fromkeys(lines))
    columns = _columns(list(sizes), lines)
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(sizes)
    paths: dict[tuple[str, str], list[str]] = {}
    for source, target in lines:
        # a line has a place of its own in each column that it crosses
        inner = {f"{source}\0{target}\0{column}": column for column in range(columns[source] + 1, columns[target])}
        columns |= inner
        paths[source, target] = [source, *inner, target]
        nx.add_path(graph, paths[source, target])
    heights = {key: sizes[key][1] if key in sizes else 2 for key in graph}
    layers: list[list[str]] = [[] for _ in range(1 + max(columns.values(), default=0))]
    for key in graph:
        layers[columns[key]].append(key)
    layers = _ordered(layers, graph)
    middles = _heights(layers, heights, graph, apart)
    widths = [max((sizes[key][0] for key in layer if key in sizes), default=0.0) for layer in layers]
    lefts = [margin + sum(widths[:i]) + gap * i for i in range(len(layers))]
    top = min((middles[key] - heights[key] / 2 for key in heights), default=0.0) - margin
    places = {
        key: (lefts[columns[key]], middles[key] - size[1] / 2 - top, widths[columns[key]], size[1])
        for key, size in sizes.items()
    }
    ports = _ports(sizes, graph, middles, heights)
    drawn: dict[tuple[str, str], tuple[Point, ...]] = {}
    for line, path in paths.items():
        left, _, width, _ = places[line[0]]
        points: list[Point] = [(left + width, middles[line[0]] - top)]
        for key in path[1:-1]:
            middle, column = middles[key] - top, columns[key]
            points += [(lefts[column], middle), (lefts[column] + widths[column], middle)]
        points.append((places[line[1]][0], ports[path[-2], path[-1]] - top))
        drawn[line] = tuple(points)
    height = max((middles[key] + heights[key] / 2 for key in heights), default=0.0) - top + margin
    return Layout(places, drawn, lefts[-1] + widths[-1] + margin, height)


def _ports(
    keys: Iterable[str], graph: Graph, middles: Mapping[str, float], heights: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """The height at which each line ends: those into one box side by side, in the order in which they arrive."""
    ports: dict[tuple[str, str], float] = {}
    for target in keys:
        into = sorted(graph.pred[target], key=middles.__getitem__)
        step = min(9.0, (heights[target] - 14) / max(1, len(into) - 1))
        for i, before in enumerate(into):
            ports[before, target] = middles[target] + step * (i - (len(into) - 1) / 2)
    return ports


def _columns(keys: list[str], lines: list[tuple[str, str]]) -> dict[str, int]:
    """The column of each box: behind all it is made from; a box made from nothing is as far right as possible."""
    graph: Graph = nx.DiGraph(lines)
    graph.add_nodes_from(keys)
    columns = {key: i for i, layer in enumerate(nx.topological_generations(graph)) for key in layer}
    moved = {k: min((columns[user] for user in graph.successors(k)), default=1) - 1 for k in keys if columns[k] == 0}
    return columns | moved


def _ordered(layers: list[list[str]], graph: Graph) -> list[list[str]]:
    """The columns in the order with the fewest crossings that sweeps to and fro by mean places find."""
    best, least = [list(layer) for layer in layers], _crossings(layers, graph)
    layers = [list(layer) for layer in layers]
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        neighbours = graph.pred if forth else graph.succ
        for layer in layers[1:] if forth else layers[-2::-1]:
            place = {key: float(i) for column in layers for i, key in enumerate(column)}
            mean = {key: _mean(key, neighbours[key], place) for key in layer}
            layer.sort(key=mean.__getitem__)
        crossings = _crossings(layers, graph)
        if crossings < least:
            best, least = [list(layer) for layer in layers], crossings
    return best


def _mean(key: str, neighbours: Collection[str], places: Mapping[str, float]) -> float:
    """The mean place of a box's neighbours; its own without any."""
    return fmean(places[x] for x in neighbours or (key,))


def _crossings(layers: list[list[str]], graph: Graph) -> int:
    """How many pairs of lines between neighbouring columns cross."""
    total = 0
    for layer, following in pairwise(layers):
        place = {key: i for i, key in enumerate(following)}
        ends = [place[x] for key in layer for x in sorted(graph.succ[key], key=lambda x: place.get(x, 0)) if x in place]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _heights(layers: list[list[str]], heights: Mapping[str, float], graph: Graph, apart: float) -> dict[str, float]:
    """The middle of each box: in the order of its column, no nearer than `apart`, near its neighbours."""
    middles: dict[str, float] = {}
    for layer in layers:
        at = 0.0
        for key in layer:
            middles[key] = at + heights[key] / 2
            at += heights[key] + apart
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [_mean(k, [*graph.pred[k], *(graph.succ[k] if sweep > 1 else ())], middles) for k in layer]
            middles |= zip(layer, _nearest(wanted, [heights[key] for key in layer], apart), strict=True)
    return middles


def _nearest(wanted: list[float], heights: list[float], apart: float) -> list[float]:
    """The middles nearest to the wanted ones, in least squares, that keep the order and the distances.

    Less the space that earlier boxes need, they only have to rise: pool adjacent violators.
    """
    offsets = list(accumulate(((a + b) / 2 + apart for a, b in pairwise(heights)), initial=0.0))[: len(heights)]
    pools: list[tuple[float, int]] = []
    for value in (w - o for w, o in zip(wanted, offsets, strict=True)):
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]
