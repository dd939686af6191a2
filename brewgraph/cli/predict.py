"""`brewgraph predict`: predictions of a finished run's student, in a format that `files(…)` reads back."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from brewgraph.cli.options import Quiet, Run, Task
from brewgraph.cli.output import count, hush
from brewgraph.diagnostics import UsageError
from brewgraph.paths import check_writable
from brewgraph.recipe.label_types import Form
from brewgraph.running.finished import open_run
from brewgraph.training.folder import json_text, write_text

_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}


def command(
    run: Run,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows with the columns of the run's data, with or without labels; - reads stdin, also plain lines.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text instead of a file. Repeatable; twice per pair.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write: .jsonl, .csv or .tsv.", show_default="standard output"),
    ] = None,
    format: Annotated[
        Literal["jsonl", "csv", "tsv"] | None,
        typer.Option(help="A JSON object per line, or a table.", show_default="by the name of --out, else jsonl"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="The number of most likely classes to write.", show_default="all")
    ] = None,
    digits: Annotated[int, typer.Option(min=0, help="Decimals of probabilities; 17 for full precision.")] = 4,
    task: Task = None,
    quiet: Quiet = False,
) -> None:
    """Write the text of each row and the student's prediction."""
    if (file is None) == (not text):
        raise UsageError("give either a FILE (- for standard input) or `--text`")
    if out is not None and format is None and out.suffix not in _FORMATS:
        raise UsageError(f"the format of `{out}` is unknown: end its name in .jsonl, .csv or .tsv, or set --format")
    if out is not None:
        check_writable(out)
    if out is not None and file is not None and out.exists() and Path(file).exists() and out.samefile(file):
        raise UsageError(f"`{out}` is the input file and would be overwritten: name another file with --out")
    finished_task = open_run(run).task(task)
    hush()
    from brewgraph.running.predict import load_student, piped_rows, predict, read_like, text_columns, typed_rows

    if text:
        rows = typed_rows(finished_task, text)
    elif file == "-":
        rows = piped_rows(finished_task, sys.stdin.buffer.read())
    else:
        rows = read_like(finished_task, Path(str(file)), labelled=False)
    # without contexts, which are long and shared by many questions
    names = text_columns(finished_task)[: 1 if finished_task.label_type.form is Form.SPANS else None]
    predictions = shaped(predict(load_student(finished_task), rows), rows, names, digits=digits, top=top)
    output = lines(predictions, format or ("jsonl" if out is None else _FORMATS[out.suffix]), top=top)
    if out is None:
        sys.stdout.writelines(output)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(output))
    if not quiet:
        print(f"{count(len(rows), 'prediction')} in {out}", file=sys.stderr)


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SEPARATORS = {"csv": ",", "tsv": "\t"}
"""The separators of the formats that are tables."""


def shaped(
    predictions: Iterable[Mapping[str, Any]], rows: Any, names: Sequence[str], *, digits: int, top: int | None
) -> Iterator[dict[str, Any]]:
    """Predictions with the texts of their rows under these names, the `top` likeliest classes, to `digits` decimals."""
    for prediction in predictions:
        row = rows[prediction["index"]]
        texts = {name: row[f"text_{i}"] for i, name in enumerate(names) if f"text_{i}" in row}
        ids = {key: prediction[key] for key in ("index", "id") if key in prediction}
        out = {**ids, **texts, **prediction}
        if "probabilities" in out:
            likeliest = sorted(out["probabilities"].items(), key=lambda item: -item[1])[:top]
            out["probabilities"] = {name: round(value, digits) for name, value in likeliest}
        yield out


def lines(predictions: Iterable[Mapping[str, Any]], format: str, *, top: int | None) -> Iterator[str]:
    """The lines of a file; a table has a header, and one row per word for tags."""
    if format not in SEPARATORS:
        yield from (json_text(row) + "\n" for row in predictions)
        return
    flat = [record for row in predictions for record in _flat(row, top)]
    header = list(dict.fromkeys(key for record in flat for key in record))
    for record in (dict(zip(header, header, strict=True)), *flat):
        yield SEPARATORS[format].join(_cell(record.get(key), format) for key in header) + "\n"


def _cell(value: Any, format: str) -> str:
    """A field. csv quotes special characters; tsv has no quotes: `UsageError` for tabs and line breaks, and in both for
    a null, at which readers end a value.
    """
    text = "" if value is None else str(value)
    if "\0" in text:
        raise UsageError(f"{format} cannot hold the null in {text[:40]!r}: write jsonl")
    if format == "csv":
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
    if set(text) & set("\t\r\n"):
        raise UsageError(f"tsv cannot hold the tab or line break in {text[:40]!r}: write csv or jsonl")
    return text


def _flat(row: Mapping[str, Any], top: int | None) -> Iterator[dict[str, Any]]:
    """A prediction as rows of a table: with `probability_NAME` for each class, or ranked classes with `top`."""
    if "tags" in row:
        rest = {key: value for key, value in row.items() if key not in ("words", "tags")}
        yield from ({**rest, "word": word, "tag": tag} for word, tag in zip(row["words"], row["tags"], strict=True))
        return
    flat: dict[str, Any] = {key: "|".join(value) if isinstance(value, list) else value for key, value in row.items()}
    likeliest = flat.pop("probabilities", {})
    if top is None:
        flat |= {f"probability_{name}": value for name, value in sorted(likeliest.items())}
    else:
        for rank, (name, value) in enumerate(likeliest.items(), 1):
            flat |= {f"class_{rank}": name, f"probability_{rank}": value}
    yield flat
