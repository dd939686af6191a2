"""Where runs lie: beside the spec that they train, or in the folder that `--runs` or BREWGRAPH_RUNS names.

No torch here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from brewgraph.training.folder import RunFolder

VARIABLE = "BREWGRAPH_RUNS"
_NAME = "runs"


def runs_folder(beside: Path, runs: Path | None = None) -> Path:
    """The folder of the runs of specs in `beside`: `runs` where it is given, else what BREWGRAPH_RUNS names, else
    `runs` in the specs' own folder.
    """
    named = runs or os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else beside / _NAME


def teacher_folder(name: str, beside: Path, runs: Path | None, near: Sequence[Path]) -> RunFolder:
    """The run of that name, whose spec lies in `beside`, to learn from: a finished one wherever it is found, else the
    place where it is trained.

    It is looked for where runs are made, beside its spec, and in the folders of `near`, where the runs of those lie who
    learn from it. A run's name holds its hash, so that a run of the same name is the same run.
    """
    folders = dict.fromkeys((runs_folder(beside, runs), beside / _NAME, *near))
    places = [RunFolder(folder / name) for folder in folders]
    return next((place for place in places if place.finished is not None), places[0])


def named_run(target: str | Path) -> RunFolder:
    """The folder that a user means by the path of a run, of a run's `alone`, or of the `student` in either.

    What is no path may be a name in the working directory's folder of runs. What is neither stays as it is.
    """
    path = Path(target).expanduser()
    for place in (path, runs_folder(Path()) / path):
        around = place.parent if place.name else place.absolute().parent
        if place.absolute() == RunFolder(around.absolute()).student and _is_run(around):
            return RunFolder(around)
        if place.is_dir() and (place == path or _is_run(place)):
            return RunFolder(place)
    return RunFolder(path)


def _is_run(path: Path) -> bool:
    return RunFolder(path).whole.resolved is not None
