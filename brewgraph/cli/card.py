"""`brewgraph card`: the model card of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from brewgraph.cli.options import Run
from brewgraph.cli.output import hush
from brewgraph.diagnostics import UsageError
from brewgraph.training.folder import display_path


def command(
    run: Run,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the card calls the student.", show_default="its folder"),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write README.md into the student's folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --write: replace a README.md that was changed.")] = False,
) -> None:
    """Print a run's model card: what it is, spec, scores, how to load it, data and licences, versions.

    With --write it is README.md beside the student, to complete by hand; `brewgraph push` takes it from there.
    """
    from brewgraph.paths import write_file
    from brewgraph.sharing.card import card_of, open_student
    from brewgraph.sharing.push import CARD, own_text, placeholder

    hush()
    finished = open_student(run)
    text = card_of(finished, name or placeholder(finished))
    if not write:
        print(text, end="")
        return
    path = finished.folder.student / CARD
    known = (None, text, card_of(finished, placeholder(finished)))
    if not force and own_text(finished.folder.student) not in known:
        raise UsageError(f"`{display_path(path)}` is there and differs from the card of the run: --force replaces it")
    write_file(path, text)
    print(display_path(path))
