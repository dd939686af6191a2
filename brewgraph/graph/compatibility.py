"""Checks of values that meet: in a loss, in arithmetic, in a transform, in a cache. They build nothing themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from brewgraph.diagnostics import Collector, Label, SourceFault
from brewgraph.graph.nodes import MASKS, show_shape
from brewgraph.ops import OPERATIONS, TEMPERATURES
from brewgraph.ops.registry import is_own, refusal
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.features import ModelFacts, Shape
from brewgraph.recipe.label_types import CLASS, TAGS, LabelType
from brewgraph.recipe.recipe import Recipe
from brewgraph.source import Span

LAST_AXIS = {"logits": "classes", "probabilities": "classes", "hidden": "width", "vector": "width"}
"""What the last axis of a value of each kind holds."""
Sizes = tuple[int | None, int | None]
"""The widths that a projection maps from and to; None where not known."""


@dataclass(frozen=True)
class Context:
    """What checks read, a recipe and the facts about its models, and the collector that they report to."""

    recipe: Recipe
    facts: FactsOf
    collector: Collector

    def known(self, model: str) -> ModelFacts | None:
        """The facts about a model, by its name; None where nothing is known of it."""
        return self.facts(self.recipe.models[model])


@dataclass(frozen=True)
class LossSide:
    """One side of a built loss: its value, kind and shape, and the same of each member of a tuple."""

    value: v.Value
    kind: str
    shape: Shape | None
    members: tuple[LossSide, ...] = ()


@dataclass(frozen=True)
class Units:
    """What a number of an unreduced value stands for: its unit, the mask that chose it, the data set it comes from."""

    unit: str = "example"
    mask: str | None = None
    data: str = ""


@dataclass(frozen=True)
class BuiltLoss:
    """A loss and its two sides. `comparable` is False where their vocabularies have no token in common, after B223."""

    loss: v.Apply
    source: LossSide
    target: LossSide
    unit: str
    comparable: bool

    @property
    def kinds(self) -> tuple[str, str]:
        return self.source.kind, self.target.kind

    @property
    def shapes(self) -> tuple[Shape | None, Shape | None]:
        return self.source.shape, self.target.shape


def check_match(context: Context, match: BuiltLoss) -> None:
    """Report every fault of a loss whose sides are built."""
    for check in CHECKS:
        if match.comparable or check not in COMPARING:
            check(context, match)


def common_size(context: Context, x: v.Value) -> int | None:
    """How many entries all vocabularies have whose logits a value compares or joins; None where nothing is cut.

    A vocabulary may hold more entries than its tokenizer has tokens: then the larger one is cut, with W305. Those of
    different tokenizers have nothing in common: 0, and B223.
    """
    takes = {(t.model, t.feature.head): t for t in v.takes_in(x) if t.feature.name == "logits"}
    sizes: dict[str, int] = {}
    tokens: dict[str, str] = {}
    for model, head in takes:
        known = context.known(model)
        size = known.vocabulary(head) if known is not None else None
        if known is not None and size is not None and known.tokenizer:
            sizes[model], tokens[model] = size, known.tokenizer
    if len(sizes) < 2:
        return None
    one, other = sorted(sizes, key=lambda name: sizes[name])[:: len(sizes) - 1]
    places = {t.model: t.span for t in takes.values()}
    stranger = next((name for name in tokens if tokens[name] != tokens[one]), None)
    if stranger is not None:
        message = f"`{one}` and `{stranger}` have different tokenizers: one token id stands for two tokens"
        labels = (Label(places[one], f"{sizes[one]:,} entries"),)
        help = "match hidden states, `words(…)` on both sides"
        if fresh := next((name for name in (one, stranger) if _may_share(context, name)), None):
            help = f"give both one tokenizer: tokenizer={stranger if fresh == one else one}; or {help}"
        context.collector.add(
            "B223", message, places[stranger], note=f"{sizes[stranger]:,} entries", labels=labels, help=help
        )
        return 0
    if sizes[one] == sizes[other]:
        return None
    message = f"the vocabularies of `{one}` and `{other}` have {sizes[one]:,} and {sizes[other]:,} entries"
    help = f"both have one tokenizer: the first {sizes[one]:,} entries are compared, the others stand for no token"
    context.collector.add("W305", message, places[other], help=help)
    return sizes[one]


# ── outside of a loss ────────────────────────────────────────────────────────────────────────────────────────────────


def joined_units(context: Context, x: v.Combine, units: Sequence[Units]) -> Units | None:
    """The units of unreduced values joined: None, with B219 or B220, where they differ in unit or data."""
    kinds = {"example" if u.unit == "label" and u.mask is None else u.unit for u in units}
    if len(kinds - {"label"}) > 1 or (len(kinds) > 1 and "token" in kinds):
        message = f"{' and '.join(f'per-{unit}' for unit in sorted(kinds))} values cannot be combined"
        context.collector.add("B219", message, x.span, help="`token_mean(…)` gives one number per example")
        return None
    data = list(dict.fromkeys(u.data for u in units if u.data))
    if len(data) > 1:
        message = f"values of `{data[0]}` and of `{data[1]}` cannot be combined"
        context.collector.add("B220", message, x.span, help="take both from the same data: `model(data).…`")
        return None
    return next((u for u in units if u.mask is not None), units[0] if units else Units())


def check_joined(context: Context, x: v.Combine, shapes: Sequence[Shape], *, comparable: bool) -> bool:
    """Whether joined values have one shape, else B204. B214 where they lie along the tokens of different tokenizers."""
    same = all(shape == shapes[0] for shape in shapes)
    if not same:
        other = next(shape for shape in shapes if shape != shapes[0])
        message = f"shapes differ: {show_shape(shapes[0])} and {show_shape(other)}"
        context.collector.add("B204", message, x.span, help="only values of one shape can be joined")
    along_tokens = x.kind != "values" and comparable and any("length" in shape for shape in shapes)
    takes = v.takes_in(x) if along_tokens else []
    if not takes or (other_take := _stranger(context, takes)) is None:
        return same
    first = takes[0]
    notes = [f"(batch, length@{take.model}, …)" for take in (first, other_take)]
    message = f"`{first.model}` and `{other_take.model}` cut the text into different tokens"
    labels = (Label(first.span, notes[0]),) if first.span != other_take.span else ()
    joined = dict.fromkeys(f"`words({take.span.text})`" for take in (first, other_take))
    help = f"join words: {', '.join(joined)}"
    if any(_may_share(context, take.model) for take in (first, other_take)):
        help += "; or give both one tokenizer"
    context.collector.add("B214", message, other_take.span, note=notes[1], labels=labels, help=help)
    return same


def check_cached(context: Context, x: v.Cached, shape: Shape | None, *, padding: bool, made: bool) -> None:
    """B241 and B243 where a value cannot be kept example by example without padding.

    `padding` says that padding counts here, `made` that the value is computed from features.
    """
    faults, features = context.collector, {take.feature.name for take in v.takes_in(x)}
    unknown = [take for take in v.takes_in(x) if context.known(take.model) is None]
    if padding and "length" in (shape or ()):
        help = "leave `mask=none` out, or compare the value itself: `bert.hidden[4]`"
        faults.add("B241", "a cache stores no padding, but `mask=none` counts it", x.span, help=help)
    if shape is None and all(not context.recipe.models[take.model].source.is_known for take in unknown):
        message = "the shape of this value is unknown, so its padding cannot be removed"
        help = "remove the `cache`, or use a teacher that brewgraph can build from a configuration"
        faults.add("B243", message, x.value.span, help=help)
    elif shape is not None and (shape[0] != "batch" or shape.count("batch") > 1):
        help = "keep what it is computed from: a value for each example"
        faults.add("B241", f"this has no axis of examples: {show_shape(shape)}", x.value.span, help=help)
    elif made and features & {"start", "end"}:
        message = "a value computed from scores over positions ends at the longest example of its batch"
        faults.add("B241", message, x.value.span, help="keep `big.start` itself, and compute from it")


def check_transform(context: Context, x: v.Transform, shape: Shape | None) -> None:
    """B228 where a transform gets fewer classes or a smaller width than it needs."""
    few = too_few(x.values[0].kind, shape, x.declared.least)
    if few is not None:
        help = f"leave `{x.declared.name}` out: `{x.values[0].span.text}`"
        context.collector.add("B228", _too_few_words(x.declared.name, x.declared.least, *few), x.span, help=help)


def check_token_mean(context: Context, x: v.Transform, unit: str, shape: Shape | None) -> None:
    """B219 where the mean over tokens is taken of something else; labels may lie along the tokens."""
    if unit not in ("token", "word") and not (unit == "label" and "length" in (shape or ())):
        message = f"this is one number per {unit} already"
        context.collector.add("B219", message, x.span, help=f"leave `{x.name}` out")


def check_projection(
    context: Context, x: v.Project, width: int | None, sizes: Sizes, first: tuple[*Sizes, Span], *, outside: bool
) -> None:
    """B204 where a projection gets another width than it takes, or than where it was `first` used by the same name;
    B215 where it has no width to end in, `outside` of an arrow."""
    p = x.projector
    if p.into and width and p.into != width:
        message = f"the projection takes width {p.into}, but this has width {width}"
        labels = (Label(p.span, "the projection"),)
        help = f"write `{width} -> …`, or leave the sizes out"
        context.collector.add("B204", message, x.span, labels=labels, help=help)
    if outside and p.out is None:
        help = f"write `linear({width or '…'} -> …)`"
        context.collector.add("B215", "outside an arrow a projection needs its sizes", x.span, help=help)
    if any(a and b and a != b for a, b in zip(sizes, first[:2], strict=True)):
        asked = [f"{into} -> {out}" for into, out in (first[:2], sizes)]
        message = f"`{p.name}` is one module, but it is used as {asked[0]} and as {asked[1]}"
        labels = (Label(first[2], "first here"),)
        context.collector.add("B204", message, x.span, labels=labels, help="name two projections")


def has_width(context: Context, x: v.Apply) -> bool:
    """Whether a side of a loss fixes the width of the other's projection, else B215."""
    if any(not isinstance(side, v.Project) or side.projector.out is not None for side in (x.source, x.target)):
        return True
    help = "give one of them its sizes: `linear(312 -> 768)`"
    context.collector.add("B215", "both sides are projected, and neither projection has a width", x.span, help=help)
    return False


