"""Labels that are several classes or a number, weights of examples, columns that a spec asks for by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from brewgraph.data.encoding.encode import Collator, Encoding, encode
from brewgraph.data.sources import tables
from brewgraph.data.sources.examples import facts, open_examples
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Files, Glue, Hub, Join
from tests.data.texts import byte_level, fault

MULTI: dict[str, Any] = {"problem_type": "multi_label"}
NUMBER: dict[str, Any] = {"problem_type": "regression"}


def write(folder: Path, *rows: dict[str, Any], name: str = "train.jsonl") -> str:
    """A file of rows, each with a text."""
    whole = [{"text": f"text {n}", **row} for n, row in enumerate(rows)]
    if name.endswith(".csv"):
        lines = [",".join(whole[0]), *(",".join(str(x) for x in row.values()) for row in whole)]
        (folder / name).write_text("\n".join(lines) + "\n")
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in whole))
    return name


def labelled(folder: Path, *labels: Any, **settings: Any) -> Files:
    """A source whose rows have these labels."""
    return Files(train=write(folder, *({"label": label} for label in labels)), **settings)


# ── several classes ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("labels", "classes", "marks"),
    [
        ([["joy", "awe"], [], ["joy"]], ("awe", "joy"), [[1, 1], [0, 0], [0, 1]]),
        ([[2], [0, 2], []], ("0", "1", "2"), [[0, 0, 1], [1, 0, 1], [0, 0, 0]]),
        ([[0], [1], [0, 1]], ("0", "1"), [[1, 0], [0, 1], [1, 1]]),
        ([[0], [1]], ("0", "1"), [[1, 0], [0, 1]]),
        ([[2, 1], [0, 1]], ("0", "1", "2"), [[0, 1, 1], [1, 1, 0]]),
        # 0 or 1 for each class
        ([[1, 0], [1, 1]], ("0", "1"), [[1, 0], [1, 1]]),
        ([[1, 0], [0, 1]], ("0", "1"), [[1, 0], [0, 1]]),
        ([[0, 0, 0, 1], [0, 1, 0, 1]], ("0", "1", "2", "3"), [[0, 0, 0, 1], [0, 1, 0, 1]]),
        ([[1.0, 0.0, 0.0]], ("0", "1", "2"), [[1, 0, 0]]),
        ([[True, False], [False, False]], ("0", "1"), [[1, 0], [0, 0]]),
    ],
)
def test_lists_of_classes(tmp_path: Path, labels: list, classes: tuple[str, ...], marks: list) -> None:
    """Names in alphabetical order, numbers up to the largest; an empty list is no class."""
    source = labelled(tmp_path, *labels, **MULTI)
    found = open_examples(source, tmp_path)
    assert (source.label_type, found.classes) == ("classes", classes)
    assert found.splits["train"]["label"][:] == marks
    assert found.splits["train"].features["label"] == datasets.List(datasets.Value("float32"))
    assert facts(source, tmp_path).classes == classes


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_a_column_for_each_class(tmp_path: Path, name: str) -> None:
    """Their names are the classes, in the order of the spec."""
    write(tmp_path, {"joy": 1, "awe": 0}, {"joy": 1, "awe": 1}, name=name)
    found = open_examples(Files(train=name, label=("joy", "awe"), **MULTI), tmp_path)
    assert found.classes == ("joy", "awe")
    assert found.splits["train"]["label"][:] == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("labels", "message", "help"),
    [
        ([["a"], "b"], "the label in row 2 of `train.jsonl`", ""),
        ([["a"], None], "the label in row 2 of `train.jsonl` is missing", "`label=[first, second]`"),
        (["a"], "the label in row 1 of `train.jsonl` is 'a', and no list", "write a list of classes"),
        ([[0], [-1]], "the label in row 2 of `train.jsonl` is [-1]", "whole numbers from 0 on and each once"),
        ([[], []], "an empty list, as are all others", "some training row"),
        ([[0, 10**7]], "10000000, which makes", "column of identifiers?"),
        ([[0], [1, 1]], "the label in row 2 of `train.jsonl` is [1, 1]", "0 or 1 for each class, equally many"),
        ([[0.0, 1.0], [1.0]], "is [1.0], and not 0 or 1 for each of 2 classes", "as many numbers in every row"),
        ([[0.0, 0.5]], "the label in row 1 of `train.jsonl` is [0.0, 0.5]", "1 where a class is right"),
    ],
)
def test_faulty_lists(tmp_path: Path, labels: list, message: str, help: str) -> None:
    """B403 with the row; what the format's own reader refuses has its words."""
    found = fault(labelled(tmp_path, *labels, **MULTI), tmp_path)
    assert (found.code, found.field) in [("B403", "label"), ("B404", "train")]
    if found.code == "B403":
        assert message in found.message
        assert help in found.help


