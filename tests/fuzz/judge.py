"""What must hold of any text: a recipe or diagnostics, never another error; a layout that is stable and means the same."""

from __future__ import annotations

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import Collector, SpecError, render
from brewgraph.recipe.recipe import Recipe
from brewgraph.source import Source
from brewgraph.syntax.format import format_source
from brewgraph.syntax.parser import parse


def judge(text: str) -> str:
    """Read, check and format a text; how far it came: `lost`, `parsed` or `sound`."""
    source = Source(text)
    collector = Collector()
    spec = parse(source, collector)
    recipe = checked(source)
    if collector.failed:
        assert recipe is None
        try:
            format_source(source)
        except SpecError:
            return "lost"
        raise AssertionError("a text that does not parse is formatted")
    once = format_source(source)
    laid_out = Source(once)
    assert format_source(laid_out) == once
    assert parse(laid_out, Collector()) == spec
    again = checked(laid_out)
    if recipe is None or again is None:
        assert recipe is again is None
        return "parsed"
    assert meaning(again) == meaning(recipe)
    return "sound"


def meaning(recipe: Recipe) -> tuple[object, ...]:
    """What a recipe computes, whatever its text and its places there."""
    losses = [(stage.name, stage.train, task.name, task.loss, dict(task.reports)) for stage, task in recipe.tasks]
    named = (recipe.params, recipe.models, recipe.data, recipe.equations, recipe.projections)
    return (losses, recipe.train, *map(dict, named))


def checked(source: Source) -> Recipe | None:
    """The recipe without its text and places, None with diagnostics, each of which can be shown."""
    try:
        recipe = check_names(source, {})
    except SpecError as error:
        diagnostics = error.diagnostics
    else:
        return recipe
    assert diagnostics
    assert all(diagnostic.message and render(diagnostic, width=80) for diagnostic in diagnostics)
    return None
