"""Capture: features equal the model's own, bit for bit, and nothing is caught when nothing is asked."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    T5EncoderModel,
)

from brewgraph.diagnostics import RunError, SourceFault
from brewgraph.models.capture.attention import plain_attention
from brewgraph.models.capture.capture import Capture
from brewgraph.recipe.features import Feature
from tests.models.tiny import RECORDED, batch, tiny, tiny_config

HIDDEN = [Feature("hidden", i) for i in range(4)]
ATTENTION = [Feature("attention", i) for i in range(3)]


def run(model, features, inputs=None):
    """Capture features of one forward and take the hooks away."""
    capture = Capture(model, features)
    with capture.armed():
        output = model(**(inputs or batch(7, 4)))
    values = capture.collect(output)
    capture.remove()
    return values


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("kind", RECORDED)
def test_hidden_states_equal_the_models_own(kind, auto_class):
    """Every hidden state is bit-equal to `output_hidden_states`, with padding and at two sizes of batch."""
    model = tiny(kind, auto_class)
    for inputs in (batch(7, 4), batch(5), batch(3, 9, 9)):
        expected = model(**inputs, output_hidden_states=True).hidden_states
        values = run(model, [*HIDDEN, Feature("embeddings"), Feature("hidden", -1)], inputs)
        assert len(expected) == 4
        assert all(torch.equal(expected[i], values[Feature("hidden", i)]) for i in range(4))
        assert torch.equal(expected[0], values[Feature("embeddings")])
        assert torch.equal(expected[-1], values[Feature("hidden", -1)])


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("kind", RECORDED)
def test_attention_equals_the_models_own(kind, auto_class):
    """Every attention is bit-equal to eager `output_attentions`, and so are the hidden states around them."""
    for inputs in (batch(7, 4), batch(6, 6)):
        expected = tiny(kind, auto_class, "eager")(**inputs, output_attentions=True, output_hidden_states=True)
        values = run(tiny(kind, auto_class), [*ATTENTION, *HIDDEN], inputs)
        assert all(torch.equal(expected.attentions[i], values[Feature("attention", i)]) for i in range(3))
        assert all(torch.equal(expected.hidden_states[i], values[Feature("hidden", i)]) for i in range(4))


@pytest.mark.parametrize("kind", ["bert", "llama", "modernbert"])
def test_attention_in_half_precision(kind):
    """The dtype in which a model takes its softmax is kept: bit-equal in bfloat16 as well."""
    expected = tiny(kind, attention="eager").to(torch.bfloat16)(**batch(7, 4), output_attentions=True).attentions
    values = run(tiny(kind).to(torch.bfloat16), ATTENTION)
    assert all(torch.equal(expected[i], values[Feature("attention", i)]) for i in range(3))


@pytest.mark.parametrize("kind", RECORDED)
def test_one_eager_layer_leaves_the_others_on_sdpa(kind):
    """With one attention asked, what the model computes stays the same up to rounding."""
    model = tiny(kind)
    inputs = batch(7, 4)
    real = inputs["attention_mask"].bool()
    expected = model(**inputs).last_hidden_state[real]
    values = run(model, [Feature("attention", 1), Feature("hidden", 3)], inputs)
    torch.testing.assert_close(values[Feature("hidden", 3)][real], expected)
    torch.testing.assert_close(values[Feature("attention", 1)].sum(-1), torch.ones(2, 4, 7))


def test_only_layers_asked_run_eagerly(monkeypatch):
    """The count of calls to scaled dot product attention falls by the layers whose attention is asked."""
    calls = []
    own = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: (calls.append(1), own(*a, **k))[1]
    )
    run(tiny("bert"), [Feature("attention", 1)])
    assert len(calls) == 2
    run(tiny("bert"), [Feature("query", 1), Feature("scores", 0)])
    assert len(calls) == 5
    run(tiny("bert", attention="eager"), [Feature("query", 1)])
    assert len(calls) == 5, "a model loaded with eager attention stays eager"


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "albert"])
def test_scores_and_their_parts_agree(kind):
    """Softmax of the scores gives the attention; queries, keys and values have (batch, heads, length, size)."""
    model = tiny(kind)
    features = [Feature(name, 2) for name in ("query", "key", "value", "scores", "attention")]
    query, key, value, scores, attention = run(model, features, batch(6, 6)).values()
    groups = 2 if kind == "llama" else 4
    assert query.shape == (2, 4, 6, 8)
    assert key.shape == value.shape == (2, groups, 6, 8)
    wide = key.repeat_interleave(4 // groups, dim=1)
    torch.testing.assert_close(scores, query @ wide.transpose(2, 3) / 8**0.5)
    if kind in ("gpt2", "llama"):
        scores = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), float("-inf"))
    torch.testing.assert_close(attention, scores.softmax(-1))


def test_scores_are_before_the_mask():
    """Scores towards padding are ordinary numbers, attention there is zero."""
    values = run(tiny("bert"), [Feature("scores", 0), Feature("attention", 0)])
    assert values[Feature("scores", 0)].abs().max() < 1e3
    assert torch.equal(values[Feature("attention", 0)][1, :, :, 4:], torch.zeros(4, 7, 3))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_training_gives_attention_before_dropout(kind):
    """With dropout on, captured rows still sum to one, while the model's own forward and random stream are kept."""
    rates = {"gpt2": {"attn_pdrop": 0.5}, "llama": {"attention_dropout": 0.5}}
    settings = rates.get(kind, {"attention_probs_dropout_prob": 0.5})
    plain = tiny(kind, attention="eager", **settings).train()
    watched = tiny(kind, **settings).train()
    torch.manual_seed(3)
    expected = plain(**batch(7, 4), output_attentions=True)
    torch.manual_seed(3)
    values = run(watched, [*ATTENTION, Feature("hidden", 3)])
    assert torch.equal(expected.last_hidden_state, values[Feature("hidden", 3)])
    for i in range(3):
        attention = values[Feature("attention", i)]
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4, 7))
        kept = expected.attentions[i] != 0
        torch.testing.assert_close(expected.attentions[i][kept], attention[kept] * 2)


