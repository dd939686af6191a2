"""csv and tsv: the header, quotes and faulty rows, before `datasets` reads them through pandas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from csv import QUOTE_MINIMAL, QUOTE_NONE
from pathlib import Path
from typing import Any

import datasets
import pandas

from brewgraph.data.sources.file_forms import plain_suffix
from brewgraph.diagnostics import SourceFault, listing

__all__ = ["bad_row", "csv_layout", "folder_layout", "traces_of_quotes"]


def csv_layout(path: Path, suffix: str, field: str, quoted: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options that keep every value as text, and the names that occur twice in the header.

    By default pandas reads `NA` as a missing value and `007` as a number, and renames the second of two equal names.
    """
    layout: dict[str, Any] = {
        "sep": "\t" if suffix == ".tsv" else ",",
        "quoting": QUOTE_MINIMAL if quoted else QUOTE_NONE,
    }
    head = pandas.read_csv(path, nrows=1, **layout)
    if not quoted and all(re.fullmatch('".*"', str(name)) for name in head.columns):
        message = f"`{path.name}` has its header in quotes, which are read as part of the names"
        raise SourceFault("B404", message, help="`quoting=true` removes them, here and in the rows", field=field)
    # pandas takes surplus fields for names of rows, and shifts the others
    if not isinstance(head.index, pandas.RangeIndex):
        message = f"`{path.name}` has more fields in row 1 than names in its header"
        help = f"name every column in the header, and {_quoting(quoted)}: the header is {listing(head.columns)}"
        raise SourceFault("B404", message, help=help, field=field)
    names = pandas.read_csv(path, nrows=1, header=None, dtype=str, na_filter=False, **layout).iloc[0].tolist()
    features = datasets.Features({column: datasets.Value("string") for column in head.columns})
    twice = tuple(name for name, count in Counter(names).items() if count > 1)
    return {**layout, "features": features, "na_filter": False}, twice


def _quoting(quoted: bool) -> str:
    """The remedy for a separator within a value."""
    return 'put values with a separator in them into "quotes"' + ("" if quoted else " and say `quoting=true`")


def bad_row(error: str, suffix: str, quoted: bool) -> tuple[str, str] | None:
    """The fault of a row of csv or tsv and its remedy, from the error of pandas' reader; None for other faults."""
    if more := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        what = f"has {more[3]} fields in line {more[2]}, and {more[1]} names in its header"
        return what, f"{_quoting(quoted)}, or correct the line"
    if left := re.search(r"EOF inside string starting at row (\d+)", error):
        other = "" if suffix == ".tsv" else ", or say `quoting=false` where quotes are part of the text"
        return f"has a quote in row {left[1]} that is never closed", f'close it; within a quoted field write ""{other}'
    return None


def folder_layout(folder: Path, formats: Collection[str]) -> dict[str, Any]:
    """The options with which `datasets` reads a folder of csv or of tsv as `read_file` reads one file: every value as
    text, and in tsv a quote as an ordinary character. Empty for other folders, and for mixed ones.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    suffixes = {path: plain_suffix(path.name) for path in paths}
    present = set(suffixes.values()) & set(formats)
    if present not in ({".csv"}, {".tsv"}):
        return {}
    layout: dict[str, Any] = {"quoting": QUOTE_NONE} if present == {".tsv"} else {}
    sep = "\t" if present == {".tsv"} else ","
    tables = (pandas.read_csv(path, nrows=0, sep=sep, **layout) for path in paths if suffixes[path] in present)
    return {**layout, "na_filter": False, "converters": {column: str for table in tables for column in table.columns}}


def traces_of_quotes(rows: Sequence[Sequence[str]]) -> tuple[list[int], list[int]]:
    """Rows, counted from 1, whose texts suggest that quotes were misread: those with a tab or a line break in a text,
    and those with a text in double quotes that holds only doubled ones, as csv escapes a quote.
    """
    broken = [row for row, texts in enumerate(rows, 1) if any(set(text) & set("\t\n\r") for text in texts)]
    return broken, [row for row, texts in enumerate(rows, 1) if any(map(_is_enclosed, texts))]


def _is_enclosed(text: str) -> bool:
    inner = text[1:-1]
    return text[:1] == text[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")
