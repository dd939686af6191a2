"""Models on fake tensors, without memory for weights: the shapes of their features, from two forwards, and their reach:
the layers, parameters and modules that features need. Nothing here knows an architecture by name.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain, count
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from brewgraph.diagnostics import Refusal, RunError, SourceFault
from brewgraph.models.adapters import add_adapter
from brewgraph.models.capture.capture import Capture, describe, first_argument
from brewgraph.models.description import ModelDescription
from brewgraph.models.heads import build_heads, evaluating, input_names, may_draw, remove_modules, trunk_of
from brewgraph.models.structure.anatomy import (
    SIZES,
    Anatomy,
    CallSignature,
    FeatureRecord,
    FeatureTable,
    Module,
    ModuleValue,
    Sizes,
    simple_shape,
    symbols,
)
from brewgraph.models.structure.decoder import Decoder, decoder_of
from brewgraph.models.structure.read_class import FLAGS, dissect, watching
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
    def of(cls, config: PretrainedConfig, auto_class: Any) -> Shapes:
        """The shapes of `auto_class.from_config(config)`, which does not change the configuration. SourceFault B306."""
        return cls(build_empty(config, auto_class))

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
        paths: dict[nn.Module, list[str]] = {}
        for path, module in self.model.named_modules(remove_duplicate=False):
            paths.setdefault(module, []).append(path)
        modules = {path: module for path, module in self.model.named_modules() if path}
        one, other = (self._calls(modules, sizes) for sizes in SIZES)
        return {
            path: Module(
                path,
                type(module).__name__,
                tuple(_merged(a.takes, b.takes) for a, b in zip(one[path], other[path], strict=False)),
                tuple(_merged(a.gives, b.gives) for a, b in zip(one[path], other[path], strict=False)),
                tuple(call.place for call in one[path]),
                tuple(alias for alias in paths[module] if alias != path),
                type(module).forward is not nn.Module.forward,
            )
            for path, module in modules.items()
        }

    def _calls(self, modules: Mapping[str, nn.Module], sizes: Sizes) -> Mapping[str, list[_Call]]:
        """The calls of modules in one forward, by path."""
        calls: dict[str, list[_Call]] = defaultdict(list)
        places = count()
        first = {path: first_argument(module) for path, module in modules.items()}

        def leave(path: str, args: tuple, kwargs: dict, output: object) -> None:
            taken = args[0] if args else kwargs.get(first[path])
            calls[path].append(_Call(next(places), describe(taken), describe(output)))

        with watching(modules, leave=leave):
            self._run(sizes)
        return calls

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
    def reach(self) -> Reach:
        """Which parts of the model each feature needs; models that share their shapes share it, too."""
        return Reach(self.model, self.anatomy)

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
        names = ("input_ids", "attention_mask", *(("decoder_input_ids",) if decoder else ()))
        with torch.no_grad():
            return run_on_fakes(self.model, sizes, names)


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


def build_empty(config: PretrainedConfig, auto_class: Any, mode: FakeTensorMode | None = None) -> nn.Module:
    """`auto_class.from_config(config)` in evaluation mode, of fake tensors without memory; or a model class itself.

    They belong to `mode`, which models may share.
    """
    try:
        with mode or FakeTensorMode(allow_non_fake_inputs=True), no_init_weights():
            make = getattr(auto_class, "from_config", None) or auto_class._from_config
            model: nn.Module = make(copy.deepcopy(config), dtype=torch.float32).eval()
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


def run_on_fakes(model: nn.Module, sizes: Sizes, names: Collection[str]) -> Any:
    """The output of a forward on fake tensors; of these inputs it gets those that it accepts."""
    device = next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))
    accepts = input_names(model)
    with fake_mode(model), OneEndEach(trunk_of(model)):
        ids = torch.ones(sizes.batch, sizes.length, dtype=torch.long, device=device)
        inputs = {name: ids for name in names if name in accepts} or {"input_ids": ids}
        if "decoder_input_ids" in inputs:
            inputs["decoder_input_ids"] = ids.new_ones(sizes.batch, sizes.decoder_length)
        return model(**inputs)


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


def _symbols(feature: Feature, one: torch.Size | SourceFault, other: torch.Size | SourceFault) -> Shape | SourceFault:
    """One shape from the sizes of two forwards."""
    if isinstance(one, SourceFault) or isinstance(other, SourceFault):
        return one if isinstance(one, SourceFault) else other
    try:
        return simple_shape(ModuleValue("tensor", symbols(one, other)), f"`{feature}`")
    except SourceFault as fault:
        return fault


def _line(error: Exception) -> str:
    if isinstance(error, _READS_VALUES):
        return "its code reads the values of tensors, which have none before weights are loaded"
    return str(error).strip().split("\n")[0] or type(error).__name__


class _Call(NamedTuple):
    """A call's place among all calls of the forward, the module's first argument, and its output."""

    place: int
    takes: ModuleValue
    gives: ModuleValue


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


# ── reach ────────────────────────────────────────────────────────────────────────────────────────────────────────────


_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
"""All inputs that a tokenizer may give, as some have weights of their own: XLNet's token types."""

