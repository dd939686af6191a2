"""One text of a spec, read without its models: its faults, its names, and whether all of it parsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from brewgraph.checking.check import read
from brewgraph.diagnostics import Diagnostic, SourceFault, SpecError
from brewgraph.editor.index import Index, index_of
from brewgraph.paths import locate
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.parser import ParsedStatements


@dataclass(frozen=True)
class Spot:
    """A stretch of a file, by lines and columns from 0. `file` is its path, empty for the text itself."""

    file: str
    row: int
    column: int
    end_row: int
    end_column: int
    text: str = ""

    @classmethod
    def of(cls, span: Span, here: Source, text: str = "") -> Spot:
        (row, column), (end_row, end_column) = span.position, span.source.position(span.end)
        file = "" if span.source.name == here.name else span.source.name
        return cls(file, row - 1, column - 1, end_row - 1, end_column - 1, text)


@dataclass(frozen=True)
class Fault:
    """A diagnostic at a stretch of one text. One of another file stands where this text names that file, and `spots`
    holds its own place.
    """

    code: str
    message: str
    help: str
    note: str
    start: int
    end: int
    spots: tuple[Spot, ...] = ()

    @property
    def is_warning(self) -> bool:
        return self.code.startswith("W")

    def moved(self, start: int, end: int) -> Fault:
        """The same fault elsewhere."""
        return Fault(self.code, self.message, self.help, self.note, start, end, self.spots)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fault:
        return cls(**{**values, "spots": tuple(Spot(**spot) for spot in values["spots"])})


def faults_of(diagnostics: Iterable[Diagnostic], spec: t.Spec | None, source: Source) -> tuple[Fault, ...]:
    """Diagnostics as faults of this text."""
    faults = []
    for d in diagnostics:
        spots = [Spot.of(label.span, source, label.text) for label in d.labels]
        start, end, message = d.span.start, d.span.end, d.message
        if d.span.source.name != source.name:
            start, end = _place_of(d.span.source, spec, source)
            spots.insert(0, Spot.of(d.span, source, d.message))
            message = f"in {d.span.source.name}: {d.message}"
        faults.append(Fault(d.code, message, d.help, d.note, start, end, tuple(spots)))
    return tuple(dict.fromkeys(faults))


def _place_of(other: Source, spec: t.Spec | None, source: Source) -> tuple[int, int]:
    """Where a text names another spec, to import it or to build on it; its first line if it does so indirectly."""
    for node in spec.walk() if spec is not None else ():
        if isinstance(node, t.Import) and node.is_spec and _names(node.target, other, source):
            return node.span.start, node.span.end
        if isinstance(node, t.String) and _names(node.value, other, source):
            return node.span.start, node.span.end
    return 0, len(source.text.partition("\n")[0])


def _names(path: str, other: Source, source: Source) -> bool:
    if not path.endswith(".brew"):
        return False
    try:
        return locate(path, source.folder).resolve() == locate(other.name, source.folder).resolve()
    except (SourceFault, OSError):
        return False


@dataclass(frozen=True)
class Analysis:
    """What a text says by itself. If it has not `parsed` as a whole, the index lacks the statements at fault."""

    source: Source
    spec: t.Spec
    faults: tuple[Fault, ...]
    parsed: bool

    @cached_property
    def index(self) -> Index:
        """The names of the text, made when first asked for: faults are published before."""
        return index_of(self.spec, self.source)


def nothing(source: Source, faults: tuple[Fault, ...] = ()) -> Analysis:
    """A text of which nothing is known but faults."""
    return Analysis(source, t.Spec((), span=Span(source, 0, len(source.text))), faults, False)


def analyse(source: Source, known: ParsedStatements | None = None) -> Analysis:
    """Read a text up to its names and kinds. `known` holds the statements of its last version."""
    try:
        reading = read(source, {}, known)
    except (RecursionError, SpecError) as error:
        place = Span(source, 0, len(source.text.partition("\n")[0]))
        deep = Diagnostic("B012", "its equations are nested too deeply", place, "split them into several")
        diagnostics = error.diagnostics if isinstance(error, SpecError) else (deep,)
        return nothing(source, faults_of(diagnostics, None, source))
    faults = faults_of(reading.collector.sorted(), reading.spec, source)
    return Analysis(source, reading.spec, faults, not reading.parsed.failed)
