"""Which head a model needs for what is taken from it and matched with it, and what it is before it is built."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import (
    CLASS,
    LABEL_TYPES,
    NONE,
    SPANS,
    VALUE,
    LabelType,
    ProblemType,
    of_architecture,
    of_problem,
)
from brewgraph.recipe.settings.sources import HEADS, SequenceClassifier, Settings, TokenClassifier

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

AUTO_CLASSES: dict[str, str] = {x.task: x.auto_class for x in LABEL_TYPES.values()}
"""transformers' auto class for each head, as `hf(…, task=…)` names it."""

_AUTO_CLASS_OF_HEAD = {HEADS[x.head]: x.auto_class for x in LABEL_TYPES.values() if x}


def task_of(
    features: Collection[Feature], label_types: Collection[LabelType] = (), architectures: Collection[str] = ()
) -> str:
    """The head that a model needs for what is taken from it.

    Where nothing of a head is taken, none. Else the labels tell that it is matched with, then the classes that the
    checkpoint names as its own. SourceFault B333 where the labels ask for different heads.
    """
    names = {f.name for f in features}
    if names & {"start", "end"}:
        return SPANS.task
    if "logits" not in names:
        return NONE.task
    tasks = {kind.task: kind for kind in sorted(label_types) if kind}
    if len(tasks) > 1:
        raise SourceFault(
            "B333",
            f"labels of the types {listing(tasks.values())} need a head each",
            help="give the student heads: { head ner = token_classifier()  head topic = sequence_classifier() }",
        )
    known = (kind.task for name in architectures if (kind := of_architecture(name)))
    return next(iter(tasks), None) or next(known, CLASS.task)


def has_classes(auto_class: str) -> bool:
    """Whether a head gives one logit per class of the data."""
    return any(x.per_class and x.auto_class == auto_class for x in LABEL_TYPES.values())


def with_problem(
    config: PreTrainedConfig, role: str, auto_class: str, label_types: Collection[LabelType]
) -> PreTrainedConfig:
    """Set what transformers' own losses go by: the type of problem, and the number of logits that follows from it."""
    if auto_class == SPANS.auto_class and config.num_labels != 2:
        config.num_labels = 2  # start and end; another number is left from a former head
    if auto_class == CLASS.auto_class and role == "student":
        problem = next((kind.problem_type for kind in label_types if kind.problem_type), None)
        if problem is not None:
            config.problem_type = problem
        if problem == VALUE.problem_type:
            config.num_labels = 1
    return config


def label_type_of(config: PreTrainedConfig) -> LabelType:
    """The type of labels that a classifier of texts learnt: of one logit a value; `NONE` where it says nothing."""
    return VALUE if config.num_labels == 1 else of_problem(config.problem_type)


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
    def of(cls, settings: Settings, classes: Sequence[str] = (), label_type: LabelType = NONE) -> Head:
        """The head that a spec's `token_classifier(...)` and the like ask for.

        `classes` are those of the data that it learns from, taken where the spec names none, and `label_type` says
        whether one of them, several, or a number is right. SourceFault B326 where nothing tells the classes.
        """
        auto_class = _AUTO_CLASS_OF_HEAD[type(settings)]
        if not isinstance(settings, TokenClassifier | SequenceClassifier):
            return cls(auto_class)
        problem = label_type.problem_type
        if isinstance(settings, SequenceClassifier):
            problem = of_problem(settings.problem_type).problem_type or problem
            if problem == VALUE.problem_type:
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
        if self.problem_type == VALUE.problem_type:
            own.num_labels = 1
        elif self.auto_class == SPANS.auto_class:
            own.num_labels = 2  # two logits per token, whatever the checkpoint's former head had
        elif self.labels:
            own.id2label = dict(enumerate(self.labels))
            own.label2id = {label: i for i, label in enumerate(self.labels)}
        if self.problem_type:
            own.problem_type = self.problem_type
        return own
