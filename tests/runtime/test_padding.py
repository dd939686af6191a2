"""Padding never counts: a batch of texts of different lengths is the same as each text alone, on either side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.models.padding import moved, padding_side
from brewgraph.recipe.label_types import CLASS, TAGS
from brewgraph.running.data_cache import DataCache
from brewgraph.running.finished import open_run
from brewgraph.running.predict import labelled_rows, load_student, predict, read_like, score
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.evaluation import logits_of
from tests.models.tiny import RECORDED, SETTINGS, tiny

WORDS = [f"w{n}" for n in range(60)]
TEXTS = [" ".join(WORDS[7 * n % 50 :][:length]) for n, length in enumerate((1, 4, 7, 11, 15))]
LABELS = (0, 2, 1, 1, 0)
SPEC = """brew 1
teacher big = hf("big", tokenizer="words")
student tiny = hf("tiny", tokenizer="words")
data d = files(train="train.jsonl", dev="train.jsonl", text=text, label=label, batch=5, max_length=32)
loss = (kd(big.logits -> tiny.logits, T=2) + ce(d.labels -> tiny.logits) + {more})
train {{ steps = 2; optimizer = sgd(lr=1e-3) }}
"""
HIDDEN = "sum(mse(big.hidden[1, 3] -> tiny.hidden[1, 2]))"
TAPS = 'mse(big @ "transformer.encoder.block.1"[0] -> tiny @ "transformer.encoder.block.2"[0])'
MAPS = HIDDEN + " + 10 * mse(big.attention[0] -> tiny.attention[1])"
SIDES = ("left", "right")


def bare(side: str = "right") -> PreTrainedTokenizerFast:
    """A tokenizer without special tokens around a text, in GPT-2's manner."""
    made = word_level(side)
    made.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B")
    return made


def word_level(side: str) -> PreTrainedTokenizerFast:
    """A token for each word, and one for the end of a text, by which T5 classifies."""
    vocabulary = {token: n for n, token in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, padding_side=side, model_input_names=["input_ids", "attention_mask"], **names
    )


def model(kind: str, seed: int, auto_class: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    """A tiny classifier without dropout, its weights large enough to be told from rounding."""
    silent = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"), 0.0)
    silent |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout_rate", "summary_last_dropout"), 0.0)
    silent |= dict.fromkeys(("seq_classif_dropout", "classifier_dropout_prob", "classifier_dropout"), 0.0)
    made = tiny(kind, auto_class, **(silent | ({"decoder_start_token_id": 0} if kind == "t5" else {})))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.1)
    return made


def project(folder: Path, kind: str, side: str) -> Path:
    """A spec whose models are of this architecture, with a tokenizer that pads on this side."""
    for name, seed in (("big", 1), ("tiny", 2)):
        model(kind, seed).save_pretrained(folder / name)
    word_level(side).save_pretrained(folder / "words")
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = folder / "spec.brew"
    spec.write_text(SPEC.format(more=MAPS if kind in RECORDED else TAPS if kind == "t5" else HIDDEN))
    return spec


def apart(distiller: Any, parts: list[dict[str, Tensor]], whole: dict[str, Tensor]) -> tuple[float, list[Tensor]]:
    """The loss and the gradients of a batch that is given in parts."""
    distiller.zero_grad()
    counts = distiller.count(whole)
    loss = 0.0
    for part in parts:
        found = distiller(part, counts).loss
        found.backward()
        loss += float(found.detach())
    gradients = [p.grad.clone() if p.grad is not None else torch.zeros(()) for p in distiller.parameters()]
    return loss, gradients


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_batch_is_what_its_texts_are_alone(kind: str, tmp_path: Path) -> None:
    """Loss and gradients of five texts at once, by the spec's data and by batches of one's own padded on either side,
    are those of five batches of one text, in which no padding is.
    """
    builder = SpecBuilder(check(read_spec(project(tmp_path, kind, "left"))))
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    distiller = builder.distiller()
    rows = list(material.feeds["d"].dataset)
    batches = {"data": material.collator(rows)}
    for side in SIDES:
        made = builder.tokenizer("tiny")(TEXTS, padding=True, padding_side=side, return_tensors="pt")
        batches[side] = {**made, "labels": torch.tensor(LABELS)}
    assert batches["left"]["attention_mask"][0, 0] == 0
    alone = [material.collator([row]) for row in rows]
    assert all(part["attention_mask"].all() for part in alone)
    expected, gradients = apart(distiller, alone, batches["data"])
    assert expected > 0.1
    for side, batch in batches.items():
        loss, found = apart(distiller, [batch], batch)
        assert loss == pytest.approx(expected, abs=1e-5, rel=1e-6), side
        for one, other in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda said, side=side: f"{side}: {said}")


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_logits_of_a_batch_are_those_of_its_texts(kind: str, auto_class: Any) -> None:
    """In evaluation and prediction, per text and per token."""
    label_type = CLASS if auto_class is AutoModelForSequenceClassification else TAGS
    net = model(kind, 3, auto_class)
    with torch.no_grad():
        alone = [net(input_ids=torch.tensor([word_level("right")(text)["input_ids"]])).logits[0] for text in TEXTS]
        for side in SIDES:
            inputs = dict(word_level(side)(TEXTS, padding=True, return_tensors="pt"))
            found = logits_of(net, inputs, label_type)
            for row, mask, expected in zip(found, inputs["attention_mask"].bool(), alone, strict=True):
                row = row[mask] if label_type == TAGS else row
                torch.testing.assert_close(row, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "xlnet"])
