"""Predictions by label type, read off logits made by hand, and labels of a file as numbers of the run's classes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor, nn

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.data.sources.examples import open_examples
from brewgraph.recipe.label_types import CLASS, CLASSES, NEXT, NONE, SPANS, TAGS, VALUE, LabelType
from brewgraph.recipe.settings.data_sources import Conll, Files
from brewgraph.running.data_cache import DataCache
from brewgraph.running.finished import FinishedRun, FinishedTask, open_run
from brewgraph.running.predict import Student, labelled_rows, load_student, predict, read_logits, score
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.folder import RunFolder
from tests.small import project, save


def test_one_class_several_and_a_number() -> None:
    """The likeliest class; those above a half; the number as it is."""
    logits = torch.tensor([[0.0, 2.0], [-1.0, -3.0]])
    one = list(read_logits(CLASS, logits, {}, ("no", "yes")))
    assert [row["label"] for row in one] == ["yes", "no"]
    assert one[0]["probabilities"] == pytest.approx({"no": 0.1192, "yes": 0.8808}, abs=1e-4)
    several = list(read_logits(CLASSES, logits, {}, ("sport", "news")))
    assert [row["labels"] for row in several] == [["news"], []]
    assert several[1]["probabilities"] == pytest.approx({"sport": 0.2689, "news": 0.0474}, abs=1e-4)
    assert list(read_logits(VALUE, torch.tensor([[1.5], [-2.0]]), {}, ())) == [{"value": 1.5}, {"value": -2.0}]


class Answering(nn.Module):
    """Returns the logits that it was given, of whatever kind."""

    def __init__(self, **outputs: Tensor):
        super().__init__()
        self.outputs = outputs

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(**{name: value[input_ids[:, 0]] for name, value in self.outputs.items()})


@dataclass(frozen=True)
class ByHand(Student):
    """A student whose batches are given."""

    given: tuple[dict[str, Any], ...] = ()

    def batches(self, rows: datasets.Dataset) -> Any:
        return self.given


def by_hand(
    label_type: LabelType, model: nn.Module, batches: list[dict[str, Any]], classes: tuple[str, ...] = ()
) -> ByHand:
    data: Any = SimpleNamespace(name="d", source=SimpleNamespace(label_type=label_type))
    task = FinishedTask("", data, classes, "", Path(), "tiny", Path(), label_type)
    encoding = SimpleNamespace(key="tiny")
    return ByHand(task, model, encoding, torch.device("cpu"), tuple(batches))  # type: ignore[arg-type]


def test_tags_stand_beside_their_words() -> None:
    """A word's tag is that of its first token; a word without a token has none; the windows of a sentence are one."""
    logits = nn.functional.one_hot(torch.tensor([[0, 1, 0, 2, 0], [0, 2, 0, 0, 0]]), 3).float()
    words = torch.tensor([[1, 3, -1], [1, -1, -1], [-1, 1, -1], [-1, 3, 4]])
    index, first = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 0, 1])
    batch = {"input_ids": torch.tensor([[0], [1], [1], [0]]), "words": words, "index": index, "first": first}
    parts = [{name: value[a:b] for name, value in batch.items()} for a, b in ((0, 3), (3, 4))]
    rows = datasets.Dataset.from_list(
        [
            {"index": 0, "words": ["Ann", "ran", "off", "x"]},
            {"index": 1, "words": ["Bo"]},
            {"index": 2, "words": ["a", "b", "c", "d"]},
        ]
    )
    found = list(predict(by_hand(TAGS, Answering(logits=logits), parts, ("O", "B-PER", "I-PER")), rows))
    assert found == [
        {"index": 0, "words": ["Ann", "ran", "off", "x"], "tags": ["B-PER", "I-PER", None, None]},
        {"index": 1, "words": ["Bo"], "tags": ["I-PER"]},
        {"index": 2, "words": ["a", "b", "c", "d"], "tags": [None, "I-PER", "I-PER", "O"]},
    ]


QUESTIONS = [
    {
        "index": 0,
        "id": "a",
        "text_0": "Where?",
        "text_1": "It is in Paris.",
        "answers": {"text": ["Paris"], "start": [9]},
    },
    {"index": 1, "id": "b", "text_0": "Who?", "text_1": "Ann.", "answers": {"text": ["Ann"], "start": [0]}},
]


