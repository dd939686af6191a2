"""Blueprints: which head, which configuration, which revision."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import transformers
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from brewgraph.diagnostics import SourceFault
from brewgraph.models import description as module
from brewgraph.models import tokenization as tokens
from brewgraph.models.description import ModelDescription, describe_model
from brewgraph.models.loading import build_model
from brewgraph.models.task_heads import Head, task_of
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import CLASS, LABEL_TYPES, TAGS
from brewgraph.recipe.settings.model_sources import Bigru, Hf, Lora
from tests.models.tiny import tiny, tiny_config

LOGITS = [Feature("logits"), Feature("hidden", 1)]


class Words(dict):
    """A tokenizer of one word, as far as a description asks."""

    pad_token_id = 0
    all_special_tokens = ()
    vocab_files_names: ClassVar[dict] = {}

    def get_vocab(self) -> dict:
        return self


TOKENS = Words(word=1)


def made(
    source: Hf, role: str = "student", folder: Path = Path("."), features=LOGITS, classes=(), label_types=(), **more
) -> ModelDescription:
    given = {"role": role, "folder": folder, "features": features, "classes": classes, **more}
    return describe_model(source, inherited=None, label_types={LABEL_TYPES[name] for name in label_types}, **given)


@pytest.mark.parametrize(
    ("features", "label_types", "architectures", "task"),
    [
        (["logits"], ["class"], [], "sequence-classification"),
        (["logits"], ["classes"], ["BertForMaskedLM"], "sequence-classification"),
        (["logits"], ["value"], [], "sequence-classification"),
        (["logits"], ["class", "value"], [], "sequence-classification"),
        (["logits"], ["tags"], ["BertModel"], "token-classification"),
        (["logits"], ["next"], [], "causal-lm"),
        (["logits"], ["masked"], [], "masked-lm"),
        (["start"], ["spans"], [], "question-answering"),
        (["logits"], ["spans"], [], "question-answering"),
        (["end", "hidden"], [], [], "question-answering"),
        (["logits"], [], ["BertForTokenClassification"], "token-classification"),
        (["logits"], [""], ["DistilBertForMaskedLM"], "masked-lm"),
        (["logits"], [], ["LlamaForCausalLM"], "causal-lm"),
        (["logits"], [], ["GPT2LMHeadModel"], "causal-lm"),
        (["logits"], [], ["XLMWithLMHeadModel"], "masked-lm"),
        (["logits"], [], ["BertModel"], "sequence-classification"),
        (["logits"], [], [], "sequence-classification"),
        (["hidden"], ["class"], ["BertForSequenceClassification"], "features"),
        ([], [], [], "features"),
    ],
)
def test_which_head(features, label_types, architectures, task):
    """Labels first, then what the checkpoint is; no head where nothing of one is taken."""
    types = [LABEL_TYPES[name] for name in label_types]
    assert task_of([Feature(name) for name in features], types, architectures) == task


def test_labels_of_two_heads():
    """One head cannot learn tags and classes both."""
    with pytest.raises(SourceFault, match="`class` and `tags` need a head each") as fault:
        task_of([Feature("logits")], [TAGS, CLASS])
    assert fault.value.code == "B333"
    assert "head ner = token_classifier()" in fault.value.help


BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}


@pytest.mark.parametrize(
    ("label_type", "classes", "auto_class", "count", "problem", "labels"),
    [
        ("class", ("no", "yes", "?"), "SequenceClassification", 3, "single_label_classification", ("no", "yes", "?")),
        ("classes", ("a", "b", "c", "d"), "SequenceClassification", 4, "multi_label_classification", tuple("abcd")),
        ("value", (), "SequenceClassification", 1, "regression", ()),
        ("tags", ("O", "B-PER", "I-PER"), "TokenClassification", 3, None, ("O", "B-PER", "I-PER")),
        ("spans", (), "QuestionAnswering", 2, None, ()),
        ("masked", (), "MaskedLM", 2, None, ()),
        ("next", (), "CausalLM", 2, None, ()),
    ],
)
def test_configuration_follows_the_labels(label_type, classes, auto_class, count, problem, labels):
    """Class, number of logits and type of problem, for a model from scratch."""
    features = [Feature("start")] if label_type == "spans" else LOGITS
    plan = made(Hf(model_type="bert", config=BERT), features=features, classes=classes, label_types={label_type})
    assert plan.auto_class == f"AutoModelFor{auto_class}"
    assert (plan.config.num_labels, plan.config.problem_type) == (count, problem)
    assert plan.labels == labels


def test_head_of_a_checkpoint(tmp_path):
    """Without labels the checkpoint's own class decides; a new task gives it a new head of the data's classes."""
    tiny("bert", AutoModelForMaskedLM).save_pretrained(tmp_path)
    source = Hf(name=str(tmp_path))
    assert made(source, "teacher").auto_class == "AutoModelForMaskedLM"
    plan = made(source, classes=("O", "B"), label_types={"tags"})
    assert (plan.auto_class, plan.labels) == ("AutoModelForTokenClassification", ("O", "B"))
    assert made(source, features=[Feature("end")], label_types={"spans"}).config.num_labels == 2
    assert made(Hf(name=str(tmp_path), task="features"), label_types={"tags"}).auto_class == "AutoModel"


def test_a_teachers_head_stays_what_it_is(tmp_path):
    """Neither the number of its logits nor its classes are changed by the data's."""
    tiny("bert", AutoModelForSequenceClassification).save_pretrained(tmp_path)
    plan = made(Hf(name=str(tmp_path)), "teacher", classes=("a", "b"), label_types={"value"})
    assert (plan.config.num_labels, plan.config.problem_type) == (3, None)