def too_few(kind: str, shape: Shape | None, least: Mapping[str, int]) -> tuple[str, int] | None:
    """The last axis of a value, and its size, where it has too few entries; None where it has enough."""
    axis = LAST_AXIS.get(kind, "")
    size = shape[-1] if shape else None
    return (axis, size) if isinstance(size, int) and size < least.get(axis, 1) else None


def kind_of(kind: str, shape: Shape | None) -> str:
    """A value's kind; that of a tap follows from its shape."""
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


# ── kinds and axes ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_axes(context: Context, match: BuiltLoss) -> None:
    """B221 where a tap has no axis of examples, or none of tokens or heads behind it: no loss can count its units."""
    for side in (match.source, match.target):
        for member in side.members or (side,):
            _check_axes(context, member)


def _check_axes(context: Context, side: LossSide) -> None:
    shape = side.shape
    if shape is None or side.kind != "tensor" or shape[:2] in (("batch", "length"), ("batch", "words")):
        return
    take = next(iter(v.takes_in(side.value)), None)
    reason = "its second axis is neither tokens nor heads"
    help = "tap another module: `brewgraph taps` lists what every one of them gives"
    if "decoder_length" in shape:
        reason = "it lies along the tokens of a decoder, for which there is no mask"
        help = "tap the encoder instead; `brewgraph taps` lists what its modules give"
    elif shape[:1] != ("batch",):
        reason = "its first axis is not the batch"
        known = context.known(take.model) if take is not None else None
        if known is not None and take is not None and _has_hidden(known):
            help = f"the named features have it first: `{take.model}.hidden[1]`"
    message = f"no loss compares values of the shape {show_shape(shape)}: {reason}"
    context.collector.add("B221", message, side.value.span, help=help)


