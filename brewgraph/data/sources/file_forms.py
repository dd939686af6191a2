"""The form of a file, to name the source that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.tag_schemes import OUTSIDE, find_scheme

_TABLES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_WORDS = {
    "files": "rows with named columns",
    "conll": "lines of a word and its tag",
    "squad": "questions in the form of SQuAD",
}
_LINES = 50
"""How many lines are inspected."""


def plain_suffix(name: str) -> str:
    """The suffix of a file's name in lower case, without `.gz`."""
    return Path(name.removesuffix(".gz")).suffix.lower()


def check_form(name: str, text: str, field: str, source: str) -> None:
    """Raise B415 for a text that another source reads than `source` (`files`, `conll`, `squad`, `text`)."""
    suffix = plain_suffix(name)
    if source == "text" and suffix in _TABLES:
        help = "write its texts into a plain file; a plain file that is called so needs another suffix, such as .txt"
        raise _fault(name, field, "files", source, help)
    form = _form_of(text, suffix) if source != "text" else ""
    if form and form != source:
        raise _fault(name, field, form, source, f"`{form}(train=…)` reads it")


def _form_of(text: str, suffix: str) -> str:
    """The source that reads a text: `squad` or `files` for json, `conll` for tags, `files` for csv, or ""."""
    text = text.lstrip()
    lines = [line for line in text.split("\n", _LINES)[:_LINES] if line.strip()]
    if text[:1] in ("{", "["):
        first = _json(lines[0])
        whole = first if first is not None and len(lines) > 1 else _json(text)
        data = whole.get("data") if isinstance(whole, dict) else None
        if isinstance(data, list) and data and isinstance(data[0], dict) and "paragraphs" in data[0]:
            return "squad"
        rows = whole if isinstance(whole, list) else [whole]
        return "files" if rows and all(isinstance(row, dict) and "data" not in row for row in rows) else ""
    words = [line.split() for line in lines if not line.startswith(("#", "-DOCSTART-"))]
    if suffix != ".csv" and _are_tags([row[-1] for row in words if len(row) > 1]) and len(set(map(len, words))) == 1:
        return "conll"
    return "files" if suffix == ".csv" and lines and "," in lines[0] else ""


def _are_tags(tags: list[str]) -> bool:
    """Whether these are tags of entities throughout, as `O` and `B-PER` are."""
    scheme = find_scheme(tags)
    return scheme is not None and bool(scheme.separator) and all(tag == OUTSIDE or scheme.split(tag) for tag in tags)


def binary(name: str, field: str) -> SourceFault:
    """B415 for a parquet file where a file of text is read."""
    return _fault(name, field, "files", "", "`files(train=…)` reads it, where its name ends in .parquet")


def _fault(name: str, field: str, form: str, source: str, help: str) -> SourceFault:
    read = f", which `{source}` does not read" if source else ", and no text"
    return SourceFault("B415", f"`{name}` holds {_WORDS[form]}{read}", help=help, field=field)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
