"""A run without labels: evaluated on its losses over the whole dev split, against a loop written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div, mse_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import brewgraph as bg
from tests import small
from tests.cli.tiny import command as invoke
from tests.training.test_loop import on_two_ranks, training

SPEC = """
param size = {size}
teacher big = hf("big")
student tiny = hf(
  model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
  max_position_embeddings=40
)
data d = files(train="train.jsonl", dev="dev.jsonl", label=none, batch=size)
soft = kd(big.logits -> tiny.logits, T=2)
inner = mse(big.hidden[2] -> tiny.hidden[1] via linear)
loss = soft + 0.5 * inner
train {{ {train} }}
"""


def texts(folder: Path, name: str, count: int, seed: int) -> list[str]:
    found = [row["text"] for row in small.rows(count, seed)]
    small.write_rows(folder / f"{name}.jsonl", [{"text": text} for text in found])
    return found


def teacher(folder: Path) -> None:
    """One that is sure of its classes: losses of near to nothing are lost in rounding."""
    model: Any = small.classifier(width=24, seed=1)
    model.classifier.weight.data *= 30
    model.save_pretrained(folder)
    small.tokenizer().save_pretrained(folder)


def world(folder: Path, *, size: int = 4, train: str = "epochs = 2", rows: int = 11) -> Path:
    """A teacher of three classes, texts without labels, a spec."""
    teacher(folder / "big")
    texts(folder, "train", 16, 0)
    texts(folder, "dev", rows, 1)
    path = folder / "s.brew"
    path.write_text(SPEC.format(size=size, train=train))
    return path


def by_hand(run: Path, teacher: Path, rows: list[str]) -> dict[str, float]:
    """The losses over all rows at once: plain transformers and torch, the run's files and nothing of ours."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    big = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    tiny = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
    (weight, bias) = (v for k, v in sorted(load_file(run / "projections.safetensors").items(), reverse=True))
    batch = tokenizer(rows, padding=True, return_tensors="pt")
    with torch.no_grad():
        a, b = big(**batch, output_hidden_states=True), tiny(**batch, output_hidden_states=True)
        soft = 4 * kl_div((b.logits / 2).log_softmax(-1), (a.logits / 2).softmax(-1), reduction="batchmean")
        real = batch["attention_mask"].bool()
        inner = mse_loss((b.hidden_states[1] @ weight.T + bias)[real], a.hidden_states[2][real])
    return {"loss": float(soft + 0.5 * inner), "soft": float(soft), "inner": float(inner)}


def dev_lines(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["dev"] for line in lines if "dev" in line]


def test_the_losses_of_a_run_without_labels_are_those_of_the_whole_split(tmp_path: Path) -> None:
    """In metrics.jsonl, in the closing table, and by `eval`, on a split and on a file, whatever the batch size."""
    path = world(tmp_path)
    result = bg.run(path)
    expected = by_hand(result.folder, tmp_path / "big", [r["text"] for r in small.rows(11, 1)])
    assert dev_lines(result.folder)[-1] == pytest.approx(expected, rel=1e-5)
    (row,) = result.table
    assert (row.name, row.columns, row.main) == ("tiny", ("loss", "soft", "inner"), ("loss",))
    assert dict(row.scores) == pytest.approx(expected, rel=1e-5)
    assert row.per_second > 0
    found = json.loads(invoke("eval", str(result.folder), "--format", "json").stdout)
    assert (found["examples"], found["scores"]) == (11, pytest.approx(expected, rel=1e-5))
    other = texts(tmp_path, "other", 5, 9)
    found = json.loads(
        invoke("eval", str(result.folder), "--data", str(tmp_path / "other.jsonl"), "--format", "json").stdout
    )
    assert found["scores"] == pytest.approx(by_hand(result.folder, tmp_path / "big", other), rel=1e-5)


def test_the_size_of_batches_does_not_change_losses_on_dev(tmp_path: Path) -> None:
    """At the first evaluation, of students that are still alike: a rate of zero leaves them as they began."""
    found = []
    for size in (3, 8):
        path = world(tmp_path, size=size, train="steps = 1; optimizer = sgd(lr=1e-12)")
        found.append(dev_lines(bg.run(path, out=tmp_path / f"of {size}").folder)[0])
    assert found[0] == pytest.approx(found[1], rel=3e-6)
    assert found[0].keys() == {"loss", "soft", "inner"}


