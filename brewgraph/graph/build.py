"""Recipe to graph: a node for every value, its shape where the models tell it, and the faults that only shapes show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import networkx as nx

from brewgraph.diagnostics import Collector, Label, SourceFault
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import assemble, digest
from brewgraph.ops import OPERATIONS
from brewgraph.recipe import values as v
from brewgraph.recipe.elaborate import Recipe
from brewgraph.recipe.evaluate import FactsOf
from brewgraph.recipe.features import Shape
from brewgraph.source import Span

MASKS = {"token": ("tokens",), "pair": ("pairs",), "label": ("labels",)}
"""The masks that can choose among the units of a loss; `none` always can."""
OUTSIDE: Shape = ()
"""The shape wanted where no arrow stands: none. Behind an arrow it is None while the other side's is not known."""

DEFAULT_MASKS = {"token": "tokens", "pair": "pairs", "label": "labels"}


def build_graph(
    recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str]
) -> nx.DiGraph | None:
    """The graph of a recipe, before any pass; None where shapes show a fault.

    `identities` gives for each model and data set what its content is (never its name), for the hashes.
    """
    builder = _Builder(recipe, facts, collector, identities)
    terms: dict[str, str] = {}
    for name, value in recipe.equations.items():
        for i, member in enumerate(v.members(value)):
            key = builder.build(member)
            if member.kind == "loss" and name != "loss":
                terms[f"{name}[{i}]" if isinstance(value, v.Group) else name] = key
    objective = builder.build(recipe.loss)
    return None if collector.failed else assemble(builder.nodes, objective, terms)


