"""Builds described models: loads weights, copies layers of another model, adds adapters.

A copy is planned before any weight is loaded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel

from brewgraph.diagnostics import SourceFault, suggest
from brewgraph.models.adapters import add_adapter
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import empty_model
from brewgraph.models.heads import build_heads, remove_modules, saved_heads, trunk_of
from brewgraph.models.quantizing import keep_plain, quantization_config, round_outline
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.task_heads import headless, name_classes
from brewgraph.models.tokenization import first_line
from brewgraph.ops.python_files import import_allowed
from brewgraph.recipe.settings.model_sources import Python

log = logging.getLogger("brewgraph")


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What transformers raises for an index of weights that is none, beside errors of its own."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats by their names in a spec."""


def build_model(
    description: ModelDescription,
    *,
    seed: int,
    frozen: bool = False,
    donors: dict[str, nn.Module] | None = None,
    without: Without | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """The model with its weights: from its checkpoint, or random from `seed`; then layers copied from a donor, then its
    adapter. The modules `without` are neither built nor read from the checkpoint.

    A `frozen` model is never trained, so the checkpoint must hold all its weights. A quantized one is loaded on its
    `device`, where it stays. Global generators are restored.
    """
    with _seeded(seed), quiet_transformers():
        if description.heads:

            def make(name: str, auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
                return _load(description, auto_class, config, frozen, name)

            model: Any = build_heads(description.config, description.heads, make)
        else:
            auto_class = description.model_class if without is None else without.model_class
            model = _load(description, auto_class, description.config, frozen, device=device)
            if without is not None:
                model.__class__ = without.whole
        if description.quantization is None:
            model = model.to(DTYPES[description.number_format])
        if description.init is not None:
            donor = (donors or {})[description.init.model]
            log.info("init: %s", copy_layers(model, donor, description.init.layers))
        if description.adapter is not None:
            add_adapter(model, description.adapter)
    built: nn.Module = model
    put_in_order(built, description.order)
    return built


def build_outline(description: ModelDescription, without: Without | None = None) -> PreTrainedModel:
    """A model of one head as `build_model` gives it, in evaluation mode, its tensors on the meta device."""
    make = description.model_class.from_config if without is None else without.model_class._from_config
    dtype = DTYPES[description.number_format]
    with torch.device("meta"):
        model = make(copy.deepcopy(description.config), dtype=dtype)
    if description.quantization is not None:
        round_outline(model, description.quantization, dtype)
    if without is not None:
        model.__class__ = without.whole
    put_in_order(model, description.order)
    return cast(PreTrainedModel, model.eval())


def put_in_order(model: nn.Module, order: Sequence[int]) -> None:
    """Reorder a model's class logits and the names in its configuration; an empty order changes nothing.

    `order[i]` is the former place of the class that comes i-th. The weights stay unchanged.
    """
    if not order:
        return
    config: Any = model.config
    name_classes(config, [config.id2label[i] for i in order])
    config.class_order = list(order)  # caches of logits tell it from the same weights under other names by this

    def reorder(module: nn.Module, args: object, output: Any) -> None:
        if isinstance(getattr(output, "logits", None), torch.Tensor):
            output.logits = output.logits[..., torch.tensor(order, device=output.logits.device)]

    model.register_forward_hook(reorder)


@dataclass(frozen=True)
class Without:
    """A model class and the paths of modules that its models lose."""

    whole: type[PreTrainedModel]
    paths: tuple[str, ...]

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """A class whose models lose these modules before weights are read."""
        whole, paths = self.whole, self.paths

        def make(self: Any, *args: Any, **kwargs: Any) -> None:
            whole.__init__(self, *args, **kwargs)
            remove_modules(self, paths)
            inside = tuple(f"{path}." for path in paths)
            tied = self.all_tied_weights_keys.items()
            self.all_tied_weights_keys = {a: b for a, b in tied if not (a.startswith(inside) or b.startswith(inside))}

        return type(whole.__name__, (whole,), {"__init__": make, "__module__": whole.__module__})


def _load(
    description: ModelDescription,
    auto_class: Any,
    config: PretrainedConfig,
    frozen: bool,
    head: str | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """One transformers model; for one `head` of several, from that head's folder if the checkpoint has it."""
    if description.checkpoint is None:
        return cast(PreTrainedModel, auto_class.from_config(config))
    checkpoint = description.checkpoint
    if head is not None and head in saved_heads(checkpoint):
        checkpoint = str(Path(checkpoint) / head)
    dtype, more = DTYPES[description.number_format], dict[str, Any]()
    if description.quantization is not None:
        more["quantization_config"] = quantization_config(description.quantization, dtype, empty_model(description))
        more["device_map"] = {"": device or torch.device("cpu")}
    try:
        model, report = auto_class.from_pretrained(
            checkpoint,
            config=config,
            revision=description.revision,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=dtype,
            trust_remote_code=False,
            **more,
        )
    except (*_UNREADABLE, OSError, UnpicklingError, SafetensorError) as error:
        message = f"no weights can be loaded from `{checkpoint}`: {first_line(error)}"
        help = "the folder needs model.safetensors, as save_pretrained writes it"
        raise SourceFault("B315", message, help=help, field="name") from error
    _check_loaded(model, report, description, frozen)
    if description.quantization is not None:
        return cast(PreTrainedModel, keep_plain(model))
    _leave_the_file(model)
    return cast(PreTrainedModel, model)


def _leave_the_file(model: nn.Module) -> None:
    """Copy weights into memory of their own. On a CPU safetensors maps them from the checkpoint: who writes that file
    during the run, such as a teacher trained anew in its folder, would change them, or end the process by a SIGBUS.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def saved_vocabulary(folder: Path | str) -> int:
    """The vocabulary size of a saved student."""
    heads = saved_heads(folder)
    config = AutoConfig.from_pretrained(Path(folder, next(iter(heads))) if heads else folder, trust_remote_code=False)
    return int(config.get_text_config().vocab_size)


def _check_loaded(
    model: PreTrainedModel, report: Mapping[str, Iterable[Any]], description: ModelDescription, frozen: bool
) -> None:
    """Only a student's head may begin at random: a random trunk has lost its pretraining, and a random head of a
    teacher teaches noise.
    """
    prefix = model.base_model_prefix + "."
    names = [key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])]
    bare = not hasattr(model, model.base_model_prefix)
    lost = [n for n in names if (bare or n.startswith(prefix)) and "pooler." not in n]
    if lost:
        checkpoint = description.checkpoint
        message = f"{len(lost)} weights of `{checkpoint}` do not fit this configuration, {lost[0]} among them"
        help = "pretrained=false starts from random weights; or leave the sizes alone"
        raise SourceFault("B318", message, field="name", help=help)
    if frozen and not bare and names:
        raise headless(description.checkpoint, names[0])
    if names:
        log.info("%s: starts at random: %s", description.checkpoint, ", ".join(names))


def build_python(source: Python, *, folder: Path, allow: bool, seed: int) -> nn.Module:
    """The module that a factory returns. Only installed packages are imported, unless `allow` is true."""
    module_name, _, path = source.target.partition(":")
    factory: Any = import_allowed(module_name, folder, allow=allow, shown=source.target, field="target")
    for part in path.split("."):
        if not hasattr(factory, part):
            help = suggest(part, dir(factory))
            raise SourceFault("B317", f"`{module_name}` has no `{path}`", field="target", help=help)
        factory = getattr(factory, part)
    with _seeded(seed):
        model = factory(**source.arguments)
    if not isinstance(model, nn.Module):
        message = f"`{source.target}` gave {type(model).__name__}, not a torch module"
        help = "name a class or function that returns a torch.nn.Module"
        raise SourceFault("B317", message, field="target", help=help)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' progress bars and load reports."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


# ── layers of another model ──────────────────────────────────────────────────────────────────────────────────────────


_BERT_NAMES = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
    "vocab_transform": "cls.predictions.transform.dense",
    "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
    "vocab_projector": "cls.predictions.decoder",
}
"""DistilBERT's modules, in a layer and in its language head, and BERT's of the same function."""

RENAMED: Mapping[tuple[str, str], Mapping[str, str]] = {("distilbert", "bert"): _BERT_NAMES}
"""Module names of one architecture and those of another that it can start from, by the two model types.

DistilBERT is BERT without token types and pooler (Sanh et al. 2019, section 3, who copy one of every two layers).
"""


@dataclass(frozen=True)
class Copied:
    """The plan of `init=`: `pairs` of names (the model's, the donor's), the number of parameters, the names
    of `random` ones, and the donor's `layers`, in order.
    """

    pairs: tuple[tuple[str, str], ...]
    parameters: int
    random: tuple[str, ...]
    layers: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The model's names of the copied tensors."""
        return tuple(name for name, _ in self.pairs)

    def __str__(self) -> str:
        """One line for a plan: `layers 0, 4, 8; 1.2M of 1.3M …`."""
        layers = ", ".join(map(str, self.layers))
        modules = dict.fromkeys(name.rpartition(".")[0] for name in self.random)
        rest = f"at random: {', '.join(modules)}" if modules else "nothing at random"
        return f"layers {layers}: {len(self.pairs)} tensors with {self.parameters:,} parameters copied; {rest}"


Value = str | int | None


@dataclass(frozen=True)
class Kind:
    """A layer's parameters with their shapes, and the settings of its modules by `path.attribute`: texts, switches, and
    whether a size is set.
    """

    parameters: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class _Side:
    """The model, or the donor, by its name in the spec."""

    name: str
    model: nn.Module

    @cached_property
    def anatomy(self) -> Anatomy:
        return dissect(self.model)

    @property
    def model_type(self) -> str:
        return str(getattr(getattr(trunk_of(self.model), "config", None), "model_type", ""))

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        return kinds_of(self.model, self.anatomy.layer_paths)

    def require_layers(self) -> None:
        """SourceFault B316 for an architecture without a single row of layers."""
        if self.anatomy.layer_paths:
            return
        reason = self.anatomy.lacking.get("hidden", "its class records no layers")
        shown = f"`{self.name}` ({self.anatomy.name})"
        help = "remove `init`, and name a checkpoint to start from"
        config = type(getattr(trunk_of(self.model), "config", None))
        if self.anatomy.stacks and config in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
            help += '; or run the encoders alone, on both models: task="token-classification"'
        raise _misfit(f"`init` copies layers one by one, and {shown} has no single row of them: {reason}", help)


def _misfit(message: str, help: str) -> SourceFault:
    return SourceFault("B316", message, help=help, field="init")


def plan_copy(
    model: nn.Module, donor: nn.Module, layers: tuple[int, ...], names: tuple[str, str] = ("the model", "…")
) -> Copied:
    """Plan the copy of some of a donor's layers, in this order; works on models without weights.

    Outside the layers everything of the same place and shape is copied: embeddings, pooler, a head of as many classes.
    `names` are the model's and the donor's in the spec. Raises SourceFault B316 if the layers do not fit in number,
    shape or kind, B303 if the donor has no such layer.
    """
    into, source = _Side(names[0], model), _Side(names[1], donor)
    into.require_layers()
    source.require_layers()
    paths, donor_paths = into.anatomy.layer_paths, source.anatomy.layer_paths
    size, count = len(paths), len(donor_paths)
    if len(layers) != size:
        runs = len(into.anatomy.hidden) - 1
        shared = f", run {runs} times" if 1 < size + 1 < runs + 1 else ""
        message = f"`init` gives {len(layers)} layers to `{into.name}`, which has {size}{shared}"
        raise _misfit(message, f"name {size} layer{'s' if size > 1 else ''}")
    if any(not -count <= i < count for i in layers):
        message = f"`init` names a layer beyond the {count} that there are"
        raise SourceFault("B303", message, field="init", help=f"0 to {count - 1}")
    layers = tuple(i % count for i in layers)
    _check_kinds(into, source, layers)
    moved = {f"{new}.": f"{donor_paths[old]}." for new, old in zip(paths, layers, strict=True)}
    words = RENAMED.get((into.model_type, source.model_type), {})
    theirs = donor.state_dict()
    pairs, left = [], []
    copied: dict[int, int] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        prefix = next((p for p in moved if name.startswith(p)), None)
        if prefix is not None:
            other = moved[prefix] + _renamed(name.removeprefix(prefix), words)
        else:
            other = _outside(name, into.anatomy.base, source.anatomy.base, words)
        if other in theirs and theirs[other].shape == tensor.shape:
            pairs.append((name, other))
            if isinstance(tensor, nn.Parameter):
                copied[id(tensor)] = tensor.numel()  # a tied one has two names
        elif prefix is not None:
            message = f"`init` cannot copy `{other}` into `{name}`: the layers differ in shape or kind"
            raise _misfit(message, "start from a model of the same architecture and width")
        else:
            left.append((name, tensor))
    random = tuple(name for name, tensor in left if id(tensor) not in copied)
    return Copied(tuple(pairs), sum(copied.values()), random, layers)


def copy_layers(model: nn.Module, donor: nn.Module, layers: tuple[int, ...]) -> Copied:
    """Carry out the plan of `plan_copy`."""
    plan = plan_copy(model, donor, layers)
    ours, theirs = model.state_dict(), donor.state_dict()
    with torch.no_grad():
        for name, other in plan.pairs:
            ours[name].copy_(theirs[other])
    return plan


def planned_copy(description: ModelDescription, donor: ModelDescription, name: str = "the model") -> Copied:
    """The plan of `init=` for the model of this name, from descriptions alone. Faults as `plan_copy`.

    Layers are copied into the model without its adapter.
    """
    assert description.init is not None
    bare, other = (empty_model(replace(x, adapter=None)) for x in (description, donor))
    return plan_copy(bare, other, description.init.layers, (name, description.init.model))


def _renamed(name: str, words: Mapping[str, str]) -> str:
    """A parameter's name with its module's name in the donor."""
    module, dot, last = name.rpartition(".")
    return words.get(module, module) + dot + last


def _outside(name: str, base: str, donor_base: str, words: Mapping[str, str]) -> str:
    """The donor's name of a tensor outside the layers; trunks match under any name."""
    if base and not name.startswith(f"{base}."):
        return _renamed(name, words)
    below = name.removeprefix(f"{base}.") if base else name
    return f"{donor_base}.{below}" if donor_base else below


# ── kinds of layers ──────────────────────────────────────────────────────────────────────────────────────────────────


def kinds_of(model: nn.Module, paths: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds of these layers. `layer_types` of the configuration is the setting of that name."""
    layers = [model.get_submodule(path) for path in paths]
    types = getattr(getattr(trunk_of(model), "config", None), "layer_types", None) or ()
    settings = [_settings(layer) for layer in layers]
    counters = {key for key in set().union(*settings) if _counts(key, settings)}
    return tuple(
        Kind(
            {name: tuple(value.shape) for name, value in layer.state_dict(keep_vars=True).items()},
            ({"layer_types": types[i]} if len(types) == len(layers) else {})
            | {key: _switch(value) for key, value in values.items() if key not in counters},
        )
        for i, (layer, values) in enumerate(zip(layers, settings, strict=True))
    )


def _telling(*sides: _Side) -> list[str]:
    """The settings that tell layers apart, `layer_types` first: those that vary within one of the models, and those
    named as a type. A setting that is equal in all layers of a model, such as a dropout, belongs to its configuration.
    """
    keys: set[str] = set()
    for side in sides:
        for key in set().union(*(kind.settings for kind in side.kinds)):
            values = {kind.settings[key] for kind in side.kinds if key in kind.settings}
            if len(values) > 1 or key.endswith(("_type", "_types")):
                keys.add(key)
    return sorted(keys, key=lambda key: (key != "layer_types", key))


def _check_kinds(into: _Side, source: _Side, layers: tuple[int, ...]) -> None:
    """SourceFault B316 if a layer would be copied into one of another kind, such as sliding into full attention; the
    remedy names layers that fit. Architectures of different names are compared only by the shapes of their tensors.
    """
    if into.model_type != source.model_type:
        return
    ours, theirs, keys = into.kinds, source.kinds, _telling(into, source)

    def different(i: int, j: int) -> str | None:
        """The first setting in which two layers differ."""
        one, other = ours[i].settings, theirs[j].settings
        return next((key for key in keys if key in one and key in other and one[key] != other[key]), None)

    def fits(i: int, j: int) -> bool:
        return ours[i].parameters == theirs[j].parameters and different(i, j) is None

    wrong = next((i for i, j in enumerate(layers) if not fits(i, j)), None)
    if wrong is None:
        return
    mine, other, setting = ours[wrong], theirs[layers[wrong]], different(wrong, layers[wrong])
    near = _nearest(layers, len(theirs), fits)
    if setting is not None:
        reason = f"`{setting}` is {other.settings[setting]} there and {mine.settings[setting]} here"
    elif near is None and mine.parameters.keys() == other.parameters.keys():
        return  # another width, which the fault of the parameter reports
    else:
        reason = f"they differ in `{min(set(mine.parameters.items()) ^ set(other.parameters.items()))[0]}`"
    ways = [f"take layers that fit: init={source.name}.layers{list(near)}"] if near is not None else []
    wanted = [theirs[j].settings.get("layer_types") for j in layers]
    alike = all(one.parameters == theirs[j].parameters for one, j in zip(ours, layers, strict=True))
    if alike and None not in wanted and wanted != [one.settings.get("layer_types") for one in ours]:
        listed = ", ".join(f'"{kind}"' for kind in wanted)
        ways.append(f"give `{into.name}` their kinds: layer_types=[{listed}]")
    message = (
        f"layer {layers[wrong]} of `{source.name}` is of another kind than layer {wrong} of `{into.name}`: {reason}"
    )
    raise _misfit(message, "; or ".join(ways) or "start from a model of the same architecture and configuration")


def _nearest(layers: tuple[int, ...], count: int, fits: Callable[[int, int], bool]) -> tuple[int, ...] | None:
    """For each layer one of a donor's that fits, in order, as near to the requested ones as possible."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {-1: (0, ())}
    for i, asked in enumerate(layers):
        following = {}
        for j in (j for j in range(count) if fits(i, j)):
            before = [(cost + abs(j - asked), (*chosen, j)) for last, (cost, chosen) in best.items() if last < j]
            if before:
                following[j] = min(before)
        best = following
    return min(best.values())[1] if best else None


def _settings(layer: nn.Module) -> dict[str, Value]:
    return {
        f"{path}.{name}" if path else name: value
        for path, module in layer.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and (value is None or isinstance(value, str | int))
    }


def _counts(key: str, layers: Sequence[Mapping[str, Value]]) -> bool:
    """Whether a setting is the layer's own number."""
    return all(layer.get(key, i) == i for i, layer in enumerate(layers)) and not isinstance(layers[0].get(key), bool)


def _switch(value: Value) -> Value:
    """A size as `set`, whatever it is; 1 and 0, which may mean yes and no, stay."""
    return value if not isinstance(value, int) or value in (0, 1) else "set"
