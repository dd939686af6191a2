"""The pages for those who come from torchdistill and from transformers' Trainer: their fragments are sound."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from tests.conftest import REPOSITORY
from tests.docs.test_from_textbrewer import test_a_fragment_parses_and_its_names_are_sound as check_fragment

PAGES = {
    name: (REPOSITORY / "docs" / f"from-{name}.md").read_text(encoding="utf-8") for name in ("torchdistill", "trainer")
}
SPAN = re.compile(r"`([^`]+)`")
PROGRAMS = ("brewgraph ", "accelerate ", "bg.")
PARTS = ("via linear", "batch=32", "mask=none")
"""Not statements: a clause, an argument."""


def rows(page: str) -> list[tuple[str, str]]:
    """The two cells of every row, without the titles."""
    lines = [line.strip("|").split(" | ") for line in PAGES[page].splitlines() if line.startswith("| ")]
    return [(a.strip(), b.strip()) for a, b in lines if b.strip() != "brewgraph"]


@pytest.mark.parametrize(
    "fragment",
    sorted({
        span
        for page in PAGES
        for _, cell in rows(page)
        for span in SPAN.findall(cell)
        if not span.startswith(PROGRAMS) and span not in PARTS
    }),
)  # fmt: skip
def test_a_fragment_is_sound(fragment: str) -> None:
    """On a teacher, a student and data: no name, option or kind is at fault."""
    check_fragment(fragment)


@pytest.mark.parametrize("page", PAGES)
def test_no_cell_is_empty(page: str) -> None:
    assert len(rows(page)) > 15
    assert all(len(cell) > 3 for row in rows(page) for cell in row)


def test_what_is_said_of_the_trainer_exists() -> None:
    """Its arguments, methods and callbacks in the installed transformers."""
    said = " ".join(cell for cell, _ in rows("trainer"))
    arguments = {field.name for field in dataclasses.fields(TrainingArguments)}
    named = set(re.findall(r"`(\w+)=", said)) | set(re.findall(r"`([a-z]+_[a-z_]+)`", said))
    others = {"compute_loss", "compute_metrics", "hyperparameter_search", "output_hidden_states", "attention_mask"}
    assert named - others <= arguments
    for method in ("compute_loss", "predict", "hyperparameter_search", "train"):
        assert f"`{method}" in said
        assert callable(getattr(Trainer, method))
    assert "resume_from_checkpoint" in inspect.signature(Trainer.train).parameters
    assert next(iter(inspect.signature(EarlyStoppingCallback).parameters)) == "early_stopping_patience"
