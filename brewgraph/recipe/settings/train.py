"""`train { }`: its settings, with units and defaults; named as in transformers' `TrainingArguments`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from brewgraph.recipe.length import Length
from brewgraph.recipe.settings.base import NumberFormat, Settings, each_once
from brewgraph.recipe.settings.metric_names import greater_is_better

COMPILED = "compiled layers stay padded, and on a CPU take longer than others"
"""What `compile` costs."""

GRADIENT_SHARES = "gradient_shares"
"""The word of `report` for each term's share of the gradient."""


class Adamw(Settings):
    """`adamw(lr=1e-4)`: Adam with decoupled weight decay, which spares biases and norms unless told otherwise."""

    lr: PositiveFloat = Field(default=5e-5, description="learning rate at its highest")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of the two running means")
    eps: PositiveFloat = Field(default=1e-8, description="added to the root in the denominator")
    weight_decay: NonNegativeFloat = Field(
        default=0.01, description="decoupled decay per step, times the learning rate; not of biases and norms"
    )
    decay_all: bool = Field(
        default=False, description="true: biases and norms decay too, as in torch's AdamW without parameter groups"
    )
    layerwise_decay: Annotated[PositiveFloat, Field(le=1)] = Field(
        default=1.0, description="learning rate of each student layer as a share of the one above; embeddings lowest"
    )
    correct_bias: bool = Field(
        default=True, description="correct the bias of the running means; false: as BERT was trained"
    )
    fused: bool | None = Field(
        default=None,
        description="one kernel for the whole step, or none; default: on a CPU true, elsewhere what torch chooses",
    )

    placing: ClassVar[frozenset[str]] = frozenset({"fused"})

    @property
    def means(self) -> int:
        """Running means that it keeps of each parameter."""
        return 2

    @model_validator(mode="after")
    def _has_a_kernel(self) -> Adamw:
        if self.fused and not self.correct_bias:
            raise ValueError("fused=true does not go with correct_bias=false, which has no fused kernel; remove one")
        return self


class Sgd(Settings):
    """`sgd(lr=0.05)`: stochastic gradient descent."""

    lr: PositiveFloat = Field(default=0.05, description="learning rate at its highest")
    momentum: NonNegativeFloat = Field(default=0.0, description="share of the last step that is kept")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="decay per step, added to the gradient")

    @property
    def means(self) -> int:
        """Running means that it keeps of each parameter."""
        return 1 if self.momentum else 0


def _length(value: Any) -> Length:
    """A length of training. A bare number is rejected: it could mean steps or epochs."""
    if not isinstance(value, Length) or not value.is_of_training:
        raise ValueError("a length needs a unit: 10%, 500 steps or 1 epochs")
    if value.unit == "share" and value.value > 1:
        raise ValueError("more than 100% of the training is too long")
    return value


def _period(value: Any) -> Length:
    if _length(value).value <= 0:
        raise ValueError("the interval must be positive")
    return _length(value)


Stretch = Annotated[Length, BeforeValidator(_length)]
Period = Annotated[Length, BeforeValidator(_period)]


def _trackers(value: Any) -> Any:
    """One tracker, or a list of them: each once; an empty list is none."""
    value = (value,) if isinstance(value, str) else value
    return each_once(value) if value else value


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)
"""The names of trackers: those of accelerate, and of the packages."""


class _Warm(Settings):
    warmup: Stretch = Field(
        default=Length(0.0, "share"), description="from zero to the full rate: 10%, 500 steps, 1 epochs"
    )


class Linear(_Warm):
    """`linear(warmup=10%)`: down to zero on a straight line."""


class Cosine(_Warm):
    """`cosine(warmup=10%)`: down to zero on half a cosine."""


class Constant(_Warm):
    """`constant(warmup=10%)`: stays at the full rate."""


class Slanted(Settings):
    """`slanted(warmup=10%, ratio=32)`: a triangle from a share of the full rate to all of it and back."""

    warmup: Stretch = Field(
        default=Length(0.1, "share"), description="from the lowest to the full rate: 10%, 500 steps, 1 epochs"
    )
    ratio: Annotated[float, Field(ge=1)] = Field(
        default=32.0, description="the lowest rate, at both ends, is the full rate divided by this"
    )


OPTIMIZERS: dict[str, type[Settings]] = {"adamw": Adamw, "sgd": Sgd}
SCHEDULES: dict[str, type[Settings]] = {"linear": Linear, "cosine": Cosine, "constant": Constant, "slanted": Slanted}


EPOCHS = 3.0
"""The default number of epochs."""


