"""A student beside its teacher, for each type of labels: what is compared, and that it is what both predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers

import brewgraph as bg
from brewgraph.diagnostics import UsageError
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.running.agreement import Agreement, keep_agreements, read_agreements
from brewgraph.running.compare_predictions import _nll_of_classes as nll
from brewgraph.running.compare_predictions import _top_class as top_class
from brewgraph.running.compare_predictions import (
    calibration,
    calibration_error,
    compare_predictions,
    confusion,
    fit_temperature,
    reliability,
)
from brewgraph.running.finished import open_run
from brewgraph.training.folder import RunFolder
from tests.running import test_answers, test_tags
from tests.small import LABELS, WORDS, rows, save, tokenizer, write_rows

SIZES = 'model_type="bert", num_hidden_layers=1, num_attention_heads=2, intermediate_size=16'
HEAD = f"""brew 1
teacher big = hf("big")
student tiny = hf({SIZES}, hidden_size=16)
"""


def _multi(folder: Path) -> str:
    for name in ("train", "dev"):
        content = [
            {"text": row["text"], "label": [row["label"], "long"][: 1 + n % 2]} for n, row in enumerate(rows(12))
        ]
        write_rows(folder / f"{name}.jsonl", content)
    return 'data d = files(train="train.jsonl", dev="dev.jsonl", problem_type=multi_label, batch=4, max_length=16)'


def _values(folder: Path) -> str:
    for name in ("train", "dev"):
        write_rows(folder / f"{name}.jsonl", [{"text": row["text"], "label": n / 7} for n, row in enumerate(rows(12))])
    return 'data d = files(train="train.jsonl", dev="dev.jsonl", problem_type=regression, batch=4, max_length=16)'


def _tags(folder: Path) -> str:
    for name in ("train", "dev"):
        test_tags.write(folder / f"{name}.conll", [5, 8, 30, 3], "BI")
    return 'data d = conll(train="train.conll", dev="dev.conll", batch=4, max_length=16)'


def _answers(folder: Path) -> str:
    for name in ("train", "dev"):
        test_answers.write(folder / f"{name}.json", test_answers.KINDS[:6])
    return 'data d = squad(train="train.json", dev="dev.json", batch=4, max_length=32, stride=6)'


def _words(folder: Path) -> str:
    for name in ("train", "dev"):
        lines = (" ".join(WORDS[i : i + 9]) + "\n" for i in range(12))
        (folder / f"{name}.txt").write_text("".join(lines))
    return 'data d = text(train="train.txt", dev="dev.txt", mask=30%, batch=4, max_length=16)'


def _texts(folder: Path) -> str:
    for name in ("train", "dev"):
        write_rows(folder / f"{name}.jsonl", [{"text": row["text"]} for row in rows(12)])
    return 'data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=none, batch=4, max_length=16)'


def finished(folder: Path, data: str, loss: str, kind: str, classes: Sequence[str]) -> Path:
    """The folder of a run of one step, with a random teacher for these labels."""
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=120,
        id2label=dict(enumerate(classes or ("x",))), problem_type=LABEL_TYPES[kind].problem_type,
    )  # fmt: skip
    getattr(transformers, LABEL_TYPES[kind].auto_class).from_config(config).save_pretrained(folder / "big")
    tokenizer().save_pretrained(folder / "big")
    spec = folder / "spec.brew"
    spec.write_text(f"{HEAD}{data}\nloss = {loss}\ntrain {{ steps = 1 }}\n")
    return bg.run(spec, out=folder / "run").folder


MULTI = (*LABELS, "long")
KINDS = {
    "classes": (_multi, "bce(d.labels -> tiny.logits) + mse(big.logits -> tiny.logits)", MULTI),
    "value": (_values, "mse(d.labels -> tiny.logits) + mse(big.logits -> tiny.logits)", ()),
    "tags": (_tags, "ce(d.labels -> tiny.logits) + kd(big.logits -> tiny.logits)", ("O", "B-PER", "I-PER")),
    "spans": (
        _answers,
        "ce(d.start -> tiny.start) + kd(big.start -> tiny.start) + kd(big.end -> tiny.end)",
        ("start", "end"),
    ),
    "masked": (_words, "ce(d.labels -> tiny.logits) + kd(big.logits -> tiny.logits)", ()),
    "": (_texts, "mse(big.hidden[-1] -> tiny.hidden[-1] via linear)", ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_labels_has_its_comparison(kind: str, tmp_path: Path):
    """Numbers that lie where they must, and what fits the type of labels: counts, curves, points, places, examples."""
    write, loss, classes = KINDS[kind]
    folder = finished(tmp_path, write(tmp_path), loss, kind, classes)
    (made,) = compare_predictions(open_run(folder), lambda text: None)
    assert (made.teacher, made.student, made.kind, made.split) == ("big", "tiny", kind, "dev")
    shares = [x for name, x in made.scores.items() if name.startswith("same")]
    assert all(0 <= x <= 1 or math.isnan(x) for x in shares)
    shown = {
        "classes": lambda: made.reliability and "same decision on long" in made.scores,
        "value": lambda: len(made.points) == 12 and -1 <= made.scores["Pearson"] <= 1,
        "tags": lambda: sum(map(sum, made.counts)) == 5 + 8 + 30 + 3 and set(made.names) == {"O", "PER"},
        "spans": lambda: 0 <= made.scores["overlap (F1)"] <= 1,
        "masked": lambda: made.scores["KL(teacher || student), nats"] > 0 and made.positions["KL, nats"],
        "": lambda: len(made.points) == 12 * 11 / 2 and -1 <= made.scores["Pearson of similarities"] <= 1,
    }
    assert shown[kind]()
    run = RunFolder(folder)
    keep_agreements(run, [made])
    (again,) = read_agreements(run) or ()
    assert isinstance(again, Agreement)
    assert [tuple(row) for row in again.partings] == [tuple(row) for row in made.partings]
    assert list(again.names) == list(made.names)


def copied(folder: Path, count: int, rest: str) -> Path:
    """A spec whose student begins as its teacher, with so many rows in each split."""
    for name in ("train", "dev"):
        write_rows(folder / f"{name}.jsonl", rows(count))
    save(folder / "bert", width=16)
    spec = folder / "spec.brew"
    spec.write_text(
        'brew 1\nteacher bert = hf("bert")\n'
        'data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=16)\n' + rest
    )
    return spec


def test_a_class_for_each_text(tmp_path: Path):
    """The teacher beside itself agrees wholly; the confusion counts every text once, calibration half of them."""
    spec = copied(
        tmp_path,
        20,
        'student tiny = hf("bert")\n'
        "loss = kd(bert.logits -> tiny.logits)\ntrain { steps = 1; optimizer = sgd(lr=1e-9) }\n",
    )
    run = bg.run(spec, out=tmp_path / "run")
    (made,) = compare_predictions(open_run(run.folder), lambda text: None)
    assert made.scores["same class"] == 1.0
    assert made.scores["KL(teacher || student), nats"] == pytest.approx(0.0, abs=1e-6)
    assert made.scores["only the teacher right"] == made.scores["only the student right"] == 0.0
    accuracy = run.table[0].scores["accuracy"]
    assert made.scores["both right"] == pytest.approx(accuracy)
    assert made.partings == ()
    assert sum(map(sum, made.counts)) == sum(made.counts[i][i] for i in range(3)) == 20
    assert {name: sum(n for _, _, n in bins) for name, bins in made.reliability.items()} == {
        "bert": 10, "bert, scaled": 10, "tiny": 10, "tiny, scaled": 10,
    }  # fmt: skip


def test_a_student_with_heads_is_compared_by_its_trunk(tmp_path: Path):
    """In a stage that reads no head; the task of a head is compared by its labels."""
    spec = copied(
        tmp_path,
        6,
        'student tiny = hf("bert") { head one = sequence_classifier(labels=3) }\n'
        "stage first { loss = mse(bert.hidden[-1] -> tiny.hidden[-1]); train { steps = 1 } }\n"
        "stage second { task one { loss = kd(bert.logits -> tiny.one.logits) }; train { steps = 1 } }\n",
    )
    run = bg.run(spec, out=tmp_path / "run")
    made = compare_predictions(open_run(run.folder), lambda text: None)
    assert [(x.task, x.kind, x.examples) for x in made] == [("", "", 6), ("one", "class", 6)]
    assert -1 <= made[0].scores["Pearson of similarities"] <= 1


def test_a_run_whose_teacher_is_gone(tmp_path: Path):
    """One line, and no trace of the run's machinery."""
    for name in ("train", "dev"):
        write_rows(tmp_path / f"{name}.jsonl", rows(8))
    folder = finished(
        tmp_path,
        'data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=16)',
        "kd(big.logits -> tiny.logits)",
        "class",
        LABELS,
    )
    (tmp_path / "dev.jsonl").unlink()
    with pytest.raises((UsageError, bg.SpecError), match=r"dev\.jsonl"):
        compare_predictions(open_run(folder), lambda text: None)


