"""The types of labels: one frozen value per type, with everything that depends on the type; no torch here.

A new type needs an entry here and a metric in `METRICS` of `training/metrics.py`. Only a new form of labels also needs
predictions in `running/predict.py` and a comparison in `running/compare_predictions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

Task = Literal[
    "features", "sequence-classification", "token-classification", "question-answering", "masked-lm", "causal-lm",
]  # fmt: skip
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Source = Literal["files", "conll", "squad", "text"]

LOSS = "loss"
"""The metric of every task with a dev split: the loss there, with the weights of the stage's end."""


class Form(Enum):
    """What the labels of an example are: a class, several classes, a number, a class per word, a stretch of the text,
    or words of the vocabulary. Types of one form are read, encoded, predicted and compared alike.
    """

    CLASS, CLASSES, NUMBER, TAGS, SPANS, TOKENS, NONE = range(7)


@dataclass(frozen=True, eq=False, repr=False)
class LabelType(str):
    """The type of a data set's labels. As a string it is its name; `NONE`, for unlabelled data, is empty and false.

    `task` names the head in `hf(…, task=…)`, `head` in a student's block; `ends` are suffixes of transformers' classes
    with such a head. `form` says what a label is.

    `metrics` are all metrics, `main` is the default one, `shown` have a column in a run's closing table. Those in
    `lower_is_better` are errors and the like, those in `binary` need two classes, those in `entities` tags that mark
    entities. `words` spells parts of their names as tables show them.

    `problem` is the type's word in `problem_type=…` of a spec, `problem_type` transformers' name for it. `loss` is the
    usual operation on labels, `soft` that on a teacher's outputs. `marks` describes labels that mark places in a text.

    For new specs: `about` says what the labels are, `learnt` what both terms of the loss are; `source` is the data
    source that reads files of them.
    """

    name: str
    task: Task
    head: str
    ends: tuple[str, ...]
    _: KW_ONLY
    form: Form
    metrics: tuple[str, ...] = ()
    main: str = LOSS
    shown: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    problem_type: ProblemType | None = None
    loss: str = "ce"
    soft: str = "kd({source} -> {target}, T=T)"
    marks: str = ""
    about: str = ""
    learnt: tuple[str, ...] = ()
    source: Source = "files"

    def __new__(cls, name: str, *_: Any, **__: Any) -> LabelType:
        return super().__new__(cls, name)

    @property
    def auto_class(self) -> str:
        """The transformers class that loads a model with a head for such labels."""
        return f"AutoModelFor{self.ends[0]}" if self.ends else "AutoModel"

    # ── what follows from the form ──

    @property
    def column(self) -> str:
        """The column of data that holds the labels."""
        return {Form.TAGS: "tags", Form.SPANS: "answers"}.get(self.form, "label")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a batch that hold them."""
        return {Form.SPANS: ("start", "end"), Form.NONE: ()}.get(self.form, ("labels",))

    @property
    def logits(self) -> tuple[str, ...]:
        """What a model with such a head returns."""
        return ("start_logits", "end_logits") if self.form is Form.SPANS else ("logits",)

    @property
    def axes(self) -> int:
        """The axes of a batch's labels."""
        return 2 if self.form in (Form.CLASSES, Form.TAGS, Form.TOKENS) else 1

    @property
    def is_float(self) -> bool:
        """Whether labels are regression targets."""
        return self.form in (Form.CLASSES, Form.NUMBER)

    @property
    def per_class(self) -> bool:
        """Whether each class has a logit."""
        return self.form in (Form.CLASS, Form.CLASSES, Form.TAGS)

    @property
    def per_token(self) -> bool:
        """Whether each token has a label."""
        return self.form in (Form.TAGS, Form.TOKENS)

    @property
    def over_vocabulary(self) -> bool:
        """Whether labels are words."""
        return self.form is Form.TOKENS

    @property
    def aligned(self) -> bool:
        """Whether labels lie along the tokens of an encoding, or point to them."""
        return self.per_token or self.form is Form.SPANS

    @property
    def is_cut(self) -> bool:
        """Whether long texts are cut into windows or blocks, so that nothing of them is lost."""
        return self.form in (Form.SPANS, Form.TOKENS)

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        """Serialize a type as its name."""
        from pydantic_core import core_schema  # commands that read no file do without it

        name = core_schema.to_string_ser_schema()
        return core_schema.no_info_plain_validator_function(LABEL_TYPES.__getitem__, serialization=name)