@pytest.mark.parametrize(
    ("labels", "classes", "marks"),
    [
        ([[1, 0, 0], [0, 0, 1]], ("joy", "awe", "ire"), [[1, 0, 0], [0, 0, 1]]),
        ([[1, 0], [0, 1]], ("joy", "awe", "ire"), [[1, 1, 0], [1, 1, 0]]),  # three classes: these number two of them
        ([["joy"], ["awe", "joy"]], ("joy", "awe"), [[1, 0], [1, 1]]),
        ([[0], [2, 1]], ("joy", "awe", "ire"), [[1, 0, 0], [0, 1, 1]]),
        ([[100], [7, 100]], ("100", "7"), [[1, 0], [1, 1]]),
        ([[-1], [1, -1]], ("1", "-1"), [[0, 1], [1, 1]]),
    ],
)
def test_several_classes_with_their_names(tmp_path: Path, labels: list, classes: tuple[str, ...], marks: list) -> None:
    """`classes` names them in order, whether lists hold marks, numbers or names."""
    found = open_examples(labelled(tmp_path, *labels, classes=classes, **MULTI), tmp_path)
    assert (found.classes, found.splits["train"]["label"][:]) == (classes, marks)


def test_marks_of_other_splits(tmp_path: Path) -> None:
    """The training rows tell what lists are; of dev they must be the same. Where either reading fits, a note says so."""
    source = labelled(tmp_path, [1, 0, 0], [0, 0, 0], dev="dev.jsonl", **MULTI)
    write(tmp_path, {"label": [0, 1, 1]}, {"label": [1, 0, 1]}, name="dev.jsonl")
    read = open_examples(source, tmp_path)
    assert (read.splits["dev"]["label"][:], read.notes) == ([[0, 1, 1], [1, 0, 1]], ())
    write(tmp_path, {"label": [0, 1]}, name="dev.jsonl")
    assert "row 1 of `dev.jsonl` is [0, 1], and not 0 or 1 for each of 3" in fault(source, tmp_path).message
    source = labelled(tmp_path, [2], [0, 1], dev="dev.jsonl", **MULTI)
    write(tmp_path, {"label": [0, 1, 1]}, name="dev.jsonl")
    assert "row 1 of `dev.jsonl` is [0, 1, 1]" in fault(source, tmp_path).message
    (note,) = open_examples(labelled(tmp_path, [0, 1], [1, 0], **MULTI), tmp_path).notes
    assert "read as 0 or 1 for each of two classes" in note


