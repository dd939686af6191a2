"""A model's parameters as a tree with counts and memory; tied ones count once, weights need not exist."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedConfig

from brewgraph.diagnostics import SourceFault
from brewgraph.models.fake.shapes import build_empty
from brewgraph.models.task_heads import AUTO_CLASSES, task_of
from brewgraph.recipe.features import Feature


@dataclass
class ParameterNode:
    """A module or parameter: the count of numbers below it, of trainable ones, and their bytes.

    `tied` is the full name of the parameter that this one shares its numbers with, and that counts them.
    """

    name: str
    parameters: int = 0
    trainable: int = 0
    bytes: int = 0
    tied: str = ""
    children: dict[str, ParameterNode] = field(default_factory=dict)

    def as_json(self, depth: int | None = None) -> dict[str, Any]:
        """The same for machines, down to `depth` levels below this one; None: all of them."""
        below = None if depth is None else depth - 1
        node = {"name": self.name, "parameters": self.parameters, "trainable": self.trainable, "bytes": self.bytes}
        node |= {"tied": self.tied} if self.tied else {}
        children = [] if depth == 0 else [child.as_json(below) for child in self.children.values()]
        return node | ({"children": children} if children else {})


def parameter_tree(model: nn.Module, name: str = "model") -> ParameterNode:
    """The tree of a module on any device, also of `meta` and fake tensors, which have no memory to compare."""
    leaves = []
    for path, x in model.named_parameters(remove_duplicate=False):
        count = x.numel()
        leaves.append((ParameterNode(path, count, count * x.requires_grad, count * x.element_size()), _identity(x)))
    return _tree(leaves, name)


def saved_tree(file: Path, name: str = "model") -> ParameterNode:
    """The tree of a `.safetensors` file, from its header: tensors as they are saved. SourceFault B310."""
    try:
        with safe_open(str(file), framework="pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (it is no dictionary)
            sizes = {key: (math.prod(x.get_shape()), _SIZES.get(x.get_dtype(), 1)) for key, x in slices.items()}
    except Exception as error:
        message = f"`{file}` cannot be read: {str(error).splitlines()[0]}"
        raise SourceFault("B310", message, help="write it again with `safetensors.torch.save_file`") from error
    return _tree([(ParameterNode(key, n, n, n * size), key) for key, (n, size) in sizes.items()], name)


def configured_model(config: PreTrainedConfig) -> nn.Module:
    """The model that a configuration names, of fake tensors: no memory, no weights. SourceFault B306.

    If it names none, or one that transformers lacks, the one of the task that the name ends in.
    """
    architectures = config.architectures or ()
    exact = next((x for name in architectures if (x := getattr(transformers, name, None)) is not None), None)
    if exact is not None:
        return build_empty(config, exact)
    task = task_of([Feature("logits")], (), architectures) if architectures else "features"
    return build_empty(config, getattr(transformers, AUTO_CLASSES[task]))


def _identity(parameter: nn.Parameter) -> object:
    """Equal for one parameter under two names, and for two views of the same memory."""
    if parameter.is_meta or isinstance(parameter, FakeTensor) or parameter.numel() == 0:
        return id(parameter)
    return (parameter.device, parameter.data_ptr(), tuple(parameter.shape), parameter.stride())


def _tree(leaves: Iterable[tuple[ParameterNode, object]], name: str) -> ParameterNode:
    """The tree of parameters by their full names, each with an identity, equal for those that share their numbers."""
    root = ParameterNode(name)
    first: dict[object, str] = {}
    for leaf, identity in leaves:
        shared = first.setdefault(identity, leaf.name)
        path = [root]
        for part in leaf.name.split("."):
            path.append(path[-1].children.setdefault(part, ParameterNode(part)))
        if shared != leaf.name:
            path[-1].tied = shared
            continue
        for node in path:
            node.parameters += leaf.parameters
            node.trainable += leaf.trainable
            node.bytes += leaf.bytes
    return root


_SIZES: Mapping[str, int] = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Bytes of one number of each type of safetensors; 1 for others."""
