"""The recipes under specs/papers run as they are, on tiny models and data, and do what their papers say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.display.plan import Plan
from brewgraph.display.plan import text as plan_text
from brewgraph.inspect.plan_of import plan_of
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training import loop
from brewgraph.training.reporter import Reporter
from tests.small import LABELS, rows, save, tokenizer, write_data, write_rows

PAPERS = Path(__file__).parents[2] / "specs" / "papers"
ON_TEXT = ("distilbert", "minilm", "minilm-v2", "mobilebert")
TEXTS = ["a tale of two cities", "it was the best of times", "light", "worst wisdom foolishness"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder, not beside the recipes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREWGRAPH_RUNS", "runs")


@dataclass
class StageSeen:
    """A stage of a run: the student's weights as it began and ended, its projections and averages, what it froze."""

    before: dict[str, Tensor]
    frozen: tuple[str, ...]
    after: dict[str, Tensor] = field(default_factory=dict)
    projections: tuple[str, ...] = ()
    averages: Mapping[str, Any] = field(default_factory=dict)

    def moved(self) -> set[str]:
        """The weights that the stage changed."""
        return {name for name, value in self.before.items() if not torch.equal(value, self.after[name])}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[StageSeen]:
    """What every stage of the runs of a test did to the student."""
    seen: list[StageSeen] = []
    original = loop.frozen

    @contextmanager
    def watching(distiller: Any, what: Sequence[Any], student: str) -> Iterator[None]:
        with original(distiller, what, student):
            stage = StageSeen(weights(distiller.student), tuple(one.path or one.name for one in what))
            seen.append(stage)
            yield
            stage.after = weights(distiller.student)
            stage.projections = tuple(distiller.projections)
            stage.averages = distiller.extra_state()

    monkeypatch.setattr(loop, "frozen", watching)
    return seen


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def recipe(name: str) -> Path:
    """A recipe's file."""
    return PAPERS / f"{name}.brew"


def check_and_plan(name: str, **params: Any) -> tuple[bg.Recipe, Plan]:
    """The recipe, checked without a word against it, and its plan, in which all of its terms stand."""
    checked = check(read_spec(recipe(name)), params)
    # R-Drop is a match whose two sides learn, which is worth a word and is meant
    assert [warning.code for warning in checked.warnings] == (["W204", "W204"] if name == "r-drop" else [])
    plan = plan_of(checked, cost=False)
    said = "\n".join(plan_text(plan))
    assert f"{plan.trainable:,} parameters" in said
    assert all(term in said for part in plan.parts or () for found in part.terms for term in found.names)
    return bg.Recipe(checked), plan


def texts_batch(folder: Path, labels: bool = True) -> dict[str, Tensor]:
    """Four texts of different lengths as the tokenizer of a folder gives them."""
    made = dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))
    return made | {"labels": torch.tensor([0, 2, 1, 1])} if labels else made


def still(distiller: Any) -> Any:
    """The same distiller without dropout."""
    distiller.student.eval()
    return distiller


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """The params `train` and `dev` of a recipe on labelled texts."""
    write_data(tmp_path, train=12, dev=6)
    return {"train": str(tmp_path / "train.jsonl"), "dev": str(tmp_path / "dev.jsonl")}


def models(folder: Path, **settings: Mapping[str, Any]) -> dict[str, str]:
    """Saved classifiers of 128 positions, by the params that name them."""
    made: dict[str, str] = {}
    for seed, (name, own) in enumerate(settings.items()):
        made[name] = str(save(folder / name, seed=seed, max_position_embeddings=128, **own))
    return made


# ── as they are published ────────────────────────────────────────────────────────────────────────────────────────────


_SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
_WIDE = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048}
_TINYBERT = {"hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 1200}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_ROBERTA = {"max_position_embeddings": 514, "pad_token_id": 0}
PUBLISHED: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "bert-pkd": {"teacher": ("bert", {})},
    "distilbert": {"teacher": ("bert", {}), "student": ("distilbert", {})},
    "tinybert": {"teacher": ("bert", {}), "student": ("bert", _TINYBERT)},
    "minilm": {"teacher": ("bert", {})},
    "minilm-v2": {"teacher": ("bert", {})},
    "mobilebert": {"teacher": ("bert", _WIDE), "student": ("mobilebert", {})},
    "three-teachers": {
        "first": ("bert", {}),
        "second": ("roberta", _ROBERTA),
        "third": ("albert", {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}),
        "student": ("bert", _SMALL),
    },
    "ner-words": {"first": ("bert", {}), "second": ("roberta", _LARGE | _ROBERTA), "student": ("distilbert", {})},
    "r-drop": {"student": ("roberta", _LARGE | _ROBERTA)},
    "mean-teacher": {"student": ("bert", _SMALL)},
    "assistant/student": {"large": ("bert", _LARGE), "middle": ("bert", {}), "model": ("bert", _SMALL)},
    "ner-and-qa": {"ner_teacher": ("bert", {}), "qa_teacher": ("bert", {}), "student": ("distilbert", {})},
    "lora-student": {"teacher": ("roberta", _ROBERTA), "student": ("roberta", _ROBERTA | {"num_hidden_layers": 6})},
}
"""The architectures and sizes of the models that the recipes name."""

TRAINED = {
    "distilbert": 66_985_530,  # the published 66 million
    "tinybert": 14_350_248 + (312 + 1) * 3 + 2 * (312 + 1) * 768,  # the published 14.5 million, head and projections
    "lora-student": 6 * 2 * 2 * 8 * 768 + (768 + 1) * 768 + (768 + 1) * 3,
}
"""Parameters that are trained, of recipes whose papers give them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_as_written_fit_the_models_as_published(name: str, tmp_path: Path) -> None:
    """Layers, maps, heads and widths that a recipe has by default are sound for the models that it has by default."""
    params: dict[str, Any] = {}
    for param, (kind, sizes) in PUBLISHED[name].items():
        labels = TAGS if name == "ner-words" or param == "ner_teacher" else LABELS
        config = AutoConfig.for_model(kind, **sizes)
        config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
        config.save_pretrained(tmp_path / param)
        tokenizer().save_pretrained(tmp_path / param)
        params[param] = str(tmp_path / param)
    write_data(tmp_path)
    write_conll(tmp_path / "train.conll", 12, 1)
    write_squad(tmp_path / "train.json", 6, 1)
    (tmp_path / "train.txt").write_text("a tale of two cities\n")
    on = "train.conll" if name == "ner-words" else "train.txt" if name in ON_TEXT else "train.jsonl"
    files = {"train": on, "dev": on, "ner_train": "train.conll", "ner_dev": "train.conll"}
    files |= {"qa_train": "train.json", "qa_dev": "train.json", "unlabelled": "train.jsonl"}
    declared = recipe(name).read_text()
    params |= {param: str(tmp_path / file) for param, file in files.items() if f"param {param} =" in declared}
    loaded, plan = check_and_plan(name, **params)
    assert loaded.graphs
    assert plan.trainable == TRAINED.get(name, plan.trainable)


# ── one student, one teacher ─────────────────────────────────────────────────────────────────────────────────────────


def test_patient_distillation_compares_the_directions_of_first_tokens(tmp_path: Path, data: dict[str, str]) -> None:
    """The student begins as the teacher's first layers; the patient loss is that of the paper, by hand."""
    params = {**data, **models(tmp_path, teacher={"layers": 4}), "batch": 4, "epochs": 1}
    params |= {"depth": 2, "layers": (0, 1), "taught": (2,), "learning": (1,)}
    loaded, _ = check_and_plan("bert-pkd", **params)
    distiller = still(loaded.build())
    big = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    small, (teacher,) = distiller.student, distiller.teachers
    for layer in range(2):
        for name, value in small.bert.encoder.layer[layer].state_dict().items():
            assert torch.equal(value, big.bert.encoder.layer[layer].state_dict()[name])
    with torch.no_grad():
        batch = texts_batch(tmp_path / "teacher")
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        sides = [
            F.normalize(model(**inputs, output_hidden_states=True).hidden_states[layer][:, 0], dim=-1)
            for model, layer in ((teacher, 2), (small, 1))
        ]
        terms = distiller(batch).terms
    patient = (sides[0] - sides[1]).square().sum(-1).mean()
    assert patient > 0.01
    assert float(terms["patient"]) == pytest.approx(float(patient), rel=1e-4)
    result = bg.run(recipe("bert-pkd"), **params)
    assert "accuracy" in result.table[-1].scores


