"""A loss between two values: which unit it is a mean over, which mask chooses, and what both sides must share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brewgraph.diagnostics import Label, SourceFault
from brewgraph.graph import nodes as n
from brewgraph.graph.entries import LAST_AXIS, check_loss
from brewgraph.graph.extent import check_extent
from brewgraph.graph.tokens import check_tokens
from brewgraph.graph.vocabularies import common_size
from brewgraph.recipe import values as v
from brewgraph.recipe.features import ModelFacts, Shape

if TYPE_CHECKING:
    from brewgraph.graph.build import Builder

MASKS = {"token": ("tokens", "labels"), "pair": ("pairs",), "label": ("labels",), "word": ("words",)}
"""The masks that can choose among the units of a loss; `none` always can."""
DEFAULT_MASKS = {"token": "tokens", "pair": "pairs", "label": "labels", "word": "words"}


@dataclass(frozen=True)
class Units:
    """What one number of an unreduced value stands for: its unit, the mask that chose among them, whose they are."""

    unit: str
    mask: str | None
    data: str


def build_loss(builder: Builder, x: v.Apply) -> str:
    """The key of a loss's node."""
    operation = x.declared
    near = next((t for side in (x.target, x.source) for t in v.walk(side) if isinstance(t, v.Take)), None)
    sized = [p.projector.out for p in (x.source, x.target) if isinstance(p, v.Project)]
    if sized == [None, None]:
        help = "give one of them its sizes: `linear(312 -> 768)`"
        builder.collector.add("B215", "both sides are projected, and to no width", x.span, help=help)
        return builder.add(n.Number((), 0.0, shape=(), span=x.span))
    entries = common_size(builder, x) if "classes" in operation.same else None
    with builder.masked_by(x.mask), builder.cut_to(entries):
        if (
            isinstance(x.source, v.Project) and sized[0] is None
        ):  # the side without a projection fixes the sizes of the other
            target = builder.build(x.target, near=near)
            source = builder.build(x.source, builder.shape(target), near)
        else:
            source = builder.build(x.source, near=near)
            target = builder.build(x.target, builder.shape(source), near)
    shapes = builder.shape(source), builder.shape(target)
    kinds = _kind_of(builder, x.source, source), _kind_of(builder, x.target, target)
    for side, key in ((x.source, source), (x.target, target)):
        _check_axes(builder, side, key)
    unit = operation.unit(kinds[0], kinds[1])
    unknown = ["tensor" in kind for kind in kinds]
    if unit is None and not any(unknown):
        message = f"`{operation.name}` does not compare {kinds[0]} with {kinds[1]}"
        takes = ", ".join(f"{a} -> {b}" for a, b in operation.takes)
        builder.collector.add("B210", message, x.span, help=f"it takes {takes}")
    unit = _unit(unit, shapes)
    if entries != 0:  # 0: their tokens have nothing in common, which is said already
        check_extent(builder, x, kinds, shapes)
        if check_loss(builder, x, kinds, shapes):
            _check_sides(builder, x, operation.same, kinds, shapes)
        check_tokens(builder, x, unit, shapes)
    _check_mask(builder, x, unit)
    _check_direction(builder, x)
    data = near.data if near is not None else next(iter(builder.recipe.data))
    inputs = [source, target]
    mask = _mask(builder, x, unit, near, source, operation.needs_layout)
    if mask is not None:
        inputs.append(mask)
    options = tuple((name, value) for name, value in x.options if not isinstance(value, str))
    words = tuple((name, value) for name, value in x.options if isinstance(value, str))
    inputs += [builder.build(value) for _, value in options]
    shape: Shape | None = ()
    if not x.reduced:
        per = {"token": "length", "word": "words", "pair": "length"}.get(unit)
        labelled = shapes[0] if isinstance(x.source, v.Column) else None
        shape = labelled or (("batch", per) if per else ("batch",))
    names = tuple(name for name, _ in options)
    node = n.Loss(
        tuple(inputs),
        x.operation,
        unit,
        mask is not None,
        names,
        words,
        x.reduced,
        data,
        kinds,
        operation.least.get("batch", 1),
        shape=shape,
        span=x.span,
        written=x.written,
    )
    key = builder.add(node)
    if not x.reduced:
        if unit in ("pair", "batch"):
            message = f"`{x.operation}` gives one number per {unit} here, which has no use by itself"
            builder.collector.add("B219", message, x.span, help='leave `reduce="none"` out')
        builder.units[key] = Units(unit, mask, data)
    return key


