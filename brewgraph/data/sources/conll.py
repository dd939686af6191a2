"""Sentences with a tag for each word, from files of columns; tags of entities in IOB1 are brought to IOB2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import datasets

from brewgraph.data.sources.labels import LONGEST_NAME, Classes, add_columns, put_in_order, unknown_class
from brewgraph.data.sources.reader import Contents, read
from brewgraph.data.sources.rows import (
    LONGEST_TEXT,
    Split,
    check_form,
    named_splits,
    no_rows,
    plain_suffix,
    read_each,
    read_text,
)
from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.settings.data_sources import Conll
from brewgraph.recipe.tag_schemes import OUTSIDE, Scheme, find_scheme

_DOCUMENT = "-DOCSTART-"
"""How the line between two documents begins."""
_ATTRIBUTE = re.compile(r"#\s+([^\s=]+)\s*=\s*(.*)")
"""A comment with an attribute of the sentence below it, as in CoNLL-U: `# sent_id = 7`."""


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence, their tags (if requested), and their line numbers, from 1.

    `attributes` are the names and values in the comments above it.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]
    attributes: tuple[tuple[str, str], ...] = ()


Files = dict[str, tuple[Sentence, ...]]
"""The sentences of every split."""


@read.register
def read_conll(source: Conll, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    """Every split: `words` and, unless there are none, `tags`; notes say what was changed, or may be misread.

    Raises `SourceFault`: B401 a missing file, B404 lines, B403 tags.
    """
    names = named_splits(source)
    files = read_each(source, folder, partial(_read, (source.words, source.tags), source.separator))
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if source.tags is not None:
        files, classes, notes = _tagged(files, names, source.classes)
    beside = {field: _beside(sentences, names[field]) for field, sentences in files.items()}
    splits = {
        field: add_columns(_as_dataset(sentences, classes), beside[field], field, source, columns)
        for field, sentences in files.items()
    }
    more = (name for name in beside["train"].rows.column_names if name != "words")
    return Contents(splits, classes, notes=notes, columns=("words", "tags", *more))


def _tagged(
    splits: Files, names: dict[str, str], asked: tuple[str, ...] | None
) -> tuple[Files, tuple[str, ...], tuple[str, ...]]:
    """The sentences with tags in IOB1 as IOB2, the classes, in the order that is `asked` for, and notes."""
    notes: tuple[str, ...] = ()
    scheme = find_scheme(tag for sentences in splits.values() for sentence in sentences for tag in sentence.tags)
    if scheme is not None and scheme.separator:  # bare letters may be anything
        splits, notes = _to_iob2(splits, names, scheme)
    seen = {tag for sentence in splits["train"] for tag in sentence.tags}
    classes = _classes(seen, scheme)
    if scheme is None and OUTSIDE in classes:
        shown = next((name for name in classes if name != OUTSIDE), OUTSIDE)
        help = "write them as `B-PER` and `I-PER` (IOB2, IOBES, BILOU or BMES) for scores of entities"
        notes = (f"tags such as `{shown}` mark no entities, and are scored word by word; {help}",)
    if asked is not None:
        classes = put_in_order(Classes(tuple(c for c in classes if c in seen), by_name=True), asked).names
    for field, sentences in splits.items():
        for tag, line in ((tag, line) for x in sentences for tag, line in zip(x.tags, x.lines, strict=True)):
            if tag not in classes:
                raise unknown_class(f"the tag in line {line} of `{names[field]}`", tag, classes, field)
    return splits, classes, notes


def _as_dataset(sentences: Sequence[Sentence], classes: Sequence[str]) -> datasets.Dataset:
    """Columns `words` (texts) and, where there are classes, `tags` (their numbers, one for each word)."""
    features = {"words": datasets.List(datasets.Value("string"))}
    columns: dict[str, list] = {"words": [list(sentence.words) for sentence in sentences]}
    if classes:
        numbers = {name: number for number, name in enumerate(classes)}
        features["tags"] = datasets.List(datasets.Value("int64"))
        columns["tags"] = [[numbers[tag] for tag in sentence.tags] for sentence in sentences]
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _beside(sentences: Sequence[Sentence], name: str) -> Split:
    """The `words`, and a column of text for each attribute in comments; `name` is the file's."""
    attributes = [dict(sentence.attributes) for sentence in sentences]
    names = dict.fromkeys(key for row in attributes for key in row)
    columns: dict[str, list] = {key: [row.get(key) for row in attributes] for key in names}
    columns["words"] = [list(sentence.words) for sentence in sentences]
    return Split(datasets.Dataset.from_dict(columns), f"`{name}`", typed=False)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=16)
