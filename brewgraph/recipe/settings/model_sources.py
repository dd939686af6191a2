"""Where models come from, as a spec may say it: one frozen pydantic model per source, adapter and head.

The field names are the keyword arguments of the call in the spec, the docstrings its documentation. Values arrive
evaluated (numbers, strings, tuples), names of columns and of other models as plain strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    PositiveInt,
    model_validator,
)

from brewgraph.recipe.label_types import Problem, Task
from brewgraph.recipe.settings.base import DeviceName, EachOnce, NumberFormat, Settings


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
        default=None, min_length=1, description="path endings of the adapted linear maps; default: the usual ones"
    )


class ModelSource(Settings):
    """What every model source answers; each answer stands for a source that has no such thing. Nobody asks a source
    for its class: what differs by source is an answer here, or a handler registered where it is used.
    """

    has_configuration: ClassVar[bool] = False
    """Whether the source itself holds a model's configuration: it takes heads, adapters, layers of another model."""
    is_known: ClassVar[bool] = True
    """Whether anything is known of the model before it is built."""
    placing: ClassVar[frozenset[str]] = frozenset({"device"})

    device: DeviceName | None = Field(
        default=None, description='where a teacher runs: "cpu", "cuda", "cuda:1"; default: where the student does'
    )

    @property
    def checkpoint(self) -> str | None:
        """The folder or hub name of its configuration."""
        return None

    @property
    def is_random(self) -> bool:
        """Whether its weights begin at random."""
        return False

    @property
    def start(self) -> Layers | None:
        """Layers of another model that it starts from."""
        return None

    @property
    def lora(self) -> Lora | None:
        """The adapter that is trained in place of its weights."""
        return None

    @property
    def forward_columns(self) -> Mapping[str, str]:
        """Columns of the data by the argument of its forward that they fill."""
        return {}

    @property
    def tokenizer_name(self) -> str | None:
        """Folder, hub name or model whose tokenizer it takes; None where it has one of its own or none."""
        return None

    @property
    def averaged(self) -> str | None:
        """The student whose running average it is."""
        return None

    @property
    def spec(self) -> str | None:
        """The spec whose student it is, relative to its own."""
        return None

    @property
    def spec_params(self) -> Mapping[str, Any]:
        """The params that its spec is called with."""
        return {}

    @property
    def number_format(self) -> str:
        """The format of its weights in memory: `fp32`, `bf16` or `fp16`."""
        return "fp32"

    @property
    def quantization(self) -> str | None:
        """How its weights are quantized: `int8` or `nf4`."""
        return None

    @property
    def is_rounded(self) -> bool:
        """Whether it computes with other weights than it was saved with."""
        return self.number_format != "fp32" or self.quantization is not None

    @property
    def weights(self) -> str:
        """Where its weights come from, in words."""
        raise NotImplementedError


class Hf(ModelSource):
    """`hf("name or folder", **config)`: a transformers model, from a folder or the hub, or from scratch.

    `hf(model_type="bert", hidden_size=64, ...)` has no name and starts from random weights.
    """

    positional: ClassVar[tuple[str, ...]] = ("name",)
    extras: ClassVar[str | None] = "config"

    name: str | None = Field(default=None, min_length=1, description="folder, or name on the hub")
    model_type: str | None = Field(
        default=None, description="architecture of a model from scratch, by its transformers name"
    )
    task: Task | None = Field(
        default=None, description="the head; default: it follows from what the model is matched with"
    )
    labels: Annotated[tuple[str, ...] | None, EachOnce] = Field(
        default=None, description="class names in the order of the logits"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    pretrained: bool = Field(default=True, description="false: the configuration alone, weights random")
    init: Layers | None = Field(default=None, description="start from layers of another model: bert.layers[0, 4, 8]")
    adapter: Lora | None = Field(default=None, description="train only small added matrices: lora(r=8, alpha=16)")
    tokenizer: str | None = Field(
        default=None,
        description="folder, hub name, or another model's name; default: the model's own, for a model from scratch "
        "that of its first teacher, else a WordPiece vocabulary trained on the data",
    )
    vocab_size: PositiveInt | None = Field(default=None, description="size of a vocabulary that is trained on the data")
    dtype: NumberFormat | None = Field(
        default=None, description="number format of a teacher's weights and of its forward; default: fp32"
    )
    quantize: Literal["int8", "nf4"] | None = Field(
        default=None, description="weights of a teacher's linear layers in 8 bits (torchao) or 4 (bitsandbytes)"
    )
    inputs: dict[str, str] = Field(
        default_factory=dict, description="data columns for arguments of its forward: {token_type_ids: column}"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="overrides of the model's configuration")

    has_configuration: ClassVar[bool] = True

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # hashes are made of it: what is left out does not count
        optional = ("dtype", "quantize")
        return [(key, x) for key, x in super().__repr_args__() if key not in optional or x is not None]

    @property
    def checkpoint(self) -> str | None:
        return self.name

    @property
    def is_random(self) -> bool:
        return self.name is None or not self.pretrained

    @property
    def start(self) -> Layers | None:
        return self.init

    @property
    def lora(self) -> Lora | None:
        return self.adapter

    @property
    def forward_columns(self) -> Mapping[str, str]:
        return self.inputs

    @property
    def tokenizer_name(self) -> str | None:
        return self.tokenizer

    @property
    def weights(self) -> str:
        if self.init is not None:
            return f"layers {', '.join(map(str, self.init.layers))} of {self.init.model}, the rest random"
        return (
            ("random weights" if self.is_random else f"the weights of {self.name}")
            + (f", in {self.dtype}" if self.dtype else "")
            + (f", quantized to {self.quantize}" if self.quantize else "")
        )

    @property
    def number_format(self) -> str:
        return self.dtype or "fp32"

    @property
    def quantization(self) -> str | None:
        return self.quantize


class Bigru(Hf):
    """`bigru(hidden_size=256)`: a small bidirectional GRU from scratch, the classic student that is no transformer."""

    positional: ClassVar[tuple[str, ...]] = ()

    model_type: Literal["bigru"] = Field(default="bigru", description="always `bigru`")
    hidden_size: PositiveInt = Field(default=256, description="units per direction; states are twice as wide")
    num_hidden_layers: PositiveInt = Field(default=1, description="bidirectional layers, one upon the other")
    embedding_size: PositiveInt = Field(default=256, description="width of the word embeddings")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="dropout after embeddings, between layers, before the head"
    )

    @model_validator(mode="before")
    @classmethod
    def _into_config(cls, said: Any) -> Any:
        """What is written here and belongs to the model's configuration goes there too."""
        if not isinstance(said, dict):
            return said
        sizes = {
            key: said[key] for key in ("hidden_size", "num_hidden_layers", "embedding_size", "dropout") if key in said
        }
        return {**said, "config": {**said.get("config", {}), **sizes}}