def test_results_of_heads():
    """Logits, span starts and ends and the pooled output are the model's own tensors."""
    model = tiny("bert", AutoModelForQuestionAnswering, num_labels=2)
    values = run(model, [Feature("start"), Feature("end")])
    expected = model(**batch(7, 4))
    assert torch.equal(expected.start_logits, values[Feature("start")])
    assert torch.equal(expected.end_logits, values[Feature("end")])
    model = tiny("bert", AutoModelForSequenceClassification)
    values = run(model, [Feature("logits"), Feature("pooled")])
    assert torch.equal(model(**batch(7, 4)).logits, values[Feature("logits")])
    assert torch.equal(model.bert(**batch(7, 4)).pooler_output, values[Feature("pooled")])
    with pytest.raises(SourceFault, match="BertModel gives no `logits`: its output holds `last_hidden_state`"):
        run(tiny("bert"), [Feature("logits")])


def test_nothing_is_caught_outside():
    """A forward outside the block leaves no trace, and one inside is not overwritten by one after."""
    model = tiny("bert")
    capture = Capture(model, [*HIDDEN, *ATTENTION])
    model(**batch(3))
    assert not capture._seen
    with capture.armed():
        output = model(**batch(7, 4))
    model(**batch(3))
    assert capture.collect(output)[Feature("hidden", 2)].shape == (2, 7, 32)
    assert not capture._seen, "collecting lets go of the tensors"
    with pytest.raises(RunError, match=r"`hidden\[0\]`: the module `encoder.layer.0` was not called in the forward"):
        capture.collect(output)


def test_a_block_that_raises_leaves_nothing():
    """After an exception the capture is empty and disarmed, and can be armed again."""
    model = tiny("bert")
    capture = Capture(model, HIDDEN)
    with pytest.raises(KeyboardInterrupt), capture.armed():
        model(**batch(7, 4))
        raise KeyboardInterrupt
    assert not capture._seen
    assert not capture._armed
    with capture.armed():
        output = model(**batch(3))
        with pytest.raises(RunError, match="already armed"), capture.armed():
            pass
    assert capture.collect(output)[Feature("hidden", 3)].shape == (1, 3, 32)


def test_the_last_forward_counts():
    """Two forwards in one block: calls are counted anew, so the second is what is collected."""
    model = tiny("albert")
    capture = Capture(model, [*HIDDEN, *ATTENTION])
    with capture.armed():
        model(**batch(3))
        output = model(**batch(7, 4))
    values = capture.collect(output)
    expected = tiny("albert", attention="eager")(**batch(7, 4), output_hidden_states=True).hidden_states
    assert all(torch.equal(expected[i], values[Feature("hidden", i)]) for i in range(4))


