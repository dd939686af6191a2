"""The base of everything that a call in a spec is turned into."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of everything that a call in a spec is turned into: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    positional: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[str | None] = None
    """Name of the field that collects keyword arguments which are no field, or None where they are a fault."""
    bare: ClassVar[frozenset[str]] = frozenset()
    """Fields that are words and may stand bare: `problem_type=regression`."""
