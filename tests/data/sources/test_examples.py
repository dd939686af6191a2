"""Data sources: files of every format, folders laid out like a hub's data set, and every fault with its words."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pandas
import pytest

from brewgraph.data.sources import tables as module
from brewgraph.data.sources.examples import facts, open_examples
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Builtin, Files, Glue, Hub

ROWS = [
    {"premise": "a cat sits", "hypothesis": "an animal sits", "label": "yes", "id": 7},
    {"premise": "NA", "hypothesis": "007", "label": "no", "id": 8},
    {"premise": 'she said "so, no"', "hypothesis": "", "label": "maybe", "id": 9},
]
PAIR = {"text": ("premise", "hypothesis")}


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format that the path's suffix names, packed where it ends in .gz."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    frame = pandas.DataFrame(rows)
    if plain.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif plain.suffix == ".json":
        plain.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif plain.suffix == ".parquet":
        frame.to_parquet(plain)
    else:
        frame.to_csv(plain, index=False, sep="\t" if plain.suffix == ".tsv" else ",")
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def labelled(path: Path, *labels: object) -> Path:
    """A file with one short text per label."""
    return write(path, [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)])


def fault(source: object, folder: Path) -> SourceFault:
    """What is wrong with a source."""
    with pytest.raises(SourceFault) as caught:
        open_examples(source, folder)
    return caught.value


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the hub is switched off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str, packed: str) -> None:
    """Texts stay as they are written (a text `NA` or `007` too), labels become numbers, other columns go."""
    write(tmp_path / f"train{suffix}{packed}", ROWS)
    write(tmp_path / f"dev{suffix}{packed}", ROWS[1:])
    before = sorted(tmp_path.iterdir())
    quoted: Any = {"quoting": True} if suffix == ".tsv" else {}
    source = Files(train=f"train{suffix}{packed}", dev=f"dev{suffix}{packed}", **quoted, **PAIR)
    found = open_examples(source, tmp_path)
    assert list(found.splits) == ["train", "dev"]
    assert found.splits["train"].to_dict() == {
        "text_0": [row["premise"] for row in ROWS],
        "text_1": [row["hypothesis"] for row in ROWS],
        "label": [2, 1, 0],
        "index": [0, 1, 2],
    }
    assert found.splits["dev"]["label"][:] == [1, 0]
    assert found.splits["dev"]["index"][:] == [0, 1]
    assert found.splits["train"].features["label"] == found.splits["train"].features["index"] == datasets.Value("int64")
    assert found.classes == ("maybe", "no", "yes")
    assert sorted(tmp_path.iterdir()) == before, "nothing is written beside the data"
    plain = open_examples(
        Files(train=write(tmp_path / "a.jsonl", ROWS).name, dev=f"dev{suffix}{packed}", **quoted, **PAIR), tmp_path
    )
    assert found.fingerprint == plain.fingerprint
    assert len(found.fingerprint) == 64
    assert facts(source, tmp_path) == DataFacts(
        ("maybe", "no", "yes"),
        ("premise", "hypothesis", "label", "id"),
        {"train": 3, "dev": 2},
        seen=("maybe", "no", "yes"),
        words=6,
    )


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Another text, label, class or split makes another fingerprint; another name or an unread column does not."""
    first = write(tmp_path / "a.jsonl", ROWS).name

    def of(rows: list[dict], **settings: str) -> str:
        return open_examples(
            Files(train=write(tmp_path / "b.jsonl", rows).name, **settings, **PAIR), tmp_path
        ).fingerprint

    same = of(ROWS)
    assert same == open_examples(Files(train=first, **PAIR), tmp_path).fingerprint
    assert same == of([{**row, "id": 0} for row in ROWS])
    others = [
        of([{**ROWS[0], "premise": "a dog sits"}, *ROWS[1:]]),
        of([{**ROWS[0], "premise": "a cat sitsan", "hypothesis": " animal sits"}, *ROWS[1:]]),
        of([{**ROWS[0], "label": "no"}, *ROWS[1:]]),
        of([{**row, "label": row["label"] + "!"} for row in ROWS]),
        of(ROWS, dev=first),
    ]
    assert len({same, *others}) == 6


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """No older copy is taken for a file, even where its size and time are the same."""
    path = labelled(tmp_path / "a.jsonl", "x", "y")
    assert open_examples(Files(train="a.jsonl"), tmp_path).classes == ("x", "y")
    stamp = path.stat()
    labelled(path, "x", "z")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert open_examples(Files(train="a.jsonl"), tmp_path).classes == ("x", "z")


