"""The features of a model as a table, whose answers need neither the model nor torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from brewgraph.diagnostics import Refusal, SourceFault
from brewgraph.models.structure.anatomy import RESULTS, Anatomy
from brewgraph.models.structure.module_io import Module, simple_shape
from brewgraph.recipe.features import ROWS, SINGLES, Feature, Shape


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
        below = [name for name in SINGLES if name not in RESULTS]
        heads: tuple[str | None, ...] = self.anatomy.heads or (None,)
        results = [Feature(name, head=head) for head in heads for name in RESULTS]
        return [*members, *(Feature(name) for name in below), *results]

    def _item(self, pattern: str) -> str:
        """The index of the first tensor of a module's output with several, `[0]`."""
        outputs = self._module(self.anatomy.paths(pattern)[0]).gives
        tensors = [i for i, x in enumerate(outputs[0].elements) if x.kind == "tensor"] if outputs else []
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
