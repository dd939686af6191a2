"""What is known of a spec once its models and data are looked at: plain values that go from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from brewgraph.editor.analysis import Fault


@dataclass(frozen=True)
class ShapeFact:
    """The shapes of what stands at a stretch of the text; a list has one for each kind of member."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class TermFact:
    """An addend of a loss: its weight, and what it is a mean over. `start` is where its name ends."""

    name: str
    start: int
    weight: str
    unit: str
    mask: str


@dataclass(frozen=True)
class ModelFact:
    """A model: its class, its features as (name, members or None, shape), its modules as (path, class, output)."""

    kind: str
    base: str
    parameters: int
    features: tuple[tuple[str, int | None, str], ...] = ()
    modules: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class SpecFacts:
    """The result of a full check: its faults, and as far as it got shapes, terms and models."""

    faults: tuple[Fault, ...] = ()
    shapes: tuple[ShapeFact, ...] = ()
    terms: tuple[TermFact, ...] = ()
    models: Mapping[str, ModelFact] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SpecFacts:
        models = {
            name: ModelFact(
                m["kind"], m["base"], m["parameters"], tuple(map(tuple, m["features"])), tuple(map(tuple, m["modules"]))
            )
            for name, m in values["models"].items()
        }
        return cls(
            tuple(map(Fault.from_json, values["faults"])),
            tuple(ShapeFact(**x) for x in values["shapes"]),
            tuple(TermFact(**x) for x in values["terms"]),
            models,
        )