def test_the_best_student_is_that_of_the_lowest_loss(tmp_path: Path) -> None:
    """Its losses are in the table; patience ends a run whose losses rise."""
    path = world(
        tmp_path,
        train='epochs = 8; optimizer = sgd(lr=40.0); metric_for_best_model = "loss"; early_stopping_patience = 2',
    )
    result = bg.run(path, skip=["pack_tokens"])  # the course of so high a rate hangs on every draw of dropout
    values = [line["loss"] for line in dev_lines(result.folder)]
    best = min(values)
    assert values[-2:] > [best, best] or len(values) == 8
    assert len(values) == values.index(best) + 3 < 8
    assert result.table[0].scores["loss"] == pytest.approx(best, rel=1e-6)


def test_predictions_have_the_names_of_the_teachers_classes(tmp_path: Path) -> None:
    result = bg.run(world(tmp_path))
    out = invoke("predict", str(result.folder), "--text", "a tale of two cities").stdout
    assert json.loads(out)["probabilities"].keys() == set(small.LABELS)


def test_losses_whose_teacher_is_gone_name_it(tmp_path: Path) -> None:
    result = bg.run(world(tmp_path))
    (tmp_path / "big").rename(tmp_path / "away")
    said = invoke("eval", str(result.folder))
    assert said.exit_code == 2
    assert "has no labels to score it by, and its losses need what it was trained with: " in said.stderr
    assert "`big`" in said.stderr


def test_weights_on_dev_are_those_of_the_end(tmp_path: Path) -> None:
    """A schedule would move the loss by itself, and the best student would be the first or the last."""
    path = world(tmp_path, train="epochs = 2; optimizer = sgd(lr=1e-12)")
    path.write_text(path.read_text().replace("0.5 * inner", "ramp(1 -> 0.25) * inner"))
    first, last = dev_lines(bg.run(path).folder)
    assert first == pytest.approx(last, rel=1e-6)
    assert last["loss"] == pytest.approx(last["soft"] + 0.25 * last["inner"], rel=1e-6)


@pytest.mark.parametrize("labels", [", labels=none", ""])
def test_ready_batches_are_evaluated_on_their_dev_file(tmp_path: Path, labels: str) -> None:
    """As one whole: two batches of unequal size give what one of all rows gives. They hold no texts to predict."""
    teacher(tmp_path / "big")
    ids = torch.randint(5, 100, (6, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[:2, 4:] = 0
    folder = tmp_path / "ready"
    folder.mkdir()
    fields = {"input_ids": ids, "attention_mask": mask} | ({} if labels else {"labels": ids[:, 0] % 2})
    save_file({f"0.{key}": x for key, x in fields.items()}, folder / "batches.safetensors")
    parts = {
        f"{n}.{key}": x[rows].clone() for n, rows in enumerate((slice(0, 2), slice(2, 6))) for key, x in fields.items()
    }
    save_file(parts, folder / "dev.safetensors")
    spec = SPEC.format(size=4, train="logging_steps = 1; steps = 1; optimizer = sgd(lr=1e-12)")
    lines = [f'data d = batches("ready"{labels})' if line.startswith("data d") else line for line in spec.splitlines()]
    path = tmp_path / "s.brew"
    path.write_text(
        "\n".join(lines).replace(
            "  max_position",
            "  vocab_size=120, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position",
        )
    )
    result = bg.run(path)
    line = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert dev_lines(result.folder)[0]["loss"] == pytest.approx(line["loss"], rel=1e-5)
    found = json.loads(invoke("eval", str(result.folder), "--format", "json").stdout)
    assert (found["examples"], found["scores"]["loss"]) == (6, pytest.approx(line["loss"], rel=1e-5))
    predicted = invoke("predict", str(result.folder), "--text", "one")
    assert predicted.exit_code == 2
    assert predicted.stderr.startswith(
        "error: `d` holds batches of tensors, and `predict` reads texts: load the student"
    )


@pytest.mark.slow
def test_two_ranks_give_the_losses_of_one(tmp_path: Path) -> None:
    """Seven rows, which do not divide: each sum is over both ranks, and so is what it is divided by."""
    path = world(tmp_path, train="steps = 1; optimizer = sgd(lr=1e-12)", rows=7)
    training(path, tmp_path / "alone")
    on_two_ranks(path, tmp_path / "ranks")
    assert dev_lines(tmp_path / "ranks") == [pytest.approx(dev_lines(tmp_path / "alone")[0], rel=1e-6)]
