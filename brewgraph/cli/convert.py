"""`brewgraph convert`: a TextBrewer configuration as a spec."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import read
from brewgraph.convert.convert import Script, convert
from brewgraph.diagnostics import UsageError
from brewgraph.paths import check_writable, write_file
from brewgraph.recipe.label_types import LABEL_TYPES

Distillers = Literal[
    "GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer"
]  # fmt: skip


def command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="JSON, or Python with literals: DistillationConfig, TrainingConfig, lists of matches; - reads stdin.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new file to write.", show_default="standard output")
    ] = None,
    distiller: Annotated[
        Distillers | None,
        typer.Option(help="The class that the script calls.", show_default="as in the script, else GeneralDistiller"),
    ] = None,
    teachers: Annotated[int, typer.Option(min=1, help="The number of teachers of MultiTeacherDistiller.")] = 2,
    task: Annotated[list[str] | None, typer.Option(help="A task of MultiTaskDistiller. Repeatable.")] = None,
    labels: Annotated[
        Literal["class", "tags", "spans"],
        typer.Option(help="A class per text, a tag per token, or an answer's start and end."),
    ] = "class",
    matches: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A list of matches to convert. Repeatable.")
    ] = None,
    inputs_mask: Annotated[bool, typer.Option(help="Whether the student's adaptor returns inputs_mask.")] = True,
    logits_mask: Annotated[bool, typer.Option(help="Whether it returns logits_mask (for tags).")] = True,
    attention: Annotated[
        Literal["probabilities", "scores"], typer.Option(help="What the adaptors return as attention.")
    ] = "probabilities",
    attention_from: Annotated[
        int | None,
        typer.Option(
            min=0, max=1, help="The index of the first attention layer.", show_default="0 if the file has a layer 0"
        ),
    ] = None,
) -> None:
    """Convert a TextBrewer configuration to a spec, with notes on what differs. Nothing is executed."""
    if out is not None and out.exists():
        raise UsageError(f"`{out}` exists already; name another file")
    if out is not None:
        check_writable(out)
    adaptors = (LABEL_TYPES[labels], inputs_mask, logits_mask, attention, attention_from)
    script = Script(distiller or "GeneralDistiller", teachers, _tasks(distiller, task or []), *adaptors)
    supervised = distiller == "BasicTrainer" if distiller is not None else None
    converted = convert([read(file) for file in files], script, matches or [], supervised=supervised)
    for note in converted.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is None:
        sys.stdout.write(converted.text)
        return
    write_file(out, converted.text)
    print(f"wrote {out}", file=sys.stderr)


def _tasks(distiller: str | None, names: list[str]) -> tuple[str, ...]:
    """The names of the tasks of MultiTaskDistiller. Raises `UsageError`."""
    several = distiller == "MultiTaskDistiller"
    if names and not several:
        raise UsageError("--task needs --distiller MultiTaskDistiller")
    if several and len(set(names)) < 2:
        raise UsageError("MultiTaskDistiller needs at least two tasks: --task ner --task qa")
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"`{name}` cannot be the name of a task: use letters, digits and _")
    return tuple(names)