class Train(Settings):
    """The settings of `train { }`. One of `epochs` and `steps` is a number, the other None."""

    calls: ClassVar[dict[str, dict[str, type[Settings]]]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}

    epochs: PositiveFloat | None = Field(
        default=None, description=f"passes over the training data; {EPOCHS:g} where steps is left out too"
    )
    steps: PositiveInt | None = Field(default=None, description="optimizer steps, instead of epochs")
    optimizer: Adamw | Sgd = Field(default=Adamw(), description="adamw(lr=…) or sgd(lr=…)")
    schedule: Linear | Cosine | Constant | Slanted = Field(default=Linear(), description="of the learning rate")
    precision: NumberFormat = Field(default="fp32", description="autocast of student and losses")
    gradient_checkpointing: bool = Field(
        default=False, description="run the student's layers again in the backward pass: less memory, more time"
    )
    shard_teachers: bool = Field(
        default=False, description="shard frozen teachers over ranks too, where `accelerate launch` shards with FSDP2"
    )
    compile: bool = Field(default=False, description=f"compile the layers of all models with torch.compile; {COMPILED}")
    accumulate: PositiveInt = Field(default=1, description="batches per optimizer step")
    max_grad_norm: PositiveFloat | None = Field(
        default=1.0, description="clip the gradient norm of student and projections together"
    )
    clip_projections: bool = Field(default=True, description="false: max_grad_norm applies to the student only")
    clip_each: bool = Field(
        default=False, description="true: clip the gradient of each parameter separately, as BERT's optimizer"
    )
    normalise: Literal["global", "micro"] = Field(
        default="global", description="what losses average over: the optimizer step, or each micro-batch first"
    )
    freeze: tuple[str, ...] = Field(
        default=(), description="parts of the student, and projections, not trained in this stage"
    )
    seed: NonNegativeInt = Field(default=0, description="the seed of everything random")
    group_by_length: bool = Field(default=False, description="group examples of similar length to save padding")
    eval_steps: Period = Field(default=Length(1.0, "epoch"), description="how often to evaluate")
    save_steps: Period = Field(default=Length(1.0, "epoch"), description="how often to write a checkpoint")
    save_total_limit: PositiveInt = Field(default=2, description="how many checkpoints are kept")
    save_on_signal: bool = Field(
        default=True, description="write a checkpoint on Ctrl-C and SIGTERM, after the step; false: end at once"
    )
    logging_steps: PositiveInt = Field(default=20, description="optimizer steps between two lines of metrics.jsonl")
    trackers: Annotated[tuple[Tracker, ...] | None, BeforeValidator(_trackers)] = Field(
        default=None,
        description="where metrics.jsonl is recorded too: [tensorboard, wandb, mlflow, trackio], or []; default: "
        "tensorboard if it is installed",
    )
    report: tuple[str, ...] = Field(
        default=(),
        description="further values to record at logging and evaluation, beside those of the loss; `gradient_shares`: "
        "at logging each term's share of the gradient on the student",
    )
    metric_for_best_model: str | None = Field(
        default=None, description='dev score that selects the best student: "accuracy", "ner/f1"; "loss" always exists'
    )
    greater_is_better: bool = Field(
        default=True, description="whether a higher score is better; default: by the metric's name"
    )
    load_best_model_at_end: bool = Field(
        default=False, description="keep the best student, not the last; true if metric_for_best_model is set"
    )
    early_stopping_patience: PositiveInt | None = Field(
        default=None, description="end the stage after this many evaluations without a better score"
    )
    early_stopping_threshold: NonNegativeFloat = Field(
        default=0.0, description="the minimum improvement that resets patience"
    )
    baseline: bool = Field(default=False, description="also train the same student without its teacher, and compare")

    def total_steps(self, per_epoch: int) -> int:
        """Optimizer steps of the whole training, with this many in an epoch."""
        return self.steps or max(1, round((self.epochs or EPOCHS) * per_epoch))

    @model_validator(mode="before")
    @classmethod
    def _derive_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("epochs") is None and values.get("steps") is None:
            values = {**values, "epochs": EPOCHS}
        metric = values.get("metric_for_best_model")
        if not isinstance(metric, str):
            return values
        return {"greater_is_better": greater_is_better(metric), "load_best_model_at_end": True, **values}

    @model_validator(mode="after")
    def _fits(self) -> Train:
        for name in ("load_best_model_at_end", "early_stopping_patience"):
            if self.metric_for_best_model is None and getattr(self, name):
                raise ValueError(f"{name} needs metric_for_best_model")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile and gradient_checkpointing do not go together; remove one")
        if self.compile and GRADIENT_SHARES in self.report:
            raise ValueError(
                f"compile and report = [{GRADIENT_SHARES}] do not go together, because compiled layers run backward "
                "only once; remove one"
            )
        if self.epochs is not None and self.steps is not None:
            raise ValueError("set epochs or steps, not both")
        return self
