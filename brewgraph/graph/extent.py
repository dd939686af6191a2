"""Labels and logits belong to whole examples or to tokens: both sides of a loss to the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.recipe import values as v
from brewgraph.recipe.features import Shape
from brewgraph.recipe.label_types import CLASS, TAGS, LabelType

if TYPE_CHECKING:
    from brewgraph.graph.build import Builder

_CLASSES = ("logits", "probabilities")


def check_extent(
    builder: Builder, x: v.Apply, kinds: tuple[str, str], shapes: tuple[Shape | None, Shape | None]
) -> None:
    """B224 where one side has a label or logits for each example and the other for each token, or for each position."""
    one, other = shapes
    goal = next((t for t in v.walk(x.target) if isinstance(t, v.Take)), None)
    if one is None or other is None or goal is None or kinds[0] not in ("labels", *_CLASSES):
        return
    column = next((c for c in v.walk(x.source) if isinstance(c, v.Column) and c.kind == "labels"), None)
    if kinds[1] == "positions" and column is not None and column.column == "labels":
        message = f"the labels of `{column.data}` are classes, and `{goal.span.text}` scores the positions of a text"
        help = f"match them with logits: `{goal.model}.logits`; data with answers have a start and an end"
        builder.collector.add("B224", message, x.target.span, help=help)
    if kinds[1] not in _CLASSES or _is_along_text(one) == _is_along_text(other):
        return
    extents = ["each token" if _is_along_text(shape) else "a whole example" for shape in shapes]
    if column is not None and kinds[0] == "labels":
        label_type = builder.recipe.data[column.data].source.label_type
        message = f"a label of `{column.data}` belongs to {extents[0]}, and `{goal.model}` has logits for {extents[1]}"
        help = _remedy(goal, label_type)
    else:
        source = next((t.model for t in v.walk(x.source) if isinstance(t, v.Take)), "")
        given = f"`{source}` has" if source else "these are"
        message = f"{given} logits for {extents[0]}, and `{goal.model}` for {extents[1]}"
        help = _remedy(goal, TAGS if _is_along_text(one) else CLASS)
    builder.collector.add("B224", message, x.target.span, help=help)


def _is_along_text(shape: Shape | None) -> bool:
    return not {"length", "words"}.isdisjoint(shape or ())


def _remedy(take: v.Take, label_type: LabelType) -> str:
    """Another head for the model whose logits these are."""
    if take.feature.head:
        return f"let the head `{take.feature.head}` be a `{label_type.head}(…)`, or match with another one"
    return f'give `{take.model}` the head for that: task="{label_type.task}"'
