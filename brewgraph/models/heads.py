"""Several heads on one trunk: each head is a plain transformers model, and all of them share one base model."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from brewgraph.diagnostics import SourceFault, UsageError, listing
from brewgraph.models.task_heads import Head

_INDEX = "heads.json"
"""The file that says which auto class loads which folder of a saved model."""


@dataclass
class HeadedOutput(ModelOutput):
    """What a model with heads returns: its trunk's fields (whatever they are), and `heads`, by name, each its own."""

    last_hidden_state: Tensor | None = None
    heads: dict[str, Any] | None = None


class _Own(nn.Module):
    """What belongs to one head alone: its modules and parameters without the trunk's. Never called."""

    def __init__(self, head: PreTrainedModel):
        super().__init__()
        self._modules = {name: child for name, child in head._modules.items() if name != head.base_model_prefix}
        # the very dictionaries of the head, so that moving one moves the other
        self._parameters, self._buffers = head._parameters, head._buffers
        self._non_persistent_buffers_set = head._non_persistent_buffers_set


class _Replay(nn.Module):
    """Stands in for a trunk that has run already: whatever it is called with, it returns what that gave."""

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

    `heads` are transformers models of one configuration; afterwards all of them hold the same trunk, that of the one
    with the most weights (a pooler, where any head reads it). The trunk is a module under its usual name
    (`model.bert`), what belongs to a head alone is under the head's name, so parameters count once and paths are those
    that they would have elsewhere. SourceFault B327 where heads cannot share, B328 for a name that is taken.
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
            self.add_module(name, _Own(head))
        self.train(trunk.training)

    @property
    def trunk(self) -> PreTrainedModel:
        """The shared base model."""
        found: PreTrainedModel = getattr(self, self._trunk_name)
        return found

    @property
    def heads(self) -> Mapping[str, PreTrainedModel]:
        """The heads as whole models, each with the shared trunk inside."""
        return self._heads

    @property
    def config(self) -> PretrainedConfig:
        """The trunk's configuration; every head has a copy with its own classes."""
        found: PretrainedConfig = self.trunk.config
        return found

    def forward(self, heads: Collection[str] | None = None, **inputs: Any) -> HeadedOutput:
        """Run the trunk once and then the heads that are named (left out, all of them) on what it gave."""
        if unknown := set(heads or ()) - self._heads.keys():
            raise UsageError(f"the model has no head {listing(sorted(unknown))}; it has {listing(self._heads)}")
        base = self.trunk(**inputs)
        found = {}
        for name in self._heads if heads is None else heads:
            head = self._heads[name]
            if getattr(head.config, "pad_token_id", None) is None:  # known only once there is a tokenizer
                head.config.pad_token_id = getattr(self.config, "pad_token_id", None)
            with _replaying(head, base):
                found[name] = head(**inputs)
        output = HeadedOutput(last_hidden_state=base[0], heads=found)
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
            own = {key: value for key, value in head.state_dict().items() if key in self._keys[name]}
            head.save_pretrained(folder / name, state_dict=own)
        (folder / _INDEX).write_text(json.dumps(self.auto_classes, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> HeadedModel:
        """The model that `save` wrote, in evaluation mode. SourceFault B315 where the folder holds none."""
        auto_classes = saved_heads(folder)
        if not auto_classes:
            raise SourceFault(
                "B315", f"the folder `{folder}` holds no model with heads", field="name", help=f"it needs {_INDEX}"
            )
        made = {
            name: getattr(transformers, auto_class).from_pretrained(Path(folder) / name)
            for name, auto_class in auto_classes.items()
        }
        return cls(made, auto_classes)


def saved_heads(folder: Path | str) -> dict[str, str]:
    """The heads in a folder that `HeadedModel.save` wrote, with their auto classes; empty for any other folder."""
    index = Path(folder) / _INDEX
    return dict(json.loads(index.read_text(encoding="utf-8"))) if index.is_file() else {}


def build_heads(
    config: PretrainedConfig,
    heads: Mapping[str, tuple[Any, ...]],
    make: Callable[[str, Any, PretrainedConfig], PreTrainedModel],
) -> HeadedModel:
    """A model with these heads; `make` gives each as a whole from its name, auto class and configuration.

    Their names alone decide the order in which random weights are drawn, not the place where a spec writes them.
    """
    made, auto_classes = {}, {}
    for name, given in sorted(heads.items()):
        head = Head(*given)
        auto_classes[name] = head.auto_class
        made[name] = make(name, getattr(transformers, head.auto_class), head.config(config))
    return HeadedModel(made, auto_classes)


def trunk_of(model: nn.Module) -> nn.Module:
    """The part that gives hidden states and attentions: the trunk of a model with heads, else the model itself."""
    return model.trunk if isinstance(model, HeadedModel) else model


def input_names(model: nn.Module) -> tuple[str, ...]:
    """The arguments that a model's forward names; those of its trunk, where it has heads."""
    return tuple(inspect.signature(trunk_of(model).forward).parameters)


@contextmanager
def _replaying(head: PreTrainedModel, output: ModelOutput) -> Iterator[None]:
    """Let a head's calls of its trunk return `output`."""
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
    alone = [name for name, head in heads.items() if bases[name] is head]
    kinds = {type(base).__name__ for base in bases.values()}
    if alone or len(kinds) > 1:
        reason = (
            f"{type(heads[alone[0]]).__name__} has no trunk that other heads could share"
            if alone
            else f"these heads need a trunk each: {listing(sorted(kinds))}"
        )
        help = "another architecture can (BERT, GPT-2, Llama and most others); or train a student for each task"
        raise SourceFault("B327", reason, help=help)
    return str(next(iter(bases.values())).base_model_prefix)
