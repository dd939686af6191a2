"""The anatomy of a model (its layers, its attention modules, the place of each feature in a forward), and its features
as a table: inputs and outputs of modules, the symbols that their sizes follow, and everything that a spec can tap.

An anatomy is read off a model once (`read_class`); from then on both are values that need neither the model nor torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain, groupby
from typing import Any, Literal, NamedTuple, cast

from brewgraph.diagnostics import Refusal, SourceFault, listing, suggest
from brewgraph.recipe.features import ROWS, SINGLES, Feature, Shape

RESULTS = {"logits": "logits", "start": "start_logits", "end": "end_logits"}
"""Features that are fields of the model's output."""

BACKEND_ROWS = ("attention", "scores", "query", "key", "value")
NO_BACKEND = "its attention does not go through transformers' attention interface"


@dataclass(frozen=True)
class Site:
    """The place of one feature in a forward.

    `kind` is `result`, the field `field` of the model's output; `field`, that of the output of the module at `path`;
    `input` or `output` of that module (`item` picks from a tuple); `recorded`, its output with `item` applied only to a
    tuple, as transformers' own recorders do; `attention`, the value `field` (query, key, value, scores, attention) of
    the attention function that the module calls. `call` counts the module's calls in one forward from 0. The `path` of
    a result is its head (empty without heads). `axes` permutes the axes of an output; `asks` is the argument of the
    base model that the feature needs.
    """

    kind: Literal["result", "field", "input", "output", "recorded", "attention"]
    path: str = ""
    field: str = ""
    item: int | None = None
    call: int = 0
    axes: tuple[int, ...] = ()
    asks: str = ""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of one model.

    `base` is the path of the base model (empty for a base model), `hidden` and `attention` the sites of the rows,
    `layer_paths` the layer modules in the order of the forward, each once (empty if the class records none), `backend`
    whether attention runs through transformers' attention interface, `lacking` the reason for each missing feature,
    `modules` the path of every module in the model's order with whether it can be called, `heads` the names of several
    heads on one trunk, `stacks` the layer paths of each stack (`encoder.block.*`) of a model with several, which has no
    rows.
    """

    name: str
    base: str = ""
    hidden: tuple[Site, ...] = ()
    attention: tuple[Site, ...] = ()
    layer_paths: tuple[str, ...] = ()
    backend: bool = False
    lacking: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, bool] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def attention_paths(self) -> tuple[str, ...]:
        """The self-attention modules in the order of the forward, each once; empty where the class records none."""
        return tuple(dict.fromkeys(site.path for site in self.attention if site.kind != "field"))

    @property
    def every_layer(self) -> tuple[str, ...]:
        """The paths of the layers; of an encoder-decoder those of both stacks."""
        return self.layer_paths or tuple(chain.from_iterable(map(self.paths, self.stacks)))

    @property
    def padded_because(self) -> str:
        """Why the layers cannot run on packed tokens; empty where their class allows it."""
        if self.stacks:
            return f"it has {len(self.stacks)} stacks of layers"
        if not self.layer_paths:
            return "its class does not record its layers"
        return "" if self.backend else NO_BACKEND

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of the rows and single features below the head that this model has."""
        return tuple(name for name in (*ROWS, "embeddings", "pooled") if name not in self.lacking)

    def row_length(self, name: str) -> int:
        """How many members a row has (`hidden`: layers + 1). SourceFault B304 for a missing row."""
        return len(self._row(name))

    def site(self, feature: Feature) -> Site:
        """The place of a feature. SourceFault B301 to B304 for a feature that the model lacks."""
        if feature.head is not None and feature.head not in self.heads:
            raise self._no_head(f"{self.name} has no head `{feature.head}`")
        if feature.name == "tap":
            path = self.resolve(cast(str, feature.path), feature.head)
            return Site("input" if feature.input else "output", path, item=feature.item, call=feature.call)
        if feature.name in RESULTS:
            if self.heads and feature.head is None:
                raise self._no_head(f"`{feature.name}` is given by a head, and {self.name} has {len(self.heads)}")
            return Site("result", feature.head or "", field=RESULTS[feature.name])
        if feature.name == "pooled":
            self._require("pooled")
            return Site("field", self.base, "pooler_output")
        if feature.name == "embeddings":
            self._require("embeddings")
            return self.hidden[0]
        row, index = self._row(feature.name), cast(int, feature.index)
        if not -len(row) <= index < len(row):
            message = f"`{feature}` is out of range: {self.name} has {len(row)} of them"
            help = f"`{feature.name}` counts from 0 to {len(row) - 1}, or from -{len(row)} to -1"
            raise SourceFault("B303", message, help=help)
        site = row[index]
        return replace(site, field=feature.name) if site.kind == "attention" else site

    def resolve(self, path: str, head: str | None = None) -> str:
        """The full path of a module from its path in full, below the base model, or below a head.

        SourceFault B301 for a missing module, B302 for a container that never runs.
        """
        for full in (f"{head}.{path}",) if head else (path, f"{self.base}.{path}"):
            if full in self.modules:
                if self.modules[full]:
                    return full
                raise self._container(full)
        raise self._missing(f"{head}.{path}" if head else path)

    def paths(self, pattern: str) -> tuple[str, ...]:
        """The modules that match a pattern, in the model's order, without containers; `*` matches within one segment.

        Raises like `resolve` if nothing matches.
        """
        if not any(sign in pattern for sign in "*?["):
            return (self.resolve(pattern),)
        for full in (pattern, f"{self.base}.{pattern}"):
            segments = full.split(".")
            same_depth = [path for path in self.modules if path.count(".") == full.count(".")]
            matches = [path for path in same_depth if all(map(fnmatchcase, path.split("."), segments))]
            if runnable := tuple(path for path in matches if self.modules[path]):
                return runnable
            if matches:
                raise self._container(matches[0])
        raise self._missing(pattern)

    def _row(self, name: str) -> tuple[Site, ...]:
        self._require(name)
        return self.hidden if name == "hidden" else self.attention

    def _require(self, name: str) -> None:
        if name in self.lacking:
            others = f"it offers {listing(self.offered)}; " if self.offered else ""
            help = f'{others}any module can be tapped by its path: `tap t = model @ "path"`'
            raise SourceFault("B304", f"{self.name} has no `{name}`: {self.lacking[name]}", help=help)

    def _no_head(self, message: str) -> SourceFault:
        if not self.heads:
            return SourceFault("B304", message, help="remove the head: the model has a single head, or none")
        return SourceFault("B304", message, help=f"name one: it has the heads {listing(self.heads)}")

    def _children(self, prefix: str) -> list[str]:
        depth = prefix.count(".") + 1 if prefix else 0
        below = [path for path in self.modules if not prefix or path.startswith(prefix + ".")]
        return [path.split(".")[depth] for path in below if path.count(".") == depth]

    def _container(self, path: str) -> SourceFault:
        member = next(iter(self._children(path)), "0")
        message = f"`{path}` is a container that is never called, so it has no output"
        help = f'tap one of its members: "{path}.{member}", or all of them: "{path}.*"'
        return SourceFault("B302", message, help=help)

    def _missing(self, path: str) -> SourceFault:
        short = [full.removeprefix(self.base + ".") for full in self.modules] if self.base else []
        base = self.base if not path.startswith(self.base + ".") else ""
        longest = base
        for segment in path.split("."):
            further = f"{longest}.{segment}" if longest else segment
            if further not in self.modules:
                break
            longest = further
        children = self._children(longest)
        if children and all(child.isdigit() for child in children):
            inside = f"`{children[0]}` to `{children[-1]}`"
        else:
            inside = listing(children) or "no modules"
        inside = f"{f'`{longest}`' if longest else 'the model'} holds {inside}"
        near = suggest(path, [*short, *self.modules])
        return SourceFault("B301", f"{self.name} has no module `{path}`", help=f"{near} {inside}" if near else inside)


