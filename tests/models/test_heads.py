"""Several heads on one trunk: equal to plain models, the trunk run once, saved as plain models."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_model, save_model
from transformers import (
    AutoModelForTokenClassification,
)

from brewgraph.diagnostics import RunError, SourceFault, UsageError
from brewgraph.models.bigru import BigruConfig
from brewgraph.models.capture.capture import Capture
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import Shapes, count_parameters
from brewgraph.models.heads import HeadedModel, build_heads, input_names
from brewgraph.models.loading import build_model
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.task_heads import Head
from brewgraph.models.tokenization import Tokens
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import CLASSES, TAGS, VALUE
from brewgraph.recipe.settings.model_sources import (
    CausalLm,
    MaskedLm,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from tests.models.tiny import batch, tiny, tiny_config

NER = Head("AutoModelForTokenClassification", ("O", "B-PER", "I-PER", "B-LOC"))
QA = Head("AutoModelForQuestionAnswering")
TOPIC = Head("AutoModelForSequenceClassification", ("no", "yes"))
WORDS = Head("AutoModelForMaskedLM")
NEXT = Head("AutoModelForCausalLM")
CASES = {
    "bert": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "roberta": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "distilbert": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "electra": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "albert": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "modernbert": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "deberta-v2": {"ner": NER, "qa": QA, "topic": TOPIC, "words": WORDS},
    "gpt2": {"ner": NER, "qa": QA, "topic": TOPIC, "following": NEXT},
    "llama": {"ner": NER, "qa": QA, "topic": TOPIC, "following": NEXT},
    "qwen2": {"ner": NER, "qa": QA, "topic": TOPIC, "following": NEXT},
    "bigru": {"ner": NER, "topic": TOPIC},
}
INPUTS = batch(7, 4)


def config(kind: str):
    if kind == "bigru":
        return BigruConfig(vocab_size=64, embedding_size=12, hidden_size=8, num_hidden_layers=2)
    return tiny_config(kind)


def describe_model(kind: str, heads=None, **more) -> ModelDescription:
    return ModelDescription(
        "AutoModel", config(kind), Tokens(None), heads=CASES[kind] if heads is None else heads, **more
    )


def headed(kind: str, heads=None) -> HeadedModel:
    model = build_model(describe_model(kind, heads), seed=3)
    assert isinstance(model, HeadedModel)
    return model.eval()


@pytest.mark.parametrize("kind", CASES)
def test_heads_equal_plain_models(kind, tmp_path):
    """Every head's output is that of the plain model that its folder loads, to the last bit; so is the round trip."""
    model = headed(kind)
    model.save(tmp_path)
    with torch.no_grad():
        output = model(**INPUTS)
        again = HeadedModel.load(tmp_path)(**INPUTS)
        for name, head in CASES[kind].items():
            auto_class = getattr(transformers, head.auto_class)
            plain, report = auto_class.from_pretrained(tmp_path / name, output_loading_info=True)
            assert not report["missing_keys"]
            assert not report["unexpected_keys"]
            expected = plain(**INPUTS)
            field = "start_logits" if head is QA else "logits"
            torch.testing.assert_close(output.heads[name][field], expected[field], rtol=0, atol=0)
            torch.testing.assert_close(again.heads[name][field], expected[field], rtol=0, atol=0)
            torch.testing.assert_close(output.last_hidden_state, plain.base_model(**INPUTS)[0], rtol=0, atol=0)
            if head.labels:
                assert list(plain.config.id2label.values()) == list(head.labels)


@pytest.mark.parametrize("kind", CASES)
def test_one_trunk_that_runs_once(kind):
    """All heads hold the same trunk object, and it runs once for all of them."""
    model = headed(kind)
    calls = []
    model.trunk.register_forward_hook(lambda *_: calls.append(1))
    output = model(**INPUTS)
    assert calls == [1]
    assert list(output.heads) == sorted(CASES[kind])
    for head in model.heads.values():
        assert getattr(head, head.base_model_prefix) is model.trunk
    assert model(heads=("ner",), **INPUTS).heads.keys() == {"ner"}
    assert calls == [1, 1]


