"""The types of labels: one frozen value per type, with everything that depends on the type; no torch here.

A new type needs an entry here, a metric in `training/metrics.py`, and predictions in `running/predict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

Task = Literal[
    "features", "sequence-classification", "token-classification", "question-answering", "masked-lm", "causal-lm",
]  # fmt: skip
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Name = Literal["class", "classes", "value", "tags", "spans", "next", "masked"]
"""The types by name, as `batches(labels=…)` takes them."""

LOSS = "loss"
"""The metric of every task with a dev split: the loss there, with the weights of the stage's end."""


@dataclass(frozen=True, eq=False, repr=False)
class LabelType(str):
    """The type of a data set's labels. As a string it is its name; `NONE`, for unlabelled data, is empty and false.

    `task` names the head in `hf(…, task=…)`, `head` in a student's block; `ends` are suffixes of transformers' classes
    with such a head. `metrics` are all metrics (`metric_names` drops those without meaning for the classes), `main` is
    the default one, `shown` have a column in a run's closing table. `loss` is the usual operation, `problem_type`
    transformers' name for it. Data hold the labels in `column`, batches in `fields` as tensors with `axes` axes; models
    return `logits`. `is_float`: labels are regression targets; `per_class`: each class has a logit; `per_token`: each
    token has a label; `over_vocabulary`: labels are words. `marks` describes labels that mark places in a text.
    """

    name: str
    task: Task
    head: str
    ends: tuple[str, ...]
    _: KW_ONLY
    metrics: tuple[str, ...] = ()
    main: str = LOSS
    shown: tuple[str, ...] = ()
    loss: str = "ce"
    problem_type: ProblemType | None = None
    column: str = "label"
    fields: tuple[str, ...] = ("labels",)
    logits: tuple[str, ...] = ("logits",)
    axes: int = 1
    is_float: bool = False
    per_class: bool = False
    per_token: bool = False
    over_vocabulary: bool = False
    marks: str = ""

    def __new__(cls, name: str, *_: Any, **__: Any) -> LabelType:
        return super().__new__(cls, name)

    @property
    def auto_class(self) -> str:
        """The transformers class that loads a model with a head for such labels."""
        return f"AutoModelFor{self.ends[0]}" if self.ends else "AutoModel"

    @property
    def aligned(self) -> bool:
        """Whether labels lie along the tokens of an encoding, or point to them."""
        return self.per_token or self == SPANS

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        """Serialize a type as its name."""
        from pydantic_core import core_schema  # commands that read no file do without it

        name = core_schema.to_string_ser_schema()
        return core_schema.no_info_plain_validator_function(LABEL_TYPES.__getitem__, serialization=name)


# fmt: off
CLASS = LabelType(
    "class", "sequence-classification", "sequence_classifier", ("SequenceClassification",),
    metrics=("accuracy", "macro_f1", "f1", "matthews"), main="accuracy", shown=("accuracy", "macro_f1"),
    problem_type="single_label_classification", per_class=True,
)
CLASSES = LabelType(
    "classes", CLASS.task, CLASS.head, CLASS.ends,
    metrics=("micro_f1", "macro_f1", "exact_match"), main="micro_f1", shown=("micro_f1", "macro_f1"),
    loss="bce", problem_type="multi_label_classification", axes=2, is_float=True, per_class=True,
)
VALUE = LabelType(
    "value", CLASS.task, CLASS.head, CLASS.ends,
    metrics=("spearman", "pearson", "mse"), main="spearman", shown=("spearman", "pearson"),
    loss="mse", problem_type="regression", is_float=True,
)
TAGS = LabelType(
    "tags", "token-classification", "token_classifier", ("TokenClassification",),
    metrics=("f1", "precision", "recall", "strict_f1", "token_accuracy"), main="f1", shown=("f1", "token_accuracy"),
    column="tags", axes=2, per_class=True, per_token=True, marks="a tag for each word",
)
SPANS = LabelType(
    "spans", "question-answering", "span_classifier", ("QuestionAnswering", "QuestionAnsweringSimple"),
    metrics=("exact_match", "f1", "has_answer_exact", "has_answer_f1", "no_answer_exact", "no_answer_f1"), main="f1",
    shown=("exact_match", "f1", "has_answer_f1", "no_answer_f1"),
    column="answers", fields=("start", "end"), logits=("start_logits", "end_logits"),
    marks="answers at places of the text",
)
MASKED = LabelType(
    "masked", "masked-lm", "masked_lm", ("MaskedLM", "WithLMHeadModel"),
    metrics=("perplexity", "token_accuracy"), main="perplexity", shown=("perplexity",),
    axes=2, per_token=True, over_vocabulary=True,
)
NEXT = replace(MASKED, name="next", task="causal-lm", head="causal_lm", ends=("CausalLM", "LMHeadModel"))
NONE = LabelType("", "features", "", (), loss="kd", fields=())
# fmt: on

LABEL_TYPES: Mapping[str, LabelType] = {x.name: x for x in (CLASS, CLASSES, VALUE, TAGS, SPANS, MASKED, NEXT, NONE)}
"""Every type by its name."""


def of_problem(word: str | None) -> LabelType:
    """The type of a `problem_type` of specs or transformers: `regression`; `NONE` without one."""
    return next((x for x in LABEL_TYPES.values() if word and (x.problem_type or "").startswith(word)), NONE)


def of_architecture(name: str) -> LabelType:
    """The first type that fits the name of a transformers model class; `NONE` if none does."""
    return next((x for x in LABEL_TYPES.values() if name.endswith(x.ends)), NONE)
