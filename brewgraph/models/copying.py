"""Initialises a model from the layers of another; the copy is planned before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

from brewgraph.diagnostics import SourceFault
from brewgraph.models.description import ModelDescription
from brewgraph.models.fake.shapes import empty_model
from brewgraph.models.heads import trunk_of
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.layer_kinds import Kind, difference, kinds_of, telling
from brewgraph.models.structure.read_class import dissect

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


def plan_copy(
    model: nn.Module, donor: nn.Module, layers: tuple[int, ...], names: tuple[str, str] = ("the model", "…")
) -> Copied:
    """Plan the copy of some of a donor's layers, in this order; works on models without weights.

    Outside the layers everything of the same place and shape is copied: embeddings, pooler, a head of as many classes.
    `names` are the model's and the donor's in the spec. Raises SourceFault B316 if the layers do not fit in number,
    shape or kind, B303 if the donor has no such layer.
    """
    into, source = dissect(model), dissect(donor)
    for name, one, anatomy in zip(names, (model, donor), (into, source), strict=True):
        if not anatomy.layer_paths:
            raise _no_layers(name, one, anatomy)
    size, count = len(into.layer_paths), len(source.layer_paths)
    if len(layers) != size:
        shared = f", run {len(into.hidden) - 1} times" if 1 < size + 1 < len(into.hidden) else ""
        message = f"`init` gives {len(layers)} layers to `{names[0]}`, which has {size}{shared}"
        raise SourceFault("B316", message, field="init", help=f"name {size} layer{'s' if size > 1 else ''}")
    if any(not -count <= i < count for i in layers):
        message = f"`init` names a layer beyond the {count} that there are"
        raise SourceFault("B303", message, field="init", help=f"0 to {count - 1}")
    layers = tuple(i % count for i in layers)
    moved = {f"{new}.": f"{source.layer_paths[old]}." for new, old in zip(into.layer_paths, layers, strict=True)}
    words = RENAMED.get((_kind(model), _kind(donor)), {})
    _check_kinds(model, donor, layers, names)
    theirs = donor.state_dict()
    pairs, left, done = [], [], set()
    parameters = 0
    for name, tensor in model.state_dict(keep_vars=True).items():
        prefix = next((p for p in moved if name.startswith(p)), None)
        if prefix is not None:
            other = moved[prefix] + _renamed(name[len(prefix) :], words)
        else:
            other = _outside(name, into.base, source.base, words)
        if other in theirs and theirs[other].shape == tensor.shape:
            pairs.append((name, other))
            if isinstance(tensor, nn.Parameter) and id(tensor) not in done:  # a tied one has two names
                parameters += tensor.numel()
                done.add(id(tensor))
        elif prefix is not None:
            message = f"`init` cannot copy `{other}` into `{name}`: the layers differ in shape or kind"
            help = "start from a model of the same architecture and width"
            raise SourceFault("B316", message, help=help, field="init")
        else:
            left.append((name, tensor))
    random = tuple(name for name, tensor in left if id(tensor) not in done)
    return Copied(tuple(pairs), parameters, random, layers)


def _no_layers(name: str, model: nn.Module, anatomy: Anatomy) -> SourceFault:
    """The fault of an architecture without a single row of layers."""
    reason = anatomy.lacking.get("hidden", "its class records no layers")
    message = f"`init` copies layers one by one, and `{name}` ({anatomy.name}) has no single row of them: {reason}"
    help = "remove `init`, and name a checkpoint to start from"
    if anatomy.stacks and type(getattr(trunk_of(model), "config", None)) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        help += '; or run the encoders alone, on both models: task="token-classification"'
    return SourceFault("B316", message, field="init", help=help)


def _check_kinds(model: nn.Module, donor: nn.Module, layers: tuple[int, ...], names: tuple[str, str]) -> None:
    """SourceFault B316 if a layer would be copied into one of another kind, such as sliding into full attention; the
    remedy names layers that fit. Architectures of different names are compared only by the shapes of their tensors.
    """
    if _kind(model) != _kind(donor):
        return
    ours, theirs = (kinds_of(trunk_of(x), _below(x, dissect(x).layer_paths)) for x in (model, donor))
    keys = telling(ours, theirs)

    def fits(i: int, j: int) -> bool:
        return ours[i].parameters == theirs[j].parameters and difference(ours[i], theirs[j], keys) is None

    wrong = next((i for i, j in enumerate(layers) if not fits(i, j)), None)
    if wrong is None:
        return
    what = difference(ours[wrong], theirs[layers[wrong]], keys)
    near = _nearest(layers, len(theirs), fits)
    if what is None and near is None and ours[wrong].parameters.keys() == theirs[layers[wrong]].parameters.keys():
        return  # another width, which the fault of the parameter reports
    if what is not None:
        setting, mine, donors = what
        reason = f"`{setting}` is {donors} there and {mine} here"
    else:
        mine_only, theirs_only = (set(x.parameters.items()) for x in (ours[wrong], theirs[layers[wrong]]))
        lone = sorted(mine_only ^ theirs_only)[0][0]
        reason = f"they differ in `{lone}`"
    message = f"layer {layers[wrong]} of `{names[1]}` is of another kind than layer {wrong} of `{names[0]}`: {reason}"
    raise SourceFault("B316", message, field="init", help=_ways_out(ours, theirs, layers, near, names))


def _ways_out(
    ours: tuple[Kind, ...],
    theirs: tuple[Kind, ...],
    layers: tuple[int, ...],
    near: tuple[int, ...] | None,
    names: tuple[str, str],
) -> str:
    """Remedies for a copy of layers: other layers of the donor, or the donor's kinds for the model's layers."""
    ways = [f"take layers that fit: init={names[1]}.layers{list(near)}"] if near is not None else []
    wanted = [theirs[j].settings.get("layer_types") for j in layers]
    alike = all(one.parameters == theirs[j].parameters for one, j in zip(ours, layers, strict=True))
    if alike and None not in wanted and wanted != [one.settings.get("layer_types") for one in ours]:
        listed = ", ".join(f'"{kind}"' for kind in wanted)
        ways.append(f"give `{names[0]}` their kinds: layer_types=[{listed}]")
    return "; or ".join(ways) or "start from a model of the same architecture and configuration"


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


def _below(model: nn.Module, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of layers relative to the trunk."""
    names = {id(module): path for path, module in trunk_of(model).named_modules()}
    return tuple(names[id(model.get_submodule(path))] for path in paths)


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
    if description.init is None:
        raise SourceFault("B316", "the model starts from no other", field="init", help="init=bert.layers[0, 4, 8]")
    bare, other = (empty_model(replace(x, adapter=None)) for x in (description, donor))
    return plan_copy(bare, other, description.init.layers, (name, description.init.model))


def _kind(model: nn.Module) -> str:
    return str(getattr(getattr(trunk_of(model), "config", None), "model_type", ""))


def _renamed(name: str, words: Mapping[str, str]) -> str:
    """A parameter's name with its module's name in the donor."""
    module, _, last = name.rpartition(".")
    return f"{words.get(module, module)}.{last}" if module else name


def _outside(name: str, base: str, donor_base: str, words: Mapping[str, str]) -> str:
    """The donor's name of a tensor outside the layers; trunks match under any name."""
    if base and not name.startswith(f"{base}."):
        return _renamed(name, words)
    below = name.removeprefix(f"{base}.") if base else name
    return f"{donor_base}.{below}" if donor_base else below
