"""`brewgraph convert`: a configuration of TextBrewer as a spec."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from brewgraph.diagnostics import UsageError
from brewgraph.paths import check_writable, write_file
from brewgraph.recipe.label_types import LABEL_TYPES

if TYPE_CHECKING:
    from brewgraph.convert.spec_text import Script
    from brewgraph.source import Source

Distillers = Literal[
    "GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer"
]  # fmt: skip


def command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="JSON or Python with literals: DistillationConfig, TrainingConfig, lists of matches; - reads stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; none is overwritten.", show_default="standard output"),
    ] = None,
    distiller: Annotated[
        Distillers | None,
        typer.Option(help="The class that the script calls.", show_default="GeneralDistiller, or what the file is for"),
    ] = None,
    teachers: Annotated[int, typer.Option(min=1, help="How many, for MultiTeacherDistiller.")] = 2,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of MultiTaskDistiller; repeated.", show_default=False)
    ] = None,
    labels: Annotated[
        Literal["class", "tags", "spans"], typer.Option(help="One class, one per token, or start and end of an answer.")
    ] = "class",
    matches: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A list of matches to take; repeated.", show_default=False)
    ] = None,
    inputs_mask: Annotated[bool, typer.Option(help="Whether the student's adaptor returns inputs_mask.")] = True,
    logits_mask: Annotated[bool, typer.Option(help="Whether it returns logits_mask (labels of tokens).")] = True,
    attention: Annotated[
        Literal["probabilities", "scores"], typer.Option(help="What the adaptors return as attention.")
    ] = "probabilities",
    attention_from: Annotated[
        int | None,
        typer.Option(min=0, max=1, help="What the first layer of attention is called.", show_default="0 if it occurs"),
    ] = None,
) -> None:
    """Write a configuration of TextBrewer as a spec, and say what it cannot carry over. Nothing is executed."""
    from brewgraph.convert.convert import convert
    from brewgraph.convert.equations import Adaptors
    from brewgraph.convert.spec_text import Script

    if out is not None and out.exists():
        raise UsageError(f"`{out}` exists already; name another file")
    if out is not None:
        check_writable(out)
    named = _tasks(distiller, task or [])
    adaptors = Adaptors(LABEL_TYPES[labels], inputs_mask, logits_mask, attention, attention_from)
    script: Script = Script(distiller or "GeneralDistiller", teachers, named, adaptors)
    supervised = distiller == "BasicTrainer" if distiller is not None else None
    found = convert([_read(file) for file in files], script, matches or [], supervised=supervised)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is None:
        sys.stdout.write(found.text)
        return
    write_file(out, found.text)
    print(f"wrote {out}", file=sys.stderr)


def _tasks(distiller: str | None, names: list[str]) -> tuple[str, ...]:
    """The names of tasks, which only several tasks have. Raises `UsageError`."""
    several = distiller == "MultiTaskDistiller"
    if names and not several:
        raise UsageError("--task belongs to --distiller MultiTaskDistiller")
    if several and len(set(names)) < 2:
        raise UsageError("MultiTaskDistiller has two tasks at least: --task ner --task qa")
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"`{name}` is no name for a task: letters, digits and _")
    return tuple(names)


def _read(path: str) -> Source:
    from brewgraph.checking.check import read_spec
    from brewgraph.cli.output import read_stdin

    if path == "-":
        return read_stdin()
    if Path(path).is_dir():
        raise UsageError(f"`{path}` is a folder; name a file in it")
    return read_spec(path)
