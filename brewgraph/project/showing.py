"""A checked spec's graphs with their costs, to look at."""

from __future__ import annotations

from pathlib import PurePath

from brewgraph.graph.shown import Shown, named
from brewgraph.project.check import Checked
from brewgraph.project.costs import costs


def show(checked: Checked, grain: str = "terms", task: str | None = None, *, cost: bool = True) -> Shown:
    """The graphs of a spec; `task` is one of their names, the first where none is given."""
    counted = costs(checked) if cost else {}
    known = {"/".join(filter(None, key)): None if isinstance(x, str) else x for key, x in counted.items()}
    title = PurePath(checked.recipe.source.name).name.strip("<>")
    return Shown(named(checked.graphs), title, checked.spec_hash, known, grain, task)
