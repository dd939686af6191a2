"""Anatomy: layers, attention modules and paths of a model, and the faults of asking for what is not there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, T5EncoderModel

from brewgraph.diagnostics import SourceFault
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.features import Feature
from tests.models.tiny import RECORDED, tiny, tiny_config


@pytest.fixture(scope="module")
def bert() -> Anatomy:
    return dissect(tiny("bert", AutoModelForSequenceClassification))


def fault(call, *args) -> SourceFault:
    with pytest.raises(SourceFault) as caught:
        call(*args)
    return caught.value


def test_finds_layers_and_attention_in_order(bert: Anatomy):
    """Paths come from what the class records, with the base model's prefix."""
    assert bert.base == "bert"
    assert bert.layer_paths == tuple(f"bert.encoder.layer.{i}" for i in range(3))
    assert bert.attention_paths == tuple(f"bert.encoder.layer.{i}.attention.self" for i in range(3))


@pytest.mark.parametrize("kind", RECORDED)
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
def test_rows_are_counted(kind, auto_class):
    """Each architecture of three layers has four hidden states and three of each attention row, shared layers too."""
    anatomy = dissect(tiny(kind, auto_class))
    assert anatomy.row_length("hidden") == 4
    assert [anatomy.row_length(name) for name in ("attention", "scores", "query", "key", "value")] == [3] * 5


@pytest.mark.parametrize(("groups", "inner", "rows"), [(1, 1, 7), (2, 1, 7), (3, 2, 13)])
def test_shared_layers_are_counted_by_call(groups, inner, rows):
    """ALBERT's rows are calls of few modules: six layers, each of `inner` blocks."""
    model = tiny("albert", num_hidden_layers=6, num_hidden_groups=groups, inner_group_num=inner)
    anatomy = dissect(model)
    assert anatomy.row_length("hidden") == rows
    assert len(anatomy.layer_paths) == groups * inner


def test_works_on_the_meta_device():
    """A model without weights has the same anatomy."""
    config = tiny_config("albert")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    anatomy = dissect(model)
    assert anatomy.row_length("hidden") == 4
    assert anatomy.layer_paths == ("encoder.albert_layer_groups.0.albert_layers.0",)


def test_cross_attention_is_left_out():
    """A decoder with cross-attention counts self-attention alone, through the recorder's layer name."""
    anatomy = dissect(tiny("gpt2", add_cross_attention=True))
    assert anatomy.attention_paths == ("h.0.attn", "h.1.attn", "h.2.attn")


def test_resolves_in_full_and_below_the_base(bert: Anatomy):
    """Both spellings of a path give the full one; the head is reached by its own."""
    assert bert.resolve("bert.encoder.layer.1.output") == "bert.encoder.layer.1.output"
    assert bert.resolve("encoder.layer.1.output") == "bert.encoder.layer.1.output"
    assert bert.resolve("classifier") == "classifier"


def test_patterns_stand_for_modules_in_order(bert: Anatomy):
    """`*` stays within a segment, and leaves out containers that never run."""
    outputs = tuple(f"bert.encoder.layer.{i}.output" for i in range(3))
    assert bert.paths("encoder.layer.*.output") == outputs
    assert bert.paths("bert.encoder.layer.*.output") == outputs
    assert bert.paths("pooler") == ("bert.pooler",)
    assert bert.paths("bert.*") == ("bert.embeddings", "bert.encoder", "bert.pooler")


def test_a_wrong_path_gets_a_suggestion_and_the_children(bert: Anatomy):
    """B301 names the nearest path and what the longest known prefix holds."""
    found = fault(bert.resolve, "encoder.layr.1.output")
    assert found.code == "B301"
    assert found.message == "BertForSequenceClassification has no module `encoder.layr.1.output`"
    assert found.help == "did you mean `encoder.layer.1.output`? `bert.encoder` holds `layer`"
    assert "`bert.encoder.layer` holds `0` to `2`" in fault(bert.resolve, "bert.encoder.layer.7").help
    assert fault(bert.resolve, "qqq").help == "`bert` holds `embeddings`, `encoder` and `pooler`"
    assert fault(bert.paths, "encoder.*.nothing").code == "B301"


