"""What `brewgraph explain NAME SPEC` prints: a name of a spec, what it is made from, what it feeds, what it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING

from brewgraph.cli.output import hush, painter, parse_sets, print_diagnostics, read
from brewgraph.diagnostics import RunError

if TYPE_CHECKING:
    from brewgraph.display.explain_name import Explained

WIDTH = 80


def print_name(name: str, spec: str, sets: Sequence[str] = (), *, as_json: bool = False) -> None:
    """Explain a name of a spec. Raises `UsageError` where nothing is called so."""
    from brewgraph.checking.check import check

    source, params = read(spec), parse_sets(sets)
    hush()
    checked = check(source, params)
    if not checked.graphs:
        print_diagnostics(checked.warnings, sys.stderr)
        raise RunError("what it computes is not known until its models can be reached")
    from brewgraph.inspect.graph_of import explain

    found = explain(checked, name)
    if as_json:
        print(json.dumps([asdict(x) for x in found], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_lines(x, source.name)) for x in found))


def _lines(found: Explained, spec: str) -> Iterator[str]:
    paint = painter(sys.stdout) or (lambda text, role: text)
    where = f" in {found.where}" if found.where else ""
    yield f"{paint(found.name, 'bold')}: {found.kind}{where}, {spec}:{found.line}"
    rows = [*found.facts, ("made from", ", ".join(found.upstream)), ("feeds", ", ".join(found.downstream))]
    rows = [row for row in rows if row[1]]
    width = max(len(title) for title, _ in rows) + 4
    for title, words in rows:
        yield from wrap(
            words, WIDTH, initial_indent=f"  {title}".ljust(width), subsequent_indent=" " * width,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
