"""The worked examples of CONTRIBUTING.md do what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import brewgraph as bg
from brewgraph.checking.check import check, check_names, read_spec
from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.lints import Subject
from brewgraph.ops import OPERATIONS
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.source import Source
from tests.conftest import REPOSITORY
from tests.small import rows, tokenizer

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
MODELS = """
teacher big = hf(model_type="bert", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
student tiny = hf(model_type="bert", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
data d = files(train="train.jsonl")
"""


@pytest.fixture(autouse=True)
def operations() -> Iterator[None]:
    """What an example declares is gone after its test."""
    before = dict(OPERATIONS)
    yield
    OPERATIONS.clear()
    OPERATIONS.update(before)


def example(name: str) -> str:
    found = re.search(rf"```python {name}\n(.*?)```", TEXT, re.S)
    assert found
    return found[1]


def run(name: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(example(name), space)
    return space


@pytest.mark.parametrize("name", ["loss", "pass", "source", "kind", "lint"])
def test_examples_are_short(name: str) -> None:
    """At most 20 lines of code."""
    assert len([line for line in example(name).splitlines() if line.strip()]) <= 20


def test_a_loss_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked and computed from its declaration alone: the value is torch's."""
    (tmp_path / "mylosses.py").write_text(example("loss"))
    (tmp_path / "train.jsonl").write_text('{"text": "one two", "label": "a"}\n{"text": "two", "label": "b"}\n' * 8)
    text = f"brew 1\nimport mylosses as my\n{MODELS}loss = my.huber(big.hidden[1] -> tiny.hidden[1], delta=0.5)\n"
    (tmp_path / "s.brew").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    distiller = bg.load(tmp_path / "s.brew").build(allow_python=True).eval()
    ids = torch.tensor([[2, 7, 8, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    one, other = (
        m(**batch, output_hidden_states=True).hidden_states[1] for m in (*distiller.teachers, distiller.student)
    )
    expected = torch.nn.functional.huber_loss(other, one, delta=0.5)
    torch.testing.assert_close(distiller(batch).loss, expected)
    sys.modules.pop("mylosses", None)


def test_a_pass(tmp_path: Path) -> None:
    """Of two `stop` in a row one is left to compute."""
    from brewgraph.graph.canonical import canonical
    from tests.graph.graphs import graph
    from tests.recipe.specs import spec

    before = graph(spec("x = mse(stop(stop(big.logits)) -> tiny.logits)", "loss = x + ce(d.labels -> tiny.logits)\n"))
    after = canonical(run("pass")["drop_double_stops"](before))
    count = [sum(isinstance(x := node(g, k), n.Transform) and x.name == "stop" for k in g) for g in (before, after)]
    assert count == [2, 1]


def test_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked, read and trained on like those of the package."""
    monkeypatch.setitem(DATA, "marked", DATA["files"])  # taken away again afterwards
    run("source")
    lines = [f"{kind} {text}" for kind, text in zip("abab", ("one two", "three", "two", "four one"), strict=True)]
    (tmp_path / "train.txt").write_text("\n".join(lines * 4))
    models = MODELS.replace('files(train="train.jsonl")', 'marked(train="train.txt", batch=4)')
    models = models.replace("teacher big", "# teacher big")
    (tmp_path / "s.brew").write_text(f"brew 1\n{models}loss = ce(d.labels -> tiny.logits)\ntrain {{ steps = 1 }}\n")
    assert check(read_spec(tmp_path / "s.brew")).classes["d"] == ("a", "b")
    assert bg.run(tmp_path / "s.brew").folder.is_dir()


SCRIPT = """
from pathlib import Path

import brewgraph as bg
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.starters.start import Wishes, start

made = start(Wishes("big", "train.csv", "dev.csv", task=LABEL_TYPES["rating"], label="stars", layers=1), Path("new"))
row = bg.run(made.spec, out="run").table[-1]
print(made.spec.read_text(), row.columns, sorted(row.scores))
"""


@pytest.mark.slow
def test_a_type_of_labels(tmp_path: Path) -> None:
    """In a copy of the package: a new spec names it, trains on it and shows its metric."""
    package = tmp_path / "source" / "brewgraph"
    shutil.copytree(REPOSITORY / "brewgraph", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package.parent / "grammar").symlink_to(REPOSITORY / "grammar")
    _, entry, metric = re.split(r"# (?:brewgraph/\S+)\n", example("kind"))
    types, metrics = package / "recipe" / "label_types.py", package / "training" / "metrics.py"
    before, table, after = types.read_text().partition("LABEL_TYPES: ")
    types.write_text(before + entry + table + after.replace("NONE)", "NONE, RATING)", 1))
    metrics.write_text(metrics.read_text() + metric)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(**sizes, vocab_size=120, num_labels=1)).save_pretrained(tmp_path / "big")
    tokenizer().save_pretrained(tmp_path / "big")
    for split in ("train", "dev"):
        lines = [f"{row['text']},{n % 5}.5" for n, row in enumerate(rows(12))]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,stars", *lines]) + "\n")
    environment = os.environ | {"PYTHONPATH": str(package.parent), "BREWGRAPH_FACTS": "off"}
    call = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Its loss: the teacher's ratings, the ratings" in run.stdout
    assert "problem_type=rating" in run.stdout
    assert "('mae',) ['mae']" in run.stdout


def test_a_lint() -> None:
    text = f"brew 1\n{MODELS}loss = ce(d.labels -> tiny.logits)\ntrain {{ epochs = 200 }}\n"
    found = list(run("lint")["find_long_runs"](Subject(check_names(Source(text), {}), {}, lambda *_: None)))
    assert [(d.code, d.span.text) for d in found] == [("W299", "200")]