# ── inputs and outputs of modules ────────────────────────────────────────────────────────────────────────────────────


class Sizes(NamedTuple):
    """The sizes that vary between the two forwards that shapes are inferred from; small enough for every model."""

    batch: int
    length: int
    decoder_length: int


SIZES = (Sizes(2, 5, 3), Sizes(5, 7, 8))
"""The two forwards. No multiple of one size is another, nor a small step away from one, so that symbols are certain."""


@dataclass(frozen=True)
class ModuleValue:
    """A module's input or output: one tensor with its `shape`, `elements` of a tuple, or of a mapping with `names`.

    `kind` is `tensor`, `tuple`, `None`, or the name of a class. A size that follows no known symbol is `?`.
    """

    kind: str
    shape: Shape | None = None
    elements: tuple[ModuleValue, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def tensors(self) -> list[int]:
        """The places of the elements that are tensors."""
        return [i for i, element in enumerate(self.elements) if element.kind == "tensor"]

    def element(self, item: int | None, what: str) -> ModuleValue:
        """The one tensor that a tap means. SourceFault B305 as for `tensor_place`."""
        place = tensor_place(self, item, what)
        return self if place is None else self.elements[place]

    def as_json(self) -> Any:
        """A shape as a list, a tuple as a list of values under its names, else the class's name."""
        if self.kind == "tensor":
            return {"shape": list(self.shape) if self.shape is not None else None}
        if self.elements:
            names = self.names or map(str, range(len(self.elements)))
            return {name: element.as_json() for name, element in zip(names, self.elements, strict=True)}
        return None if self.kind == "None" else self.kind


@dataclass(frozen=True)
class Module:
    """A module in a forward: its class, and its first argument and output in each of its calls.

    In a list of taps it may stand for several equal ones; their `path` has `{0..11}` where only a number differs.
    `order` holds the places of its calls among all calls of the forward, `also` its other paths. A container (a list of
    modules) cannot run.
    """

    path: str
    kind: str
    takes: tuple[ModuleValue, ...] = ()
    gives: tuple[ModuleValue, ...] = ()
    order: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    can_run: bool = True

    @property
    def calls(self) -> int:
        return len(self.gives)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "class": self.kind,
            "calls": self.calls,
            "input": [value.as_json() for value in self.takes],
            "output": [value.as_json() for value in self.gives],
        } | ({"also": list(self.also)} if self.also else {})