@pytest.mark.slow
def test_tinybert_learns_what_lies_between_and_then_the_prediction(
    tmp_path: Path, data: dict[str, str], stages: list[StageSeen]
) -> None:
    """Stage one leaves the classifier alone and trains two projections for all layers; stage two has none."""
    params = {**data, **models(tmp_path, teacher={"width": 32, "layers": 4}, student={})}
    params |= {"batch": 4, "stride": 2, "epochs": 1, "last_epochs": 1}
    loaded, _ = check_and_plan("tinybert", **params)
    assert [stage for stage, _ in loaded.graphs] == ["intermediate", "prediction"]
    result = bg.run(recipe("tinybert"), **params)
    between, prediction = stages
    assert sorted(between.projections) == ["W_e", "W_h"]
    assert prediction.projections == ("W_e", "W_h") or prediction.projections == ()
    assert "bert.encoder.layer.1.output.dense.weight" in between.moved()
    assert not any(name.startswith(("classifier", "bert.pooler")) for name in between.moved())
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= prediction.moved()
    assert all(torch.equal(between.after[name], prediction.before[name]) for name in between.after)
    assert "accuracy" in result.table[-1].scores


def test_lora_trains_small_matrices_and_the_head(tmp_path: Path, data: dict[str, str], stages: list[StageSeen]) -> None:
    """What was pretrained stays bit-equal; what is saved is one plain model with the product added."""
    params = {**data, **models(tmp_path, teacher={"width": 32}, student={}), "batch": 4, "epochs": 1, "r": 2}
    check_and_plan("lora-student", **params)
    result = bg.run(recipe("lora-student"), **params)
    (stage,) = stages
    assert any("lora_B" in name for name in stage.moved())
    assert all("lora_" in name or name.startswith("classifier") for name in stage.moved())
    saved = AutoModelForSequenceClassification.from_pretrained(result.folder / "student").state_dict()
    before = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").state_dict()
    changed = {name for name, value in saved.items() if not torch.equal(value, before[name])}
    wanted = {f"bert.encoder.layer.{i}.attention.self.{part}.weight" for i in (0, 1) for part in ("query", "value")}
    assert wanted <= changed
    assert all(name in wanted or name.startswith("classifier") for name in changed)


# ── pre-training on plain text ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, str]:
    """The params of a recipe that reads plain text: a file of 24 lines, one of 6."""
    for name, count, seed in (("train", 24, 3), ("dev", 6, 4)):
        (tmp_path / f"{name}.txt").write_text("".join(row["text"] + "\n" for row in rows(count, seed)))
    return {"train": str(tmp_path / "train.txt"), "dev": str(tmp_path / "dev.txt")}


def language_model(folder: Path, kind: str = "bert", *, seed: int = 0, **settings: Any) -> str:
    """A saved masked language model without dropout, with its tokenizer."""
    sizes = {"vocab_size": 120, "pad_token_id": 0, "max_position_embeddings": 64, **LANGUAGE_MODELS[kind], **settings}
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


_QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "bert": _QUIET | {"num_attention_heads": 2, "intermediate_size": 24, "hidden_size": 16, "num_hidden_layers": 4},
    "distilbert": {"n_heads": 2, "hidden_dim": 24, "dim": 16, "n_layers": 2, "dropout": 0.0, "attention_dropout": 0.0},
    "mobilebert": _QUIET
    | {"num_attention_heads": 4, "intermediate_size": 24, "hidden_size": 16, "embedding_size": 8}
    | {"intra_bottleneck_size": 8, "num_feedforward_networks": 1, "num_hidden_layers": 6},
}


def masked_batch(folder: str) -> dict[str, Tensor]:
    """Four texts of different lengths, the second token of each to be guessed."""
    batch = texts_batch(Path(folder), labels=False)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, 1] = batch["input_ids"][:, 1]
    batch["input_ids"][:, 1] = 4
    return batch | {"labels": labels}


