"""The pages of codes: the failing example of each has that fault and no other, the right one has none of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from brewgraph.checking.check import check
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.explanations import CODES, explained, page_of
from brewgraph.source import Source
from tests.data.texts import byte_level, spaced_bytes
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
    return folder


def found_in(example: str, folder: Path) -> tuple[Diagnostic, ...]:
    """Everything that is said of an example, with what it leaves out before it and a loss behind it."""
    declared = set(re.findall(r"^(?:teacher|student|data) (\w+)", example, re.M))
    before = "".join(f"{line}\n" for name, line in DECLARATIONS.items() if name not in declared)
    behind = "" if re.search(r"\bloss =", example) else LOSS
    text = f"{before}{example}\n{behind}"
    (folder / "spec.brew").write_text(text)
    try:
        return check(Source(text, str(folder / "spec.brew"))).warnings
    except SpecError as error:
        return error.diagnostics


@pytest.mark.parametrize("code", explained())
def test_the_examples_are_true(code: str, world: Path) -> None:
    """The wrong one is at fault once, or once more of the same; the right one is not."""
    page = page_of(code)
    assert page is not None
    assert {d.code for d in found_in(page.wrong, world)} == {code}
    right = found_in(page.right, world)
    assert [d.code for d in right if d.code == code or d.severity == "error"] == []


@pytest.mark.parametrize("code", explained())
def test_a_page_has_its_form(code: str) -> None:
    """Its title is the line of the list; it has words and two examples that differ, and no line is too long."""
    page = page_of(code)
    assert page is not None
    assert page.title == CODES[code]
    assert len(page.words) > 60
    assert page.wrong.strip()
    assert page.wrong != page.right
    assert max(map(len, page.text.splitlines())) <= 150


def test_enough_is_explained() -> None:
    """Every warning, and the errors that are met most often."""
    assert len([code for code in explained() if code.startswith("B")]) >= 25
    assert page_of("B999") is None