def show(value: ModuleValue) -> str:
    """A value in a few words: its shape, the elements of a tuple with their places, or its class."""
    if value.kind == "tensor":
        return f"({', '.join(map(str, value.shape))})" if value.shape is not None else "(?)"
    if not value.elements:
        return value.kind
    names = value.names or [f"[{i}]" for i in range(len(value.elements))]
    return ", ".join(f"{name} {show(element)}" for name, element in zip(names, value.elements, strict=True))


def tensor_place(value: ModuleValue, item: int | None, what: str) -> int | None:
    """The place of the one tensor of a value that a tap means, None for the value itself.

    SourceFault B305 where no tensor is there, or several are.
    """
    shown, tensors = show(value), value.tensors
    help = f"add {' or '.join(f'[{i}]' for i in tensors)} to the path"
    if value.kind == "tensor":
        if item is None:
            return None
        message, help = f"is one tensor {shown}", f"remove [{item}]"
    elif not tensors:
        message, help = f"is not a tensor but {shown}", "tap another module: `brewgraph taps` lists the output of each"
    elif item is None:
        if len(tensors) == 1:
            return tensors[0]
        message = f"holds several tensors: {shown}"
    elif not -len(value.elements) <= item < len(value.elements):
        message = f"has no element [{item}]: {shown}"
    elif (kind := value.elements[item].kind) == "tensor":
        return item
    elif kind == "None":
        message = f"is None at [{item}]: {shown}"
        help = f"attention modules return no weights unless they run eagerly: use the feature `attention[i]`; or {help}"
    else:
        message = f"is not a tensor at [{item}]: {shown}"
    raise SourceFault("B305", f"{what} {message}", help=help)


def simple_shape(value: ModuleValue, what: str) -> Shape:
    """The shape of a tensor. SourceFault B305 where batch or length is part of a product or a sum."""
    if value.shape is None or not all(isinstance(size, int) or size in Sizes._fields for size in value.shape):
        message = f"{what} has the shape {show(value)}, in which batch and length are not axes of their own"
        raise SourceFault("B305", message, help="tap a module before or after the reshaping")
    return value.shape


