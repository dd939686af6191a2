"""What a spec imports: other specs, for their definitions, and Python modules, for the operations they declare.

A module is read, never run: its decorated functions say all that a check needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import Collector, SourceFault, suggest
from brewgraph.ops.python_files import declared, find_source
from brewgraph.paths import locate, nearby
from brewgraph.recipe.evaluate.scope import Scope
from brewgraph.source import EncodingError, Source
from brewgraph.syntax import tree as t
from brewgraph.syntax.parser import parse

Enter = Callable[[Scope, Sequence[t.Statement], Collector, "Library"], None]


class Library:
    """The specs and modules that one reading of a spec imports, each once. `modules` are the dotted names to load.

    `given` are the values of the outermost spec's params that come from outside.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.given = given or {}
        self.scopes: list[Scope] = []
        self.found: dict[str, None] = {}
        self._open: list[Path] = []

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self.found)

    def spec(self, s: t.Import, scope: Scope, collector: Collector, enter: Enter) -> Scope | None:
        """The definitions of another spec; its path starts at the importing spec's folder."""
        target = self._filled(s, scope, collector)
        if target is None:
            return None
        try:
            path = locate(target, scope.source.folder)
        except SourceFault as fault:
            collector.add(fault.code, fault.message, s.span, help=fault.help)
            return None
        self._open = self._open or [Path(scope.source.name).resolve()]
        if path.resolve() in self._open:
            circle = " -> ".join(p.name for p in (*self._open[self._open.index(path.resolve()) :], path.resolve()))
            collector.add("B113", f"specs import each other in a circle: {circle}", s.span, help="break the circle")
            return None
        try:
            source = Source.read(path)
        except EncodingError as error:
            collector.add("B114", error.message, s.span, help=error.help)
            return None
        except OSError as error:
            near = sorted(p.name for p in path.parent.glob("*.brew")) if path.parent.is_dir() else []
            help = suggest(path.name, near) or "the path starts at this spec's folder"
            help = nearby(path) if path.is_dir() else help
            collector.add("B114", f"`{target}` cannot be read: {error.strerror}", s.span, help=help)
            return None
        imported = Scope("import", (*scope.path, s.name), None, source, statement=s)
        self._open.append(path.resolve())
        enter(imported, parse(source, collector).statements, collector, self)
        self._open.pop()
        self.scopes.append(imported)
        return imported

    def _filled(self, s: t.Import, scope: Scope, collector: Collector) -> str | None:
        """The path, its `{name}` filled in: params that stand above, as files are read before anything is evaluated.

        None, with a diagnostic, where a name is no such param.
        """
        faults: list[str] = []

        def fill(match: re.Match[str]) -> str:
            name = match.group(1)
            param = scope.statements.get(name)
            default = param.default if isinstance(param, t.Param) else None
            value = default.value if isinstance(default, t.String | t.Constant) else None
            if isinstance(param, t.Param) and scope.kind == "spec":
                value = self.given.get(name, value)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                faults.append(name)
            return str(value)

        path = re.sub(r"\{([A-Za-z_]\w*)\}", fill, s.target)
        for name in faults:
            message = f"the path of an import needs a text or a number, and `{name}` is no param above that has one"
            collector.add("B114", message, s.span, help=f'write `param {name} = "…"` above')
        return None if faults else path

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
            help = "remove the import, or decorate a function there: `@brewgraph.ops.operation(takes={…}, source=…)`"
            collector.add("B330", f"`{s.target}` declares no operation", s.span, help=help)
            return None
        self.found[s.target] = None
        return dict(found)