def test_heads_and_adapter_are_carried(tmp_path):
    """With heads the trunk's class is plain AutoModel, and the trunk's classes stay."""
    tiny("bert", AutoModelForSequenceClassification).save_pretrained(tmp_path)
    heads = {"ner": Head("AutoModelForTokenClassification", ("O", "B"))}
    plan = made(
        Hf(name=str(tmp_path), adapter=Lora(r=2)), classes=("a", "b"), label_types={"tags", "class"}, heads=heads
    )
    assert (plan.auto_class, plan.heads, plan.adapter) == ("AutoModel", heads, Lora(r=2))
    assert plan.labels == ()
    built = build_model(plan, seed=0)
    assert built.heads["ner"].num_labels == 2
    assert built.trunk.encoder.layer[0].attention.self.query.lora_A["default"].weight.shape == (2, 32)


def test_an_adapter_needs_weights_to_stand_beside():
    """From scratch, frozen weights would be noise."""
    with pytest.raises(SourceFault, match="needs pretrained weights") as fault:
        made(Hf(model_type="bert", adapter=Lora()))
    assert (fault.value.code, fault.value.field) == ("B329", "adapter")


def test_bigru_is_an_architecture_like_others():
    """`bigru(...)` and `hf(model_type="bigru", ...)` are the same model; a misspelt size gets a suggestion."""
    sizes = {"hidden_size": 8, "embedding_size": 12}
    one = made(Bigru(**sizes), classes=("no", "yes"), label_types={"class"})
    two = made(Hf(model_type="bigru", config=sizes), classes=("no", "yes"), label_types={"class"})
    assert one.config.to_dict() == two.config.to_dict()
    assert type(build_model(one, seed=0)).__name__ == "BigruForSequenceClassification"
    with pytest.raises(SourceFault, match="no `hiden_size`") as fault:
        made(Bigru(config={"hiden_size": 8}))
    assert "did you mean `hidden_size`" in fault.value.help