@pytest.mark.slow
def test_distilbert_begins_as_the_teachers_layers(
    tmp_path: Path, corpus: dict[str, str], stages: list[StageSeen]
) -> None:
    """Layers 0 and 2 of four are the student's two at its first step; its position embeddings never change."""
    teacher, student = language_model(tmp_path / "teacher"), language_model(tmp_path / "student", "distilbert", seed=1)
    params = {**corpus, "teacher": teacher, "student": student, "layers": (0, 2), "max_length": 16}
    params |= {"batch": 2, "accumulate": 2, "epochs": 1}
    distiller = still(check_and_plan("distilbert", **params)[0].build())
    big, batch = AutoModelForMaskedLM.from_pretrained(teacher), masked_batch(teacher)
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    real, (ours,) = batch["attention_mask"].bool(), distiller.teachers
    with torch.no_grad():
        out = distiller(batch)
        one, other = (model(**inputs, output_hidden_states=True) for model in (ours, distiller.student))
        soft = F.kl_div((other.logits / 2).log_softmax(-1), (one.logits / 2).softmax(-1), reduction="none").sum(-1)
        angle = 1 - F.cosine_similarity(one.hidden_states[-1], other.hidden_states[-1], dim=-1)
    assert float(out.terms["soft"]) == pytest.approx(4 * float(soft[real].mean()), rel=1e-4)
    assert float(out.terms["angle"]) == pytest.approx(float(angle[real].mean()), rel=1e-4)
    assert float(out.terms["masked"]) == pytest.approx(
        float(F.cross_entropy(other.logits[:, 1], batch["labels"][:, 1]))
    )
    weighted = 5 * out.terms["soft"] + 2 * out.terms["masked"] + out.terms["angle"]
    assert float(out.loss) == pytest.approx(float(weighted), rel=1e-5)
    result = bg.run(recipe("distilbert"), **params)
    (stage,) = stages
    for own, theirs in ((0, 0), (1, 2)):
        for part, name in (("attention.q_lin", "attention.self.query"), ("ffn.lin2", "output.dense")):
            found = stage.before[f"distilbert.transformer.layer.{own}.{part}.weight"]
            assert torch.equal(found, big.state_dict()[f"bert.encoder.layer.{theirs}.{name}.weight"])
    positions = "distilbert.embeddings.position_embeddings.weight"
    assert torch.equal(stage.after[positions], big.state_dict()["bert.embeddings.position_embeddings.weight"])
    assert "distilbert.transformer.layer.1.ffn.lin2.weight" in stage.moved()
    assert positions not in stage.moved()
    assert result.table[-1].scores.keys() >= {"perplexity"}
    AutoModelForMaskedLM.from_pretrained(result.folder / "student")


