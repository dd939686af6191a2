"""Bodies of statements and the names in them: a spec, its tasks and stages, imported specs, calls of functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t

IN_TEXT = r"\{([A-Za-z_]\w*)\}"
"""A name whose value stands in a string: `"{k}"`."""


@dataclass(eq=False)
class Scope:
    """One body. Names that it lacks are looked up in its `parent`; values are evaluated when first asked for.

    `path` is what stands before its names when they are said in full: `("warm", "ner")`; `statement` opened it.
    `caller` is the scope where a function was called: the data in scope is that of the caller, names are those of the
    place of definition.
    """

    kind: Literal["spec", "task", "stage", "import", "call"]
    path: tuple[str, ...]
    parent: Scope | None
    source: Source
    caller: Scope | None = None
    function: t.Function | None = None
    statement: t.Task | t.Stage | t.Import | None = None
    statements: dict[str, t.Named] = field(default_factory=dict)
    functions: dict[str, t.Function] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, Scope] = field(default_factory=dict)
    """Tasks, stages and imported specs by name."""
    modules: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Operations of imported Python modules, by the module's name here; None of one that cannot be read."""
    places: dict[str, Span] = field(default_factory=dict)
    """Where each value name of this body was given first, whatever it names."""
    arguments: dict[str, tuple[t.Expression, Scope]] = field(default_factory=dict)
    """Of a call: what was written for each parameter, and the scope in which it was written."""
    trains: list[t.Train] = field(default_factory=list)
    samples: list[t.Sample] = field(default_factory=list)

    def full(self, name: str, joint: str = ".") -> str:
        """A name of this scope as it is called from outside."""
        return joint.join((*self.path, name))

    def outward(self) -> Iterator[Scope]:
        """This scope and those around it, from the inside."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def data_outward(self) -> Iterator[Scope]:
        """Where data is looked for: as `outward`, but from a function on to where it was called."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.caller or scope.parent

    def known_names(self) -> list[str]:
        """Every name that can be said here."""
        return list(
            dict.fromkeys(name for scope in self.outward() for name in (*scope.values, *scope.statements, *scope.inner))
        )

    def axis_of(self, x: t.Expression) -> tuple[str, str]:
        """The name of the list or layer map that an expression names, and what tells it apart; empty without one.

        A parameter stands for what was written where the function was called, a second name for the first one.
        """
        if isinstance(x, t.Attribute) and x.name in ("from", "to"):
            return self.axis_of(x.value)
        if not isinstance(x, t.Name):
            return "", ""
        for scope in self.outward():
            if x.id in scope.arguments:
                written, home = scope.arguments[x.id]
                return home.axis_of(written)
            if x.id in scope.statements:
                statement = scope.statements[x.id]
                again = scope.axis_of(statement.value) if isinstance(statement, t.Let) else ("", "")
                return again if again[0] else (x.id, f"{scope.source.name} {scope.full(x.id)}")
        return "", ""

    def params_in(self, x: t.Expression) -> frozenset[str]:
        """The params of the whole spec that an expression is made of, by itself, by other names, or in its texts."""
        found: set[str] = set()
        for node in x.walk():
            texts = re.findall(IN_TEXT, node.value) if isinstance(node, t.String) else ()
            for name in (node.id,) if isinstance(node, t.Name) else texts:
                home = next((s for s in self.outward() if name in s.places), None)
                statement = home.statements.get(name) if home is not None else None
                if isinstance(statement, t.Param) and home is not None and home.kind == "spec":
                    found.add(name)
                elif isinstance(statement, t.Let | t.Equation) and home is not None and statement.value is not x:
                    found |= home.params_in(statement.value)
        return frozenset(found)

    def descend(self) -> Iterator[Scope]:
        """This scope and its tasks and stages, in the order of the text; imported specs are left out."""
        yield self
        for scope in self.inner.values():
            if scope.kind != "import":
                yield from scope.descend()
