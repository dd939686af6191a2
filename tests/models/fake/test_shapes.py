"""Shapes: what a configuration tells before any weight exists."""

from __future__ import annotations

import resource
import time

import pytest
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
)

from brewgraph.diagnostics import SourceFault
from brewgraph.models.description import describe_model
from brewgraph.models.fake.shapes import Shapes, build_empty, count_parameters
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import Hf, Lora
from tests.models.tiny import RECORDED, batch, tiny, tiny_config


@pytest.mark.parametrize("kind", RECORDED)
def test_shapes_of_every_architecture(kind):
    """Varying sizes become symbols, fixed ones stay numbers, even where they equal an example's size."""
    features = [Feature("logits"), Feature("hidden", 0), Feature("hidden", -1), Feature("attention", 1)]
    features += [Feature("scores", 0), Feature("query", 2), Feature("key", 2)]
    found = Shapes.of(tiny_config(kind, num_labels=2), AutoModelForSequenceClassification).infer(features)
    groups = 2 if kind in ("llama", "qwen2") else 4
    assert list(found.values()) == [
        ("batch", 2),
        ("batch", "length", 32),
        ("batch", "length", 32),
        ("batch", 4, "length", "length"),
        ("batch", 4, "length", "length"),
        ("batch", 4, "length", 8),
        ("batch", groups, "length", 8),
    ]


def test_shapes_of_heads():
    """Each head's result has its own shape."""
    config = tiny_config("bert")
    logits, start = Feature("logits"), Feature("start")
    assert Shapes.of(config, AutoModelForTokenClassification).infer([logits]) == {logits: ("batch", "length", 3)}
    assert Shapes.of(config, AutoModelForMaskedLM).infer([logits]) == {logits: ("batch", "length", 64)}
    spans = tiny_config("bert", num_labels=2)
    assert Shapes.of(spans, AutoModelForQuestionAnswering).infer([start]) == {start: ("batch", "length")}
    pooled = Feature("pooled")
    assert Shapes.of(config, AutoModel).infer([pooled]) == {pooled: ("batch", 32)}


def test_each_feature_has_its_own_fault():
    """One that fails leaves the others their shapes."""
    path = "encoder.layer.0.attention.self"
    features = [
        Feature("hidden", 1),
        Feature("hidden", 9),
        Feature("logits"),
        Feature("tap", path="encoder.layr"),
        Feature("tap", path=path, item=1),
        Feature("tap", path="pooler"),
    ]
    found = Shapes.of(tiny_config("bert"), AutoModel).infer(features)
    shapes = {str(feature): shape for feature, shape in found.items() if not isinstance(shape, SourceFault)}
    assert shapes == {"hidden[1]": ("batch", "length", 32), '@ "pooler"': ("batch", 32)}
    faults = {str(feature): fault.code for feature, fault in found.items() if isinstance(fault, SourceFault)}
    assert faults == {
        "hidden[9]": "B303",
        "logits": "B304",
        '@ "encoder.layr"': "B301",
        f'@ "{path}"[1]': "B305",
    }


def test_one_question_answers_for_all_named_features(monkeypatch):
    """Rows are inferred together, from two forwards; a fault is raised where one asks for the shape itself."""
    shapes = Shapes.of(tiny_config("bert"), AutoModelForSequenceClassification)
    runs = []
    own = Shapes._sizes
    monkeypatch.setattr(Shapes, "_sizes", lambda *args: (runs.append(args[2]), own(*args))[1])
    assert shapes.shape(Feature("hidden", 1)) == ("batch", "length", 32)
    assert shapes.shape(Feature("value", 2)) == ("batch", 4, "length", 8)
    assert shapes.shape(Feature("logits")) == ("batch", 3)
    assert len(runs) == 2
    with pytest.raises(SourceFault, match="gives no `start`: its output holds `logits`"):
        shapes.shape(Feature("start"))
    with pytest.raises(SourceFault, match="is out of range"):
        shapes.shape(Feature("hidden", 4))


def test_a_size_that_follows_neither():
    """A flattened batch is no batch: the fault shows what it is."""

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 4)

        def forward(self, input_ids):
            return self.out(self.embed(input_ids).flatten(0, 1))

    shapes = Shapes(Flat())
    assert shapes.shape(Feature("tap", path="embed")) == ("batch", "length", 4)
    with pytest.raises(SourceFault, match=r"`out` has the shape \(batch \* length, 4\), in which batch") as caught:
        shapes.shape(Feature("tap", path="out"))
    assert caught.value.code == "B305"


