"""Models that agree in what their logits mean before they are compared: classes by name, vocabularies by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

import brewgraph as bg
from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.models.capture.capture import Capture
from brewgraph.recipe.features import Feature
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from tests.small import LABELS, WORDS, classifier, save, tokenizer, write_data, write_rows

TURNED = tuple(reversed(LABELS))
DATA = 'data d = files(train="train.jsonl", text=text, label=label, batch=4, max_length=32)\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data, a student, and three teachers: one of the data's order, one turned round, one of other names."""
    write_data(tmp_path)
    save(tmp_path / "tiny")
    for name, labels, seed in (("one", LABELS, 1), ("turned", TURNED, 2), ("strange", ("x", "y", "z"), 3)):
        model = classifier(seed=seed)
        model.config.id2label, model.config.label2id = dict(enumerate(labels)), {x: i for i, x in enumerate(labels)}
        model.save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    return tmp_path


def checked(folder: Path, text: str) -> Checked:
    (folder / "spec.brew").write_text("brew 1\n" + text)
    return check(read_spec(folder / "spec.brew"))


def fault(folder: Path, text: str) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        checked(folder, text)
    (found,) = (d for d in caught.value.diagnostics if d.severity == "error")
    return found


def spec(loss: str, *teachers: str) -> str:
    lines = "".join(f'teacher {name} = hf("{name}")\n' for name in teachers)
    return f'{lines}student tiny = hf("tiny")\n{DATA}loss = {loss}\n'


def test_a_teacher_of_another_order_is_turned_by_name(folder: Path) -> None:
    """Its logits come in the order of the data, wherever they are read; its own modules give what they gave."""
    found = checked(folder, spec("kd(turned.logits -> tiny.logits)", "turned"))
    (warning,) = found.warnings
    assert (warning.code, warning.span.position) == ("W304", (2, 18))
    assert warning.help == "no action needed: good, fair, bad becomes bad, fair, good"
    builder = SpecBuilder(found)
    teacher = builder.model("turned")
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "turned").eval()
    inputs = tokenizer()(["a tale of two cities", "epoch"], padding=True, return_tensors="pt")
    capture = Capture(teacher.eval(), [Feature("logits"), Feature("tap", path="classifier")])
    with capture.armed(), torch.no_grad():
        values = capture.collect(teacher(**inputs))
        expected = plain(**inputs).logits
    assert torch.equal(values[Feature("logits")], expected[:, [2, 1, 0]])
    assert torch.equal(values[Feature("tap", path="classifier")], expected)
    assert tuple(teacher.config.id2label.values()) == LABELS


def test_averaged_teachers_agree_class_by_class(folder: Path) -> None:
    """The loss is that of the mean over classes of one name."""
    text = spec("kd(mean([one.logits, turned.logits]) -> tiny.logits, T=1)", "one", "turned")
    found = checked(folder, text)
    distiller = SpecBuilder(found).distiller()
    builder = SpecBuilder(found)
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    batch = material.collator(list(material.feeds["d"].dataset.select(range(4))))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    logits = {}
    with torch.no_grad():
        for name in ("one", "turned", "tiny"):
            logits[name] = AutoModelForSequenceClassification.from_pretrained(folder / name).eval()(**inputs).logits
        loss = distiller.eval()(batch).loss
    mean = (logits["one"] + logits["turned"][:, [2, 1, 0]]) / 2
    expected = kl_div(log_softmax(logits["tiny"], -1), softmax(mean, -1), reduction="batchmean")
    torch.testing.assert_close(loss, expected)


def test_a_module_of_ones_own_is_turned_once(folder: Path) -> None:
    """A teacher that is handed in has the order of its folder, and gets that of the data, however often it is used."""
    (folder / "spec.brew").write_text("brew 1\n" + spec("kd(turned.logits -> tiny.logits)", "turned"))
    own = AutoModelForSequenceClassification.from_pretrained(folder / "turned").eval()
    inputs = tokenizer()(["best of times"], return_tensors="pt")
    before = own(**inputs).logits
    for _ in range(2):
        bg.load(folder / "spec.brew").build(turned=own)
        assert torch.equal(own(**inputs).logits, before[:, [2, 1, 0]])


def test_teachers_of_other_names_are_not_averaged(folder: Path) -> None:
    """One fault for one pair, where they are joined; matched one by one, as their numbers go, they may be."""
    found = fault(folder, spec("kd((one.logits + strange.logits) / 2 -> tiny.logits)", "one", "strange"))
    assert (found.code, found.span.text) == ("B222", "one.logits + strange.logits")
    assert "`one`: bad, fair, good; `strange`: x, y, z" in found.help
    assert checked(folder, spec("kd(one.logits -> tiny.logits) + kd(strange.logits -> tiny.logits)", "one", "strange"))


