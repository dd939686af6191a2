"""`brewgraph taps`: the modules and features that a spec can take from a model, before weights are loaded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from brewgraph.cli.options import Depth, Format, ModelName, Set, Target, models_of
from brewgraph.cli.output import painter, table
from brewgraph.diagnostics import shortened
from brewgraph.inspect.targets import tap_tables
from brewgraph.models.structure.anatomy import Module, ModuleValue, Taps, show

WIDTH = 80


def command(
    model: Target,
    name: ModelName = None,
    path: Annotated[
        str | None,
        typer.Option(help="Show only these modules, in full: a path as in a tap, with `*`, or a part of one."),
    ] = None,
    set: Set = None,
    depth: Depth = None,
    all: Annotated[bool, typer.Option("--all", help="Show equal layers separately.")] = False,
    format: Format = "text",
) -> None:
    """Show the features and modules of a model that a spec can take, with their shapes. No weight is loaded."""
    tables = tap_tables(models_of(model, name, set), collapse=not all, path=path)
    if format == "json":
        print(json.dumps([taps.as_json() for taps in tables], indent=2))
        return
    paint = painter(sys.stdout)
    for i, taps in enumerate(tables):
        title, *lines = details(taps) if path is not None else overview(taps, depth)
        print("\n" * (i > 0) + paint(title, "bold"), *lines, sep="\n")


# ── everything, one line each ────────────────────────────────────────────────────────────────────────────────────────


def overview(taps: Taps, depth: int | None = None) -> Iterator[str]:
    """Features, then the tree of modules with their outputs."""
    yield f"{taps.title} ({taps.kind})"
    yield ""
    yield from _features(taps)
    yield ""
    rows = list(_tree(taps, depth))
    names, shapes = (max(len(row[i]) for row in rows) for i in (0, 2))
    room = max(8, min(20, WIDTH - names - shapes - 4))
    cut = [(name, shortened(kind, room), shape) for name, kind, shape in rows]
    yield from table(cut).splitlines()
    yield ""
    yield from _hints(taps)


def _features(taps: Taps) -> Iterator[str]:
    rows = [("feature", "", "shape")]
    lacking: dict[str, list[str]] = {}
    for row in taps.features:
        if row.lacking:
            lacking.setdefault(row.lacking, []).append(row.name)
        elif row.count is None:
            rows.append((row.name, "", row.shape))
        else:
            rows.append((row.name, f"[0] to [{row.count - 1}]", row.shape))
    yield from table(rows).splitlines()
    for reason, names in lacking.items():
        yield f"no {', '.join(names)}: {reason}"


def _tree(taps: Taps, depth: int | None) -> Iterator[tuple[str, str, str]]:
    """Name, class and output of each module, indented below the nearest visible one that contains it."""
    yield ("module", "class", "output")
    above: list[str] = []
    for row in taps.modules:
        while above and not row.path.startswith(f"{above[-1]}."):
            above.pop()
        if not row.can_run and not any(row.path == other for other in above):
            continue  # its members' names contain it: `.layer.{0..11}`
        if depth is not None and len(above) > depth:
            continue
        name = row.path.removeprefix(above[-1]) if above else row.path
        lines = list(_values(row.gives)) if row.calls else ["never called"]
        yield ("  " * len(above) + name, row.kind, lines[0])
        yield from (("", "", line) for line in lines[1:])
        above.append(row.path)


def _values(values: tuple[ModuleValue, ...], *, names: bool = False) -> Iterator[str]:
    """The elements of what each call takes or gives, a line for each, behind the number of the call."""
    for value, times in _runs(values):
        lead = f"{times} " if times else ""
        for line in _elements(value, names=names):
            yield lead + line
            lead = " " * len(lead)


def _runs(values: tuple[ModuleValue, ...]) -> Iterator[tuple[ModuleValue, str]]:
    """The value of each call, equal ones once with their number."""
    if len(values) == 1:
        yield values[0], ""
    elif len(dict.fromkeys(values)) == 1:
        yield values[0], f"{len(values)} ×"
    else:
        yield from ((value, f"call {i}:") for i, value in enumerate(values))


def _elements(value: ModuleValue, *, names: bool) -> Iterator[str]:
    """A line for each element of a tuple, with its index; one line for any other value."""
    for i, element in enumerate(value.elements):
        name = f"{value.names[i]} " if names and value.names else ""
        inner = show(element) if element.kind == "tensor" or not element.elements else f"a {element.kind}"
        yield f"[{i}] {name}{inner}"
    if not value.elements:
        yield show(value)


def _hints(taps: Taps) -> Iterator[str]:
    called = [row for row in taps.modules if row.calls]
    row = next((row for row in called if "{" in row.path), called[-1] if called else None)
    if row is None:
        return
    yield f"A path goes from the outside in: {tap_statement(row, taps.base)}"
    yield "--path shows modules in full, with their inputs and the tap statement to write."


def tap_statement(row: Module, base: str) -> str:
    """The statement of a spec that taps these modules."""
    path = re.sub(r"\{\d+\.\.\d+\}", "*", row.path)
    short = path.removeprefix(f"{base}.") if base else path
    tensors = row.gives[0].tensors
    item = f"[{tensors[0]}]" if len(tensors) > 1 else ""
    return f'tap t = model @ "{short}"{item}'


# ── a few of them, in full ───────────────────────────────────────────────────────────────────────────────────────────


def details(taps: Taps) -> Iterator[str]:
    """Each module with its input, its output, and a tap statement."""
    yield f"{taps.title} ({taps.kind})"
    for row in taps.modules:
        yield ""
        yield f"{row.path} ({row.kind})"
        for path in row.also:
            yield f"  also    {path}"
        if not row.calls:
            yield "  never called: nothing to tap"
            continue
        for title, values in (("input", row.takes), ("output", row.gives)):
            for i, line in enumerate(_values(values, names=True)):
                yield f"  {'' if i else title:<6}  {line}"
        if any(value.kind == "tensor" or value.elements for value in row.gives):
            yield f"  write   {tap_statement(row, taps.base)}"
