"""Damaged files of a run folder: a run whose facts cannot be read is neither used nor cleared. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import RunError
from brewgraph.running.scores import ScoreRow, cells_of
from brewgraph.training.folder import RunFolder, display_path

_TYPES: Mapping[str, type] = {
    "hash": str, "spec": str, "folder": str, "params": dict, "graphs": dict, "stages": dict, "models": dict,
    "data": dict, "tasks": dict, "fingerprints": dict, "circumstances": dict,
}  # fmt: skip
"""What `resolved.json` holds. Each may be missing: another version wrote the file."""
ANEW = "by `brewgraph run SPEC --force`"
"""How to begin anew, for who has only the folder."""


def rows_of(finished: Mapping[str, Any]) -> tuple[ScoreRow, ...]:
    """The table in the content of a `finished.json`; empty for that of a baseline. `ValueError` for anything else."""
    try:
        rows = tuple(ScoreRow(**row) for row in finished.get("table", ()))
        if not all(isinstance(x.name, str) and isinstance(x.per_second, int | float) for x in rows):
            raise ValueError
        cells_of(rows, memory=True)  # which does not work of a table of another version
        return rows
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError):
        raise ValueError("it holds no table") from None


def damage(folder: RunFolder) -> str:
    """What is wrong with the files that say what a run is and how it ended, "" where nothing is or nothing is at stake.

    At stake are a student, checkpoints and a table, also those of the baseline.
    """
    parts = (folder, folder.baseline)
    name, resolved = folder.path / "resolved.json", folder.resolved
    if resolved is not None and resolved.get("clearing"):
        return ""  # an earlier run was being removed
    if resolved is None or not _is_sound(resolved):
        if not any(_holds_work(part) for part in parts):
            return ""
        is_there = os.path.lexists(name)
        return f"{display_path(name)} {'cannot be read' if is_there else 'is missing beside a trained student'}"
    for name, content in ((part.path / "finished.json", part.finished) for part in parts):
        try:
            if content is None and os.path.lexists(name):
                raise ValueError
            rows_of(content or {})
            if not isinstance((content or {}).get("took", {}), dict):
                raise ValueError
        except ValueError:
            return f"{display_path(name)} cannot be read"
    return ""


def refuse_damage(folder: RunFolder, anew: str) -> None:
    """Raise `RunError` for a folder with `damage`, with how to begin `anew`."""
    if what := damage(folder):
        raise RunError(f"{what}: restore it, or begin anew {anew}, which removes what the run has made")


def _is_sound(resolved: Mapping[str, Any]) -> bool:
    tasks = resolved.get("tasks", {})
    return all(isinstance(resolved[key], kind) for key, kind in _TYPES.items() if key in resolved) and all(
        isinstance(task, dict) and {"data", "head", "classes"} <= task.keys() for task in tasks.values()
    )


def _holds_work(part: RunFolder) -> bool:
    """Whether a run has left anything that took training."""
    paths: list[Path] = [part.student, part.path / "finished.json", *part.checkpoints.glob("step-*"), part.best]
    return any(map(os.path.lexists, paths))