def spans() -> tuple[ByHand, datasets.Dataset]:
    """Three windows, two of them of the second question, in two batches under the student's own key."""
    start = torch.tensor([[9.0, 0, 4, 0], [0, 1.0, 0, 0], [0, 2.0, 0, 0]])
    end = torch.tensor([[9.0, 3, 0, 4], [0, 1.0, 0, 0], [0, 2.0, 0, 0]])
    offsets = torch.tensor(
        [
            [[-1, -1], [0, 2], [9, 14], [14, 15]],
            [[-1, -1], [3, 4], [-1, -1], [-1, -1]],
            [[-1, -1], [0, 3], [3, 4], [-1, -1]],
        ]
    )
    own = [
        {"input_ids": torch.tensor([[0], [1]]), "offsets": offsets[:2], "null": torch.tensor([0, 0])},
        {"input_ids": torch.tensor([[2]]), "offsets": offsets[2:], "null": torch.tensor([0])},
    ]
    batches = [{"tiny": own[0], "index": torch.tensor([0, 1])}, {"tiny": own[1], "index": torch.tensor([1])}]
    return by_hand(SPANS, Answering(start_logits=start, end_logits=end), batches), datasets.Dataset.from_list(QUESTIONS)


def test_an_answer_is_cut_from_its_context() -> None:
    """The best window's answer with its score and its characters, one line per question."""
    student, rows = spans()
    assert list(predict(student, rows)) == [
        {"index": 0, "id": "a", "answer": "Paris.", "score": 8.0, "start": 9, "end": 15},
        {"index": 1, "id": "b", "answer": "Ann", "score": 4.0, "start": 0, "end": 3},
    ]


def test_answers_are_scored_per_question() -> None:
    """Two questions in three windows are two examples; punctuation does not count."""
    student, rows = spans()
    scores = score(student, rows)
    assert (scores.values, scores.examples) == ({"exact_match": 1.0, "f1": 1.0}, 2)
    rows = datasets.Dataset.from_list([QUESTIONS[0], {**QUESTIONS[1], "answers": {"text": ["Ann B"], "start": [0]}}])
    assert score(student, rows).values == pytest.approx({"exact_match": 0.5, "f1": (1 + 2 / 3) / 2})


def test_a_language_model_predicts_nothing() -> None:
    """It is scored instead."""
    with pytest.raises(bg.UsageError, match="`brewgraph eval` scores it"):
        next(predict(by_hand(NEXT, nn.Linear(1, 1), []), datasets.Dataset.from_list(QUESTIONS)))


def task_of(source: Any, folder: Path) -> FinishedTask:
    """The task of a run on this data, with what such a run remembers."""
    read = open_examples(source, folder)
    data: Any = SimpleNamespace(name="d", source=source)
    return FinishedTask("", data, read.classes, "", Path(), "tiny", folder, marks=read.marks)


def write(path: Path, labels: list[Any]) -> str:
    """A file with a text and a label in each row, as json or csv."""
    if path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"t,{label}\n" for label in labels))
    else:
        path.write_text("".join(json.dumps({"text": "t", "label": label}) + "\n" for label in labels))
    return path.name


MULTI: dict[str, Any] = {"problem_type": "multi_label"}