class _Builder:
    def __init__(self, recipe: Recipe, facts: FactsOf, collector: Collector, identities: Mapping[str, str]):
        self.recipe, self.facts, self.collector, self.identities = recipe, facts, collector, identities
        self.nodes: dict[str, n.Node] = {}
        self.built: dict[int, str] = {}
        self.held: list[v.Value] = []
        self.seeds = _projection_seeds(recipe, identities)
        self.sizes: dict[str, tuple[int | None, int | None, Span]] = {}

    def add(self, node: n.Node) -> str:
        key = f"{len(self.nodes)}"
        self.nodes[key] = node
        return key

    def build(self, value: v.Value, wanted: Shape | None = OUTSIDE) -> str:
        """The key of a value's node. `wanted` is the shape on the arrow's other side, for projections without sizes."""
        # by object, not by equality: merging equal nodes is a pass of its own
        if id(value) not in self.built:
            self.held.append(value)
            self.built[id(value)] = self._build(value, wanted)
        return self.built[id(value)]

    def _build(self, x: v.Value, wanted: Shape | None) -> str:
        match x:
            case v.Take():
                return self._take(x)
            case v.Labels():
                return self.add(n.Labels((), x.data, self.identities[x.data], shape=("batch",), span=x.span))
            case v.Number():
                return self.add(n.Number((), x.value, shape=(), span=x.span))
            case v.Scheduled():
                return self.add(n.Schedule((), x.name, x.arguments, shape=(), span=x.span))
            case v.Project():
                return self._project(x, wanted)
            case v.Combine():
                inputs = tuple(self.build(operand, wanted) for operand in x.operands)
                shapes = [s for key in inputs if (s := self.nodes[key].shape)]
                shape = shapes[0] if shapes else () if x.kind in ("loss", "schedule", "number") else None
                if not all(self._same_shape(shapes[0], other, x) for other in shapes[1:]):
                    shape = None
                return self.add(n.Combine(inputs, x.operator, shape=shape, span=x.span))
            case v.Apply():
                return self._apply(x)
        raise AssertionError(type(x).__name__)

    def _same_shape(self, one: Shape, other: Shape, x: v.Combine) -> bool:
        if one != other:
            message = f"shapes differ: {_show(one)} and {_show(other)}"
            self.collector.add("B204", message, x.span, help="only values of one shape can be joined")
        return one == other

    # ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, x: v.Take) -> str:
        model = self.recipe.models[x.model]
        identity = self.identities[x.model]
        entry = n.Input(
            (), x.data, x.model, digest(self.identities[x.data], identity), shape=("batch", "length"), span=x.span
        )
        forward = n.Forward((self.add(entry),), x.model, model.role, identity, shape=None, span=x.span)
        return self.add(n.Tap((self.add(forward),), x.model, x.feature, shape=self._shape(x), span=x.span))

    def _shape(self, x: v.Take) -> Shape | None:
        model = self.recipe.models[x.model]
        known = self.facts(model)
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

    def _project(self, x: v.Project, wanted: Shape | None) -> str:
        inner = self.build(x.value)
        shape = self.nodes[inner].shape
        own, target = _last(shape), _last(wanted)
        p = x.projector
        into, out = p.into or own, p.out or target
        if p.into and own and p.into != own:
            message = f"the projection takes width {p.into}, and this has {own}"
            self.collector.add(
                "B204",
                message,
                x.span,
                labels=(Label(p.span, "the projection"),),
                help=f"write `{own} -> …`, or leave the sizes out",
            )
        if wanted == OUTSIDE and p.out is None:
            help = f"write `linear({own or '…'} -> …)`"
            self.collector.add("B215", "outside an arrow a projection needs its sizes", x.span, help=help)
        if p.name is not None:
            before = self.sizes.setdefault(p.name, (into, out, x.span))
            if any(a and b and a != b for a, b in zip((into, out), before[:2], strict=True)):
                message = (
                    f"`{p.name}` is one module, and is asked for {before[0]} -> {before[1]} and for {into} -> {out}"
                )
                self.collector.add(
                    "B204", message, x.span, labels=(Label(before[2], "first here"),), help="name two projections"
                )
        projected = (*shape[:-1], out) if shape and out else None
        node = n.Projection(
            (inner,), p.site, p.activation, into, out, p.options, self.seeds[p.site], shape=projected, span=x.span
        )
        return self.add(node)

    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _apply(self, x: v.Apply) -> str:
        operation = OPERATIONS[x.operation]
        if isinstance(x.source, v.Project):  # the side without a projection fixes the sizes of the other
            target = self.build(x.target)
            source = self.build(x.source, self.nodes[target].shape)
        else:
            source = self.build(x.source)
            target = self.build(x.target, self.nodes[source].shape)
        shapes = self.nodes[source].shape, self.nodes[target].shape
        kinds = _kind(x.source.kind, shapes[0]), _kind(x.target.kind, shapes[1])
        unit = operation.unit(*kinds)
        unknown = [kind == "tensor" and shape is None for kind, shape in zip(kinds, shapes, strict=True)]
        if unit is None and not any(unknown):
            message = f"`{x.operation}` does not compare {kinds[0]} with {kinds[1]}"
            takes = ", ".join(f"{a} -> {b}" for a, b in operation.takes)
            self.collector.add("B210", message, x.span, help=f"it takes {takes}")
        if unit == "position" and shapes[1] is not None:
            unit = "token" if "length" in shapes[1] else "example"
        if unit is None:
            unit = "token"
        self._check_sides(x, operation.same, kinds, shapes)
        self._check_tokens(x, unit)
        self._check_mask(x, unit)
        self._check_direction(x)
        inputs = [source, target]
        which = x.mask or DEFAULT_MASKS.get(unit)
        if which is not None:
            inputs.append(self._mask(which, x))
        options = tuple(name for name, _ in x.options)
        inputs += [self.build(value) for _, value in x.options]
        return self.add(n.Loss(tuple(inputs), x.operation, unit, which is not None, options, shape=(), span=x.span))

    def _check_direction(self, x: v.Apply) -> None:
        """An arrow leads to what is trained; one that leads from it is legal (a divergence turned round), and rare."""
        roles = [
            {self.recipe.models[t.model].role for t in v.walk(side) if isinstance(t, v.Take)}
            for side in (x.source, x.target)
        ]
        if roles[1] == {"teacher"} and "student" in roles[0]:
            message = "this arrow leads from the student to the teacher"
            help = f"turn it round: `{x.target.span.text} -> {x.source.span.text}`"
            self.collector.add("W202", message, x.source.span.to(x.target.span), help=help)

    def _check_mask(self, x: v.Apply, unit: str) -> None:
        fits = MASKS.get(unit, ())
        if x.mask is None or x.mask == "none" or x.mask in fits:
            return
        message = f"`{x.operation}` gives one value per {unit} here, which `mask={x.mask}` cannot choose from"
        words = f"write `mask={fits[0]}`, or leave it out" if fits else "leave `mask` out: every example counts"
        self.collector.add("B217", message, x.span, help=words)

    def _mask(self, which: str, x: v.Apply) -> str:
        """Masks come from the side that is trained: the encoding of the model on the right, or else on the left."""
        if which == "labels":
            data = next(iter(self.recipe.data.values()))
            base = self.add(n.Labels((), data.name, self.identities[data.name], shape=("batch",), span=x.span))
            return self.add(n.Mask((base,), which, shape=None, span=x.span))
        take = next(t for side in (x.target, x.source) for t in v.walk(side) if isinstance(t, v.Take))
        identity = digest(self.identities[take.data], self.identities[take.model])
        base = self.add(n.Input((), take.data, take.model, identity, shape=("batch", "length"), span=x.span))
        return self.add(n.Mask((base,), which, shape=None, span=x.span))

    def _check_sides(self, x: v.Apply, same: frozenset[str], kinds: tuple[str, str], shapes: tuple[Any, Any]) -> None:
        one, other = shapes
        if one is None or other is None or kinds[0] != kinds[1]:
            return
        axis, at = ("heads", 1) if kinds[0] in ("attention", "scores", "states") else ("width", -1)
        axis = "classes" if kinds[0] == "logits" else axis
        if axis in same and len(one) == len(other) and one[at] != other[at]:
            labels = (Label(x.source.span, str(one[at])),)
            help = {
                "width": f"add a projection: `{x.target.span.text} via linear`",
                "classes": "both models need the same classes: `labels=[…]` on the student, or another teacher",
                "heads": "give the student as many heads: `num_attention_heads=…`",
            }[axis]
            if isinstance(x.target, v.Project):
                help = f"let the projection end in {one[at]}: `linear(… -> {one[at]})`, or leave its sizes out"
            message = (
                "widths differ and nothing projects between them"
                if axis == "width"
                else f"the numbers of {axis} differ"
            )
            self.collector.add("B204", message, x.target.span, note=str(other[at]), labels=labels, help=help)

    def _check_tokens(self, x: v.Apply, unit: str) -> None:
        """Token by token only makes sense where both models cut the text into the same tokens."""
        if unit not in ("token", "pair"):
            return
        takes = [next((t for t in v.walk(side) if isinstance(t, v.Take)), None) for side in (x.source, x.target)]
        if takes[0] is None or takes[1] is None or takes[0].model == takes[1].model:
            return
        known = [self.facts(self.recipe.models[t.model]) for t in takes if t]
        if known[0] is None or known[1] is None or known[0].tokenizer == known[1].tokenizer:
            return
        help = (
            f"give the student the teacher's tokenizer: tokenizer={takes[0].model}; "
            "or match what has no tokens (`pooled`, `logits`)"
        )
        labels = (Label(x.source.span, "other tokens"),)
        self.collector.add(
            "B214", "the two models cut the text into different tokens", x.target.span, labels=labels, help=help
        )