def symbols(one: Shape, other: Shape) -> Shape | None:
    """The sizes of two forwards as one shape; None where they have different numbers of axes."""
    if len(one) != len(other):
        return None
    return tuple(a if a == b else _SYMBOLS.get((a, b), "?") for a, b in zip(one, other, strict=True))


def _size_symbols() -> dict[tuple[int | str, int | str], str]:
    """The symbol of each pair of sizes of both forwards: what varies, its products, and a step from a length."""
    (batch, *lengths), (other_batch, *other_lengths) = SIZES
    names: list[tuple[int, int, str]] = list(zip(*SIZES, Sizes._fields, strict=True))
    for name, a, b in zip(Sizes._fields[1:], lengths, other_lengths, strict=True):
        names += [(a - 1, b - 1, f"{name} - 1"), (a + 1, b + 1, f"{name} + 1")]
        names += [(2 * a, 2 * b, f"2 * {name}"), (2 * a - 1, 2 * b - 1, f"2 * {name} - 1")]
        names.append((batch * a, other_batch * b, f"batch * {name}"))
        names += [(n * batch * a, n * other_batch * b, f"{n} * batch * {name}") for n in range(2, 129)]
    names += [(n * batch, n * other_batch, f"{n} * batch") for n in range(2, 129)]
    return {(a, b): name for a, b, name in reversed(names)}  # of two symbols for one pair the first counts


_SYMBOLS = _size_symbols()


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class CallSignature:
    """The `names` of a forward's arguments, whether it takes any other (`rest`), those that it `needs`, and its number
    of `positions` (None if no table of positions limits the length).
    """

    names: frozenset[str]
    rest: bool
    needs: frozenset[str]
    positions: int | None