def test_names_are_no_patterns(tmp_path: Path) -> None:
    """Brackets and stars in a name, hidden folders and absolute paths are taken literally."""
    folder = tmp_path / ".hidden [1]"
    folder.mkdir()
    labelled(folder / "a*.jsonl", "x", "y")
    labelled(folder / "ab.jsonl", "z")
    found = open_examples(Files(train=".hidden [1]/a*.jsonl", dev=str(folder / "a*.jsonl")), tmp_path)
    assert found.classes == ("x", "y")
    assert len(found.splits["train"]) == len(found.splits["dev"]) == 2


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ((2, 0, 0), ("0", "1", "2"), [2, 0, 0]),
        ((1.0, 0.0, 1.0), ("0", "1"), [1, 0, 1]),
        ((True, False, False), ("false", "true"), [1, 0, 0]),
        (("10", "9", "10"), ("10", "9"), [0, 1, 0]),
    ],
)
def test_labels_of_json(tmp_path: Path, labels: tuple, classes: tuple[str, ...], numbers: list[int]) -> None:
    """Numbers count classes from 0, text is sorted, also where it looks like numbers: the format has types."""
    labelled(tmp_path / "a.jsonl", *labels)
    found = open_examples(Files(train="a.jsonl"), tmp_path)
    assert (found.classes, found.splits["train"]["label"][:]) == (classes, numbers)


def test_labels_of_csv_are_numbers_where_all_are(tmp_path: Path) -> None:
    """A format without types has numbers where every label is one; the training rows decide for all splits."""
    labelled(tmp_path / "numbers.csv", "10", "9", "0")
    labelled(tmp_path / "text.csv", "10", "9", "b")
    labelled(tmp_path / "some.csv", "9", "9", "10")
    numbers = open_examples(Files(train="numbers.csv", dev="some.csv"), tmp_path)
    assert numbers.classes == tuple(map(str, range(11)))
    assert numbers.splits["dev"]["label"][:] == [9, 9, 10]
    text = open_examples(Files(train="text.csv", dev="some.csv"), tmp_path)
    assert text.classes == ("10", "9", "b")
    assert text.splits["dev"]["label"][:] == [1, 1, 0]


def test_without_labels(tmp_path: Path) -> None:
    """`label=none`: no label column and no classes."""
    write(tmp_path / "a.jsonl", ROWS)
    source = Files(train="a.jsonl", text=("premise",), label=None)
    found = open_examples(source, tmp_path)
    assert found.splits["train"].column_names == ["text_0", "index"]
    assert found.classes == ()
    assert facts(source, tmp_path).classes == ()


def test_progress_bars_and_logs_are_as_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed while reading, also where it fails, and the process's own settings stay."""
    labelled(tmp_path / "a.jsonl", "x")
    (tmp_path / "bad.parquet").write_text("no parquet")
    datasets.enable_progress_bars()
    level = datasets.logging.get_verbosity()
    open_examples(Files(train="a.jsonl"), tmp_path)
    fault(Files(train="bad.parquet"), tmp_path)
    assert not datasets.are_progress_bars_disabled()
    assert datasets.logging.get_verbosity() == level
    assert capfd.readouterr() == ("", "")
    datasets.disable_progress_bars()
    try:
        open_examples(Files(train="a.jsonl"), tmp_path)
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


