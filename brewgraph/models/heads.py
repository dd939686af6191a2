"""Several heads on one trunk: each head is a transformers model, and all share one base model."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import transformers
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.dropout import _DropoutNd
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from brewgraph.diagnostics import SourceFault, UsageError, listing
from brewgraph.models.task_heads import AUTO_CLASSES, Head
from brewgraph.paths import read_json

_INDEX = "heads.json"
"""The file that maps the folders of a saved model to their auto classes."""


@dataclass
class HeadedOutput(ModelOutput):
    """The output of a model with heads: the fields of its trunk's output, and the outputs of its `heads` by name."""

    last_hidden_state: Tensor | None = None
    heads: dict[str, Any] | None = None


class _HeadPart(nn.Module):
    """The modules and parameters of one head without the trunk's. Never called."""

    def __init__(self, head: PreTrainedModel):
        super().__init__()
        self._modules = {name: child for name, child in head._modules.items() if name != head.base_model_prefix}
        # the very dictionaries of the head, so that moving one moves the other
        self._parameters, self._buffers = head._parameters, head._buffers
        self._non_persistent_buffers_set = head._non_persistent_buffers_set


class _Replay(nn.Module):
    """Replaces a trunk that has run: for any input it returns that run's output."""

    def __init__(self, trunk: nn.Module, output: ModelOutput):
        super().__init__()
        self.config = trunk.config
        self._output = output

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return copy.copy(self._output)


