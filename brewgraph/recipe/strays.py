"""Settings that stand where nothing reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brewgraph.diagnostics import Collector
from brewgraph.recipe.scope import IN_TEXT, Scope
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import TABLE
from brewgraph.syntax.foreign.training import OWN


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
            known = name in OWN or name in TABLE["setting"]
            if not known or name in (*read, "loss") or not isinstance(statement, t.Equation | t.Let):
                continue
            if isinstance(statement.value, t.Constant | t.String | t.Percent | t.Duration):
                write = f"write `train {{ {name} = {statement.value.span.text} }}`"
                help = write if name in OWN else TABLE["setting"][name].help
                collector.add("W406", f"nothing reads `{name}`", statement.name_span, help=help)
