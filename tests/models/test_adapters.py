"""Adapters: what they leave as it was, what they train, and how they are saved."""

from __future__ import annotations

import sys

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from brewgraph.diagnostics import RunError, SourceFault
from brewgraph.models.adapters import add_adapter, has_adapter, merged, save_adapter
from brewgraph.models.capture.capture import Capture
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import Shapes, count_parameters
from brewgraph.models.heads import HeadedModel
from brewgraph.models.loading import build_model
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.tokenization import Tokens
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import Lora
from tests.models.test_heads import CASES, headed
from tests.models.tiny import batch, tiny, tiny_config

# peft itself asks transformers in a way that is going to be renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS = ("bert", "roberta", "distilbert", "electra", "gpt2", "llama", "qwen2", "modernbert", "albert", "deberta-v2")
INPUTS = batch(7, 4)
LORA = Lora(r=2, alpha=8)


def adapted(kind: str, lora: Lora = LORA) -> nn.Module:
    model = tiny(kind, AutoModelForSequenceClassification)
    add_adapter(model, lora)
    return model


def trained(model: nn.Module) -> nn.Module:
    """The model with every trainable weight moved, so that adapters do something."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_at_first(kind):
    """Same class, same outputs, same mode; every module path of the plain model is still there."""
    plain, model = tiny(kind, AutoModelForSequenceClassification), adapted(kind)
    assert type(model) is type(plain)
    assert not any(m.training for m in model.modules())
    torch.testing.assert_close(model(**INPUTS).logits, plain(**INPUTS).logits, rtol=0, atol=0)
    before, after = dissect(plain), dissect(model)
    assert (before.hidden, before.attention, before.layer_paths) == (after.hidden, after.attention, after.layer_paths)
    assert before.modules.items() <= after.modules.items()
    assert has_adapter(model)
    assert not has_adapter(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained(kind):
    """The two matrices of each adapted map and the head; counted beside all the rest."""
    model = adapted(kind)
    base = {id(p) for p in model.base_model.parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or id(parameter) not in base), name
    lora = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    head = sum(p.numel() for p in model.parameters() if id(p) not in base)
    assert lora > 0
    assert count_parameters(model, trainable=True) == lora + head
    assert count_parameters(model) == count_parameters(tiny(kind, AutoModelForSequenceClassification)) + lora


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_a_plain_model_of_the_same_function(kind, tmp_path):
    """After training: equal outputs to rounding, saved and loaded by plain transformers; the adapted one stays."""
    model = trained(adapted(kind))
    expected = model(**INPUTS).logits
    plain = merged(model)
    assert plain.state_dict().keys() == tiny(kind, AutoModelForSequenceClassification).state_dict().keys()
    torch.testing.assert_close(plain(**INPUTS).logits, expected, rtol=1e-5, atol=1e-5)
    assert (tiny(kind, AutoModelForSequenceClassification)(**INPUTS).logits - expected).abs().max() > 1e-3
    plain.save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(loaded(**INPUTS).logits, expected, rtol=1e-5, atol=1e-5)
    assert has_adapter(model)
    torch.testing.assert_close(model(**INPUTS).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapter_in_pefts_own_format(kind, tmp_path):
    """peft puts it, with the trained head, onto the plain base model and gets the same outputs."""
    model = trained(adapted(kind))
    save_adapter(model, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    found = PeftModel.from_pretrained(tiny(kind, AutoModelForSequenceClassification), tmp_path).eval()
    torch.testing.assert_close(found(**INPUTS).logits, model(**INPUTS).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("auto_class", [AutoModelForMaskedLM, AutoModelForTokenClassification])
def test_other_heads_of_an_adapted_model(auto_class, tmp_path):
    """A tied output layer stays frozen with the embeddings; both ways of saving give the same outputs."""
    model = tiny("bert", auto_class)
    add_adapter(model, LORA)
    assert not model.bert.embeddings.word_embeddings.weight.requires_grad
    trained(model)
    save_adapter(model, tmp_path)
    found = PeftModel.from_pretrained(tiny("bert", auto_class), tmp_path).eval()
    torch.testing.assert_close(found(**INPUTS).logits, model(**INPUTS).logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merged(model)(**INPUTS).logits, model(**INPUTS).logits, rtol=1e-5, atol=1e-5)


def test_causal_model_with_a_tied_head(tmp_path):
    """GPT-2 has nothing outside its trunk: only the adapter is trained and saved."""
    model = tiny("gpt2", AutoModelForCausalLM)
    add_adapter(model, LORA)
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    trained(model)
    save_adapter(model, tmp_path)
    found = PeftModel.from_pretrained(tiny("gpt2", AutoModelForCausalLM), tmp_path).eval()
    torch.testing.assert_close(found(**INPUTS).logits, model(**INPUTS).logits, rtol=1e-6, atol=1e-6)


def test_adapter_under_heads(tmp_path):
    """The shared trunk is adapted once; each head's folder holds a merged model, and its adapter beside it."""
    model = headed("bert")
    plain = model(**INPUTS).heads["ner"].logits
    add_adapter(model, LORA)
    torch.testing.assert_close(model(**INPUTS).heads["ner"].logits, plain, rtol=0, atol=0)
    assert all(p.requires_grad for p in model.ner.parameters())
    assert not model.trunk.pooler.dense.weight.requires_grad
    before = {name: head.state_dict() for name, head in headed("bert").heads.items()}
    trained(model)
    expected = model(**INPUTS).heads["ner"].logits
    whole = merged(model)
    assert isinstance(whole, HeadedModel)
    whole.save(tmp_path / "student")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "student" / "ner")
    torch.testing.assert_close(loaded(**INPUTS).logits, expected, rtol=1e-5, atol=1e-5)
    save_adapter(model, tmp_path / "adapter")
    assert {f.name for f in (tmp_path / "adapter").iterdir()} == set(CASES["bert"])
    base = tiny("bert", AutoModelForTokenClassification, num_labels=4)
    base.load_state_dict({k: v for k, v in before["ner"].items() if k in base.state_dict()})
    found = PeftModel.from_pretrained(base, tmp_path / "adapter" / "ner").eval()
    torch.testing.assert_close(found(**INPUTS).logits, expected, rtol=1e-5, atol=1e-5)


