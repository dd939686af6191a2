"""Where models and data come from, as a spec may say it: one frozen pydantic model per source.

The field names are the keyword arguments of the call in the spec, the docstrings its documentation. Values arrive
evaluated (numbers, strings, tuples), names of columns and of other models as plain strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from brewgraph.recipe.label_types import LABEL_TYPES, LabelType, Name, Task
from brewgraph.recipe.settings.base import EachOnce, Settings
from brewgraph.recipe.settings.corpora import Builtin, Conll, Files, Glue, Hub, Squad, Text

__all__ = ["Builtin", "Conll", "Files", "Glue", "Hub", "Settings", "Squad", "Text"]
"""What other modules take from here; what is defined here comes with it."""


class Layers(Settings):
    """`bert.layers[0, 4, 8]`: some layers of a model, to start another model from."""

    model: str = Field(description="the model that is copied from, before `.layers`")
    layers: tuple[int, ...] = Field(description="the numbers of its layers, in the brackets, counted from 0")


class Lora(Settings):
    """`lora(r=8, alpha=16)`: small low-rank matrices beside frozen weights are what is trained (Hu et al. 2021)."""

    positional: ClassVar[tuple[str, ...]] = ("r",)

    r: PositiveInt = Field(default=8, description="rank of the two matrices")
    alpha: PositiveInt = Field(default=16, description="their product is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of their input that is dropped in training")
    target: Annotated[tuple[str, ...] | None, EachOnce] = Field(
        default=None,
        min_length=1,
        description="ends of the paths of the linear maps that get them; left out, the architecture's usual ones",
    )


class Hf(Settings):
    """`hf("name or folder", **config)`: a transformers model, from a folder or the hub, or from scratch.

    `hf(model_type="bert", hidden_size=64, ...)` has no name and starts from random weights.
    """

    positional: ClassVar[tuple[str, ...]] = ("name",)
    extras: ClassVar[str | None] = "config"

    name: str | None = Field(default=None, min_length=1, description="folder, or name on the hub")
    model_type: str | None = Field(
        default=None, description="architecture of a model from scratch, as transformers names it"
    )
    task: Task | None = Field(
        default=None, description="which head; left out, it follows from what the model is matched with"
    )
    labels: Annotated[tuple[str, ...] | None, EachOnce] = Field(
        default=None, description="names of the classes, in the order of the logits"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    pretrained: bool = Field(default=True, description="false: the configuration alone, weights random")
    init: Layers | None = Field(
        default=None, description="start from these layers of another model: bert.layers[0, 4, 8]"
    )
    adapter: Lora | None = Field(
        default=None, description="train small matrices beside the frozen weights: lora(r=8, alpha=16)"
    )
    tokenizer: str | None = Field(
        default=None,
        description="folder, hub name, or another model's name; left out, the model's own, for a model from scratch "
        "that of its first teacher, else a WordPiece vocabulary trained on the data",
    )
    vocab_size: PositiveInt | None = Field(
        default=None, description="size of the vocabulary that is trained on the data"
    )
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="arguments of its forward that columns of the data fill: {token_type_ids: column}",
    )
    config: dict[str, Any] = Field(default_factory=dict, description="overrides of the model's configuration")


class Bigru(Hf):
    """`bigru(hidden_size=256)`: a small bidirectional GRU from scratch, the classic student that is no transformer."""

    positional: ClassVar[tuple[str, ...]] = ()

    model_type: Literal["bigru"] = Field(default="bigru", description="always `bigru`")
    hidden_size: PositiveInt = Field(default=256, description="units per direction; states are twice as wide")
    num_hidden_layers: PositiveInt = Field(default=1, description="bidirectional layers, one upon the other")
    embedding_size: PositiveInt = Field(default=256, description="width of the word embeddings")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share dropped behind embeddings, between layers, before the head"
    )

    @model_validator(mode="before")
    @classmethod
    def _into_config(cls, said: Any) -> Any:
        """What is written here and belongs to the model's configuration goes there too."""
        if not isinstance(said, dict):
            return said
        own = {
            key: said[key] for key in ("hidden_size", "num_hidden_layers", "embedding_size", "dropout") if key in said
        }
        return {**said, "config": {**said.get("config", {}), **own}}