def _unit(unit: str | None, shapes: tuple[Shape | None, Shape | None]) -> str:
    """The unit, now that shapes are known: logits may be per example, per token or per word."""
    shape = shapes[1]
    if unit == "position" and shape is not None:
        return "token" if "length" in shape else "word" if "words" in shape else "example"
    if unit == "token" and shape is not None and "words" in shape:
        return "word"
    return unit or "token"


def _kind_of(builder: Builder, side: v.Value, key: str) -> str:
    """A side's kind; what a tap gives is known by its shape, in a tuple member by member."""
    if isinstance(side, v.Bundle):
        kinds = [
            _kind(item.kind, builder.shape(k)) for item, k in zip(side.items, builder.nodes[key].inputs, strict=True)
        ]
        return f"{kinds[0]}..." if side.kind.endswith("...") else f"({', '.join(kinds)})"
    return _kind(side.kind, builder.shape(key))


def _kind(kind: str, shape: Shape | None) -> str:
    """A tap's kind follows from its shape."""
    if kind != "tensor" or shape is None:
        return kind
    symbols = tuple("length" if s == "words" else s if isinstance(s, str) else "n" for s in shape)
    return {
        ("batch", "length", "n"): "hidden",
        ("batch", "n"): "vector",
        ("batch", "n", "length", "length"): "attention",
        ("batch", "n", "length", "n"): "states",
        ("batch", "length"): "positions",
    }.get(symbols, "tensor")


def _check_axes(builder: Builder, side: v.Value, key: str) -> None:
    """What a tap gives lies along examples, and along their tokens or heads, or no loss can count it."""
    if isinstance(side, v.Bundle):
        for item, inner in zip(side.items, builder.nodes[key].inputs, strict=True):
            _check_axes(builder, item, inner)
        return
    shape = builder.shape(key)
    if shape is None or _kind(side.kind, shape) != "tensor" or shape[:2] in (("batch", "length"), ("batch", "words")):
        return
    take = next((t for t in v.walk(side) if isinstance(t, v.Take)), None)
    reason = "its second axis is neither tokens nor heads"
    help = "tap another module: `brewgraph taps` lists what every one of them gives"
    if "decoder_length" in shape:
        reason = "it lies along the tokens of a decoder, of which no mask knows"
        help = "tap the encoder instead; `brewgraph taps` lists what its modules give"
    elif shape[:1] != ("batch",):
        reason = "its first axis is not the batch"
        known = builder.facts(builder.recipe.models[take.model]) if take is not None else None
        if known is not None and take is not None and _has_hidden(known):
            help = f"the named features have it first: `{take.model}.hidden[1]`"
    shown = f"({', '.join(map(str, shape))})"
    builder.collector.add("B221", f"no loss compares what has the shape {shown}: {reason}", side.span, help=help)


def _has_hidden(known: ModelFacts) -> bool:
    try:
        return known.rows("hidden") > 0
    except SourceFault:
        return False


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _mask(builder: Builder, x: v.Apply, unit: str, near: v.Take | None, source: str, maths: bool) -> str | None:
    """Masks come from the side that is trained: the encoding of the model on the right, or else on the left.

    Where one number stands for an example or a batch, maths that asks for the layout gets the mask of the tokens.
    """
    which = x.mask or DEFAULT_MASKS.get(unit) or ("tokens" if maths else None)
    unknown = unit == "position"  # of logits whose shape nobody knows: then there is one value per example
    if which is None or unknown or (unit == "batch" and not maths):
        return None
    if isinstance(which, v.Column):
        column = builder.build(which, near=near)
        entries = [builder.entry(near)] if near is not None and unit != "example" else []
        return builder.mask("column", [*entries, column], x.span)
    if which == "labels" or (which == "none" and unit == "label"):
        base = source if isinstance(x.source, v.Column) else None
        if base is None and near is not None:
            labels = v.Column("labels", near.data, "labels", span=x.span)
            base = builder.build(labels, near=near)
        inner = x.source.values[0] if isinstance(x.source, v.Transform) and x.source.values else None
        if isinstance(inner, v.Column):
            base = source
        return builder.mask("labels", [base], x.span) if base is not None else None
    if near is None:
        return None
    if unit == "word" or "words" in (builder.shape(source) or ()):
        takes = {t.model: t for side in (x.source, x.target) for t in v.walk(side) if isinstance(t, v.Take)}
        return builder.word_mask(which, takes.values(), x.span)
    return builder.mask(which, [builder.entry(near)], x.span)


