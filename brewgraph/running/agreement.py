"""How far a student agrees with a teacher, as values that a run's folder keeps. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from brewgraph.training.folder import RunFolder, read_object

_FILE = "agreement.json"


@dataclass(frozen=True)
class Agreement:
    """A student's predictions beside those of a teacher, on the first `examples` of a split of a task's data.

    `kind` is the type of the labels, "" without. `scores` are numbers by name, a share where the name does not say
    otherwise. `counts` (teacher, student) say how often a pair of classes was predicted, `names` name its rows and
    columns. `reliability` holds by model (confidence, accuracy, examples) of each bin. `points` are pairs of a number
    of the teacher and one of the student, which `measured` names. `positions` holds curves over places in a text by
    name. `partings` is a table of the examples where both part, its header first. `notes` say how it was measured.
    """

    task: str
    teacher: str
    student: str
    kind: str
    data: str
    split: str
    examples: int
    scores: Mapping[str, float] = field(default_factory=dict)
    names: Sequence[str] = ()
    counts: Sequence[Sequence[int]] = ()
    reliability: Mapping[str, Sequence[tuple[float, float, int]]] = field(default_factory=dict)
    measured: str = ""
    points: Sequence[tuple[float, float]] = ()
    positions: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    partings: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        # in a file NaN is null, and tuples are lists; anything else is of another version, and raises
        scores = {name: _number(value) for name, value in self.scores.items()}
        positions = {name: [(at, _number(value)) for at, value in line] for name, line in self.positions.items()}
        reliability = {
            name: [(float(at), float(right), int(n)) for at, right, n in bins]
            for name, bins in self.reliability.items()
        }
        object.__setattr__(self, "counts", tuple(tuple(map(int, row)) for row in self.counts))
        object.__setattr__(self, "reliability", reliability)
        object.__setattr__(self, "partings", tuple(tuple(map(str, row)) for row in self.partings))
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "points", [(_number(one), _number(other)) for one, other in self.points])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read_agreements(folder: RunFolder) -> tuple[Agreement, ...] | None:
    """What `keep_agreements` wrote for this run; None if there is nothing."""
    content = read_object(folder.path / _FILE)
    if content is None or content.get("hash") != (folder.resolved or {}).get("hash"):
        return None
    try:
        return tuple(Agreement(**part) for part in content["agreements"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):  # of another version
        return None


def keep_agreements(folder: RunFolder, agreements: Sequence[Agreement]) -> None:
    """Write them into the run's folder."""
    content = {"hash": (folder.resolved or {}).get("hash"), "agreements": [vars(part) for part in agreements]}
    folder.write_json(_FILE, content)
