"""Shapes of features before any weight is loaded: the model is built of fake tensors and run twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from brewgraph.diagnostics import Refusal, RunError, SourceFault
from brewgraph.models.adapters import add_adapter
from brewgraph.models.capture.capture import Capture
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.limits import accepted, positions
from brewgraph.models.fake.sentence_ends import OneEndEach
from brewgraph.models.heads import build_heads, input_names, trunk_of
from brewgraph.models.structure.feature_table import CallSignature, FeatureRecord, FeatureTable
from brewgraph.models.structure.module_io import SIZES, Module, ModuleValue, Sizes, show, symbols
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.structure.watch_forward import read_modules, watched
from brewgraph.recipe.features import ROWS, Feature, Shape

_READS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


class Shapes(FeatureTable):
    """Shapes of one model's features; `anatomy` is its anatomy.

    `Shapes.of(config, AutoModel)` builds the model without memory. `Shapes(model)` takes one that exists (real, meta or
    fake), runs it on fake tensors and leaves it as it was.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.anatomy = dissect(model)
        self._known: dict[Feature, Shape | SourceFault] = {}

    @classmethod
    def of(cls, config: PretrainedConfig, auto_class: Any, dtype: torch.dtype = torch.float32) -> Shapes:
        """The shapes of `auto_class.from_config(config)`; the configuration is left as it was.

        A configuration that the architecture refuses raises SourceFault B306.
        """
        return cls(build_empty(config, auto_class, dtype))

    @classmethod
    def of_description(cls, description: ModelDescription) -> Shapes:
        """The shapes of the model that a description stands for, with its heads and its adapter.

        Teachers that differ in their weights alone, and a spec that is checked again, share one.
        """
        if description.heads or description.adapter is not None:
            return cls(empty_model(description))
        config = description.config
        return _shared(_Kind(description.auto_class, type(config), config.to_json_string(False), description))

    def shape(self, feature: Feature, rows: Collection[str] = ROWS) -> Shape:
        """The feature's shape, sizes that vary as `batch` and `length`. SourceFault where it has none.

        The first question for a named feature answers those for all of them, or of rows for those that are named here.
        """
        if feature not in self._known:
            wanted = {feature.name, *rows}
            others = () if feature.name == "tap" else self.named()
            self.infer([feature, *(x for x in others if x.name in wanted or x.name not in ROWS)])
        found = self._known[feature]
        if isinstance(found, SourceFault):
            raise found
        return found

    def infer(self, features: Collection[Feature]) -> dict[Feature, Shape | SourceFault]:
        """The shape of each feature, or its fault: named ones all from one pair of forwards, taps from another."""
        open_ones = [feature for feature in dict.fromkeys(features) if feature not in self._known]
        sites: list[Feature] = []
        for feature in open_ones:
            try:
                self.anatomy.site(feature)
                if feature.name == "tap":
                    self._known[feature] = self._tapped(feature)
                else:
                    sites.append(feature)
            except SourceFault as fault:
                self._known[feature] = fault
        if sites:
            first, second = (self._sizes(sites, sizes) for sizes in SIZES)
            self._known |= {feature: _symbols(feature, first[feature], second[feature]) for feature in sites}
        return {feature: self._known[feature] for feature in features}

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        """Every module below the model, what it takes and gives, from one pair of forwards; in the order of the model.

        A model that does not run raises SourceFault B306.
        """
        forwards = []
        for sizes in SIZES:
            with watched(self.model) as forward:
                self._run(sizes)
            forwards.append(forward)
        return read_modules(self.model, *forwards)

    @cached_property
    def call(self) -> CallSignature:
        """How the model can be called, a decoder's tokens among what it needs where it does not run without them."""
        names, rest, needs = accepted(self.model)
        more = {"decoder_input_ids"} if self.needs_decoder else set()
        return CallSignature(names, rest, needs | more, positions(self.model))

    def record(self) -> FeatureRecord:
        """All of it at once, named features and every module, to be kept."""
        found = self.infer(self.named())
        shapes = ((x, Refusal.of(y) if isinstance(y, SourceFault) else y) for x, y in found.items())
        anatomy = replace(self.anatomy, lacking=dict(self.anatomy.lacking), modules=dict(self.anatomy.modules))
        return FeatureRecord(anatomy, _kept(lambda: tuple(self.modules.values())), tuple(shapes), self.call)

    @cached_property
    def needs_decoder(self) -> bool:
        """Whether its forward asks for `decoder_input_ids` beside the encoder's, which no text gives by itself."""
        if "decoder_input_ids" not in input_names(self.model):
            return False
        return not self._runs(decoder=False) and self._runs(decoder=True)

    def _runs(self, decoder: bool) -> bool:
        try:
            self._forward(SIZES[0], decoder)
        except Exception:
            return False
        return True

    def _sizes(self, features: list[Feature], sizes: Sizes) -> dict[Feature, torch.Size | SourceFault]:
        """The sizes of features in one forward."""
        capture = Capture(self.model, features, self.anatomy)
        try:
            with capture.armed():
                output = self._run(sizes)
            return {feature: _size(capture, feature, output) for feature in features}
        except SourceFault as fault:
            return dict.fromkeys(features, fault)
        finally:
            capture.remove()

    def _run(self, sizes: Sizes) -> Any:
        """The output of one forward. SourceFault B306 where there is none."""
        try:
            return self._forward(sizes, self.needs_decoder)
        except Exception as error:
            message = f"{self.anatomy.name} does not run on a batch of {sizes.batch}: {_line(error)}"
            help = "correct its configuration: the sizes do not fit each other"
            if isinstance(error, _READS_VALUES):
                help = "give it another head: `task=…`"
            elif isinstance(error, AttributeError) and "Config' object" in str(error):
                help = 'start from the configuration of a checkpoint, which has it: hf("…", pretrained=false)'
            raise SourceFault("B306", message, help=help) from error

    def _forward(self, sizes: Sizes, decoder: bool) -> Any:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        names = [name for name in ("input_ids", "attention_mask") if name in input_names(self.model)] or ["input_ids"]
        with fake_mode(self.model), OneEndEach(trunk_of(self.model)), torch.no_grad():
            ones = torch.ones(sizes.batch, sizes.length, dtype=torch.long, device=device)
            inputs: dict[str, torch.Tensor] = dict.fromkeys(names, ones)
            if decoder:
                inputs["decoder_input_ids"] = ones.new_ones(sizes.batch, sizes.decoder_length)
            return self.model(**inputs)


