"""Reads a model's anatomy off its class: the modules that give hidden states and attentions, in order.

Nothing here knows an architecture by name. transformers' model classes record which modules give hidden states and
attentions (`can_record_outputs`); classes that do not return them for `output_hidden_states` and `output_attentions`,
and `trace_outputs` follows these back to their modules. Works on models without weights (meta or fake tensors).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType
from typing import Literal, cast

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from brewgraph.diagnostics import listing
from brewgraph.models.heads import HeadedModel, trunk_of
from brewgraph.models.structure.anatomy import BACKEND_ROWS, Anatomy, Site
from brewgraph.models.structure.trace_outputs import FLAGS, empty_state, find_returned
from brewgraph.recipe.features import ROWS


def dissect(model: nn.Module) -> Anatomy:
    """The anatomy of a model. Never reads weights, so it works on the meta device."""
    names = {id(module): path for path, module in model.named_modules()}
    modules = {
        path: type(module).forward is not nn.Module.forward
        for path, module in model.named_modules(remove_duplicate=False)
        if path
    }
    base, rows = "", _Rows(lacking=dict.fromkeys((*ROWS, "pooled"), "it is not a transformers model"))
    trunk = trunk_of(model)
    if isinstance(trunk, PreTrainedModel):
        base, rows = names[id(trunk.base_model)], _rows(trunk, names)
        if getattr(trunk.base_model, "pooler", None) is None:
            rows.lacking["pooled"] = "its base model has no pooler"
    lacking = dict(rows.lacking)
    if rows.attention and not rows.backend:
        reason = "its attention does not go through transformers' attention interface"
        lacking |= dict.fromkeys(BACKEND_ROWS[1:], reason)
    if not rows.hidden:
        lacking["embeddings"] = lacking["hidden"]
    return Anatomy(
        name=type(model).__name__,
        base=base,
        hidden=rows.hidden,
        attention=rows.attention,
        layer_paths=rows.layers,
        backend=rows.backend,
        lacking=MappingProxyType(lacking),
        modules=MappingProxyType(modules),
        heads=tuple(model.heads) if isinstance(model, HeadedModel) else (),
        stacks=rows.stacks,
    )


@dataclass
class _Rows:
    """A model's rows, and the reasons for those it lacks."""

    hidden: tuple[Site, ...] = ()
    attention: tuple[Site, ...] = ()
    layers: tuple[str, ...] = ()
    backend: bool = False
    stacks: tuple[str, ...] = ()
    lacking: dict[str, str] = field(default_factory=dict)

    def missing(self, kind: str) -> _Rows:
        """Add the reason for each empty row; `kind` is what its class does not do: `records`, `returns`."""
        if not self.hidden:
            self.lacking["hidden"] = f"its class {kind} no hidden states"
        if not self.attention:
            self.lacking |= dict.fromkeys(BACKEND_ROWS, f"its class {kind} no attentions")
        return self


def _rows(model: PreTrainedModel, names: Mapping[int, str]) -> _Rows:
    """The sites of hidden states and attentions, from what the model class records."""
    stacks = list(_stacks(model.base_model))
    if len(stacks) > 1:
        reason = f"it has {len(stacks)} stacks of layers ({listing(names[id(stack)] for stack in stacks)})"
        layer_lists = (_recorders(stack, names[id(stack)], "hidden_states") for stack in stacks)
        patterns = tuple(f"{layers[0][0].rpartition('.')[0]}.*" for layers in layer_lists if layers)
        return _Rows(stacks=patterns, lacking=dict.fromkeys(ROWS, reason))
    if not stacks:
        return _returned(cast(PreTrainedModel, model.base_model), names[id(model.base_model)])
    stack = stacks[0]
    path = names[id(stack)]
    layers, attentions = (_recorders(stack, path, key) for key in ("hidden_states", "attentions"))
    if not layers:
        return _Rows().missing("records")
    first = layers[0][1]
    in_one_list = len({layer.rpartition(".")[0] for layer, _ in layers}) == 1
    if not in_one_list or len(layers) != getattr(stack.config, first.num_hidden_layers_key, None):
        # Layers that are shared (ALBERT) or grouped: only running them tells how often and in which order.
        order = _call_order(stack, path, {recorder for recorder, _ in layers + attentions})
        layers, attentions = (
            [(called, spec) for called in order for recorder, spec in recorders if recorder == called]
            for recorders in (layers, attentions)
        )
    hidden = tuple(Site("recorded", layer, item=spec.index, call=call) for layer, spec, call in _counted(layers))
    if first.capture_initial_hidden_state:
        hidden = (Site("input", hidden[0].path), *hidden)
    if _ties_last(stack):
        hidden = (*hidden[:-1], Site("field", path, "last_hidden_state"))
    backend = bool(stack._supports_attention_backend)
    kind: Literal["attention", "recorded"] = "attention" if backend else "recorded"
    attention = tuple(Site(kind, module, item=spec.index, call=call) for module, spec, call in _counted(attentions))
    return _Rows(hidden, attention, tuple(dict.fromkeys(layer for layer, _ in layers)), backend).missing("records")


