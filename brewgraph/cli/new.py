"""`brewgraph new`: writes a spec to start from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from brewgraph.cli.complete import data_files, model_folders
from brewgraph.cli.output import complain, hush, more_about, print_diagnostics, tally
from brewgraph.diagnostics import UsageError
from brewgraph.paths import shipped_text, write_file
from brewgraph.recipe.label_types import LABEL_TYPES, Name

if TYPE_CHECKING:
    from brewgraph.starters.start import Wishes

T = TypeVar("T")

Starter = Literal["quickstart", "tutorial", "mnli"]


def command(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE|FOLDER]", help="The new file, or a folder for it.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="The teacher: a folder, or a name on the hub.", autocompletion=model_folders
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Training rows: csv, tsv, jsonl, json, parquet; words with tags; SQuAD; plain text; or a call such as "
            'glue("sst2").',
            autocompletion=data_files,
        ),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Rows to evaluate on.",
            show_default="a file `dev` beside `train`, else a tenth of the training rows",
            autocompletion=data_files,
        ),
    ] = None,
    task: Annotated[
        Name | None,
        typer.Option(
            help=f"What is learnt: {', '.join(x.about for x in LABEL_TYPES.values() if x)}.",
            show_default="by the teacher's head, else by the data",
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="One or two text columns.", show_default="a guess")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="The label column; none; or first,second: 0 or 1 each.", show_default="a guess"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="The teacher's classes, in the order of its logits.", show_default="its own"
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="A smaller model to train, or its name on the hub.",
            show_default="some of the teacher's layers",
            autocompletion=model_folders,
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="How many of the teacher's layers.", show_default="half of them")
    ] = None,
    starter: Annotated[
        Starter | None,
        typer.Option(
            "--from",
            help="Write one that ships instead: quickstart and tutorial run offline in minutes, mnli distils "
            "BERT-base.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a commented spec to start from, and check it.

    With --teacher and --data it is one for your own: both are looked at, and what was guessed is said. Without options
    a terminal is asked; elsewhere, and as `brewgraph new quickstart`, it is the quickstart.
    """
    texts = {"--dev": dev, "--task": task, "--text": text, "--label": label, "--labels": labels, "--student": student}
    options = (teacher, data, *texts.values(), layers)
    if starter is not None or (not any(options) and (_names_starter(path) or not _can_ask())):
        if any(options):
            raise UsageError("--from writes a spec that ships, which has models and data: leave out the other options")
        _write_shipped(starter or "quickstart", path)
        return
    if any(options) and (teacher is None or data is None):
        missing, what = ("--teacher", "the folder of a model") if teacher is None else ("--data", "a file of rows")
        raise UsageError(f"{missing} is missing: it names {what}")
    if student is not None and layers is not None:
        raise UsageError(
            "--layers keeps layers of the teacher, and --student names another model: leave one of them out"
        )
    hush()
    from brewgraph.starters.start import Wishes, start

    if teacher is None or data is None:
        answers = _ask(path)
        if answers is None:
            _write_shipped("quickstart", path)
            return
        wishes, path = answers
        started, _ = _until_sound(partial(start, path=path), wishes)
    else:
        wishes = Wishes(teacher, data)
        for option, value in texts.items():
            wishes = _wished(wishes, option, value) if value is not None else wishes
        started = start(replace(wishes, layers=layers), path or Path("distil"))
    for note in started.notes:
        print(f"note: {note}", file=sys.stderr)
    print_diagnostics(started.warnings, sys.stderr)
    for file in started.files:
        print(f"wrote {file}")
    print(f"{started.spec}: {tally(started.warnings)}{more_about(started.warnings)}")
    print(f"next: brewgraph plan {started.spec}, then brewgraph run {started.spec}")


