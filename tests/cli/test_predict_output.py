"""Rows that are typed or piped, and predictions as they are written, for every kind of data and label; by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import brewgraph as bg
from brewgraph.cli.predict import lines, shaped
from brewgraph.data.sources.examples import open_examples
from brewgraph.recipe.settings.data_sources import Builtin, Conll, Files, Glue, Hub, Squad
from brewgraph.running.finished import FinishedTask
from brewgraph.running.predict import piped_rows, typed_rows
from brewgraph.training.folder import write_text


def task(source: Any) -> FinishedTask:
    """A task on data of this kind, none of which is there."""
    return FinishedTask("", SimpleNamespace(name="d", source=source), (), "", Path(), "tiny", Path())  # type: ignore[arg-type]


PAIR = Files(train="gone.csv", text=("premise", "hypothesis"), label="label")
SINGLES = (
    Files(train="gone.csv", text=("text",), label="y"),
    Files(train="gone.csv", text=("text",), label=("a", "b"), problem_type="multi_label", weight="w"),
    Files(train="gone.csv", text=("text",), label="y", problem_type="regression"),
    Hub(name="no/where", text=("text",)),
    Builtin(name="python-docs"),
    Glue(task="sst2"),
)


@pytest.mark.parametrize("source", SINGLES, ids=lambda source: type(source).__name__)
def test_texts(source: Any) -> None:
    """One text to an example, whatever the labels are, with blanks and quotes as they stand."""
    texts = ['say "so", Ann', "ünï  文", "#3"]
    assert typed_rows(task(source), texts)["text_0"][:] == texts
    assert piped_rows(task(source), "\n\n".join(texts).encode())["text_0"][:] == texts


def test_pairs() -> None:
    """Two by two; plain lines are none."""
    rows = typed_rows(task(PAIR), ["a", "b", "c", "d"])
    assert (rows["text_0"][:], rows["text_1"][:]) == (["a", "c"], ["b", "d"])
    assert piped_rows(task(PAIR), b"hypothesis,premise\nb,a\n")["text_0"][:] == ["a"]
    with pytest.raises(bg.UsageError, match="an example of this run has `premise` and `hypothesis`: repeat `--text`"):
        typed_rows(task(PAIR), ["a"])
    with pytest.raises(
        bg.UsageError, match="standard input has no `premise` and `hypothesis`: pipe JSON lines, or csv"
    ):
        piped_rows(task(PAIR), b"a\nb\n")


@pytest.mark.parametrize(("words", "tags", "separator"), [(0, -1, "whitespace"), (1, 0, "tab"), (-1, 0, "space")])
def test_sentences(words: int, tags: int, separator: Any) -> None:
    """Words between blanks; from a pipe as they are written, or one in a line."""
    tagged = task(Conll(train="gone", words=words, tags=tags, separator=separator))
    assert typed_rows(tagged, ["Ann lives here", "Bo"])["words"][:] == [["Ann", "lives", "here"], ["Bo"]]
    assert piped_rows(tagged, b"Ann lives here\nBo\n")["words"][:] == [["Ann", "lives", "here"], ["Bo"]]
    assert piped_rows(tagged, b"Ann lives here\n")["words"][:] == [["Ann", "lives", "here"]]
    if words == 0:
        assert piped_rows(tagged, b"Ann B\nlives O\n\nBo B\n")["words"][:] == [["Ann", "lives"], ["Bo"]]


def test_questions() -> None:
    """A question and its context; from a pipe in the form of SQuAD."""
    asked = task(Squad(train="gone"))
    rows = typed_rows(asked, ["Who?", "It is Ann."])
    assert (rows["text_0"][:], rows["text_1"][:]) == (["Who?"], ["It is Ann."])
    whole = {
        "data": [{"paragraphs": [{"context": "It is Bo.", "qas": [{"id": "q", "question": "Who?", "answers": []}]}]}]
    }
    assert piped_rows(asked, json.dumps(whole).encode())["text_1"][:] == ["It is Bo."]


def written(
    predictions: list[dict[str, Any]], rows: Any, names: tuple[str, ...], top: int | None = None
) -> list[list[str]]:
    """The cells of the table of predictions."""
    shown = shaped(predictions, rows, names, digits=3, top=top)
    return list(csv.reader("".join(lines(shown, "csv", top=top)).splitlines()))


def test_tables() -> None:
    """A row per word of tags; several labels in one cell; numbers as they are; a question without its context."""
    tags = [{"index": 0, "words": ["Ann", ","], "tags": ["B-PER", None]}]
    assert written(tags, [{}], ("text",)) == [["index", "word", "tag"], ["0", "Ann", "B-PER"], ["0", ",", ""]]
    several = [{"index": 0, "labels": ["b", "a"], "probabilities": {"a": 0.61239, "b": 0.9}}]
    rows = [{"text_0": "x", "text_1": "y"}]
    assert written(several, rows, ("p", "q")) == [
        ["index", "p", "q", "labels", "probability_a", "probability_b"], ["0", "x", "y", "b|a", "0.612", "0.9"]
    ]  # fmt: skip
    assert written(several, rows, ("p", "q"), top=1)[1] == ["0", "x", "y", "b|a", "b", "0.9"]
    assert written([{"index": 0, "value": 0.123456789}], rows, ("p",))[1] == ["0", "x", "0.123456789"]
    answers = [{"index": 0, "id": "q1", "answer": "Ann", "score": 4.0, "start": 0, "end": 3}]
    assert written(answers, rows, ("question",)) == [
        ["index", "id", "question", "answer", "score", "start", "end"], ["0", "q1", "x", "Ann", "4.0", "0", "3"]
    ]  # fmt: skip


def test_a_column_called_as_a_prediction_is(tmp_path: Path) -> None:
    """The prediction keeps its name."""
    (row,) = shaped([{"index": 0, "label": "a"}], [{"text_0": "x"}], ("label",), digits=4, top=None)
    assert row == {"index": 0, "label": "a"}


TEXTS = (
    "plain", 'say "so"', '"whole"', '""', '"', 'x"y,z', "a,b", "  lead", "trail  ", " ", "", "#x", "'q'", "\\t", "NA", "nan", "1.0",
    "ün\u00ef 文 \u2028 \x85 x", "\ufeffb", "a\x00b", "a\tb", "a\nb", "a\r\nb", "a\rb", "\n", "\t", "\r",
)  # fmt: skip


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_what_is_written_is_read_back(tmp_path: Path, text: str, format: str) -> None:
    """By `files(…)` and, where it is a table, by Python's csv: texts, labels and names of classes, each as it was."""
    texts, classes = ["first", text, "last"], ["a", 'b"c', "d,e"]
    rows = [{"text_0": one} for one in texts]
    said = [{"index": n, "label": classes[n], "probabilities": dict.fromkeys(classes, 0.25)} for n in range(3)]
    made = lines(shaped(said, rows, ("text",), digits=4, top=None), format, top=None)
    path = tmp_path / f"out.{format}"
    refused = r"tsv cannot hold the tab or line break in .*: write csv or jsonl"
    if format != "jsonl" and "\0" in text:
        refused = f"^{format} cannot hold the null in .*: write jsonl$"
    if (format == "tsv" and set(text) & set("\t\r\n")) or (format != "jsonl" and "\0" in text):
        with pytest.raises(bg.UsageError, match=refused):
            list(made)
        return
    write_text(path, "".join(made))
    read = open_examples(Files(train=path.name), tmp_path)
    split = read.splits["train"]
    assert split["text_0"][:] == texts
    assert [read.classes[label] for label in split["label"][:]] == classes
    if format != "jsonl":
        style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if format == "tsv" else {}
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file, **style))
        assert [row["text"] for row in found] == texts
        assert {key for key in found[0] if key.startswith("prob")} == {f"probability_{name}" for name in classes}


def test_what_is_not_a_number_is_null() -> None:
    """JSON has no other word for it."""
    said = [{"index": 0, "value": float("nan"), "more": {"a": float("inf"), "b": [1.5]}}]
    (line,) = lines(said, "jsonl", top=None)
    assert json.loads(line, parse_constant=pytest.fail) == {"index": 0, "value": None, "more": {"a": None, "b": [1.5]}}
