"""The report of a run, from what its folder holds and its spec computes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from brewgraph.checking.check import Checked, check
from brewgraph.diagnostics import BrewError, UsageError
from brewgraph.display.plots import Curves, Scatter
from brewgraph.display.report import Report
from brewgraph.inspect.graph_of import show
from brewgraph.inspect.plan_of import plan_of
from brewgraph.paths import is_file, parse_json
from brewgraph.recipe.settings.metric_names import metric_words
from brewgraph.running.changes import spec_of
from brewgraph.running.damage import ANEW, refuse_damage
from brewgraph.running.records import RunRecord
from brewgraph.running.scores import ScoreRow, cells_of
from brewgraph.training.folder import RunFolder, display_path


def report_of(record: RunRecord) -> Report:
    """The report of a run in any state but `damaged`: what it has is shown. Raises `UsageError` for a folder without
    its spec, `RunError` for a damaged one.

    Where the models of the spec can no longer be reached, plan and graph are left out, and a note says so.
    """
    folder, resolved = record.folder, record.folder.resolved or {}
    refuse_damage(folder, ANEW)
    try:
        source, params = spec_of(folder, f"{record.spec}.brew")
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"the spec of `{display_path(folder.path)}` cannot be read: run it again with --force"
        ) from error
    checked: Checked | None = None
    notes = [record.error] if record.error else []
    try:
        checked = check(source, params)
    except BrewError:
        notes.append("plan and graph are missing: the models or the data of the spec can no longer be reached")
    if record.state != "finished":
        notes.append(f"the run is {record.state}" + (f" at step {record.step:,}" if record.step is not None else ""))
    splits = sorted({split for row in record.table for split in row.splits.values()})
    if splits:
        notes.append(f"scored on {' and '.join(splits)}")
    about = f"{record.state}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(record.when))}, hash {record.hash}"
    sets = [f"--set={name}={_as_set(value)}" for name, value in params.items()]
    return Report(
        title=record.name,
        about=about,
        command=shlex.join(["brewgraph", "run", display_path(source.folder / f"{record.spec}.brew"), *sets]),
        table=cells_of(record.table) if record.table else (),
        notes=notes,
        plots=(*_scatters(record.table), *_curves(folder), *_curves(folder.baseline, "without its teacher: ")),
        spec=source.text,
        lock={
            **resolved.get("circumstances", {}),
            **resolved.get("fingerprints", {}),
            "spec": resolved.get("spec", ""),
        },
        plan=plan_of(checked) if checked is not None else None,
        graphs=show(checked) if checked is not None and checked.graphs else None,
    )


def _as_set(value: Any) -> str:
    """A param as `--set` reads it; lists of a file are its tuples."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_set, value))}]"
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _scatters(table: Sequence[ScoreRow]) -> Iterator[Scatter]:
    """The first main score over size, and over speed where it was measured: of several models."""
    name = next((name for row in table for name in row.main), None)
    rows = [row for row in table if name is not None and row.scores.get(name) is not None]
    if name is None or len(rows) < 2:
        return
    words = metric_words(name)
    sizes = [(row.name, row.size / 1e6, row.scores[name]) for row in rows]
    yield Scatter(f"{words} and size", "MB of weights", words, sizes)
    if all(row.per_second for row in rows):
        speeds = [(row.name, row.per_second, row.scores[name]) for row in rows]
        yield Scatter(f"{words} and speed", "sentences per second", words, speeds)


def _curves(folder: RunFolder, of: str = "") -> Iterator[Curves]:
    """The loss with its terms, weighted and unweighted, the learning rate, and scores on dev: as far as logged."""
    logged: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in _log(folder):
        values = {
            "loss and weighted terms": {"loss": line.get("loss"), **line.get("weighted", {})},
            "terms without weights": line.get("terms", {}),
            "learning rate": {"learning rate": line.get("lr")},
            "scores on dev": {metric_words(name): value for name, value in line.get("dev", {}).items()},
        }
        for title, named in values.items():
            for name, value in named.items():
                if isinstance(value, int | float):
                    logged.setdefault(title, {}).setdefault(name, []).append((line["step"], value))
    if plain := logged.get("terms without weights"):
        logged["terms without weights"] = {"loss": [], **plain}  # so that terms have one colour in both plots
    for title, lines in logged.items():
        yield Curves(f"{of}{title}", lines, title == "scores on dev")


def _log(folder: RunFolder) -> Iterator[Mapping[str, Any]]:
    """The lines of metrics.jsonl; one that a crash cut short is left out."""
    path = folder.path / "metrics.jsonl"
    with suppress(OSError):
        for text in path.read_bytes().splitlines() if is_file(path) else ():
            with suppress(ValueError):
                line = parse_json(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    yield line
