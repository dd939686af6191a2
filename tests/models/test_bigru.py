"""The GRU student: equal to torch's packed GRU, blind to padding, at home in transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from brewgraph.models.bigru import BigruConfig, BigruForSequenceClassification, BigruModel
from brewgraph.models.capture.capture import Capture
from brewgraph.models.fake.shapes import Shapes, count_parameters
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import MODELS, Bigru
from tests.models.tiny import batch

CONFIG = {"vocab_size": 64, "embedding_size": 12, "hidden_size": 8, "num_hidden_layers": 2, "num_labels": 3}


def model(auto_class=AutoModelForSequenceClassification):
    torch.manual_seed(0)
    return auto_class.from_config(BigruConfig(**CONFIG)).eval()


def packed(bigru: BigruModel, ids: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by torch's own bidirectional GRU over packed sequences: states and last states."""
    gru = nn.GRU(12, 8, num_layers=2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for i, layer in enumerate(bigru.layers):
            for end, half in (("", layer.forwards), ("_reverse", layer.backwards)):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(gru, f"{name}_l{i}{end}").copy_(getattr(half, f"{name}_l0"))
        sequence = pack_padded_sequence(bigru.embeddings(ids), torch.tensor(lengths), True, enforce_sorted=False)
        states, last = gru(sequence)
    return pad_packed_sequence(states, batch_first=True)[0], torch.cat([last[-2], last[-1]], dim=-1)


def test_equals_packed_sequences():
    """States and last states of both directions, for rows of different length."""
    bigru, inputs = model(AutoModel), batch(5, 9, 1)
    states, last = packed(bigru, inputs["input_ids"], [5, 9, 1])
    with torch.no_grad():
        output = bigru(**inputs)
    torch.testing.assert_close(output.last_hidden_state, states)
    torch.testing.assert_close(output.pooler_output, last)


@pytest.mark.parametrize("side", ["right", "left", "holes"])
def test_padding_changes_nothing(side):
    """Real tokens have the states of the sequence alone, wherever padding stands; padding has zeros."""
    bigru = model(AutoModel)
    ids = torch.tensor([[7, 8, 9]])
    places = {"right": [0, 1, 2], "left": [2, 3, 4], "holes": [0, 2, 4]}[side]
    padded, mask = torch.full((1, 5), 33), torch.zeros(1, 5, dtype=torch.long)
    padded[0, places], mask[0, places] = ids[0], 1
    with torch.no_grad():
        alone, found = bigru(ids), bigru(padded, mask)
    torch.testing.assert_close(found.last_hidden_state[0, places], alone.last_hidden_state[0])
    torch.testing.assert_close(found.pooler_output, alone.pooler_output)
    assert found.last_hidden_state[mask == 0].abs().sum() == 0
    torch.testing.assert_close(bigru(ids, torch.ones(1, 3)).pooler_output, alone.pooler_output)


def test_an_empty_row_is_zero():
    """A row of padding alone gives zeros, no error."""
    output = model(AutoModel)(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))
    assert output.pooler_output.abs().sum() == 0


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_round_trip(auto_class, tmp_path):
    """Saved and loaded by the auto classes: same class, same outputs, every weight found."""
    one = model(auto_class)
    one.save_pretrained(tmp_path)
    two, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(two) is type(one)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert AutoConfig.from_pretrained(tmp_path).hidden_size == 8
    torch.testing.assert_close(one(**batch(6, 3))[0], two(**batch(6, 3))[0], rtol=0, atol=0)


def test_losses_and_gradients():
    """transformers' own losses; every weight that the batch reaches gets a gradient."""
    one = model()
    inputs, labels = batch(6, 3), torch.tensor([0, 2])
    output = one(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in one.parameters())
    tokens = model(AutoModelForTokenClassification)
    labels = torch.where(inputs["attention_mask"] == 1, 1, -100)
    output = tokens(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten()))


def test_features():
    """Hidden states are recorded: embeddings, then each layer; pooled is what the head sees; attention there is none."""
    one = model()
    assert dissect(one).row_length("hidden") == 3
    features = [Feature("hidden", 0), Feature("hidden", 1), Feature("hidden", 2), Feature("pooled"), Feature("logits")]
    capture = Capture(one, features)
    with torch.no_grad(), capture.armed():
        output = one(**batch(6, 3), output_hidden_states=True)
    values = capture.collect(output)
    capture.remove()
    for i, expected in enumerate(output.hidden_states):
        torch.testing.assert_close(values[features[i]], expected)
    assert values[features[0]].shape == (2, 6, 12)
    torch.testing.assert_close(values[features[0]], one.bigru.embeddings(batch(6, 3)["input_ids"]))
    torch.testing.assert_close(values[features[4]], one.classifier(values[features[3]]))
    assert "attention" in dissect(one).lacking


def test_shapes_without_weights():
    """Known from the configuration alone."""
    shapes = Shapes.of(BigruConfig(**CONFIG), AutoModelForTokenClassification)
    assert shapes.shape(Feature("hidden", 0)) == ("batch", "length", 12)
    assert shapes.shape(Feature("hidden", -1)) == ("batch", "length", 16)
    assert shapes.shape(Feature("pooled")) == ("batch", 16)
    assert shapes.shape(Feature("logits")) == ("batch", "length", 3)
    assert count_parameters(shapes.model) == count_parameters(model(AutoModelForTokenClassification))


def test_weights_begin_as_torch_begins_them():
    """GRU weights uniform within 1/sqrt(units); embeddings small, that of padding zero."""
    one = BigruForSequenceClassification(BigruConfig(vocab_size=500, hidden_size=64))
    weight = one.bigru.layers[0].forwards.weight_hh_l0
    assert weight.abs().max() <= 64**-0.5
    assert weight.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)
    assert one.bigru.embeddings.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert one.bigru.embeddings.weight[0].abs().sum() == 0


def test_settings():
    """`bigru(hidden_size=64)` is `hf(model_type="bigru", hidden_size=64)` with its own settings checked."""
    assert MODELS["bigru"] is Bigru
    source = Bigru(hidden_size=64, dropout=0.2, vocab_size=900)
    assert (source.name, source.model_type, source.vocab_size) == (None, "bigru", 900)
    assert source.config == {"hidden_size": 64, "dropout": 0.2}
    with pytest.raises(ValueError, match="hidden_size"):
        Bigru(hidden_size=0)
    defaults = BigruConfig()
    fields = ("hidden_size", "num_hidden_layers", "embedding_size", "dropout")
    assert {name: getattr(defaults, name) for name in fields} == {name: getattr(Bigru(), name) for name in fields}
