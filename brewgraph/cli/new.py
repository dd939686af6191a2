"""`brewgraph new`: writes a spec to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.diagnostics import UsageError
from brewgraph.paths import shipped_text, write_file


def command(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE|FOLDER]", help="The new file, or a folder for it.")
    ] = None,
    starter: Annotated[
        Literal["quickstart", "tutorial", "mnli"],
        typer.Option(
            "--from",
            help="quickstart and tutorial run offline in minutes, the latter on csv files beside the spec; "
            "mnli distils BERT-base from the hub.",
        ),
    ] = "quickstart",
) -> None:
    """Write a commented spec to start from."""
    files = _files(starter, path)
    for target in files:
        if target.exists():
            raise UsageError(f"`{target}` exists already; name another file")
    for target, text in files.items():
        write_file(target, text)
        print(f"wrote {target}")
    first = next(iter(files))
    print(f"next: brewgraph check {first}, then brewgraph run {first}")


TUTORIAL = ("teacher.brew", "student.brew", "train.csv", "dev.csv", "new.csv")
"""The files of the tutorial in specs/, first the one to run."""


def _files(starter: str, path: Path | None) -> dict[Path, str]:
    """The text of each file to write, first that of the spec to run."""
    if starter == "mnli":
        text = shipped_text("specs/mnli-t3-small.brew")
        path = path or Path("mnli-t3-small.brew")
        return {path if path.suffix == ".brew" else path / "mnli-t3-small.brew": text}
    if starter == "tutorial":
        folder = path or Path("tutorial")
        if folder.suffix == ".brew":
            raise UsageError("the tutorial has several files: name a folder for them")
        return {folder / name: shipped_text(f"specs/tutorial/{name}") for name in TUTORIAL}
    student, teacher = shipped_text("specs/quickstart/student.brew"), shipped_text("specs/quickstart/teacher.brew")
    path = path or Path("quickstart")
    folder, name = (path.parent, path.name) if path.suffix == ".brew" else (path, "student.brew")
    if name == "teacher.brew":
        raise UsageError("`teacher.brew` is the name of the teacher's spec beside it; name another file")
    return {folder / name: student, folder / "teacher.brew": teacher}
