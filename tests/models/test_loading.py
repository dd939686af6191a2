"""Starting from another model's layers: what is copied, that it is copied, and that it is known beforehand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    PreTrainedModel,
    T5EncoderModel,
)

from brewgraph.diagnostics import SourceFault
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import count_parameters
from brewgraph.models.loading import build_model, copy_layers, plan_copy, planned_copy
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.tokenization import Tokens
from brewgraph.recipe.settings.model_sources import Layers
from tests.models.tiny import SETTINGS, batch, tiny, tiny_config

INPUTS = batch(7, 4)
BART = {"vocab_size": 64, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 8} | {
    "decoder_ffn_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2
}  # fmt: skip
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
        with pytest.raises(SourceFault, match="of another kind than layer 0"):
            copy_layers(tiny(kind), deep(kind).base_model, (1, 1, 0))
    order = (0, 4, -1) if kind == "modernbert" else (1, 3, -1)
    copied = copy_layers(model, donor, order)
    assert copied.layers == (*order[:2], 5)
    theirs = donor.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[dict(copied.pairs)[name]]), name


SORTED = [
    ("modernbert", {}, (0, 4), (1, 3)),
    ("gemma2", {"num_key_value_heads": 2, "head_dim": 8}, (2, 5), (1, 3)),
    ("gemma3_text", {"num_key_value_heads": 2, "head_dim": 8}, (1, 4), (4, 5)),
    (
        "qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
        (0, 1),
        (0, 5),
    ),
    ("smollm3", {"num_key_value_heads": 2}, (2, 4), (2, 3)),
    ("cohere2", {"num_key_value_heads": 2}, (1, 5), (1, 3)),
    ("t5", {}, (0, 4), (1, 3)),
    ("gpt_neo", {}, (2, 5), (1, 3)),
]
"""Architectures with layers of several kinds: their settings, layers of six that fit a model of two, and others."""


def of_kinds(kind: str, layers: int, settings: dict) -> PreTrainedModel:
    """A small trunk of an architecture with layers of several kinds, T5's encoder alone."""
    if kind == "gpt_neo":
        types = [[["global", "local"], layers // 2]]
        config = AutoConfig.for_model(
            kind, vocab_size=64, hidden_size=32, num_layers=layers, attention_types=types, num_heads=4,
            max_position_embeddings=40, window_size=4, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return AutoModel.from_config(config).eval()
    if kind == "t5":
        return T5EncoderModel(tiny_config("t5", num_layers=layers)).eval()
    sizes = SETTINGS.get(kind, SETTINGS["llama"] | {"bos_token_id": 1, "eos_token_id": 2}) | settings
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes | {"num_hidden_layers": layers})).eval()


@pytest.mark.parametrize(("kind", "settings", "right", "wrong"), SORTED, ids=[row[0] for row in SORTED])
def test_layers_of_several_kinds(kind, settings, right, wrong):
    """Layers of the right kind are copied as by hand, module into module; those of another kind are an error that names
    some that fit, and these do.
    """
    torch.manual_seed(0)
    donor, model, by_hand = (of_kinds(kind, layers, settings) for layers in (6, 2, 2))
    by_hand.load_state_dict({name: value for name, value in donor.state_dict().items() if name in by_hand.state_dict()})
    paths, theirs = dissect(by_hand).layer_paths, dissect(donor).layer_paths
    for path, index in zip(paths, right, strict=True):
        by_hand.get_submodule(path).load_state_dict(donor.get_submodule(theirs[index]).state_dict(), strict=True)
    copied = copy_layers(model, donor, right)
    assert copied.layers == right
    for name, value in model.state_dict().items():
        assert torch.equal(value, by_hand.state_dict()[name]), name
    assert torch.equal(model(**INPUTS).last_hidden_state, by_hand(**INPUTS).last_hidden_state)
    with pytest.raises(SourceFault, match="is of another kind than layer") as fault:
        plan_copy(model, donor, wrong, ("tiny", "big"))
    assert (fault.value.code, fault.value.field) == ("B316", "init")
    listed = re.search(r"init=big\.layers\[(\d+), (\d+)\]", fault.value.help)
    assert listed is not None
    assert plan_copy(model, donor, (int(listed[1]), int(listed[2]))).layers


def test_kinds_of_layers_may_be_given_to_the_model():
    """The other remedy: `layer_types` of the donor's layers."""
    sizes = SETTINGS["llama"] | {"head_dim": 8}

    def gemma(layers: int, init: Layers | None = None, **settings) -> ModelDescription:
        config = AutoConfig.for_model("gemma2", **sizes | settings | {"num_hidden_layers": layers})
        return ModelDescription("AutoModel", config, Tokens(None), init=init)

    donor, wanted = gemma(6), Layers(model="big", layers=(1, 3))
    with pytest.raises(SourceFault) as fault:
        planned_copy(gemma(2, wanted), donor)
    assert 'layer_types=["full_attention", "full_attention"]' in fault.value.help
    assert planned_copy(gemma(2, wanted, layer_types=["full_attention"] * 2), donor).layers == (1, 3)


def test_layers_of_two_stacks_cannot_be_copied():
    """An encoder-decoder is named with the reason; its encoder alone is offered where there is such a model."""
    for kind, offered in (("t5", True), ("bart", False)):
        models = [AutoModel.from_config(tiny_config(kind) if kind == "t5" else BartConfig(**BART)) for _ in range(2)]
        with pytest.raises(SourceFault, match="`tiny` .* has no single row of them: it has 2 stacks") as fault:
            plan_copy(*models, (0, 1), ("tiny", "big"))
        assert ('task="token-classification"' in fault.value.help) == offered


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


def plan(kind: str, auto_class: str = CLASSIFIER, init: Layers | None = None, **settings) -> ModelDescription:
    return ModelDescription(auto_class, tiny_config(kind, **settings), Tokens(None), init=init)


@pytest.mark.parametrize(("kind", "donor"), [("bert", "bert"), ("gpt2", "gpt2"), ("distilbert", "bert")])
def test_planned_copy_is_what_happens(kind, donor):
    """From descriptions alone the same as the copy itself, then built so."""
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
        ("bert", "bert", (0, 1), "B316", "gives 2 layers to `the model`, which has 3"),
        ("bert", "bert", (0, 1, 3), "B303", "beyond the 3"),
        ("bert", "bert", (0, 1, -4), "B303", "beyond the 3"),
        ("gpt2", "bert", (0, 1, 2), "B316", "differ in shape or kind"),
        ("bert", "distilbert", (0, 1, 2), "B316", "differ in shape or kind"),
    ]:
        with pytest.raises(SourceFault, match=message) as fault:
            planned_copy(plan(model, init=Layers(model="x", layers=layers)), plan(donor))
        assert (fault.value.code, fault.value.field) == (code, "init")
    wide = ModelDescription(CLASSIFIER, BertConfig(num_hidden_layers=3), Tokens(None))
    with pytest.raises(SourceFault, match="differ in shape"):
        planned_copy(plan("bert", init=Layers(model="x", layers=(0, 1, 2))), wide)