def test_a_missing_file(tmp_path: Path) -> None:
    """B401 names the file, the split, and what is there instead."""
    labelled(tmp_path / "train.jsonl", "x")
    found = fault(Files(train="trian.jsonl"), tmp_path)
    assert (found.code, found.field) == ("B401", "train")
    assert (found.message, found.help) == ("there is no file `trian.jsonl`", "did you mean `train.jsonl`?")
    found = fault(Files(train="train.jsonl", test="held-out.csv"), tmp_path)
    assert (found.code, found.field, found.help) == ("B401", "test", f"in {tmp_path} there is `train.jsonl`")
    found = fault(Files(train="train.jsonl", dev="other/dev.csv"), tmp_path)
    assert (found.field, found.help) == ("dev", f"there is no folder {tmp_path / 'other'}")
    (tmp_path / "none").mkdir()
    assert fault(Files(train="none/a.csv"), tmp_path).help == f"the folder {tmp_path / 'none'} is empty"


def test_a_missing_column(tmp_path: Path) -> None:
    """B402 names the column, the file and the columns that are there."""
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.csv", [{"premise": "x", "label": "yes"}])
    found = fault(Files(train="a.jsonl", text=("premise", "hypotesis")), tmp_path)
    assert (found.code, found.field) == ("B402", "text")
    assert found.message == "`a.jsonl` has no column `hypotesis`"
    assert found.help == "did you mean `hypothesis`? the columns are `premise`, `hypothesis`, `label` and `id`"
    found = fault(Files(train="a.jsonl", text=("premise",), label="class"), tmp_path)
    assert (found.code, found.field) == ("B402", "label")
    assert found.help.endswith("`label` and `id`; `label=none` where there are no labels")
    found = fault(Files(train="a.jsonl", dev="b.csv", **PAIR), tmp_path)
    assert found.message == "`b.csv` has no column `hypothesis`"
    assert fault(Files(train="a.jsonl", text=("id", "id")), tmp_path).message == "`id` is named twice"
    with pytest.raises(SourceFault, match="`b.csv` has no column `hypothesis`"):
        facts(Files(train="a.jsonl", dev="b.csv", **PAIR), tmp_path)


