"""Folders that caches are kept in: whether a run could make them and write there. Nothing is made or written here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault
from brewgraph.paths import locate
from brewgraph.recipe import values as v

if TYPE_CHECKING:
    from brewgraph.facts.book import CheckContext

_MAGIC = b"SQLite format 3\0"
"""What an SQLite file begins with; one in which nothing stands yet is empty."""


def check_stores(context: CheckContext) -> None:
    """B244, once for each `cache` whose folder no run could use."""
    recipe, _, collector = context
    folder = recipe.source.folder
    caches = [x for value in recipe.values() for x in v.walk(value) if isinstance(x, v.Cached)]
    for x in {x.name: x for x in caches}.values():
        try:
            found = _refusal(locate(x.path, folder))
        except SourceFault as fault:
            found = fault.message, fault.help
        if found is not None:
            message, help = found
            collector.add("B244", f"`{x.name}` cannot be kept here: {message}", x.place, help=help)


def _refusal(path: Path) -> tuple[str, str] | None:
    """What is wrong with a folder of a cache, and the remedy; None where a run can use it, or make it."""
    help = "name another folder"
    there = path
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        what = "this is a file" if there == path else f"{there} is a file"
        return f"{what}, and values are kept in files of a folder", f"{help}, which need not be there"
    if not os.access(there, os.W_OK | os.X_OK):
        what = "write into it" if there == path else f"make a folder in {there}"
        return f"this user may not {what}", f"{help}, or change its permissions"
    for file in sorted(path.glob("*.sqlite")):
        try:
            with file.open("rb") as opened:
                begins = opened.read(len(_MAGIC))
        except OSError as error:
            return f"{file.name} in it cannot be read ({error.strerror})", f"{help}, or move that file away"
        if begins not in (b"", _MAGIC):
            return f"{file.name} in it is no store of values", f"{help}, or move that file away"
        if not os.access(file, os.W_OK):
            return f"this user may not write into {file.name} in it", f"{help}, or change its permissions"
    return None
