"""`brewgraph push`: a finished student with its card, to a hub or a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brewgraph.cli.options import Run
from brewgraph.cli.output import hush, megabytes, table
from brewgraph.diagnostics import UsageError
from brewgraph.paths import at_home
from brewgraph.training.folder import display_path

if TYPE_CHECKING:
    from brewgraph.sharing.push import Upload


def command(
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The repository on the hub: USER/MODEL, or MODEL.")
    ] = None,
    to_folder: Annotated[
        Path | None, typer.Option("--to-folder", help="Copy into this folder instead; needs no network.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if it is missing.", show_default="main")] = None,
    report: Annotated[bool, typer.Option("--report", help="Send report.html too.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the repository's other files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be sent.")] = False,
) -> None:
    """Push a run's student to a hub: weights, tokenizer, model card, spec.

    The hub is Hugging Face's or the one that HF_ENDPOINT names; log in with `hf auth login` or HF_TOKEN. What is sent
    is listed first. Pickles, checkpoints and files with access tokens are never sent.
    """
    from brewgraph.sharing.card import open_student
    from brewgraph.sharing.push import check_name, gather, push_to_folder, push_to_hub

    if (name is None) == (to_folder is None):
        raise UsageError("name the repository, as `USER/MODEL`, or --to-folder FOLDER: one of both")
    if to_folder is not None and (private or revision or replace):
        raise UsageError("--private, --revision and --replace are of repositories: a folder has none of them")
    if name is not None:
        check_name(name)
    to_folder = None if to_folder is None else at_home(to_folder)
    hush()
    finished = open_student(run)
    upload = gather(finished, name or (to_folder or Path()).name, report=report)
    print(listed(upload), file=sys.stderr)
    if dry_run:
        print(f"nothing was sent to {name or display_path(to_folder or Path())}")
    elif to_folder is not None:
        push_to_folder(upload, to_folder)
        print(display_path(to_folder))
    else:
        print(push_to_hub(upload, str(name), private=private, revision=revision, replace=replace))


def listed(upload: Upload) -> str:
    """The files with their sizes, and what stays here."""
    rows = [(file, megabytes(upload.size(file)), _about(file, upload)) for file in upload.files]
    lines = [table(rows, right=[1])]
    if upload.left_out:
        lines.append(f"stays here: {', '.join(upload.left_out)}")
    return "\n".join(lines)


def _about(file: str, upload: Upload) -> str:
    if file != "README.md":
        return ""
    return "yours" if upload.own_card else "written from the run"
