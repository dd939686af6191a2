"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import BertForMaskedLM

from brewgraph.ops import OPERATIONS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples import each other as scripts do; operations that they register are gone afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    known = dict(OPERATIONS)
    yield
    for name in OPERATIONS.keys() - known.keys():
        del OPERATIONS[name]
    sys.modules.pop("own_loop", None)


def example(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
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


def test_transformers_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, saving and resuming inside `Trainer`; tied weights are saved once and come back tied."""
    losses = example("transformers_trainer").main(tmp_path)
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    student = BertForMaskedLM.from_pretrained(tmp_path / "first" / "checkpoint-6" / "student")
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight
    assert sorted(p.name for p in (tmp_path / "first" / "checkpoint-6" / "student").iterdir())[0] == "config.json"
