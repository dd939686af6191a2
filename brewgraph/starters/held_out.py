"""A dev part for data that come without one: a tenth of the training file, as two files of the same form."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from csv import QUOTE_NONE
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from brewgraph.data.sources.reader import stamp
from brewgraph.data.sources.rows import plain_suffix, quiet, read_table, read_text
from brewgraph.digest import digest
from brewgraph.paths import parse_json, write_file
from brewgraph.recipe.settings.data_sources import Conll, Files, Squad
from brewgraph.starters.data import SeenData
from brewgraph.starters.models import WishFault

SHARE = 0.1
"""The share of the rows that is held out."""


@dataclass(frozen=True)
class Parts:
    """Both parts of a training file: `write` maps `train` and `dev` to a function that writes the part, `rows` to how
    many rows, sentences, texts or lines it has (`what`). Their files end in `suffix`.
    """

    what: str
    suffix: str
    write: Mapping[str, Callable[[Path], None]]
    rows: Mapping[str, int]


def hold_out(data: SeenData) -> Parts:
    """A tenth of the training rows for dev. Equal texts stay together, and no label is left in dev alone.

    Which rows are held out depends on their texts alone; of plain text it is the end. Raises `WishFault` for too few
    rows.
    """
    source = data.source
    path = Path(source.files["train"])
    if isinstance(source, Files):
        parts = _of_rows(source, path, data)
    elif isinstance(source, Conll):
        blocks = list(_sentences(read_text(path.name, path, "train")))
        labels = [{line.split()[-1] for line in block.splitlines() if not line.startswith("#")} for block in blocks]
        parts = _of_texts("sentences", ".conll", blocks, _choose(blocks, labels), "\n".join)
    elif isinstance(source, Squad):
        whole: Any = parse_json(read_text(path.name, path, "train"))
        paragraphs = [paragraph for article in whole["data"] for paragraph in article["paragraphs"]]
        contexts = [paragraph["context"] for paragraph in paragraphs]
        chosen = _choose(contexts, [set() for _ in contexts])
        parts = _of_texts("texts", ".json", [json.dumps(x, ensure_ascii=False) for x in paragraphs], chosen, _as_squad)
    else:
        lines = read_text(path.name, path, "train").splitlines(keepends=True)
        first = len(lines) - int(len(lines) * SHARE)
        parts = _of_texts("lines", plain_suffix(path.name) or ".txt", lines, range(first, len(lines)), "".join)
    if not all(parts.rows.values()):
        why = f"`{path}` has too few {parts.what} to hold out a tenth for dev"
        if sum(parts.rows.values()) >= 1 / SHARE:
            why = f"no {parts.what} of `{path}` can be held out for dev: equal texts stay together, and no label may "
            why += "be left in dev alone"
        raise WishFault("--dev", f"{why}: name a file of its own")
    return parts


def _choose(texts: Sequence[str], labels: Sequence[Iterable[Hashable]]) -> set[int]:
    """The positions of the rows that are held out."""
    alike: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        alike[text].append(position)
    left = Counter(label for row in labels for label in row)
    most = max(1, round(len(texts) * SHARE))
    chosen: set[int] = set()
    for text in sorted(alike, key=digest):
        rows = alike[text]
        takes = Counter(label for row in rows for label in labels[row])
        if len(chosen) + len(rows) <= most and all(left[label] > count for label, count in takes.items()):
            chosen.update(rows)
            left -= takes
    return chosen


def _of_rows(source: Files, path: Path, data: SeenData) -> Parts:
    rows = read_table(source.quoting, str(path), path, "train", stamp([path])).rows
    texts = ["\0".join(row) for row in zip(*(rows[column][:] for column in source.text), strict=True)]
    labels: list[set[Any]] = [set() for _ in texts]
    if data.label_type.per_class and data.contents is not None:
        for row, label in enumerate(data.contents.splits["train"]["label"][:]):
            labels[row] = {n for n, mark in enumerate(label) if mark} if isinstance(label, list) else {label}
    chosen = _choose(texts, labels)
    suffix = {".json": ".jsonl"}.get(plain_suffix(path.name), plain_suffix(path.name))

    def write(positions: Sequence[int], to: Path) -> None:
        with quiet():
            part = rows.select(positions)
            if suffix == ".parquet":
                part.to_parquet(str(to))
            elif suffix == ".jsonl":
                part.to_json(str(to), lines=True, force_ascii=False)
            elif source.quoting or (source.quoting is None and suffix == ".csv"):
                part.to_csv(str(to), index=False, sep="," if suffix == ".csv" else "\t")
            else:
                part.to_csv(str(to), index=False, sep="," if suffix == ".csv" else "\t", quoting=QUOTE_NONE)

    return _parts("rows", suffix, len(rows), chosen, lambda positions: partial(write, positions))


def _of_texts(
    what: str, suffix: str, pieces: Sequence[str], chosen: Iterable[int], join: Callable[[Iterable[str]], str]
) -> Parts:
    """The parts of a text file from its pieces."""

    def write(positions: Sequence[int], to: Path) -> None:
        write_file(to, join(pieces[n] for n in positions))

    return _parts(what, suffix, len(pieces), set(chosen), lambda positions: partial(write, positions))


def _parts(
    what: str, suffix: str, count: int, chosen: set[int], writer: Callable[[Sequence[int]], Callable[[Path], None]]
) -> Parts:
    positions = {"train": [n for n in range(count) if n not in chosen], "dev": sorted(chosen)}
    return Parts(
        what,
        suffix,
        {split: writer(rows) for split, rows in positions.items()},
        {split: len(rows) for split, rows in positions.items()},
    )


def _sentences(text: str) -> Iterator[str]:
    """The lines of each sentence, with the comments above it."""
    for blank, lines in groupby(text.splitlines(), lambda line: not line.strip() or line.startswith("-DOCSTART-")):
        block = list(lines)
        if not blank and not all(line.startswith("# ") for line in block):
            yield "".join(f"{line}\n" for line in block)


def _as_squad(paragraphs: Iterable[str]) -> str:
    return '{"data": [{"paragraphs": [\n' + ",\n".join(paragraphs) + "\n]}]}\n"
