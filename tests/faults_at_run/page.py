"""`docs/faults-at-run.md`, made from the table: `python -m tests.faults_at_run.page` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.faults_at_run.table import DATA_FAULTS, FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "faults-at-run.md"


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield "# When a run fails"
    yield ""
    yield "What can happen to a run that is on its way, what is printed, and what is kept. None gives a traceback but the"
    yield "exception of a callback, which is the program's own; once the cause is gone, the same command finishes the run"
    yield "with the same student, bit by bit. Written by `python -m tests.faults_at_run.page` from the table of the tests,"
    yield "which run each fault in a process of its own."
    yield ""
    yield "| fault | printed | exit code | kept |"
    yield "|---|---|---:|---|"
    for fault in FAULTS:
        said = f"{' '.join(fault.said.split())}…" if fault.said else "nothing"
        yield f"| {fault.what} | {said} | {fault.exit} | {fault.keeps} |"
    yield ""
    yield "## Files of data"
    yield ""
    yield "What stands where a file of training data should, and the diagnostic (exit code 1) that names the file and the"
    yield "place in it. Each is tried by a process of its own, in less than 60 seconds of the processor and 2 GiB of memory."
    yield ""
    yield "| file | printed |"
    yield "|---|---|"
    for data_fault in DATA_FAULTS:
        yield f"| {data_fault.what} | …{data_fault.said}… |"


if __name__ == "__main__":
    PAGE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
