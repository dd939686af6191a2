"""Questions whose answers are spans of a text, from json in the format of SQuAD (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from brewgraph.data.sources.labels import add_columns
from brewgraph.data.sources.reader import Contents, read
from brewgraph.data.sources.rows import CUT_SHORT, Split, check_form, no_rows, read_each, read_text
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Squad

FEATURES = datasets.Features(
    {
        "text_0": datasets.Value("string"),
        "text_1": datasets.Value("string"),
        "answers": {
            "text": datasets.List(datasets.Value("string")),
            "start": datasets.List(datasets.Value("int64")),
        },
        "id": datasets.Value("string"),
    }
)
_SHOWN = 40
"""Characters of an answer that a message shows at most."""
_FORM = (
    'it is {"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": '
    '[{"text": …, "answer_start": …}]}]}]}]}'
)
_READ = ("question", "answers", "id", "is_impossible", "plausible_answers")
"""The known keys of a question; every other key is a column."""


@read.register
def read_squad(source: Squad, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    """Every split: `text_0` the question, `text_1` the context, `answers` (none where it cannot be answered), `id`.

    Raises `SourceFault`: B401 a missing file, B404 another format, B403 an answer that is not at its offset.
    """
    questions = read_each(source, folder, _read)
    more = [name for name in questions["train"][1].rows.column_names if name != "id"]
    splits = {field: add_columns(rows, beside, field, source, columns) for field, (rows, beside) in questions.items()}
    return Contents(splits, columns=("id", "question", "context", "answers", *more))


@lru_cache(maxsize=16)
def _read(name: str, path: Path, field: str, _stamp: object) -> tuple[datasets.Dataset, Split]:
    """The questions of a file with `FEATURES`, and beside them their `id` and other columns."""
    text = read_text(name, path, field)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        check_form(name, text, field, "squad")
        line, what = getattr(error, "lineno", 1), getattr(error, "msg", error)
        message = f"`{name}` cannot be read as json: line {line}: {what}"
        raise SourceFault("B404", message, help=CUT_SHORT, field=field) from error
    if '"context"' not in text:  # questions in rows are told of the form that they need
        check_form(name, text, field, "squad")
    questions = list(_questions(whole, name, field))
    if not questions:
        raise no_rows(f"`{name}`", field)
    rows, extras = zip(*questions, strict=True)
    columns = {column: [row[column] for row in rows] for column in FEATURES}
    names = dict.fromkeys(key for extra in extras for key in extra)
    beside = {"id": _values(columns["id"]), **{key: _values([extra.get(key) for extra in extras]) for key in names}}
    table = datasets.table.InMemoryTable(pyarrow.table(beside))
    return datasets.Dataset.from_dict(columns, features=FEATURES), Split(datasets.Dataset(table), f"`{name}`")


def _values(values: list[Any]) -> pyarrow.Array:
    """A column of json; values of several types become text, which a request for numbers refuses."""
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if value is None else json.dumps(value) for value in values])


def _questions(whole: Any, name: str, field: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each question, and its other columns."""

    def part(of: Any, key: str, kind: type, place: str) -> Any:
        value = of.get(key) if isinstance(of, dict) else None
        if not isinstance(value, kind):
            wanted = {list: "a list", str: "a text", int: "a whole number"}[kind]
            message = f"`{name}` is not in the form of SQuAD: `{key}` of {place} is not {wanted}"
            raise SourceFault("B404", message, help=_FORM, field=field)
        return value

    for n, article in enumerate(part(whole, "data", list, "the whole"), 1):
        for m, paragraph in enumerate(part(article, "paragraphs", list, f"article {n}"), 1):
            place = f"paragraph {m} of article {n}"
            context = part(paragraph, "context", str, place)
            for k, asked in enumerate(part(paragraph, "qas", list, place), 1):
                question = part(asked, "question", str, f"question {k}, {place}")
                id = str(asked.get("id", f"{n}-{m}-{k}"))
                answers: dict[str, list] = {"text": [], "start": []}
                for answer in [] if asked.get("is_impossible") else asked.get("answers") or []:
                    place_of_answer = f"an answer to question `{id}`"
                    text = part(answer, "text", str, place_of_answer)
                    start = part(answer, "answer_start", int, place_of_answer)
                    _check(text, start, context, f"the answer to question `{id}` in `{name}`", field)
                    answers["text"].append(text)
                    answers["start"].append(start)
                extra = {key: value for key, value in asked.items() if key not in _READ}
                yield {"text_0": question, "text_1": context, "answers": answers, "id": id}, extra


def _check(text: str, start: int, context: str, what: str, field: str) -> None:
    """Raise B403 where an answer is not at its offset."""
    actual = context[start : start + len(text)] if start >= 0 else ""
    if actual == text and text.strip():
        return
    if not text.strip():
        help = "leave `answers` empty where there is no answer"
        raise SourceFault("B403", f"{what} is empty", help=help, field=field)
    at = context.find(text)
    message = f"{what}, `{_short(text)}`, is not at offset {start} of its text, which has `{_short(actual)}` there"
    help = f"it is at {at}" if at >= 0 else "`answer_start` counts characters from 0; the text does not hold it"
    raise SourceFault("B403", message, help=help, field=field)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
