"""Ready tensors in order: the same as they were written, shared by ranks, and every fault of a folder with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from brewgraph.data.sources.tensor_batches import batch_facts, open_batches
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Batches

HERE = Batches(folder="ready")


def entry(rows: int, start: int = 0, length: int = 3) -> dict[str, Tensor]:
    """A batch whose ids count from `start`."""
    ids = torch.arange(start, start + rows * length).reshape(rows, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(rows) % 2}


def write(folder: Path, *entries: dict[str, Tensor], name: str = "batches") -> None:
    """A folder `ready` with these entries, numbered from 0."""
    (folder / "ready").mkdir(exist_ok=True)
    stored = {f"{i}.{field}": tensor for i, fields in enumerate(entries) for field, tensor in fields.items()}
    save_file(stored, folder / "ready" / f"{name}.safetensors")


def write_keys(folder: Path, **tensors: Tensor) -> None:
    """A folder `ready` with these keys."""
    (folder / "ready").mkdir(exist_ok=True)
    save_file(tensors, folder / "ready" / "batches.safetensors")


def ids_of(batches: Any) -> list[int]:
    """The first id of each batch."""
    return [int(batch["input_ids"][0, 0]) for batch in batches]


def test_batches_in_order_in_every_epoch(tmp_path: Path) -> None:
    """Numbers order them, not names: 10 comes after 9. Later epochs are the same; a run goes on in the middle."""
    write(tmp_path, *(entry(2, 100 * i) for i in range(11)))
    ready = open_batches(HERE, tmp_path)
    assert len(ready) == 11
    assert ids_of(ready.epoch(0)) == ids_of(ready.epoch(5)) == [100 * i for i in range(11)]
    assert ids_of(ready.epoch(0, start=9)) == [900, 1000]
    assert ids_of(ready.epoch(0, start=11)) == []
    assert ready.dev == ()


def test_rows_are_numbered_over_all_batches(tmp_path: Path) -> None:
    """`index` is the row's place in the file, also in a part of it, unless the file has its own."""
    write(tmp_path, entry(2), entry(3), entry(1))
    ready = open_batches(HERE, tmp_path)
    assert [batch["index"].tolist() for batch in ready.epoch(0)] == [[0, 1], [2, 3, 4], [5]]
    part = open_batches(Batches(folder="ready", first=1), tmp_path)
    assert [batch["index"].tolist() for batch in part.epoch(0)] == [[2, 3, 4], [5]]
    write(tmp_path, {**entry(2), "index": torch.tensor([7, 9])})
    assert next(open_batches(HERE, tmp_path).epoch(0))["index"].tolist() == [7, 9]


def test_batches_are_no_longer_those_of_the_file(tmp_path: Path) -> None:
    """Who writes over it once it was read changes none of them."""
    write(tmp_path, entry(2), entry(2, 100))
    ready = open_batches(HERE, tmp_path)
    path = tmp_path / "ready" / "batches.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert ids_of(ready.epoch(0)) == [0, 100]


def test_shuffled_by_seed_and_epoch(tmp_path: Path) -> None:
    """All of them once, in an order that follows (seed, epoch) alone."""
    write(tmp_path, *(entry(1, 100 * i) for i in range(20)))
    ready = open_batches(Batches(folder="ready", shuffle=True), tmp_path)
    first = ids_of(ready.epoch(0, seed=1))
    assert sorted(first) == [100 * i for i in range(20)] != first
    assert first == ids_of(ready.epoch(0, seed=1))
    assert first[7:] == ids_of(ready.epoch(0, seed=1, start=7))
    assert first != ids_of(ready.epoch(1, seed=1))
    assert first != ids_of(ready.epoch(0, seed=2))


