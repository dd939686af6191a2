"""Everything that a spec can take from a model: named features, and every module by its path; without weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from brewgraph.diagnostics import SourceFault
from brewgraph.models.structure.anatomy import RESULTS
from brewgraph.models.structure.feature_table import FeatureTable
from brewgraph.models.structure.module_io import ModuleValue, show
from brewgraph.recipe.features import ROWS, SINGLES, Feature


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
class ModuleRow:
    """One module, or several equal ones: `pattern` is their path, with `{0..11}` where only a number differs.

    `takes` and `gives` have one value per call of one of them. A `container` (a list of modules) cannot be called.
    """

    pattern: str
    kind: str
    takes: tuple[ModuleValue, ...]
    gives: tuple[ModuleValue, ...]
    also: tuple[str, ...] = ()
    container: bool = False

    @property
    def calls(self) -> int:
        return len(self.gives)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.pattern,
            "class": self.kind,
            "calls": self.calls,
            "input": [_value(value) for value in self.takes],
            "output": [_value(value) for value in self.gives],
        } | ({"also": list(self.also)} if self.also else {})


@dataclass(frozen=True)
class Taps:
    """The features and modules of one model; paths may begin below `base` (empty for a base model)."""

    title: str
    kind: str
    base: str
    features: tuple[FeatureRow, ...]
    modules: tuple[ModuleRow, ...]

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
    rows = [ModuleRow(x.path, x.kind, x.takes, x.gives, x.also, not x.can_run) for x in feature_table.modules.values()]
    if path is not None:
        try:
            wanted = set(anatomy.paths(path))
        except SourceFault as fault:
            wanted = {row.pattern for row in rows if path in row.pattern and not row.container}
            if not wanted:
                raise fault from None
        rows = [row for row in rows if wanted & {row.pattern, *row.also}]
        modules = gathered(rows) if collapse else rows
    else:
        modules = collapsed(rows) if collapse else rows
    return Taps(
        title, anatomy.name, anatomy.base, tuple(_features(feature_table)) if path is None else (), tuple(modules)
    )


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


def collapsed(rows: Sequence[ModuleRow], prefix: str = "") -> list[ModuleRow]:
    """The rows, with neighbours that are equal under other numbers as one: `layer.{0..11}` and the rows below it.

    Layers are equal if all rows below them are; two runs of different layers are two blocks.
    """
    result: list[ModuleRow] = []
    for block in _blocks(rows, prefix):
        result.append(block.row)
        path = block.row.pattern
        layers = _blocks(block.below, f"{path}.")
        if len(layers) < 2 or not all(layer.name.isdigit() for layer in layers):
            result += collapsed(block.below, f"{path}.")
            continue
        for _, group in groupby(layers, key=lambda layer: layer.relative_rows()):
            run = list(group)
            first = run[0].row.pattern
            pattern = first if len(run) == 1 else f"{path}.{{{run[0].name}..{run[-1].name}}}"
            for row in (run[0].row, *collapsed(run[0].below, f"{first}.")):
                result.append(replace(row, pattern=pattern + row.pattern.removeprefix(first), also=()))
    return result


@dataclass
class _Block:
    """A module's name below a prefix, its row, and all rows below it."""

    name: str
    row: ModuleRow
    below: list[ModuleRow]

    def relative_rows(self) -> list[ModuleRow]:
        """Its rows with paths relative to it, equal for equal layers."""
        rows = (self.row, *self.below)
        return [replace(row, pattern=row.pattern.removeprefix(self.row.pattern), also=()) for row in rows]


def _blocks(rows: Sequence[ModuleRow], prefix: str) -> list[_Block]:
    blocks: list[_Block] = []
    for row in rows:
        name = row.pattern.removeprefix(prefix)
        if blocks and name.startswith(f"{blocks[-1].name}."):
            blocks[-1].below.append(row)
        else:
            blocks.append(_Block(name, row, []))
    return blocks


def gathered(rows: Sequence[ModuleRow]) -> list[ModuleRow]:
    """The rows, with those that differ in one number alone as one, at the place of the first."""
    groups: dict[tuple[object, ...], list[ModuleRow]] = {}
    for row in rows:
        segments = ["#" if s.isdigit() else s for s in row.pattern.split(".")]
        groups.setdefault((tuple(segments), row.kind, row.takes, row.gives), []).append(row)
    result: list[ModuleRow] = []
    for group in groups.values():
        columns = [tuple(dict.fromkeys(column)) for column in zip(*(r.pattern.split(".") for r in group), strict=True)]
        varying = [column for column in columns if len(column) > 1]
        if len(varying) != 1 or not _in_a_row(varying[0]):
            result += group
            continue
        pattern = ".".join(c[0] if len(c) == 1 else f"{{{c[0]}..{c[-1]}}}" for c in columns)
        result.append(replace(group[0], pattern=pattern, also=()))
    return result


def _in_a_row(numbers: Sequence[str]) -> bool:
    first = int(numbers[0])
    return [int(number) for number in numbers] == list(range(first, first + len(numbers)))


def _value(value: ModuleValue) -> Any:
    """A value for machines: a shape as a list, a tuple as a list of values under its names, else the class's name."""
    if value.kind == "tensor":
        return {"shape": list(value.shape) if value.shape is not None else None}
    if value.elements:
        names = value.names or tuple(map(str, range(len(value.elements))))
        return {name: _value(element) for name, element in zip(names, value.elements, strict=True)}
    return None if value.kind == "None" else value.kind
