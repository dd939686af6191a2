"""The pages of codes: the failing example of each has that fault and no other, the right one has none of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertModel, GPT2Config, GPT2ForSequenceClassification

import brewgraph as bg
from brewgraph.checking.check import check
from brewgraph.convert.convert import Script, convert
from brewgraph.data.sources import python_docs
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.explanations import CODES, Example, explained, page_of
from brewgraph.source import Source
from tests.data.texts import byte_level, spaced_bytes
from tests.faults.meaning import add_files
from tests.faults.world import LOSS, TINY, add_model, make_world

DECLARATIONS = {
    "big": 'teacher big = brew("taught.brew")',
    "tiny": f"student tiny = hf({TINY}, hidden_size=8, num_hidden_layers=2)",
    "d": 'data d = files(train="train.jsonl", batch=4, max_length=16)',
}
"""What the examples leave out, as the pages say."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    taught = DECLARATIONS["tiny"].replace("tiny", "big").replace("hidden_size=8", "hidden_size=16")
    loss = LOSS.replace("tiny", "big")
    (folder / "taught.brew").write_text(f"{taught.replace('layers=2', 'layers=3')}\n{DECLARATIONS['d']}\n{loss}")
    add_model(folder)
    bare = AutoTokenizer.from_pretrained(folder / "one")
    bare.pad_token = None
    bare.save_pretrained(folder / "bare")
    byte_level(["all these words are here"]).save_pretrained(folder / "gpt")
    asked = [
        {"id": "a", "question": "who", "answers": [{"text": "words", "answer_start": 10}]},
        {"id": "b", "question": "why", "answers": [], "is_impossible": True},
    ]
    (folder / "asked.json").write_text(
        json.dumps({"data": [{"paragraphs": [{"context": "all these words are here", "qas": asked}]}]})
    )
    byte_level(["word here there"], 300).save_pretrained(folder / "bytes")
    spaced_bytes().save_pretrained(folder / "spaced")
    (folder / "distances.brew").write_text("far(a, b) = mse(a -> b)\n")
    add_files(folder)
    add_odd_models(folder)
    add_odd_data(folder)
    return folder


class _Call:
    """A pickle of it calls a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


def add_odd_models(folder: Path) -> None:
    """Models that a check or a run refuses, made from `saved`; and a file of Python, which no check imports."""
    (folder / "own.py").write_text("def make():\n    raise AssertionError\n")
    for name in ("pickled", "headless"):
        (folder / name).mkdir()
        for file in (folder / "saved").iterdir():
            if file.suffix != ".safetensors":
                (folder / name / file.name).write_bytes(file.read_bytes())
    torch.save({"weight": _Call()}, folder / "pickled" / "pytorch_model.bin")
    BertModel.from_pretrained(folder / "saved").save_pretrained(folder / "headless")
    tokens = AutoTokenizer.from_pretrained(folder / "one")
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 60, "pad_token_id": 0}
    names = {"id2label": {0: "n", 1: "y"}, "label2id": {"n": 0, "y": 1}}
    conv = GPT2Config(**sizes, **names, bos_token_id=1, eos_token_id=1)
    GPT2ForSequenceClassification(conv).save_pretrained(folder / "conv")
    tokens.save_pretrained(folder / "conv")


def add_odd_data(folder: Path) -> None:
    """Answers longer than a window; texts whose labels a small model learns, the same with the labels exchanged, and
    texts whose answers it learns.
    """
    context = " ".join(["all these words are here"] * 4)
    answer = {"text": " ".join(["all these words are here"] * 3), "answer_start": 0}
    asked = [{"id": "a", "question": "which", "answers": [answer]}]
    (folder / "long.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": asked}]}]}))
    rest = [" ".join(words) for words in product(("these", "words", "are"), repeat=5)][:128]
    for name, labels in (("moods", "yn"), ("exchanged", "ny")):
        rows = ({"text": f"{('all', 'here')[n % 2]} {words}", "label": labels[n % 2]} for n, words in enumerate(rest))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paragraphs = []
    for n, words in enumerate(rest):
        before, after = words.split()[: n % 5], words.split()[n % 5 :]
        text = " ".join([*before, "all", "here", *after])
        answers = [{"text": "all here", "answer_start": text.index("all")}]
        paragraphs.append({"context": text, "qas": [{"id": str(n), "question": "words", "answers": answers}]})
    (folder / "spans.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))


def _teach(folder: Path, name: str, data: str, loss: str, epochs: int) -> None:
    """Train a student of this name, and move it where a spec names it."""
    settings = f"train {{ epochs = {epochs}; optimizer = adamw(lr=1e-2) }}\n"
    (folder / f"{name}.brew").write_text(f'student {name} = hf("saved", pretrained=false)\n{data}\n{loss}{settings}')
    Path(bg.run(folder / f"{name}.brew").folder, "student").rename(folder / name)


def add_confused(folder: Path) -> None:
    """`confused`, a classifier that learnt its labels exchanged."""
    data = 'data d = files(train="exchanged.jsonl", batch=16, max_length=16)'
    _teach(folder, "confused", data, LOSS.replace("tiny", "confused"), 8)


def add_crossed(folder: Path) -> None:
    """`crossed`, which learnt the ends of answers as starts and the starts as ends."""
    loss = "loss = ce(d.start -> crossed.end) + ce(d.end -> crossed.start)\n"
    _teach(folder, "crossed", 'data d = squad(train="spans.json", batch=16, max_length=24, stride=4)', loss, 20)


MADE = {"B332": add_confused, "B341": add_crossed}
"""What takes seconds to make, and one page alone needs."""
BESIDE = {"B015": {"B101"}}
"""What a page's fault cannot be without."""