def test_a_part_of_the_batches(tmp_path: Path) -> None:
    """`first` and `last` count from 0, both among them; the facts count their rows; dev stays whole."""
    write(tmp_path, *(entry(2, 100 * i) for i in range(6)))
    write(tmp_path, entry(5), name="dev")
    part = Batches(folder="ready", first=2, last=3)
    ready = open_batches(part, tmp_path)
    assert ids_of(ready.epoch(0)) == [200, 300]
    assert [len(batch["labels"]) for batch in ready.dev] == [5]
    assert batch_facts(part, tmp_path).rows == {"train": 4, "dev": 5}
    assert batch_facts(HERE, tmp_path).rows == {"train": 12, "dev": 5}
    assert batch_facts(HERE, tmp_path).columns == ("attention_mask", "input_ids", "labels")
    with pytest.raises(ValidationError, match="from batch 3 to batch 2 there is none"):
        Batches(folder="ready", first=3, last=2)


def test_a_model_with_fields_of_its_own(tmp_path: Path) -> None:
    """It sees them and the other inputs, no labels; a model that the spec has not is a fault."""
    own = torch.arange(6).reshape(2, 3) + 50
    write(tmp_path, {**entry(2), "big.input_ids": own})
    ready = open_batches(HERE, tmp_path, models=["big", "tiny"])
    batch = next(ready.epoch(0))
    assert ready.models == {"big"}
    assert batch.keys() == {"input_ids", "attention_mask", "labels", "index", "big"}
    assert batch["big"].keys() == {"input_ids", "attention_mask"}
    assert torch.equal(batch["big"]["input_ids"], own)
    with pytest.raises(SourceFault, match="has fields of `big`, and the spec has no such model") as fault:
        open_batches(HERE, tmp_path, models=["bigger", "tiny"])
    assert "did you mean `bigger`?" in fault.value.help


def test_kinds_of_numbers(tmp_path: Path) -> None:
    """Whole numbers are int64, truth values too; labels of classes and values float32; other floats stay."""
    fields = {**entry(2), "attention_mask": torch.ones(2, 3, dtype=torch.bool), "weights": torch.ones(2).half()}
    write(tmp_path, {**fields, "input_ids": fields["input_ids"].int(), "labels": torch.tensor([1, 2])})
    found = next(open_batches(Batches(folder="ready", labels="value"), tmp_path).epoch(0))
    kinds = {key: value.dtype for key, value in found.items()}
    assert kinds == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "labels": torch.float32,
        "weights": torch.float16,
        "index": torch.int64,
    }
    assert found["labels"].tolist() == [1.0, 2.0]


def test_spans_under_the_names_of_transformers(tmp_path: Path) -> None:
    """`start_positions` and `end_positions` are `start` and `end`; without labels nothing is asked for."""
    ids = {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    places = {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 2])}
    write(tmp_path, {**ids, **places})
    batch = next(open_batches(Batches(folder="ready", labels="spans"), tmp_path).epoch(0))
    assert (batch["start"].tolist(), batch["end"].tolist()) == ([0, 1], [2, 2])
    write(tmp_path, ids)
    none = Batches(folder="ready", labels=None)
    assert none.label_type == ""
    assert set(next(open_batches(none, tmp_path).epoch(0))) == {"input_ids", "index"}


