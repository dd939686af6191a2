"""Everything a loss equation can be made of; to add a loss is to write one decorated function in one of these files."""

from brewgraph.ops import distance as _distance
from brewgraph.ops import relation as _relation
from brewgraph.ops import soft as _soft
from brewgraph.ops import temperatures as _temperatures
from brewgraph.ops import transforms as _transforms
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
    "temperature",
    "transform",
]
_FAMILIES = (_distance, _relation, _soft, _temperatures, _transforms)