def test_a_model_that_reads_values():
    """A forward that branches on the values of a tensor has no shapes ahead of time, and is told so."""

    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, input_ids):
            return self.embed(input_ids) * input_ids.sum().item()

    with pytest.raises(SourceFault, match="Peeking does not run on a batch of 2: its code reads the values of tensors"):
        Shapes(Peeking()).shape(Feature("tap", path="embed"))


def test_a_model_that_does_not_run_or_build():
    """B306 carries the architecture's own words."""
    config = tiny_config("llama", pad_token_id=None)
    found = Shapes.of(config, AutoModelForSequenceClassification).infer([Feature("logits")])[Feature("logits")]
    assert isinstance(found, SourceFault)
    assert (found.code, found.message) == (
        "B306",
        (
            "LlamaForSequenceClassification does not run on a batch of 2: "
            "Cannot handle batch sizes > 1 if no padding token is defined."
        ),
    )
    with pytest.raises(
        SourceFault, match="no bert model can be built .* not a multiple of the number of attention heads"
    ):
        build_empty(tiny_config("bert", hidden_size=30), AutoModel)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_existing_model_is_left_as_it_was(device):
    """Real and meta models can be asked too; hooks, attention and weights stay."""
    model = tiny("bert", AutoModelForSequenceClassification).to(device)
    before = {name: (tensor.device, type(tensor)) for name, tensor in model.state_dict().items()}
    shapes = Shapes(model)
    assert shapes.shape(Feature("attention", 0)) == ("batch", 4, "length", "length")
    assert {name: (tensor.device, type(tensor)) for name, tensor in model.state_dict().items()} == before
    assert model.config._attn_implementation == "sdpa"
    if device == "cpu":
        assert model(**batch(3)).logits.shape == (1, 3)


def test_the_configuration_is_left_as_it_was():
    """Building changes nothing in what was given (T5 encoders write into theirs)."""
    config = tiny_config("t5")
    before = config.to_dict()
    Shapes.of(config, AutoModelForTokenClassification).infer([Feature("hidden", 1)])
    assert config.to_dict() == before


@pytest.mark.parametrize(("kind", "count"), [("deberta-v2", 4), ("t5", 4)])
def test_fallbacks_have_shapes(kind, count):
    """Models without the attention interface give hidden states and attention from their own outputs."""
    features = [Feature("hidden", count - 1), Feature("attention", 0)]
    found = Shapes.of(tiny_config(kind), AutoModelForTokenClassification).infer(features)
    assert list(found.values()) == [("batch", "length", 32), ("batch", 4, "length", "length")]


def test_bert_large_is_quick_and_small():
    """Shapes of a model of 1.3 GB take about a second and no memory to speak of."""
    config = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    features = [Feature("logits"), *(Feature("hidden", i) for i in range(0, 25, 8)), Feature("attention", 23)]
    found = Shapes.of(config, AutoModelForSequenceClassification).infer(features)
    assert found[Feature("attention", 23)] == ("batch", 16, "length", "length")
    assert time.process_time() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_parameters_are_counted_once():
    """Tied weights count once, with and without memory; the count is that of the state a plain sum gives."""
    model = tiny("bert", AutoModelForMaskedLM)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    expected = model.num_parameters()
    assert count_parameters(model) == expected
    assert count_parameters(build_empty(tiny_config("bert"), AutoModelForMaskedLM)) == expected
    untied = build_empty(tiny_config("bert", tie_word_embeddings=False), AutoModelForMaskedLM)
    assert count_parameters(untied) == expected + 64 * 32 + 64


def test_models_that_differ_in_their_weights_alone_are_run_once(monkeypatch, tmp_path):
    """Blueprints of one configuration share their shapes; another number of layers, or an adapter, has its own."""
    tiny_config("bert").save_pretrained(tmp_path)
    made = [
        describe_model(
            source, role="teacher", folder=tmp_path, features=[Feature("logits")], classes=(), inherited=None
        )
        for source in (
            Hf(name=str(tmp_path)),
            Hf(name=str(tmp_path)),
            Hf(name=str(tmp_path), config={"num_hidden_layers": 1}),
            Hf(name=str(tmp_path), adapter=Lora(r=2)),
        )
    ]
    one, same, fewer, adapted = (Shapes.of_description(found) for found in made)
    assert one is same
    assert one.anatomy.row_length("hidden") == 1 + tiny_config("bert").num_hidden_layers
    assert fewer.anatomy.row_length("hidden") == 2
    trained = [count_parameters(shapes.model, trainable=True) for shapes in (one, adapted)]
    assert trained[0] > trained[1] > 0