def test_marks_in_parquet(tmp_path: Path) -> None:
    """As transformers' own examples write them, floats beside a text."""
    rows = {"text": ["a", "b"], "label": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    found = open_examples(Files(train="train.parquet", classes=("x", "y", "z"), **MULTI), tmp_path)
    assert (found.classes, found.splits["train"]["label"][:]) == (("x", "y", "z"), rows["label"])


def test_faulty_columns_of_classes(tmp_path: Path) -> None:
    """A class of dev alone, a value that is neither 0 nor 1, a column twice, one that is not there."""
    source = labelled(tmp_path, ["joy"], ["awe"], **MULTI)
    write(tmp_path, {"label": ["jot"]}, name="dev.jsonl")
    found = fault(source.model_copy(update={"dev": "dev.jsonl"}), tmp_path)
    assert found.message == "a label in row 1 of `dev.jsonl` is 'jot', which no training row has"
    assert found.help == "did you mean `joy`? the classes are `awe` and `joy`"
    write(tmp_path, {"joy": 1, "awe": 2})
    found = fault(Files(train="train.jsonl", label=("joy", "awe"), **MULTI), tmp_path)
    assert (found.code, found.message) == ("B403", "`awe` in row 1 of `train.jsonl` is 2")
    found = fault(Files(train="train.jsonl", label=("joy", "joy"), **MULTI), tmp_path)
    assert (found.code, found.message) == ("B402", "`joy` is named twice")
    found = fault(Files(train="train.jsonl", label=("joy", "ave"), **MULTI), tmp_path)
    assert (found.code, found.field) == ("B402", "label")
    assert found.help.startswith("did you mean `awe`?")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_numbers(tmp_path: Path, name: str) -> None:
    """Whole ones too; there are no classes."""
    write(tmp_path, {"label": 2.5}, {"label": -1}, name=name)
    source = Files(train=name, **NUMBER)
    found = open_examples(source, tmp_path)
    assert (source.label_type, found.classes) == ("value", ())
    assert found.splits["train"]["label"][:] == [2.5, -1.0]
    assert found.splits["train"].features["label"] == datasets.Value("float32")


@pytest.mark.parametrize("value", ["high", None])
def test_what_is_no_number(tmp_path: Path, value: Any) -> None:
    """B403 with the row."""
    found = fault(labelled(tmp_path, value, value, **NUMBER), tmp_path)
    assert (found.code, found.field) == ("B403", "label")
    assert found.message.startswith("the label in row 1 of `train.jsonl` is ")


def test_several_numbers_are_no_label(tmp_path: Path) -> None:
    """B403 says what a regression predicts."""
    found = fault(labelled(tmp_path, [0.5, 1.0], [1.5, 2.0], **NUMBER), tmp_path)
    assert found.help == "a regression predicts one number for each row: name a column of single numbers"


def test_stsb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GLUE's task of numbers: pairs, columns known, no classes."""
    folder = tmp_path / "glue" / "stsb"
    folder.mkdir(parents=True)
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [5.0, 2.25], "idx": [0, 1]}
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: stsb/{split}-*\n" for split in ("train", "validation"))
    (tmp_path / "glue" / "README.md").write_text(f"---\nconfigs:\n- config_name: stsb\n  data_files:\n{files}---\n")
    monkeypatch.setattr(tables, "GLUE", str(tmp_path / "glue"))
    found = open_examples(Glue(task="stsb"), tmp_path)
    assert (found.classes, found.splits["dev"]["label"][:]) == ((), [5.0, 2.25])
    assert facts(Glue(task="stsb"), tmp_path).rows == {"train": 5749, "dev": 1500}


def test_a_folder_of_several_labels(tmp_path: Path) -> None:
    """A hub's list of named classes keeps its names and their order."""
    folder = tmp_path / "moods"
    folder.mkdir()
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["joy", "awe", "ire"]))}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[1], [0, 2]]}, features=features)
    rows.to_parquet(folder / "train.parquet")
    found = open_examples(Hub(name="moods", **MULTI), tmp_path)
    assert found.classes == ("joy", "awe", "ire")
    assert found.splits["train"]["label"][:] == [[0, 1, 0], [1, 0, 1]]
    turned = open_examples(Hub(name="moods", classes=("ire", "awe", "joy"), **MULTI), tmp_path)
    assert turned.splits["train"]["label"][:] == [[0, 1, 0], [1, 0, 1]]
    assert open_examples(Hub(name="moods", classes=("awe", "joy", "ire"), **MULTI), tmp_path).splits["train"]["label"][
        :
    ] == [[1, 0, 0], [0, 1, 1]]


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def weights(source: Files, folder: Path, split: str = "train") -> list[float]:
    """The weights of a split."""
    rows = open_examples(source, folder).splits[split]
    assert rows.features["weights"] == datasets.Value("float32")
    return rows["weights"][:]


def test_weights(tmp_path: Path) -> None:
    """Of a column, of classes, and their product; dev needs no column."""
    rows = [{"label": "a", "w": 0.5}, {"label": "a", "w": 2}, {"label": "a", "w": 0}, {"label": "b", "w": 1}]
    write(tmp_path, *rows)
    write(tmp_path, {"label": "b"}, name="dev.jsonl")
    files = {"train": "train.jsonl", "dev": "dev.jsonl"}
    assert weights(Files(**files, weight="w"), tmp_path) == [0.5, 2, 0, 1]
    assert weights(Files(**files, weight="w"), tmp_path, "dev") == [1]
    assert weights(Files(**files, class_weights=(3, 4)), tmp_path) == [3, 3, 3, 4]
    balanced = weights(Files(**files, class_weights="balanced"), tmp_path)
    assert balanced == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    assert sum(balanced) == pytest.approx(4), "balanced weights are 1 in the mean"
    assert weights(Files(**files, weight="w", class_weights=(3, 4)), tmp_path) == [1.5, 6, 0, 4]
    assert "weights" not in open_examples(Files(**files), tmp_path).splits["train"].column_names


