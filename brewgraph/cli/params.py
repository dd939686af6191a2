"""`brewgraph params`: where a model's parameters are, before any of its weights is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from brewgraph.cli.options import ModelName, Named, Set
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read, spec_is_named, table
from brewgraph.display.cost import megabytes

if TYPE_CHECKING:
    from brewgraph.models.fake.parameter_tree import ParameterNode


def command(
    model: Named,
    name: ModelName = None,
    set: Set = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels below the model.", show_default="all")] = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or a list for machines.")] = "text",
) -> None:
    """Show a model's parameters as a tree: counts, shares, memory.

    Tied ones count once. No weight is loaded: memory is what the model takes in single precision.
    """
    if spec_is_named(model, name, set):
        from brewgraph.checking.check import check

        source, params = read(model), parse_sets(set or [])
        hush()
        checked = check(source, params)
        from brewgraph.inspect.parameters import spec_parameters

        trees = spec_parameters(checked, name)
        print_diagnostics(checked.warnings, sys.stderr)
    else:
        hush()
        from brewgraph.inspect.parameters import model_parameters

        trees = model_parameters(model)
    if format == "json":
        print(json.dumps([tree.as_json(depth) for tree in trees], indent=2))
        return
    print("\n\n".join("\n".join(text(tree, depth)) for tree in trees))


def text(tree: ParameterNode, depth: int | None = None) -> Iterator[str]:
    """The tree in lines: a node, its count, its share of the whole, its memory; then what does not learn."""
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
