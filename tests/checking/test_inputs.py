"""What models are called with, checked before a weight is loaded: ready tensors, padding tokens, positions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.inspect.plan_of import costs
from brewgraph.models.fake.shapes import Shapes, accepted, positions
from brewgraph.models.task_heads import missing_head, saved_names
from brewgraph.paths import FACTS
from brewgraph.running.data_cache import token_limit
from tests.models.tiny import SETTINGS, tiny_config
from tests.small import LABELS, classifier, save, tokenizer, write_data

T5 = 'hf(model_type="t5", d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=60)'
BERT = 'hf(model_type="bert", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=60)'
READY = f"""\
teacher t5 = {T5}
student tiny = {BERT}
data d = batches("ready")
tap t = t5 @ "encoder.block.0"[0]
loss = mse(t -> tiny.hidden[0])
"""


def errors(folder: Path, text: str) -> list[Diagnostic]:
    (folder / "spec.brew").write_text("brew 1\n" + text)
    try:
        check(read_spec(folder / "spec.brew"))
    except SpecError as error:
        return [d for d in error.diagnostics if d.severity == "error"]
    return []


def write_ready(folder: Path, **more: torch.Tensor) -> None:
    """A folder `ready` with one batch."""
    ids = torch.ones(2, 4, dtype=torch.long)
    fields = {"input_ids": ids, "attention_mask": ids, "labels": torch.tensor([0, 1])} | more
    (folder / "ready").mkdir(exist_ok=True)
    save_file({f"0.{name}": x.clone() for name, x in fields.items()}, folder / "ready" / "batches.safetensors")


def test_ready_tensors_may_hold_what_no_tokenizer_gives(tmp_path: Path) -> None:
    """The argument is missing, and then it is there."""
    write_ready(tmp_path)
    (found,) = errors(tmp_path, READY)
    assert (found.code, found.span.position) == ("B337", (2, 14))
    assert (
        found.message == "the forward of `t5` needs `decoder_input_ids`, which neither its tokenizer nor `d` supplies"
    )
    write_ready(tmp_path, decoder_input_ids=torch.ones(2, 3, dtype=torch.long))
    assert errors(tmp_path, READY) == []


def test_ready_tensors_without_ids(tmp_path: Path) -> None:
    """What every model needs is missed as well."""
    (tmp_path / "ready").mkdir()
    fields = {"0.attention_mask": torch.ones(2, 4, dtype=torch.long), "0.labels": torch.tensor([0, 1])}
    save_file(fields, tmp_path / "ready" / "batches.safetensors")
    (found,) = errors(
        tmp_path, f'student tiny = {BERT}\ndata d = batches("ready")\nloss = ce(d.labels -> tiny.logits)\n'
    )
    assert found.code == "B337"
    assert "needs `input_ids`" in found.message


def test_a_tokenizer_without_a_token_to_pad_with(tmp_path: Path) -> None:
    """One that ends texts with a token pads with that."""
    write_data(tmp_path)
    bare = tokenizer()
    bare.pad_token = None
    bare.save_pretrained(tmp_path / "bare")
    spec = (
        f'student tiny = {BERT.replace(", vocab_size=60", "")[:-1]}, tokenizer="bare")\n'
        'data d = files(train="train.jsonl", batch=4, max_length=16)\nloss = ce(d.labels -> tiny.logits)\n'
    )
    (found,) = errors(tmp_path, spec)
    assert (found.code, found.span.text) == ("B339", '"bare"')
    assert found.message == "the tokenizer of `tiny` has no padding token, which the batches of `d` need"
    bare.eos_token = "[SEP]"
    bare.save_pretrained(tmp_path / "bare")
    assert errors(tmp_path, spec) == []


@pytest.mark.parametrize(
    ("kind", "count"),
    [("bert", 40), ("roberta", 39), ("distilbert", 40), ("gpt2", 40), ("llama", None), ("t5", None), ("xlnet", None)],
)
def test_positions(kind: str, count: int | None) -> None:
    """Rows of the table, those of RoBERTa from behind its padding; none where positions are turned or relative."""
    assert positions(Shapes.of(tiny_config(kind), AutoModel).model) == count


def test_arguments_of_a_forward() -> None:
    """The main input counts as needed, though transformers gives it a default."""
    names, rest, required = accepted(Shapes.of(tiny_config("bert"), AutoModel).model)
    assert {"input_ids", "attention_mask", "token_type_ids"} <= names
    assert (rest, required) == (False, {"input_ids"})


def test_a_head_that_an_architecture_lacks(tmp_path: Path) -> None:
    """It has its place also where no feature of the model is asked for its shape, and is said once."""
    (tmp_path / "a.txt").write_text("some words of a text\n" * 20)
    spec = (
        'student tiny = hf(model_type="gpt2", n_embd=8, n_layer=1, n_head=2)\n'
        'data d = text(train="a.txt", mask=15%, batch=4, max_length=16)\nloss = ce(d.labels -> tiny.logits)\n'
    )
    (found,) = errors(tmp_path, spec)
    assert (found.code, found.span.position) == ("B306", (2, 16))
    assert found.message == "transformers has no AutoModelForMaskedLM of the architecture gpt2"
    assert "another architecture" in found.help


def test_a_head_reads_a_token_that_ends_texts(tmp_path: Path) -> None:
    """The tokenizer has to write it; with that the whole spec is sound, and its costs are known."""
    write_data(tmp_path)
    sides = ", ".join(f"{side}_layers=1, {side}_attention_heads=2, {side}_ffn_dim=8" for side in ("encoder", "decoder"))
    spec = (
        f'student tiny = hf(model_type="bart", d_model=8, max_position_embeddings=32, {sides}, eos_token_id=1)\n'
        'data d = files(train="train.jsonl", batch=4, max_length=16)\nloss = ce(d.labels -> tiny.logits)\n'
    )
    for token in (1, 2):  # the second begins every text
        (found,) = errors(tmp_path, spec.replace("eos_token_id=1", f"eos_token_id={token}"))
        assert (found.code, found.help) == ("B340", "name the token that it appends: eos_token_id=3")
        assert (
            found.message
            == f"`tiny` classifies at token id {token} (`eos_token_id`), but its tokenizer never appends that token"
        )
    sound = spec.replace("eos_token_id=1", "eos_token_id=3")
    assert errors(tmp_path, sound) == []
    (cost,) = costs(check(read_spec(tmp_path / "spec.brew"))).values()
    assert not isinstance(cost, str)
    assert cost.backward > cost.forward > 0


def test_labels_of_several_classes_are_said_to_be_such(tmp_path: Path) -> None:
    """Whoever forgets `problem_type` is told of it, by the loss and by the data."""
    write_data(tmp_path)
    (tmp_path / "several.jsonl").write_text('{"text": "one", "label": ["a", "b"]}\n' * 4)
    for loss, name in (("bce", "train"), ("ce", "several")):
        spec = f'student tiny = {BERT}\ndata d = files(train="{name}.jsonl")\nloss = {loss}(d.labels -> tiny.logits)\n'
        (found,) = errors(tmp_path, spec)
        assert found.help.endswith('problem_type="multi_label"')


def test_what_init_takes(tmp_path: Path) -> None:
    """Hidden states are no layers."""
    write_data(tmp_path)
    spec = f'teacher t = {BERT}\nstudent tiny = {BERT[:-1]}, init=t.hidden[0])\ndata d = files(train="train.jsonl")\n'
    found = errors(tmp_path, f"{spec}loss = kd(t.logits -> tiny.logits)\n")
    assert [(d.code, d.help) for d in found] == [("B202", "pick layers: `bert.layers[0, 4, 8]`")]


def in_the_cache(cache: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay a model out as a download from the hub under this name."""
    place = cache / f"models--{name.replace('/', '--')}"
    commit = "a" * 40
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("memory", ["off", "on"])
def test_a_teacher_from_a_bare_encoder(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check finds that its head would be random, what loading finds too, and each way out of it is sound."""
    monkeypatch.setenv(FACTS, "off" if memory == "off" else str(tmp_path / "facts"))
    write_data(tmp_path)
    whole = classifier()
    save(tmp_path / "head")
    whole.base_model.save_pretrained(tmp_path / "bare")
    whole.base_model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    shutil.copytree(tmp_path / "bare", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(whole.base_model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    for name in ("bare", "shards", "pickled"):
        tokenizer().save_pretrained(tmp_path / name)
    in_the_cache(tmp_path / "cache", tmp_path / "bare", "org/bare", monkeypatch)
    in_the_cache(tmp_path / "cache", tmp_path / "head", "org/head", monkeypatch)
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    names = "[" + ", ".join(f'"{label}"' for label in LABELS) + "]"
    rest = (
        f"student tiny = {BERT.replace('60', '120')}\n"
        'data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=16)\n'
    )
    logits = f"{rest}loss = kd(big.logits -> tiny.logits)\ntrain {{ steps = 1 }}\n"
    for name in ("bare", "shards", "pickled", "org/bare"):
        for _ in range(2):
            (found,) = errors(tmp_path, f'teacher big = hf("{name}", labels={names})\n{logits}')
            assert (found.code, found.span.text) == ("B325", f'"{name}"')
            assert found.message.endswith(
                "has no trained head for this task: classifier.weight would be random in the teacher"
            )
    assert "B325" in {d.code for d in errors(tmp_path, f'teacher big = hf("bare")\n{logits}')}
    # no results taken, a folder with a head, a spec that trains one
    hidden = f"{rest}loss = mse(big.hidden[1] -> tiny.hidden[1] via linear) + ce(d.labels -> tiny.logits)\n"
    assert errors(tmp_path, f'teacher big = hf("bare")\n{hidden}') == []
    assert errors(tmp_path, f'teacher big = hf("head")\n{logits}') == []
    assert errors(tmp_path, f'teacher big = hf("org/head")\n{logits}') == []
    (tmp_path / "head" / "model.safetensors").unlink()
    torch.save(whole.state_dict(), tmp_path / "head" / "pytorch_model.bin")
    assert errors(tmp_path, f'teacher big = hf("head")\n{logits}') == []
    (tmp_path / "teacher.brew").write_text(
        'student big = hf("bare")\ndata d = files(train="train.jsonl", batch=4, max_length=16)\n'
        "loss = ce(d.labels -> big.logits)\ntrain { steps = 1 }\n"
    )
    assert errors(tmp_path, f'teacher big = brew("teacher.brew")\n{logits}') == []
    # weights that come later are seen, whatever was remembered
    whole.save_pretrained(tmp_path / "bare")
    assert errors(tmp_path, f'teacher big = hf("bare", labels={names})\n{logits}') == []


@pytest.mark.parametrize(
    ("auto_class", "kind"),
    [
        (a, k)
        for a in (AutoModelForSequenceClassification, AutoModelForMaskedLM, AutoModelForCausalLM)
        for k in SETTINGS
    ],
)
def test_heads_that_a_folder_holds(auto_class: Any, kind: str, tmp_path: Path) -> None:
    """What loading finds missing is what the names in the file say; a whole model lacks nothing."""
    try:
        model = auto_class.from_config(tiny_config(kind))
    except ValueError:
        return  # the architecture has no such head
    model.save_pretrained(tmp_path / "whole")
    assert missing_head(model, saved_names(str(tmp_path / "whole"))) is None
    if not hasattr(model, model.base_model_prefix):
        return
    model.base_model.save_pretrained(tmp_path / "bare")
    missing = missing_head(model, saved_names(str(tmp_path / "bare")))
    for part in (model, model.base_model):  # what torch saved says the same
        (tmp_path / "pickled").mkdir(exist_ok=True)
        torch.save(part.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
        found = missing_head(model, saved_names(str(tmp_path / "pickled")))
        assert found == (None if part is model else missing)
    _, report = auto_class.from_pretrained(tmp_path / "bare", output_loading_info=True)
    lost = {name for name in report["missing_keys"] if not name.startswith(f"{model.base_model_prefix}.")}
    assert (missing in lost) if lost else missing is None


def test_a_cache_of_a_model_at_fault_is_no_other_fault(tmp_path: Path) -> None:
    """Of Python code nothing is known, and B243 says what follows; of a folder that is not there B310 says all."""
    write_data(tmp_path)
    body = 'cache kept = big.logits at "kept"\nloss = kd(kept -> tiny.logits)\n'
    rest = f'student tiny = {BERT}\ndata d = files(train="train.jsonl", batch=4)\n{body}'
    (found,) = errors(tmp_path, f'teacher big = hf("./nowhere")\n{rest}')
    assert found.code == "B310"
    (tmp_path / "own.py").write_text("def make():\n    raise AssertionError\n")
    (found,) = errors(tmp_path, f'teacher big = python("own:make")\n{rest}')
    assert found.code == "B243"


def test_the_length_of_a_spec_counts_before_a_tokenizers(tmp_path: Path) -> None:
    """As far as there are positions; without one the tokenizer's own limit counts."""
    words, model = tokenizer(), classifier()
    words.model_max_length = 8
    assert [token_limit(words, model, asked) for asked in (30, 99, None)] == [30, 40, 8]
    words.model_max_length = int(1e30)
    assert token_limit(words, AutoModel.from_config(tiny_config("llama")), None) == 512