def test_faulty_weights(tmp_path: Path) -> None:
    """Found by the check too, before anything is trained."""
    write(tmp_path, {"label": "a", "w": -1}, {"label": "b", "w": 1})
    for made in (open_examples, facts):

        def said(made: Any = made, **settings: Any) -> SourceFault:
            with pytest.raises(SourceFault) as caught:
                made(Files(train="train.jsonl", **settings), tmp_path)
            return caught.value

        found = said(weight="w")
        assert (found.code, found.field) == ("B403", "weight")
        assert found.message == "the weight in row 1 of `train.jsonl` is -1"
        assert said(weight="v").help.endswith("the columns are `text`, `label` and `w`")
        assert said(weight="text").message == ("the weight in row 1 of `train.jsonl` is 'text 0', and no finite number")
        found = said(class_weights=(1, 2, 3))
        assert (found.code, found.field) == ("B403", "class_weights")
        assert (found.message, found.help) == (
            "there are 3 weights for 2 classes", "one for each, in the order `a` and `b`"
        )  # fmt: skip


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_columns_that_are_asked_for(tmp_path: Path) -> None:
    """Numbers, truth values and lists of them keep their kind, in examples and in batches."""
    write(
        tmp_path,
        {"label": 0, "rank": 3, "score": 0.5, "seen": True, "hints": [1, 2, 3], "soft": [0.5]},
        {"label": 1, "rank": 4, "score": 1.0, "seen": False, "hints": [], "soft": [1.0, 2.0]},
    )
    names = ["rank", "score", "seen", "hints", "soft"]
    found = open_examples(Files(train="train.jsonl"), tmp_path, names)
    split = found.splits["train"]
    assert [name for name in split.column_names if name.startswith("column/")] == [f"column/{name}" for name in names]
    assert found.fingerprint != open_examples(Files(train="train.jsonl"), tmp_path).fingerprint
    encoding = Encoding("g", byte_level([]), 9)
    batch = Collator([encoding], columns=names)(list(encode(split, [encoding])))
    assert {name: batch[name].tolist() for name in names} == {
        "rank": [3, 4], "score": [0.5, 1.0], "seen": [True, False], "hints": [[1, 2, 3], [0, 0, 0]],
        "soft": [[0.5, 0.0], [1.0, 2.0]],
    }  # fmt: skip
    kinds = [batch[name].dtype for name in names]
    assert kinds == [torch.int64, torch.float32, torch.bool, torch.int64, torch.float32]
    assert "rank" not in Collator([encoding])(list(encode(split, [encoding])))


def test_columns_of_a_format_without_types(tmp_path: Path) -> None:
    """Numbers are read from their text."""
    write(tmp_path, {"label": "a", "rank": 3, "score": 0.5}, {"label": "b", "rank": 4, "score": 1}, name="train.csv")
    split = open_examples(Files(train="train.csv"), tmp_path, ["rank", "score"]).splits["train"]
    assert (split["column/rank"][:], split["column/score"][:]) == ([3, 4], [0.5, 1.0])


