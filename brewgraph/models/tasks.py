"""Which head a model needs for what is taken from it and matched with it."""

from __future__ import annotations

from collections.abc import Collection

from transformers import PreTrainedConfig

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.models.heads import PROBLEM_TYPES
from brewgraph.recipe.features import Feature

AUTO_CLASSES = {
    "features": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
}

TASKS = {
    "class": "sequence-classification",
    "classes": "sequence-classification",
    "value": "sequence-classification",
    "tags": "token-classification",
    "spans": "question-answering",
    "next": "causal-lm",
    "masked": "masked-lm",
}
"""The head that each type of label is learned by."""

_ARCHITECTURES = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForQuestionAnsweringSimple": "question-answering",
    "ForMaskedLM": "masked-lm",
    "WithLMHeadModel": "masked-lm",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}
"""How the class names in a checkpoint's configuration end, and the head that this tells of."""


def task_of(
    features: Collection[Feature], label_types: Collection[str] = (), architectures: Collection[str] = ()
) -> str:
    """The head that a model needs for what is taken from it.

    Where nothing of a head is taken, none. Else the labels tell that it is matched with, then the classes that the
    checkpoint names as its own. SourceFault B333 where the labels ask for different heads.
    """
    names = {f.name for f in features}
    if names & {"start", "end"}:
        return "question-answering"
    if "logits" not in names:
        return "features"
    tasks = {TASKS[kind]: kind for kind in sorted(label_types) if kind}
    if len(tasks) > 1:
        raise SourceFault(
            "B333",
            f"labels of the types {listing(tasks.values())} need a head each",
            help="give the student heads: { head ner = token_classifier()  head topic = sequence_classifier() }",
        )
    known = (task for name in architectures for end, task in _ARCHITECTURES.items() if name.endswith(end))
    return next(iter(tasks), None) or next(known, "sequence-classification")


def has_classes(auto_class: str) -> bool:
    """Whether a head gives one logit per class of the data."""
    return auto_class in (AUTO_CLASSES["sequence-classification"], AUTO_CLASSES["token-classification"])


def with_problem(
    config: PreTrainedConfig, role: str, auto_class: str, label_types: Collection[str]
) -> PreTrainedConfig:
    """Set what transformers' own losses go by: the type of problem, and the number of logits that follows from it."""
    if auto_class == AUTO_CLASSES["question-answering"] and config.num_labels != 2:
        config.num_labels = 2  # start and end; another number is left from a former head
    if auto_class == AUTO_CLASSES["sequence-classification"] and role == "student":
        problem = next((PROBLEM_TYPES[kind] for kind in label_types if kind in PROBLEM_TYPES), None)
        if problem is not None:
            config.problem_type = problem
        if problem == "regression":
            config.num_labels = 1
    return config
