"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM

from brewgraph.ops import OPERATIONS
from tests.small import metrics

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples import each other as scripts do; operations that they register are gone afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    known = dict(OPERATIONS)
    yield
    for name in OPERATIONS.keys() - known.keys():
        del OPERATIONS[name]
    for name in ("own_loop", "task"):
        sys.modules.pop(name, None)


def example(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_loop() -> None:
    """The loss falls in a plain torch loop."""
    losses = example("own_loop").main()
    assert losses[-1] < 0.8 * losses[0]


def test_own_loss() -> None:
    """A loss declared in the example works in a spec, and leaves padding out."""
    module = example("own_loss")
    first = module.main()
    assert first > 0
    assert OPERATIONS["huber"].takes == {("hidden", "hidden"): "token"}
    assert torch.equal(first, module.main())


NOISY = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
LOOPS = ("plain", "with_accelerate", "with_trainer", pytest.param("with_lightning", marks=NOISY))


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_has_the_losses_of_the_run(
    name: str, run_losses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Plain, accelerate, Trainer and Lightning, from the same seeds on the batches of the run: equal to the last digit."""
    if name == "with_lightning":
        pytest.importorskip("lightning")
    monkeypatch.syspath_prepend(str(EXAMPLES / "loops"))
    assert example(f"loops/{name}").main(tmp_path) == run_losses


@pytest.fixture(scope="module")
def run_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of `recipe.run()` on the spec of the loops."""
    recipe = example("loops/task").load(tmp_path_factory.mktemp("loops"))
    assert recipe.warnings == ()
    lines = metrics(recipe.run().folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2
    return losses


@pytest.fixture(scope="module")
def trainer_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, Any, Any, Path]:
    """The Trainer example: its module, trainers after an uninterrupted run and after one resumed at step 2, their folder."""
    module, folder = example("transformers_trainer"), tmp_path_factory.mktemp("trainer")

    def trainer(name: str) -> Any:
        made = module.make_trainer(folder / name)
        made.args.learning_rate = 0.05  # the cross-entropy rises after step 2: the best checkpoint is not the last
        return made

    whole, resumed = trainer("whole"), trainer("resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-2"))
    return module, whole, resumed, folder


def by_hand(student: torch.nn.Module, rows: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Cross-entropy and accuracy at the labelled positions, row by row."""
    losses, hits = [], []
    with torch.no_grad():
        for row in rows:
            logits = student(row["input_ids"][None], attention_mask=row["attention_mask"][None]).logits[0]
            losses.append(torch.nn.functional.cross_entropy(logits, row["labels"], reduction="sum"))
            hits.append((logits.argmax(-1) == row["labels"]).sum())
    count = sum(int((row["labels"] != -100).sum()) for row in rows)
    return {"cross_entropy": float(sum(losses)) / count, "accuracy": int(sum(hits)) / count}


def test_transformers_trainer_metrics(trainer_runs: tuple[ModuleType, Any, Any, Path]) -> None:
    """Predictions are the student's logits; metrics equal a computation by hand, the loss that of the distiller."""
    _, trainer, _, _ = trainer_runs
    rows, student = trainer.eval_dataset, trainer.model.student.eval()
    found = trainer.predict(rows)
    inputs = torch.stack([row["input_ids"] for row in rows])
    with torch.no_grad():
        assert found.predictions == pytest.approx(student(inputs).logits.numpy(), abs=1e-6)
        mask = torch.ones_like(inputs)
        loss = trainer.model.eval()({"input_ids": inputs, "attention_mask": mask}).loss
    assert (found.label_ids == torch.stack([row["labels"] for row in rows]).numpy()).all()
    metrics = trainer.evaluate()
    for name, value in by_hand(student, rows).items():
        assert metrics[f"eval_{name}"] == pytest.approx(value, rel=1e-5), name
    assert metrics["eval_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert trainer.predict([{k: v for k, v in row.items() if k != "labels"} for row in rows]).label_ids is None


def test_transformers_trainer_best_model(trainer_runs: tuple[ModuleType, Any, Any, Path]) -> None:
    """The best checkpoint, here not the last one, is restored bit for bit at the end, projections included."""
    _, trainer, _, folder = trainer_runs
    folder /= "whole"
    scores = [line["eval_cross_entropy"] for line in trainer.state.log_history if "eval_cross_entropy" in line][:3]
    best = folder / f"checkpoint-{2 * (1 + scores.index(min(scores)))}"
    assert Path(trainer.state.best_model_checkpoint) == best
    assert best.name != "checkpoint-6"
    saved = BertForMaskedLM.from_pretrained(best / "student")
    assert saved.cls.predictions.decoder.weight is saved.bert.embeddings.word_embeddings.weight
    last = BertForMaskedLM.from_pretrained(folder / "checkpoint-6" / "student").state_dict()
    own = trainer.model.student.state_dict()
    assert own.keys() == saved.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in saved.state_dict().items())
    assert any(not torch.equal(own[name], value) for name, value in last.items())
    projections = load_file(best / "projections.safetensors")
    assert projections.keys() == trainer.model.projections.state_dict().keys()
    assert all(torch.equal(trainer.model.projections.state_dict()[name], value) for name, value in projections.items())
    assert min(scores) == pytest.approx(by_hand(saved.eval(), trainer.eval_dataset)["cross_entropy"], rel=1e-5)


def test_transformers_trainer_resumed(trainer_runs: tuple[ModuleType, Any, Any, Path]) -> None:
    """A resumed run logs the numbers of an uninterrupted one and ends with its weights; tied weights stay tied."""
    _, whole, resumed, folder = trainer_runs
    numbers = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_cross_entropy", "eval_accuracy")
    logs = [
        [{name: line[name] for name in numbers if name in line} for line in trainer.state.log_history[:9]]
        for trainer in (whole, resumed)
    ]
    assert logs[0] == logs[1]
    assert sum("eval_loss" in line for line in logs[0]) == 3
    for name in ("student/model.safetensors", "projections.safetensors"):
        files = [folder / run / "checkpoint-6" / name for run in ("whole", "resumed")]
        assert files[0].read_bytes() == files[1].read_bytes()
    own = resumed.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in whole.model.state_dict().items())
    student = resumed.model.student
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight


def test_transformers_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script runs as it stands."""
    losses = example("transformers_trainer").main(tmp_path)
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert "best: checkpoint-" in capsys.readouterr().out