def test_gradient_flows_through_what_is_captured():
    """A loss on captured features reaches the weights, those of the first layer by way of each of them."""
    names = ("attention", "scores", "query", "key", "value")
    for feature in [Feature("hidden", 2), *(Feature(name, 1) for name in names), Feature("tap", path="pooler")]:
        model = tiny("bert").train()
        run(model, [feature])[feature].pow(2).mean().backward()
        weight = model.get_parameter("encoder.layer.0.output.dense.weight").grad
        assert weight is not None, feature
        assert weight.abs().sum() > 0, feature


def test_activation_checkpointing_gives_the_same_gradient():
    """Hooks fire again in the backward pass; captured features keep their gradient all the same."""
    gradients = []
    for checkpointed in (False, True):
        model = tiny("bert", hidden_dropout_prob=0.0).train()
        if checkpointed:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        values = run_kept(model, [Feature("scores", 1), Feature("attention", 1), Feature("hidden", 2)])
        sum(value.pow(2).sum() for value in values.values()).backward()
        gradients.append(model.get_parameter("encoder.layer.0.attention.self.query.weight").grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def run_kept(model, features):
    """As `run`, with the hooks left in place for the backward pass."""
    capture = Capture(model, features)
    with capture.armed():
        output = model(**batch(7, 4))
    return capture.collect(output)


def test_the_implementation_is_borrowed_and_given_back(tmp_path):
    """Attention is switched only while it is watched, by the last capture to leave, and never reaches config.json."""
    model = tiny("bert")
    former = model.config._attn_implementation
    assert former == "sdpa"
    Capture(model, HIDDEN)
    assert model.config._attn_implementation == former
    first, second = Capture(model, ATTENTION), Capture(model, [Feature("query", 0)])
    assert model.config._attn_implementation == "brewgraph"
    model.save_pretrained(tmp_path)
    assert "brewgraph" not in (tmp_path / "config.json").read_text()
    assert not any("attn_implementation" in key for key in json.loads((tmp_path / "config.json").read_text()))
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == former
    first.remove()
    assert model.config._attn_implementation == "brewgraph"
    second.remove()
    second.remove()
    assert model.config._attn_implementation == former
    assert not any(module._forward_hooks for module in tiny("bert").modules())


def test_remove_takes_every_hook_away():
    """The model is as it was."""
    model = tiny("bert")
    capture = Capture(model, [*HIDDEN, *ATTENTION, Feature("pooled"), Feature("tap", path="encoder", input=True)])
    assert any(module._forward_hooks for module in model.modules())
    capture.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_fault_installs_nothing():
    """A feature that is not there leaves the model untouched."""
    model = tiny("distilbert")
    with pytest.raises(SourceFault, match="has no `pooled`"):
        Capture(model, [Feature("attention", 0), Feature("pooled")])
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_deep_copy_is_not_watched():
    """A copied model (a moving average) runs on its own and catches nothing."""
    model = tiny("bert")
    capture = Capture(model, [*HIDDEN, *ATTENTION])
    twin = copy.deepcopy(model)
    with capture.armed():
        output = model(**batch(7, 4))
        twin(**batch(3))
    assert capture.collect(output)[Feature("hidden", 2)].shape == (2, 7, 32)
    capture.remove()
    other = Capture(twin, ATTENTION)
    other.remove()
    assert twin.config._attn_implementation == "sdpa"


def test_taps_of_outputs_inputs_and_rows():
    """A tap is the module's output or its first input, whether given by position or by keyword; `*` makes a row."""
    model = tiny("bert", AutoModelForSequenceClassification)
    capture = Capture(model, HIDDEN)
    paths = capture.anatomy.paths("encoder.layer.*.output")
    features = [Feature("tap", path=path) for path in paths]
    side = Feature("tap", path="encoder.layer.1", input=True)
    values = run(model, [*features, side, Feature("hidden", 1), Feature("hidden", 3)])
    assert [values[feature].shape for feature in features] == [(2, 7, 32)] * 3
    assert torch.equal(values[features[-1]], values[Feature("hidden", 3)])
    assert torch.equal(values[side], values[Feature("hidden", 1)])
    llama = run(tiny("llama"), [Feature("tap", path="layers.0.self_attn", input=True)])
    assert next(iter(llama.values())).shape == (2, 7, 32), "given by keyword"


def test_taps_of_tuples():
    """One tensor needs no index, None is said to be None, and a wrong index or several tensors list the elements."""
    path = "encoder.layer.0.attention.self"
    (only,) = run(tiny("bert"), [Feature("tap", path=path)]).values()
    assert only.shape == (2, 7, 32)
    eager = tiny("bert", attention="eager")
    assert run(eager, [Feature("tap", path=path, item=1)])[Feature("tap", path=path, item=1)].shape == (2, 4, 7, 7)
    with pytest.raises(RunError) as caught:
        run(eager, [Feature("tap", path=path)])
    assert str(caught.value) == (
        f'`@ "{path}"`: the output of `{path}` holds several tensors: [0] (2, 7, 32), [1] (2, 4, 7, 7); '
        "add [0] or [1] to the path"
    )
    with pytest.raises(RunError, match=r"is None at \[1\].*use the feature `attention\[i\]`"):
        run(tiny("bert"), [Feature("tap", path=path, item=1)])
    with pytest.raises(RunError, match=r"has no element \[2\]: \[0\] \(2, 7, 32\), \[1\] None"):
        run(tiny("bert"), [Feature("tap", path=path, item=2)])
    with pytest.raises(RunError, match=r"is one tensor \(2, 32\); remove \[0\]"):
        run(tiny("bert"), [Feature("tap", path="pooler", item=0)])


def test_a_tap_of_one_call():
    """Calls of a shared module are told apart; a call that does not happen is an error with the count."""
    path = "encoder.albert_layer_groups.0"
    model = tiny("albert")
    features = [Feature("tap", path=path, call=call) for call in range(3)]
    values = run(model, [*features, *HIDDEN])
    assert all(torch.equal(values[f], values[Feature("hidden", f.call + 1)]) for f in features)
    with pytest.raises(RunError, match=f"the module `{path}` was called 3 times in the forward, so it has no call 3"):
        run(model, [Feature("tap", path=path, call=3)])


def test_a_module_that_is_not_called():
    """A tapped module outside the forward is named."""

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    capture = Capture(Idle(), [Feature("tap", path="spare")])
    with pytest.raises(RunError, match='`@ "spare"`: the module `spare` was not called in the forward'):
        capture.collect(None)


@pytest.mark.parametrize("auto_class", [None, AutoModelForTokenClassification])
def test_t5_falls_back_to_its_recorded_outputs(auto_class):
    """T5's layers give tuples, its attentions come from the modules that its class records, eager while asked."""

    def build(attention: str):
        if auto_class:
            return tiny("t5", auto_class, attention)
        torch.manual_seed(0)
        return T5EncoderModel._from_config(tiny_config("t5"), attn_implementation=attention).eval()

    expected = build("eager")(**batch(7, 4), output_attentions=True, output_hidden_states=True)
    model = build("sdpa")
    values = run(model, [*HIDDEN, *ATTENTION])
    assert all(torch.equal(expected.hidden_states[i], values[Feature("hidden", i)]) for i in range(4))
    assert all(torch.equal(expected.attentions[i], values[Feature("attention", i)]) for i in range(3))
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(SourceFault, match="has no `scores`: its attention does not go through"):
        Capture(model, [Feature("scores", 0)])


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("convolution", [0, 3])
def test_deberta_gives_what_it_returns(auto_class, convolution):
    """DeBERTa-v2 records nothing; it is asked for attentions, only while armed. Behind its first layer a convolution has
    the last word."""
    model = tiny("deberta-v2", auto_class, conv_kernel_size=convolution)
    expected = model(**batch(7, 4), output_attentions=True, output_hidden_states=True)
    values = run(model, [*HIDDEN, *ATTENTION])
    assert all(torch.equal(expected.hidden_states[i], values[Feature("hidden", i)]) for i in range(4))
    assert all(torch.equal(expected.attentions[i], values[Feature("attention", i)]) for i in range(3))
    Capture(model, HIDDEN)
    assert model(**batch(3)).hidden_states is None


@pytest.mark.parametrize(("kind", "rate"), [("deberta-v2", "attention_probs_dropout_prob"), ("t5", "dropout_rate")])
def test_attention_after_dropout_is_refused(kind, rate):
    """Where only dropped attention can be had, training on it is an error, unless dropout is off."""
    with pytest.raises(RunError, match="returns its attention only after dropout: set its attention dropout to 0"):
        run(tiny(kind, AutoModelForTokenClassification, **{rate: 0.1}).train(), ATTENTION)
    values = run(tiny(kind, AutoModelForTokenClassification, **{rate: 0.0}).train(), ATTENTION)
    torch.testing.assert_close(values[Feature("attention", 0)].sum(-1)[0], torch.ones(4, 7))


def test_plain_attention_equals_sdpa():
    """The eager attention for modules without one of their own, with grouped heads and a mask."""
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.zeros(2, 1, 5, 5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -1e9)
    output, weights = plain_attention(nn.Identity(), query, key, value, mask)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
