"""Recipe to graphs: a node for every value, its shape where models tell it; `compatibility` judges what meets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from brewgraph.diagnostics import Collector, Label, SourceFault
from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.compatibility import (
    BuiltLoss,
    Context,
    LossSide,
    check_joined,
    check_match,
    check_transform,
    common_size,
    kind_of,
)
from brewgraph.graph.container import Graph, GraphInfo, assemble
from brewgraph.graph.seeds import projection_seeds
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.features import Shape
from brewgraph.recipe.recipe import Recipe, Task
from brewgraph.recipe.settings.sources import Hf, Python
from brewgraph.source import Span

OUTSIDE: Shape = ()
"""The shape wanted where no arrow stands: none. Behind an arrow it is None while the other side's is not known."""


def build_graph(
    recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str], task: Task | None = None
) -> Graph | None:
    """The graph of a task's loss (of the first task where none is named), before any pass; None where it is at fault.

    `identities` gives for each model and data set what its content is (never its name), for the hashes.
    """
    task = task or recipe.stages[0].tasks[0]
    builder = Builder(recipe, facts, collector, identities)
    terms: dict[str, str] = {}
    for name, value in recipe.equations.items():
        for i, member in enumerate(v.members(value)):
            key = builder.build(member)
            if member.kind == "loss" and name.rpartition("/")[2] != "loss":
                terms[f"{name}[{i}]" if isinstance(value, v.Group) else name] = key
    objective = builder.build(task.loss)
    return None if collector.failed else assemble(builder.nodes, GraphInfo(objective, terms, builder.caches))


def build_reports(
    recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str], task: Task
) -> Graph | None:
    """The graph of what a task reports beside its loss; None where there is nothing."""
    if not task.reports:
        return None
    builder = Builder(recipe, facts, collector, identities)
    terms = {name: builder.build(value) for name, value in task.reports.items()}
    everything = builder.add(n.Combine(tuple(terms.values()), "+", shape=(), span=task.span))
    return None if collector.failed else assemble(builder.nodes, GraphInfo(everything, terms, builder.caches))


@dataclass(frozen=True)
class Units:
    """What one number of an unreduced value stands for: its unit, the mask that chose among them, whose they are."""

    unit: str
    mask: str | None
    data: str


