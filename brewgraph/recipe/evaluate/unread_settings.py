"""Settings that stand where nothing reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brewgraph.diagnostics import Collector
from brewgraph.recipe.evaluate.scope import IN_TEXT, Scope
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import foreign_words


def warn_of_strays(scopes: Iterable[Scope], spec: t.Spec, collector: Collector) -> None:
    """W406 for a constant that is called like a setting, here or in other tools, and that no expression reads."""
    read: set[str] = set()
    for node in spec.walk():
        if isinstance(node, t.Name | t.Attribute):
            read.add(node.id if isinstance(node, t.Name) else node.name)
        elif isinstance(node, t.String):
            read.update(re.findall(IN_TEXT, node.value))
    for scope in scopes:
        for name, statement in scope.statements.items():
            if name in (*read, "loss") or not isinstance(statement, t.Equation | t.Let):
                continue
            if isinstance(statement.value, t.Constant | t.String | t.Percent | t.Duration):
                is_own, entry = name in foreign_words()["own setting"], foreign_words()["setting"].get(name)
                if not is_own and entry is None:
                    continue
                write = f"write `train {{ {name} = {statement.value.span.text} }}`"
                help = write if is_own or entry is None else entry.help
                collector.add("W406", f"nothing reads `{name}`", statement.name_span, help=help)
