"""How predictions are written, so that `files(…)` reads them back: a JSON object per line, or a table of csv or tsv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from brewgraph.diagnostics import UsageError

SEPARATORS = {"csv": ",", "tsv": "\t"}
"""Formats that are tables."""


def shaped(
    predictions: Iterable[Mapping[str, Any]], rows: Any, names: Sequence[str], *, digits: int, top: int | None
) -> Iterator[dict[str, Any]]:
    """Predictions with the texts of their rows (`text_0`, … under these names), the likeliest classes first.

    Probabilities have so many decimals; of more classes than `top` the likeliest stay. Words have their tags beside
    them already.
    """
    for prediction in predictions:
        row = rows[prediction["index"]]
        texts = {name: row[f"text_{i}"] for i, name in enumerate(names) if f"text_{i}" in row}
        told = {key: prediction[key] for key in ("index", "id") if key in prediction}
        out = {**told, **texts, **prediction}
        if "probabilities" in out:
            likeliest = sorted(out["probabilities"].items(), key=lambda item: -item[1])[:top]
            out["probabilities"] = {name: round(value, digits) for name, value in likeliest}
        yield out


def lines(shown: Iterable[Mapping[str, Any]], format: str, *, top: int | None) -> Iterator[str]:
    """The lines of a file; a table has a header, and for tags a row per word."""
    from brewgraph.training.folder import json_text

    if format not in SEPARATORS:
        yield from (json_text(row) + "\n" for row in shown)
        return
    flat = [record for row in shown for record in _flat(row, top)]
    header = list(dict.fromkeys(key for record in flat for key in record))
    cell = _quoted if format == "csv" else _bare
    yield SEPARATORS[format].join(map(cell, header)) + "\n"
    for record in flat:
        yield SEPARATORS[format].join(cell(record.get(key)) for key in header) + "\n"


def _quoted(value: Any) -> str:
    """A field of csv, in double quotes where it holds what means something there."""
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _bare(value: Any) -> str:
    """A field of tsv, in which a quote is a character like any other. Raises `UsageError` for what it cannot hold."""
    text = "" if value is None else str(value)
    if set(text) & set("\t\r\n"):
        raise UsageError(f"tsv cannot hold the tab or line break in {text[:40]!r}: write csv or jsonl")
    return text


def _flat(row: Mapping[str, Any], top: int | None) -> Iterator[dict[str, Any]]:
    """A prediction as rows of a table: `probability_NAME` for each class; of the likeliest few names and numbers."""
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
