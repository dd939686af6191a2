"""What a forward needs for a feature: layers, parameters and modules, of every architecture, and that less is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from brewgraph.models.capture.capture import Capture
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import Depth, Reach
from brewgraph.models.heads import may_draw
from brewgraph.models.loading import Without, build_model
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.tokenization import Tokens
from brewgraph.recipe.features import Feature
from tests.models.tiny import RECORDED, batch, tiny

FEATURES = {
    "embeddings": (Feature("hidden", 0), 0),
    "a layer": (Feature("hidden", 2), 2),
    "the last layer": (Feature("hidden", 3), 3),
    "attention": (Feature("attention", 1), 2),
    "queries": (Feature("query", 0), 1),
}


def value(model: nn.Module, feature: Feature, anatomy: Anatomy, *, early: bool) -> torch.Tensor:
    """A feature of a forward, to its end or as far as it needs to go."""
    capture = Capture(model, [feature], anatomy)
    output = None
    with torch.no_grad(), capture.armed([feature] if early else ()):
        output = model(**batch(3, 5))
    assert (output is None) == early
    found = capture.collect(output)[feature]
    capture.remove()
    return found


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("bert", "gpt2", "albert") else pytest.param(kind, marks=pytest.mark.slow) for kind in RECORDED],
)
def test_a_feature_is_the_same_of_less_of_a_model(kind: str, tmp_path: Path) -> None:
    """A forward that ends with it, and a model that was loaded without what lies behind, bit for bit."""
    tiny(kind).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    reach = Reach(model)
    for what in ("embeddings", "a layer", "attention"):
        feature, run = FEATURES[what]
        assert reach.depth([feature]) == Depth(run, 3), what
        dead = reach.dead_modules([feature])
        made = ModelDescription("AutoModel", model.config, Tokens(None), str(tmp_path))
        less = build_model(made, seed=0, frozen=True, without=Without(type(model), dead))
        assert type(less) is type(model)
        sizes = [sum(p.numel() for p in x.parameters()) for x in (less, model)]
        assert sizes[0] < sizes[1], what
        expected = value(model, feature, reach.anatomy, early=False)
        assert torch.equal(value(model, feature, reach.anatomy, early=True), expected), what
        assert torch.equal(value(less, feature, reach.anatomy, early=True), expected), what
    if kind != "albert":  # whose one layer runs three times
        assert len([path for path in reach.dead_modules([FEATURES["a layer"][0]]) if path.endswith(".2")]) == 1


def test_depths_of_features() -> None:
    """Rows, and modules by their paths, inside layers and outside; all layers where the model's result is asked."""
    model = tiny("bert", AutoModelForSequenceClassification)
    reach = Reach(model)
    for feature, run in FEATURES.values():
        assert reach.depth([feature]) == Depth(run, 3)
    assert reach.depth([Feature("tap", path="encoder.layer.1.intermediate")]) == Depth(2, 3)
    assert reach.depth([Feature("tap", path="encoder.layer.1", input=True)]) == Depth(1, 3)
    assert reach.depth([Feature("tap", path="embeddings.LayerNorm")]) == Depth(0, 3)
    assert reach.depth([Feature("tap", path="pooler.dense")]) == Depth(3, 3)
    assert reach.depth([Feature("hidden", 1), Feature("logits")]) == Depth(3, 3)
    assert reach.dead_modules([Feature("logits")]) == ()


def test_layers_of_all_stacks_are_counted() -> None:
    """An encoder-decoder has no rows of its own: its layers are those of both stacks."""
    reach = Reach(tiny("t5"))
    for path, run in (("encoder.block.1", 2), ("decoder.block.0.layer.1", 4), ("decoder.final_layer_norm", 6)):
        item = 0 if "block" in path else None
        assert reach.depth([Feature("tap", path=path, item=item)]) == Depth(run, 6), path


def test_a_state_that_no_module_gives_needs_the_whole_model() -> None:
    """CANINE puts its states together behind its layers; with its modules tapped it stops as any other."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    model = AutoModel.from_config(AutoConfig.for_model("canine", **sizes)).eval()
    reach, hidden = Reach(model), Feature("hidden", 1)
    assert (reach.depth([hidden]), reach.late([hidden])) == (Depth(3, 3), (hidden,))
    assert reach.dead_modules([hidden]) == ()
    tap = Feature("tap", path="encoder.layer.0", item=0)
    assert (reach.depth([tap]), reach.late([tap])) == (Depth(1, 3), ())


def test_where_layers_cannot_be_found_all_of_them_stay() -> None:
    """A model that is nobody's."""
    own = Reach(nn.Sequential(nn.Linear(2, 2)))
    assert own.depth([Feature("tap", path="0")]) is None
    assert own.parameters([Feature("tap", path="0")]) is None


@pytest.mark.parametrize("kind", ["bert", "gpt2", "albert", "deberta-v2"])
def test_parameters_are_those_that_get_a_gradient(kind: str) -> None:
    """As the backward pass of real numbers finds them; running the model leaves it and the generators as they were."""
    model = tiny(kind).train()
    state = torch.get_rng_state()
    found = Reach(model).parameters([Feature("hidden", 2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.eval()
    capture = Capture(model, [Feature("hidden", 2)])
    with capture.armed():
        output = model(**batch(3, 5))
    capture.collect(output)[Feature("hidden", 2)].square().sum().backward()
    assert found == {name for name, p in model.named_parameters() if p.grad is not None}


def test_parameters_that_some_inputs_alone_reach() -> None:
    """XLNet has weights of token types, which a batch may bring: they are reached, and no stage may freeze them."""
    model = tiny("xlnet")
    inputs = batch(5, 5)
    capture = Capture(model, [Feature("hidden", 1)])
    with capture.armed():
        output = model(**inputs, token_type_ids=torch.tensor([[0, 0, 1, 1, 1]] * 2))
    capture.collect(output)[Feature("hidden", 1)].square().sum().backward()
    found = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {"layer.0.rel_attn.seg_embed", "layer.0.rel_attn.r_s_bias"} <= found
    assert Reach(model).parameters([Feature("hidden", 1)]) == found


def test_who_may_draw() -> None:
    """Dropout of modules and of attention alone; a module that nobody knows may do anything."""
    assert may_draw(tiny("bert"))
    assert not may_draw(tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    assert may_draw(tiny("llama", attention_dropout=0.1))
    assert may_draw(nn.Linear(2, 2))


def test_a_stopped_forward_leaves_nothing_behind() -> None:
    """The next forward runs whole, and its hidden states are all there."""
    model = tiny("bert")
    value(model, Feature("hidden", 1), dissect(model), early=True)
    output = model(**batch(3, 5), output_hidden_states=True)
    assert len(output.hidden_states) == 4
    assert output.pooler_output is not None
