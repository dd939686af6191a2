"""A file of one form given to the source of another: B415 names the source that reads it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from brewgraph.data.sources.examples import open_examples
from brewgraph.recipe.settings.data_sources import Conll, Files, Hub, Squad, Text
from tests.data.texts import fault

ROWS = [{"text": "good film", "label": "a"}, {"text": "bad", "label": "b"}]
ASKED = {"question": "Who?", "answers": [{"text": "Bo", "answer_start": 6}]}
ANSWERS = {"data": [{"paragraphs": [{"context": "It is Bo.", "qas": [ASKED]}]}]}
TAGGED = "EU B-ORG\nx O\n\na O\n"
FORMS: dict[str, dict[str, str]] = {
    "files": {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "one.jsonl": json.dumps(ROWS[0]) + "\n",
        "a.json": json.dumps(ROWS),
        "b.json": json.dumps(ROWS, indent=1),
        "a.csv": "text,label\ngood film,a\nbad,b\n",
        "a.jsonl.gz": "".join(json.dumps(row) + "\n" for row in ROWS),
        "a.parquet": "",
    },
    "squad": {"c.json": json.dumps(ANSWERS), "d.json": json.dumps(ANSWERS, indent=1)},
    "conll": {"a.conll": TAGGED, "a.txt": TAGGED, "a.tsv": TAGGED.replace(" ", "\t")},
}
"""For each source files that it reads, with their content."""
SOURCES: dict[str, Any] = {"files": Files, "conll": Conll, "squad": Squad, "text": Text}
NAMES = [name for names in FORMS.values() for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All of them in one folder."""
    for names in FORMS.values():
        for name, content in names.items():
            (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["files", "conll", "squad"])
def test_a_file_of_another_form(folder: Path, source: str, name: str) -> None:
    """Each source reads its own files, and says of the others whose they are."""
    own = next(form for form, names in FORMS.items() if name in names)
    if own == source:
        assert len(open_examples(SOURCES[source](train=name), folder).splits["train"]) > 0
        return
    found = fault(SOURCES[source](train=name), folder)
    assert (found.code, found.field) == ("B415", "train")
    assert found.message.startswith(f"`{name}` holds ")
    assert found.help.startswith(f"`{own}(train=…)` reads it")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith((".conll", ".txt"))])
def test_tables_are_no_plain_text(folder: Path, name: str) -> None:
    """A language model would learn braces and commas; without tags no line of json is a word."""
    assert fault(Text(train=name), folder).code == "B415"
    if name in FORMS["files"]:
        assert fault(Conll(train=name, tags=None), folder).code == "B415"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_is_no_folder(folder: Path, name: str) -> None:
    """`hub` would look for it on the hub."""
    found = fault(Hub(name=name), folder)
    assert (found.code, found.help) == ("B415", f'`files(train="{name}")` reads a file of rows')


def test_what_may_be_of_a_form_is_read(tmp_path: Path) -> None:
    """Brackets and commas are words; plain text may look like tags; csv may have columns called data."""
    (tmp_path / "a.conll").write_text("[ O\nEU B-ORG\n] O\n\n{ O\n")
    assert len(open_examples(Conll(train="a.conll"), tmp_path).splits["train"]) == 2
    (tmp_path / "b.conll").write_text(", N\nEU N\n")
    assert open_examples(Conll(train="b.conll"), tmp_path).classes == ("N",)
    (tmp_path / "a.txt").write_text('{"a": 1}\nmore\n')
    assert len(open_examples(Text(train="a.txt"), tmp_path).splits["train"]) == 2
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x", "data": [1]}\n')
    assert open_examples(Files(train="a.jsonl"), tmp_path).classes == ("x",)
    (tmp_path / "a.tsv").write_text("text\tlabel\nNew York\tB-LOC\nBonn\tB-LOC\n")
    assert open_examples(Files(train="a.tsv"), tmp_path).classes == ("B-LOC",)


def test_questions_in_rows(tmp_path: Path) -> None:
    """They have what SQuAD has, in another form: the fault says which is wanted."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"context": "It is Bo.", **ASKED}) + "\n")
    found = fault(Squad(train="a.jsonl"), tmp_path)
    assert (found.code, found.help.startswith('it is {"data": ')) == ("B404", True)
