"""Which head a model needs for what is taken from it and matched with it, and what it is before it is built."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.features import Feature
from brewgraph.recipe.sources import CausalLm, MaskedLm, SequenceClassifier, Settings, SpanClassifier, TokenClassifier

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

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


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

PROBLEM_TYPES: dict[str, ProblemType] = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "value": "regression",
}
"""transformers' word for each type of label that a sequence classifier learns."""

_PROBLEMS: dict[str, ProblemType] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}

_AUTO_CLASS_OF_HEAD: dict[type[Settings], str] = {
    TokenClassifier: "AutoModelForTokenClassification",
    SequenceClassifier: "AutoModelForSequenceClassification",
    SpanClassifier: "AutoModelForQuestionAnswering",
    MaskedLm: "AutoModelForMaskedLM",
    CausalLm: "AutoModelForCausalLM",
}


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


def label_type_of(config: PreTrainedConfig) -> str:
    """The type of labels that a classifier of texts was trained on: of one logit a value; "" where it does not say."""
    if config.num_labels == 1:
        return "value"
    return next((kind for kind, problem in PROBLEM_TYPES.items() if problem == config.problem_type), "")


def several_outputs(count: int) -> SourceFault:
    """The fault of a model with more outputs than the numbers that it learns: one for each example."""
    help = "leave `labels` out, or name one; for several numbers write a task with a head for each"
    return SourceFault(
        "B347", f"the labels are one number each, and `labels` asks for {count}", help=help, field="labels"
    )


class Head(NamedTuple):
    """One head before it is built: transformers' auto class, its classes in order, and what kind of labels it has."""

    auto_class: str
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None

    @classmethod
    def of(cls, settings: Settings, classes: Sequence[str] = (), label_type: str = "") -> Head:
        """The head that a spec's `token_classifier(...)` and the like ask for.

        `classes` are those of the data that it learns from, taken where the spec names none, and `label_type` says
        whether one of them, several, or a number is right. SourceFault B326 where nothing tells the classes.
        """
        auto_class = _AUTO_CLASS_OF_HEAD[type(settings)]
        if not isinstance(settings, TokenClassifier | SequenceClassifier):
            return cls(auto_class)
        problem = PROBLEM_TYPES.get(label_type)
        if isinstance(settings, SequenceClassifier):
            problem = _PROBLEMS[settings.problem_type] if settings.problem_type else problem
            if problem == "regression":
                count = settings.labels if isinstance(settings.labels, int) else len(settings.labels or " ")
                if count > 1:
                    raise several_outputs(count)
                return cls(auto_class, problem_type=problem)
        else:
            problem = None
        said = settings.labels
        if isinstance(said, int):
            # a count alone: the data's names where there are as many
            said = tuple(classes) if len(classes) == said else tuple(f"LABEL_{i}" for i in range(said))
        labels = said or tuple(classes)
        if not labels:
            raise SourceFault(
                "B326", "nothing tells the classes of this head", field="labels", help="write how many: labels=9"
            )
        return cls(auto_class, labels, problem)

    def config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of the trunk's configuration for this head."""
        own = copy.deepcopy(config)
        if self.problem_type == "regression":
            own.num_labels = 1
        elif self.auto_class == "AutoModelForQuestionAnswering":
            own.num_labels = 2  # two logits per token, whatever the checkpoint's former head had
        elif self.labels:
            own.id2label = dict(enumerate(self.labels))
            own.label2id = {label: i for i, label in enumerate(self.labels)}
        if self.problem_type:
            own.problem_type = self.problem_type
        return own
