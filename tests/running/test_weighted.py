"""Weights of sentences and questions, and a frozen head, from the spec to the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from brewgraph.checking.check import check, read_spec
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.work import frozen
from tests.training.toy import frozen_part

CONTEXT = "The tower was built by Ada Stone in 1889."
SPEC = """brew 1
student net = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16,
    vocab_size=60, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0) {
    head tag = token_classifier()
    head qa  = span_classifier()
}
task ner {
    data n = conll(train="n.conll", weight=trust, batch=4, max_length=16)
    loss = batch_mean(n.weights * token_mean(ce(n.labels -> net.tag.logits, reduce="none")))
}
task qa {
    data q = squad(train="q.json", batch=4, max_length=32, stride=4)
    loss = batch_mean(q.trust * ce(q.start -> net.qa.start, reduce="none"))
}
train { steps = 1; freeze = [net.tag] }
"""


@pytest.fixture
def builder(tmp_path: Path) -> SpecBuilder:
    """Four sentences of two lengths and four questions, each with a trust of its own."""
    lines = [f"# trust = {n / 2}\nAda\tB-PER\nsaw\tO\n" + "York\tB-LOC\n" * (n % 2) for n in range(4)]
    (tmp_path / "n.conll").write_text("\n".join(lines))
    answer = {"text": "Ada Stone", "answer_start": CONTEXT.index("Ada")}
    asked = [{"question": f"Who built it {n}?", "answers": [answer], "trust": n / 4} for n in range(4)]
    (tmp_path / "q.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": asked}]}]}))
    (tmp_path / "spec.brew").write_text(SPEC)
    return SpecBuilder(check(read_spec(tmp_path / "spec.brew")))


def test_sentences_and_questions_count_as_much_as_they_are_trusted(builder: SpecBuilder) -> None:
    """The mean over each sentence's words, and each window's start, times its trust."""
    (stage,) = DataCache(builder).stages(builder.checked)
    distiller = stage.make().eval()
    for task in ("ner", "qa"):
        (feed,) = stage.materials[task].feeds.values()
        batch = next(iter(feed.batches(0)))
        found = distiller(batch, task=task).loss
        inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
        heads = distiller.student(**inputs).heads
        if task == "ner":
            each = cross_entropy(heads["tag"].logits.transpose(1, 2), batch["labels"], reduction="none")
            real = batch["labels"] >= 0
            expected = batch["weights"] * (each * real).sum(1) / real.sum(1)
            assert sorted(batch["weights"].tolist()) == [0.0, 0.5, 1.0, 1.5]
            assert real.sum(1).unique().numel() == 2
            count = 4
        else:
            expected = batch["trust"] * cross_entropy(heads["qa"].start_logits, batch["start"], reduction="none")
            count = int((batch["start"] >= 0).sum())  # a window without the answer teaches nothing
        torch.testing.assert_close(found, expected.sum() / count)


def test_a_frozen_head_stands_still_and_its_trunk_does_not(builder: SpecBuilder) -> None:
    """What belongs to the head alone, nothing else."""
    (stage,) = DataCache(builder).stages(builder.checked)
    assert stage.freeze == (frozen_part("module", "net", "tag"),)
    distiller = stage.make()
    with frozen(distiller, stage.freeze, "net"):
        still = [name for name, p in distiller.student.named_parameters() if not p.requires_grad]
    assert still == ["tag.classifier.weight", "tag.classifier.bias"]