def _check_mask(builder: Builder, x: v.Apply, unit: str) -> None:
    fits = MASKS.get(unit, ())
    takes = [t.data for side in (x.target, x.source) for t in v.walk(side) if isinstance(t, v.Take)]
    if isinstance(x.mask, v.Column) and takes and x.mask.data not in takes:
        message = f"the mask is a column of `{x.mask.data}`, and this is computed on `{takes[0]}`"
        builder.collector.add("B220", message, x.mask.span, help=f"name a column of it: `mask={takes[0]}.…`")
    if x.mask == "labels" and unit == "token" and takes:
        label_type = builder.recipe.data[takes[0]].source.label_type
        if label_type not in ("tags", "next", "masked"):
            message = f"the labels of `{takes[0]}` do not lie along the tokens, and cannot choose among them"
            builder.collector.add("B217", message, x.span, help="write `mask=tokens`, or leave it out")
    if x.mask == "none" and unit == "label" and x.target.kind != "positions":
        message = "a label of -100 has no loss, which `mask=none` would count as one of zero"
        builder.collector.add("B217", message, x.span, help="leave `mask` out: every other label counts")
        return
    if x.mask is None or isinstance(x.mask, v.Column) or x.mask == "none" or x.mask in fits:
        return
    message = f"`{x.operation}` gives one value per {unit} here, which `mask={x.mask}` cannot choose from"
    words = f"write `mask={fits[0]}`, or leave it out" if fits else "leave `mask` out: every example counts"
    builder.collector.add("B217", message, x.span, help=words)


# ── what both sides must share ───────────────────────────────────────────────────────────────────────────────────────


def _check_direction(builder: Builder, x: v.Apply) -> None:
    """An arrow leads to what is trained; one that leads from it is legal (a divergence turned round), and rare.

    Where both sides learn, each pulls the other: legal too, and worth a word.
    """
    roles = [_roles(builder, side, stopped=True) for side in (x.source, x.target)]
    if roles[1] == {"teacher"} and "student" in roles[0]:
        message = "this arrow leads from the student to the teacher"
        help = f"turn it round: `{x.target.span.text} -> {x.source.span.text}`"
        builder.collector.add("W202", message, x.source.span.to(x.target.span), help=help)
    learning = [_roles(builder, side, stopped=False) for side in (x.source, x.target)]
    if all("student" in side for side in learning):
        message = "both sides of this match learn, and each is drawn to the other"
        help = f"if that is not meant, stop one: `stop({x.source.span.text}) -> {x.target.span.text}`"
        builder.collector.add("W204", message, x.source.span.to(x.target.span), help=help)


def _roles(builder: Builder, x: v.Value, *, stopped: bool) -> set[str]:
    """The roles of the models that a value comes from, those behind a `stop` only where asked for."""
    if isinstance(x, v.Take):
        return {builder.recipe.models[x.model].role}
    if isinstance(x, v.Transform) and x.declared.stops and not stopped:
        return set()
    return {role for part in v.parts(x) for role in _roles(builder, part, stopped=stopped)}


def _check_sides(
    builder: Builder, x: v.Apply, same: frozenset[str], kinds: tuple[str, str], shapes: tuple[Any, Any]
) -> None:
    one, other = shapes
    if one is None or other is None or kinds[0] != kinds[1]:
        return
    axis, at = ("heads", 1) if kinds[0] in ("attention", "scores", "states") else (LAST_AXIS.get(kinds[0], "width"), -1)
    if axis in same and len(one) == len(other) and one[at] != other[at]:
        labels = (Label(x.source.span, str(one[at])),)
        help = {
            "width": f"add a projection: `{x.target.span.text} via linear`",
            "classes": "both models need the same classes: `labels=[…]` on the student, or another teacher",
            "heads": "give the student as many heads: `num_attention_heads=…`",
        }[axis]
        if axis == "classes" and one[at] == 1:
            help = 'a student whose labels are numbers has one output; without such labels name one: labels=["score"]'
        if isinstance(x.target, v.Project):
            help = f"let the projection end in {one[at]}: `linear(… -> {one[at]})`, or leave its sizes out"
        if axis == "classes" and 1 in (one[at], other[at]):
            axis = "outputs"
        message = (
            "widths differ and nothing projects between them" if axis == "width" else f"the numbers of {axis} differ"
        )
        builder.collector.add("B204", message, x.target.span, note=str(other[at]), labels=labels, help=help)
