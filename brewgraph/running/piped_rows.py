"""Rows that are typed or piped, and lie in no file: laid out as the files of a run's data, then read like those."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets

from brewgraph.diagnostics import UsageError, listing
from brewgraph.recipe.settings.sources import Conll, Squad
from brewgraph.running.finished import FinishedTask
from brewgraph.running.predict import text_columns, unlabelled_rows
from brewgraph.source import EncodingError, decode


def typed_rows(task: FinishedTask, texts: Sequence[str]) -> datasets.Dataset:
    """The rows of texts as they are typed: one after the other, or two by two where the data has pairs.

    The words of a tagged sentence stand between blanks. Raises `UsageError`.
    """
    names = text_columns(task)
    if len(texts) % len(names):
        raise UsageError(f"an example of this run is {listing(names)}: give `--text` once for each of them")
    rows = [texts[start : start + len(names)] for start in range(0, len(texts), len(names))]
    return _read(task, *_laid_out(task, names, rows), "--text")


def piped_rows(task: FinishedTask, content: bytes) -> datasets.Dataset:
    """The rows of what comes from a pipe: in the form of the run's files, as JSON lines, as csv or tsv with a header
    that has the columns of texts, or plain, a text in each line. Raises `UsageError`.
    """
    try:
        text = decode(content, "standard input").removeprefix("\ufeff").replace("\r\n", "\n")
    except EncodingError as error:
        raise UsageError(str(error)) from error
    filled = [line for line in text.split("\n") if line.strip()]
    if not filled:
        raise UsageError("standard input holds no rows")
    source, names = task.data.source.sources[0], text_columns(task)
    suffix = "" if isinstance(source, Conll) else _suffix(text, filled[0], names)
    if isinstance(source, Conll):
        columns = {len(line.split()) for line in filled if not line.startswith("#")}
        # sentences as they are written have not the same number of words each, as lines of columns have
        suffix = "" if len(columns) > 1 or (len(filled) == 1 and max(columns, default=1) > 1) else ".conll"
    if suffix:
        return _read(task, text, suffix, "standard input")
    if len(names) > 1:
        raise UsageError(f"standard input has no {listing(names)}: give JSON lines, or csv with a header")
    return _read(task, *_laid_out(task, names, [[line] for line in filled]), "standard input")


def _suffix(text: str, first: str, names: Sequence[str]) -> str:
    """The suffix of a file with this content, by its first line; empty for plain lines."""
    if text.lstrip()[:1] in ("{", "["):
        return ".json"
    for suffix, sign in ((".csv", ","), (".tsv", "\t")):
        if set(names) <= set(next(csv.reader([first], delimiter=sign))):
            return suffix
    return ""


def _laid_out(task: FinishedTask, names: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    """The content and the suffix of a file of these texts."""
    source = task.data.source.sources[0]
    if isinstance(source, Conll):
        sign = "\t" if source.separator == "tab" else " "
        before = sign.join(["_"] * max(0, source.words)) + sign * (source.words > 0)
        after = (sign + "_") * (-1 - source.words if source.words < 0 else 0)
        return "\n\n".join("\n".join(f"{before}{word}{after}" for word in text.split()) for (text,) in rows), ".conll"
    if isinstance(source, Squad):
        asked = [
            {"context": context, "qas": [{"id": str(number), "question": question, "answers": []}]}
            for number, (question, context) in enumerate(rows)
        ]
        return json.dumps({"data": [{"title": "", "paragraphs": asked}]}), ".json"
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows), ".jsonl"


def _read(task: FinishedTask, content: str, suffix: str, called: str) -> datasets.Dataset:
    with tempfile.TemporaryDirectory(prefix="brewgraph-") as folder:
        path = Path(folder) / f"typed{suffix}"
        path.write_text(content, encoding="utf-8")
        try:
            return unlabelled_rows(task, path)
        except UsageError as error:
            raise UsageError(str(error).replace(f"`{path}`", called)) from error
