"""What a type of labels says of itself, against transformers' own tables."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass

import pytest
from pydantic import TypeAdapter, ValidationError
from transformers.models.auto import modeling_auto

from brewgraph.recipe.label_types import (
    LABEL_TYPES,
    NONE,
    SPANS,
    TAGS,
    LabelType,
    of_architecture,
    of_problem,
)

NAMES = [name for name in LABEL_TYPES if name]


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_those_of_transformers(name: str) -> None:
    """What the auto class loads is known by the end of its name, but for models of more than text and two of old."""
    label_type = LABEL_TYPES[name]
    mapping = getattr(modeling_auto, label_type.auto_class)._model_mapping._model_mapping
    classes = {x for found in mapping.values() for x in ([found] if isinstance(found, str) else found)}
    others = {x for x in classes if not x.endswith((*label_type.ends, "ForConditionalGeneration"))}
    assert others <= {"BertGenerationDecoder", "ReformerModelWithLMHead"}
    both = {x for x in classes - others if (found := of_architecture(x)) and found.task != label_type.task}
    assert both <= {"XLMWithLMHeadModel"}


@dataclass(frozen=True)
class Known:
    """A fact that is kept in a file."""

    label_type: LabelType


@pytest.mark.parametrize("name", LABEL_TYPES)
def test_a_type_is_written_by_its_name(name: str) -> None:
    """In JSON, in facts on disk and in copies; without labels it is false."""
    label_type, facts = LABEL_TYPES[name], TypeAdapter(Known)
    assert json.dumps([label_type]) == json.dumps([name])
    assert facts.dump_json(Known(label_type)) == json.dumps({"label_type": name}, separators=(",", ":")).encode()
    assert facts.validate_python({"label_type": name}).label_type is label_type
    for again in (copy.deepcopy(label_type), pickle.loads(pickle.dumps(label_type))):
        assert (again, again.fields, again.auto_class) == (label_type, label_type.fields, label_type.auto_class)
    assert (bool(label_type), repr(label_type), f"{label_type}") == (bool(name), repr(name), name)


def test_a_type_is_what_it_is() -> None:
    """Nobody changes one; names that are none have no type."""
    with pytest.raises(FrozenInstanceError):
        TAGS.axes = 3  # type: ignore[misc]
    with pytest.raises((KeyError, ValidationError)):
        TypeAdapter(Known).validate_python({"label_type": "tag"})


def test_labels_along_a_text() -> None:
    """Answers point into it, tags and words lie along it; there is one tensor for each field and as many logits."""
    assert {x.name for x in LABEL_TYPES.values() if x.aligned} == {"tags", "spans", "next", "masked"}
    assert {x.name for x in LABEL_TYPES.values() if x.per_token} == {"tags", "next", "masked"}
    assert [len(SPANS.fields), len(SPANS.logits)] == [2, 2]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("single_label", "class"),
        ("multi_label_classification", "classes"),
        ("regression", "value"),
        (None, ""),
        ("", ""),
    ],
)
def test_types_of_problems(word: str | None, name: str) -> None:
    """As a spec writes them, and as transformers does."""
    assert of_problem(word) == name
    assert of_problem("no_problem") == NONE


@pytest.mark.parametrize("name", NAMES)
def test_new_specs_know_a_type(name: str) -> None:
    """By words for its labels and for both terms of the loss; the loss is an equation of both sides."""
    label_type = LABEL_TYPES[name]
    assert label_type.about
    assert len(label_type.learnt) == 2
    assert {"{source}", "{target}"} <= set(re.findall(r"{\w+}", label_type.soft))
    assert set(label_type.lower_is_better) | set(label_type.binary) | set(label_type.entities) <= set(
        label_type.metrics
    )


def test_types_do_not_share_words() -> None:
    """A word of `problem_type` means one type, and a metric has one direction, whatever the type."""
    problems = [x.problem for x in LABEL_TYPES.values() if x.problem]
    assert len(problems) == len(set(problems))
    for kind in LABEL_TYPES.values():
        for name in kind.metrics:
            assert all(
                (name in x.lower_is_better) == (name in kind.lower_is_better)
                for x in LABEL_TYPES.values()
                if name in x.metrics
            )
