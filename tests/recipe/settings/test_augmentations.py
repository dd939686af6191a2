"""`augment=[...]` in a spec: to settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import Diagnostic
from brewgraph.recipe.settings.augmentations import (
    AUGMENTATIONS,
    Deleting,
    LongDisorder,
    Masking,
    NgramSampling,
    ShortDisorder,
)
from brewgraph.source import Source
from tests.recipe.specs import HEAD, LOSS, faults


def read(text: str) -> tuple[Any, tuple[Diagnostic, ...]]:
    """What `augment=text` of a data set gives, and the faults."""
    head = HEAD.replace('files(train="train.jsonl")', f'files(train="train.jsonl", augment={text})')
    found = faults(head + LOSS)
    if found:
        return None, found
    return check_names(Source(head + LOSS), {}).data["d"].source.augment, ()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("[masking(p=0.1), short_disorder(p=0.1)]", (Masking(p=0.1), ShortDisorder(p=0.1))),
        ("masking", (Masking(p=0.15),)),
        ("deleting(20%)", (Deleting(p=0.2),)),
        ("[ngram_sampling(p=1, n=[1, 2], weights=[3, 1])]", (NgramSampling(p=1, n=(1, 2), weights=(3, 1)),)),
        ("[long_disorder(p=10%, length=40%)]", (LongDisorder(p=0.1, length=0.4),)),
        ("[short_disorder(orders=[0, 1, 0, 1])]", (ShortDisorder(orders=(0, 1, 0, 1)),)),
        ("[]", ()),
    ],
)
def test_calls_become_settings(text: str, settings: tuple[Any, ...]) -> None:
    """One alone, several, by place and by name, percentages."""
    assert read(text) == (settings, ())


@pytest.mark.parametrize(
    ("text", "code", "place", "message", "help"),
    [
        ("[maskin(p=0.1)]", "B101", "maskin", "no augmentation `maskin`", "did you mean `masking`?"),
        ("[3]", "B101", "3", "no augmentation `3`", "`long_disorder`"),
        ("[masking(q=0.1)]", "B120", "q", "no setting `q`", "it has `p`"),
        ("[masking(p=1.5)]", "B122", "1.5", "less than or equal to 1", "chance of each word"),
        ("[masking(p=3 epochs)]", "B122", "3 epochs", "expected a number or a percentage", "chance of each word"),
        ("[masking(p=true)]", "B122", "true", "is not a boolean", "chance of each word"),
        ("[ngram_sampling(n=[])]", "B122", "[]", "wrong number of members", "how many words"),
        ("[ngram_sampling(n=[0])]", "B122", "[0]", "greater than 0", "how many words"),
        ("[ngram_sampling(n=[1, 2], weights=[1])]", "B122", "ngram_sampling(n=[1, 2], weights=[1])",
         "one number for each of `n`", "correct one of them"),
        ("[short_disorder(orders=[0, 0, 0, 0])]", "B122", "short_disorder(orders=[0, 0, 0, 0])",
         "only zeros", "correct one of them"),
        ("[short_disorder(orders=[1, 2])]", "B122", "[1, 2]", "wrong number of members", "how often a b c"),
        ("[long_disorder(length=0)]", "B122", "0", "greater than 0", "words in a span"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, code: str, place: str, message: str, help: str) -> None:
    """One fault each, at its place, with its remedy."""
    _, (found,) = read(text)
    assert (found.code, found.span.text) == (code, place)
    assert message in found.message
    assert help in found.help


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_is_documented(name: str) -> None:
    """A line that shows it, and words about each of its settings."""
    settings = AUGMENTATIONS[name]
    assert (settings.__doc__ or "").startswith(f"`{name}(")
    assert all(field.description for field in settings.model_fields.values())
