"""The Python of the pages runs, block after block, on small models in a folder with a `spec.brew`.

What a page leaves to its reader, as a tracker of theirs, is in `Reader`. The marked blocks of CONTRIBUTING.md are run
by tests/test_contributing.py. No block needs a network.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import SequentialSampler

import brewgraph as bg
from tests.docs.test_blocks import blocks
from tests.small import classifier, metrics, project, save

PAGES = sorted({block.place.rpartition(":")[0] for block in blocks() if (block.language, block.mark) == ("python", "")})
SLOW = {"docs/guide.md"}
"""A sweep of fifteen runs."""


@dataclass
class Reader:
    """What the reader of a page has of their own, and what the blocks did with it."""

    logged: list[tuple[float, int]] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    judged: list[Mapping[str, float]] = field(default_factory=list)

    def log(self, value: float, step: int) -> None:
        self.logged.append((value, step))

    def hopeless(self, scores: Mapping[str, float]) -> bool:
        self.judged.append(scores)
        return False

    def names(self) -> dict[str, Any]:
        loader = bg.load("spec.brew").dataloaders()["train"]
        return {
            "tracker": self,
            "hopeless": self.hopeless,
            "upload": lambda path: self.uploaded.append(path.name),
            "my_sampler": SequentialSampler(loader.dataset),  # type: ignore[arg-type]
            "my_teacher": classifier(width=32, seed=1),
            "my_student": classifier(layers=1, seed=2),
            "batch": next(iter(loader)),
        }


def run_page(page: str, folder: Path) -> tuple[dict[str, Any], Reader]:
    """The names that the blocks of a page leave, each run where nothing has been run before."""
    spec = project(folder, train="steps = 2; save_steps = 1 steps; seed = seed; trackers = []")
    spec.write_text(spec.read_text().replace("param T = 4", "param T = 4\nparam seed = 0"))
    save(folder / "runs/student-0efbbe0a/student")
    reader = Reader()
    names = reader.names()
    for block in blocks():
        if (block.language, block.mark, block.place.rpartition(":")[0]) == ("python", "", page):
            for run in folder.glob("runs/spec-*"):
                shutil.rmtree(run)
            names.setdefault("bg", bg)  # which a page imports once
            exec(compile(block.text, block.place, "exec"), names)
    return names, reader


@pytest.mark.parametrize(
    "page", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in PAGES if x != "docs/python.md"]
)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is missing, and no call is refused."""
    monkeypatch.chdir(tmp_path)
    names, _ = run_page(page, tmp_path)
    match page:
        case "README.md":
            assert names["out"].terms["soft"] > 0
        case "docs/from-trainer.md":
            trainer, batch = names["DistillationTrainer"], names["batch"]
            loss, output = trainer.compute_loss(None, names["distiller"], batch, return_outputs=True)
            assert loss == output.loss == names["distiller"](batch).loss
        case "docs/guide.md":
            assert sorted(run.params["T"] for run in names["result"].runs) == [2] * 5 + [4] * 5 + [8] * 5
            assert names["result"].failed == ()
        case "docs/tutorial.md":
            assert names["model"].config.num_labels == 3
        case _:
            raise AssertionError(f"say here what the blocks of {page} leave")


def test_the_page_of_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its callback is told what the run writes down; its loops and loaders give batches."""
    monkeypatch.chdir(tmp_path)
    names, reader = run_page("docs/python.md", tmp_path)
    lines = metrics(names["result"].folder)
    assert reader.logged == [(line["loss"], line["step"]) for line in lines if "loss" in line]
    assert reader.judged == [line["dev"] for line in lines if "dev" in line]
    assert reader.uploaded == ["step-000001", "step-000002"]
    assert [len(batch["labels"]) for batch in names["mine"]] == [8, 8, 4]
    assert all(p.grad is not None for p in names["distiller"].student.parameters())