def _has_hidden(known: ModelFacts) -> bool:
    try:
        return known.row_length("hidden") > 0
    except SourceFault:
        return False


def check_kinds(context: Context, match: BuiltLoss) -> None:
    """B210 where the operation does not compare the kinds of its sides, both of them known."""
    operation, kinds = match.loss.declared, match.kinds
    if operation.unit(*kinds) is None and not any("tensor" in kind for kind in kinds):
        message, help = refusal(operation, *kinds)
        context.collector.add("B210", message, match.loss.span, help=help)


# ── examples or tokens ───────────────────────────────────────────────────────────────────────────────────────────────

_CLASSES = ("logits", "probabilities")


def check_extent(context: Context, match: BuiltLoss) -> None:
    """B224 where one side has a label or logits per example, and the other per token or per position."""
    x, kinds = match.loss, match.kinds
    one, other = match.shapes
    goal = next(iter(v.takes_in(x.target)), None)
    if one is None or other is None or goal is None or kinds[0] not in ("labels", *_CLASSES):
        return
    column = next((c for c in v.walk(x.source) if isinstance(c, v.Column) and c.kind == "labels"), None)
    if kinds[1] == "positions" and column is not None and column.column == "labels":
        message = f"the labels of `{column.data}` are classes, but `{goal.span.text}` scores positions of a text"
        help = f"match them with logits: `{goal.model}.logits`; data with answers have a start and an end"
        context.collector.add("B224", message, x.target.span, help=help)
    if kinds[1] not in _CLASSES or _is_along_text(one) == _is_along_text(other):
        return
    extents = ["each token" if _is_along_text(shape) else "a whole example" for shape in (one, other)]
    if column is not None and kinds[0] == "labels":
        label_type = context.recipe.data[column.data].source.label_type
        message = f"`{column.data}` has a label for {extents[0]}, but `{goal.model}` has logits for {extents[1]}"
        help = _other_head(goal, label_type)
    else:
        source = next((t.model for t in v.takes_in(x.source)), "")
        subject = f"`{source}` has" if source else "these are"
        message = f"{subject} logits for {extents[0]}, but `{goal.model}` has them for {extents[1]}"
        help = _other_head(goal, TAGS if _is_along_text(one) else CLASS)
    context.collector.add("B224", message, x.target.span, help=help)