def _wished(wishes: Wishes, option: str, value: str) -> Wishes:
    """The wishes with the value of an option as the user writes it."""
    names = tuple(x for part in value.split(",") if (x := part.strip()))
    parsed: dict[str, Any] = {
        "--task": LABEL_TYPES.get(value),
        "--text": names,
        "--labels": names,
        "--label": None if value == "none" else names if len(names) > 1 else value,
        "--dev": value or None,
        "--layers": int(value) if value.isdigit() else None,
    }
    return replace(wishes, **{option[2:]: parsed.get(option, value)})


def _names_starter(path: Path | None) -> bool:
    return path is not None and path.name == "quickstart"


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


# ── in a terminal ────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(path: Path | None) -> tuple[Wishes, Path] | None:
    """The wishes of the user, who is asked one thing at a time, and where to write; None for the quickstart.

    An answer that cannot be used is refused in a line, and asked for again.
    """
    from brewgraph.starters.data import GUESS
    from brewgraph.starters.models import look_at_model
    from brewgraph.starters.start import Wishes, half_of, look_at, spec_in

    teacher = typer.prompt(
        f"{_QUESTIONS['--teacher']} (empty: the quickstart, which needs none)", "", show_default=False
    )
    if not teacher:
        return None
    _, wishes = _until_sound(lambda w: look_at_model(w.teacher, "--teacher"), Wishes(teacher, ""))
    (seen, data), wishes = _until_sound(look_at, _answered(wishes, "--data"))
    print(f"  {data.about}")
    if data.text_columns:
        if not wishes.text:
            wishes = _answered(wishes, "--text", ",".join(data.text_columns))
        if wishes.label == GUESS:
            wishes = _answered(wishes, "--label", ",".join(data.label_columns) or "none")
        (seen, data), wishes = _until_sound(look_at, wishes)
    if not data.is_call:
        wishes = _answered(wishes, "--dev", data.source.files.get("dev", ""))
        (seen, data), wishes = _until_sound(look_at, wishes)
    if seen.layers is not None or not seen.known:
        wishes = _answered(wishes, "--layers", str(half_of(seen)))
    else:
        wishes = _answered(wishes, "--student")
    while path is None or spec_in(path).exists():
        if path is not None:
            complain(f"`{spec_in(path)}` exists already; name another folder")
        path = Path(typer.prompt("folder of the new spec", "distil"))
    return wishes, path


_QUESTIONS = {
    "--teacher": "teacher: a folder, or a name on the hub",
    "--data": "training rows: a file",
    "--dev": "rows to evaluate on: a file (empty: a tenth of the training rows)",
    "--task": f"what is learnt: {', '.join(filter(None, LABEL_TYPES))}",
    "--text": "text column, or two of them as first,second",
    "--label": "label column, or none",
    "--labels": "the teacher's classes in the order of its logits, as first,second",
    "--student": "student: the folder of a smaller model",
    "--layers": "student: how many of the teacher's layers, or the folder of a smaller model",
}


def _answered(wishes: Wishes, option: str, default: str | None = None) -> Wishes:
    """The wishes with the answer to the question of an option."""
    answer: str = typer.prompt(_QUESTIONS[option], default, show_default=bool(default)).strip()
    if option == "--layers" and not answer.isdigit():
        return _wished(replace(wishes, layers=None), "--student", answer)
    return _wished(replace(wishes, student=None) if option == "--layers" else wishes, option, answer)


def _until_sound(step: Callable[[Wishes], T], wishes: Wishes) -> tuple[T, Wishes]:
    """The result of a step, and the wishes for which it succeeds: what it refuses is said, and asked for again."""
    from brewgraph.starters.models import WishFault

    while True:
        try:
            return step(wishes), wishes
        except WishFault as fault:
            complain(str(fault))
            wishes = _answered(wishes, fault.option)


# ── specs that ship ──────────────────────────────────────────────────────────────────────────────────────────────────


def _write_shipped(starter: Starter, path: Path | None) -> None:
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


def _files(starter: Starter, path: Path | None) -> dict[Path, str]:
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
