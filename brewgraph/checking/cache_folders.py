"""Whether a run can use the folders of caches. Nothing is created or written here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault
from brewgraph.paths import locate
from brewgraph.recipe import values as v

if TYPE_CHECKING:
    from brewgraph.checking.context import CheckContext

_SUFFIX, _MAGIC, _AT = ".lmdb", bytes.fromhex("dec0efbe"), 16
"""How a file of a cache ends, and four bytes that each has at this place; a new one may be empty."""


def check_cache_folders(context: CheckContext) -> None:
    """B244, once for each `cache` whose folder a run cannot use."""
    folder = context.recipe.source.folder
    caches = [x for value in context.recipe.values() for x in v.walk(value) if isinstance(x, v.Cached)]
    for cache in {x.name: x for x in caches}.values():
        try:
            problem = _problem(locate(cache.path, folder))
        except SourceFault as fault:
            problem = fault.message, fault.help
        if problem is not None:
            message, help = problem
            context.collector.add("B244", f"`{cache.name}` cannot be kept here: {message}", cache.place, help=help)


def _problem(path: Path) -> tuple[str, str] | None:
    """What is wrong with the folder of a cache, and the remedy; None if a run can use it or create it."""
    help = "name another folder"
    there = path
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        what = "this is a file" if there == path else f"{there} is a file"
        return f"{what}, but a cache is a folder", f"{help}, which need not exist"
    if not os.access(there, os.W_OK | os.X_OK):
        what = "write to it" if there == path else f"create a folder in {there}"
        return f"this user may not {what}", f"{help}, or change its permissions"
    if old := sorted(path.glob("*.sqlite")):
        what = f"{old[0].name} in it was written by an earlier version of brewgraph, whose format is no longer read"
        return what, "delete that file, or name another folder: its values are computed again"
    for file in sorted(path.glob(f"*{_SUFFIX}")):
        try:
            with file.open("rb") as opened:
                first = opened.read(_AT + len(_MAGIC))
        except OSError as error:
            return f"{file.name} in it cannot be read ({error.strerror})", f"{help}, or move that file away"
        if first and first[_AT:] not in (_MAGIC, _MAGIC[::-1]):
            return f"{file.name} in it is not a cache", f"{help}, or move that file away"
        if not os.access(file, os.W_OK):
            return f"this user may not write to {file.name} in it", f"{help}, or change its permissions"
    return None
