"""Which metrics there are, and which of them can choose the best checkpoint."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import CLASS, LABEL_TYPES, NONE, TAGS, LabelType
from brewgraph.recipe.settings.metric_names import greater_is_better, keyed, metric_names, metric_words, validate_metric


@pytest.mark.parametrize("name", LABEL_TYPES)
def test_shown_metrics_exist(name: str) -> None:
    """The main metric is shown, and what is shown exists; without labels the loss is all there is."""
    label_type = LABEL_TYPES[name]
    assert (label_type.main in label_type.shown) == bool(name)
    assert set(label_type.shown) <= set(label_type.metrics)


def test_classes_decide_which_metrics_there_are() -> None:
    """F1 of class 1 for two classes, entities for tags that mark them; without labels there is nothing."""
    assert "f1" in metric_names(CLASS, ("no", "yes"))
    assert "f1" not in metric_names(CLASS, ("a", "b", "c"))
    assert "f1" in metric_names(CLASS)
    assert metric_names(TAGS, ("NOUN", "VERB")) == ("token_accuracy",)
    assert "f1" in metric_names(TAGS, ("O", "B-PER"))
    assert metric_names(NONE) == ()


def test_directions_and_words() -> None:
    """Errors and perplexities are better when low, under a task's name too."""
    assert [greater_is_better(name) for name in ("f1", "ner/f1", "mse", "lm/perplexity")] == [True, True, False, False]
    assert [metric_words(n) for n in ("macro_f1", "ner/f1", "exact_match")] == ["macro F1", "ner/F1", "exact match"]
    assert [metric_words(n) for n in ("no_answer_f1", "qa/has_answer_exact")] == ["NoAns F1", "qa/HasAns exact"]
    assert [metric_words(n) for n in ("mse", "spearman", "loss", "strict_f1")] == [
        "MSE",
        "Spearman",
        "loss",
        "strict F1",
    ]
    assert [greater_is_better(name) for name in ("loss", "ner/loss", "token_accuracy")] == [False, False, True]
    assert keyed("ner", {"f1": 0.5}) == {"ner/f1": 0.5}
    assert keyed("", {"f1": 0.5}) == {"f1": 0.5}


TASKS = {"ner": "tags", "topic": "class"}


def typed(tasks: dict[str, str]) -> dict[str, LabelType]:
    """The label types of tasks, by name."""
    return {task: LABEL_TYPES[name] for task, name in tasks.items()}


CLASSES = {"topic": ("a", "b", "c"), "ner": ("O", "B-PER")}


@pytest.mark.parametrize(
    ("name", "tasks", "full"),
    [
        ("accuracy", {"": "class"}, "accuracy"),
        ("f1", {"": "spans"}, "f1"),
        ("ner/f1", TASKS, "ner/f1"),
        ("accuracy", TASKS, "topic/accuracy"),
        ("f1", TASKS, "ner/f1"),
        ("loss", {"": ""}, "loss"),
        ("ner/loss", TASKS, "ner/loss"),
        ("perplexity", {"lm": "masked", "qa": "spans"}, "lm/perplexity"),
    ],
)
def test_metrics_that_will_exist(name: str, tasks: dict[str, str], full: str) -> None:
    """By their full name, or without the task where that is clear."""
    assert validate_metric(name, typed(tasks), CLASSES) == full


@pytest.mark.parametrize(
    ("name", "tasks", "message", "help"),
    [
        ("acuracy", {"": "class"}, "there is no metric `acuracy`", "did you mean `accuracy`?"),
        ("ner/accuracy", TASKS, "there is no metric `ner/accuracy`", "the metrics here are `ner/f1`"),
        ("topic/f1", TASKS, "there is no metric `topic/f1`", "`topic/macro_f1`"),
        ("f1", {"a": "tags", "b": "spans"}, "several tasks have a metric `f1`", "choose `a/f1` or `b/f1`"),
        ("accuracy", {"": ""}, "there is no metric `accuracy`", "the metrics here are `loss`"),
        ("loss", {"a": "tags", "b": ""}, "several tasks have a metric `loss`", "choose `a/loss` or `b/loss`"),
    ],
)
def test_metrics_that_will_not(name: str, tasks: dict[str, str], message: str, help: str) -> None:
    """One fault with a remedy, at the setting."""
    with pytest.raises(SourceFault) as caught:
        validate_metric(name, typed(tasks), CLASSES)
    assert (caught.value.code, caught.value.field) == ("B126", "metric_for_best_model")
    assert message in caught.value.message
    assert help in caught.value.help