def _kept(find: Callable[[], tuple[Module, ...]]) -> tuple[Module, ...] | Refusal:
    """What is found, or the fault that stood in the way."""
    try:
        return find()
    except SourceFault as fault:
        return Refusal.of(fault)


@dataclass(frozen=True)
class _Kind:
    """What tells the shapes of one description from those of another."""

    auto_class: str
    config_class: type
    config: str
    description: ModelDescription = field(compare=False)


@lru_cache(maxsize=16)
def _shared(kind: _Kind) -> Shapes:
    return Shapes(empty_model(kind.description))


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
        help = "correct the argument that is named; sizes must fit"
        if isinstance(error, ValueError) and "Unrecognized configuration class" in str(error):
            message = f"transformers has no {auto_class.__name__} of the architecture {name}"
            help = "name another architecture, or another head: `task=…`, or data with other labels"
        raise SourceFault("B306", message, help=help) from error


def empty_model(description: ModelDescription, mode: FakeTensorMode | None = None) -> nn.Module:
    """The model of a description in evaluation mode, with its heads and its adapter, of fake tensors."""
    if description.heads:

        def make(name: str, auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
            return cast(PreTrainedModel, build_empty(config, auto_class, mode=mode))

        model: nn.Module = build_heads(description.config, description.heads, make)
    else:
        model = build_empty(description.config, description.model_class, mode=mode)
    if description.adapter is not None:
        add_adapter(model, description.adapter, empty=True)
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
    found = ModuleValue("tensor", symbols(first, second))
    if not found.is_plain or found.shape is None:
        return SourceFault(
            "B305",
            f"`{feature}` has the shape {show(found)}, in which batch and length do not stand by themselves",
            help="tap a module before or after the reshaping",
        )
    return found.shape


def _line(error: Exception) -> str:
    if isinstance(error, _READS_VALUES):
        return "its code reads the values of tensors, which have none before weights are loaded"
    return str(error).strip().split("\n")[0] or type(error).__name__
