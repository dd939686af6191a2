"""The recipes under specs/papers run as they are, on tiny models and data, and do what their papers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import brewgraph as bg
from brewgraph.training import loop
from brewgraph.training.reporter import Reporter
from tests.project.small import metrics, rows, save, tokenizer, write_data, write_rows

PAPERS = Path(__file__).parents[2] / "specs" / "papers"
TEXTS = ["a tale of two cities", "it was the best of times", "light", "worst wisdom foolishness"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


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


def check_and_plan(name: str, **params: Any) -> bg.LoadedRecipe:
    """The recipe, checked without a word against it and planned for every stage and task."""
    loaded = bg.load(recipe(name), **params)
    assert loaded.graphs
    return loaded


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


# ── one student, one teacher ─────────────────────────────────────────────────────────────────────────────────────────


def test_patient_distillation_compares_the_directions_of_first_tokens(tmp_path: Path, data: dict[str, str]) -> None:
    """The student begins as the teacher's first layers; the patient loss is that of the paper, by hand."""
    params = {**data, **models(tmp_path, teacher={"layers": 4}), "batch": 4, "epochs": 1}
    params |= {"depth": 2, "layers": (0, 1), "taught": (2,), "learning": (1,)}
    loaded = check_and_plan("bert-pkd", **params)
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


def test_tinybert_learns_what_lies_between_and_then_the_prediction(
    tmp_path: Path, data: dict[str, str], stages: list[StageSeen]
) -> None:
    """Stage one leaves the classifier alone and trains two projections for all layers; stage two has none."""
    params = {**data, **models(tmp_path, teacher={"width": 32, "layers": 4}, student={})}
    params |= {"batch": 4, "stride": 2, "epochs": 1, "last_epochs": 1}
    loaded = check_and_plan("tinybert", **params)
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


def test_lora_trains_small_matrices_and_the_head(
    tmp_path: Path, data: dict[str, str], stages: list[StageSeen]
) -> None:
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


# ── several teachers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_trust_is_a_share_per_example_that_follows_the_losses(tmp_path: Path, data: dict[str, str]) -> None:
    """Trust sums to one and is the softmax of minus each teacher's loss, example by example, as is the soft loss."""
    named = models(tmp_path, first={"width": 32}, second={"kind": "electra"}, third={"kind": "distilbert"}, student={})
    params = {**data, **named, "batch": 4, "epochs": 1, "sharpness": 30}
    loaded = check_and_plan("three-teachers", **params)
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


# ── a student that teaches itself ────────────────────────────────────────────────────────────────────────────────────


def test_r_drop_passes_differ_by_their_dropout_alone(tmp_path: Path, data: dict[str, str]) -> None:
    """Both passes disagree under dropout and agree without; the loss is the sum that the paper prints."""
    params = {**data, **models(tmp_path, student={"dropout": True}), "batch": 4, "epochs": 1, "alpha": 2.0}
    loaded = bg.load(recipe("r-drop"), **params)
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
    loaded = check_and_plan("mean-teacher", **params)
    assert set(loaded.recipe.stages[0].tasks[0].data) == {"d", "more"}
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
