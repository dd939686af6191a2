"""Starting from another model's layers: what is copied, that it is copied, and that it is known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig

from brewgraph.diagnostics import SourceFault
from brewgraph.models.blueprint import Blueprint
from brewgraph.models.copying import copy_layers, plan_copy, planned_copy
from brewgraph.models.loading import build_model
from brewgraph.models.shapes import count_parameters
from brewgraph.models.tokens import Tokens
from brewgraph.recipe.sources import Layers
from tests.models.tiny import batch, tiny, tiny_config

INPUTS = batch(7, 4)
CLASSIFIER = "AutoModelForSequenceClassification"


def deep(kind: str, auto_class=AutoModelForSequenceClassification, layers: int = 6, **settings):
    """A donor of six layers, its weights far from where they began, so that every one matters."""
    name = {"gpt2": "n_layer", "distilbert": "n_layers"}.get(kind, "num_hidden_layers")
    model = tiny(kind, auto_class, **{name: layers}, **settings)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "gpt2", "llama", "modernbert"])
def test_all_layers_copied_is_the_same_model(kind):
    """Layers 0, 1, 2 of three: embeddings, norms, pooler and head come along, and the outputs are equal."""
    donor, model = deep(kind, layers=3), tiny(kind, AutoModelForSequenceClassification)
    copied = copy_layers(model, donor, (0, 1, 2))
    assert copied.random == ()
    assert copied.parameters == count_parameters(model)
    assert copied.names == tuple(model.state_dict())
    torch.testing.assert_close(model(**INPUTS).logits, donor(**INPUTS).logits, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "gpt2", "llama", "modernbert"])
def test_some_layers_in_order(kind):
    """The student's layers are the donor's 1, 3 and 5 (also as -1), everything else equal by name."""
    donor, model = deep(kind), tiny(kind, AutoModelForSequenceClassification)
    if kind == "modernbert":  # its first layer has no norm, so that only a first layer fits there
        with pytest.raises(SourceFault, match="differ in shape or kind|cannot copy"):
            copy_layers(tiny(kind), deep(kind).base_model, (1, 1, 0))
    order = (0, 3, -1) if kind == "modernbert" else (1, 3, -1)
    copied = copy_layers(model, donor, order)
    assert copied.layers == (order[0], 3, 5)
    theirs = donor.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[dict(copied.pairs)[name]]), name


def test_another_number_of_classes():
    """The head starts at random and is named; trunk and pooler are copied."""
    donor = deep("bert", num_labels=5)
    model = tiny("bert", AutoModelForSequenceClassification)
    head = model.classifier.weight.clone()
    copied = copy_layers(model, donor, (0, 2, 4))
    assert copied.random == ("classifier.weight", "classifier.bias")
    assert torch.equal(model.classifier.weight, head)
    assert torch.equal(model.bert.pooler.dense.weight, donor.bert.pooler.dense.weight)
    assert copied.parameters == count_parameters(model) - count_parameters(model.classifier)
    assert str(copied) == (
        f"layers 0, 2, 4: {len(copied.pairs)} tensors with {copied.parameters:,} parameters copied; "
        "at random: classifier"
    )


def test_trunks_meet_whatever_holds_them():
    """From a bare model into one with a head, and back."""
    donor = deep("bert", AutoModel)
    model = tiny("bert", AutoModelForSequenceClassification)
    assert copy_layers(model, donor, (0, 2, 4)).random == ("classifier.weight", "classifier.bias")
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, donor.embeddings.word_embeddings.weight)
    bare = tiny("bert", AutoModel)
    assert copy_layers(bare, model, (0, 1, 2)).random == ()
    torch.testing.assert_close(bare(**INPUTS).pooler_output, model.bert(**INPUTS).pooler_output, rtol=0, atol=0)


def bert_without_types(auto_class=AutoModel, layers: int = 6):
    """A BERT whose token types add nothing, as DistilBERT has none."""
    donor = deep("bert", auto_class, layers)
    nn.init.zeros_(donor.base_model.embeddings.token_type_embeddings.weight)
    return donor


def test_distilbert_from_bert_is_the_same_function():
    """With all of BERT's layers, DistilBERT gives BERT's hidden states: every map found its counterpart."""
    donor, model = bert_without_types(layers=3), tiny("distilbert")
    copied = copy_layers(model, donor, (0, 1, 2))
    assert copied.random == ()
    assert copied.parameters == count_parameters(model)
    torch.testing.assert_close(
        model(**INPUTS).last_hidden_state[0], donor(**INPUTS).last_hidden_state[0], rtol=1e-5, atol=1e-5
    )
    pairs = dict(copied.pairs)
    assert pairs["transformer.layer.1.attention.q_lin.weight"] == "encoder.layer.1.attention.self.query.weight"
    assert pairs["transformer.layer.2.output_layer_norm.bias"] == "encoder.layer.2.output.LayerNorm.bias"


def test_distilbert_from_every_other_layer_of_bert():
    """As in its paper: equal to BERT with its other layers taken out."""
    donor, model = bert_without_types(), tiny("distilbert")
    copy_layers(model, donor, (0, 2, 4))
    donor.encoder.layer = nn.ModuleList([donor.encoder.layer[i] for i in (0, 2, 4)])
    found, expected = model(**INPUTS).last_hidden_state, donor(**INPUTS).last_hidden_state
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1, :4], expected[1, :4], rtol=1e-5, atol=1e-5)


def test_distilbert_takes_the_language_head_too():
    """Masked language models: transform, norm and output layer under their other names."""
    donor, model = bert_without_types(AutoModelForMaskedLM, 3), tiny("distilbert", AutoModelForMaskedLM)
    assert copy_layers(model, donor, (0, 1, 2)).random == ()
    torch.testing.assert_close(model(**INPUTS).logits[0], donor(**INPUTS).logits[0], rtol=1e-5, atol=1e-5)


def plan(kind: str, auto_class: str = CLASSIFIER, init: Layers | None = None, **settings) -> Blueprint:
    return Blueprint(auto_class, tiny_config(kind, **settings), Tokens(None), init=init)


@pytest.mark.parametrize(("kind", "donor"), [("bert", "bert"), ("gpt2", "gpt2"), ("distilbert", "bert")])
def test_planned_copy_is_what_happens(kind, donor):
    """From blueprints alone the same as the copy itself, then built so."""
    layers = {"gpt2": {"n_layer": 6}}.get(donor, {"num_hidden_layers": 6})
    theirs = plan(donor, num_labels=5, **layers)
    ours = plan(kind, init=Layers(model="big", layers=(0, 2, 5)))
    expected = planned_copy(ours, theirs)
    big = build_model(theirs, seed=1)
    copied = plan_copy(build_model(plan(kind), seed=2), big, (0, 2, 5))
    assert copied == expected
    assert copied.parameters < count_parameters(build_model(plan(kind), seed=2))
    built = build_model(ours, seed=2, donors={"big": big})
    for own, other in expected.pairs:
        assert torch.equal(built.state_dict()[own], big.state_dict()[other])
    fresh = build_model(plan(kind), seed=2).state_dict()
    assert all(torch.equal(built.state_dict()[name], fresh[name]) for name in expected.random)


def test_what_cannot_be_copied():
    """Wrong number of layers, a layer that is not there, another width, another architecture; and no init at all."""
    for model, donor, layers, code, message in [
        ("bert", "bert", (0, 1), "B316", "gives 2 layers to a model of 3"),
        ("bert", "bert", (0, 1, 3), "B303", "beyond the 3"),
        ("bert", "bert", (0, 1, -4), "B303", "beyond the 3"),
        ("gpt2", "bert", (0, 1, 2), "B316", "differ in shape or kind"),
        ("bert", "distilbert", (0, 1, 2), "B316", "differ in shape or kind"),
    ]:
        with pytest.raises(SourceFault, match=message) as fault:
            planned_copy(plan(model, init=Layers(model="x", layers=layers)), plan(donor))
        assert (fault.value.code, fault.value.field) == (code, "init")
    wide = Blueprint(CLASSIFIER, BertConfig(num_hidden_layers=3), Tokens(None))
    with pytest.raises(SourceFault, match="differ in shape"):
        planned_copy(plan("bert", init=Layers(model="x", layers=(0, 1, 2))), wide)
    with pytest.raises(SourceFault, match="starts from no other"):
        planned_copy(plan("bert"), plan("bert"))
