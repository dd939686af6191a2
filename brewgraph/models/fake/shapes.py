"""Shapes of features without weights: the model is built of fake tensors and run twice."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from brewgraph.models.capture.capture import Capture, describe, first_argument
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.sentence_ends import OneEndEach
from brewgraph.models.heads import build_heads, input_names, trunk_of
from brewgraph.models.structure.feature_table import (
    SIZES,
    CallSignature,
    FeatureRecord,
    FeatureTable,
    Module,
    ModuleValue,
    Sizes,
    simple_shape,
    symbols,
)
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.features import ROWS, Feature, Shape

_READS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


class Shapes(FeatureTable):
    """Shapes of one model's features.

    `Shapes.of(config, AutoModel)` builds the model without memory. `Shapes(model)` runs an existing model (real, meta
    or fake) on fake tensors without changing it.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.anatomy = dissect(model)
        self._shapes: dict[Feature, Shape | SourceFault] = {}

    @classmethod
    def of(cls, config: PretrainedConfig, auto_class: Any, dtype: torch.dtype = torch.float32) -> Shapes:
        """The shapes of `auto_class.from_config(config)`, which does not change the configuration. SourceFault B306."""
        return cls(build_empty(config, auto_class, dtype))

    @classmethod
    def of_description(cls, description: ModelDescription) -> Shapes:
        """The shapes of a described model, with its heads and its adapter.

        Teachers that differ only in their weights, and a spec that is checked again, share one.
        """
        if description.heads or description.adapter is not None:
            return cls(empty_model(description))
        config = description.config
        return _shared(_Kind(description.auto_class, type(config), config.to_json_string(False), description))

    def shape(self, feature: Feature, rows: Collection[str] = ROWS) -> Shape:
        """The feature's shape, with symbols for sizes that vary. SourceFault for a feature without one.

        The first named feature infers all single features, and the members of `rows`, in the same forwards.
        """
        if feature not in self._shapes:
            wanted = {feature.name, *rows}
            others = () if feature.name == "tap" else self.every_feature()
            self.infer([feature, *(x for x in others if x.name in wanted or x.name not in ROWS)])
        shape = self._shapes[feature]
        if isinstance(shape, SourceFault):
            raise shape
        return shape

    def infer(self, features: Collection[Feature]) -> dict[Feature, Shape | SourceFault]:
        """The shape of each feature, or its fault: named ones all from one pair of forwards, taps from another."""
        named: list[Feature] = []
        for feature in dict.fromkeys(features):
            if feature in self._shapes:
                continue
            try:
                self.anatomy.site(feature)
                if feature.name == "tap":
                    self._shapes[feature] = self._tapped(feature)
                else:
                    named.append(feature)
            except SourceFault as fault:
                self._shapes[feature] = fault
        if named:
            first, second = (self._sizes(named, sizes) for sizes in SIZES)
            self._shapes |= {feature: _symbols(feature, first[feature], second[feature]) for feature in named}
        return {feature: self._shapes[feature] for feature in features}

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        """Every module below the model with its inputs and outputs, from two forwards; in the order of the model.

        A model that does not run raises SourceFault B306.
        """
        forwards = []
        for sizes in SIZES:
            with _watched(self.model) as calls:
                self._run(sizes)
            forwards.append(calls)
        return _modules(self.model, *forwards)

    @cached_property
    def call(self) -> CallSignature:
        """How the model can be called; it needs a decoder's tokens if it does not run without them."""
        names, rest, needs = accepted(self.model)
        more = {"decoder_input_ids"} if self.needs_decoder else set()
        return CallSignature(names, rest, needs | more, positions(self.model))

    def record(self) -> FeatureRecord:
        """All named features and modules as a value."""
        inferred = self.infer(self.every_feature())
        shapes = ((x, Refusal.of(y) if isinstance(y, SourceFault) else y) for x, y in inferred.items())
        try:
            modules: tuple[Module, ...] | Refusal = tuple(self.modules.values())
        except SourceFault as fault:
            modules = Refusal.of(fault)
        return FeatureRecord(self.anatomy, modules, tuple(shapes), self.call)

    @cached_property
    def needs_decoder(self) -> bool:
        """Whether its forward needs `decoder_input_ids`, which no text gives by itself."""
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
        """The output of one forward. SourceFault B306 if it fails."""
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