@pytest.mark.parametrize(
    ("column", "code", "message", "help"),
    [
        ("rnak", "B402", "`train.jsonl` has no column `rnak`", "did you mean `rank`?"),
        ("index", "B402", "batches already have a tensor called `index`", "rename the column"),
        ("text", "B404", "`text` in row 1 of `train.jsonl` is 'text 0', and no finite number", "write a number"),
        ("rank", "B404", "`rank` in row 2 of `train.jsonl` is missing", "write a number"),
        ("odd", "B404", "`odd` in row 2 of `train.jsonl` is missing", "a list of numbers in every row"),
    ],
)
def test_faulty_columns(tmp_path: Path, column: str, code: str, message: str, help: str) -> None:
    """What is not there, what has another's name, what is no number."""
    write(tmp_path, {"label": 0, "rank": 1, "odd": [1], "index": 3}, {"label": 0})
    with pytest.raises(SourceFault) as caught:
        open_examples(Files(train="train.jsonl"), tmp_path, [column])
    assert (caught.value.code, caught.value.message) == (code, message)
    assert help in caught.value.help


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_in_batches(tmp_path: Path) -> None:
    """Classes are int64, several classes and numbers float32, weights beside them; at the top of a nested batch."""
    encodings = [Encoding("g", byte_level([]), 9), Encoding("h", byte_level([]), 5)]

    def batch(source: Files) -> dict[str, Any]:
        split = open_examples(source, tmp_path).splits["train"]
        return Collator(encodings, source=source)(list(encode(split, encodings, source=source)))

    one = batch(labelled(tmp_path, "a", "b", "a", class_weights="balanced"))
    assert torch.equal(one["labels"], torch.tensor([0, 1, 0]))
    assert torch.allclose(one["weights"], torch.tensor([0.75, 1.5, 0.75]))
    several = batch(labelled(tmp_path, ["a"], ["a", "b"], **MULTI))
    assert torch.equal(several["labels"], torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    numbers = batch(labelled(tmp_path, 1.5, 2, **NUMBER))
    assert torch.equal(numbers["labels"], torch.tensor([1.5, 2.0]))
    assert set(numbers) == {"g", "h", "labels", "index"}
    assert "labels" not in numbers["g"]


def test_a_column_and_a_model_of_one_name(tmp_path: Path) -> None:
    """B402: both would stand at the same place of a batch."""
    encodings = [Encoding("g", byte_level([]), 9), Encoding("h", byte_level([]), 5)]
    with pytest.raises(SourceFault, match="`h` is a model and a column"):
        Collator(encodings, columns=["h"])


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clinc150(shared_data: Path) -> None:
    """As many rows and classes as its description says; balanced weights of balanced classes are 1."""
    files = {"train": "train.jsonl.gz", "dev": "dev.jsonl.gz", "test": "test.jsonl.gz"}
    source = Files(**files, text=("text_a",), class_weights="balanced")
    found = open_examples(source, shared_data / "clinc150")
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 15000, "dev": 3000, "test": 4500}
    assert len(found.classes) == 150
    assert set(found.splits["train"]["weights"][:]) == {1.0}


# ── an order of one's own ────────────────────────────────────────────────────────────────────────────────────────────


def test_classes_take_the_order_that_is_said(tmp_path: Path) -> None:
    """A teacher's order replaces the alphabet's; names that no row has keep their numbers."""
    source = labelled(tmp_path, "no", "yes", "no", classes=["yes", "maybe", "no"])
    read = open_examples(source, tmp_path)
    assert read.classes == facts(source, tmp_path).classes == ("yes", "maybe", "no")
    assert read.splits["train"]["label"][:] == [2, 0, 2]


def test_numbers_take_their_names_in_turn(tmp_path: Path) -> None:
    """Labels that are numbers stay as they are, and get names."""
    read = open_examples(labelled(tmp_path, 1, 0, 1, classes=["yes", "no"]), tmp_path)
    assert (read.classes, read.splits["train"]["label"][:]) == (("yes", "no"), [1, 0, 1])


def test_a_class_that_is_left_out_is_a_fault(tmp_path: Path) -> None:
    """Rows whose class has no place in the order would be lost."""
    source = labelled(tmp_path, "no", "yes", classes=["yes"])
    with pytest.raises(SourceFault, match="`classes` leaves out `no`, which training rows have") as raised:
        facts(source, tmp_path)
    assert (raised.value.code, raised.value.field) == ("B403", "classes")
    found = fault(labelled(tmp_path, 0, 2, classes=["a", "b"]), tmp_path)
    assert found.message == "`train.jsonl` has the label 2, and `classes` names 2, counted from 0 to 1"
    assert found.help == 'name the labels as they are written: classes=["0", "2"]'


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([100, 116, 101], ("100", "101", "116"), [0, 2, 1]),
        ([1, 2, 3, 4, 5], ("1", "2", "3", "4", "5"), [0, 1, 2, 3, 4]),
        ([2, 0, 1], ("2", "1", "0"), [0, 2, 1]),
        ([-1, 1, -1], ("-1", "1"), [0, 1, 0]),
        ([1.0, 2.5], ("1", "2.5"), [0, 1]),
        ([True, False], ("true", "false"), [0, 1]),
        ([True, False], ("no", "yes"), [1, 0]),
        ([0, 1, 2], ("a", "b", "c"), [0, 1, 2]),
        (["007", "7"], ("7", "007"), [1, 0]),
    ],
)
@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_labels_are_found_by_how_they_are_written(
    tmp_path: Path, name: str, labels: list, classes: tuple[str, ...], numbers: list[int]
) -> None:
    """Numbers among `classes` are not counted from 0, with gaps, from 1 on, below 0; others are, and so is dev."""
    write(
        tmp_path,
        *({"label": str(x).lower() if isinstance(x, bool) and name.endswith("csv") else x} for x in labels),
        name=name,
    )
    if isinstance(labels[0], bool) and name.endswith("csv") and "true" not in classes:
        return  # there they are text
    read = open_examples(Files(train=name, dev=name, classes=classes), tmp_path)
    assert read.classes == classes
    assert read.splits["train"]["label"][:] == read.splits["dev"]["label"][:] == numbers