class Ema(Settings):
    """`ema(tiny, decay=0.999)`: a teacher that is the running average of the student's own weights (Mean Teacher)."""

    positional: ClassVar[tuple[str, ...]] = ("model",)

    model: str = Field(description="the student whose weights are averaged")
    decay: float = Field(default=0.999, ge=0, lt=1, description="how much of the average stays at each step")
    warmup: bool = Field(
        default=False, description="true: a smaller decay in the first steps, (1 + k) / (10 + k) at step k"
    )


class Brew(Settings):
    """`brew("teacher.brew", epochs=3)`: the student of another spec, trained first unless a finished run exists."""

    positional: ClassVar[tuple[str, ...]] = ("path",)
    extras: ClassVar[str | None] = "params"

    path: str = Field(description="the other spec, relative to this one")
    params: dict[str, Any] = Field(default_factory=dict, description="its params, by keyword")


class Python(Settings):
    """`python("pkg.mod:factory", **arguments)`: whatever torch module an installed factory returns."""

    positional: ClassVar[tuple[str, ...]] = ("target",)
    extras: ClassVar[str | None] = "arguments"

    target: str = Field(description="module and callable: pkg.mod:factory", pattern=r"^[\w.]+:[\w.]+$")
    arguments: dict[str, Any] = Field(default_factory=dict, description="passed on by keyword")


ModelSource = Hf | Brew | Python | Ema


class TokenClassifier(Settings):
    """`token_classifier(labels=9)`: one class per token."""

    positional: ClassVar[tuple[str, ...]] = ("labels",)

    labels: Annotated[PositiveInt | tuple[str, ...] | None, EachOnce] = Field(
        default=None, description="how many classes, or their names in order; left out, those of the data"
    )


class SequenceClassifier(Settings):
    """`sequence_classifier(labels=2)`: one class, several, or a number per example."""

    positional: ClassVar[tuple[str, ...]] = ("labels",)

    labels: Annotated[PositiveInt | tuple[str, ...] | None, EachOnce] = Field(
        default=None, description="how many classes, or their names in order; left out, those of the data"
    )
    problem_type: Literal["single_label", "multi_label", "regression"] | None = Field(
        default=None, description="what is right of an example: one class, several, or a number; left out, as the data"
    )


class SpanClassifier(Settings):
    """`span_classifier()`: the first and the last token of an answer."""


class MaskedLm(Settings):
    """`masked_lm()`: the words behind the masks."""


class CausalLm(Settings):
    """`causal_lm()`: the next word."""


class Batches(Settings):
    """`batches("folder", shuffle=false)`: ready tensors, one entry of `batches.safetensors` per micro-batch.

    The entries are taken in order in every epoch; keys are `INDEX.FIELD`, or `INDEX.MODEL.FIELD` where a model of the
    spec has inputs of its own. `dev.safetensors`, where there is one, is evaluated on.
    """

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str = Field(description="folder with batches.safetensors, relative to the spec", min_length=1)
    shuffle: bool = Field(default=False, description="true: the batches in an order of their own in every epoch")
    labels: Name | None = Field(
        default="class",
        description="what the labels are: class, classes, value, tags, spans, next, masked, or none",
    )
    first: NonNegativeInt = Field(default=0, description="the first batch to train on, counted from 0")
    last: NonNegativeInt | None = Field(
        default=None, description="the last batch to train on, itself among them; left out, the last there is"
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

    @property
    def weighted(self) -> bool:
        return False


DataSource = Files | Glue | Hub | Conll | Squad | Text | Builtin | Batches


class Join(Settings):
    """`a + b`: data sets one after the other, with labels of one kind; batch size and length are the first one's."""

    parts: tuple[DataSource, ...] = Field(min_length=2, description="what is joined")

    @property
    def batch(self) -> int:
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


MODELS: Mapping[str, type[ModelSource]] = {"hf": Hf, "brew": Brew, "python": Python, "bigru": Bigru, "ema": Ema}
ADAPTERS: dict[str, type[Settings]] = {"lora": Lora}
HEADS: dict[str, type[Settings]] = {
    "token_classifier": TokenClassifier,
    "sequence_classifier": SequenceClassifier,
    "span_classifier": SpanClassifier,
    "masked_lm": MaskedLm,
    "causal_lm": CausalLm,
}
"""What may stand behind `head NAME =` in a student's block."""
DATA: Mapping[str, type[DataSource]] = {
    "files": Files,
    "glue": Glue,
    "hub": Hub,
    "conll": Conll,
    "squad": Squad,
    "text": Text,
    "builtin": Builtin,
    "batches": Batches,
}
