"""The settings of a TextBrewer configuration: names, defaults and types."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from brewgraph.convert.config_files import Path, Read
from brewgraph.diagnostics import Collector, listing, suggest
from brewgraph.syntax.foreign import instead

SettingsT = TypeVar("SettingsT", bound="TextBrewerSettings")
Feature = Literal["hidden", "attention"]
Loss = Literal[
    "attention_mse", "attention_mse_sum", "attention_ce", "attention_ce_mean",
    "hidden_mse", "cos", "pkd", "fsp", "gram", "nst", "mmd",
]  # fmt: skip
PAIRED = frozenset({"fsp", "gram", "nst", "mmd"})
"""Losses between two layers of each side."""


class TextBrewerSettings(BaseModel):
    """Base of the parts of a configuration: unknown names are faults, and 1 is not a truth value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _layers(value: Any) -> Any:
    two = isinstance(value, list | tuple)
    items = list(value) if two else [value]
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in items)
    if not whole or len(items) != (2 if two else 1):
        raise ValueError(
            "a layer is an integer, for `fsp` and `nst` a list of two: write 4 or [4, 4], and a match for each pair"
        )
    return tuple(items) if two else value


def _projection(value: Any) -> Any:
    if not value:
        return None
    kind, *sizes = value if isinstance(value, list | tuple) else [value]
    options = sizes.pop() if sizes and isinstance(sizes[-1], dict) else {}
    whole = [isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in sizes]
    if whole != [True, True]:
        raise ValueError("a projection is written [\"linear\", 384, 768]: its name, the student's width, the teacher's")
    if kind not in ("linear", "relu", "tanh"):
        help = suggest(str(kind), ("linear", "relu", "tanh")) or "use `linear`, `relu` or `tanh`"
        raise ValueError(f"there is no projection `{kind}`: {help}")
    kept = {name: options[name] for name in ("lr", "weight_decay") if name in options}
    if not all(_is_number(x) and x >= 0 for x in kept.values()):
        raise ValueError("the learning rate and weight decay of a projection must not be negative")
    others = tuple(str(name) for name in options if name not in kept)
    pairs = tuple((name, float(x)) for name, x in kept.items())
    return ProjectionEntry(kind=kind, into=sizes[0], out=sizes[1], options=pairs, others=others)


class ProjectionEntry(TextBrewerSettings):
    """`["linear", 384, 768, {"lr": 1e-3}]`: from the student's width to the teacher's.

    `options` are optimizer settings that a spec has, `others` the names of those that it lacks.
    """

    kind: Literal["linear", "relu", "tanh"]
    into: int
    out: int
    options: tuple[tuple[str, float], ...] = ()
    others: tuple[str, ...] = ()


Layers = Annotated[int | tuple[int, int], BeforeValidator(_layers)]


class MatchEntry(TextBrewerSettings):
    """One member of `intermediate_matches`."""

    layer_T: Layers = Field(description="the teacher's layer: 4, for `fsp` and `nst` two: [4, 4]")
    layer_S: Layers = Field(description="the student's layer: 1, for `fsp` and `nst` two: [1, 1]")
    feature: Feature = Field(description="hidden or attention")
    loss: Loss = Field(description="a loss by its name")
    weight: float = Field(description="a number: how much the loss counts")
    proj: Annotated[ProjectionEntry | None, BeforeValidator(_projection)] = Field(
        default=None, description='left out, or ["linear", 384, 768]'
    )

    @model_validator(mode="after")
    def _fits(self) -> MatchEntry:
        """Faults that TextBrewer would find at the first batch."""
        about = self.loss.startswith("attention")
        if about != (self.feature == "attention"):
            takes = "attention" if about else "hidden"
            raise ValueError(f'`{self.loss}` compares {takes}: write "feature": "{takes}", or choose another loss')
        two = [isinstance(layer, tuple) for layer in (self.layer_T, self.layer_S)]
        if two != [self.loss in PAIRED] * 2:
            count, sample = ("two layers", "[4, 4]") if self.loss in PAIRED else ("one layer", "4")
            help = f'write "layer_T": {sample}, "layer_S": {sample}, and a match for each such pair'
            raise ValueError(f"`{self.loss}` takes {count} of each model: {help}")
        if self.proj is not None and about:
            raise ValueError("a projection maps hidden states, got attention: leave `proj` out")
        return self


class TemperatureEntry(TextBrewerSettings):
    """A temperature of its own for each example: `flsw` or `cwsm`."""

    name: Literal["flsw", "cwsm"]
    beta: float
    gamma: float = 1.0
    eps: float = 1e-4


def _temperature(value: Any) -> Any:
    if value in (None, "none", "constant"):
        return None
    name, *arguments = value if isinstance(value, list | tuple) and value else [value]
    wanted = {"flsw": ("beta", "gamma", "eps"), "cwsm": ("beta",)}.get(name if isinstance(name, str) else "")
    if wanted is None:
        help = suggest(str(name), ("none", "constant", "flsw", "cwsm")) or "use none, constant, flsw or cwsm"
        raise ValueError(f"there is no temperature scheduler `{name}`: {help}")
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        options = dict(arguments[0])
    else:
        options = dict(zip(wanted, arguments, strict=False))
    numbers = all(_is_number(x) for x in options.values())
    needed = wanted[:2]
    if not numbers or len(arguments) > len(wanted) or not set(needed) <= set(options) <= set(wanted):
        raise ValueError(f'`{name}` needs {listing(needed)}: write ["{name}", {", ".join("1" for _ in needed)}]')
    return TemperatureEntry(name=name, **{key: float(number) for key, number in options.items()})