def test_what_is_no_number_is_kept_as_such(tmp_path: Path):
    """NaN in scores, points and curves comes back from the file; a file of another run or version counts for nothing."""
    run = RunFolder(tmp_path)
    run.write_json("resolved.json", {"hash": "a"})
    nan = math.nan
    keep_agreements(
        run,
        [Agreement("", "t", "s", "value", "d", "dev", 1, {"x": nan}, points=[(nan, 1.0)], positions={"k": [(0, nan)]})],
    )
    (again,) = read_agreements(run) or ()
    assert math.isnan(again.scores["x"])
    assert math.isnan(again.points[0][0])
    assert math.isnan(again.positions["k"][0][1])
    run.write_json("agreement.json", {"hash": "a", "agreements": [{"other": 1}]})
    assert read_agreements(run) is None
    run.write_json("resolved.json", {"hash": "b"})
    keep_agreements(run, [])
    assert read_agreements(run) == ()
    run.write_json("resolved.json", {"hash": "c"})
    assert read_agreements(run) is None


# ── the measures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_temperature_is_found_again():
    """Labels that are drawn from logits divided by 3 are fitted best by 3, and after that calibration is good."""
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / 3).softmax(-1), 1, generator=generator).flatten()
    assert fit_temperature(logits, labels, nll) == pytest.approx(3, rel=0.05)
    scores, curves, _ = calibration({"m": logits}, labels, top_class, nll)
    assert scores["ECE of m"] > 0.1 > 0.02 > scores["ECE of m, scaled"]
    assert sum(n for _, _, n in curves["m"]) == 10_000


def test_bins_of_confidence():
    """The edge of a bin belongs to the one below; ECE weighs bins by their examples."""
    bins = reliability(torch.tensor([0.5, 0.52, 1.0, 1.0]), torch.tensor([True, False, True, True]))
    assert bins == [(pytest.approx(0.51), 0.5, 2), (1.0, 1.0, 2)]
    assert calibration_error(bins) == pytest.approx(0.005)
    assert math.isnan(calibration_error([]))


def test_rare_classes_of_a_confusion_are_joined():
    """Sixteen rows at most, and no example is lost."""
    classes = [f"c{i}" for i in range(40)]
    teacher = [classes[i % 40] for i in range(400)] + ["c7"] * 9
    student = [classes[(i * 3) % 40] for i in range(400)] + ["c8"] * 9
    names, counts = confusion(teacher, student, classes)
    assert len(names) == len(counts) == 16
    assert names[-1] == "others"
    assert sum(map(sum, counts)) == 409
    assert counts[names.index("c7")][names.index("c8")] == 9
    assert confusion(["a"], ["b"], ["a", "b"]) == (["a", "b"], [[0, 1], [0, 0]])