def test_a_local_folder_is_read_again_when_a_file_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading while nothing changes, another afterwards, and what stands there then."""
    read: list[str] = []
    builder = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **k: read.append(a[0]) or builder(*a, **k))
    (tmp_path / "set").mkdir()
    labelled(tmp_path / "set" / "train.jsonl", "bad", "good")
    labelled(tmp_path / "set" / "validation.jsonl", "bad")
    first, again = (open_examples(Hub(name="set"), tmp_path) for _ in range(2))
    assert (len(first.splits["dev"]), again.fingerprint, len(read)) == (1, first.fingerprint, 1)
    labelled(tmp_path / "set" / "validation.jsonl", "bad", "good")
    second = open_examples(Hub(name="set"), tmp_path)
    assert ([len(second.splits[name]) for name in ("train", "dev")], len(read)) == ([2, 2], 2)
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("labels", "said", "remedy"),
    [
        (("a", None, "b"), "the label in row 2 of `a{}` is missing", "fill it in or remove the row"),
        ((0, 1, -1), "the label in row 3 of `a{}` is -1", "whole, and counts classes from 0 on"),
        ((0, 0.5, 1), "the label in row 2 of `a{}` is 0.5", "whole, and counts classes from 0 on"),
        ((3, 10**12), "the label in row 2 of `a{}` is 1000000000000, which makes", "is this a column of identifiers?"),
    ],
)
def test_labels_at_fault(tmp_path: Path, suffix: str, labels: tuple, said: str, remedy: str) -> None:
    """B403 names the row, the file, what stands there and what should."""
    labelled(tmp_path / f"a{suffix}", *labels)
    found = fault(Files(train=f"a{suffix}"), tmp_path)
    assert (found.code, found.field) == ("B403", "label")
    assert found.message.startswith(said.format(suffix))
    assert remedy in found.help


def test_labels_of_several_types(tmp_path: Path) -> None:
    """Text among numbers, numbers among text, and what is neither."""
    labelled(tmp_path / "mixed.jsonl", 1, "x")
    found = fault(Files(train="mixed.jsonl"), tmp_path)
    assert found.message == "the label in row 2 of `mixed.jsonl` is 'x' where row 1 has 1"
    labelled(tmp_path / "lists.jsonl", [1], [0])
    help = 'a label is a text or a whole number from 0 on; of several at once: problem_type="multi_label"'
    assert fault(Files(train="lists.jsonl"), tmp_path).help == help
    labelled(tmp_path / "text.jsonl", "x", "y")
    labelled(tmp_path / "numbers.jsonl", 0, 1)
    found = fault(Files(train="text.jsonl", dev="numbers.jsonl"), tmp_path)
    assert found.message == "the label in row 1 of `numbers.jsonl` is 0 where the training rows have text"
    found = fault(Files(train="numbers.jsonl", dev="text.jsonl"), tmp_path)
    assert found.message == "the label in row 1 of `text.jsonl` is 'x' where the training rows have numbers"


def test_a_label_that_no_training_row_has(tmp_path: Path) -> None:
    """B403 in another split than train, with the classes and a guess."""
    labelled(tmp_path / "train.jsonl", "neutral", "entailment")
    labelled(tmp_path / "dev.jsonl", "neutral", "entailmnet")
    found = fault(Files(train="train.jsonl", dev="dev.jsonl"), tmp_path)
    assert found.code == "B403"
    assert found.message == "the label in row 2 of `dev.jsonl` is 'entailmnet', which no training row has"
    assert found.help == "did you mean `entailment`? the classes are `entailment` and `neutral`"
    with pytest.raises(SourceFault) as caught:  # a check finds the same
        facts(Files(train="train.jsonl", dev="dev.jsonl"), tmp_path)
    assert (vars(caught.value), str(caught.value)) == (vars(found), str(found))
    labelled(tmp_path / "train.csv", *range(20))
    labelled(tmp_path / "dev.csv", 19, 20)
    found = fault(Files(train="train.csv", dev="dev.csv"), tmp_path)
    assert found.message == "the label in row 2 of `dev.csv` is 20, which no training row has"
    assert found.help.endswith("`10`, `11` and 8 more")


@pytest.mark.parametrize(("value", "said"), [(None, "missing"), (3, "no text: 3"), (["a"], "no text: ['a']")])
def test_a_text_that_is_none(tmp_path: Path, value: object, said: str) -> None:
    """B404 names the column, the row and the file; a number is not quietly made into text."""
    write(tmp_path / "good.jsonl", ROWS)
    write(tmp_path / "bad.jsonl", [ROWS[0], {**ROWS[1], "hypothesis": value}])
    found = fault(Files(train="good.jsonl", dev="bad.jsonl", **PAIR), tmp_path)
    assert (found.code, found.field) == ("B404", "text")
    assert found.message == f"`hypothesis` in row 2 of `bad.jsonl` is {said}"
    assert "remove the row" in found.help


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl.gz", ""), ("a.json", "[]"), ("a.csv", ""), ("a.tsv", "text\tlabel\n")],
)
def test_an_empty_file(tmp_path: Path, name: str, content: str) -> None:
    """B404 in every way in which a format can hold nothing."""
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = fault(Files(train=name), tmp_path)
    assert (found.code, found.field, found.message) == ("B404", "train", f"`{name}` has no rows")
    assert found.help == "name a file or split with rows"


def test_an_empty_parquet_file(tmp_path: Path) -> None:
    """A table with columns and no rows is empty too."""
    pandas.DataFrame({"text": pandas.Series([], dtype=str), "label": pandas.Series([], dtype=int)}).to_parquet(
        tmp_path / "a.parquet"
    )
    assert fault(Files(train="a.parquet"), tmp_path).message == "`a.parquet` has no rows"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "read as jsonl: line 2: Expecting value"),
        ("a.json", '[{"text": "x"}, {"text"]', "read as json: "),
        ("a.csv.gz", "text,label\nx,1\n", "unpacked: Not a gzipped file"),
        ("a.jsonl.gz", '{"text": "x"', "unpacked: Not a gzipped file"),
        ("a.parquet", "text", "read as parquet: Parquet file size is 4 bytes"),
    ],
)
def test_an_unreadable_file(tmp_path: Path, name: str, content: str, said: str) -> None:
    """B404 with the reader's own reason in one line."""
    (tmp_path / name).write_text(content)
    found = fault(Files(train=name), tmp_path)
    assert (found.code, found.field) == ("B404", "train")
    assert found.message.startswith(f"`{name}` cannot be {said}")
    assert "\n" not in found.message
    assert found.help.startswith("look at the file: one that was cut short, or ")