def _kind(kind: str, shape: Shape | None) -> str:
    """A tap's kind follows from its shape."""
    if kind != "tensor" or shape is None:
        return kind
    symbols = tuple(s if isinstance(s, str) else "n" for s in shape)
    return {
        ("batch", "length", "n"): "hidden",
        ("batch", "n"): "vector",
        ("batch", "n", "length", "length"): "attention",
        ("batch", "n", "length", "n"): "states",
        ("batch", "length"): "positions",
    }.get(symbols, "tensor")


def _last(shape: Shape | None) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _show(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


# ── seeds of projections ─────────────────────────────────────────────────────────────────────────────────────────────


def _projection_seeds(recipe: Recipe, identities: Mapping[str, str]) -> dict[str, str]:
    """For each projection a digest of what it maps to what, and the how-manieth of its like it is.

    So the initial weights do not depend on names, nor on the order in which terms stand.
    """
    uses: dict[str, list[str]] = defaultdict(list)
    for x in _applications(recipe):
        sides = ((x.source, x.target), (x.target, x.source))
        for side, partner in sides:
            for part in v.walk(side):
                if isinstance(part, v.Project):
                    use = digest(x.operation, _digest(part.value, identities), _digest(partner, identities))
                    uses[part.projector.site].append(use)
    for equation in (*recipe.equations.values(), recipe.loss):  # and those that no operation compares
        for part in (p for member in v.members(equation) for p in v.walk(member) if isinstance(p, v.Project)):
            uses.setdefault(part.projector.site, [digest("alone", _digest(part.value, identities))])
    seen: dict[str, int] = defaultdict(int)
    seeds: dict[str, str] = {}
    for site, found in uses.items():
        base = digest(sorted(set(found)))
        seeds[site] = digest(base, seen[base])
        seen[base] += 1
    return seeds


def _applications(recipe: Recipe) -> list[v.Apply]:
    """Every application of an operation, each once, in the order of the text."""
    found: dict[int, v.Apply] = {}
    for equation in (*recipe.equations.values(), recipe.loss):
        for member in v.members(equation):
            found.update({id(x): x for x in v.walk(member) if isinstance(x, v.Apply)})
    return list(found.values())


def _digest(x: v.Value, identities: Mapping[str, str]) -> str:
    match x:
        case v.Take():
            return digest("take", identities[x.model], identities[x.data], repr(x.feature))
        case v.Labels():
            return digest("labels", identities[x.data])
        case v.Project():
            return digest("project", x.projector.activation, _digest(x.value, identities))
        case v.Combine():
            parts = [_digest(o, identities) for o in x.operands]
            return digest(x.operator, sorted(parts) if x.operator in n.COMMUTES else parts)
        case v.Number():
            return digest(x.value)
        case v.Scheduled():
            return digest(x.name, x.arguments)
        case v.Apply():
            return digest(x.operation, _digest(x.source, identities), _digest(x.target, identities))
    raise AssertionError(type(x).__name__)