def test_features_of_an_adapted_model():
    """Hidden states, attention and taps, also of the adapted map itself, as on the plain model."""
    features = [
        Feature("hidden", 2),
        Feature("attention", 0),
        Feature("query", 1),
        Feature("tap", path="encoder.layer.0.attention.self.query"),
    ]
    found = []
    for model in (tiny("bert", AutoModelForSequenceClassification), adapted("bert")):
        capture = Capture(model, features)
        with torch.no_grad(), capture.armed():
            output = model(**INPUTS)
        found.append(capture.collect(output))
        capture.remove()
    for feature in features:
        torch.testing.assert_close(found[0][feature], found[1][feature], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_blueprint_carries_the_adapter(kind, tmp_path):
    """Shapes and counts without weights are those of the built model; the seed decides the adapter's weights."""
    config = tiny_config(kind)
    tiny(kind, AutoModelForSequenceClassification).save_pretrained(tmp_path)
    plan = ModelDescription(
        "AutoModelForSequenceClassification", config, Tokens(None), str(tmp_path), adapter=Lora(r=2, dropout=0.1)
    )
    shapes = Shapes.of_description(plan)
    one, same, other = (build_model(plan, seed=seed) for seed in (1, 1, 2))
    assert count_parameters(shapes.model, trainable=True) == count_parameters(one, trainable=True)
    assert count_parameters(shapes.model) == count_parameters(one)
    assert shapes.shape(Feature("hidden", 1)) == ("batch", "length", 32)
    assert shapes.shape(Feature("logits")) == ("batch", 3)
    names = [name for name, _ in one.named_parameters() if "lora_A" in name]
    states = [model.state_dict() for model in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in names)
    assert not any(torch.equal(states[0][name], states[2][name]) for name in names)


def test_targets():
    """Ends of paths; what is no linear map is a fault that lists those there are."""
    model = adapted("bert", Lora(r=2, target=("intermediate.dense",)))
    assert {n.split(".lora_A")[0] for n, _ in model.named_parameters() if "lora_A" in n} == {
        f"bert.encoder.layer.{i}.intermediate.dense" for i in range(3)
    }
    with pytest.raises(SourceFault) as fault:
        adapted("bert", Lora(target=("q_proj",)))
    assert (fault.value.code, fault.value.field) == ("B334", "adapter")
    assert "query, key, value, dense" in fault.value.help


def test_without_peft(monkeypatch):
    """One line that names the extra."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RunError, match=r"pip install 'brewgraph\[lora\]'"):
        adapted("bert")
