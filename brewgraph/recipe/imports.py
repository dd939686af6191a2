"""What a spec imports: other specs, for their definitions, and Python modules, for the operations they declare.

A module is read, never run: its decorated functions say all that a check needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import Collector, SourceFault, suggest
from brewgraph.ops.reading import declared, find_source
from brewgraph.recipe.scope import Scope
from brewgraph.source import Source
from brewgraph.syntax import tree as t
from brewgraph.syntax.parser import parse

Enter = Callable[[Scope, Sequence[t.Statement], Collector, "Library"], None]


class Library:
    """The specs and modules that one reading of a spec imports, each once. `modules` are the dotted names to load."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.found: dict[str, None] = {}
        self._open: list[Path] = []

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self.found)

    def spec(self, s: t.Import, scope: Scope, collector: Collector, enter: Enter) -> Scope | None:
        """The definitions of another spec; its path starts at the importing spec's folder."""
        path = scope.source.folder / s.target
        self._open = self._open or [Path(scope.source.name).resolve()]
        if path.resolve() in self._open:
            circle = " -> ".join(p.name for p in (*self._open[self._open.index(path.resolve()) :], path.resolve()))
            collector.add("B113", f"specs import each other in a circle: {circle}", s.span, help="break the circle")
            return None
        try:
            source = Source.read(path)
        except (OSError, UnicodeDecodeError) as error:
            near = sorted(p.name for p in path.parent.glob("*.brew")) if path.parent.is_dir() else []
            help = suggest(path.name, near) or "the path starts at this spec's folder"
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            collector.add("B114", f"`{s.target}` cannot be read: {reason}", s.span, help=help)
            return None
        imported = Scope("import", (*scope.path, s.name), None, source, statement=s)
        self._open.append(path.resolve())
        enter(imported, parse(source, collector).statements, collector, self)
        self._open.pop()
        self.scopes.append(imported)
        return imported

    def module(self, s: t.Import, scope: Scope, collector: Collector) -> dict[str, Any] | None:
        """The operations that a Python module declares, by name; None, with a diagnostic, where none can be read."""
        path = find_source(s.target, scope.source.folder)
        if path is None:
            help = "install it, or put it beside the spec"
            collector.add("B114", f"there is no Python module `{s.target}`", s.span, help=help)
            return None
        try:
            found = declared(path.read_text(encoding="utf-8"), s.target)
        except SourceFault as fault:
            collector.add(fault.code, fault.message, s.span, help=fault.help or "correct the module")
            return None
        except (OSError, UnicodeDecodeError, SyntaxError) as error:
            collector.add("B114", f"`{path.name}` cannot be read: {error}", s.span, help="correct the module")
            return None
        if not found:
            help = "decorate a function with `@brewgraph.ops.operation(takes={…}, source=…)`"
            collector.add("B330", f"`{s.target}` declares no operation", s.span, help=help)
            return None
        self.found[s.target] = None
        return dict(found)
