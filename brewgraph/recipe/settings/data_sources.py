"""Where data come from, as a spec may say it: one frozen pydantic model per source.

`label_type` says what the labels are, so that heads, losses and metrics can be chosen before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from brewgraph.recipe.label_types import (
    CLASS,
    LABEL_TYPES,
    MASKED,
    NEXT,
    NONE,
    SPANS,
    TAGS,
    VALUE,
    Form,
    LabelType,
    Name,
    Problem,
    of_problem,
)
from brewgraph.recipe.length import Length
from brewgraph.recipe.settings.base import EachOnce, Settings, Share

LONGEST = 512
"""Tokens per example if neither the spec, the tokenizer nor the model sets a limit."""


class DataSource(Settings):
    """What every data source answers, whatever it reads. What differs by source is an answer here or a handler in
    `data/sources`; nobody asks a source for its class.
    """

    columns: ClassVar[frozenset[str]] = frozenset({"text", "label"})
    """Fields whose bare names are columns of the data, not names of the spec."""
    holds_tensors: ClassVar[bool] = False
    """Whether it holds batches of tensors that are ready to use: no texts, no tokenizer, an order of its own."""
    no_columns: ClassVar[str] = ""
    """Why it has no columns beside texts and labels; empty where it has them."""

    if TYPE_CHECKING:

        @property
        def batch(self) -> int | Length: ...

        @property
        def max_length(self) -> int | None: ...

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The sources that it joins; a plain source joins itself alone."""
        return (self,)

    @property
    def label_type(self) -> LabelType:
        """What the labels are: `CLASS`, or `NONE` where there are none."""
        return CLASS

    @property
    def weighted(self) -> bool:
        """Whether examples have weights: a column of them, or one per class."""
        return any(getattr(self, name, None) is not None for name in ("weight", "class_weights"))

    @property
    def files(self) -> Mapping[str, str]:
        """The local files that it reads, by the argument that names each."""
        named = {field: getattr(self, field, None) for field in ("train", "dev", "test")}
        return {field: path for field, path in named.items() if path}

    @property
    def hub_name(self) -> str | None:
        """Its name on the hub, which may also be a folder; None for a source that is never there."""
        return None

    @property
    def is_augmented(self) -> bool:
        """Whether `augment` changes texts of it every epoch."""
        return any(getattr(part, "augment", ()) for part in self.sources)

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns of the texts, as a file of the same layout has them; None where only its facts tell them."""
        return ("text",)

    @property
    def content(self) -> dict[str, Any]:
        """What the data are, as far as settings tell it. Settings that are left out and the size of batches are no
        part of it, so that a setting that comes later changes no hash.
        """
        content = self.model_dump(exclude={"batch"})
        if augment := getattr(self, "augment", ()):
            content["augment"] = repr(augment)  # tells masking from deleting; a dump has their fields alone
        return {key: value for key, value in content.items() if key not in ("classes", "quoting") or value is not None}

    def of_file(self, path: str, columns: Sequence[str], classes: tuple[str, ...], *, labelled: bool) -> DataSource:
        """The source that reads another file of the same layout as its training split.

        `columns` are those of its facts, `classes` those of the run: a file may hold some of them alone. Weights are
        for training, and are not read.
        """
        several = isinstance(getattr(self, "label", None), tuple)
        update: dict[str, Any] = {"train": path, "dev": None, "test": None, "weight": None, "class_weights": None}
        update["classes"] = classes if labelled and classes and not several else None
        if not labelled:
            update |= {"label": None, "tags": None}
        return self.model_copy(update={k: v for k, v in update.items() if k in type(self).model_fields})


def _batch(value: Any) -> Any:
    if isinstance(value, Length) and (value.is_of_training or value.value < 1 or value.value % 1):
        raise ValueError("a batch is a number of examples, or of tokens: 32, 4096 tokens")
    return value


class Data(DataSource):
    """What sources of examples share."""

    batch: Annotated[PositiveInt | Length, BeforeValidator(_batch)] = Field(
        default=32,
        description="examples per batch over all ranks, or at most this many tokens, without padding: 4096 tokens",
    )
    max_length: PositiveInt | None = Field(
        default=None, description="longest encoding in tokens; default: the model's limit"
    )
    augment: tuple[Settings, ...] = Field(
        default=(), description="augmentation of training texts: [masking(p=10%), short_disorder(p=10%)]"
    )


def _class_weights(value: Any) -> Any:
    """`balanced`, or one number above zero per class."""
    if value is None or value == "balanced":
        return value
    numbers = isinstance(value, tuple | list) and all(isinstance(x, int | float) and x > 0 for x in value)
    if not numbers or not value:
        raise ValueError("it is `balanced`, or a list of numbers above zero, one per class")
    return tuple(float(x) for x in value)


ClassNames = Annotated[tuple[str, ...] | None, EachOnce]
ClassWeights = Annotated[Literal["balanced"] | tuple[PositiveFloat, ...] | None, BeforeValidator(_class_weights)]


class Labelled(Data):
    """What sources share whose columns a spec names."""

    columns: ClassVar[frozenset[str]] = frozenset({"text", "label", "weight"})
    bare: ClassVar[frozenset[str]] = frozenset({"problem_type", "class_weights"})

    text: tuple[str, ...] = Field(default=("text",), description="one or two text columns", min_length=1, max_length=2)
    label: str | tuple[str, ...] | None = Field(
        default="label", description="label column, or one 0/1 column per class: [joy, anger]; none without labels"
    )
    problem_type: Problem = Field(
        default=CLASS.problem, description="the target of an example: one class, several (a list), or a number"
    )
    classes: ClassNames = Field(
        default=None,
        description="the classes in the order of the logits, as in a teacher: labels as in the data, or names for the "
        "numbers 0, 1, …; default: names in alphabetical order",
    )
    weight: str | None = Field(default=None, description="column of numbers: how much each example counts")
    class_weights: ClassWeights = Field(
        default=None, description="class weights: balanced (rare classes weigh more), or a list in class order"
    )

    @model_validator(mode="after")
    def _fits(self) -> Labelled:
        form = of_problem(self.problem_type).form
        if isinstance(self.label, tuple) and form is Form.NUMBER:
            raise ValueError(f"problem_type={self.problem_type} predicts one number: name one column of numbers")
        if isinstance(self.label, tuple) and form is not Form.CLASSES:
            raise ValueError("several label columns need problem_type=multi_label")
        if self.label is None and self.problem_type != CLASS.problem:
            raise ValueError(f"problem_type={self.problem_type} needs a label")
        if self.classes is not None and isinstance(self.label, tuple):
            raise ValueError("several label columns name the classes themselves: remove `classes`")
        if self.classes is not None and not self.label_type.per_class:
            raise ValueError("classes need examples that have one class each, or a list of them")
        if self.class_weights is not None and self.label_type.form is not Form.CLASS:
            raise ValueError("class_weights need examples that have one class each")
        return self

    @property
    def label_type(self) -> LabelType:
        """What the labels are: the type of `problem_type`, or `NONE` where there are none."""
        return of_problem(self.problem_type) if self.label is not None else NONE

    @property
    def text_columns(self) -> tuple[str, ...]:
        return self.text


class Files(Labelled):
    """`files(train="a.jsonl", dev="b.jsonl", text=[premise, hypothesis], label=label)`.

    json, jsonl, csv, tsv or parquet, plain or gzipped; paths relative to the spec. In csv a field may stand in double
    quotes and hold commas and line breaks then; in tsv a quote is a character like any other. Labels of both are
    numbers where the whole column is written as numbers, all whole or all with a point: `01` beside `1` is text.
    """

    train: str = Field(description="file with the training examples")
    dev: str | None = Field(default=None, description="file to evaluate on")
    test: str | None = Field(default=None, description="file kept for the end")
    quoting: bool | None = Field(default=None, description="whether double quotes enclose fields; default: only in csv")


def _table_file(
    path: str,
    text: Sequence[str],
    label: str | tuple[str, ...] | None,
    problem: Problem,
    classes: tuple[str, ...],
) -> Files:
    """A file that is laid out like a table from elsewhere; without a label it needs none."""
    if label is None:
        return Files(train=path, text=tuple(text), label=None)
    named = classes if classes and not isinstance(label, tuple) else None
    return Files(train=path, text=tuple(text), label=label, problem_type=problem, classes=named)


class Glue(Data):
    """`glue("mnli")`: a task of the GLUE benchmark, its columns known; `stsb` has a number from 0 to 5 as its label."""

    positional: ClassVar[tuple[str, ...]] = ("task",)

    task: Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"] = Field(
        description="name of the task"
    )

    @property
    def label_type(self) -> LabelType:
        """A number for stsb, a class for every other task."""
        return VALUE if self.task == "stsb" else CLASS

    @property
    def text_columns(self) -> None:
        return None

    def of_file(self, path: str, columns: Sequence[str], classes: tuple[str, ...], *, labelled: bool) -> DataSource:
        label = columns[-1] if labelled else None
        return _table_file(path, columns[:-1], label, self.label_type.problem, classes)


class Hub(Labelled):
    """`hub("name", text=[a, b], label=label)`: a data set from the hub, or a local folder of the same layout."""

    positional: ClassVar[tuple[str, ...]] = ("name", "subset")

    name: str = Field(description="name on the hub, or a folder")
    subset: str | None = Field(default=None, description="the data set's configuration")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    train: str = Field(default="train", description="split to train on")
    dev: str | None = Field(default="validation", description="split to evaluate on")
    test: str | None = Field(default=None, description="split kept for the end")

    @property
    def files(self) -> Mapping[str, str]:
        return {}

    @property
    def hub_name(self) -> str:
        return self.name

    def of_file(self, path: str, columns: Sequence[str], classes: tuple[str, ...], *, labelled: bool) -> DataSource:
        return _table_file(path, self.text, self.label if labelled else None, self.problem_type, classes)


def _without(content: dict[str, Any], *settings: str) -> dict[str, Any]:
    """The content without these settings where they are left out or zero."""
    return {key: value for key, value in content.items() if key not in settings or value}


class Conll(Data):
    """`conll(train="a.conll", dev="b.conll", words=0, tags=-1)`: a tag for each word, one word per line.

    Columns at white space, an empty line between two sentences; plain or gzipped. A line with `-DOCSTART-` ends a
    sentence, too. Before a sentence a line that begins with `#` is a comment, unless it has as many columns as others
    and a tag of theirs: `# O` is a word. Entities are tagged in IOB2 (`O`, `B-PER`, `I-PER`), IOBES, BILOU or BMES,
    also as `B_PER` or `PER-B`; IOB1 becomes IOB2. Other tags, as those for parts of speech, are taken as they are. A
    sentence longer than `max_length` is cut off in training, and evaluated in windows. A comment `# trust = 0.8` before
    a sentence is its value in the column `trust`.
    """

    columns: ClassVar[frozenset[str]] = frozenset({"weight"})
    bare: ClassVar[frozenset[str]] = frozenset({"separator"})

    train: str = Field(description="file with the training sentences")
    dev: str | None = Field(default=None, description="file to evaluate on")
    test: str | None = Field(default=None, description="file kept for the end")
    words: int = Field(default=0, description="column of the words, from 0; -1 is the last")
    tags: int | None = Field(default=-1, description="column of the tags, from 0; -1 is the last; none without tags")
    classes: ClassNames = Field(
        default=None, description="tags in the order of their numbers, as in a teacher; default: O, then type by type"
    )
    weight: str | None = Field(
        default=None, description="weight of each sentence: `trust` reads a comment `# trust = 0.8` before it"
    )
    separator: Literal["whitespace", "tab", "space"] = Field(
        default="whitespace", description="column separator: whitespace (any), tab or space"
    )

    @model_validator(mode="after")
    def _two(self) -> Conll:
        if self.words == self.tags:
            raise ValueError(f"words and tags cannot both be in column {self.words}")
        if self.classes is not None and self.tags is None:
            raise ValueError("classes need tags")
        return self

    @property
    def label_type(self) -> LabelType:
        return TAGS if self.tags is not None else NONE

    @property
    def content(self) -> dict[str, Any]:
        return _without(super().content, "weight")


class Squad(Data):
    """`squad(train="train.json", dev="dev.json", max_length=384, stride=128)`: answers that are stretches of a text.

    json in the form of SQuAD 1.1 or 2.0, plain or gzipped. A text that is too long becomes several windows, which share
    `stride` tokens with the one before. A window that does not hold the whole answer is not learnt from. Where some
    questions have no answer (`is_impossible`, or empty `answers`), such questions and such windows have their answer at
    the CLS token, and the student may answer nothing: where the logits of that token exceed those of the best answer by
    more than `null_threshold`. What else stands beside `question` and `answers` is a column.
    """

    columns: ClassVar[frozenset[str]] = frozenset({"weight"})

    train: str = Field(description="file with the training questions")
    dev: str | None = Field(default=None, description="file to evaluate on")
    test: str | None = Field(default=None, description="file kept for the end")
    max_length: PositiveInt | None = Field(default=384, description="tokens of question and window together, at most")
    stride: NonNegativeInt = Field(default=128, description="tokens that a window shares with the one before")
    max_query_length: PositiveInt = Field(default=64, description="tokens of a question; what is longer is cut off")
    weight: str | None = Field(
        default=None, description="key of each question's weight, which applies to all its windows"
    )
    null_threshold: float = Field(
        default=0.0, allow_inf_nan=False, description="no answer is predicted if its score exceeds the best by more"
    )

    @model_validator(mode="after")
    def _fits(self) -> Squad:
        if self.max_length is not None and self.stride >= self.max_length:
            said = f"windows of {self.max_length} tokens cannot share {self.stride}"
            raise ValueError(
                f"{said}: set a smaller `stride`, {self.max_length // 3} for one, or a larger `max_length`"
            )
        return self

    @property
    def label_type(self) -> LabelType:
        return SPANS

    @property
    def text_columns(self) -> tuple[str, ...]:
        return "question", "context"

    @property
    def content(self) -> dict[str, Any]:
        return _without(super().content, "weight", "null_threshold")


class Text(Data):
    """`text(train="a.txt", dev="b.txt", mask=15%)`: plain text for language models, plain or gzipped.

    Without `mask` the labels are the next words. With it that share of the words is to be guessed: 80% of them stand as
    the mask, 10% as another token, 10% as they are (Devlin et al. 2019), drawn anew in every epoch. The text is cut
    into blocks without regard to its lines.
    """

    columns: ClassVar[frozenset[str]] = frozenset()
    no_columns: ClassVar[str] = "blocks run across lines"

    train: str = Field(description="file with the text to train on")
    dev: str | None = Field(default=None, description="file to evaluate on")
    test: str | None = Field(default=None, description="file kept for the end")
    mask: Annotated[float, Share, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the tokens to predict, as 15%; 0: predict the next word"
    )
    block: PositiveInt | None = Field(
        default=None, description="tokens per block, with special tokens; default: max_length"
    )

    @property
    def label_type(self) -> LabelType:
        return MASKED if self.mask else NEXT


class Builtin(Data):
    """`builtin("python-docs")`: real text that is on every machine: the standard library's docstrings by package."""

    positional: ClassVar[tuple[str, ...]] = ("name",)

    no_columns: ClassVar[str] = "it is text by package"

    name: Literal["python-docs"] = Field(description="name of the data set")

    @property
    def text_columns(self) -> None:
        return None

    def of_file(self, path: str, columns: Sequence[str], classes: tuple[str, ...], *, labelled: bool) -> DataSource:
        return _table_file(path, columns[:-1], columns[-1] if labelled else None, CLASS.problem, classes)