def test_a_list_of_names_in_another_order(tmp_path: Path) -> None:
    """Numbers of a hub's list are found by their names there, or take new ones in turn."""
    (tmp_path / "moods").mkdir()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "moods" / "train.parquet")
    read = open_examples(Hub(name="moods", classes=("pos", "neg")), tmp_path)
    assert (read.classes, read.splits["train"]["label"][:]) == (("pos", "neg"), [1, 0])
    read = open_examples(Hub(name="moods", classes=("bad", "good")), tmp_path)
    assert (read.classes, read.splits["train"]["label"][:]) == (("bad", "good"), [0, 1])


@pytest.mark.parametrize(
    ("labels", "classes", "message", "help"),
    [
        (
            [100, 101, 7],
            ["100", "101"],
            "`classes` leaves out `7`, which training rows have",
            "the data's are `7`, `100`",
        ),
        (
            [1, 2, 3],
            ["a", "b", "c"],
            "has the label 3, and `classes` names 3, counted from 0 to 2",
            "subtract 1 from each",
        ),
        ([-1, 1], None, "row 1 of `train.jsonl` is -1", 'classes=["-1", "1"]'),
        ([0.5, 1.0], None, "row 1 of `train.jsonl` is 0.5", 'write problem_type="regression"'),
        ([1.0, 0.5], None, "row 2 of `train.jsonl` is 0.5", 'write problem_type="regression"'),
    ],
)
def test_numbers_that_do_not_fit_their_classes(
    tmp_path: Path, labels: list, classes: list[str] | None, message: str, help: str
) -> None:
    """What is there and what is named, and what to write."""
    found = fault(labelled(tmp_path, *labels, classes=classes), tmp_path)
    assert found.code == "B403"
    assert message in found.message
    assert help in found.help


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (["no", "yes"], 1, "row 1 of `dev.jsonl` is 1 where the training rows have text"),
        ([0, 1], "no", "row 1 of `dev.jsonl` is 'no' where the training rows have numbers"),
        ([0, 1], 2, "row 1 of `dev.jsonl` is 2, which no training row has"),
    ],
)
def test_splits_that_are_labelled_otherwise(tmp_path: Path, train: list, dev: Any, message: str) -> None:
    """Names in one and numbers in another."""
    source = labelled(tmp_path, *train)
    write(tmp_path, {"label": dev}, name="dev.jsonl")
    assert message in fault(source.model_copy(update={"dev": "dev.jsonl"}), tmp_path).message


# ── what a check asks ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("labels", "settings", "seen", "alike"),
    [
        (["b", "a", "b"], {}, ("a", "b"), False),
        (["b", "b"], {}, ("b",), True),
        (["b"], {}, ("b",), False),  # one row alone
        (["b", "b"], {"classes": ("a", "b")}, ("b",), True),
        ([1, 3], {}, ("1", "3"), False),
        ([[1, 0], [1, 0]], MULTI, ("0",), True),
        ([["a"], ["a", "b"]], MULTI, ("a", "b"), False),
        ([0.5, 0.5], NUMBER, None, True),
        ([0.5, 1.5], NUMBER, None, False),
        (["x", "y"], {"label": None}, None, False),
    ],
)
def test_which_labels_training_rows_have(
    tmp_path: Path, labels: list, settings: dict[str, Any], seen: tuple[str, ...] | None, alike: bool
) -> None:
    """The classes that occur, and whether all rows have one label."""
    found = facts(labelled(tmp_path, *labels, **settings), tmp_path)
    assert (found.seen, found.alike) == (seen, alike)


def test_labels_of_joined_data(tmp_path: Path) -> None:
    """Two files of one class each are not alike together."""
    for name, label in (("no", "n"), ("yes", "y")):
        write(tmp_path, {"label": label}, {"label": label}, name=f"{name}.jsonl")
    no, yes = (Files(train=f"{name}.jsonl") for name in ("no", "yes"))
    assert (facts(Join(parts=(no, yes)), tmp_path).seen, facts(no, tmp_path).alike) == (("n", "y"), True)
    assert not facts(Join(parts=(no, yes)), tmp_path).alike
    assert facts(Join(parts=(no, no)), tmp_path).alike


