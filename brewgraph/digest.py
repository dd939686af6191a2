"""The one hash of structures: of specs, graphs, runs and projections, and of what is remembered of models and data.

Contents of files and tensors are hashed as bytes where they are read.
"""

from __future__ import annotations

import hashlib
from typing import Any


def digest(*parts: Any) -> str:
    """A hash of plain values (their `repr` is stable), 16 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