def _is_along_text(shape: Shape | None) -> bool:
    return not {"length", "words"}.isdisjoint(shape or ())


def _other_head(take: v.Take, label_type: LabelType) -> str:
    """The remedy: another head for the model whose logits these are."""
    if take.feature.head:
        return f"make the head `{take.feature.head}` a `{label_type.head}(…)`, or match another head"
    return f'give `{take.model}` the matching head: task="{label_type.task}"'


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_sizes(context: Context, match: BuiltLoss) -> None:
    """B228 where a loss gets fewer entries than it needs; where it has enough, B204 where those of its sides differ."""
    if _has_enough(context, match):
        _check_same_sizes(context, match)


def _has_enough(context: Context, match: BuiltLoss) -> bool:
    """Whether a loss, and a temperature in it, get as many classes and as large a width as they need; else B228.

    Of two sides of one kind the source decides: a target of another size is another fault.
    """
    x, kinds = match.loss, match.kinds
    if any(isinstance(side, v.Transform) and side.declared and side.declared.least for side in (x.source, x.target)):
        return True  # checked already, where the transform was built
    for name, least in _needs(x):
        for side in (match.source,) if kinds[0] == kinds[1] else (match.source, match.target):
            if (few := too_few(side.kind, side.shape, least)) is None:
                continue
            axis, count = few
            column = next((c for c in (x.source, x.target) if isinstance(c, v.Column) and c.kind == "labels"), None)
            if column is not None and axis == "classes" and name == x.declared.name:
                _report_one_class(context, column)
                return False
            operations = (o for o in OPERATIONS.values() if is_own(o.module))
            other = next((o.name for o in operations if o.unit(*kinds) and axis not in o.least), None)
            help = "give the model more classes, or the projection a larger width"
            if name != x.declared.name:
                help = "use a number or a schedule here: `T=4`"
            elif other is not None:
                call = f"{other}({x.source.span.text} -> {x.target.span.text})"
                help = f"`{other}` compares the numbers themselves: `{call}`"
            context.collector.add("B228", _too_few_words(name, least, axis, count), side.value.span, help=help)
            return False
    return True


def _report_one_class(context: Context, labels: v.Column) -> None:
    """B228, in place of W404, where a model has one class because its data has: the data is at fault."""
    data = context.recipe.data[labels.data]
    column = data.source.label_type.column
    message = f"the labels of `{data.name}` have only one class: a loss on them never changes"
    help = f"add rows with other labels, name another column: `{column}=…`, or list all classes: `classes=[…]`"
    if any(data.span.start <= fault.span.start < data.span.end for fault in context.collector.errors):
        return  # its labels could not be read
    context.collector.withdraw("W404", data.place(column))
    context.collector.add("B228", message, labels.span, help=help)