def attend(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The attention of a BERT's last layer, and the queries, keys and values that it is made from (B, L, H)."""
    layer = model.base_model.encoder.layer[-1].attention.self
    found: dict[str, Tensor] = {}
    hooks = [
        getattr(layer, part).register_forward_hook(lambda _, __, out, part=part: found.__setitem__(part, out))
        for part in ("query", "key", "value")
    ]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    count = model.config.num_attention_heads
    q, k = (found[part].unflatten(-1, (count, -1)).transpose(1, 2) for part in ("query", "key"))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    hidden = ~inputs["attention_mask"].bool()[:, None, None]
    return scores.masked_fill(hidden, -torch.inf).softmax(-1), found


def related(x: Tensor, mask: Tensor, heads: int) -> Tensor:
    """softmax(x xᵀ / √d) in so many heads, over the tokens that are no padding."""
    split = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    return scores.masked_fill(~mask.bool()[:, None, None], -torch.inf).softmax(-1)


def divergence(p: Tensor, q: Tensor, mask: Tensor) -> float:
    """KL, averaged over heads and real tokens."""
    apart = torch.where(p > 0, p * (p.clamp_min(1e-30).log() - q.clamp_min(1e-30).log()), 0).sum(-1).mean(1)
    return float(apart[mask.bool()].mean())


@pytest.mark.parametrize("name", ["minilm", "minilm-v2"])
def test_minilm_compares_relations_of_the_last_layer(name: str, tmp_path: Path, corpus: dict[str, str]) -> None:
    """Attention and value relations, or relations of queries, keys and values in four heads: by hand, no projection."""
    teacher = language_model(tmp_path / "teacher", hidden_size=32)
    params = {**corpus, "teacher": teacher, "layers": 2, "width": 16, "inner": 24, "max_length": 16}
    params |= {"batch": 4, "steps": 2}
    if name == "minilm-v2":
        params |= {"layer": 3, "heads": 1, "relation_heads": 4}
    distiller = still(check_and_plan(name, **params)[0].build())
    batch = texts_batch(Path(teacher), labels=False)
    mask = batch["attention_mask"]
    with torch.no_grad():
        (one, ours), (other, theirs) = (attend(model, batch) for model in (*distiller.teachers, distiller.student))
        terms = {term: float(value) for term, value in distiller(batch).terms.items()}
    heads = 2 if name == "minilm" else 4
    made = {part: [related(side[part], mask, heads) for side in (ours, theirs)] for part in ours}
    wanted = {
        "values": divergence(*made["value"], mask),
        "attention": divergence(one, other, mask),
        "queries": divergence(*made["query"], mask),
        "keys": divergence(*made["key"], mask),
    }
    assert terms.keys() == ({"attention", "values"} if name == "minilm" else {"queries", "keys", "values"})
    assert terms == pytest.approx({term: wanted[term] for term in terms}, rel=1e-3)
    result = bg.run(recipe(name), **params)
    assert not (result.folder / "projections.safetensors").exists()
    assert AutoConfig.from_pretrained(result.folder / "student").num_hidden_layers == 2


@pytest.mark.slow
def test_mobilebert_learns_layer_by_layer(tmp_path: Path, corpus: dict[str, str], stages: list[StageSeen]) -> None:
    """What lies below a stage's layer is bit-equal in that stage, that layer moves; the last stage moves everything."""
    teacher = language_model(tmp_path / "teacher", num_hidden_layers=4)
    student = language_model(tmp_path / "student", "mobilebert", seed=1)
    params = {**corpus, "teacher": teacher, "student": student, "heads": 2, "stride": 1, "max_length": 16}
    params |= {"batch": 4, "transfer": 2, "pretrain": 2}
    loaded, _ = check_and_plan("mobilebert", **params)
    assert [stage for stage, _ in loaded.graphs] == ["first", "second", "third", "fourth", "pretraining"]
    bg.run(recipe("mobilebert"), **params)
    layers = [f"mobilebert.encoder.layer.{i}." for i in range(4)]
    for i, stage in enumerate(stages[:4]):
        moved = stage.moved()
        assert any(name.startswith(layers[i]) for name in moved)
        for below in ("mobilebert.embeddings.", *layers[:i]) if i else ():
            assert not any(name.startswith(below) for name in moved)
        for above in (*layers[i + 1 :], "cls."):
            assert not any(name.startswith(above) for name in moved - {"cls.predictions.decoder.weight"})
    last = stages[4].moved()
    for part in ("mobilebert.embeddings.", *layers, "cls."):
        assert any(name.startswith(part) for name in last)


# ── several teachers ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_trust_is_a_share_per_example_that_follows_the_losses(tmp_path: Path, data: dict[str, str]) -> None:
    """Trust sums to one and is the softmax of minus each teacher's loss, example by example, as is the soft loss."""
    named = models(tmp_path, first={"width": 32}, second={"kind": "electra"}, third={"kind": "distilbert"}, student={})
    params = {**data, **named, "batch": 4, "epochs": 1, "sharpness": 30}
    loaded, _ = check_and_plan("three-teachers", **params)
    distiller, batch = still(loaded.build()), texts_batch(tmp_path / "first")
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = [model(**inputs).logits for model in (*distiller.teachers, distiller.student)]
        losses = torch.stack([F.cross_entropy(x, batch["labels"], reduction="none") for x in logits[:3]])
        trust = (-30 * losses).softmax(0)
        apart = torch.stack(
            [
                16 * F.kl_div((logits[3] / 4).log_softmax(-1), (x / 4).softmax(-1), reduction="none").sum(-1)
                for x in logits[:3]
            ]
        )
        found, reported = distiller(batch).terms, distiller.report(batch)
    assert float(found["soft"]) == pytest.approx(float((trust * apart).sum(0).mean()), rel=1e-4)
    shares = [float(value) for value in reported.values()]
    assert shares == pytest.approx(trust.mean(1).tolist(), rel=1e-4)
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert max(shares) - min(shares) > 0.05
    bg.run(recipe("three-teachers"), **params)


TAGS = ("O", "B-CITY", "I-CITY", "B-TIME", "I-TIME")
_TAG_OF = {"tale": "B-CITY", "times": "B-TIME", "season": "B-TIME"}


def write_conll(path: Path, count: int, seed: int) -> str:
    """Sentences with a tag for each word, which follows from the word."""
    sentences = ["tale cities season", *(row["text"] for row in rows(count - 1, seed))]
    blocks = []
    for text in sentences:
        pairs = zip(["", *text.split()], text.split(), strict=False)
        tags = [
            (word, "I-CITY" if (before, word) == ("tale", "cities") else _TAG_OF.get(word, "O"))
            for before, word in pairs
        ]
        blocks.append("".join(f"{word} {tag}\n" for word, tag in tags))
    path.write_text("\n".join(blocks))
    return str(path)


def tagger(folder: Path, vocab_size: int = 120, *, seed: int = 0, **settings: Any) -> str:
    """A saved token classifier over `TAGS` without dropout, with a tokenizer of so many tokens at most."""
    sizes = (
        LANGUAGE_MODELS["bert"]
        | {"vocab_size": 120, "pad_token_id": 0, "num_hidden_layers": 2, "max_position_embeddings": 160}
        | settings
    )
    config = AutoConfig.for_model("bert", **sizes)
    config.id2label, config.label2id = dict(enumerate(TAGS)), {tag: n for n, tag in enumerate(TAGS)}
    torch.manual_seed(seed)
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    tokenizer(vocab_size).save_pretrained(folder)
    return str(folder)


def first_tokens(folder: str, model: nn.Module, words: Sequence[str]) -> Tensor:
    """A model's logits at the first token of each word (W, C)."""
    encoded = AutoTokenizer.from_pretrained(folder)(list(words), is_split_into_words=True, return_tensors="pt")
    ids = encoded.word_ids(0)
    logits: Tensor = model(**encoded).logits[0]
    return logits[[ids.index(i) for i in range(len(words))]]


@pytest.mark.slow
def test_teachers_of_other_tokenizers_meet_the_student_at_words(tmp_path: Path) -> None:
    """Three tokenizers cut the same words differently; the soft loss compares the first token of each word, by hand."""
    named = {
        "first": tagger(tmp_path / "first", 60, seed=1),
        "second": tagger(tmp_path / "second", 40, seed=2),
        "student": tagger(tmp_path / "student", 120, seed=3, hidden_size=8),
    }
    params = {
        "train": write_conll(tmp_path / "train.conll", 12, 1), "dev": write_conll(tmp_path / "dev.conll", 6, 2)
    }  # fmt: skip
    params = {**params, **named, "batch": 4, "epochs": 1, "max_length": 160}
    lengths = {len(AutoTokenizer.from_pretrained(path)("foolishness wisdom").input_ids) for path in named.values()}
    assert len(lengths) == 3
    check_and_plan("ner-words", **params)
    checked = check(read_spec(recipe("ner-words")), params)
    builder = SpecBuilder(checked)
    (stage,) = checked.recipe.stages
    material = DataCache(builder).material(checked, stage, stage.tasks[0])
    batch = next(iter(material.feeds["ner"].batches(0)))
    distiller = still(builder.distiller())
    train = builder.examples("ner").splits["train"]
    found: list[Tensor] = []
    with torch.no_grad():
        for i in batch["index"].tolist():
            words = train[i]["words"]
            a, b, small = (
                first_tokens(named[param], builder.model(model), words) / 8
                for param, model in (("first", "a"), ("second", "b"), ("student", "small"))
            )
            apart = [F.kl_div(small.log_softmax(-1), x.softmax(-1), reduction="none").sum(-1) for x in (a, b)]
            found.append(64 * torch.stack(apart).mean(0))
        terms = distiller(batch).terms
    assert float(terms["soft"]) == pytest.approx(float(torch.cat(found).mean()), rel=1e-4)
    result = bg.run(recipe("ner-words"), **params)
    assert "f1" in result.table[-1].scores
    saved = AutoModelForTokenClassification.from_pretrained(result.folder / "student")
    assert tuple(saved.config.id2label.values()) == TAGS


def write_squad(path: Path, count: int, seed: int) -> str:
    """Questions whose answer is the last word of their text."""
    paragraphs = []
    for i, row in enumerate(rows(count, seed)):
        start = row["text"].rfind(" ") + 1
        answer = {"text": row["text"][start:], "answer_start": start}
        paragraphs.append(
            {"context": row["text"], "qas": [{"id": f"{seed}-{i}", "question": "what light", "answers": [answer]}]}
        )
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "tale", "paragraphs": paragraphs}]}))
    return str(path)


