"""Everything a loss equation can be made of; to add a loss is to write one decorated function in one of these files."""

from brewgraph.ops import distance, relation, soft, temperatures, transforms  # noqa: F401  (they register themselves)
from brewgraph.ops.projections import PROJECTIONS, ProjectionKind
from brewgraph.ops.registry import (
    KINDS,
    OPERATIONS,
    TEMPERATURES,
    TRANSFORMS,
    UNITS,
    DeclaredTemperature,
    DeclaredTransform,
    Operation,
    Shape,
    is_row,
    is_tuple,
    operation,
    side_kinds,
    split_formula,
    temperature,
    transform,
)
from brewgraph.ops.schedules import SCHEDULES

__all__ = [
    "KINDS",
    "OPERATIONS",
    "PROJECTIONS",
    "SCHEDULES",
    "TEMPERATURES",
    "TRANSFORMS",
    "UNITS",
    "DeclaredTemperature",
    "DeclaredTransform",
    "Operation",
    "ProjectionKind",
    "Shape",
    "is_row",
    "is_tuple",
    "operation",
    "side_kinds",
    "split_formula",
    "temperature",
    "transform",
]