def _needs(x: v.Apply) -> list[tuple[str, Mapping[str, int]]]:
    temperatures = (option for _, option in x.options if isinstance(option, v.Temperature))
    return [(x.declared.name, x.declared.least), *((t.name, TEMPERATURES[t.name].least) for t in temperatures)]


def _too_few_words(name: str, least: Mapping[str, int], axis: str, count: int) -> str:
    wanted = f"at least {least[axis]} classes" if axis == "classes" else f"a {axis} of at least {least[axis]}"
    return f"`{name}` needs {wanted}, but this has {count}: its result would never change"


def _check_same_sizes(context: Context, match: BuiltLoss) -> None:
    x, kinds, same = match.loss, match.kinds, match.loss.declared.same
    one, other = match.shapes
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
            help = 'a student with numeric labels has one output; without such labels name one: labels=["score"]'
        if isinstance(x.target, v.Project):
            help = f"make the projection end in {one[at]}: `linear(… -> {one[at]})`, or leave its sizes out"
        if axis == "classes" and 1 in (one[at], other[at]):
            axis = "outputs"
        message = (
            "widths differ and nothing projects between them" if axis == "width" else f"the numbers of {axis} differ"
        )
        context.collector.add("B204", message, x.target.span, note=str(other[at]), labels=labels, help=help)


# ── data sets and tokens ─────────────────────────────────────────────────────────────────────────────────────────────


def check_tokens(context: Context, match: BuiltLoss) -> None:
    """B220 where the sides are computed on different examples, B214 where they are compared token by token and their
    tokens differ."""
    x, unit, shapes = match.loss, match.unit, match.shapes
    if _reads_two_data_sets(context, x):
        return
    on_words = ["words" in (shape or ()) for shape in shapes]
    if unit in ("token", "pair", "word") and None not in shapes and on_words[0] != on_words[1]:
        labels = (Label(x.source.span, "one per word" if on_words[0] else "one per token"),)
        note = "one per word" if on_words[1] else "one per token"
        message = "words can only be compared with words, and tokens with tokens"
        context.collector.add(
            "B214", message, x.target.span, note=note, labels=labels, help="write `words(…)` on both sides"
        )
        return
    sources, targets = v.takes_in(x.source), v.takes_in(x.target)
    if unit not in ("token", "pair") or on_words[1] or not sources or not targets:
        return
    if _stranger(context, [sources[0], targets[0]]) is None:
        return
    shared = f"give the student the teacher's tokenizer: tokenizer={sources[0].model}; "
    help = (
        f"{shared if _may_share(context, targets[0].model) else ''}match words: "
        f"`words({x.source.span.text}) -> words({x.target.span.text})`; "
        "or match what has no tokens (`pooled`, `logits`)"
    )
    labels = (Label(x.source.span, "other tokens"),)
    message = "the two models cut the text into different tokens"
    context.collector.add("B214", message, x.target.span, labels=labels, help=help)


def _reads_two_data_sets(context: Context, x: v.Apply) -> bool:
    """Whether a loss reads two data sets, with B220: their rows are different examples, or in a different order."""
    left, right = ([y for y in v.walk(side) if isinstance(y, v.Take | v.Column)] for side in (x.source, x.target))
    first = (*left, *right)[0] if left or right else None
    other = next((y for y in (*left, *right) if first is not None and y.data != first.data), None)
    if first is None or other is None:
        return False
    sides = [list(dict.fromkeys(y.data for y in side)) for side in (left, right)]
    if [len(side) for side in sides] == [1, 1]:
        message = f"the left side is computed on `{first.data}`, the right one on `{other.data}`"
        place, label = x.target.span, Label(x.source.span, "different examples")
    else:
        message = f"this joins values of `{first.data}` and of `{other.data}`, which are different examples"
        place, label = other.span, Label(first.span, f"examples of `{first.data}`")
    context.collector.add("B220", message, place, labels=(label,), help="name one input for all: `model(data).…`")
    return True


def _stranger(context: Context, takes: Sequence[v.Take]) -> v.Take | None:
    """The first feature whose model has another tokenizer than the model of the first one; None while unknown."""
    known = {take.model: context.known(take.model) for take in takes}
    tokens = {model: facts.tokenizer for model, facts in known.items() if facts is not None and facts.tokenizer}
    first = next(iter(tokens.values()), "")
    return next((take for take in takes if tokens.get(take.model, first) != first), None)


