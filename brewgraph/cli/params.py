"""`brewgraph params`: where a model's parameters are, before weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from brewgraph.cli.options import Depth, Format, ModelName, Set, Target, models_of
from brewgraph.cli.output import table
from brewgraph.display.cost import megabytes
from brewgraph.inspect.targets import parameter_trees

if TYPE_CHECKING:
    from brewgraph.models.fake.parameter_tree import ParameterNode


def command(
    model: Target, name: ModelName = None, set: Set = None, depth: Depth = None, format: Format = "text"
) -> None:
    """Show a model's parameters as a tree: counts, shares, memory.

    Tied parameters count once. No weight is loaded: memory is that of single precision.
    """
    trees = parameter_trees(models_of(model, name, set))
    if format == "json":
        print(json.dumps([tree.as_json(depth) for tree in trees], indent=2))
        return
    print("\n\n".join("\n".join(text(tree, depth)) for tree in trees))


def text(tree: ParameterNode, depth: int | None = None) -> Iterator[str]:
    """The tree in lines: each node with its count, share and memory; then the number of trained parameters."""
    rows = [("", "parameters", "share", "memory"), *_rows(tree, depth, tree.parameters)]
    yield from table(rows, right=(1, 2, 3)).splitlines()
    if tree.trainable != tree.parameters:
        yield f"{tree.trainable:,} of them are trained"


def _rows(
    node: ParameterNode, depth: int | None, whole: int, before: str = "", below: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    if node.tied:
        yield (f"{before}{node.name} = {node.tied}", "tied", "", "")
        return
    share = node.parameters / whole if whole else 0.0
    yield (f"{before}{node.name}", f"{node.parameters:,}", f"{share:.1%}", megabytes(node.bytes))
    if depth == 0:
        return
    children = list(node.children.values())
    for child in children:
        last = child is children[-1]
        branch, stem = ("└── ", "    ") if last else ("├── ", "│   ")
        yield from _rows(child, None if depth is None else depth - 1, whole, below + branch, below + stem)
