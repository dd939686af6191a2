"""The same spec on five architectures: what is captured is what the model itself gives, and training goes through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.recipe.features import Feature
from brewgraph.running.data_cache import DataCache
from tests.small import metrics, save, tokenizer, write_data

SPEC = """brew 1
teacher bert = hf("teacher")
student tiny = hf("student")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
soft = ce(bert.logits -> tiny.logits, T=4)
hidden = mse(bert.hidden[0, 1, 2] -> tiny.hidden[0, 1, 2] via linear)
maps = mse(bert.attention[0, 1] -> tiny.attention[0, 1])
loss = soft + sum(hidden) + sum(maps)
train { steps = 2; logging_steps = 1; optimizer = adamw(lr=1e-3) }
"""
KINDS = ("bert", "roberta", "distilbert", "electra", "gpt2")


@pytest.mark.parametrize("kind", KINDS)
def test_one_spec_for_every_architecture(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states and attentions equal the model's own bit for bit; two steps train; plain transformers loads it."""
    write_data(tmp_path)
    save(tmp_path / "teacher", kind, width=32, seed=1)
    save(tmp_path / "student", kind, width=16, seed=2)
    spec = tmp_path / "spec.brew"
    spec.write_text(SPEC)
    distiller = bg.load(spec).build(skip=["pack_tokens"])

    encoded = tokenizer()(
        ["it was the best", "age of wisdom and of foolishness it was"], padding=True, return_tensors="pt"
    )
    batch = {**encoded, "labels": torch.tensor([0, 2])}
    names = {"input_ids", "attention_mask"}
    for folder, role in (("teacher", "bert"), ("student", "tiny")):
        own = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder, attn_implementation="eager").eval()
        given = {name: batch[name] for name in names}
        with torch.no_grad():
            expected = own(**given, output_hidden_states=True, output_attentions=True)
        caught = {}
        for capture in distiller.program.captures.values():
            collect = capture.collect

            def keep(output, *features, collect=collect, caught=caught):
                found = collect(output, *features)
                caught[id(collect.__self__)] = found
                return found

            monkeypatch.setattr(capture, "collect", keep)
        distiller.eval()
        output = distiller({name: batch[name] for name in (*names, "labels")})
        width = 32 if role == "bert" else 16
        features = next(f for f in caught.values() if f[Feature("hidden", 0)].shape[-1] == width)
        for i, hidden in enumerate(expected.hidden_states):
            assert torch.equal(features[Feature("hidden", i)], hidden), f"{role}.hidden[{i}]"
        for i, attention in enumerate(expected.attentions):
            assert torch.equal(features[Feature("attention", i)], attention), f"{role}.attention[{i}]"
        monkeypatch.undo()
    assert torch.isfinite(output.loss)
    output.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in distiller.projections.parameters())

    result = bg.run(spec, out=tmp_path / "out")
    assert [line["step"] for line in metrics(result.folder) if "loss" in line] == [1, 2]
    saved = AutoModelForSequenceClassification.from_pretrained(result.folder / "student").eval()
    start = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    with torch.no_grad():
        logits, before = saved(**{n: batch[n] for n in names}).logits, start(**{n: batch[n] for n in names}).logits
    assert logits.shape == (2, 3)
    assert not torch.equal(logits, before)
    assert [row.name for row in result.table] == ["bert", "tiny"]


def test_the_saved_student_gives_the_same_logits(tmp_path: Path) -> None:
    """A student in memory and the folder it was saved to are one model."""
    from brewgraph.checking.check import check, read_spec
    from brewgraph.running.spec_builder import SpecBuilder
    from brewgraph.training.checkpoint import load_student, save_student

    write_data(tmp_path)
    save(tmp_path / "teacher", "gpt2", width=32, seed=1)
    save(tmp_path / "student", "gpt2", width=16, seed=2)
    (tmp_path / "spec.brew").write_text(SPEC)
    builder = SpecBuilder(check(read_spec(tmp_path / "spec.brew")))
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    batch = material.collator(list(material.feeds["d"].dataset.select(range(3))))
    distiller(batch).loss.backward()
    torch.optim.SGD(distiller.parameters(), lr=0.1).step()
    distiller.release()
    save_student(distiller.student, tmp_path / "saved", builder.tokenizer("tiny"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    again = load_student(distiller.student, tmp_path / "saved")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = distiller.student.eval()(**inputs).logits
        assert torch.equal(loaded(**inputs).logits, expected)
        assert torch.equal(again.eval()(**inputs).logits, expected)