def _may_share(context: Context, model: str) -> bool:
    """Whether a model can get another tokenizer: pretrained weights only know the tokens of their own."""
    source = context.recipe.models[model].source
    return source.has_configuration and source.is_random


# ── masks and directions ─────────────────────────────────────────────────────────────────────────────────────────────


def check_mask(context: Context, match: BuiltLoss) -> None:
    """B217 where a mask cannot choose among the units of a loss, B220 where it is a column of other data."""
    x, unit = match.loss, match.unit
    fits = MASKS.get(unit, ())
    takes = [t.data for t in v.takes_in(x.target, x.source)]
    if isinstance(x.mask, v.Column) and takes and x.mask.data not in takes:
        message = f"the mask is a column of `{x.mask.data}`, but this is computed on `{takes[0]}`"
        context.collector.add("B220", message, x.mask.span, help=f"name a column of it: `mask={takes[0]}.…`")
    data = context.recipe.data[takes[0]] if takes else None
    if x.mask == "labels" and unit == "token" and data and not data.source.label_type.per_token:
        message = f"the labels of `{data.name}` are not per token, so they cannot choose among tokens"
        context.collector.add("B217", message, x.span, help="write `mask=tokens`, or leave it out")
    if x.mask == "none" and unit == "label" and x.target.kind != "positions":
        message = "a label of -100 has no loss, but `mask=none` would count it as a loss of zero"
        context.collector.add("B217", message, x.span, help="leave `mask` out: every other label counts")
        return
    if x.mask is None or isinstance(x.mask, v.Column) or x.mask == "none" or x.mask in fits:
        return
    message = f"`{x.operation}` gives one value per {unit} here, which `mask={x.mask}` cannot choose from"
    words = f"write `mask={fits[0]}`, or leave it out" if fits else "leave `mask` out: every example counts"
    context.collector.add("B217", message, x.span, help=words)


def check_direction(context: Context, match: BuiltLoss) -> None:
    """W202 where an arrow leads from the student to a teacher: legal, as a reversed divergence, but rare. W204 where
    both sides learn, so that each pulls the other: legal, too.
    """
    x = match.loss
    roles = [_roles(context, side, stopped=True) for side in (x.source, x.target)]
    if roles[1] == {"teacher"} and "student" in roles[0]:
        message = "this arrow leads from the student to the teacher"
        help = f"reverse it: `{x.target.span.text} -> {x.source.span.text}`"
        context.collector.add("W202", message, x.source.span.to(x.target.span), help=help)
    learning = [_roles(context, side, stopped=False) for side in (x.source, x.target)]
    if all("student" in side for side in learning):
        message = "both sides of this match learn, so each is pulled to the other"
        help = f"if this is not intended, stop one: `stop({x.source.span.text}) -> {x.target.span.text}`"
        context.collector.add("W204", message, x.source.span.to(x.target.span), help=help)


def _roles(context: Context, x: v.Value, *, stopped: bool) -> set[str]:
    """The roles of the models that a value comes from; those behind a `stop` only if `stopped`."""
    if isinstance(x, v.Take):
        return {context.recipe.models[x.model].role}
    if isinstance(x, v.Transform) and x.declared.stops and not stopped:
        return set()
    return {role for part in v.parts(x) for role in _roles(context, part, stopped=stopped)}


def check_reduction(context: Context, match: BuiltLoss) -> None:
    """B219 where `reduce="none"` gives numbers that nothing can use."""
    if not match.loss.reduced and match.unit in ("pair", "batch"):
        message = f"`{match.loss.operation}` gives one number per {match.unit} here, which nothing can use unreduced"
        context.collector.add("B219", message, match.loss.span, help='leave `reduce="none"` out')


CHECKS: tuple[Callable[[Context, BuiltLoss], None], ...] = (
    check_axes,
    check_kinds,
    check_extent,
    check_sizes,
    check_tokens,
    check_mask,
    check_direction,
    check_reduction,
)
"""Every check of a loss, in the order in which they report."""
COMPARING = (check_extent, check_sizes, check_tokens)
"""The checks that are skipped where the vocabularies of the sides have nothing in common."""
