"""Whether an axis has as many entries as an operation needs: over fewer its result never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from brewgraph.ops import OPERATIONS, TEMPERATURES
from brewgraph.ops.registry import is_own
from brewgraph.recipe import values as v
from brewgraph.recipe.features import Shape

if TYPE_CHECKING:
    from brewgraph.graph.build import Builder

LAST_AXIS = {"logits": "classes", "probabilities": "classes", "hidden": "width", "vector": "width"}
"""What the last axis of a value of each kind holds."""


def check_loss(builder: Builder, x: v.Apply, kinds: tuple[str, str], shapes: tuple[Shape | None, Shape | None]) -> bool:
    """Whether a loss, and a temperature in it, get as many classes and as large a width as they need; else B228.

    Of two sides that must be alike the first decides: that the second differs is another fault.
    """
    if any(isinstance(side, v.Transform) and side.declared and side.declared.least for side in (x.source, x.target)):
        return True  # looked at already, where the transform was built
    sides = list(zip((x.source, x.target), kinds, shapes, strict=True))
    for name, least in _needs(x):
        for side, kind, shape in sides[:1] if kinds[0] == kinds[1] else sides:
            if (few := too_few(kind, shape, least)) is None:
                continue
            axis, count = few
            column = next((c for c in (x.source, x.target) if isinstance(c, v.Column) and c.kind == "labels"), None)
            if column is not None and axis == "classes" and name == x.declared.name:
                _report_one_class(builder, column)
                return False
            own = (o for o in OPERATIONS.values() if is_own(o.module))
            other = next((o.name for o in own if o.unit(*kinds) and axis not in o.least), None)
            help = "give the model more classes, or the projection a larger width"
            if name != x.declared.name:
                help = "a number or a schedule serves here: `T=4`"
            elif other is not None:
                written = f"{other}({x.source.span.text} -> {x.target.span.text})"
                help = f"`{other}` compares the numbers themselves: `{written}`"
            builder.collector.add("B228", _message(name, least, axis, count), side.span, help=help)
            return False
    return True


def _report_one_class(builder: Builder, labels: v.Column) -> None:
    """B228 where data has one class, from which the model has its own: the data is at fault, and W404 says no more."""
    data = builder.recipe.data[labels.data]
    column = data.source.label_type.column
    message = f"the labels of `{data.name}` have one class: a loss on them would never change"
    help = (
        f"add rows with other labels, name another column: `{column}=…`, or all classes that are meant: `classes=[…]`"
    )
    if any(data.span.start <= fault.span.start < data.span.end for fault in builder.collector.errors):
        return  # what is not known of its labels
    builder.collector.withdraw("W404", data.place(column))
    builder.collector.add("B228", message, labels.span, help=help)


def check_transform(builder: Builder, x: v.Transform, shapes: tuple[Shape | None, ...]) -> None:
    """B228 where a transform gets fewer classes or a smaller width than it needs."""
    few = too_few(x.values[0].kind, shapes[0], x.declared.least)
    if few is not None:
        help = f"leave `{x.declared.name}` out: `{x.values[0].span.text}`"
        builder.collector.add("B228", _message(x.declared.name, x.declared.least, *few), x.span, help=help)


def too_few(kind: str, shape: Shape | None, least: Mapping[str, int]) -> tuple[str, int] | None:
    """The axis, and its size, of a value with fewer entries than are needed; None where there are enough."""
    axis = LAST_AXIS.get(kind, "")
    size = shape[-1] if shape else None
    return (axis, size) if isinstance(size, int) and size < least.get(axis, 1) else None


def _needs(x: v.Apply) -> list[tuple[str, Mapping[str, int]]]:
    own = [option for _, option in x.options if isinstance(option, v.Temperature)]
    return [(x.declared.name, x.declared.least), *((t.name, TEMPERATURES[t.name].least) for t in own)]


def _message(name: str, least: Mapping[str, int], axis: str, count: int) -> str:
    wanted = f"at least {least[axis]} classes" if axis == "classes" else f"a {axis} of at least {least[axis]}"
    return f"`{name}` needs {wanted}, and this has {count}: its result would never change"