def assert_padding_does_not_count(params: Mapping[str, Any]) -> None:
    """The losses of both tasks stay the same when every example gets more padding."""
    checked = check(read_spec(recipe("ner-and-qa")), params)
    builder = SpecBuilder(checked)
    (stage,) = checked.recipe.stages
    distiller = still(builder.distiller())
    for task, fill in ((stage.tasks[0], -100), (stage.tasks[1], 0)):
        batch = next(iter(DataCache(builder).material(checked, stage, task).feeds[f"{task.name}.d"].batches(0)))
        longer = {
            name: F.pad(x, (0,) * (2 * x.dim() - 3) + (5,), value=fill if name == "labels" else 0) if x.dim() > 1 else x
            for name, x in batch.items()
        }
        assert longer["input_ids"].shape[1] == batch["input_ids"].shape[1] + 5
        with torch.no_grad():
            found, wanted = (distiller(b, task=task.name).terms for b in (longer, batch))
        assert {k: float(v) for k, v in found.items()} == pytest.approx(
            {k: float(v) for k, v in wanted.items()}, rel=1e-5
        )


@pytest.mark.slow
def test_two_tasks_share_a_trunk_and_anneal_their_teachers(tmp_path: Path) -> None:
    """Both tasks are evaluated, each head is a plain model of its own; teachers count at first, labels in the end."""
    reader = tmp_path / "reader"
    torch.manual_seed(5)
    sizes = LANGUAGE_MODELS["bert"] | {"vocab_size": 120, "pad_token_id": 0}
    AutoModelForQuestionAnswering.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(reader)
    tokenizer().save_pretrained(reader)
    params = {
        "ner_teacher": tagger(tmp_path / "tagger", seed=1),
        "qa_teacher": str(reader),
        "student": language_model(tmp_path / "student", hidden_size=8, num_hidden_layers=2),
        "ner_train": write_conll(tmp_path / "train.conll", 16, 1),
        "ner_dev": write_conll(tmp_path / "dev.conll", 6, 2),
        "qa_train": write_squad(tmp_path / "train.json", 12, 3),
        "qa_dev": write_squad(tmp_path / "dev.json", 6, 4),
        "max_length": 32,
        "stride": 4,
        "batch": 4,
        "epochs": 2,
    }
    loaded, _ = check_and_plan("ner-and-qa", **params)
    assert [task for _, task in loaded.graphs] == ["ner", "qa"]
    distiller = loaded.build()
    assert distiller.weights("ner") == pytest.approx({"ner/soft": 1, "ner/hard": 0})
    distiller.progress = 0.75
    assert distiller.weights("qa") == pytest.approx({"qa/soft": 0.125, "qa/hard": 0.375})
    assert_padding_does_not_count(params)
    result = bg.run(recipe("ner-and-qa"), **params)
    assert result.table[-1].scores.keys() >= {"ner/f1", "qa/f1", "qa/exact_match"}
    assert result.table[-1].size == 4 * result.table[-1].parameters  # the trunk counts once, though it is saved twice
    classes = {"ner": AutoModelForTokenClassification, "qa": AutoModelForQuestionAnswering}
    heads = {name: auto.from_pretrained(result.folder / "student" / name) for name, auto in classes.items()}
    assert tuple(heads["ner"].config.id2label.values()) == TAGS
    trunks = [head.bert.encoder.state_dict() for head in heads.values()]
    assert all(torch.equal(value, trunks[1][name]) for name, value in trunks[0].items())
    assert AutoTokenizer.from_pretrained(result.folder / "student" / "qa")("best of times").input_ids