@pytest.mark.parametrize(
    ("train", "settings", "file", "expected"),
    [
        (["a", "b", "c"], {}, ["b"], [1]),
        (["a", "b", "c"], {}, ["c", "b", "a"], [2, 1, 0]),
        ([0, 1, 2], {}, [1], [1]),
        (["1", "2"], {}, ["2"], [1]),  # names that are numbers
        ([1, 0], {"classes": ("no", "yes")}, [1], [1]),
        ([1, 0], {"classes": ("no", "yes")}, ["yes"], [1]),
        ([5, 7], {"classes": ("7", "5")}, [7], [0]),
        ([True, False], {}, [True], [1]),
        ([["a"], ["b", "c"]], MULTI, [["c", "b"]], [[0, 1, 1]]),
        # 0 and 1 are what they are in the run: marks of classes, or their numbers
        ([[0, 1], [1, 1]], MULTI, [[0, 1], [1, 0]], [[0, 1], [1, 0]]),
        ([[0], [0, 1]], MULTI, [[0, 1], [1, 0]], [[1, 1], [1, 1]]),
        ([[0], [0, 1]], {**MULTI, "classes": ("x", "y")}, [[0, 1], [1]], [[1, 1], [0, 1]]),
        ([[0, 1], [1, 1]], MULTI, [[], []], None),
        ([[0], [0, 1]], MULTI, [[], []], [[0, 0], [0, 0]]),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_labels_of_a_file_are_those_of_the_run(
    tmp_path: Path, form: str, train: list, settings: dict[str, Any], file: list, expected: list | None
) -> None:
    """By name, by number, as lists: a file that holds some of the labels alone says nothing of what they mean."""
    if form == "csv" and any(isinstance(label, list | bool) for label in file):
        pytest.skip("csv has neither")
    task = task_of(Files(train=write(tmp_path / "train.jsonl", train), **settings), tmp_path)
    path = tmp_path / f"new.{form}"
    write(path, file)
    if expected is None:
        with pytest.raises(bg.UsageError, match="not 0 or 1 for each of 2 classes"):
            labelled_rows(task, str(path))
        return
    assert labelled_rows(task, str(path))["label"][:] == expected


def test_marks_of_three_classes_are_no_numbers(tmp_path: Path) -> None:
    """Rows of two numbers, both 0 or 1, are at fault: they were read as the numbers of two classes."""
    task = task_of(Files(train=write(tmp_path / "train.jsonl", [[0, 1, 1], [1, 0, 0]]), **MULTI), tmp_path)
    write(tmp_path / "new.jsonl", [[0, 1], [1, 0]])
    with pytest.raises(bg.UsageError, match="not 0 or 1 for each of 3 classes"):
        labelled_rows(task, str(tmp_path / "new.jsonl"))


@pytest.mark.parametrize(
    ("train", "file", "words"),
    [
        (["a", "b"], ["c"], "has a label `c`, which the run does not know: its classes are `a` and `b`"),
        (["good", "bad"], ["good", "goood"], "has a label `goood`, which the run does not know: did you mean `good`?"),
        (["a", "b"], [0, 3], "has a label `2`, which the run does not know: its classes are `a` and `b`"),
        (["01", "1"], ["1", "001"], "has a label `001`, which the run does not know: did you mean `01`?"),
        ([0, 1], [-1], "is -1 (a label that is a number is whole, and counts classes from 0 on"),
    ],
)
def test_labels_that_the_run_does_not_know(tmp_path: Path, train: list, file: list, words: str) -> None:
    """Each of them by name, where it has one."""
    task = task_of(Files(train=write(tmp_path / "train.jsonl", train)), tmp_path)
    write(tmp_path / "new.jsonl", file)
    with pytest.raises(bg.UsageError, match=re.escape(words)):
        labelled_rows(task, str(tmp_path / "new.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("new.jsonl", '{"text": "t", "id": 1}\n', "has no column `label`, so no labels to score the student on "
         "(the columns are `text` and `id`; `brewgraph predict` needs no labels)"),
        ("new.csv", "text,label\nt,\n", "is missing (fill it in or remove the row; `brewgraph predict` needs no labels)"),
        ("new.csv", "txt,label\nt,a\n", "has no column `text` (did you mean `txt`? the columns are `txt` and `label`)"),
    ],
)  # fmt: skip
def test_a_file_without_labels(tmp_path: Path, name: str, content: str, words: str) -> None:
    """What it lacks, and the command that needs none; what has nothing to do with labels is said as it is."""
    task = task_of(Files(train=write(tmp_path / "train.jsonl", ["a", "b"])), tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(bg.UsageError) as caught:
        labelled_rows(task, str(tmp_path / name))
    assert str(caught.value).endswith(words)
    assert "label=none" not in str(caught.value)


def test_marks_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of 0 and 1, four classes: the loss is torch's on the lists as they stand, and a file is read like them."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "tiny", layers=1)
    marks = [[1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    rows = [{"text": f"good film {n}", "label": row} for n, row in enumerate(marks)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "spec.brew").write_text(
        'brew 1\nstudent tiny = hf("tiny", pretrained=false, num_hidden_layers=1)\n'
        'data d = files(train="train.jsonl", problem_type=multi_label, batch=4, max_length=16)\n'
        "loss = bce(d.labels -> tiny.logits)\ntrain { steps = 1 }\n"
    )
    (stage,) = DataCache(SpecBuilder(check(read_spec("spec.brew")))).stages(check(read_spec("spec.brew")))
    batch = next(iter(next(iter(stage.materials[""].feeds.values())).batches(0)))
    distiller = stage.make().eval()
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
    wanted = torch.tensor([marks[row] for row in batch["index"]], dtype=torch.float32)
    expected = nn.functional.binary_cross_entropy_with_logits(distiller.student(**inputs).logits, wanted)
    assert distiller(batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    task = open_run(bg.run("spec.brew").folder).task(None)
    assert task.classes == ("0", "1", "2", "3")
    student = load_student(task)
    assert student.model.config.num_labels == 4
    (batch,) = student.batches(labelled_rows(task, "train"))
    assert batch["labels"].tolist() == marks
    (tmp_path / "new.jsonl").write_text(
        '{"text": "film", "label": [0, 1, 0, 0]}\n{"text": "x", "label": [1, 0, 0, 0]}\n'
    )
    assert labelled_rows(task, "new.jsonl")["label"][:] == [[0, 1, 0, 0], [1, 0, 0, 0]]
    (tmp_path / "few.jsonl").write_text('{"text": "film", "label": [0, 1]}\n')
    with pytest.raises(bg.UsageError, match="not 0 or 1 for each of 4 classes"):  # the run knows that these are marks
        labelled_rows(task, "few.jsonl")


def test_tags_of_a_file_are_those_of_the_run(tmp_path: Path) -> None:
    """A file in which one tag never occurs has the numbers of the run; one without tags, and one with others, is told."""
    for name, lines in (
        ("train", "a B-X\nb I-X\nc O\n"),
        ("new", "a B-X\nc O\n"),
        ("bare", "a\nb\n"),
        ("odd", "a B-Y\nc O\n"),
    ):
        (tmp_path / f"{name}.conll").write_text(lines)
    task = task_of(Conll(train="train.conll"), tmp_path)
    assert task.classes == ("O", "B-X", "I-X")
    assert labelled_rows(task, str(tmp_path / "new.conll"))["tags"][:] == [[1, 0]]
    with pytest.raises(bg.UsageError, match="`brewgraph predict` needs no labels"):
        labelled_rows(task, str(tmp_path / "bare.conll"))
    with pytest.raises(bg.UsageError, match="has a label `B-Y`, which the run does not know: did you mean `B-X`?"):
        labelled_rows(task, str(tmp_path / "odd.conll"))


def test_students_that_cannot_be_scored_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a head for the labels, and one that only its own code can run: told before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    spec = project(tmp_path, loss="sum(hidden)", train="steps = 1")
    text = spec.read_text()
    spec.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("soft", "hard"))) + "\n")
    task = open_run(bg.run(spec).folder).task(None)
    with pytest.raises(bg.UsageError, match=r"the student in `.*student` has no head for the labels of `d`"):
        load_student(task)
    (task.model / "config.json").unlink()
    with pytest.raises(bg.UsageError, match="a custom module"):
        load_student(task)


def test_params_of_the_run_are_those_of_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with `T=8` is opened with it; its paths start where the spec was, wherever one stands now."""
    (tmp_path / "there").mkdir()
    spec = project(tmp_path / "there", train="steps = 1")
    monkeypatch.chdir(tmp_path / "there")
    folder = bg.run(spec.name, T=8).folder.resolve()
    monkeypatch.chdir(tmp_path)
    run = open_run(folder)
    assert run.recipe.params["T"] == 8
    assert run.task(None).folder == tmp_path / "there"
    assert run.task("").classes == ("bad", "fair", "good")
    with pytest.raises(bg.UsageError, match="the run has no task `ner`: its spec has no tasks"):
        run.task("ner")


def test_a_task_is_chosen_by_name() -> None:
    """Where there are several, one has to be named; its model lies in the folder of its head."""
    tasks = {
        name: FinishedTask(name, None, (), head, Path("student"), "tiny", Path())  # type: ignore[arg-type]
        for name, head in (("ner", "tagger"), ("qa", "reader"))
    }
    run = FinishedRun(RunFolder(Path()), None, tasks)  # type: ignore[arg-type]
    assert run.task("qa").model == Path("student/reader")
    with pytest.raises(bg.UsageError, match="the run has several tasks: choose one by --task, `ner` and `qa`"):
        run.task(None)
    with pytest.raises(bg.UsageError, match="the run has no task `nerr`: did you mean `ner`?"):
        run.task("nerr")


@pytest.mark.parametrize(
    ("kind", "loader"),
    [("BertModel", "AutoModel"), ("BertForMaskedLM", "AutoModelForMaskedLM")],
)
def test_a_student_of_unlabelled_data_is_named_with_its_loader(tmp_path: Path, kind: str, loader: str) -> None:
    """What the student is, its folder, and the class of transformers that loads it, which does."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    data: Any = SimpleNamespace(name="d", source=SimpleNamespace(label_type=NONE))
    task = FinishedTask("", data, (), "", tmp_path, "tiny", Path())
    with pytest.raises(bg.UsageError) as caught:
        load_student(task)
    said = str(caught.value)
    assert f"the data `d` has no labels, so the student in `{tmp_path}`, a {kind}, " in said
    assert f"`transformers.{loader}.from_pretrained({str(tmp_path)!r})`" in said
    assert type(getattr(transformers, loader).from_pretrained(tmp_path)).__name__ == kind