def test_the_fingerprint_is_of_contents(tmp_path: Path) -> None:
    """Elsewhere the same; other with one other number, another field, fewer batches, or the same in dev."""
    prints = []
    for name, entries in {
        "one": [entry(2), entry(2, 9)],
        "again": [entry(2), entry(2, 9)],
        "number": [entry(2), entry(2, 10)],
        "field": [{**entry(2), "weights": torch.ones(2)}, {**entry(2, 9), "weights": torch.ones(2)}],
        "fewer": [entry(2)],
    }.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, *entries)
        prints.append(open_batches(HERE, tmp_path / name).fingerprint)
    write(tmp_path / "fewer", entry(2, 9), name="dev")
    prints.append(open_batches(HERE, tmp_path / "fewer").fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5
    assert open_batches(Batches(folder="ready", last=0), tmp_path / "one").fingerprint == prints[4]


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check(folder: Path, code: str, field: str, message: str, help: str, source: Batches = HERE) -> None:
    """Both the facts and the batches raise this fault."""
    for read in (open_batches, batch_facts):
        with pytest.raises(SourceFault) as fault:
            read(source, folder)
        assert (fault.value.code, fault.value.field) == (code, field)
        assert message in fault.value.message
        assert help in fault.value.help


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A near name is offered, else what is there."""
    check(tmp_path, "B401", "folder", "there is no folder `ready`", "is empty")
    (tmp_path / "reddy").mkdir()
    check(tmp_path, "B401", "folder", "there is no folder `ready`", "did you mean `reddy`?")
    check(tmp_path, "B401", "folder", "no folder `a/b`", "there is no folder", Batches(folder="a/b"))


def test_a_folder_without_batches(tmp_path: Path) -> None:
    """What it holds is listed."""
    (tmp_path / "ready").mkdir()
    check(tmp_path, "B401", "folder", "no `batches.safetensors` in `ready`", "it is an empty folder")
    (tmp_path / "ready" / "case.json").touch()
    check(tmp_path, "B401", "folder", "no `batches.safetensors` in `ready`", "it is a folder that holds `case.json`")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """Cut short, or without any tensor."""
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "batches.safetensors").write_bytes(b"nothing")
    check(tmp_path, "B404", "folder", "`batches.safetensors` cannot be read", "write it again")
    write_keys(tmp_path)
    check(tmp_path, "B404", "folder", "holds no tensor", "keys are `INDEX.FIELD`")


@pytest.mark.parametrize("key", ["input_ids", "x.input_ids", "0", "0.a.b.c", "0.", "01.input_ids", "-1.input_ids"])
def test_keys_of_another_form(key: str, tmp_path: Path) -> None:
    """They are named, and the form is shown."""
    write_keys(tmp_path, **{key: torch.ones(1)})
    check(tmp_path, "B404", "folder", f"`{key}` in `batches.safetensors` is not a key", "`0.bert.input_ids`")


@pytest.mark.parametrize(("numbers", "gap"), [((0, 2), 1), ((1, 2), 0), ((0, 1, 2, 4, 9), 3)])
def test_numbers_with_a_gap(numbers: tuple[int, ...], gap: int, tmp_path: Path) -> None:
    """The first number that is missing is named."""
    write_keys(tmp_path, **{f"{n}.{k}": v for n in numbers for k, v in entry(1).items()})
    check(tmp_path, "B404", "folder", f"has a batch {max(numbers)}, and no batch {gap}", "without a gap")


def test_fields_that_some_batches_lack(tmp_path: Path) -> None:
    """In both directions, those of a model too."""
    more = {**entry(2), "big.input_ids": torch.ones(2, 3)}
    write(tmp_path, more, entry(2))
    check(tmp_path, "B404", "folder", "batch 0 of `batches.safetensors` has `big.input_ids`, and batch 1", "the same")
    write(tmp_path, entry(2), more)
    check(tmp_path, "B404", "folder", "batch 1 of `batches.safetensors` has `big.input_ids`, and batch 0", "the same")


def test_rows_that_differ(tmp_path: Path) -> None:
    """Within a batch all tensors have the same rows, and at least one."""
    write(tmp_path, {**entry(2), "labels": torch.tensor([1, 0, 1])})
    check(tmp_path, "B404", "folder", "has 2 rows, and `0.labels` has 3", "first axis")
    write(tmp_path, entry(0))
    check(tmp_path, "B404", "folder", "in `batches.safetensors` has no rows", "first axis")
    write(tmp_path, {**entry(2), "scale": torch.tensor(3.0)})
    check(tmp_path, "B404", "folder", "`0.scale` in `batches.safetensors` has no rows", "first axis")


def test_inputs_of_different_lengths(tmp_path: Path) -> None:
    """A model with longer ids needs a mask of its own."""
    long = torch.ones(2, 5, dtype=torch.int64)
    write(tmp_path, {**entry(2), "big.input_ids": long})
    check(tmp_path, "B404", "folder", "is 2 × 5, and `0.attention_mask` is 2 × 3", "write `0.big.attention_mask` too")
    write(tmp_path, {**entry(2), "big.input_ids": long, "big.attention_mask": long.clone()})
    assert open_batches(HERE, tmp_path).train[0]["big"]["attention_mask"].shape == (2, 5)
    write(tmp_path, {**entry(2), "attention_mask": long})
    check(tmp_path, "B404", "folder", "is 2 × 3, and `0.attention_mask` is 2 × 5", "equally long")


@pytest.mark.parametrize(
    ("labels", "tensor", "message", "help"),
    [
        ("class", None, "has no `labels`: expected labels of type `class`", "write `0.labels`"),
        ("spans", torch.tensor([0, 1]), "has no `start`: expected labels of type `spans`", "write `0.start`"),
        ("class", torch.ones(2, 3).long(), "is 2 × 3, and not rows: expected labels of type `class`", "in this shape"),
        ("class", torch.ones(2), "holds floats: expected labels of type `class`", "as int64"),
        ("classes", torch.ones(2), "is 2, and not rows × classes", "in this shape"),
        ("tags", torch.ones(2, 4).long(), "is 2 × 4, and not one for each token", "in this shape"),
        ("next", torch.ones(2).long(), "is 2, and not one for each token", "in this shape"),
    ],
)
def test_labels_of_another_type(labels: str, tensor: Tensor | None, message: str, help: str, tmp_path: Path) -> None:
    """Missing, of another shape, or floats where whole numbers are wanted; every help says `labels=`."""
    fields = entry(2)
    del fields["labels"]
    write(tmp_path, {**fields, **({} if tensor is None else {"labels": tensor})})
    source = Batches(folder="ready", labels=labels)
    check(tmp_path, "B403", "labels", message, help, source)
    check(tmp_path, "B403", "labels", message, "say what the labels are: `labels=", source)


@pytest.mark.parametrize("field", ["first", "last"])
def test_a_part_past_the_end(field: str, tmp_path: Path) -> None:
    """The count is in the message, the largest number in the help."""
    write(tmp_path, entry(2), entry(2))
    source = Batches(folder="ready", **{field: 2})
    check(tmp_path, "B404", field, "has 2 batches, and no batch 2", "the last one is 1", source)


# ── recorded runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recorded_run(shared: Path) -> None:
    """Its six batches of four rows, number by number."""
    ready = open_batches(Batches(folder="basic_ce"), shared)
    stored = load_file(shared / "basic_ce" / "batches.safetensors")
    batches = list(ready.epoch(0))
    assert len(batches) == len(ready) == 6
    for number, batch in enumerate(batches):
        assert batch["index"].tolist() == list(range(4 * number, 4 * number + 4))
        for field in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(batch[field], stored[f"{number}.{field}"])


@pytest.mark.parametrize(
    ("name", "labels"),
    [("question_answering", "spans"), ("token_classification_masked", "tags"), ("teacher_batch_differs", "class")],
)
def test_recorded_runs_of_other_kinds(name: str, labels: str, shared: Path) -> None:
    """Answers, tags, and a teacher that sees other ids: all of them fit what is said of their labels."""
    ready = open_batches(Batches(folder=name, labels=labels), shared)
    batch = next(ready.epoch(0))
    stored = load_file(shared / name / "batches.safetensors")
    if labels == "spans":
        assert torch.equal(batch["end"], stored["0.end_positions"])
    if labels == "tags":
        assert batch["labels"].shape == batch["input_ids"].shape
    assert ready.models == ({"teacher"} if name == "teacher_batch_differs" else set())
    if ready.models:
        assert torch.equal(batch["teacher"]["input_ids"], stored["0.teacher.input_ids"])
        assert torch.equal(batch["teacher"]["attention_mask"], stored["0.attention_mask"])


def test_tasks_of_a_recorded_run_take_their_parts(shared: Path) -> None:
    """Two tasks share the recording by halves, in the order recorded."""
    tasks = json.loads((shared / "multi_task" / "case.json").read_text())["teachers"]
    whole = open_batches(Batches(folder="multi_task"), shared)
    each = len(whole) // tasks
    parts = [open_batches(Batches(folder="multi_task", first=i * each, last=(i + 1) * each - 1), shared)
             for i in range(tasks)]  # fmt: skip
    assert [len(part) for part in parts] == [each] * tasks
    joined = [batch["index"].tolist() for part in parts for batch in part.epoch(0)]
    assert joined == [batch["index"].tolist() for batch in whole.epoch(0)]