Features = frozenset[Feature]


@dataclass(frozen=True)
class Depth:
    """How many of a model's layers run for some features: `run` of `present`."""

    run: int
    present: int


class Reach:
    """The parts of one model that features need. Its methods give None if that is unknown; each runs the model once.

    Hooks, mode and the random generators are restored.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy | None = None):
        self.model = model
        if anatomy is not None:
            self.anatomy = anatomy
        self._names: dict[Feature, frozenset[str]] = {}
        self._runs: dict[Features, _Run | None] = {}

    @cached_property
    def anatomy(self) -> Anatomy:
        return dissect(self.model)

    @property
    def draws(self) -> bool:
        """Whether a forward in training mode may draw random numbers."""
        return may_draw(self.model)

    @property
    def attention_layers(self) -> int:
        """How many layers with attention there are."""
        return len(self.anatomy.attention)

    @property
    def padded_because(self) -> str:
        """Why its layers cannot run on packed tokens; empty where they may."""
        return self.anatomy.padded_because

    @cached_property
    def decoder(self) -> Decoder | str:
        """The last linear layer of a language model, or why its logits cannot be computed from it alone."""
        return decoder_of(self.model, lambda: run_on_fakes(self.model, Sizes(2, 5, 5), _INPUTS))

    @property
    def whole_because(self) -> str:
        """Why its logits cannot be computed a chunk of tokens at a time; empty where they can."""
        return self.decoder if isinstance(self.decoder, str) else ""

    @property
    def names(self) -> frozenset[str]:
        """The names of all parameters."""
        return frozenset(name for name, _ in self.model.named_parameters())

    def depth(self, features: Collection[Feature]) -> Depth | None:
        """The layers that run before these features are available, over all stacks."""
        layers = self.anatomy.every_layer
        present = len(layers) or len(self.anatomy.attention)
        depths = [_layer(self.anatomy, feature) for feature in features]
        if present and depths and None not in depths and len(self.anatomy.hidden) == present + 1:
            return Depth(max(depth for depth in depths if depth is not None), present)
        run = self._run(frozenset(features))
        if run is None or not layers:
            return None
        calls = [run.calls.get(path, 0) for path in layers]
        return Depth(sum(calls), max(present, len(self.anatomy.hidden) - 1))

    def late(self, features: Collection[Feature]) -> tuple[Feature, ...]:
        """The features that make all layers run: the model returns them, and no module gives them."""
        sites = {feature: self.anatomy.site(feature) for feature in features}
        if any(site.kind == "result" for site in sites.values()):
            return ()
        return tuple(feature for feature, site in sites.items() if site.field in FLAGS)

    def parameters(self, features: Collection[Feature]) -> frozenset[str] | None:
        """The names of the parameters that gradients of these features reach."""
        if any(feature not in self._names for feature in features):
            run = self._run(frozenset(features) | frozenset(self._names), gradients=True)
            if run is None:
                return None
            self._names |= run.names
        return frozenset[str]().union(*(self._names[feature] for feature in features))

    def dead_modules(self, features: Collection[Feature]) -> tuple[str, ...]:
        """The paths of the outermost modules with weights that these features do not need, in order.

        They are neither called nor reached, and a forward without them gives the same features. A layer stays or goes
        as a whole; a layer of which only the input is taken stays as a shell. Empty if the model itself returns one of
        the features.
        """
        run = self._run(frozenset(features), gradients=True)
        if run is None or not run.stopped:
            return ()
        live = {name.rpartition(".")[0] for names in run.names.values() for name in names} | set(run.calls)
        sites = [self.anatomy.site(feature) for feature in features]
        live |= {site.path for site in sites}
        shells = {site.path for site in sites if site.kind == "input"} - run.calls.keys()
        live, shells = _with_outer(live), _with_outer(shells)
        dead: list[str] = []
        whole: list[str] = []
        for path, module in self.model.named_modules():
            inside = any(path.startswith(f"{other}.") for other in whole)
            if isinstance(module, nn.ModuleList):
                whole += [member for name in module._modules if (member := f"{path}.{name}") not in shells]
            if path and path not in live and not inside and next(module.parameters(), None) is not None:
                dead.append(path)
                whole.append(path)
        give_back = remove_modules(self.model, dead)
        try:
            left = self._forward(frozenset(features), gradients=False)  # None for code that reads weights uncalled
        finally:
            give_back()
        return tuple(dead) if left is not None else ()

    def _run(self, features: Features, *, gradients: bool = False) -> _Run | None:
        run = self._runs.get(features)
        if run is None or (gradients and not run.gradients):
            run = self._runs[features] = self._forward(features, gradients=gradients)
        return run

    def _forward(self, features: Features, *, gradients: bool) -> _Run | None:
        """Run the model, up to the last feature where possible."""
        if not isinstance(trunk_of(self.model), PreTrainedModel):
            return None
        calls: Counter[str] = Counter()
        ids = {id(parameter): name for name, parameter in self.model.named_parameters()}
        output: Any = None
        try:
            with ExitStack() as stack:
                capture = Capture(self.model, features, self.anatomy)
                stack.callback(capture.remove)
                stack.enter_context(evaluating(self.model))
                stack.enter_context(watching(dict(self.model.named_modules()), lambda path: calls.update([path])))
                stack.enter_context(torch.set_grad_enabled(gradients))
                until = features if capture.can_stop(features) else ()
                with capture.armed(until):
                    output = run_on_fakes(self.model, Sizes(2, 5, 5), _INPUTS)
                values = capture.collect(output)
        except Exception:  # whatever a model's own code may raise
            return None
        names = {feature: frozenset(_reached(value, ids)) for feature, value in values.items()} if gradients else {}
        return _Run(calls, bool(until), gradients, names)


def _with_outer(paths: Collection[str]) -> set[str]:
    """Paths with those of the modules around them."""
    return {*paths, *(path[:at] for path in paths for at, sign in enumerate(path) if sign == ".")}


@dataclass(frozen=True)
class _Run:
    """One forward: how often each module was called, whether it ended early, and what each feature reaches."""

    calls: dict[str, int]
    stopped: bool
    gradients: bool
    names: dict[Feature, frozenset[str]]


def _reached(value: Tensor, names: dict[int, str]) -> Iterator[str]:
    """The names of the parameters behind a value in the autograd graph; `names` are those of all, by id."""
    seen: set[Node] = set()
    waiting = [value.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (name := names.get(id(getattr(step, "variable", None)))) is not None:
            yield name
        waiting += [after for after, _ in step.next_functions]


def _layer(anatomy: Anatomy, feature: Feature) -> int | None:
    """How many layers run before a feature is available, if each layer runs once; None: unknown."""
    site = anatomy.site(feature)
    paths = anatomy.layer_paths
    if site.kind == "result":
        return len(paths)
    for i, path in enumerate(paths):
        if site.path == path or site.path.startswith(f"{path}."):
            return i if site.kind == "input" and site.path == path else i + 1
    return None


# ── heads that read the token at the end of a text ───────────────────────────────────────────────────────────────────


_MARK = "_marks_ends_of_texts"
_KEEPS_MARK = ("to", "sum", "bool", "int", "long")


class OneEndEach(TorchFunctionMode):
    """Inside, each example of fake tokens has one token `eos_token_id`, as a tokenizer appends it.

    Encoder-decoders with a classifier (BART, mBART, T5) read the state at that token: they compare `input_ids` with its
    id, and index by the mask, `hidden[mask, :]`. No other mask is assumed, so other code that reads values raises as
    before.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.end = getattr(getattr(model, "config", None), "eos_token_id", None)

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], FakeTensor) else None
        if first is None:
            return func(*args, **(kwargs or {}))
        if name == "unique_consecutive" and hasattr(first, _MARK):
            return first.new_ones(1)
        if name == "__getitem__" and (rest := _after_mask(first, args[1])) is not None:
            return first[(slice(None), 0, *rest)]
        result = func(*args, **(kwargs or {}))
        operand = args[1] if name in ("eq", "__eq__") and len(args) > 1 else None
        compared = operand is not None and not isinstance(operand, Tensor) and operand == self.end
        if isinstance(result, Tensor) and (compared or (name in _KEEPS_MARK and hasattr(first, _MARK))):
            setattr(result, _MARK, True)
        return result


def _after_mask(value: Tensor, index: object) -> tuple[Any, ...] | None:
    """The rest of an index behind a mask of ends; None for an index that does not begin with one."""
    parts = index if isinstance(index, tuple) else (index,)
    mask = parts[0] if parts else None
    if not isinstance(mask, Tensor) or not hasattr(mask, _MARK) or mask.dtype != torch.bool:
        return None
    return parts[1:] if value.shape[:2] == mask.shape else None
