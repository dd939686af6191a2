"""Blueprints to modules: weights loaded, layers copied, tokenizers at hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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
from brewgraph.models.fake.reach import remove_modules
from brewgraph.models.heads import build_heads, saved_heads
from brewgraph.models.saved_tensors import headless
from brewgraph.ops.python_files import import_allowed
from brewgraph.recipe.settings.sources import Python

log = logging.getLogger("brewgraph")


def build_model(
    description: ModelDescription,
    *,
    seed: int,
    frozen: bool = False,
    donors: dict[str, nn.Module] | None = None,
    without: Without | None = None,
) -> nn.Module:
    """The model with its weights: from its checkpoint, or random from `seed`; then layers copied from a donor, then its
    adapter put in. Of a checkpoint the modules `without` are neither built nor read.

    A `frozen` one is never trained, so nothing of it may begin at random that the checkpoint should have held. The
    global generators are left as they were.
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
        model = model.float()
        if description.init is not None:
            donor = (donors or {})[description.init.model]
            log.info("init: %s", copy_layers(model, donor, description.init.layers))
        if description.adapter is not None:
            add_adapter(model, description.adapter)
    built: nn.Module = model
    put_in_order(built, description.order)
    return built


def put_in_order(model: nn.Module, order: Sequence[int]) -> None:
    """Let a model give its class logits in another order, and its configuration name them so. An empty one is its own.

    `order[i]` is where the class that comes i-th stood before. The weights stay as they are.
    """
    if not order:
        return
    config: Any = model.config
    names = [config.id2label[i] for i in order]
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.class_order = list(order)  # tells it from the same weights under other names, to whoever keeps its logits

    def reorder(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(getattr(output, "logits", None), torch.Tensor):
            output.logits = output.logits[..., torch.tensor(order, device=output.logits.device)]

    model.register_forward_hook(reorder)


@dataclass(frozen=True)
class Without:
    """A class of models without some of its modules, by their paths."""

    whole: type[PreTrainedModel]
    paths: tuple[str, ...]

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """A class whose models lose these modules before any weight is read."""
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
    """One transformers model; where it is one `head` of several, from that head's folder if the checkpoint has it."""
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
        )
    except OSError as error:
        raise SourceFault(
            "B315",
            f"no weights can be loaded from `{checkpoint}`: {str(error).splitlines()[0]}",
            field="name",
            help="the folder needs model.safetensors, as save_pretrained writes it",
        ) from error
    _check_loaded(model, report, description, frozen)
    loaded: PreTrainedModel = model
    return loaded


def saved_vocabulary(folder: Path | str) -> int:
    """How many rows of embeddings a saved student has, of one with heads the trunk they share."""
    heads = saved_heads(folder)
    config = AutoConfig.from_pretrained(Path(folder, next(iter(heads))) if heads else folder)
    size: int = config.get_text_config().vocab_size
    return size


def _check_loaded(model: Any, report: dict[str, Any], description: ModelDescription, frozen: bool) -> None:
    """Only a student's head may begin at random. A trunk that does is a model that silently lost its pretraining, and a
    teacher's head that does teaches noise.
    """
    prefix = model.base_model_prefix + "."
    names = [key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])]
    bare = not hasattr(model, model.base_model_prefix)
    lost = [n for n in names if (bare or n.startswith(prefix)) and "pooler." not in n]
    if lost:
        message = (
            f"{len(lost)} weights of `{description.checkpoint}` do not fit this configuration, {lost[0]} among them"
        )
        raise SourceFault(
            "B318", message, field="name", help="pretrained=false starts from random weights; or leave the sizes alone"
        )
    if frozen and not bare and names:
        raise headless(description.checkpoint, names[0])
    if names:
        log.info("%s: starts at random: %s", description.checkpoint, ", ".join(names))


def build_python(source: Python, *, folder: Path, allow: bool, seed: int) -> nn.Module:
    """The module that a factory returns. Only installed packages are imported, unless `allow` says otherwise."""
    module_name, _, path = source.target.partition(":")
    found: Any = import_allowed(module_name, folder, allow=allow, shown=source.target, field="target")
    for part in path.split("."):
        if not hasattr(found, part):
            raise SourceFault(
                "B317", f"`{module_name}` has no `{path}`", field="target", help=suggest(part, dir(found))
            )
        found = getattr(found, part)
    with _seeded(seed):
        made = found(**source.arguments)
    if not isinstance(made, nn.Module):
        raise SourceFault(
            "B317",
            f"`{source.target}` gave {type(made).__name__}, not a torch module",
            field="target",
            help="name a class or function that returns a torch.nn.Module",
        )
    return made


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers' own progress bars and load reports stay silent while a model is loaded or saved."""
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