# ── a student that teaches itself ────────────────────────────────────────────────────────────────────────────────────


def test_r_drop_passes_differ_by_their_dropout_alone(tmp_path: Path, data: dict[str, str]) -> None:
    """Both passes disagree under dropout and agree without; the loss is the sum that the paper prints."""
    params = {**data, **models(tmp_path, student={"dropout": True}), "batch": 4, "epochs": 1, "alpha": 2.0}
    loaded, _ = check_and_plan("r-drop", **params)
    distiller, batch = loaded.build(), texts_batch(tmp_path / "student")
    torch.manual_seed(0)
    with torch.no_grad():
        out = distiller(batch)
        quiet = still(distiller)(batch)
        logits = distiller.student(**batch).logits
    assert float(out.terms["same"]) > 1e-3
    assert float(out.loss) == pytest.approx(float(out.terms["likely"] + 2 * out.terms["same"]), rel=1e-5)
    assert float(quiet.terms["same"]) == pytest.approx(0, abs=1e-7)
    assert float(quiet.terms["likely"]) == pytest.approx(2 * float(F.cross_entropy(logits, batch["labels"])), rel=1e-5)
    result = bg.run(recipe("r-drop"), **params)
    assert "accuracy" in result.table[-1].scores


def test_the_mean_teacher_lies_between_where_the_student_was_and_is(
    tmp_path: Path, data: dict[str, str], stages: list[StageSeen]
) -> None:
    """After training the average is neither the first student nor the last, and nearer to the first."""
    write_rows(tmp_path / "more.jsonl", [{"text": row["text"]} for row in rows(24, seed=7)])
    params = {**data, **models(tmp_path, student={"dropout": True}), "unlabelled": str(tmp_path / "more.jsonl")}
    params |= {"batch": 4, "epochs": 1, "decay": 0.6}
    loaded, _ = check_and_plan("mean-teacher", **params)
    assert set(loaded._checked.recipe.stages[0].tasks[0].data) == {"d", "more"}
    result = bg.run(recipe("mean-teacher"), **params)
    (stage,) = stages
    average = stage.averages["average"]
    for name in stage.moved():
        then, now, mean = stage.before[name], stage.after[name], average[f"module.{name}"]
        assert 0 < (mean - now).norm() < (then - now).norm()
        assert 0 < (mean - then).norm() < (then - now).norm() * 1.01
    saved = load_file(result.folder / "student" / "model.safetensors")
    assert torch.equal(saved["classifier.weight"], stage.after["classifier.weight"])


# ── a chain ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Names(Reporter):
    """Remembers what was trained."""

    def __init__(self) -> None:
        self.trained: list[str] = []

    def begin(self, name: str, steps: int, done: int) -> None:
        self.trained.append(name)


@pytest.mark.slow
def test_the_chain_trains_three_models_once(tmp_path: Path, data: dict[str, str]) -> None:
    """Teacher, assistant, student, in this order; another temperature trains the last two anew and not the teacher."""
    named = models(tmp_path, large={"width": 32}, middle={}, model={"layers": 1})
    params = {**data, **named, "batch": 4, "epochs": 1}
    check_and_plan("assistant/student", **params)
    reporter = Names()
    first = bg.run(recipe("assistant/student"), reporter=reporter, **params)
    assert reporter.trained == ["teacher", "assistant", "student"]
    assert sorted(p.name.rsplit("-", 1)[0] for p in Path("runs").iterdir()) == ["assistant", "student", "teacher"]
    assert [row.name for row in first.table] == ["assistant", "small"]
    bg.run(recipe("assistant/student"), reporter=reporter, **params)
    assert len(reporter.trained) == 3
    bg.run(recipe("assistant/student"), reporter=reporter, **params, T=2)
    assert reporter.trained[3:] == ["assistant", "student"]