# fmt: off
CLASS = LabelType(
    "class", "sequence-classification", "sequence_classifier", ("SequenceClassification",), form=Form.CLASS,
    metrics=("accuracy", "macro_f1", "f1", "matthews"), main="accuracy", shown=("accuracy", "macro_f1"),
    binary=("f1",), words={"f1": "F1", "matthews": "Matthews"},
    problem="single_label", problem_type="single_label_classification",
    about="one class per text",
    learnt=("the teacher's distribution over the classes at a temperature", "the labels"),
)
CLASSES = LabelType(
    "classes", CLASS.task, CLASS.head, CLASS.ends, form=Form.CLASSES,
    metrics=("micro_f1", "macro_f1", "exact_match"), main="micro_f1", shown=("micro_f1", "macro_f1"),
    problem="multi_label", problem_type="multi_label_classification",
    loss="bce", soft="T ** 2 * bce({source} -> {target}, T=T)",
    about="several classes per text",
    learnt=("the teacher's probability of each class at a temperature", "the labels"),
)
VALUE = LabelType(
    "value", CLASS.task, CLASS.head, CLASS.ends, form=Form.NUMBER,
    metrics=("spearman", "pearson", "mse"), main="spearman", shown=("spearman", "pearson"),
    lower_is_better=("mse",), words={"mse": "MSE", "pearson": "Pearson", "spearman": "Spearman"},
    problem="regression", problem_type="regression",
    loss="mse", soft="mse({source} -> {target})",
    about="a number per text", learnt=("the teacher's numbers", "the labels"),
)
TAGS = LabelType(
    "tags", "token-classification", "token_classifier", ("TokenClassification",), form=Form.TAGS,
    metrics=("f1", "precision", "recall", "strict_f1", "token_accuracy"), main="f1", shown=("f1", "token_accuracy"),
    entities=("f1", "precision", "recall", "strict_f1"),
    soft="kd({source} -> {target}, T=T, mask=labels)", marks="a tag for each word",
    about="a tag per word", learnt=("the teacher's distribution over the tags of each word", "the tags"),
    source="conll",
)
SPANS = LabelType(
    "spans", "question-answering", "span_classifier", ("QuestionAnswering", "QuestionAnsweringSimple"), form=Form.SPANS,
    metrics=("exact_match", "f1", "has_answer_exact", "has_answer_f1", "no_answer_exact", "no_answer_f1"), main="f1",
    shown=("exact_match", "f1", "has_answer_f1", "no_answer_f1"),
    words={"has_answer": "HasAns", "no_answer": "NoAns"}, marks="answers at places of the text",
    about="answers in a text",
    learnt=("the teacher's distributions over the first and the last token of the answer", "the answers"),
    source="squad",
)
MASKED = LabelType(
    "masked", "masked-lm", "masked_lm", ("MaskedLM", "WithLMHeadModel"), form=Form.TOKENS,
    metrics=("perplexity", "token_accuracy"), main="perplexity", shown=("perplexity",), lower_is_better=("perplexity",),
    about="masked words", learnt=("the teacher's distribution over the vocabulary", "the masked words"),
    source="text",
)
NEXT = replace(
    MASKED, name="next", task="causal-lm", head="causal_lm", ends=("CausalLM", "LMHeadModel"),
    about="the next word", learnt=(MASKED.learnt[0], "the next words"),
)
NONE = LabelType(
    "", "features", "", (), form=Form.NONE, loss="kd", about="no labels", learnt=CLASS.learnt[:1],
)
# fmt: on

LABEL_TYPES: Mapping[str, LabelType] = {x.name: x for x in (CLASS, CLASSES, VALUE, TAGS, SPANS, MASKED, NEXT, NONE)}
"""Every type by its name."""

if TYPE_CHECKING:
    Name: TypeAlias = str
    Problem: TypeAlias = str
else:
    Name = Literal[tuple(x for x in LABEL_TYPES if x)]
    """The types by name, as `batches(labels=…)` takes them."""
    Problem = Literal[tuple(dict.fromkeys(x.problem for x in LABEL_TYPES.values() if x.problem))]
    """The words of `problem_type=…`."""


def of_problem(word: str | None) -> LabelType:
    """The type of a `problem_type` of specs or transformers: `regression`; `NONE` without one."""
    return next((x for x in LABEL_TYPES.values() if word and word in (x.problem, x.problem_type)), NONE)


def of_architecture(name: str) -> LabelType:
    """The first type that fits the name of a transformers model class; `NONE` if none does."""
    return next((x for x in LABEL_TYPES.values() if name.endswith(x.ends)), NONE)