class Builder:
    """Makes nodes of values, each value once. `nodes` are what it made."""

    def __init__(self, recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str]):
        self.context = Context(recipe, facts, collector)
        self.recipe, self.collector, self.identities = recipe, collector, identities
        self.nodes: dict[str, n.Node] = {}
        self.units: dict[str, Units] = {}
        self.built: dict[tuple[int, str, bool, int | None], str] = {}
        self.padding = False
        self.entries: int | None = None
        self.held: list[v.Value] = []
        self.seeds = projection_seeds(recipe, identities)
        self.sizes: dict[str, tuple[int | None, int | None, Span]] = {}
        self.caches: dict[str, tuple[str, str]] = {}
        """What is kept on disk, by the keys of values: the name of its `cache`, and the folder."""

    def add(self, node: n.Node) -> str:
        key = f"{len(self.nodes)}"
        self.nodes[key] = node
        return key

    def shape(self, key: str) -> Shape | None:
        return self.nodes[key].shape

    def build(self, value: v.Value, wanted: Shape | None = OUTSIDE, near: v.Take | None = None) -> str:
        """The key of a value's node. `wanted` is the shape on the arrow's other side, for projections without sizes;
        `near` is the feature that labels are compared with, to whose tokens they are aligned.
        """
        # by object, not by equality: merging equal nodes is a pass of its own
        aligned = near is not None and any(isinstance(part, v.Column) for part in v.walk(value))
        place = (id(value), near.model if aligned and near is not None else "", self.padding, self.entries)
        if place not in self.built:
            self.held.append(value)
            self.built[place] = self._build(value, wanted, near)
        return self.built[place]

    def _build(self, x: v.Value, wanted: Shape | None, near: v.Take | None) -> str:
        match x:
            case v.Take():
                return self._take(x)
            case v.Cached():
                return self._cached(x, wanted, near)
            case v.Column():
                return self._column(x, near)
            case v.Number():
                return self.add(n.Number((), x.value, shape=(), span=x.span))
            case v.Scheduled():
                return self.add(n.Schedule((), x.name, x.arguments, shape=(), span=x.span))
            case v.Temperature():
                return self.add(n.Temperature((), x.name, x.base, x.options, shape=None, span=x.span))
            case v.Project():
                return self._project(x, wanted)
            case v.Bundle():
                inputs = tuple(self.build(item, wanted, near) for item in x.items)
                return self.add(n.Bundle(inputs, shape=self.shape(inputs[0]), span=x.span))
            case v.Combine():
                return self._combine(x, wanted, near)
            case v.Transform():
                return self._transform(x, near)
            case v.Apply():
                return self._loss(x)
        raise AssertionError(type(x).__name__)

    @contextmanager
    def masked_by(self, which: object) -> Iterator[None]:
        """What is built inside goes into a loss or a value under this mask: with `none` padding is left as it is."""
        before, self.padding = self.padding, which == "none"
        try:
            yield
        finally:
            self.padding = before

    @contextmanager
    def cut_to(self, entries: int | None) -> Iterator[None]:
        """Of logits over a vocabulary that are built inside only so many entries are kept; None: all."""
        before, self.entries = self.entries, entries
        try:
            yield
        finally:
            self.entries = before

    # ── features and columns ─────────────────────────────────────────────────────────────────────────────────────────

    def entry(self, take: v.Take) -> str:
        """The input of a feature's forward."""
        identity = digest(self.identities[take.data], self.identities[take.model])
        return self.add(n.Input((), take.data, take.model, identity, shape=("batch", "length"), span=take.span))

    def _take(self, x: v.Take) -> str:
        model = self.recipe.models[x.model]
        columns = tuple(sorted(model.source.inputs.items())) if isinstance(model.source, Hf) else ()
        forward = n.Forward(
            (self.entry(x),), x.model, model.role, self.identities[x.model], x.passing, columns, shape=None, span=x.span
        )
        padding = self.padding and x.feature.name in ("start", "end")
        shape = self._shape_of(x)
        tap = self.add(n.Tap((self.add(forward),), x.model, x.feature, padding, shape=shape, span=x.span))
        size = _last(shape)
        if not self.entries or x.feature.name != "logits" or shape is None or size is None or size <= self.entries:
            return tap
        words = (("to", str(self.entries)),)
        return self.add(n.Transform((tap,), "cut", False, (), words, shape=(*shape[:-1], self.entries), span=x.span))

    def _shape_of(self, x: v.Take) -> Shape | None:
        model = self.recipe.models[x.model]
        known = self.context.known(x.model)
        try:
            return known.shape(x.feature) if known else None
        except SourceFault as fault:
            # a model that cannot be built at all is at fault where it is declared, not where it is used
            place = model.span if fault.code == "B306" else x.span
            help = fault.help or "correct the configuration" if fault.code == "B306" else fault.help
            self.collector.add(
                fault.code, fault.message, place, help=help or "take another feature, or tap another module"
            )
            return None

    def _column(self, x: v.Column, near: v.Take | None) -> str:
        label_type = self.recipe.data[x.data].source.label_type
        is_label = x.column in label_type.fields
        inputs: tuple[str, ...] = ()
        identity = self.identities[x.data]
        if is_label and label_type.aligned and near is not None:
            inputs = (self.entry(near),)
        shape: Shape = ("batch",)
        if is_label and label_type.per_token:
            shape = ("batch", "length")
        key = self.add(n.Column(inputs, x.data, x.column, identity, shape=shape, span=x.span))
        self.units[key] = Units("example", None, x.data)
        return key

    def _cached(self, x: v.Cached, wanted: Shape | None, near: v.Take | None) -> str:
        """The node of what is kept; where each example's part of it lies on disk is known by `caches`."""
        if self.padding and "length" in (self.shape(self.build(x.value, wanted, near)) or ()):
            help = "leave `mask=none` out, or compare the value itself: `bert.hidden[4]`"
            self.collector.add("B241", "a cache keeps no padding, and `mask=none` lets it count", x.span, help=help)
        with self.masked_by(None):
            key = self.build(x.value, wanted, near)
        shape = self.shape(key)
        if shape is None and all(isinstance(self.recipe.models[t.model].source, Python) for t in self._unknown(x)):
            message = "the shape of this is not known, so its padding could not be told from it"
            help = "leave the `cache` out; a teacher that brewgraph can build from a configuration may have one"
            self.collector.add("B243", message, x.value.span, help=help)
        elif shape is not None and (shape[0] != "batch" or shape.count("batch") > 1):
            help = "keep what it is computed from: a value for each example"
            self.collector.add("B241", f"this has no axis of examples: {_show(shape)}", x.value.span, help=help)
        elif isinstance(self.nodes[key], n.Transform) and {t.feature.name for t in v.takes_in(x)} & {"start", "end"}:
            help = "keep `big.start` itself, and compute from it"
            message = "what is made of scores over positions ends at the longest example of a batch"
            self.collector.add("B241", message, x.value.span, help=help)
        self.caches.setdefault(key, (x.name, x.path))
        return key

    def _unknown(self, x: v.Value) -> list[v.Take]:
        """The features of models that nothing is known of: those of Python code, and those at fault, which is said."""
        return [t for t in v.takes_in(x) if self.context.known(t.model) is None]

    # ── arithmetic, transforms ───────────────────────────────────────────────────────────────────────────────────────

    def _combine(self, x: v.Combine, wanted: Shape | None, near: v.Take | None) -> str:
        entries = common_size(self.context, x) if x.kind == "logits" and self.entries is None else None
        if entries is not None:
            with self.cut_to(entries):
                return self._combine(x, wanted, near)
        inputs = tuple(self.build(operand, wanted, near) for operand in x.operands)
        values = [key for key, o in zip(inputs, x.operands, strict=True) if o.kind == "values"]
        features = [key for key in inputs if self.shape(key) and key not in values]
        shapes = [s for key in (features or values) if (s := self.shape(key))]
        shape = shapes[0] if shapes else () if x.kind in ("loss", "schedule", "number") else None
        units = self._joined_units(values, x) if x.kind == "values" else None
        joined = x.kind != "values" or units is not None
        if joined and not all(self._same_shape(shapes[0], other, x) for other in shapes[1:]):
            shape = None
        if x.kind != "values" and self.entries != 0 and any("length" in s for s in shapes):
            check_joined(self.context, x)
        key = self.add(n.Combine(inputs, x.operator, x.position, shape=shape, span=x.span))
        if units is not None:
            self.units[key] = units
        return key

    def _joined_units(self, keys: list[str], x: v.Combine) -> Units | None:
        """The unit of unreduced values together; None, with a diagnostic, where they stand for different things."""
        found = [self.units[key] for key in keys if key in self.units]
        units = {"example" if u.unit == "label" and u.mask is None else u.unit for u in found}
        if len(units - {"label"}) > 1 or (len(units) > 1 and "token" in units):
            message = f"{' and '.join(f'per-{unit}' for unit in sorted(units))} values cannot be combined"
            self.collector.add("B219", message, x.span, help="`token_mean(…)` gives one number per example")
            return None
        data = [u.data for u in found if u.data]
        if len(set(data)) > 1:
            message = f"values of `{data[0]}` and of `{next(d for d in data if d != data[0])}` cannot be combined"
            self.collector.add("B220", message, x.span, help="take both from the same data: `model(data).…`")
            return None
        masked = [u for u in found if u.mask is not None]
        return masked[0] if masked else found[0] if found else Units("example", None, "")

    def _same_shape(self, one: Shape, other: Shape, x: v.Combine) -> bool:
        if one != other:
            message = f"shapes differ: {_show(one)} and {_show(other)}"
            self.collector.add("B204", message, x.span, help="only values of one shape can be joined")
        return one == other

    def _transform(self, x: v.Transform, near: v.Take | None) -> str:
        with self.masked_by("none" if self.padding else x.mask):
            inner = tuple(self.build(value, OUTSIDE, near) for value in x.values)
        shapes = tuple(self.shape(key) for key in inner)
        take = next(iter(v.takes_in(*x.values)), near)
        if x.declared.mean == "batch":
            units = self.units.get(inner[0], Units("example", None, ""))
            inputs: tuple[str, ...] = (inner[0], units.mask) if units.mask is not None else (inner[0],)
            return self.add(n.Mean(inputs, units.unit, units.mask is not None, units.data, shape=(), span=x.span))
        if x.declared.stops:
            return self._kept(inner[0], n.Transform(inner, x.name, False, (), shape=shapes[0], span=x.span))
        if x.declared.on_words:
            inputs = (*inner, self.entry(take)) if take is not None else inner
            shape = tuple("words" if s == "length" else s for s in shapes[0]) if shapes[0] is not None else None
            return self.add(n.Transform(inputs, x.name, False, (), shape=shape, span=x.span))
        if x.declared.mean == "tokens":
            return self._token_mean(x, inner[0], take)
        check_transform(self.context, x, shapes[0])
        declared = x.declared
        masked = declared.needs_layout and take is not None and x.mask != "none"
        inputs = (*inner, self._mask_of(inner[0], take, x.span)) if masked and take is not None else inner
        options = tuple((name, value) for name, value in x.options if not isinstance(value, str))
        words = tuple((name, value) for name, value in x.options if isinstance(value, str))
        known = {name: value.value for name, value in options if isinstance(value, v.Number)}
        shape = None
        if declared.shape is not None and all(s is not None for s in shapes):
            try:
                shape = declared.shape(tuple(s for s in shapes if s is not None), **known, **dict(words))
            except SourceFault as fault:
                self.collector.add(fault.code, fault.message, x.span, help=fault.help or "correct its options")
        inputs = (*inputs, *(self.build(value) for _, value in options))
        names = tuple(name for name, _ in options)
        node = n.Transform(inputs, x.name, masked, names, words, shape=shape, span=x.span, written=x.written)
        return self.add(node)

    def _kept(self, inner: str, node: n.Node) -> str:
        """A node whose numbers stand for the same units as those that it is made from."""
        key = self.add(node)
        if inner in self.units:
            self.units[key] = self.units[inner]
        return key

    def _token_mean(self, x: v.Transform, inner: str, take: v.Take | None) -> str:
        shape = self.shape(inner)
        units = self.units.get(inner)
        tagged = units is not None and units.unit == "label" and shape is not None and "length" in shape
        if units is not None and units.unit not in ("token", "word") and not tagged:
            message = f"this is one number per {units.unit} already"
            self.collector.add("B219", message, x.span, help=f"leave `{x.name}` out")
        mask = units.mask if units is not None else None
        if mask is None and take is not None and x.mask != "none":
            mask = self._mask_of(inner, take, x.span)
        inputs = (inner, mask) if mask is not None else (inner,)
        reduced = tuple(s for s in shape if s not in ("length", "words")) if shape is not None else None
        key = self.add(n.Transform(inputs, x.name, mask is not None, (), shape=reduced, span=x.span))
        if units is not None:
            self.units[key] = Units("example", None, units.data)
        return key

    def mask(self, which: str, inputs: list[str], span: Span) -> str:
        """The node that says which units count."""
        return self.add(n.Mask(tuple(inputs), which, shape=None, span=span))

    def word_mask(self, which: str, takes: Iterable[v.Take], span: Span) -> str:
        """The node that says which words count: those that every encoding has kept, or all for `none`."""
        entries = [self.entry(take) for take in takes]
        return self.mask("none" if which == "none" else "words", entries * 2 if len(entries) == 1 else entries, span)

    def _mask_of(self, key: str, take: v.Take, span: Span) -> str:
        """The node that says which tokens, or words, of a value are real."""
        if "words" in (self.shape(key) or ()):
            return self.word_mask("words", [take], span)
        return self.mask("tokens", [self.entry(take)], span)

    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _loss(self, x: v.Apply) -> str:
        operation = x.declared
        near = next(iter(v.takes_in(x.target, x.source)), None)
        sized = [p.projector.out for p in (x.source, x.target) if isinstance(p, v.Project)]
        if sized == [None, None]:
            help = "give one of them its sizes: `linear(312 -> 768)`"
            self.collector.add("B215", "both sides are projected, and to no width", x.span, help=help)
            return self.add(n.Number((), 0.0, shape=(), span=x.span))
        entries = common_size(self.context, x) if "classes" in operation.same else None
        with self.masked_by(x.mask), self.cut_to(entries):
            # the side without a projection fixes the sizes of the other
            if isinstance(x.source, v.Project) and sized[0] is None:
                target = self.build(x.target, near=near)
                source = self.build(x.source, self.shape(target), near)
            else:
                source = self.build(x.source, near=near)
                target = self.build(x.target, self.shape(source), near)
        one, other = self._side(x.source, source), self._side(x.target, target)
        kinds = one.kind, other.kind
        unit = _unit(operation.unit(*kinds), other.shape)
        check_match(self.context, BuiltLoss(x, one, other, unit, comparable=entries != 0))
        data = near.data if near is not None else next(iter(self.recipe.data))
        mask = self._loss_mask(x, unit, near, source)
        options = [(name, value) for name, value in x.options if not isinstance(value, str)]
        inputs = (source, target, *([mask] if mask is not None else ()), *(self.build(value) for _, value in options))
        shape: Shape | None = ()
        if not x.reduced:
            per = {"token": "length", "word": "words", "pair": "length"}.get(unit)
            labelled = one.shape if isinstance(x.source, v.Column) else None
            shape = labelled or (("batch", per) if per else ("batch",))
        node = n.Loss(
            inputs,
            x.operation,
            unit,
            mask is not None,
            tuple(name for name, _ in options),
            tuple((name, value) for name, value in x.options if isinstance(value, str)),
            x.reduced,
            data,
            kinds,
            operation.least.get("batch", 1),
            shape=shape,
            span=x.span,
            written=x.written,
        )
        key = self.add(node)
        if not x.reduced:
            if unit in ("pair", "batch"):
                message = f"`{x.operation}` gives one number per {unit} here, which has no use by itself"
                self.collector.add("B219", message, x.span, help='leave `reduce="none"` out')
            self.units[key] = Units(unit, mask, data)
        return key

    def _side(self, side: v.Value, key: str) -> LossSide:
        """A side of a loss, now that it is built; what a tap gives is known by its shape."""
        shape = self.shape(key)
        if not isinstance(side, v.Bundle):
            return LossSide(side, kind_of(side.kind, shape), shape)
        members = tuple(self._side(*x) for x in zip(side.items, self.nodes[key].inputs, strict=True))
        kinds = [member.kind for member in members]
        kind = f"{kinds[0]}..." if side.kind.endswith("...") else f"({', '.join(kinds)})"
        return LossSide(side, kind, shape, members)

    def _loss_mask(self, x: v.Apply, unit: str, near: v.Take | None, source: str) -> str | None:
        """Masks come from the side that is trained: the encoding of the model on the right, or else on the left.

        Where one number stands for an example or a batch, maths that asks for the layout gets the mask of the tokens.
        """
        maths = x.declared.needs_layout
        which = x.mask or n.DEFAULT_MASKS.get(unit) or ("tokens" if maths else None)
        unknown = unit == "position"  # of logits whose shape nobody knows: then there is one value per example
        if which is None or unknown or (unit == "batch" and not maths):
            return None
        if isinstance(which, v.Column):
            column = self.build(which, near=near)
            entries = [self.entry(near)] if near is not None and unit != "example" else []
            return self.mask("column", [*entries, column], x.span)
        if which == "labels" or (which == "none" and unit == "label"):
            base = source if isinstance(x.source, v.Column) else None
            if base is None and near is not None:
                labels = v.Column("labels", near.data, "labels", span=x.span)
                base = self.build(labels, near=near)
            inner = x.source.values[0] if isinstance(x.source, v.Transform) and x.source.values else None
            if isinstance(inner, v.Column):
                base = source
            return self.mask("labels", [base], x.span) if base is not None else None
        if near is None:
            return None
        if unit == "word" or "words" in (self.shape(source) or ()):
            takes = {t.model: t for t in v.takes_in(x.source, x.target)}
            return self.word_mask(which, takes.values(), x.span)
        return self.mask(which, [self.entry(near)], x.span)

    # ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _project(self, x: v.Project, wanted: Shape | None) -> str:
        inner = self.build(x.value)
        shape = self.shape(inner)
        own, target = _last(shape), _last(wanted)
        p = x.projector
        into, out = p.into or own, p.out or target
        if p.into and own and p.into != own:
            message = f"the projection takes width {p.into}, and this has {own}"
            labels = (Label(p.span, "the projection"),)
            help = f"write `{own} -> …`, or leave the sizes out"
            self.collector.add("B204", message, x.span, labels=labels, help=help)
        if wanted == OUTSIDE and p.out is None:
            help = f"write `linear({own or '…'} -> …)`"
            self.collector.add("B215", "outside an arrow a projection needs its sizes", x.span, help=help)
        if p.name is not None:
            before = self.sizes.setdefault(p.name, (into, out, x.span))
            if any(a and b and a != b for a, b in zip((into, out), before[:2], strict=True)):
                message = (
                    f"`{p.name}` is one module, and is asked for {before[0]} -> {before[1]} and for {into} -> {out}"
                )
                labels = (Label(before[2], "first here"),)
                self.collector.add("B204", message, x.span, labels=labels, help="name two projections")
        projected = (*shape[:-1], out) if shape and out else None
        node = n.Projection(
            (inner,), p.site, p.activation, into, out, p.options, self.seeds[p.site], shape=projected, span=x.span
        )
        return self.add(node)


def _last(shape: Shape | None) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _show(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _unit(unit: str | None, shape: Shape | None) -> str:
    """The unit, now that the shape of the target is known: logits may be per example, per token or per word."""
    if unit == "position" and shape is not None:
        return "token" if "length" in shape else "word" if "words" in shape else "example"
    if unit == "token" and shape is not None and "words" in shape:
        return "word"
    return unit or "token"