class Ema(ModelSource):
    """`ema(tiny, decay=0.999)`: a teacher that is the running average of the student's own weights (Mean Teacher)."""

    positional: ClassVar[tuple[str, ...]] = ("model",)

    model: str = Field(description="the student whose weights are averaged")
    decay: float = Field(default=0.999, ge=0, lt=1, description="how much of the average stays at each step")
    warmup: bool = Field(default=False, description="true: a smaller decay at first, (1 + k) / (10 + k) at step k")

    @property
    def tokenizer_name(self) -> str:
        return self.model

    @property
    def averaged(self) -> str:
        return self.model

    @property
    def weights(self) -> str:
        return f"a copy of {self.model}, and follows it: {self.decay:g} of itself stays at each step"


class Brew(ModelSource):
    """`brew("teacher.brew", epochs=3)`: the student of another spec, trained first unless a finished run exists."""

    positional: ClassVar[tuple[str, ...]] = ("path",)
    extras: ClassVar[str | None] = "params"

    path: str = Field(description="the other spec, relative to this one")
    params: dict[str, Any] = Field(default_factory=dict, description="its params, by keyword")

    @property
    def spec(self) -> str:
        return self.path

    @property
    def spec_params(self) -> Mapping[str, Any]:
        return self.params

    @property
    def weights(self) -> str:
        params = ", ".join(f"{k}={v}" for k, v in self.params.items())
        return f"the student of {self.path}{f' with {params}' if params else ''}: its finished run, or trained first"


class Python(ModelSource):
    """`python("pkg.mod:factory", **arguments)`: whatever torch module an installed factory returns."""

    positional: ClassVar[tuple[str, ...]] = ("target",)
    extras: ClassVar[str | None] = "arguments"

    target: str = Field(description="module and callable: pkg.mod:factory", pattern=r"^[\w.]+:[\w.]+$")
    arguments: dict[str, Any] = Field(default_factory=dict, description="passed on by keyword")

    is_known: ClassVar[bool] = False

    @property
    def weights(self) -> str:
        return f"what {self.target} returns"


class TokenClassifier(Settings):
    """`token_classifier(labels=9)`: one class per token."""

    positional: ClassVar[tuple[str, ...]] = ("labels",)

    labels: Annotated[PositiveInt | tuple[str, ...] | None, EachOnce] = Field(
        default=None, description="number of classes, or their names in order; default: those of the data"
    )


class SequenceClassifier(TokenClassifier):
    """`sequence_classifier(labels=2)`: one class, several, or a number per example."""

    problem_type: Problem | None = Field(
        default=None, description="the target of an example: one class, several, or a number; default: as the data"
    )


class SpanClassifier(Settings):
    """`span_classifier()`: the first and the last token of an answer."""


class MaskedLm(Settings):
    """`masked_lm()`: the words behind the masks."""


class CausalLm(Settings):
    """`causal_lm()`: the next word."""


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
