"""`docs/faults-at-run.md`, made from the table: `python -m tests.faults_at_run.page` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.faults_at_run.table import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "faults-at-run.md"


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield "# When a run fails"
    yield ""
    yield "What can happen to a run that is on its way, what is printed, and what is kept. None gives a traceback; once"
    yield "the cause is gone, the same command finishes the run with the same student, bit by bit. Written by"
    yield "`python -m tests.faults_at_run.page` from the table of the tests, which run each fault in a process of its own."
    yield ""
    yield "| fault | printed | exit code | kept |"
    yield "|---|---|---:|---|"
    for fault in FAULTS:
        said = " ".join(fault.said.split())
        yield f"| {fault.what} | {said}… | {fault.exit} | {fault.keeps} |"


if __name__ == "__main__":
    PAGE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