def _read(
    columns: tuple[int, int | None], separator: str, name: str, path: Path, field: str, _stamp: object
) -> tuple[Sentence, ...]:
    """The sentences of one file."""
    text = read_text(name, path, field)
    check_form(name, text, field, "conll")
    sentences = tuple(_sentences(_Columns(text, *columns, separator), name, field))
    if not sentences:
        raise no_rows(f"`{name}`", field)
    return sentences


class _Columns:
    """The columns of a text. Of the lines that do not begin with a number sign: how many columns they have, the values
    of the tag column (the last one without tags), and whether tabs separate the columns.
    """

    def __init__(self, text: str, words: int, tags: int | None, separator: str):
        self.lines, self.words, self.tags, self.separator = text.split("\n"), words, tags, separator
        lines = [line for line in self.lines if line.strip() and not line.startswith(("#", _DOCUMENT))]
        rows = [self.split(line) for line in lines]
        self.named = {"words": words} | ({} if tags is None else {"tags": tags})
        self.tag_column = -1 if tags is None else tags
        self.count = len(rows[0]) if rows else 0
        self.seen = {row[self.tag_column] for row in rows if -len(row) <= self.tag_column < len(row)}
        self.tabs = "\t" in "".join(lines[:1])

    def split(self, line: str) -> list[str]:
        if self.separator == "tab":
            return [part.strip(" ") for part in line.split("\t")]
        if self.separator == "space":
            return line.split(" ")
        return re.split(r"[ \t]+", line.strip(" \t"))  # words may hold other blanks, as those of fixed width

    def is_comment(self, line: str) -> bool:
        """Whether a line before a sentence is a comment about it, and not its first word.

        A word has as many columns as others, and a tag that others have, too, or that marks an entity: `# O`.
        """
        if not line.startswith("#"):
            return False
        parts = self.split(line)
        if not self.count:  # no other line tells how many
            return len(parts) < 2 or _ATTRIBUTE.fullmatch(line.strip()) is not None
        if len(parts) != self.count or (self.tabs and "\t" not in line):
            return True
        if self.count == 1:  # words alone
            return False
        tag = parts[self.tag_column]
        scheme = find_scheme({*self.seen, tag})
        return tag not in self.seen and tag != OUTSIDE and (scheme is None or scheme.split(tag) is None)


def _sentences(columns: _Columns, name: str, field: str) -> Iterator[Sentence]:
    attributes: dict[str, str] = {}
    first: tuple[int, int] | None = None  # line and columns of the first word: all others have as many
    between = groupby(enumerate(columns.lines, 1), lambda x: not x[1].strip() or x[1].startswith(_DOCUMENT))
    for group in (lines for ends, lines in between if not ends):
        rows: list[tuple[int, list[str]]] = []
        for number, line in group:
            if not rows and columns.is_comment(line):
                if comment := _ATTRIBUTE.fullmatch(line.strip()):
                    attributes[comment[1]] = comment[2]
                continue
            parts = columns.split(line)
            first = first or (number, len(parts))
            has = f"{len(parts)} column" + ("" if len(parts) == 1 else "s")
            if len(parts) != first[1]:
                help = "every line has as many columns; `separator=tab` where words hold blanks"
                help += "; `files(train=…)` where each line is a text" if plain_suffix(name) == ".tsv" else ""
                raise _bad_line(name, field, number, f"{has} where line {first[0]} has {first[1]}", help)
            for argument, column in columns.named.items():
                if not -len(parts) <= column < len(parts):
                    help = f"name another with `{argument}=`, counted from 0"
                    raise _bad_line(name, argument, number, f"{has}, and none with number {column}", help)
            if columns.tags is not None and (columns.words - columns.tags) % len(parts) == 0:
                help = "a line holds a word and its tag; look at `separator`, `words` and `tags`"
                raise _bad_line(name, field, number, f"{has}, so that words and tags are the same", help)
            rows.append((number, [parts[column] for column in columns.named.values()]))
            if not all(rows[-1][1]):
                raise _bad_line(name, field, number, "an empty word or tag", "fill it in, or remove the line")
            if len(rows[-1][1][0]) > LONGEST_TEXT:
                help = "look at the file: does it separate words by line breaks?"
                raise _bad_line(name, field, number, f"a word of more than {LONGEST_TEXT:,} characters", help)
            if columns.tags is not None and (length := len(rows[-1][1][-1])) > LONGEST_NAME:
                help = "a tag has a short name: look at `tags` and `separator`"
                raise _bad_line(name, field, number, f"a tag of {length:,} characters", help)
        if rows:
            numbers, cells = zip(*rows, strict=True)
            words, *tags = zip(*cells, strict=True)
            yield Sentence(words, tags[0] if tags else (), numbers, tuple(attributes.items()))
            attributes = {}


