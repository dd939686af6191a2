"""Where the boxes and lines of a drawing stand: columns from left to right, few crossings, nothing on top of another.

A layered layout after Sugiyama, Tagawa and Toda (1981): a column for each box behind all that it is made from, an order
in each column by the mean place of its neighbours, and heights that keep that order and bring neighbours near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

SWEEPS = 12
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """`places` are the boxes: left, top, width, height, as wide as their column; `lines` the points that each line goes
    through, its ends included, by source and target; `width` and `height` those of the whole. The unit is the sizes'.
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
    """Places for boxes of these sizes (width, height), in whose order they stand where nothing speaks against it.

    `gap` is between columns, `apart` between boxes of one column, `margin` around everything.
    """
    lines = list(dict.fromkeys(lines))
    columns = _columns(list(sizes), lines)
    paths = {line: _path(line, columns) for line in lines}
    layers: list[list[str]] = [[] for _ in range(1 + max(columns.values(), default=0))]
    for key in sizes:
        layers[columns[key]].append(key)
    heights = {key: size[1] for key, size in sizes.items()}
    for path in paths.values():
        for key, column in path[1:-1]:
            layers[column].append(key)
            heights[key] = 2
    steps = [(a, b) for path in paths.values() for (a, _), (b, _) in pairwise(path)]
    before: dict[str, list[str]] = {key: [] for key in heights}
    after: dict[str, list[str]] = {key: [] for key in heights}
    for a, b in steps:
        before[b].append(a)
        after[a].append(b)
    layers = _ordered(layers, before, after)
    middles = _heights(layers, heights, before, after, apart)
    widths = [max((sizes[key][0] for key in layer if key in sizes), default=0.0) for layer in layers]
    lefts = [margin + sum(widths[:i]) + gap * i for i in range(len(layers))]
    top = min((middles[key] - heights[key] / 2 for key in heights), default=0.0) - margin
    places = {
        key: (lefts[columns[key]], middles[key] - size[1] / 2 - top, widths[columns[key]], size[1])
        for key, size in sizes.items()
    }
    ports = _ports(lines, paths, middles, heights)
    drawn: dict[tuple[str, str], tuple[Point, ...]] = {}
    for line, path in paths.items():
        left, _, width, _ = places[line[0]]
        points: list[Point] = [(left + width, middles[line[0]] - top)]
        for key, column in path[1:-1]:
            points += [(lefts[column], middles[key] - top), (lefts[column] + widths[column], middles[key] - top)]
        points.append((places[line[1]][0], ports[line] - top))
        drawn[line] = tuple(points)
    height = max((middles[key] + heights[key] / 2 for key in heights), default=0.0) - top + margin
    return Layout(places, drawn, lefts[-1] + widths[-1] + margin, height)


def _ports(
    lines: Sequence[tuple[str, str]],
    paths: Mapping[tuple[str, str], list[tuple[str, int]]],
    middles: Mapping[str, float],
    heights: Mapping[str, float],
) -> dict[tuple[str, str], float]:
    """How high each line ends: those into one box side by side, in the order in which they come in."""
    found: dict[tuple[str, str], float] = {}
    for target in dict.fromkeys(b for _, b in lines):
        into = sorted((line for line in lines if line[1] == target), key=lambda line: middles[paths[line][-2][0]])
        step = min(9.0, (heights[target] - 14) / max(1, len(into) - 1))
        for i, line in enumerate(into):
            found[line] = middles[target] + step * (i - (len(into) - 1) / 2)
    return found


def _columns(keys: list[str], lines: list[tuple[str, str]]) -> dict[str, int]:
    """The column of each box: behind all it is made from; what is made from nothing stands as far right as it can."""
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(keys)
    graph.add_edges_from(lines)
    found: dict[str, int] = {}
    for key in nx.topological_sort(graph):
        found[key] = max((found[used] + 1 for used in graph.predecessors(key)), default=0)
    first = {key: column for key, column in found.items() if column == 0}
    for key in first:
        users = [found[user] for user in graph.successors(key)]
        found[key] = max(0, min(users, default=1) - 1)
    return found


def _path(line: tuple[str, str], columns: Mapping[str, int]) -> list[tuple[str, int]]:
    """The boxes of a line with their columns; a place of its own in each column that it passes."""
    source, target = line
    between = range(columns[source] + 1, columns[target])
    inner = [(f"{source}\0{target}\0{column}", column) for column in between]
    return [(source, columns[source]), *inner, (target, columns[target])]


def _ordered(
    layers: list[list[str]], before: Mapping[str, list[str]], after: Mapping[str, list[str]]
) -> list[list[str]]:
    """The columns in an order with few crossings: the best that sweeps to and fro by mean places find."""
    best, least = [list(layer) for layer in layers], _crossings(layers, after)
    layers = [list(layer) for layer in layers]
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        neighbours = before if forth else after
        for layer in layers[1:] if forth else layers[-2::-1]:
            place = {key: i for column in layers for i, key in enumerate(column)}
            mean = {
                key: sum(place[x] for x in neighbours[key]) / len(neighbours[key]) if neighbours[key] else place[key]
                for key in layer
            }
            layer.sort(key=mean.__getitem__)
        crossings = _crossings(layers, after)
        if crossings < least:
            best, least = [list(layer) for layer in layers], crossings
    return best


def _crossings(layers: list[list[str]], after: Mapping[str, list[str]]) -> int:
    """How many pairs of lines between neighbouring columns cross."""
    total = 0
    for layer, following in pairwise(layers):
        place = {key: i for i, key in enumerate(following)}
        ends = [place[x] for key in layer for x in sorted(after[key], key=lambda x: place.get(x, 0)) if x in place]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _heights(
    layers: list[list[str]],
    heights: Mapping[str, float],
    before: Mapping[str, list[str]],
    after: Mapping[str, list[str]],
    apart: float,
) -> dict[str, float]:
    """The middle of each box: in the order of its column, no nearer than `apart`, near those that it is joined to."""
    middles: dict[str, float] = {}
    for layer in layers:
        at = 0.0
        for key in layer:
            middles[key] = at + heights[key] / 2
            at += heights[key] + apart
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            neighbours = {key: [*before[key], *after[key]] if sweep > 1 else before[key] for key in layer}
            wanted = [
                sum(middles[x] for x in neighbours[key]) / len(neighbours[key]) if neighbours[key] else middles[key]
                for key in layer
            ]
            for key, found in zip(layer, _nearest(wanted, [heights[key] for key in layer], apart), strict=True):
                middles[key] = found
    return middles


def _nearest(wanted: list[float], heights: list[float], apart: float) -> list[float]:
    """The middles nearest to those that are wanted, in least squares, that keep the order and the distances.

    Taken off what boxes before need, they only have to be no smaller than the one before: pool adjacent violators.
    """
    offsets, at = [], 0.0
    for i, height in enumerate(heights):
        at += (heights[i - 1] + height) / 2 + apart if i else 0.0
        offsets.append(at)
    pools: list[tuple[float, int]] = []
    for value in (w - o for w, o in zip(wanted, offsets, strict=True)):
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]
