"""A report on a data set before training: labels, repeated and empty rows, leaks, lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from statistics import fmean
from typing import Any

import datasets

from brewgraph.data.encoding.encode import Encoding
from brewgraph.data.sources.examples import Examples
from brewgraph.diagnostics import listing
from brewgraph.recipe.label_types import CLASS, Form, LabelType
from brewgraph.recipe.length import Length

_FIRST = 5
"""Row numbers that a message names at most."""
_CLASSES = 8
"""Classes that a message counts at most."""
_CHUNK = 1000
"""Rows that are tokenised together."""
LEAK, LONG, REPEATED, UNEVEN = 0.01, 0.05, 0.05, 10.0
"""Limits for warnings: the shares of dev rows that are in train, of rows that are too long and of train rows that
repeat another, and the ratio of the most frequent class to the rarest."""


@dataclass(frozen=True)
class RowCount:
    """How many rows have a property, and the numbers of the first five, counted from 1."""

    count: int = 0
    first: tuple[int, ...] = ()


@dataclass(frozen=True)
class SplitReport:
    """One split. `labels` counts rows per class, or words per tag; None for other labels.

    `numbers` are the smallest, mean and largest label of a regression. `empty` rows have a text without a word,
    `unlabelled` ones no label, no answer, or not one tag for each word. `repeated` rows have the texts of an earlier
    row, `contradicting` ones also another label. In csv and tsv, `broken` rows have a text with a tab or a line break,
    `quoted` ones a text in double quotes with doubled ones inside, as csv escapes a quote.
    """

    rows: int
    empty: RowCount
    unlabelled: RowCount
    labels: Mapping[str, int] | None
    numbers: tuple[float, float, float] | None
    repeated: RowCount
    contradicting: RowCount
    broken: RowCount = RowCount()
    quoted: RowCount = RowCount()


@dataclass(frozen=True)
class Overlap:
    """Rows of `split` with the texts of a training row; `train` holds such a row for each of the first rows."""

    split: str
    rows: RowCount
    train: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """Tokens of a split's rows in one encoding, with special tokens, before truncation."""

    encoding: str
    split: str
    max_length: int
    mean: float
    longest: int
    longer: RowCount
    """Rows of more than `max_length` tokens: those that are cut, or seen in several windows."""