def _bad_line(name: str, field: str, line: int, what: str, help: str) -> SourceFault:
    return SourceFault("B404", f"line {line} of `{name}` has {what}", help=help, field=field)


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes(tags: set[str], scheme: Scheme | None) -> tuple[str, ...]:
    """`O`, then for each type in alphabetical order all its tags; those that mark no typed entities by the alphabet."""
    kinds = sorted({part[1] for tag in tags if (part := scheme.split(tag))} - {"_"}) if scheme is not None else []
    if scheme is None or not kinds:
        return tuple(sorted(tags))
    # all tags of a type, whichever occur: a rare one may be in dev alone
    return (OUTSIDE, *(tag for kind in kinds for tag in scheme.tags(kind)))


def _to_iob2(splits: Files, names: dict[str, str], scheme: Scheme) -> tuple[Files, tuple[str, ...]]:
    """The same sentences, those in IOB1 with a `B` where an entity begins.

    In IOB1 (Ramshaw and Marcus 1995) an entity begins with `I-`, and with `B-` only right after another of its type.
    Raises B403 for tags that fit neither IOB1 nor the scheme.
    """
    loose: tuple[str, str, int] | None = None  # the first I- that continues no entity
    free = scheme.closes  # whether a B- occurs where IOB1 has none
    converted: Files = {}
    for field, sentences in splits.items():
        rows = []
        for sentence in sentences:
            tags: list[str] = []
            mark, kind = "", ""
            for tag, line in zip(sentence.tags, sentence.lines, strict=True):
                before, (mark, kind) = (mark, kind), scheme.split(tag) or ("", "")
                if not mark and tag != OUTSIDE:
                    message = f"the tag in line {line} of `{names[field]}` is `{tag}`, where others mark entities"
                    marks = listing([scheme.tag(mark, "…") for mark in scheme.marks])
                    help = f"write `O`, or {marks} with the entity's type"
                    raise SourceFault("B403", message, help=help, field=field)
                begins = before not in (("B", kind), ("I", kind))
                if begins and mark in ("I", "E"):
                    loose = loose or (field, tag, line)
                free = free or (begins and mark == "B")
                tags.append(scheme.tag("B", kind) if begins and mark == "I" else tag)
            rows.append(replace(sentence, tags=tuple(tags)))
        converted[field] = tuple(rows)
    if loose is None:
        return splits, ()
    field, tag, line = loose
    if free:
        (_, kind), name = scheme.split(tag) or ("", ""), scheme.name
        message = f"the tag in line {line} of `{names[field]}` is `{tag}`, but no entity of this type precedes it"
        help = f"an entity begins with `{scheme.tag('B', kind)}`; tags are {name} throughout, or IOB1 throughout"
        raise SourceFault("B403", message, help=help, field=field)
    note = f"tags are IOB1 (line {line} of `{names[field]}` begins an entity with `{tag}`), and were read as IOB2"
    return converted, (note,)
