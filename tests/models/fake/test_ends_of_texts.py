"""Classifiers that read the state at the end of a text have shapes before they have weights, and no other code that reads values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from brewgraph.diagnostics import SourceFault
from brewgraph.models.fake.shapes import Reach, Shapes
from brewgraph.recipe.features import Feature

SIDES = {
    f"{side}_{name}": size
    for side in ("encoder", "decoder")
    for name, size in {"layers": 2, "attention_heads": 2, "ffn_dim": 16}.items()
}
BART = {"vocab_size": 60, "d_model": 16, "max_position_embeddings": 32, "num_labels": 3, **SIDES}
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2, "num_labels": 3}
KINDS = {"bart": BART, "mbart": BART, "plbart": BART, "mvp": BART, "t5": T5, "umt5": T5, "mt5": T5}


def shapes_of(kind: str) -> Shapes:
    """Of a classifier of this kind, with everything that a checkpoint's configuration has."""
    config = AutoConfig.for_model(kind, **KINDS[kind])
    config.decoder_start_token_id = config.pad_token_id = 0
    return Shapes.of(config, AutoModelForSequenceClassification)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_of_two_stacks_has_shapes(kind: str) -> None:
    """Those that a real forward gives: logits for each example, states of the encoder for each of its tokens."""
    shapes = shapes_of(kind)
    path = "transformer.encoder.embed_tokens" if kind in ("t5", "umt5", "mt5") else "model.encoder.embed_tokens"
    if kind in ("bart", "mbart", "plbart", "mvp"):
        path = "model.encoder.layers.1.fc2"
    assert shapes.shape(Feature("logits")) == ("batch", 3)
    assert shapes.shape(Feature("tap", path=path)) == ("batch", "length", 16)
    model = AutoModelForSequenceClassification.from_config(shapes.model.config).eval()
    ids = torch.tensor([[5, 6, 7, model.config.eos_token_id]] * 2)
    assert model(input_ids=ids).logits.shape == (2, 3)


def test_gradients_reach_both_stacks() -> None:
    """What is frozen and left away follows from a forward as well."""
    names = Reach(shapes_of("bart").model).parameters([Feature("logits")])
    assert names is not None
    assert {name.split(".")[1] for name in names if name.startswith("model.")} >= {"encoder", "decoder"}
    assert any(name.startswith("classification_head") for name in names)


@pytest.mark.parametrize("looked_for", ["self.config.pad_token_id", "ids.new_tensor(2)"])
def test_of_other_tokens_nothing_is_assumed(looked_for: str) -> None:
    """How often a token that ends no text is there is not known before there are texts."""

    class Picking(nn.Module):
        config = AutoConfig.for_model("bart", **BART)

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            which = {"self.config.pad_token_id": self.config.pad_token_id, "ids.new_tensor(2)": input_ids.new_tensor(2)}
            return self.embed(input_ids)[input_ids.eq(which[looked_for]), :]

    with pytest.raises(SourceFault, match="its code reads the values of tensors") as caught:
        Shapes(Picking()).shape(Feature("tap", path="embed"))
    assert (caught.value.code, caught.value.help) == ("B306", "give it another head: `task=…`")


def test_what_a_configuration_lacks_is_no_matter_of_sizes() -> None:
    """The remedy is one that works: configurations of checkpoints have what classes of configurations may not."""
    config = AutoConfig.for_model("t5", **T5)
    with pytest.raises(SourceFault, match="'T5Config' object has no attribute 'decoder_start_token_id'") as caught:
        Shapes.of(config, AutoModelForSequenceClassification).shape(Feature("logits"))
    assert (caught.value.code, caught.value.help) == (
        "B306",
        'start from the configuration of a checkpoint, which has it: hf("…", pretrained=false)',
    )