def found_in(example: Example, folder: Path) -> tuple[Diagnostic, ...]:
    """Everything that is said of an example, with what it leaves out before it and a loss behind it."""
    if example.kind == "json":
        try:
            convert([Source(example.text, "config.json")], Script())
        except SpecError as error:
            return error.diagnostics
        return ()
    body = example.text
    if example.kind == "python":
        body = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True).stdout
    declared = set(re.findall(r"^(?:teacher|student|data) (\w+)", body, re.M))
    before = "".join(f"{line}\n" for name, line in DECLARATIONS.items() if name not in declared)
    behind = "" if re.search(r"\bloss =", body) else LOSS
    text = f"{before}{body}\n{behind}"
    (folder / "spec.brew").write_text(text)
    try:
        if example.kind == "brew run":
            (folder / "spec.brew").write_text(f"{text}train {{ steps = 1 }}\n")
            bg.run(folder / "spec.brew")
            return ()
        return check(Source(text, str(folder / "spec.brew"))).warnings
    except SpecError as error:
        return error.diagnostics


@pytest.mark.parametrize("code", [pytest.param(x, marks=[pytest.mark.slow] * (x in MADE)) for x in explained()])
def test_the_examples_are_true(code: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong one is at fault once, or once more of the same; the right one is not."""
    page = page_of(code)
    assert page is not None
    if code in MADE:
        MADE[code](world)
    if code == "B406":
        monkeypatch.setattr(python_docs, "_FEWEST", 10**6)
    assert {d.code for d in found_in(page.wrong, world)} - BESIDE.get(code, set()) == {code}
    right = found_in(page.right, world)
    assert [d.code for d in right if d.code == code or d.severity == "error"] == []


@pytest.mark.parametrize("code", explained())
def test_a_page_has_its_form(code: str) -> None:
    """Its title is the line of the list; it has words and two examples that differ, and no line is too long."""
    page = page_of(code)
    assert page is not None
    assert page.title == CODES[code]
    assert len(page.words) > 60
    assert page.wrong.text.strip()
    assert page.wrong != page.right
    assert max(map(len, page.text.splitlines())) <= 150


def test_enough_is_explained() -> None:
    """Every warning, and the errors that are met most often."""
    assert len([code for code in explained() if code.startswith("B")]) >= 25
    assert page_of("B999") is None