# ── text or numbers ──────────────────────────────────────────────────────────────────────────────────────────────────

CELLS = (
    ["01", "1", "2"], ["+1", "1", "2"], ["1.0", "1", "2"], ["1.0", "0", "2.5"], [" 1", "1", "2"], ["1e3", "1000", "2"],
    ["True", "1", "0"], ["true", "True", "1"], ["nan", "1", "0"], ["inf", "1", "0"], ["-0", "0", "1"], ["0.0", "-0.0", "1.0"],
    ["2.50", "2.5", "3.0"], ["1.10", "1.9", "1.1"], ["1_0", "10", "1"], ["\u0661", "1", "0"], ["9" * 400, "1", "0"], ["1.", "1", "0"],
    [".5", "0.5", "1.5"], ["0x1", "1", "0"], ["1 ", "1", "0"], ["NA", "1", "0"], ["007", "7", "0"],
)  # fmt: skip


@pytest.mark.parametrize("cells", CELLS, ids=lambda cells: cells[0].strip()[:6])
@pytest.mark.parametrize("source", ["a.csv", "a.tsv", "folder"])
def test_labels_of_csv_are_those_of_parquet(tmp_path: Path, source: str, cells: list[str]) -> None:
    """Cells are text unless the whole column is written as numbers: no two labels become one class."""
    sign = "\t" if source == "a.tsv" else ","
    content = f"text{sign}label\n" + "".join(f"t{sign}{cell}\n" for cell in cells)
    (tmp_path / "folder").mkdir()
    (tmp_path / ("folder/train.csv" if source == "folder" else source)).write_text(content)
    datasets.Dataset.from_dict({"text": ["t"] * 3, "label": cells}).to_parquet(tmp_path / "same.parquet")
    found = open_examples(Hub(name="folder") if source == "folder" else Files(train=source), tmp_path)
    same = open_examples(Files(train="same.parquet"), tmp_path)
    assert found.classes == same.classes == tuple(sorted(cells))
    assert found.splits["train"]["label"][:] == same.splits["train"]["label"][:]


@pytest.mark.parametrize("form", ["a.csv", "folder"])
@pytest.mark.parametrize(("cells", "labels"), [(["0", "2", "10"], [0, 2, 10]), (["1.0", "0.0", "3.0"], [1, 0, 3])])
def test_columns_of_numbers_in_csv(tmp_path: Path, form: str, cells: list[str], labels: list[int]) -> None:
    """Written as numbers throughout, they count the classes; a spec names them as they are written, or as numbers."""
    (tmp_path / "folder").mkdir()
    content = "text,label\n" + "".join(f"NA,{cell}\n" for cell in cells)
    (tmp_path / ("folder/train.csv" if form == "folder" else form)).write_text(content)

    def read(**settings: Any) -> Any:
        source = Hub(name="folder", **settings) if form == "folder" else Files(train="a.csv", **settings)
        return open_examples(source, tmp_path).splits["train"]

    assert (read()["label"][:], read()["text_0"][:]) == (labels, ["NA"] * 3)
    for names in (tuple(cells), tuple(map(str, labels))):
        assert read(classes=names)["label"][:] == [0, 1, 2]


def test_a_split_that_is_written_otherwise(tmp_path: Path) -> None:
    """Numbers in the training rows, and `01` in others: at fault, and not class 1."""
    for name, cells in (("train", "01"), ("dev", ["01", "0"])):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"t,{cell}\n" for cell in cells))
    found = fault(Files(train="train.csv", dev="dev.csv"), tmp_path)
    assert found.message == "the label in row 1 of `dev.csv` is '01' where the training rows have numbers"


def test_a_folder_whose_card_tells_its_types(tmp_path: Path) -> None:
    """What a folder says of itself is believed, as before."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.csv").write_text("text,label\na,0\nb,1\n")
    kinds = "  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    names = "          '0': bad\n          '1': good\n"
    (tmp_path / "folder" / "README.md").write_text(f"---\ndataset_info:\n  features:\n{kinds}{names}---\n")
    assert open_examples(Hub(name="folder"), tmp_path).classes == ("bad", "good")
