"""Everything of a model that a spec can take: named features, and every module by its path; without weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from brewgraph.diagnostics import SourceFault
from brewgraph.models.structure.anatomy import RESULTS
from brewgraph.models.structure.feature_table import FeatureTable
from brewgraph.models.structure.module_io import ModuleValue, show
from brewgraph.recipe.features import ROWS, SINGLES, Feature


@dataclass(frozen=True)
class FeatureRow:
    """A named feature: `count` members where it is a row, their shape in words, or the reason why there is none."""

    name: str
    count: int | None = None
    shape: str = ""
    lacking: str = ""

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name}
        if self.lacking:
            return found | {"lacking": self.lacking}
        return found | ({"count": self.count} if self.count is not None else {}) | {"shape": self.shape}


@dataclass(frozen=True)
class ModuleRow:
    """One module, or several that are alike: `pattern` is their path, with `{0..11}` where only a number differs.

    `takes` and `gives` are one value per call of one of them; there are none where it is never called. A `container`
    (a list of modules) cannot be.
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
    """What one model offers: `base` is the path below which paths may begin (empty where the model is its own)."""

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

    With a `path` only the modules that it means, as a tap would, `*` included; else those with these letters in their
    path. SourceFault B301 or B302 where there is none, B306 for a model that does not run.
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
            found = feature_table.infer([feature])[feature]
            if not isinstance(found, SourceFault):
                yield FeatureRow(str(feature), None, show(ModuleValue("tensor", found)))
    for name in (*(name for name in SINGLES if name not in RESULTS), *ROWS):
        count = anatomy.rows(name) if name in ROWS and name not in anatomy.lacking else None
        members = [Feature(name, i) for i in range(count)] if count is not None else [Feature(name)]
        found_ones = list(dict.fromkeys(feature_table.infer(members).values()))
        faults = [found for found in found_ones if isinstance(found, SourceFault)]
        if name in anatomy.lacking or faults:
            yield FeatureRow(name, lacking=anatomy.lacking.get(name) or str(faults[0]))
        else:
            texts = [show(ModuleValue("tensor", found)) for found in found_ones if not isinstance(found, SourceFault)]
            yield FeatureRow(name, count, " or ".join(dict.fromkeys(texts)))


# ── equal layers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def collapsed(rows: Sequence[ModuleRow]) -> list[ModuleRow]:
    """The rows, with neighbours that hold the same under other numbers as one: `layer.{0..11}` and what is below it.

    Layers are alike when everything below them is, row by row; two runs of unlike layers are two blocks.
    """
    return _collapsed(list(rows), "")


def _collapsed(rows: list[ModuleRow], prefix: str) -> list[ModuleRow]:
    found: list[ModuleRow] = []
    for name, own, below in _children(rows, prefix):
        found.append(own)
        blocks = _children(below, f"{prefix}{name}.")
        if len(blocks) < 2 or not all(child.isdigit() for child, _, _ in blocks):
            found += _collapsed(below, f"{prefix}{name}.")
            continue
        path = f"{prefix}{name}"
        runs: list[list[tuple[str, ModuleRow, list[ModuleRow]]]] = []
        for block in blocks:
            if runs and _alike(runs[-1][0], block, path):
                runs[-1].append(block)
            else:
                runs.append([block])
        for run in runs:
            first, last = run[0][0], run[-1][0]
            here = f"{path}.{first}"
            there = here if first == last else f"{path}.{{{first}..{last}}}"
            block_rows = [run[0][1], *_collapsed(run[0][2], f"{here}.")]
            found += [replace(row, pattern=there + row.pattern.removeprefix(here), also=()) for row in block_rows]
    return found


def gathered(rows: Sequence[ModuleRow]) -> list[ModuleRow]:
    """The rows, those that differ in one number alone as one, at the place of the first."""
    groups: dict[Any, list[ModuleRow]] = {}
    for row in rows:
        segments = ["#" if s.isdigit() else s for s in row.pattern.split(".")]
        groups.setdefault((tuple(segments), row.kind, row.takes, row.gives), []).append(row)
    found: list[ModuleRow] = []
    for group in groups.values():
        columns = [tuple(dict.fromkeys(column)) for column in zip(*(r.pattern.split(".") for r in group), strict=True)]
        varying = [column for column in columns if len(column) > 1]
        if len(varying) != 1 or not _in_a_row(varying[0]):
            found += group
            continue
        pattern = ".".join(c[0] if len(c) == 1 else f"{{{c[0]}..{c[-1]}}}" for c in columns)
        found.append(replace(group[0], pattern=pattern, also=()))
    return found


def _in_a_row(numbers: Sequence[str]) -> bool:
    first = int(numbers[0])
    return [int(number) for number in numbers] == list(range(first, first + len(numbers)))


def _children(rows: list[ModuleRow], prefix: str) -> list[tuple[str, ModuleRow, list[ModuleRow]]]:
    """The rows right below a prefix, each with its name and all rows below it."""
    found: list[tuple[str, ModuleRow, list[ModuleRow]]] = []
    for row in rows:
        name = row.pattern.removeprefix(prefix)
        if found and name.startswith(f"{found[-1][0]}."):
            found[-1][2].append(row)
        else:
            found.append((name, row, []))
    return found


def _alike(
    one: tuple[str, ModuleRow, list[ModuleRow]], other: tuple[str, ModuleRow, list[ModuleRow]], path: str
) -> bool:
    def bare(block: tuple[str, ModuleRow, list[ModuleRow]]) -> list[ModuleRow]:
        here = f"{path}.{block[0]}"
        return [replace(row, pattern=row.pattern.removeprefix(here), also=()) for row in (block[1], *block[2])]

    return bare(one) == bare(other)


def _value(value: ModuleValue) -> Any:
    """A value for machines: a shape as a list, a tuple as a list of values under its names, else the class's name."""
    if value.kind == "tensor":
        return {"shape": list(value.shape) if value.shape is not None else None}
    if value.elements:
        names = value.names or tuple(map(str, range(len(value.elements))))
        return {name: _value(element) for name, element in zip(names, value.elements, strict=True)}
    return None if value.kind == "None" else value.kind