def test_csv_with_more_fields_than_names(tmp_path: Path) -> None:
    """B404, where pandas would take the first field for a row's name and shift all others."""
    (tmp_path / "a.csv").write_text("text,label\nhello, you,1\nyes, you,0\n")
    found = fault(Files(train="a.csv"), tmp_path)
    assert found.message == "`a.csv` has more fields in row 1 than names in its header"
    assert '"quotes"' in found.help


def test_an_unknown_format(tmp_path: Path) -> None:
    """B404 lists the formats."""
    (tmp_path / "a.txt").write_text("x")
    found = fault(Files(train="a.txt"), tmp_path)
    assert found.message == "`a.txt` has no format that is known here"
    assert found.help.startswith("a file's name ends in `.json`, `.jsonl`, `.csv`, `.tsv` and `.parquet`")


def test_a_local_folder_for_the_hub(tmp_path: Path) -> None:
    """A folder below the spec's, its class names kept, splits by name and by part, dev only where there is one."""
    folder = tmp_path / "set"
    folder.mkdir()
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good", "unseen"])}
    )
    rows = datasets.Dataset.from_dict({"text": list("abcdefghij"), "label": [0, 1] * 5}, features=features)
    rows.to_parquet(folder / "train-00000-of-00001.parquet")
    found = open_examples(Hub(name="set"), tmp_path)
    assert list(found.splits) == ["train"]
    assert found.classes == ("bad", "good", "unseen")
    assert found.splits["train"].to_dict() == {
        "text_0": list("abcdefghij"),
        "label": [0, 1] * 5,
        "index": list(range(10)),
    }
    parts = open_examples(Hub(name="set", train="train[:80%]", dev="train[80%:]"), tmp_path)
    assert parts.splits["train"]["text_0"][:] == list("abcdefgh")
    assert parts.splits["dev"]["text_0"][:] == ["i", "j"]
    known = DataFacts(("bad", "good", "unseen"), ("text", "label"), {"train": 10}, seen=("bad", "good"), words=1)
    assert facts(Hub(name="set"), tmp_path) == known
    rows.select(range(2)).to_parquet(folder / "validation-00000-of-00001.parquet")
    assert len(open_examples(Hub(name="./set"), tmp_path).splits["dev"]) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-00000-of-00001.parquet",
        "validation-00000-of-00001.parquet",
    ]