@pytest.mark.parametrize("kind", CASES)
def test_parameters_count_once(kind, tmp_path):
    """The trunk's weights once, each head's own beside them; the state dict loads strictly, also from a file."""
    model = headed(kind)
    trunk = count_parameters(model.trunk)
    inside = {id(p) for p in model.trunk.parameters()}
    own = sum(p.numel() for head in model.heads.values() for p in head.parameters() if id(p) not in inside)
    assert count_parameters(model) == trunk + own
    other = headed(kind)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(model.state_dict(), strict=True)
    for (name, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    save_model(model, str(tmp_path / "model.safetensors"))
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    load_model(other, str(tmp_path / "model.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_gradients_of_two_heads_meet_in_the_trunk():
    """A loss over two heads gives the trunk the sum of what each head alone gives it, and no gradient to a third."""
    model = headed("bert")
    weight = model.trunk.encoder.layer[0].output.dense.weight

    def gradient(*names):
        model.zero_grad()
        heads = model(heads=names, **INPUTS).heads
        sum((h.logits if "logits" in h else h.start_logits).square().mean() for h in heads.values()).backward()
        return weight.grad.clone()

    one, two, both = gradient("ner"), gradient("qa"), gradient("ner", "qa")
    torch.testing.assert_close(both, one + two)
    assert model.heads["topic"].classifier.weight.grad is None


def test_features_of_trunk_and_heads():
    """Rows are the trunk's, results a head's, taps relative to the trunk or to a head."""
    model = headed("bert")
    features = [
        Feature("hidden", 2),
        Feature("attention", 1),
        Feature("pooled"),
        Feature("logits", head="ner"),
        Feature("start", head="qa"),
        Feature("tap", path="encoder.layer.1.output"),
        Feature("tap", path="bert.encoder.layer.1.output"),
        Feature("tap", path="ner.classifier"),
        Feature("tap", path="classifier", head="topic", input=True),
    ]
    assert [str(f) for f in features[3:5]] == ["ner.logits", "qa.start"]
    assert str(features[8]) == '@ input "topic.classifier"'
    capture = Capture(model, features)
    assert capture.heads == ("ner", "qa", "topic")
    assert Capture(model, features[:4]).heads == ("ner",)
    with torch.no_grad(), capture.armed():
        output = model(heads=capture.heads, **INPUTS)
    values = list(capture.collect(output).values())
    capture.remove()
    plain = model.trunk(**INPUTS, output_hidden_states=True)
    torch.testing.assert_close(values[0], plain.hidden_states[2])
    assert values[1].shape == (2, 4, 7, 7)
    torch.testing.assert_close(values[1].sum(-1), torch.ones(2, 4, 7))
    torch.testing.assert_close(values[2], plain.pooler_output)
    assert values[3] is output.heads["ner"].logits
    assert values[4] is output.heads["qa"].start_logits
    torch.testing.assert_close(values[5], plain.hidden_states[2])
    assert values[6] is values[5]
    torch.testing.assert_close(values[7], values[3])
    torch.testing.assert_close(values[8], plain.pooler_output)


@pytest.mark.parametrize("kind", CASES)
def test_shapes_without_weights(kind):
    """A description with heads tells every head's shapes."""
    shapes = Shapes.of_description(describe_model(kind))
    width = 16 if kind == "bigru" else 32
    assert shapes.shape(Feature("hidden", -1)) == ("batch", "length", width)
    assert shapes.shape(Feature("logits", head="ner")) == ("batch", "length", 4)
    assert shapes.shape(Feature("logits", head="topic")) == ("batch", 2)
    if "qa" in CASES[kind]:
        assert shapes.shape(Feature("end", head="qa")) == ("batch", "length")
    assert count_parameters(shapes.model) == count_parameters(headed(kind))


def test_what_asks_for_a_head_that_is_not_there():
    """A result without its head, an unknown head, a head of a model that has none, a head that did not run."""
    model = headed("bert")
    anatomy = dissect(model)
    with pytest.raises(SourceFault, match="`logits` is given by a head") as fault:
        anatomy.site(Feature("logits"))
    assert fault.value.code == "B304"
    assert "`ner`, `qa`, `topic` and `words`" in fault.value.help
    with pytest.raises(SourceFault, match="no head `nre`"):
        anatomy.site(Feature("logits", head="nre"))
    with pytest.raises(SourceFault, match="no head `ner`"):
        dissect(tiny("bert")).site(Feature("logits", head="ner"))
    with pytest.raises(SourceFault, match=r"no module `topic\.clasifier`") as fault:
        anatomy.site(Feature("tap", path="clasifier", head="topic"))
    assert "topic.classifier" in fault.value.help
    with pytest.raises(UsageError, match="no head `nre`"):
        model(heads=("nre",), **INPUTS)
    capture = Capture(model, [Feature("logits", head="ner")])
    with capture.armed():
        output = model(heads=("qa",), **INPUTS)
    with pytest.raises(RunError, match="the head `ner` did not run"):
        capture.collect(output)


def test_names_and_architectures_that_cannot_be():
    """A head may not take the trunk's or torch's names; an architecture without a shared trunk says so."""
    for name in ("bert", "train", "forward"):
        with pytest.raises(SourceFault, match=f"cannot be called `{name}`"):
            headed("bert", {name: NER})
    with pytest.raises(SourceFault, match="trunk") as fault:
        headed("t5", {"ner": NER, "topic": TOPIC})
    assert fault.value.code == "B327"


def test_starting_from_a_checkpoint(tmp_path):
    """The trunk comes from the checkpoint, and so does the head that it holds; a model with heads loads its own."""
    saved = tiny("bert", AutoModelForTokenClassification, num_labels=4)
    saved.save_pretrained(tmp_path / "plain")
    start = ModelDescription(
        "AutoModel", saved.config, Tokens(None), str(tmp_path / "plain"), heads={"ner": NER, "qa": QA}
    )
    model = build_model(start, seed=0)
    assert torch.equal(model.heads["ner"].classifier.weight, saved.classifier.weight)
    assert torch.equal(model.trunk.embeddings.word_embeddings.weight, saved.bert.embeddings.word_embeddings.weight)
    model.save(tmp_path / "run")
    again = build_model(
        ModelDescription("AutoModel", saved.config, Tokens(None), str(tmp_path / "run"), heads={"ner": NER, "qa": QA}),
        seed=7,
        frozen=True,
    )
    assert torch.equal(again.heads["qa"].qa_outputs.weight, model.heads["qa"].qa_outputs.weight)
    with pytest.raises(SourceFault, match="no model with heads"):
        HeadedModel.load(tmp_path / "plain")


def test_modes_and_copies_reach_the_heads():
    """train and eval reach the head models themselves; a copy is one of its own."""
    model = headed("bert").train()
    assert all(head.training and head.bert.training for head in model.heads.values())
    model.eval()
    assert not any(head.training for head in model.heads.values())
    other = copy.deepcopy(model)
    assert other.trunk is not model.trunk
    assert all(head.bert is other.trunk for head in other.heads.values())
    with torch.no_grad():
        other.ner.classifier.weight.zero_()
        other.ner.classifier.bias.zero_()
    assert other(**INPUTS).heads["ner"].logits.abs().sum() == 0
    assert model(**INPUTS).heads["ner"].logits.abs().sum() > 0
    double = model.double()
    assert all(p.dtype == torch.float64 for head in double.heads.values() for p in head.parameters())


def test_inputs_are_those_of_the_trunk():
    """What a batch is filtered by."""
    assert {"input_ids", "attention_mask", "token_type_ids"} <= set(input_names(headed("bert")))
    assert "token_type_ids" not in input_names(headed("distilbert"))
    assert "heads" not in input_names(headed("bert"))
    assert input_names(tiny("bert"))[0] == "input_ids"


def test_heads_from_settings():
    """Counts, names, the data's classes, and the type of problem; nothing that tells the classes is a fault."""
    classes = ("O", "B-PER", "I-PER")
    assert Head.of(TokenClassifier(), classes, TAGS) == Head("AutoModelForTokenClassification", classes)
    assert Head.of(TokenClassifier(labels=3), classes).labels == classes
    assert Head.of(TokenClassifier(labels=2), classes).labels == ("LABEL_0", "LABEL_1")
    assert Head.of(TokenClassifier(labels=("a", "b")), classes).labels == ("a", "b")
    assert Head.of(SequenceClassifier(), ("no", "yes"), CLASSES) == Head(
        "AutoModelForSequenceClassification", ("no", "yes"), "multi_label_classification"
    )
    assert Head.of(SequenceClassifier(), (), VALUE).problem_type == "regression"
    assert Head.of(SequenceClassifier(problem_type="single_label"), ("a",), VALUE).labels == ("a",)
    assert [Head.of(s).auto_class for s in (SpanClassifier(), MaskedLm(), CausalLm())] == [
        "AutoModelForQuestionAnswering", "AutoModelForMaskedLM", "AutoModelForCausalLM",
    ]  # fmt: skip
    with pytest.raises(SourceFault) as fault:
        Head.of(TokenClassifier())
    assert (fault.value.code, fault.value.field) == ("B326", "labels")


def test_configurations_of_heads():
    """Regression has one logit, a span head two whatever the trunk said, and the trunk's configuration stays."""
    trunk = tiny_config("bert", num_labels=3)
    assert Head("AutoModelForSequenceClassification", (), "regression").config(trunk).num_labels == 1
    assert QA.config(trunk).num_labels == 2
    assert NER.config(trunk).label2id["B-LOC"] == 3
    assert trunk.num_labels == 3


def test_a_head_is_built_for_its_classes():
    """`make` gets the configuration of the head, not that of the trunk."""

    def make(name, auto_class, own):
        return auto_class.from_config(own)

    model = build_heads(tiny_config("bert"), {"ner": Head("AutoModelForTokenClassification", ("O", "B"))}, make)
    assert model.heads["ner"].num_labels == 2


def test_weights_do_not_depend_on_the_order_of_heads():
    """One hash, one student: a spec that writes its heads the other way round begins with the same random weights."""
    turned = dict(reversed(CASES["bert"].items()))
    one, other = (build_model(describe_model("bert", heads), seed=3).state_dict() for heads in (CASES["bert"], turned))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