class HeadedModel(nn.Module):
    """Heads on one trunk.

        model = HeadedModel({"ner": ner, "qa": qa}, {"ner": "AutoModelForTokenClassification", ...})
        out = model(heads=("ner",), **inputs)          # the trunk runs once, whatever the number of heads
        out.last_hidden_state, out.heads["ner"].logits

    `heads` are transformers models of one configuration; afterwards all of them hold the same trunk, the one with the
    most weights (with a pooler, if any head reads it). The trunk is a module under its usual name (`model.bert`), the
    rest of a head is under the head's name, so parameters count once and paths are the usual ones. SourceFault B327 for
    heads that cannot share a trunk, B328 for a name that is taken.
    """

    def __init__(self, heads: Mapping[str, PreTrainedModel], auto_classes: Mapping[str, str]):
        super().__init__()
        self.auto_classes = dict(auto_classes)
        self._keys = {name: frozenset(head.state_dict()) for name, head in heads.items()}
        self._trunk_name = _check(heads)
        trunk = max((head.base_model for head in heads.values()), key=lambda base: len(base.state_dict()))
        self.add_module(self._trunk_name, trunk)
        self._heads = dict(heads)  # hidden from torch: each holds the whole trunk
        for name, head in heads.items():
            if hasattr(self, name):
                help = f"name it otherwise: head {name}_head = …"
                raise SourceFault("B328", f"a head cannot be called `{name}`: the model has that already", help=help)
            setattr(head, head.base_model_prefix, trunk)
            head.tie_weights()
            self.add_module(name, _HeadPart(head))
        self.train(trunk.training)

    @property
    def trunk(self) -> PreTrainedModel:
        """The shared base model."""
        return cast(PreTrainedModel, self.get_submodule(self._trunk_name))

    @property
    def heads(self) -> Mapping[str, PreTrainedModel]:
        """The heads as whole models, each with the shared trunk inside."""
        return self._heads

    @property
    def config(self) -> PretrainedConfig:
        """The trunk's configuration; every head has a copy with its own classes."""
        return self.trunk.config

    def forward(self, heads: Collection[str] | None = None, **inputs: Any) -> HeadedOutput:
        """Run the trunk once, and on its output the named heads, by default all."""
        if unknown := set(heads or ()) - self._heads.keys():
            raise UsageError(f"the model has no head {listing(sorted(unknown))}; it has {listing(self._heads)}")
        base = self.trunk(**inputs)
        outputs = {}
        for name in self._heads if heads is None else heads:
            head = self._heads[name]
            if getattr(head.config, "pad_token_id", None) is None:  # known only once there is a tokenizer
                head.config.pad_token_id = getattr(self.config, "pad_token_id", None)
            with _replaying(head, base):
                outputs[name] = head(**inputs)
        output = HeadedOutput(last_hidden_state=base[0], heads=outputs)
        for key, value in base.items():
            output[key] = value
        return output

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for head in self._heads.values():
            head.training = mode
        return self

    def save(self, folder: Path | str) -> None:
        """Write each head as a whole model into a folder of its name, as its plain auto class loads it."""
        folder = Path(folder)
        for name, head in self._heads.items():
            # without what another head's class brought along (a pooler)
            state = {key: value for key, value in head.state_dict().items() if key in self._keys[name]}
            head.save_pretrained(folder / name, state_dict=state)
        (folder / _INDEX).write_text(json.dumps(self.auto_classes, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> HeadedModel:
        """The model that `save` wrote, in evaluation mode. SourceFault B315 for another folder."""
        auto_classes = saved_heads(folder)
        if not auto_classes:
            message = f"the folder `{folder}` holds no model with heads"
            raise SourceFault("B315", message, field="name", help=f"it needs {_INDEX}")
        heads = {
            name: getattr(transformers, auto_class).from_pretrained(Path(folder) / name, trust_remote_code=False)
            for name, auto_class in auto_classes.items()
        }
        return cls(heads, auto_classes)


def saved_heads(folder: Path | str) -> dict[str, str]:
    """The heads in a folder that `HeadedModel.save` wrote, with their auto classes; empty for another folder.

    SourceFault B315 for an index that holds anything else.
    """
    index = Path(folder) / _INDEX
    if not index.is_file():
        return {}
    try:
        heads = cast(dict[str, str], read_json(index))
        sound = all(name.isidentifier() and auto_class in AUTO_CLASSES.values() for name, auto_class in heads.items())
    except (OSError, ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        message = f"`{_INDEX}` in `{folder}` does not name heads and their classes"
        raise SourceFault("B315", message, field="name", help="copy the folder again, or train the model again")
    return heads


def build_heads(
    config: PretrainedConfig,
    heads: Mapping[str, Head],
    make: Callable[[str, Any, PretrainedConfig], PreTrainedModel],
) -> HeadedModel:
    """A model with these heads; `make` builds each from its name, auto class and configuration.

    Random weights are drawn in the order of the heads' names, not in the order of the spec.
    """
    order = sorted(heads.items())
    models = {name: make(name, getattr(transformers, x.auto_class), x.config(config)) for name, x in order}
    return HeadedModel(models, {name: head.auto_class for name, head in order})


def trunk_of(model: nn.Module) -> nn.Module:
    """The part with hidden states and attentions: the trunk of a model with heads, or else the model itself."""
    return model.trunk if isinstance(model, HeadedModel) else model


def input_names(model: nn.Module) -> tuple[str, ...]:
    """The arguments of a model's forward; with heads, those of its trunk."""
    return tuple(inspect.signature(trunk_of(model).forward).parameters)


def remove_modules(model: nn.Module, paths: Collection[str]) -> Callable[[], None]:
    """Remove modules from a model; returns the function that restores them. A list keeps its other members, a module
    has None.
    """
    before: list[tuple[nn.Module, dict[str, nn.Module | None]]] = []
    for path in paths:
        at, _, name = path.rpartition(".")
        parent = model.get_submodule(at)
        before.append((parent, dict(parent._modules)))
        if isinstance(parent, nn.ModuleList):
            del parent._modules[name]
        else:
            parent._modules[name] = None

    def give_back() -> None:
        for parent, modules in reversed(before):
            parent._modules.clear()
            parent._modules.update(modules)

    return give_back


def may_draw(model: nn.Module) -> bool:
    """Whether a forward in training mode may draw random numbers: any dropout, or code outside transformers."""
    trunk = trunk_of(model)
    if not isinstance(trunk, PreTrainedModel):
        return True
    parts = model.heads.values() if isinstance(model, HeadedModel) else [trunk]
    rates = [rate for part in parts for name, rate in vars(part.config).items() if "drop" in name]
    rates += [module.p for module in model.modules() if isinstance(module, _DropoutNd)]
    return any(isinstance(rate, float | int) and rate > 0 for rate in rates)


def can_end_early(model: nn.Module) -> bool:
    """Whether a hook may end a forward early: not if the model is compiled, recomputed in the backward pass, or sharded
    over ranks, where what follows a forward must run.
    """
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        return False
    recomputed = model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return not recomputed and not hasattr(model, "_orig_mod")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts every part of a model into eval mode; restores each part's mode at the end."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _replaying(head: PreTrainedModel, output: ModelOutput) -> Iterator[None]:
    """Makes a head's calls of its trunk return `output`."""
    name = head.base_model_prefix
    trunk = head._modules[name]
    assert trunk is not None
    head._modules[name] = _Replay(trunk, output)
    try:
        yield
    finally:
        head._modules[name] = trunk


def _check(heads: Mapping[str, PreTrainedModel]) -> str:
    """The name of the trunk that these models can share."""
    bases = {name: head.base_model for name, head in heads.items()}
    alone = next((head for name, head in heads.items() if bases[name] is head), None)
    kinds = {type(base).__name__ for base in bases.values()}
    if alone is not None or len(kinds) > 1:
        reason = f"these heads need a trunk each: {listing(sorted(kinds))}"
        if alone is not None:
            reason = f"{type(alone).__name__} has no trunk that other heads could share"
        help = "another architecture can (BERT, GPT-2, Llama and most others); or train a student for each task"
        raise SourceFault("B327", reason, help=help)
    return str(next(iter(bases.values())).base_model_prefix)