def test_predictions_and_scores_do_not_know_their_neighbours(kind: str, tmp_path: Path) -> None:
    """What a run's student says of a text is what plain transformers says of that text alone."""
    result = bg.run(project(tmp_path, kind, "left"), out=tmp_path / "out")
    task = open_run(result.folder).task(None)
    student = load_student(task)
    said = list(predict(student, read_like(task, tmp_path / "train.jsonl", labelled=False)))
    plain = AutoModelForSequenceClassification.from_pretrained(result.folder / "student").eval()
    right = 0
    for text, label, row in zip(TEXTS, LABELS, said, strict=True):
        with torch.no_grad():
            expected = plain(input_ids=torch.tensor([word_level("left")(text)["input_ids"]])).logits[0]
        assert list(row["probabilities"].values()) == pytest.approx(expected.softmax(-1).tolist(), abs=1e-6)
        right += int(expected.argmax()) == label
    assert score(student, labelled_rows(task, "dev")).values["accuracy"] == pytest.approx(right / 5)


@pytest.mark.parametrize("texts", [("", "w1 w2", " "), ("", "")])
def test_an_empty_text_is_one_token(texts: tuple[str, ...], tmp_path: Path) -> None:
    """Where a tokenizer adds no special tokens, too: trained, scored and predicted as the token that ends a text, alone
    and among others.
    """
    spec = project(tmp_path, "gpt2", "right")
    bare().save_pretrained(tmp_path / "words")
    rows = [{"text": text, "label": label % 3} for label, text in enumerate((*texts, "w3 w4 w5", "", "w2"))]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    builder = SpecBuilder(check(read_spec(spec)))
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    distiller, given = builder.distiller(), list(material.feeds["d"].dataset)
    whole = material.collator(given)
    expected, gradients = apart(distiller, [material.collator([row]) for row in given], whole)
    loss, found = apart(distiller, [whole], whole)
    assert loss == pytest.approx(expected, rel=1e-6)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)

    task = open_run(bg.run(spec, out=tmp_path / "out").folder).task(None)
    student = load_student(task)
    assert 0 <= score(student, labelled_rows(task, "dev")).values["accuracy"] <= 1
    with torch.no_grad():
        end = student.model(input_ids=torch.tensor([[1]])).logits[0].softmax(-1).tolist()
    for text, row in zip(texts, predict(student, read_like(task, tmp_path / "few.jsonl", labelled=False)), strict=True):
        if not text.strip():
            assert list(row["probabilities"].values()) == pytest.approx(end, abs=1e-6)


class Last(nn.Module):
    """A model of one's own, which reads the last place of a row."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids[:, -1]


def test_sides() -> None:
    """XLNet's classifier reads the last place; modules of other code are asked to do as their tokenizer says."""
    assert [padding_side(model(kind, 0)) for kind in ("bert", "gpt2", "xlnet")] == ["right", "right", "left"]
    assert padding_side(model("xlnet", 0, AutoModelForTokenClassification)) == "right"
    assert padding_side(Last()) is None


def test_moved() -> None:
    """Around the end, along any axis, and back again."""
    x = torch.arange(24).view(2, 3, 4)
    shift = torch.tensor([1, 0])
    assert moved(x, shift, [1])[0].tolist() == x[0, [1, 2, 0]].tolist()
    assert moved(x, shift, [2])[0].tolist() == x[0][:, [1, 2, 3, 0]].tolist()
    assert torch.equal(moved(moved(x, shift, [1, 2]), -shift, [1, 2]), x)