def test_a_wrong_path_in_a_base_model():
    """Without a prefix the model's own children are listed."""
    found = fault(dissect(tiny("bert")).resolve, "qqq")
    assert found.help == "the model holds `embeddings`, `encoder` and `pooler`"


def test_a_container_cannot_be_tapped(bert: Anatomy):
    """B302 names the remedy, for a path and for a pattern that meets containers only."""
    found = fault(bert.resolve, "bert.encoder.layer")
    assert found.code == "B302"
    assert found.message == "`bert.encoder.layer` is a container that is never called, so it has no output"
    assert found.help == 'tap one of its members: "bert.encoder.layer.0", or all of them: "bert.encoder.layer.*"'
    assert fault(bert.paths, "encoder.*").code == "B302"


def test_an_index_out_of_range_tells_the_count(bert: Anatomy):
    """B303 beside its good neighbours, negative indices included."""
    assert bert.site(Feature("hidden", -4)) == bert.site(Feature("hidden", 0))
    assert bert.site(Feature("attention", -1)).path == "bert.encoder.layer.2.attention.self"
    found = fault(bert.site, Feature("hidden", 4))
    assert (found.code, found.message) == (
        "B303",
        "`hidden[4]` is out of range: BertForSequenceClassification has 4 of them",
    )
    assert found.help == "`hidden` counts from 0 to 3, or from -4 to -1"
    assert fault(bert.site, Feature("attention", -4)).code == "B303"


def test_a_feature_that_is_not_offered(bert: Anatomy):
    """B304 says why and what there is instead."""
    assert bert.site(Feature("pooled")).path == "bert"
    found = fault(dissect(tiny("distilbert")).site, Feature("pooled"))
    assert (found.code, found.message) == ("B304", "DistilBertModel has no `pooled`: its base model has no pooler")
    assert found.help.startswith("it offers `hidden`, `attention`, `scores`, `query`, `key`, `value` and `embeddings`;")


def test_attention_without_the_interface_is_offered_alone():
    """T5 records attentions but not through the interface: scores and the like are a B304."""
    anatomy = dissect(T5EncoderModel(tiny_config("t5")))
    assert anatomy.row_length("hidden") == 4
    assert anatomy.row_length("attention") == 3
    found = fault(anatomy.row_length, "scores")
    assert found.code == "B304"
    assert "does not go through transformers' attention interface" in found.message


def test_an_encoder_decoder_has_two_stacks():
    """Rows of two stacks would be ambiguous; taps stay."""
    anatomy = dissect(tiny("t5"))
    assert "it has 2 stacks of layers (`encoder` and `decoder`)" in fault(anatomy.row_length, "hidden").message
    assert anatomy.resolve("encoder.block.0") == "encoder.block.0"


def test_a_model_that_records_nothing_is_followed():
    """DeBERTa-v2 returns hidden states and attention when asked; they are met where its modules give them."""
    anatomy = dissect(tiny("deberta-v2", AutoModelForTokenClassification))
    assert (anatomy.row_length("hidden"), anatomy.row_length("attention")) == (4, 3)
    assert anatomy.layer_paths == tuple(f"deberta.encoder.layer.{i}" for i in range(3))
    assert [site.path for site in anatomy.hidden] == ["deberta.embeddings", *anatomy.layer_paths]
    assert fault(anatomy.row_length, "query").code == "B304"


def test_any_torch_module_can_be_tapped():
    """A module that is no transformers model offers taps and nothing else."""
    anatomy = dissect(nn.Sequential(nn.Linear(2, 3), nn.ModuleList([nn.ReLU()])))
    assert anatomy.resolve("0") == "0"
    assert anatomy.offered == ()
    assert "it is not a transformers model" in fault(anatomy.row_length, "hidden").message
    assert fault(anatomy.resolve, "1").code == "B302"
