"""What must hold of any text: a recipe or diagnostics, never another error; a layout that is stable and means the same."""

from __future__ import annotations

from brewgraph.checking.check import Reading, read
from brewgraph.diagnostics import Diagnostic, SpecError, render
from brewgraph.recipe.recipe import Recipe
from brewgraph.source import Source
from brewgraph.syntax.format import format_source


def judge(text: str) -> str:
    """Read, check and format a text; how far it came: `lost`, `parsed` or `sound`."""
    source = Source(text)
    reading = checked(source)
    if reading.parsed.failed:
        assert reading.recipe is None
        try:
            format_source(source)
        except SpecError:
            return "lost"
        raise AssertionError("a text that does not parse is formatted")
    once = format_source(source)
    laid_out = Source(once)
    assert format_source(laid_out) == once
    again = checked(laid_out)
    assert again.spec == reading.spec
    if reading.collector.failed or again.collector.failed:
        assert reading.collector.failed == again.collector.failed
        return "parsed"
    assert reading.recipe is not None
    assert again.recipe is not None
    assert meaning(again.recipe) == meaning(reading.recipe)
    return "sound"


def meaning(recipe: Recipe) -> tuple[object, ...]:
    """What a recipe computes, whatever its text and its places there."""
    losses = [(stage.name, stage.train, task.name, task.loss, dict(task.reports)) for stage, task in recipe.tasks]
    named = (recipe.params, recipe.models, recipe.data, recipe.equations, recipe.projections)
    return (losses, recipe.train, *map(dict, named))


def checked(source: Source) -> Reading:
    """What a check without models finds in a text; each of its errors can be shown."""
    reading = read(source, {})
    diagnostics: tuple[Diagnostic, ...] | None = None
    try:
        reading.collector.raise_errors()
    except SpecError as error:
        diagnostics = error.diagnostics
    if diagnostics is not None:
        assert diagnostics
        assert all(diagnostic.message and render(diagnostic, width=80) for diagnostic in diagnostics)
    return reading