def test_hub_facts_without_rows(tmp_path: Path) -> None:
    """A data set that describes itself is not read for a check: here its rows would be at fault."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("no json at all\n")
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': bad\n          '1': good\n"
        "  splits:\n  - name: train\n    num_bytes: 100\n    num_examples: 12\n---\n"
    )
    expected = DataFacts(("bad", "good"), ("text", "label"), {"train": 12})
    assert facts(Hub(name="set"), tmp_path) == expected
    found = fault(Hub(name="set"), tmp_path)
    assert (found.code, found.field) == ("B404", "name")
    assert found.message.startswith("the files in `set` cannot be read: ")


def test_faults_of_a_hub_folder(tmp_path: Path) -> None:
    """Splits, parts of splits, columns and folders that are not there."""
    folder = tmp_path / "set"
    folder.mkdir()
    labelled(folder / "train.jsonl", "x", "y")
    found = fault(Hub(name="set", dev="dev"), tmp_path)
    assert (found.code, found.field) == ("B401", "dev")
    assert (found.message, found.help) == ("`set` has no split `dev`", "the splits are `train`")
    found = fault(Hub(name="set", train="train[:x]"), tmp_path)
    assert (found.code, found.field) == ("B401", "train")
    assert found.message.startswith("there is no split `train[:x]` of `set`: ")
    assert "`train[:10%]`" in found.help
    found = fault(Hub(name="set", dev="train[2:]"), tmp_path)
    assert (found.code, found.field) == ("B404", "dev")
    assert found.message == "split `train[2:]` of `set` has no rows"
    found = fault(Hub(name="set", text=("txt",)), tmp_path)
    assert found.message == "split `train` of `set` has no column `txt`"
    found = fault(Hub(name="./sat"), tmp_path)
    assert (found.code, found.field) == ("B401", "name")
    assert (found.message, found.help) == ("there is no folder `./sat`", "did you mean `set`?")
    (tmp_path / "none").mkdir()
    found = fault(Hub(name="none"), tmp_path)
    assert (found.code, found.field) == ("B404", "name")
    assert found.message.startswith("the folder `none` cannot be read as a data set: ")


def glue_folder(folder: Path) -> Path:
    """A folder laid out like GLUE on the hub, with two of its tasks."""
    configs = []
    for task, dev in [("mnli", "validation_matched"), ("sst2", "validation")]:
        (folder / task).mkdir(parents=True)
        columns = ["premise", "hypothesis"] if task == "mnli" else ["sentence"]
        for split in ("train", dev):
            rows = {column: ["a", "b", "c"] for column in columns} | {"label": [0, 1, 1], "idx": [0, 1, 2]}
            datasets.Dataset.from_dict(rows).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
        files = "".join(f"  - split: {split}\n    path: {task}/{split}-*\n" for split in ("train", dev))
        configs.append(f"- config_name: {task}\n  data_files:\n{files}")
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    return folder


def test_glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns, classes and dev split of a task are known: mnli is evaluated on the matched one."""
    monkeypatch.setattr(module, "GLUE", str(glue_folder(tmp_path / "glue")))
    found = open_examples(Glue(task="mnli"), tmp_path)
    assert list(found.splits) == ["train", "dev"]
    assert found.splits["dev"].column_names == ["text_0", "text_1", "label", "index"]
    assert found.classes == ("entailment", "neutral", "contradiction")
    assert open_examples(Glue(task="sst2"), tmp_path).classes == ("negative", "positive")
    missing = fault(Glue(task="rte"), tmp_path)
    assert (missing.code, missing.field) == ("B402", "task")
    assert missing.message == f"there is no subset `rte` in `{tmp_path / 'glue'}`"
    assert missing.help == "the subsets are `mnli` and `sst2`"
    found_facts = facts(Glue(task="mnli"), tmp_path)
    assert found_facts.classes == found.classes
    assert found_facts.columns == ("premise", "hypothesis", "label")
    assert found_facts.rows == {"train": 392702, "dev": 9815}


def test_a_folder_with_subsets_wants_one_named(tmp_path: Path) -> None:
    """B402 lists them."""
    glue_folder(tmp_path / "glue")
    missing = fault(Hub(name="glue", text=("sentence",)), tmp_path)
    assert (missing.code, missing.field) == ("B402", "subset")
    assert (missing.message, missing.help) == ("`glue` has several subsets", "the subsets are `mnli` and `sst2`")
    assert open_examples(Hub(name="glue", subset="sst2", text=("sentence",)), tmp_path).classes == ("0", "1")


@pytest.mark.usefixtures("offline")
def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    """B405 says why, and how to go on without it."""
    found = fault(Glue(task="sst2"), tmp_path)
    assert (found.code, found.field) == ("B405", "task")
    assert found.message == (
        "the data set `nyu-mll/glue` cannot be fetched from the hub: "
        "the hub is switched off here by HF_HUB_OFFLINE, and it was not downloaded before"
    )
    assert '`datasets.load_dataset("nyu-mll/glue", "sst2")`' in found.help
    assert '`hub("folder", ...)`' in found.help
    found = fault(Hub(name="someone/something"), tmp_path)
    assert (found.code, found.field) == ("B405", "name")
    with pytest.raises(SourceFault, match="cannot be fetched from the hub"):
        facts(Hub(name="someone/something"), tmp_path)


