"""How predictions are written: a JSON object per line, or a table of csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
    if format not in SEPARATORS:
        yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in shown)
        return
    flat = [record for row in shown for record in _flat(row, top)]
    out = io.StringIO()
    header = dict.fromkeys(key for record in flat for key in record)
    writer = csv.DictWriter(out, list(header), delimiter=SEPARATORS[format], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    yield out.getvalue()


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
