"""Long specs without searches for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Nothing is searched for garbage meanwhile: a long spec makes many objects that stay, and each search goes through
    the millions that torch and transformers consist of, which would take most of the time.
    """
    were_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were_on:
            gc.enable()