def test_builtin_facts_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of built-in text are a fixed list."""
    monkeypatch.setattr("brewgraph.data.sources.python_docs.python_docs", None)
    found = facts(Builtin(name="python-docs"), tmp_path)
    assert len(found.classes) == 28
    assert (found.columns, found.rows) == (("text", "label"), {})


# ── quotes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

QUOTES = 'text\tlabel\n"a b\tx\nc d"\ty\ne f\tx\n"g"\ty\n"h\tx\n'
LITERAL = ['"a b', 'c d"', "e f", '"g"', '"h']


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_quotes_of_tsv_are_text(tmp_path: Path, packed: str, mark: bytes, end: str) -> None:
    """Each line is a row, as Python's `csv` reads it without quoting, whatever its line ends."""
    content = mark + QUOTES.replace("\n", end).encode()
    (tmp_path / f"a.tsv{packed}").write_bytes(gzip.compress(content) if packed else content)
    rows = open_examples(Files(train=f"a.tsv{packed}"), tmp_path).splits["train"]
    assert (rows["text_0"][:], rows["label"][:]) == (LITERAL, [0, 1, 0, 1, 0])


def test_quotes_in_a_folder_of_tsv(tmp_path: Path) -> None:
    """A local folder in the layout of the hub is read alike."""
    (tmp_path / "moods").mkdir()
    (tmp_path / "moods" / "train.tsv").write_text(QUOTES)
    assert open_examples(Hub(name="moods"), tmp_path).splits["train"]["text_0"][:] == LITERAL


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_quoting_is_chosen(tmp_path: Path, name: str, separator: str) -> None:
    """True takes quotes off, with the separators inside; false leaves them."""
    (tmp_path / name).write_text('text,label\n"a, b\nc",x\n'.replace(",", separator))
    assert open_examples(Files(train=name, quoting=True), tmp_path).splits["train"]["text_0"][:] == [
        f"a{separator} b\nc"
    ]
    (tmp_path / name).write_text('text,label\n"a,x\nb",y\n'.replace(",", separator))
    assert open_examples(Files(train=name, quoting=False), tmp_path).splits["train"]["text_0"][:] == ['"a', 'b"']


@pytest.mark.parametrize(
    ("name", "content", "code", "message", "help"),
    [
        ("a.csv", "text,label\nx,1\nx,1,2\n", "B404", "has 3 fields in line 3, and 2 names", 'into "quotes", or correct'),
        ("a.tsv", "text\tlabel\nx\t1\n\"x\ty\"\t1\n", "B404", "has 3 fields in line 3", "and say `quoting=true`"),
        ("a.csv", 'text,label\na,x\n"b,y\nc,x\n', "B404", "has a quote in row 2 that is never closed", "`quoting=false`"),
        ("a.tsv", '"text"\t"label"\n"a"\t"x"\n', "B404", "has its header in quotes", "`quoting=true` removes them"),
        ("a.csv", "text,label,label\na,x,1\n", "B411", "has two columns `label`", "rename one"),
        ("a.tsv", "text\ttext\tlabel\na\tx\t1\n", "B411", "has two columns `text`", "rename one"),
        ("a.jsonl", '{"text": "a", "label": "x", "label": "y"}\n', "B404", "line 1: the key `label` occurs twice", "look at"),
    ],
)  # fmt: skip
def test_rows_and_headers_at_fault(tmp_path: Path, name: str, content: str, code: str, message: str, help: str) -> None:
    """Where, and whether quotes have to do with it; a header that names what is asked for twice."""
    (tmp_path / name).write_text(content)
    found = fault(Files(train=name), tmp_path)
    assert (found.code, message in found.message, help in found.help) == (code, True, True)


def test_a_column_that_stands_twice_and_is_not_asked_for(tmp_path: Path) -> None:
    """Nobody minds, unless its numbers are weights or an equation reads them."""
    (tmp_path / "a.csv").write_text("text,label,n,n\na,x,1,2\n")
    assert len(open_examples(Files(train="a.csv"), tmp_path).splits["train"]) == 1
    assert facts(Files(train="a.csv"), tmp_path).twice == ("n",)
    with pytest.raises(SourceFault, match="has two columns `n`"):
        open_examples(Files(train="a.csv"), tmp_path, ["n"])
    assert fault(Files(train="a.csv", weight="n"), tmp_path).code == "B411"