def _returned(base: PreTrainedModel, path: str) -> _Rows:
    """Rows of a model whose class records nothing but returns them on request (DeBERTa-v2, XLNet).

    They are taken from the modules that give them, or from the model's output if one of them is no module's output.
    """
    accepted = inspect.signature(base.forward).parameters
    count = getattr(base.config, "num_hidden_layers", None)
    if count is None or base.config.is_encoder_decoder:
        return _Rows(lacking=dict.fromkeys(ROWS, "its class does not record the outputs of its layers"))
    fields = [name for name, flag in FLAGS.items() if flag in accepted]
    returned = find_returned(base, path, fields, count)

    def sites(name: str, size: int) -> tuple[Site, ...]:
        if len(places := returned.places.get(name, ())) == size:
            asks = FLAGS[name] if name == "attentions" else ""
            return tuple(Site("output", p.path, "", p.item, p.call, p.axes, asks) for p in places)
        return tuple(Site("field", path, name, item=i) for i in range(size if name in fields else 0))

    rows = _Rows(sites("hidden_states", count + 1), sites("attentions", count), returned.layers)
    return rows.missing("returns")


def _stacks(module: nn.Module) -> Iterator[PreTrainedModel]:
    """The outermost models whose forward records hidden states: one in most models, two in an encoder-decoder."""
    if isinstance(module, PreTrainedModel) and _recording(module) is not None and _specs(module, "hidden_states"):
        yield module
    else:
        for child in module.children():
            yield from _stacks(child)


def _recording(model: PreTrainedModel) -> bool | None:
    """The argument `tie_last_hidden_states` of the decorator that records a forward's outputs; None without one."""
    function: FunctionType | None = cast(FunctionType, type(model).forward)
    while function is not None:
        if "tie_last_hidden_states" in function.__code__.co_freevars:
            return bool(inspect.getclosurevars(function).nonlocals["tie_last_hidden_states"])
        function = getattr(function, "__wrapped__", None)
    return None


def _ties_last(stack: PreTrainedModel) -> bool:
    """Whether the last hidden state is what the stack returns (after a final norm), not its last layer's output."""
    configured = getattr(stack.config, "tie_last_hidden_states", None)
    return bool(_recording(stack) if configured is None else configured)


def _specs(model: PreTrainedModel, key: str) -> list[OutputRecorder]:
    """The recorders of a model class under `key` (transformers allows a class, a name, or a recorder)."""
    specs: object = (model.can_record_outputs or {}).get(key, [])
    default = 0 if key == "hidden_states" else 1
    return [
        spec
        if isinstance(spec, OutputRecorder)
        else OutputRecorder(
            target_class=cast(type[nn.Module], None if isinstance(spec, str) else spec),
            index=default,
            class_name=spec if isinstance(spec, str) else None,
        )
        for spec in (specs if isinstance(specs, list) else [specs])
    ]


def _recorders(stack: PreTrainedModel, path: str, key: str) -> list[tuple[str, OutputRecorder]]:
    """The paths of the modules that a stack at `path` records under `key`, each with its recorder."""
    return list(_recorded(stack, path, "", key, _specs(stack, key)))


def _recorded(
    module: nn.Module, path: str, name: str, key: str, specs: list[OutputRecorder]
) -> Iterator[tuple[str, OutputRecorder]]:
    """The modules that transformers records, in the order in which it installs its own hooks."""
    for child_name, child in module.named_children():
        below = _specs(child, key) if isinstance(child, PreTrainedModel) else specs
        full = f"{path}.{child_name}" if path else child_name
        yield from _recorded(child, full, f"{name}.{child_name}", key, below)
    for spec in specs:
        by_class = spec.target_class is not None and isinstance(module, spec.target_class)
        by_name = spec.class_name is not None and name.endswith(spec.class_name)
        if (by_class or by_name) and (spec.layer_name is None or f".{spec.layer_name.strip('.')}." in f"{name}."):
            yield path, spec


def _counted(recorders: list[tuple[str, OutputRecorder]]) -> Iterator[tuple[str, OutputRecorder, int]]:
    """Number the calls of each module from 0."""
    calls: dict[str, int] = {}
    for path, spec in recorders:
        calls[path] = calls.get(path, -1) + 1
        yield path, spec, calls[path]


def _call_order(stack: PreTrainedModel, path: str, wanted: set[str]) -> list[str]:
    """The order in which a stack calls its modules, from one forward on the meta device."""
    order: list[str] = []
    prefix = f"{path}." if path else ""
    hooks = [
        stack.get_submodule(full.removeprefix(prefix)).register_forward_hook(
            lambda module, args, output, full=full: order.append(full)
        )
        for full in wanted
    ]
    try:
        with torch.no_grad():
            functional_call(stack, empty_state(stack, "meta"), (torch.zeros(1, 2, dtype=torch.long, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
    return order