@dataclass(frozen=True)
class _Kind:
    """The parts of a description that its shapes depend on."""

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
    """`auto_class.from_config(config)` in evaluation mode, of fake tensors without memory.

    They belong to `mode`, which models may share.
    """
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
    """A described model in evaluation mode, with its heads and its adapter, of fake tensors."""
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
    """The mode of a model's fake tensors; a new one for a model without."""
    tensors = chain(model.parameters(), model.buffers())
    modes = (tensor.fake_mode for tensor in tensors if isinstance(tensor, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """The number of a model's parameters, tied ones once; with `trainable` only trainable ones. Needs no weights."""
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
    try:
        return simple_shape(ModuleValue("tensor", symbols(first, second)), f"`{feature}`")
    except SourceFault as fault:
        return fault


def _line(error: Exception) -> str:
    if isinstance(error, _READS_VALUES):
        return "its code reads the values of tensors, which have none before weights are loaded"
    return str(error).strip().split("\n")[0] or type(error).__name__


# ── modules ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Calls = list[tuple[str, ModuleValue, ModuleValue]]
"""The calls of a forward in their order: the module's path, its first argument, its output."""


@contextmanager
def _watched(model: nn.Module) -> Iterator[Calls]:
    """Notes the calls of all modules below the model while the block runs."""
    calls: Calls = []

    def watching(path: str, first: str) -> Callable[..., None]:
        def note(called: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            calls.append((path, describe(args[0] if args else kwargs.get(first)), describe(output)))

        return note

    hooks = [
        module.register_forward_hook(watching(path, first_argument(module)), with_kwargs=True)
        for path, module in model.named_modules()
        if path
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _modules(model: nn.Module, one: Calls, other: Calls) -> dict[str, Module]:
    """Every module below the model by its path, in the order of the model, from the calls of two forwards."""
    calls: tuple[dict[str, list[tuple[int, ModuleValue, ModuleValue]]], ...] = ({}, {})
    for by_path, forward in zip(calls, (one, other), strict=True):
        for order, (path, takes, gives) in enumerate(forward):
            by_path.setdefault(path, []).append((order, takes, gives))
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    modules = {}
    for path, module in model.named_modules():
        if path:
            pairs = list(zip(*(by_path.get(path, ()) for by_path in calls), strict=False))
            modules[path] = Module(
                path,
                type(module).__name__,
                tuple(_merged(a, b) for (_, a, _), (_, b, _) in pairs),
                tuple(_merged(a, b) for (_, _, a), (_, _, b) in pairs),
                tuple(order for order, _, _ in calls[0].get(path, ())),
                tuple(alias for alias in paths[id(module)] if alias != path),
                type(module).forward is not nn.Module.forward,
            )
    return modules


def _merged(one: ModuleValue, other: ModuleValue) -> ModuleValue:
    """One value from those of two forwards, with symbols for the sizes that differ."""
    shape = symbols(one.shape, other.shape) if one.shape is not None and other.shape is not None else None
    kind = one.kind if one.kind == other.kind and len(one.elements) == len(other.elements) else "varies"
    elements = tuple(_merged(a, b) for a, b in zip(one.elements, other.elements, strict=False))
    return ModuleValue(kind, shape, elements, one.names)


# ── how a model is called ────────────────────────────────────────────────────────────────────────────────────────────


def accepted(model: nn.Module) -> tuple[frozenset[str], bool, frozenset[str]]:
    """The names of a forward's arguments, whether it takes any (and names none), and those it needs."""
    trunk = trunk_of(model)
    parameters = inspect.signature(trunk.forward).parameters.values()
    names = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters) and not names
    required = frozenset(p.name for p in parameters if p.name in names and p.default is p.empty)
    main = getattr(trunk, "main_input_name", None)
    if main in names:
        required |= {main}  # transformers gives it a default, and then fails in words of its own
    return names, rest, required


def positions(model: nn.Module) -> int | None:
    """How many position embeddings a model has; None without a table of them. Needs no weights."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in ("position_embeddings", "wpe"):
            offset = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa counts from behind its padding
            return part.num_embeddings - offset
    return None
