"""Recipe to graphs: a node for every value, with its shape where models tell it. `compatibility` judges pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from brewgraph.diagnostics import Collector, SourceFault
from brewgraph.digest import digest
from brewgraph.graph import compatibility as c
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, GraphInfo, Kept, assemble
from brewgraph.graph.identity import projection_seeds
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.features import Shape
from brewgraph.recipe.recipe import Recipe, Task
from brewgraph.source import Span

OUTSIDE: Shape = ()
"""The shape wanted outside of an arrow: none. Inside one it is None while the other side's is not known."""


def build_graph(
    recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str], task: Task | None = None
) -> Graph | None:
    """The graph of a task's loss (by default of the first task), before any pass; None where it has a fault.

    `identities` give the content of each model and data set, never its name, for the hashes.
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
    """The graph of what a task reports beside its loss; None where it reports nothing."""
    if not task.reports:
        return None
    builder = Builder(recipe, facts, collector, identities)
    terms = {name: builder.build(value) for name, value in task.reports.items()}
    everything = builder.add(n.Combine(tuple(terms.values()), "+", shape=(), span=task.span))
    return None if collector.failed else assemble(builder.nodes, GraphInfo(everything, terms, builder.caches))


class Builder:
    """Makes `nodes` of values, each value once.

    `padding` says whether padding counts in what is being built, `entries` how many of a vocabulary are kept.
    """

    def __init__(self, recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str]):
        self.context = c.Context(recipe, facts, collector)
        self.recipe, self.collector, self.identities = recipe, collector, identities
        self.nodes: dict[str, n.Node] = {}
        self.units: dict[str, c.Units] = {}
        self.built: dict[tuple[int, str, bool, int | None], str] = {}
        self.padding = False
        self.entries: int | None = None
        self.held: list[v.Value] = []  # so that no other value gets the `id` of a built one
        self.seeds = projection_seeds(recipe, identities)
        self.sizes: dict[str, tuple[int | None, int | None, Span]] = {}
        self.caches: dict[str, Kept] = {}
        """Values kept on disk, by their keys."""

    def add(self, node: n.Node, units: c.Units | None = None) -> str:
        """The key of a new node; `units` say what the numbers of an unreduced value stand for."""
        key = f"{len(self.nodes)}"
        self.nodes[key] = node
        if units is not None:
            self.units[key] = units
        return key

    def shape(self, key: str) -> Shape | None:
        return self.nodes[key].shape

    def build(self, value: v.Value, wanted: Shape | None = OUTSIDE, near: v.Take | None = None) -> str:
        """The key of a value's node. `wanted` is the shape on the arrow's other side, for projections without sizes;
        `near` is the feature that labels are compared with, to whose tokens they are aligned.
        """
        # by object, not by equality: merging equal nodes is a pass of its own
        model = near.model if near is not None and any(isinstance(part, v.Column) for part in v.walk(value)) else ""
        place = (id(value), model, self.padding, self.entries)
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
    def inside(self, padding: bool, entries: int | None) -> Iterator[None]:
        """Build the inside of a loss or a value: whether padding counts, and how many entries of a vocabulary are kept
        (None: all).
        """
        before = self.padding, self.entries
        self.padding, self.entries = padding, entries
        try:
            yield
        finally:
            self.padding, self.entries = before

    # ── features and columns ─────────────────────────────────────────────────────────────────────────────────────────

    def entry(self, take: v.Take) -> str:
        """The input of a feature's forward."""
        identity = digest(self.identities[take.data], self.identities[take.model])
        return self.add(n.Input((), take.data, take.model, identity, shape=("batch", "length"), span=take.span))

    def _take(self, x: v.Take) -> str:
        model = self.recipe.models[x.model]
        columns = tuple(sorted(model.source.forward_columns.items()))
        forward = n.Forward(
            (self.entry(x),), x.model, model.role, self.identities[x.model], x.passing, columns, shape=None, span=x.span
        )
        padding = self.padding and x.feature.name in ("start", "end")
        shape = self._shape_of(x)
        tap = self.add(n.Tap((self.add(forward),), x.model, x.feature, padding, shape=shape, span=x.span))
        size = _last(shape)
        if not self.entries or x.feature.name != "logits" or shape is None or size is None or size <= self.entries:
            return tap
        cut = (*shape[:-1], self.entries)
        return self.add(n.Transform((tap,), "cut", words=(("to", str(self.entries)),), shape=cut, span=x.span))

    def _shape_of(self, x: v.Take) -> Shape | None:
        model, known = self.recipe.models[x.model], self.context.known(x.model)
        try:
            return known.shape(x.feature) if known else None
        except SourceFault as fault:
            # a model that cannot be built is at fault where it is declared, not where it is used
            remedy, place = "take another feature, or tap another module", x.span
            if fault.code == "B306":
                remedy, place = "correct the configuration", model.span
            self.collector.add(fault.code, fault.message, place, help=fault.help or remedy)
            return None

    def _column(self, x: v.Column, near: v.Take | None) -> str:
        label_type = self.recipe.data[x.data].source.label_type
        is_label = x.column in label_type.fields
        inputs = (self.entry(near),) if is_label and label_type.aligned and near is not None else ()
        shape: Shape = ("batch", "length") if is_label and label_type.per_token else ("batch",)
        column = n.Column(inputs, x.data, x.column, self.identities[x.data], shape=shape, span=x.span)
        return self.add(column, c.Units("example", None, x.data))

    def _cached(self, x: v.Cached, wanted: Shape | None, near: v.Take | None) -> str:
        """The node of a value kept on disk; `caches` knows where."""
        with self.inside(False, self.entries):
            key = self.build(x.value, wanted, near)
        made = isinstance(self.nodes[key], n.Transform)
        c.check_cached(self.context, x, self.shape(key), padding=self.padding, made=made)
        self.caches.setdefault(key, Kept(x.name, x.path, x.dtype, x.limit))
        return key

    # ── arithmetic, transforms ───────────────────────────────────────────────────────────────────────────────────────

    def _combine(self, x: v.Combine, wanted: Shape | None, near: v.Take | None) -> str:
        entries = c.common_size(self.context, x) if x.kind == "logits" and self.entries is None else None
        if entries is not None:
            with self.inside(self.padding, entries):
                return self._combine(x, wanted, near)
        inputs = tuple(self.build(operand, wanted, near) for operand in x.operands)
        values = [key for key, o in zip(inputs, x.operands, strict=True) if o.kind == "values"]
        features = [key for key in inputs if self.shape(key) and key not in values]
        shapes = [s for key in (features or values) if (s := self.shape(key))]
        shape = shapes[0] if shapes else () if x.kind in ("loss", "schedule", "number") else None
        known = [self.units[key] for key in values if key in self.units]
        units = c.joined_units(self.context, x, known) if x.kind == "values" else None
        if (x.kind != "values" or units is not None) and not c.check_joined(
            self.context, x, shapes, comparable=self.entries != 0
        ):
            shape = None
        return self.add(n.Combine(inputs, x.operator, x.position, shape=shape, span=x.span), units)

    def _transform(self, x: v.Transform, near: v.Take | None) -> str:
        with self.inside(self.padding or x.mask == "none", self.entries):
            inner = tuple(self.build(value, OUTSIDE, near) for value in x.values)
        shapes = tuple(self.shape(key) for key in inner)
        take = next(iter(v.takes_in(*x.values)), near)
        if x.declared.mean == "batch":
            units = self.units.get(inner[0], c.Units())
            inputs: tuple[str, ...] = (inner[0], units.mask) if units.mask is not None else (inner[0],)
            return self.add(n.Mean(inputs, units.unit, units.mask is not None, units.data, shape=(), span=x.span))
        if x.declared.stops:
            return self.add(n.Transform(inner, x.name, shape=shapes[0], span=x.span), self.units.get(inner[0]))
        if x.declared.on_words:
            inputs = (*inner, self.entry(take)) if take is not None else inner
            shape = tuple("words" if s == "length" else s for s in shapes[0]) if shapes[0] is not None else None
            return self.add(n.Transform(inputs, x.name, shape=shape, span=x.span))
        if x.declared.mean == "tokens":
            return self._token_mean(x, inner[0], take)
        c.check_transform(self.context, x, shapes[0])
        declared = x.declared
        masked = declared.needs_layout and take is not None and x.mask != "none"
        inputs = (*inner, self._mask_of(inner[0], take, x.span)) if masked and take is not None else inner
        options, words = _split(x.options)
        known = {name: value.value for name, value in options.items() if isinstance(value, v.Number)}
        shape = None
        if declared.shape is not None and None not in shapes:
            try:
                shape = declared.shape(shapes, **known, **words)
            except SourceFault as fault:
                self.collector.add(fault.code, fault.message, x.span, help=fault.help or "correct its options")
        inputs = (*inputs, *(self.build(value) for value in options.values()))
        node = n.Transform(inputs, x.name, masked=masked, mixes=declared.needs_layout, shape=shape, span=x.span)
        return self.add(replace(node, options=tuple(options), words=tuple(words.items()), written=x.written))

    def _token_mean(self, x: v.Transform, inner: str, take: v.Take | None) -> str:
        shape = self.shape(inner)
        units = self.units.get(inner)
        c.check_token_mean(self.context, x, units.unit if units is not None else "token", shape)
        mask = units.mask if units is not None else None
        if mask is None and take is not None and x.mask != "none":
            mask = self._mask_of(inner, take, x.span)
        inputs = (inner, mask) if mask is not None else (inner,)
        reduced = tuple(s for s in shape if s not in ("length", "words")) if shape is not None else None
        node = n.Transform(inputs, x.name, masked=mask is not None, shape=reduced, span=x.span, mixes=True)
        return self.add(node, c.Units("example", None, units.data) if units is not None else None)

    def mask(self, which: str, inputs: list[str], span: Span) -> str:
        """The node that says which units count."""
        return self.add(n.Mask(tuple(inputs), which, shape=None, span=span))

    def word_mask(self, which: str, takes: Iterable[v.Take], span: Span) -> str:
        """The node that says which words count: those that every encoding kept, or all for `none`."""
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
        if not c.has_width(self.context, x):
            return self.add(n.Number((), 0.0, shape=(), span=x.span))
        entries = c.common_size(self.context, x) if "classes" in operation.same else None
        with self.inside(x.mask == "none", entries):
            # the side with a width fixes the sizes of the other
            if isinstance(x.source, v.Project) and x.source.projector.out is None:
                target = self.build(x.target, near=near)
                source = self.build(x.source, self.shape(target), near)
            else:
                source = self.build(x.source, near=near)
                target = self.build(x.target, self.shape(source), near)
        one, other = self._side(x.source, source), self._side(x.target, target)
        kinds = one.kind, other.kind
        unit = _unit(operation.unit(*kinds), other.shape)
        c.check_match(self.context, c.BuiltLoss(x, one, other, unit, comparable=entries != 0))
        data = near.data if near is not None else next(iter(self.recipe.data))
        mask = self._loss_mask(x, unit, near, source)
        options, words = _split(x.options)
        inputs = (source, target, *([mask] if mask is not None else ()), *map(self.build, options.values()))
        shape: Shape | None = ()
        if not x.reduced:
            per = {"token": "length", "word": "words", "pair": "length"}.get(unit)
            labelled = one.shape if isinstance(x.source, v.Column) else None
            shape = labelled or (("batch", per) if per else ("batch",))
        least = operation.least.get("batch", 1)
        node = n.Loss(
            inputs, x.operation, unit, x.reduced, data, kinds, least, masked=bool(mask), shape=shape, span=x.span
        )
        node = replace(node, options=tuple(options), words=tuple(words.items()), written=x.written)
        return self.add(node, None if x.reduced else c.Units(unit, mask, data))

    def _side(self, side: v.Value, key: str) -> c.LossSide:
        """A side of a loss that is built; the kind of a tap follows from its shape."""
        shape = self.shape(key)
        if not isinstance(side, v.Bundle):
            return c.LossSide(side, c.kind_of(side.kind, shape), shape)
        members = tuple(self._side(*x) for x in zip(side.items, self.nodes[key].inputs, strict=True))
        kinds = [member.kind for member in members]
        kind = f"{kinds[0]}..." if side.kind.endswith("...") else f"({', '.join(kinds)})"
        return c.LossSide(side, kind, shape, members)

    def _loss_mask(self, x: v.Apply, unit: str, near: v.Take | None, source: str) -> str | None:
        """The mask of a loss, from the encoding of the model on the right, which is trained, or else on the left.

        Where a number stands for an example or a batch, maths that asks for the layout gets the mask of the tokens. The
        unit is `position` only for logits of unknown shape, taken as one value per example.
        """
        maths = x.declared.needs_layout
        which = x.mask or n.DEFAULT_MASKS.get(unit) or ("tokens" if maths else None)
        if which is None or unit == "position" or (unit == "batch" and not maths):
            return None
        if isinstance(which, v.Column):
            column = self.build(which, near=near)
            entries = [self.entry(near)] if near is not None and unit != "example" else []
            return self.mask("column", [*entries, column], x.span)
        if which == "labels" or (which == "none" and unit == "label"):
            parts = (x.source, *(x.source.values[:1] if isinstance(x.source, v.Transform) else ()))
            if any(isinstance(part, v.Column) for part in parts):
                return self.mask("labels", [source], x.span)
            if near is None:
                return None
            labels = v.Column("labels", near.data, "labels", span=x.span)
            return self.mask("labels", [self.build(labels, near=near)], x.span)
        if near is None:
            return None
        if unit == "word" or "words" in (self.shape(source) or ()):
            takes = {t.model: t for t in v.takes_in(x.source, x.target)}
            return self.word_mask(which, takes.values(), x.span)
        return self.mask(which, [self.entry(near)], x.span)

    # ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _project(self, x: v.Project, wanted: Shape | None) -> str:
        inner, p = self.build(x.value), x.projector
        shape = self.shape(inner)
        width = _last(shape)
        into, out = p.into or width, p.out or _last(wanted)
        first = self.sizes.setdefault(p.name, (into, out, x.span)) if p.name is not None else (into, out, x.span)
        c.check_projection(self.context, x, width, (into, out), first, outside=wanted == OUTSIDE)
        projected = (*shape[:-1], out) if shape and out else None
        seed = self.seeds[p.site]
        return self.add(
            n.Projection((inner,), p.site, p.activation, into, out, p.options, seed, shape=projected, span=x.span)
        )


def _split(options: Iterable[tuple[str, v.Value | str]]) -> tuple[dict[str, v.Value], dict[str, str]]:
    """Options that are values, and those that are words."""
    values = {name: value for name, value in options if not isinstance(value, str)}
    return values, {name: value for name, value in options if isinstance(value, str)}


def _last(shape: Shape | None) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _unit(unit: str | None, shape: Shape | None) -> str:
    """The unit of a loss by the shape of its target: logits may be per example, per token or per word."""
    if unit == "position" and shape is not None:
        return "token" if "length" in shape else "word" if "words" in shape else "example"
    if unit == "token" and shape is not None and "words" in shape:
        return "word"
    return unit or "token"