class Batches(DataSource):
    """`batches("folder", shuffle=false)`: ready tensors, one entry of `batches.safetensors` per micro-batch.

    The entries are taken in order in every epoch; keys are `INDEX.FIELD`, or `INDEX.MODEL.FIELD` where a model of the
    spec has inputs of its own. `dev.safetensors`, where there is one, is evaluated on.
    """

    positional: ClassVar[tuple[str, ...]] = ("folder",)
    columns: ClassVar[frozenset[str]] = frozenset()
    holds_tensors: ClassVar[bool] = True

    folder: str = Field(description="folder with batches.safetensors, relative to the spec", min_length=1)
    shuffle: bool = Field(default=False, description="true: the batches in an order of their own in every epoch")
    labels: Name | None = Field(
        default="class", description=f"label type: {', '.join(filter(None, LABEL_TYPES))}, or none"
    )
    first: NonNegativeInt = Field(default=0, description="the first batch to train on, counted from 0")
    last: NonNegativeInt | None = Field(
        default=None, description="the last batch to train on, inclusive; default: the last one"
    )

    @model_validator(mode="after")
    def _some(self) -> Batches:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"from batch {self.first} to batch {self.last} there is none")
        return self

    @property
    def label_type(self) -> LabelType:
        """Which kind of labels a batch holds; `NONE` where it has none."""
        return LABEL_TYPES[self.labels or ""]

    @property
    def batch(self) -> int:
        """One entry is one batch, however many examples it holds."""
        return 1

    @property
    def max_length(self) -> int | None:
        return None


