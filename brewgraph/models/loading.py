"""Builds described models: loads weights, copies layers, adds adapters."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from brewgraph.diagnostics import SourceFault, suggest
from brewgraph.models.adapters import add_adapter
from brewgraph.models.copying import copy_layers
from brewgraph.models.description import ModelDescription
from brewgraph.models.heads import build_heads, remove_modules, saved_heads
from brewgraph.models.saved_tensors import headless
from brewgraph.ops.python_files import import_allowed
from brewgraph.recipe.settings.model_sources import Python

log = logging.getLogger("brewgraph")


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats by their names in a spec."""


def build_model(
    description: ModelDescription,
    *,
    seed: int,
    frozen: bool = False,
    donors: dict[str, nn.Module] | None = None,
    without: Without | None = None,
) -> nn.Module:
    """The model with its weights: from its checkpoint, or random from `seed`; then layers copied from a donor, then its
    adapter. The modules `without` are neither built nor read from the checkpoint.

    A `frozen` model is never trained, so the checkpoint must hold all its weights. Global generators are restored.
    """
    with _seeded(seed), quiet_transformers():
        if description.heads:

            def make(name: str, auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
                return _load(description, auto_class, config, frozen, name)

            model: Any = build_heads(description.config, description.heads, make)
        else:
            auto_class = description.model_class if without is None else without.model_class
            model = _load(description, auto_class, description.config, frozen)
            if without is not None:
                model.__class__ = without.whole
        model = model.to(DTYPES[description.number_format])
        if description.init is not None:
            donor = (donors or {})[description.init.model]
            log.info("init: %s", copy_layers(model, donor, description.init.layers))
        if description.adapter is not None:
            add_adapter(model, description.adapter)
    built: nn.Module = model
    put_in_order(built, description.order)
    return built


def put_in_order(model: nn.Module, order: Sequence[int]) -> None:
    """Reorder a model's class logits and the names in its configuration; an empty order changes nothing.

    `order[i]` is the former place of the class that comes i-th. The weights stay unchanged.
    """
    if not order:
        return
    config: Any = model.config
    names = [config.id2label[i] for i in order]
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
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
    description: ModelDescription, auto_class: Any, config: PretrainedConfig, frozen: bool, head: str | None = None
) -> PreTrainedModel:
    """One transformers model; for one `head` of several, from that head's folder if the checkpoint has it."""
    if description.checkpoint is None:
        fresh: PreTrainedModel = auto_class.from_config(config)
        return fresh
    checkpoint = description.checkpoint
    if head is not None and head in saved_heads(checkpoint):
        checkpoint = str(Path(checkpoint) / head)
    try:
        model, report = auto_class.from_pretrained(
            checkpoint,
            config=config,
            revision=description.revision,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=DTYPES[description.number_format],
        )
    except OSError as error:
        message = f"no weights can be loaded from `{checkpoint}`: {str(error).splitlines()[0]}"
        help = "the folder needs model.safetensors, as save_pretrained writes it"
        raise SourceFault("B315", message, help=help, field="name") from error
    _check_loaded(model, report, description, frozen)
    loaded: PreTrainedModel = model
    return loaded


def saved_vocabulary(folder: Path | str) -> int:
    """The vocabulary size of a saved student."""
    heads = saved_heads(folder)
    config = AutoConfig.from_pretrained(Path(folder, next(iter(heads))) if heads else folder)
    size: int = config.get_text_config().vocab_size
    return size


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