@pytest.fixture
def asked(monkeypatch):
    """What from_pretrained of configuration, weights and tokenizer is asked for: (what, name, revision)."""
    found: list[tuple[str, str, str | None]] = []

    def recording(what, answer):
        def from_pretrained(name, *args, revision=None, **kwargs):
            found.append((what, name, revision))
            return answer()

        return from_pretrained

    def weights():
        raise OSError("no download in a test")

    monkeypatch.setattr(AutoConfig, "from_pretrained", recording("config", lambda: tiny_config("bert")))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", recording("tokenizer", lambda: TOKENS))
    for auto_class in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification"):
        monkeypatch.setattr(getattr(transformers, auto_class), "from_pretrained", recording("weights", weights))
    module._read_config.cache_clear()
    tokens._load_tokenizer.cache_clear()
    yield found
    module._read_config.cache_clear()
    tokens._load_tokenizer.cache_clear()


def test_revision_goes_everywhere(asked):
    """To the configuration, the weights and the tokenizer; none of them asks for the newest instead."""
    plan = made(Hf(name="some/model", revision="v2"), classes=("a", "b"), label_types={"class"})
    plan.tokens.load()
    with pytest.raises(SourceFault, match="no weights"):
        build_model(plan, seed=0)
    assert asked == [(what, "some/model", "v2") for what in ("config", "tokenizer", "weights")]


def test_revision_goes_to_every_head(asked):
    """A model with heads loads its first head's weights of the same revision."""
    heads = {"ner": Head("AutoModelForTokenClassification", ("O", "B"))}
    plan = made(Hf(name="some/model", revision="v2"), heads=heads)
    with pytest.raises(SourceFault, match="no weights"):
        build_model(plan, seed=0)
    assert asked == [("config", "some/model", "v2"), ("weights", "some/model", "v2")]


def test_revision_is_of_one_repository(asked):
    """A tokenizer from elsewhere is not asked for the model's revision; the same name is."""
    for tokenizer, revision in (("other/words", None), ("some/model", "v2")):
        made(Hf(name="some/model", revision="v2", tokenizer=tokenizer)).tokens.load()
        assert asked[-1] == ("tokenizer", tokenizer, revision)


def test_a_list_of_a_spec_is_a_list_of_the_configuration(tmp_path: Path) -> None:
    """Values of a spec are tuples, which transformers' checks of types refuse; from scratch and over a folder's own."""
    types = ("full_attention", "sliding_attention")
    sizes = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "layer_types": types}
    fresh = made(Hf(model_type="modernbert", config=sizes))
    assert fresh.config.layer_types == list(types)
    fresh.config.save_pretrained(tmp_path / "m")
    changed = made(Hf(name=str(tmp_path / "m"), pretrained=False, config={"layer_types": types[::-1]}))
    assert changed.config.layer_types == list(types[::-1])


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma2", "gemma3_text", "modernbert", "smollm3"])
@pytest.mark.parametrize("layers", [2, 6])
def test_kinds_of_layers_follow_their_number(tmp_path: Path, kind: str, layers: int) -> None:
    """A configuration of four layers that names the kind of each has two, or six, and can be saved and loaded."""
    small = AutoConfig.for_model(kind, num_hidden_layers=4, hidden_size=32, num_attention_heads=2, vocab_size=50)
    small.save_pretrained(tmp_path)
    config = made(Hf(name=str(tmp_path), pretrained=False, config={"num_hidden_layers": layers}), role="teacher").config
    assert len(config.layer_types) == layers
    assert config.layer_types[:4] == small.layer_types[:layers]
    config.save_pretrained(tmp_path / "again")
    assert AutoConfig.from_pretrained(tmp_path / "again").layer_types == config.layer_types


def test_kinds_of_another_number_of_layers_are_a_fault(tmp_path: Path) -> None:
    AutoConfig.for_model("qwen2", num_hidden_layers=4, hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path)
    asked = {"num_hidden_layers": 2, "layer_types": ("full_attention",) * 3}
    with pytest.raises(SourceFault, match="refuses this configuration: .*layer_types"):
        made(Hf(name=str(tmp_path), config=asked), role="teacher")