class FeatureTable(ABC):
    """A model's `anatomy`, and its modules and features in a forward. Its methods raise SourceFault for what the model
    lacks, and name what it has instead.
    """

    anatomy: Anatomy

    @property
    @abstractmethod
    def modules(self) -> Mapping[str, Module]:
        """Every module below the model by its path, in the order of the model.

        SourceFault B306 for a model that does not run.
        """

    @property
    @abstractmethod
    def call(self) -> CallSignature:
        """How the model can be called."""

    @abstractmethod
    def shape(self, feature: Feature, rows: Collection[str] = ROWS) -> Shape:
        """The feature's shape, with symbols for sizes that vary. SourceFault for a feature without one."""

    def infer(self, features: Collection[Feature]) -> Mapping[Feature, Shape | SourceFault]:
        """The shape of each feature, or its fault."""
        shapes: dict[Feature, Shape | SourceFault] = {}
        for feature in features:
            try:
                shapes[feature] = self.shape(feature)
            except SourceFault as fault:
                shapes[feature] = fault
        return shapes

    def calls(self, paths: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Each call of these modules in one forward: its path, and its number among the calls of that module.

        In the order of the forward if one of them runs several times; otherwise in the order of `paths`.
        """
        modules = [(path, self._module(path)) for path in paths]
        if all(module.calls <= 1 for _, module in modules):
            return tuple((path, 0) for path, _ in modules)
        calls = [(place, path, call) for path, module in modules for call, place in enumerate(module.order)]
        return tuple((path, call) for _, path, call in sorted(calls))

    def row_length(self, name: str) -> int:
        """How many members a row has. SourceFault B304 for a missing row; with several stacks it names their layers."""
        try:
            return self.anatomy.row_length(name)
        except SourceFault as fault:
            if not self.anatomy.stacks:
                raise
            taps = " or ".join(f'`tap t = model @ "{path}"{self._item(path)}`' for path in self.anatomy.stacks)
            raise SourceFault(fault.code, fault.message, help=f"tap the layers of one of them: {taps}") from fault

    def every_feature(self) -> list[Feature]:
        """Every named feature that the model may have: each member of its rows, and single features."""
        rows = [name for name in ROWS if name not in self.anatomy.lacking]
        members = [Feature(name, index) for name in rows for index in range(self.anatomy.row_length(name))]
        heads: tuple[str | None, ...] = self.anatomy.heads or (None,)
        singles = ((name, head) for name in SINGLES for head in (heads if name in RESULTS else (None,)))
        return [*members, *(Feature(name, head=head) for name, head in singles)]

    def _item(self, pattern: str) -> str:
        """The index of the first tensor of a module's output with several, `[0]`."""
        outputs = self._module(self.anatomy.paths(pattern)[0]).gives
        tensors = outputs[0].tensors if outputs else []
        return f"[{tensors[0]}]" if len(tensors) > 1 else ""

    def _module(self, path: str) -> Module:
        return self.modules.get(path) or next(module for module in self.modules.values() if path in module.also)

    def _tapped(self, feature: Feature) -> Shape:
        """The shape of a tap. SourceFault B336 if its module does not run, B305 if it gives no tensor."""
        site = self.anatomy.site(feature)
        module = self._module(site.path)
        if site.call >= module.calls:
            times = f"is called {module.calls} times" if module.calls else "is never called"
            message = f"`{site.path}` {times} in a forward of {self.anatomy.name}, so there is nothing to tap"
            raise SourceFault("B336", message, help=self._instead(site.path))
        value = (module.takes if feature.input else module.gives)[site.call]
        what = f"the {'input' if feature.input else 'output'} of `{site.path}`"
        return simple_shape(value.element(feature.item, what), what)

    def _instead(self, path: str) -> str:
        """A remedy for a module that does not run: the nearest module around it that runs."""
        above = path
        while above := above.rpartition(".")[0]:
            if above in self.modules and self.modules[above].calls:
                return f'tap the module around it: "{above}"; `brewgraph taps` lists the output of each module'
        return "`brewgraph taps` lists the output of each module, and which are never called"


@dataclass(frozen=True)
class FeatureRecord:
    """A feature table as a value that can be written to disk, with the faults of features that have no shape."""

    anatomy: Anatomy
    modules: tuple[Module, ...] | Refusal
    shapes: tuple[tuple[Feature, Shape | Refusal], ...]
    call: CallSignature


class Recorded(FeatureTable):
    """The feature table of a record: the same answers as from the model itself."""

    def __init__(self, record: FeatureRecord):
        self.record, self.anatomy = record, record.anatomy

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        modules = self.record.modules
        if isinstance(modules, Refusal):
            raise modules.fault
        return {module.path: module for module in modules}

    @property
    def call(self) -> CallSignature:
        return self.record.call

    @cached_property
    def _shapes(self) -> Mapping[Feature, Shape | Refusal]:
        return dict(self.record.shapes)

    def shape(self, feature: Feature, rows: Collection[str] = ROWS) -> Shape:
        self.anatomy.site(feature)
        if feature.name == "tap":
            return self._tapped(feature)
        shape = self._shapes[feature]
        if isinstance(shape, Refusal):
            raise shape.fault
        return shape


# ── the list of all taps ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class FeatureRow:
    """A named feature: `count` members if it is a row, their shape in words, or the reason why it is missing."""

    name: str
    count: int | None = None
    shape: str = ""
    lacking: str = ""

    def as_json(self) -> dict[str, Any]:
        if self.lacking:
            return {"name": self.name, "lacking": self.lacking}
        return {"name": self.name} | ({"count": self.count} if self.count is not None else {}) | {"shape": self.shape}


@dataclass(frozen=True)
class Taps:
    """The features and modules of one model; paths may begin below `base` (empty for a base model)."""

    title: str
    kind: str
    base: str
    features: tuple[FeatureRow, ...]
    modules: tuple[Module, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.title,
            "class": self.kind,
            "base": self.base,
            "features": [row.as_json() for row in self.features],
            "modules": [row.as_json() for row in self.modules],
        }


def taps_of(feature_table: FeatureTable, title: str, *, collapse: bool = True, path: str | None = None) -> Taps:
    """All that can be tapped of a model. Equal layers become one row, unless `collapse` is false.

    With a `path` only the modules that a tap would match, `*` included; if there are none, those whose path contains
    it. SourceFault B301 or B302 if there are none either, B306 for a model that does not run.
    """
    anatomy = feature_table.anatomy
    modules = [replace(module, order=()) for module in feature_table.modules.values()]
    if path is None:
        features = tuple(_features(feature_table))
        return Taps(title, anatomy.name, anatomy.base, features, tuple(collapsed(modules) if collapse else modules))
    try:
        wanted = set(anatomy.paths(path))
    except SourceFault as fault:
        wanted = {module.path for module in modules if path in module.path and module.can_run}
        if not wanted:
            raise fault from None
    modules = [module for module in modules if wanted & {module.path, *module.also}]
    return Taps(title, anatomy.name, anatomy.base, (), tuple(gathered(modules) if collapse else modules))


def _features(feature_table: FeatureTable) -> Iterator[FeatureRow]:
    anatomy = feature_table.anatomy
    feature_table.infer(feature_table.every_feature())
    for head in anatomy.heads or (None,):
        for name in RESULTS:
            feature = Feature(name, head=head)
            shape = feature_table.infer([feature])[feature]
            if not isinstance(shape, SourceFault):
                yield FeatureRow(str(feature), None, show(ModuleValue("tensor", shape)))
    for name in (*(name for name in SINGLES if name not in RESULTS), *ROWS):
        count = anatomy.row_length(name) if name in ROWS and name not in anatomy.lacking else None
        members = [Feature(name, i) for i in range(count)] if count is not None else [Feature(name)]
        shapes = list(dict.fromkeys(feature_table.infer(members).values()))
        faults = [shape for shape in shapes if isinstance(shape, SourceFault)]
        if name in anatomy.lacking or faults:
            yield FeatureRow(name, lacking=anatomy.lacking.get(name) or str(faults[0]))
        else:
            texts = [show(ModuleValue("tensor", shape)) for shape in shapes if not isinstance(shape, SourceFault)]
            yield FeatureRow(name, count, " or ".join(dict.fromkeys(texts)))


# ── equal layers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def collapsed(modules: Sequence[Module]) -> list[Module]:
    """The modules, with neighbours that are equal under other numbers as one: `layer.{0..11}` and those below it.

    Layers are equal if all modules below them are; two runs of different layers are two blocks.
    """
    result: list[Module] = []
    for module, *below in _blocks(modules):
        result.append(module)
        layers = _blocks(below)
        if len(layers) < 2 or not all(layer[0].path.rpartition(".")[2].isdigit() for layer in layers):
            result += collapsed(below)
            continue
        for _, group in groupby(layers, key=lambda layer: _moved(layer, layer[0].path, "")):
            (first, *inside), *others = group
            pattern = first.path
            if others:
                pattern = f"{module.path}.{{{pattern.rpartition('.')[2]}..{others[-1][0].path.rpartition('.')[2]}}}"
            result += _moved([first, *collapsed(inside)], first.path, pattern)
    return result


def _blocks(modules: Sequence[Module]) -> list[list[Module]]:
    """The outermost modules, each with all modules below it."""
    blocks: list[list[Module]] = []
    for module in modules:
        if blocks and module.path.startswith(f"{blocks[-1][0].path}."):
            blocks[-1].append(module)
        else:
            blocks.append([module])
    return blocks


def _moved(modules: Sequence[Module], start: str, to: str) -> list[Module]:
    """The modules with paths that begin with `to` instead of `start`, and no others."""
    return [replace(module, path=to + module.path.removeprefix(start), also=()) for module in modules]


def gathered(modules: Sequence[Module]) -> list[Module]:
    """The modules, with those that differ in one number alone as one, at the place of the first."""
    groups: dict[tuple[object, ...], list[Module]] = {}
    for module in modules:
        segments = tuple("#" if s.isdigit() else s for s in module.path.split("."))
        groups.setdefault((segments, module.kind, module.takes, module.gives), []).append(module)
    result: list[Module] = []
    for group in groups.values():
        columns = [list(dict.fromkeys(column)) for column in zip(*(m.path.split(".") for m in group), strict=True)]
        varying = [[int(number) for number in column] for column in columns if len(column) > 1]
        if len(varying) == 1 and varying[0] == list(range(varying[0][0], varying[0][-1] + 1)):
            pattern = ".".join(c[0] if len(c) == 1 else f"{{{c[0]}..{c[-1]}}}" for c in columns)
            group = _moved(group[:1], group[0].path, pattern)
        result += group
    return result