def _weights(value: Any) -> Any:
    return None if value == "none" else value


Schedule = Annotated[Literal["linear_decay", "linear_growth"] | None, BeforeValidator(_weights)]


class DistillationConfig(TextBrewerSettings):
    """TextBrewer's `DistillationConfig`."""

    temperature: float = Field(default=4.0, gt=0, description="a number above zero")
    temperature_scheduler: Annotated[TemperatureEntry | None, BeforeValidator(_temperature)] = Field(
        default=None, description='none, constant, ["flsw", 1, 1] or ["cwsm", 1]'
    )
    hard_label_weight: float = Field(default=0.0, description="a number: how much the labels count")
    hard_label_weight_scheduler: Schedule = Field(default=None, description="none, linear_decay or linear_growth")
    kd_loss_type: Literal["ce", "mse"] = Field(default="ce", description="ce or mse")
    kd_loss_weight: float = Field(default=1.0, description="a number: how much the teacher's logits count")
    kd_loss_weight_scheduler: Schedule = Field(default=None, description="none, linear_decay or linear_growth")
    probability_shift: bool = Field(default=False, description="true or false")
    is_caching_logits: bool = Field(default=False, description="true or false")
    intermediate_matches: list[MatchEntry] | None = Field(default=None, description="a list of matches")


class TrainingConfig(TextBrewerSettings):
    """TextBrewer's `TrainingConfig`."""

    gradient_accumulation_steps: int = Field(default=1, gt=0, description="a whole number above zero")
    ckpt_frequency: int = Field(default=1, gt=0, description="a whole number above zero: checkpoints per epoch")
    ckpt_epoch_frequency: int = Field(default=1, gt=0, description="a whole number above zero: epochs per checkpoint")
    ckpt_steps: int | None = Field(default=None, gt=0, description="a whole number above zero, or none")
    log_dir: str | None = Field(default=None, description="a folder, or none")
    output_dir: str | None = Field(default="./saved_models", description="a folder")
    device: str | None = Field(default="cuda", description="cpu or cuda")
    fp16: bool = Field(default=False, description="true or false")
    fp16_opt_level: Literal["O0", "O1", "O2", "O3"] = Field(default="O1", description="O0, O1, O2 or O3")
    data_parallel: bool = Field(default=False, description="true or false")
    local_rank: int | str = Field(default=-1, description="a whole number, -1 for one process")


def settle(settings: type[SettingsT], read: Read, what: str, collector: Collector) -> SettingsT | None:
    """The settings in a value; None, with diagnostics, if it has faults."""
    if not isinstance(read.value, dict):
        message = f"{what} must be a mapping of names to values"
        collector.add("B122", message, read.place(()), help='write `{"temperature": 8}`')
        return None
    try:
        return settings.model_validate(read.value)
    except ValidationError as error:
        for fault in error.errors():
            _report(settings, fault, read, what, collector)
        return None


def _report(settings: type[BaseModel], fault: Any, read: Read, what: str, collector: Collector) -> None:
    path: Path = tuple(fault["loc"])
    owner = MatchEntry if "intermediate_matches" in path[:1] and len(path) > 1 else settings
    key = next((str(step) for step in reversed(path) if isinstance(step, str)), what)
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    field = owner.model_fields.get(key)
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        names = [*owner.model_fields]
        other = "`DistillationConfig` and `TrainingConfig` know" if owner is not MatchEntry else "a match has"
        help = instead("configuration of TextBrewer", key, names) or f"{other} {listing(names)}"
        collector.add("B120", f"there is no setting `{name}`", read.key(path), help=help)
        return
    if kind == "missing":
        help = f'add "{key}": {field.description if field else ""}'
        collector.add("B122", f"`{name}` is missing", read.place(path), help=help)
        return
    if kind == "literal_error":
        words = [word.strip("' ") for word in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        help = suggest(str(fault["input"]), words) or f"use one of {listing(words)}"
        if key == "loss":
            help += "; for a loss of your own import your module of operations: `import mypackage.losses as my`"
        collector.add("B122", f"`{name}` cannot be `{fault['input']}`", read.place(path), help=help)
        return
    if kind == "value_error":
        message, _, help = str(fault["msg"]).removeprefix("Value error, ").partition(": ")
        at = f"`{name}`: " if name else ""
        collector.add("B122", f"{at}{message}", read.place(path), help=help or "correct it")
        return
    help = f"it is {field.description}" if field is not None else "correct it"
    if path and isinstance(path[-1], int):
        help = f"a match has {listing(MatchEntry.model_fields)}"
    value = f"`{fault['input']}`" if isinstance(fault["input"], str | int | float) else "a value of another type"
    collector.add("B122", f"`{name}` cannot be {value}", read.place(path), help=help)