@dataclass(frozen=True)
class DataReport:
    """The findings on a data set. `warnings` are sentences that end in a remedy, `notes` say how it was read."""

    label_type: LabelType
    splits: Mapping[str, SplitReport]
    overlaps: tuple[Overlap, ...]
    lengths: tuple[Lengths, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same for machines, with plain dictionaries and lists."""
        return {**asdict(self), "label_type": self.label_type.name}


def data_report(
    examples: Examples,
    encodings: Sequence[Encoding] = (),
    *,
    label_type: LabelType = CLASS,
    delimited: bool = False,
    batch: int | Length | None = None,
) -> DataReport:
    """Inspect every row of `examples`, and its length in each of `encodings`.

    Texts are equal if they differ only in white space and case, both texts of pairs. `label_type` is that of the
    source. `delimited` data is csv or tsv, whose quotes and line breaks are inspected; `batch` is the number of
    examples, or tokens, per step.
    """
    keys = {name: list(_keys(_texts(split))) for name, split in examples.splits.items()}
    first_rows = {key: row for row, key in reversed([*enumerate(keys["train"], 1)]) if key}
    overlaps = []
    for name in list(keys)[1:]:
        both = [(row, first_rows[key]) for row, key in enumerate(keys[name], 1) if key in first_rows]
        overlaps.append(Overlap(name, _count(row for row, _ in both), tuple(row for _, row in both[:_FIRST])))
    splits = {
        name: _split(split, keys[name], label_type, examples.classes, delimited)
        for name, split in examples.splits.items()
    }
    lengths = tuple(_lengths(name, split, e) for e in encodings for name, split in examples.splits.items())
    report = DataReport(label_type, splits, tuple(overlaps), lengths, notes=examples.notes)
    return replace(report, warnings=tuple(_warnings(report, batch if isinstance(batch, int) else 0)))


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(split: datasets.Dataset) -> list[tuple[str, ...]]:
    """The texts of each row; words count as a text with spaces between them."""
    if "words" in split.column_names:
        return [(" ".join(words),) for words in split["words"][:]]
    columns = [column for column in ("text_0", "text_1") if column in split.column_names]
    return list(zip(*(split[column][:] for column in columns), strict=True))


def _keys(texts: Iterable[tuple[str, ...]]) -> Iterator[bytes]:
    """A digest of each row's texts, equal for equal texts; empty if all of them are empty."""
    for row in texts:
        words = [" ".join(text.casefold().split()) for text in row]
        data = "\0".join(words).encode("utf-8", "surrogatepass")
        yield blake2b(data, digest_size=16).digest() if any(words) else b""


def _split(
    split: datasets.Dataset, keys: Sequence[bytes], kind: LabelType, classes: Sequence[str], delimited: bool
) -> SplitReport:
    labels = list(split[kind.column][:]) if kind.column in split.column_names else []
    missing = [_is_missing(label) for label in labels]
    present = [label for label, is_missing in zip(labels, missing, strict=True) if not is_missing]
    if kind.form is Form.TAGS:
        rows = zip(missing, labels, split["words"][:], strict=True)
        missing = [is_missing or len(tags) != len(words) for is_missing, tags, words in rows]
    first: dict[bytes, int] = {}
    repeated = [row for row, key in enumerate(keys) if key and first.setdefault(key, row) != row]
    contradicting = []
    if labels and kind.form is not Form.SPANS:
        contradicting = [row for row in repeated if labels[row] != labels[first[keys[row]]]]
    texts = list(enumerate(_texts(split), 1))
    fields = texts if delimited else []
    return SplitReport(
        rows=len(split),
        empty=_count(row for row, text in texts if not all(part.strip() for part in text)),
        unlabelled=_count(row for row, is_missing in enumerate(missing, 1) if is_missing),
        labels=_histogram(present, kind, classes),
        numbers=(min(present), fmean(present), max(present)) if kind.form is Form.NUMBER and present else None,
        repeated=_count(row + 1 for row in repeated),
        contradicting=_count(row + 1 for row in contradicting),
        broken=_count(row for row, text in fields if any(set(part) & set("\t\n\r") for part in text)),
        quoted=_count(row for row, text in fields if any(map(_is_enclosed, text))),
    )


def _is_enclosed(text: str) -> bool:
    """Whether a text stands in double quotes and holds only doubled ones, as csv escapes a quote."""
    inner = text[1:-1]
    return text[:1] == text[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _is_missing(label: Any) -> bool:
    """None, NaN, a class below 0 (as data sets mark hidden labels), or an empty answer."""
    if label is None:
        return True
    if isinstance(label, dict):
        return not label["text"]
    if isinstance(label, list):
        return any(isinstance(x, float) and math.isnan(x) for x in label)
    return math.isnan(label) if isinstance(label, float) else label < 0


def _histogram(labels: Sequence[Any], kind: LabelType, classes: Sequence[str]) -> dict[str, int] | None:
    """Rows per class, or words per tag, in the order of the classes, absent ones included."""
    if kind.form is Form.CLASS:
        counts = Counter(labels)
    elif kind.form is Form.CLASSES:
        counts = Counter(number for row in labels for number, x in enumerate(row) if x > 0.5)
    elif kind.form is Form.TAGS:
        counts = Counter(tag for row in labels for tag in row if tag >= 0)
    else:
        return None
    return {name: counts[number] for number, name in enumerate(classes)}


def _lengths(name: str, split: datasets.Dataset, encoding: Encoding) -> Lengths:
    words = "words" in split.column_names
    columns = ["words"] if words else [c for c in ("text_0", "text_1") if c in split.column_names]
    lengths: list[int] = []
    for start in range(0, len(split), _CHUNK):
        chunk = split[start : start + _CHUNK]
        encoded = encoding.tokenizer(
            *(chunk[column] for column in columns),
            is_split_into_words=words,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # it would say that a row is longer than its model takes: the report does
        )
        lengths += map(len, encoded["input_ids"])
    longer = _count(row for row, length in enumerate(lengths, 1) if length > encoding.max_length)
    mean, longest = fmean(lengths or [0]), max(lengths, default=0)
    return Lengths(encoding.key, name, encoding.max_length, mean, longest, longer)


def _count(numbers: Iterable[int]) -> RowCount:
    rows = list(numbers)
    return RowCount(len(rows), tuple(rows[:_FIRST]))


# ── warnings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _warnings(report: DataReport, batch: int) -> Iterator[str]:
    """Sentences, each with its remedy."""
    fill_in = "fill it in or remove the rows"
    no_label = {Form.SPANS: "no answer", Form.TAGS: "not one tag for each word"}.get(report.label_type.form, "no label")
    for name, split in report.splits.items():
        for rows, what in (
            (split.empty, f"no words in a text: {fill_in}"),
            (split.unlabelled, f"{no_label}: {fill_in}"),
            (
                split.broken,
                "a tab or a line break in a text: a quote that opens a field by mistake takes in the lines below; "
                "`quoting=false` reads quotes as text",
            ),
            (
                split.quoted,
                "a text in double quotes, with doubled ones inside: where they enclose the field, write `quoting=true`",
            ),
        ):
            if rows.count:
                yield f"{_of(rows, split.rows, name)} {what}"
    if "dev" not in report.splits:
        yield "there is no dev split, so nothing is evaluated: name one with `dev=`"
    train = report.splits["train"]
    if train.repeated.count > REPEATED * train.rows:
        subject = _of(train.repeated, train.rows, "train")
        yield f"{subject} the texts of an earlier row: remove the copies, or those texts weigh more"
    if train.contradicting.count:
        subject = _of(train.contradicting, train.rows, "train")
        yield f"{subject} another label than an earlier row with the same texts: correct them or remove both"
    yield from _class_warnings(report)
    for overlap in report.overlaps:
        total = report.splits[overlap.split].rows
        if overlap.rows.count > LEAK * total:
            subject = _of(overlap.rows, total, overlap.split)
            yield f"{subject} the texts of a row of train, and figures will be too good: remove these rows from train"
    if not report.label_type.is_cut:
        if batch > train.rows:
            yield f"a batch of {batch:,} is more than the {train.rows:,} rows of train: every step takes all of them"
        for x in report.lengths:
            total = report.splits[x.split].rows
            if x.longer.count > LONG * total:
                yield (
                    f"{_of(x.longer, total, x.split)} more than {x.max_length:,} tokens of `{x.encoding}`, up to "
                    f"{x.longest:,}: raise `max_length`, as far as the model allows, or shorten the texts"
                )


def _class_warnings(report: DataReport) -> Iterator[str]:
    one, many = ("tag", "tags") if report.label_type.form is Form.TAGS else ("class", "classes")
    train = report.splits["train"].labels or {}
    for name, split in report.splits.items():
        counts = split.labels or {}
        absent = [word for word, number in counts.items() if not number and (name == "train" or train[word])]
        if not absent:
            continue
        which = f"{one if len(absent) == 1 else many} {listing(absent, _CLASSES)}"
        if name == "train":
            yield f"train has no example of the {which}: add some, or leave it out of the labels"
        else:
            yield f"{name} has no example of the {which}, and no figure will tell how well it is learnt: add some"
    present = {word: number for word, number in train.items() if number}
    if report.label_type.form is Form.CLASS and present:
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        if present[most] >= UNEVEN * present[least]:
            yield (
                f"train has {present[most]:,} rows of `{most}` and {present[least]:,} of `{least}`: weigh the classes "
                "with `class_weights`, and look at more than accuracy"
            )


def _of(rows: RowCount, all_rows: int, split: str) -> str:
    """`3 of 40 rows of train (7.5%; rows 2, 9, 11) have`."""
    have = "have" if rows.count > 1 else "has"
    return f"{rows.count:,} of {all_rows:,} rows of {split} ({_share(rows.count, all_rows)}; {_numbers(rows)}) {have}"


def _share(count: int, of: int) -> str:
    """`7.5%`."""
    share = count / of if of else 0.0
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _numbers(rows: RowCount) -> str:
    """`row 3`, `rows 3, 4, …`."""
    more = ", …" if rows.count > len(rows.first) else ""
    return f"row{'s' if rows.count > 1 else ''} {', '.join(map(str, rows.first))}{more}"


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lines(report: DataReport) -> Iterator[str]:
    """The report as text: a few lines for each split, one for each encoding, then the warnings."""
    width = max(len(name) for name in report.splits)
    overlaps = {overlap.split: overlap.rows for overlap in report.overlaps}
    for name, split in report.splits.items():
        labels = _label_words(split, report.label_type)
        yield f"{name:<{width}}  {split.rows:,} row{'' if split.rows == 1 else 's'}{labels}"
        for rows, what in (
            (split.empty, "without words in a text"),
            (split.unlabelled, "without a label"),
            (split.repeated, "with the texts of an earlier one"),
            (split.contradicting, "with another label than an earlier one with the same texts"),
            (overlaps.get(name, RowCount()), "with the texts of a row of train"),
        ):
            if rows.count:
                yield f"{'':<{width}}  {rows.count:,} ({_share(rows.count, split.rows)}) {what}: {_numbers(rows)}"
    for x in report.lengths:
        share = f"{_share(x.longer.count, report.splits[x.split].rows)} of the rows have"
        longer = f"{share if x.longer.count else 'no row has'} more than {x.max_length:,}"
        yield f"tokens of `{x.encoding}` in {x.split}: {x.mean:.1f} on average, {x.longest:,} at most; {longer}"
    yield from (f"note: {note}" for note in report.notes)
    yield from (f"warning: {warning}" for warning in report.warnings)


def _label_words(split: SplitReport, kind: LabelType) -> str:
    if split.numbers is not None:
        smallest, mean, largest = split.numbers
        return f"; labels from {smallest:g} to {largest:g}, {mean:.4g} on average"
    if not split.labels:
        return ""
    counts = sorted(split.labels.items(), key=lambda item: -item[1])
    if len(counts) > _CLASSES:
        (most, high), (least, low) = counts[0], counts[-1]
        what = f"; {len(counts)} {'tags' if kind.form is Form.TAGS else 'classes'}, "
        return what + (f"{high:,} of each" if high == low else f"from {high:,} of {most} to {low:,} of {least}")
    total = split.rows if kind.form is Form.CLASSES else sum(split.labels.values())
    shares = (f" ({_share(number, total)})" if number else "" for _, number in counts)
    return "; " + ", ".join(f"{name} {number:,}{share}" for (name, number), share in zip(counts, shares, strict=True))