class Join(DataSource):
    """`a + b`: data sets one after the other, with labels of one kind; batch size and length are the first one's."""

    parts: tuple[SerializeAsAny[DataSource], ...] = Field(min_length=2, description="what is joined")

    @property
    def sources(self) -> tuple[DataSource, ...]:
        return self.parts

    @property
    def batch(self) -> int | Length:
        return self.parts[0].batch

    @property
    def max_length(self) -> int | None:
        return self.parts[0].max_length

    @property
    def label_type(self) -> LabelType:
        return self.parts[0].label_type

    @property
    def weighted(self) -> bool:
        """Whether examples have weights; where only some of the parts have, the others' count once."""
        return any(part.weighted for part in self.parts)

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """Those of the first: a file is laid out like it."""
        return self.parts[0].text_columns

    @property
    def no_columns(self) -> str:  # type: ignore[override]
        return self.parts[0].no_columns

    @property
    def content(self) -> dict[str, Any]:
        return {"parts": tuple(part.content for part in self.parts)}

    def of_file(self, path: str, columns: Sequence[str], classes: tuple[str, ...], *, labelled: bool) -> DataSource:
        return self.parts[0].of_file(path, columns, classes, labelled=labelled)


DATA: dict[str, type[DataSource]] = {
    "files": Files,
    "glue": Glue,
    "hub": Hub,
    "conll": Conll,
    "squad": Squad,
    "text": Text,
    "builtin": Builtin,
    "batches": Batches,
}
