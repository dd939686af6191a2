"""Shapes of features before any weight is loaded: the model is built of fake tensors and run twice."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from brewgraph.diagnostics import RunError, SourceFault
from brewgraph.models.adapters import add_adapter
from brewgraph.models.anatomy import RESULTS, Anatomy
from brewgraph.models.blueprint import Blueprint
from brewgraph.models.capture import Capture
from brewgraph.models.heads import build_heads, input_names
from brewgraph.recipe.features import ROWS, SINGLES, Feature, Shape

SIZES = ((2, 5), (3, 7))
"""(batch, length) of the two forwards: small, so that they fit every model, and different in both."""


class Shapes:
    """Shapes of one model's features; `anatomy` is its anatomy.

    `Shapes.of(config, AutoModel)` builds the model without memory. `Shapes(model)` takes one that exists (real, meta or
    fake), runs it on fake tensors and leaves it as it was.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.anatomy = Anatomy.of(model)
        self._known: dict[Feature, Shape | SourceFault] = {}

    @classmethod
    def of(cls, config: PretrainedConfig, auto_class: Any, dtype: torch.dtype = torch.float32) -> Shapes:
        """The shapes of `auto_class.from_config(config)`; the configuration is left as it was.

        A configuration that the architecture refuses raises SourceFault B306.
        """
        return cls(build_empty(config, auto_class, dtype))

    @classmethod
    def of_blueprint(cls, blueprint: Blueprint) -> Shapes:
        """The shapes of the model that a blueprint stands for, with its heads and its adapter.

        Teachers that differ in their weights alone, and a spec that is checked again, share one.
        """
        if blueprint.heads or blueprint.adapter is not None:
            return cls(empty_model(blueprint))
        config = blueprint.config
        return _shared(_Kind(blueprint.auto_class, type(config), config.to_json_string(False), blueprint))

    def shape(self, feature: Feature) -> Shape:
        """The feature's shape, sizes that vary as `batch` and `length`. SourceFault where it has none.

        The first question for a named feature answers those for all of them.
        """
        if feature not in self._known:
            self.infer([feature] if feature.name == "tap" else [feature, *self._named()])
        found = self._known[feature]
        if isinstance(found, SourceFault):
            raise found
        return found

    def infer(self, features: Collection[Feature]) -> dict[Feature, Shape | SourceFault]:
        """The shape of each feature, or its fault, all from one pair of forwards."""
        open_ones = [feature for feature in dict.fromkeys(features) if feature not in self._known]
        sites: list[Feature] = []
        for feature in open_ones:
            try:
                self.anatomy.site(feature)
            except SourceFault as fault:
                self._known[feature] = fault
            else:
                sites.append(feature)
        if sites:
            first, second = (self._sizes(sites, batch, length) for batch, length in SIZES)
            self._known |= {feature: _symbols(feature, first[feature], second[feature]) for feature in sites}
        return {feature: self._known[feature] for feature in features}

    def _named(self) -> list[Feature]:
        rows = [name for name in ROWS if name not in self.anatomy.lacking]
        members = [Feature(name, index) for name in rows for index in range(self.anatomy.rows(name))]
        below = [name for name in SINGLES if name not in RESULTS]
        heads: tuple[str | None, ...] = self.anatomy.heads or (None,)
        results = [Feature(name, head=head) for head in heads for name in RESULTS]
        return [*members, *(Feature(name) for name in below), *results]

    def _sizes(self, features: list[Feature], batch: int, length: int) -> dict[Feature, torch.Size | SourceFault]:
        """The sizes of features in one forward over `batch` sequences of `length` tokens."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        mode = fake_mode(self.model)
        capture = Capture(self.model, features, self.anatomy)
        try:
            with mode, torch.no_grad():
                inputs = _example(self.model, batch, length, device)
                with capture.armed():
                    output = self.model(**inputs)
            return {feature: _size(capture, feature, output) for feature in features}
        except Exception as error:
            message = f"{self.anatomy.name} does not run on a batch of {batch}: {_line(error)}"
            fault = SourceFault("B306", message, help="correct its configuration: the sizes do not fit each other")
            return dict.fromkeys(features, fault)
        finally:
            capture.remove()


@dataclass(frozen=True)
class _Kind:
    """What tells the shapes of one blueprint from those of another."""

    auto_class: str
    config_class: type
    config: str
    blueprint: Blueprint = field(compare=False)


@lru_cache(maxsize=16)
def _shared(kind: _Kind) -> Shapes:
    return Shapes(empty_model(kind.blueprint))


def build_empty(
    config: PretrainedConfig, auto_class: Any, dtype: torch.dtype = torch.float32, mode: FakeTensorMode | None = None
) -> nn.Module:
    """`auto_class.from_config(config)` in evaluation mode, of fake tensors that take no memory; they belong to `mode`,
    to which those of other models may belong, too."""
    try:
        with mode or FakeTensorMode(allow_non_fake_inputs=True), no_init_weights():
            model: nn.Module = auto_class.from_config(copy.deepcopy(config), dtype=dtype).eval()
        if isinstance(model, PreTrainedModel):  # tying was skipped with the initialisation
            model.tie_weights()
        return model
    except Exception as error:
        name = getattr(config, "model_type", None) or type(config).__name__
        message = f"no {name} model can be built from this configuration: {_line(error)}"
        raise SourceFault("B306", message, help="correct the argument that is named; sizes must fit") from error


def empty_model(blueprint: Blueprint, mode: FakeTensorMode | None = None) -> nn.Module:
    """The model of a blueprint in evaluation mode, with its heads and its adapter, of fake tensors."""
    if blueprint.heads:

        def make(name: str, auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
            return cast(PreTrainedModel, build_empty(config, auto_class, mode=mode))

        model: nn.Module = build_heads(blueprint.config, blueprint.heads, make)
    else:
        model = build_empty(blueprint.config, blueprint.model_class, mode=mode)
    if blueprint.adapter is not None:
        add_adapter(model, blueprint.adapter, empty=True)
        _fake_the_rest(model)
    return model


def _fake_the_rest(model: nn.Module) -> None:
    """Turn parameters on the meta device into fake ones like the others."""
    mode = fake_mode(model)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta and not isinstance(parameter, FakeTensor):
                with mode:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)


def fake_mode(model: nn.Module) -> FakeTensorMode:
    """The mode that a model's fake tensors belong to; a new one where it has none."""
    tensors = chain(model.parameters(), model.buffers())
    modes = (tensor.fake_mode for tensor in tensors if isinstance(tensor, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """How many parameters a model has, tied ones once; `trainable`: only those that training may change.

    Works without weights.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _example(model: nn.Module, batch: int, length: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Token ids, and a mask where the forward names one."""
    accepted = input_names(model)
    names = [name for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in accepted]
    ones = torch.ones(batch, length, dtype=torch.long, device=device)
    return dict.fromkeys(names or ["input_ids"], ones)


def _size(capture: Capture, feature: Feature, output: Any) -> torch.Size | SourceFault:
    try:
        return capture.value(feature, output).shape
    except SourceFault as fault:
        return fault
    except RunError as error:
        return SourceFault("B305", str(error), help="tap another module, or name its element: [k]")


def _symbols(
    feature: Feature, first: torch.Size | SourceFault, second: torch.Size | SourceFault
) -> Shape | SourceFault:
    """One shape from the sizes of two forwards."""
    if isinstance(first, SourceFault) or isinstance(second, SourceFault):
        return first if isinstance(first, SourceFault) else second
    (batch, length), (other_batch, other_length) = SIZES
    known: dict[tuple[int, int], str] = {(batch, other_batch): "batch", (length, other_length): "length"}
    shape = tuple(a if a == b else known.get((a, b)) for a, b in zip(first, second, strict=False))
    if len(first) != len(second) or None in shape:
        return SourceFault(
            "B305",
            f"`{feature}` has sizes that follow neither batch nor length: {tuple(first)} for a batch of {batch} "
            f"with {length} tokens, {tuple(second)} for {other_batch} with {other_length}",
            help="tap a module before or after the reshaping",
        )
    return shape  # type: ignore[return-value]


def _line(error: Exception) -> str:
    if isinstance(error, DataDependentOutputException):
        return "its code reads the values of tensors, which have none before weights are loaded"
    return str(error).strip().split("\n")[0] or type(error).__name__