# ── vocabularies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def language_model(folder: Path, vocab_size: int, words: int = 120, seed: int = 0) -> Path:
    """A tiny GPT-2 with more places in its vocabulary than its tokenizer has tokens."""
    torch.manual_seed(seed)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 40, "pad_token_id": 0}
    sizes |= {"bos_token_id": 2, "eos_token_id": 3}
    config = GPT2Config(vocab_size=vocab_size, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)
    return folder


def language_spec(folder: Path) -> str:
    (folder / "train.txt").write_text(" ".join(WORDS * 20) + "\n")
    return (
        'teacher big = hf("big")\nstudent small = hf("small")\n'
        'data d = text(train="train.txt", batch=2, max_length=16)\nloss = kd(big.logits -> small.logits, T=1)\n'
    )


def test_padded_vocabularies_are_compared_as_far_as_both_go(tmp_path: Path) -> None:
    """128 places against 120 under one tokenizer: W305, and the loss is that over the first 120."""
    language_model(tmp_path / "big", 128, seed=1)
    language_model(tmp_path / "small", 120)
    found = checked(tmp_path, language_spec(tmp_path))
    (warning,) = found.warnings
    assert (warning.code, warning.span.text) == ("W305", "big.logits")
    assert warning.message == "the vocabularies of `small` and `big` have 120 and 128 entries"
    builder = SpecBuilder(found)
    distiller = builder.distiller().eval()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    batch = material.collator(list(material.feeds["d"].dataset.select(range(2))))
    with torch.no_grad():
        loss = distiller(batch).loss
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        big = GPT2LMHeadModel.from_pretrained(tmp_path / "big").eval()(**inputs).logits[..., :120]
        small = GPT2LMHeadModel.from_pretrained(tmp_path / "small").eval()(**inputs).logits
    mask = batch["attention_mask"].bool()
    expected = kl_div(log_softmax(small[mask], -1), softmax(big[mask], -1), reduction="batchmean")
    torch.testing.assert_close(loss, expected)


def test_vocabularies_of_other_tokenizers_are_a_fault(tmp_path: Path) -> None:
    """Said once, with both sizes; of equal sizes as well."""
    language_model(tmp_path / "big", 120)
    language_model(tmp_path / "small", 120, words=60)
    found = fault(tmp_path, language_spec(tmp_path))
    assert (found.code, found.span.text, found.labels[0].span.text) == ("B223", "small.logits", "big.logits")
    assert "have different tokenizers: one token id stands for two tokens" in found.message


def test_many_and_long_classes_are_shortened(folder: Path) -> None:
    """In all that is said of classes: the first of many, the beginning of long ones; a remedy to copy is whole."""
    names = tuple(f"{n:02}-{'long' * 30}" for n in range(9))
    model = classifier(num_labels=9)
    for name, labels in (("one", names), ("turned", names[::-1])):
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: n for n, label in enumerate(labels)}
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    rows = [{"text": f"a tale {n}", "label": names[n % 9]} for n in range(18)]
    write_rows(folder / "train.jsonl", rows)
    shown = [f"{name[:59]}…" for name in names]
    first, last = ", ".join([*shown[:6], "…"]), ", ".join([*shown[:2:-1], "…"])
    (warning,) = checked(folder, spec("kd(turned.logits -> tiny.logits)", "turned")).warnings
    assert (warning.code, warning.help) == ("W304", f"no action needed: {last} becomes {first}")
    text = f'teacher one = hf("one")\nstudent tiny = hf("turned")\n{DATA}loss = kd(one.logits -> tiny.logits)\n'
    said, _, remedy = fault(folder, text).help.rpartition(": ")
    assert said == f"`one`: {first}; `tiny`: {last}: give the data the model's order"
    assert remedy == f"classes=[{', '.join(f'{chr(34)}{name}{chr(34)}' for name in names[::-1])}]"
    found = fault(folder, f"{spec('kd(one.logits -> tiny.logits)', 'one')}x = {'y' * 1000}\n")
    assert found.message == f"there is no `{'y' * 59}…`"
    found = fault(folder, f"{spec('kd(one.logits -> tiny.logits)', 'one')}x = d.column\n")
    assert found.help == "the columns are `text` and `label`"
    write_rows(folder / "train.jsonl", [row | {f"c{n}": n for n in range(20)} for row in rows])
    found = fault(folder, f"{spec('kd(one.logits -> tiny.logits)', 'one')}x = d.absent\n")
    assert found.help.endswith("`c8`, `c9` and 10 more")


def test_the_remedy_for_two_orders_is_the_students(folder: Path) -> None:
    """The data takes over the order of the student; its teacher then follows, and nothing is at fault."""
    text = f'teacher one = hf("one")\nstudent tiny = hf("turned")\n{DATA}loss = kd(one.logits -> tiny.logits)\n'
    found = fault(folder, text)
    assert found.code == "B324"
    listed = found.help.rpartition(": ")[2]
    assert listed == 'classes=["good", "fair", "bad"]'
    sound = checked(folder, text.replace("max_length=32", f"max_length=32, {listed}"))
    assert [warning.code for warning in sound.warnings] == ["W304"]
