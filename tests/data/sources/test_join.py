"""Data sets one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brewgraph.data.encoding.encode import Collator, Encoding, encode
from brewgraph.data.sources.examples import Examples, facts, join_examples, open_examples
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Batches, Conll, Files, Join, Text
from tests.data.texts import byte_level


def write(folder: Path, name: str, *rows: dict[str, Any]) -> str:
    """A file of rows."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def files(folder: Path, name: str, *labels: Any, dev: tuple[Any, ...] = (), **settings: Any) -> Files:
    """A source of short texts with these labels."""
    rows = [[{"text": f"{name} {n}", "label": label} for n, label in enumerate(part)] for part in (labels, dev)]
    train = write(folder, f"{name}.jsonl", *rows[0])
    held = write(folder, f"{name}-dev.jsonl", *rows[1]) if dev else None
    return Files(train=train, dev=held, **settings)


def joined(folder: Path, *parts: Any) -> tuple[Join, Examples]:
    """A join and what it holds."""
    source = Join(parts=parts)
    return source, open_examples(source, folder)


def test_one_after_the_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of classes are brought together, dev is of those that have one, rows are numbered anew; in silence."""
    a = files(tmp_path, "a", "yes", "no", "yes")
    b = files(tmp_path, "b", "maybe", "yes", dev=("yes", "maybe"))
    source, found = joined(tmp_path, a, b)
    assert found.classes == ("no", "yes", "maybe")
    assert found.splits["train"].to_dict() == {
        "text_0": ["a 0", "a 1", "a 2", "b 0", "b 1"],
        "label": [1, 0, 1, 2, 1],
        "index": [0, 1, 2, 3, 4],
    }
    assert found.splits["dev"].to_dict() == {"text_0": ["b 0", "b 1"], "label": [1, 2], "index": [0, 1]}
    assert found.fingerprint == join_examples([open_examples(a, tmp_path), open_examples(b, tmp_path)]).fingerprint
    assert found.fingerprint != open_examples(Join(parts=(b, a)), tmp_path).fingerprint
    rows = {"train": 5, "dev": 2}
    assert facts(source, tmp_path) == DataFacts(found.classes, ("text", "label"), rows, seen=found.classes, words=2)
    assert capfd.readouterr() == ("", "")


def test_several_labels_and_tags(tmp_path: Path) -> None:
    """Each class keeps its place among those of all."""
    several = {"problem_type": "multi_label"}
    _, found = joined(tmp_path, files(tmp_path, "a", ["x", "z"], **several), files(tmp_path, "b", ["y"], [], **several))
    assert found.classes == ("x", "z", "y")
    assert found.splits["train"]["label"][:] == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    (tmp_path / "a.conll").write_text("a B-PER\n")
    (tmp_path / "b.conll").write_text("b B-LOC\nc I-LOC\n")
    _, found = joined(tmp_path, Conll(train="a.conll"), Conll(train="b.conll"))
    assert found.classes == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert found.splits["train"]["tags"][:] == [[1], [3, 4]]


def test_numbers_and_weights(tmp_path: Path) -> None:
    """The same numbers of classes stay; where one part has weights, the rows of the other weigh 1."""
    source, found = joined(tmp_path, files(tmp_path, "a", 0, 1, class_weights=(2, 3)), files(tmp_path, "b", 1, 0))
    assert found.classes == ("0", "1")
    assert found.splits["train"]["weights"][:] == [2, 3, 1, 1]
    assert source.weighted
    number = {"problem_type": "regression"}
    _, found = joined(tmp_path, files(tmp_path, "a", 0, 1, **number), files(tmp_path, "b", 2.5, **number))
    assert found.splits["train"]["label"][:] == [0, 1, 2.5]


def test_columns_of_all_parts(tmp_path: Path) -> None:
    """Each must have them; whole numbers and fractions come to fractions."""
    write(tmp_path, "a.jsonl", {"text": "a", "label": 0, "score": 1})
    write(tmp_path, "b.jsonl", {"text": "b", "label": 0, "score": 0.5})
    source = Join(parts=(Files(train="a.jsonl"), Files(train="b.jsonl")))
    assert open_examples(source, tmp_path, ["score"]).splits["train"]["column/score"][:] == [1.0, 0.5]
    write(tmp_path, "b.jsonl", {"text": "b", "label": 0})
    with pytest.raises(SourceFault, match="`b.jsonl` has no column `score`"):
        open_examples(source, tmp_path, ["score"])


@pytest.mark.parametrize(
    ("left", "right", "message", "help"),
    [
        ((0, 1), (0, 1, 2), "the joined data sets have different classes: 2 that are numbers and 3", "as names"),
        ((0, 1), ("a", "b"), "2 that are numbers and names like `a` and `b`", "as names"),
    ],
)
def test_classes_that_do_not_fit(tmp_path: Path, left: tuple, right: tuple, message: str, help: str) -> None:
    """B408, in the check too."""
    source = Join(parts=(files(tmp_path, "a", *left), files(tmp_path, "b", *right)))
    for read in (open_examples, facts):
        with pytest.raises(SourceFault) as caught:
            read(source, tmp_path)
        assert caught.value.code == "B408"
        assert message in caught.value.message
        assert help in caught.value.help


def test_texts_that_do_not_fit(tmp_path: Path) -> None:
    """B408: pairs and single texts; ready tensors."""
    write(tmp_path, "pairs.jsonl", {"text": "a", "other": "b", "label": "yes"})
    pairs = Files(train="pairs.jsonl", text=("text", "other"))
    with pytest.raises(SourceFault) as caught:
        joined(tmp_path, files(tmp_path, "a", "yes"), pairs)
    assert (caught.value.code, caught.value.message) == ("B408", "only some of the joined data have a second text")
    for read in (open_examples, facts):
        with pytest.raises(SourceFault, match="ready tensors cannot be joined with other data"):
            read(Join(parts=(pairs, Batches(folder="x"))), tmp_path)


def test_joined_text_is_one_text(tmp_path: Path) -> None:
    """Its blocks go on from one file into the next; settings are the first one's."""
    (tmp_path / "a.txt").write_text("abc\n")
    (tmp_path / "b.txt").write_text("defgh\n")
    source, found = joined(tmp_path, Text(train="a.txt", block=5), Text(train="b.txt"))
    encoding = Encoding("g", byte_level([]), 64)
    rows = encode(found.splits["train"], [encoding], source=source)
    assert [encoding.tokenizer.decode(row["g/input_ids"]) for row in rows] == ["abc\nd", "efgh\n"]
    batch = Collator([encoding], source=source)(list(rows))
    assert batch["labels"][:, :-1].tolist() == batch["input_ids"][:, 1:].tolist()
