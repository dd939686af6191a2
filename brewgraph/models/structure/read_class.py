"""Reads a model's anatomy off its class: the modules that give hidden states and attentions, in order.

Nothing here knows an architecture by name. transformers' model classes record which modules give hidden states and
attentions (`can_record_outputs`). Classes that do not return them for `output_hidden_states` and `output_attentions`;
one forward tells which module call gave each. Taken from the modules, they are available once their layer has run, and
later layers need neither run nor be loaded. Works on models without weights (meta or fake tensors).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from types import FunctionType
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from brewgraph.diagnostics import listing
from brewgraph.models.heads import HeadedModel, evaluating, trunk_of
from brewgraph.models.structure.anatomy import BACKEND_ROWS, NO_BACKEND, Anatomy, Site
from brewgraph.recipe.features import ROWS

FLAGS = {"hidden_states": "output_hidden_states", "attentions": "output_attentions"}
"""Fields that a model returns only on request, with the argument that requests them."""


def dissect(model: nn.Module) -> Anatomy:
    """The anatomy of a model. Never reads weights, so it works on the meta device."""
    names = {id(module): path for path, module in model.named_modules()}
    modules = {
        path: type(module).forward is not nn.Module.forward
        for path, module in model.named_modules(remove_duplicate=False)
        if path
    }
    heads = tuple(model.heads) if isinstance(model, HeadedModel) else ()
    bare = Anatomy(type(model).__name__, modules=modules, heads=heads)
    trunk = trunk_of(model)
    if not isinstance(trunk, PreTrainedModel):
        return _without_rows(bare, "it is not a transformers model", "pooled")
    if getattr(trunk.base_model, "pooler", None) is None:
        bare = replace(bare, lacking={"pooled": "its base model has no pooler"})
    return _with_rows(replace(bare, base=names[id(trunk.base_model)]), trunk, names)


def _without_rows(bare: Anatomy, reason: str, *others: str) -> Anatomy:
    return replace(bare, lacking={**bare.lacking, **dict.fromkeys((*ROWS, "embeddings", *others), reason)})


def _explained(anatomy: Anatomy, kind: str) -> Anatomy:
    """Add the reason for each missing row; `kind` is what its class does not do: `records`, `returns`."""
    lacking = dict(anatomy.lacking)
    if not anatomy.hidden:
        lacking |= dict.fromkeys(("hidden", "embeddings"), f"its class {kind} no hidden states")
    if not anatomy.attention:
        lacking |= dict.fromkeys(BACKEND_ROWS, f"its class {kind} no attentions")
    elif not anatomy.backend:
        lacking |= dict.fromkeys(BACKEND_ROWS[1:], NO_BACKEND)
    return replace(anatomy, lacking=lacking)


def _with_rows(bare: Anatomy, model: PreTrainedModel, names: Mapping[int, str]) -> Anatomy:
    """Add the sites of hidden states and attentions, from what the model class records."""
    stacks = list(_stacks(model.base_model))
    if len(stacks) > 1:
        reason = f"it has {len(stacks)} stacks of layers ({listing(names[id(stack)] for stack in stacks)})"
        layer_lists = (_recorders(stack, names[id(stack)], "hidden_states") for stack in stacks)
        patterns = tuple(f"{layers[0][0].rpartition('.')[0]}.*" for layers in layer_lists if layers)
        return _without_rows(replace(bare, stacks=patterns), reason)
    if not stacks:
        return _returned(bare, cast(PreTrainedModel, model.base_model))
    stack = stacks[0]
    path = names[id(stack)]
    layers, attentions = (_recorders(stack, path, key) for key in ("hidden_states", "attentions"))
    if not layers:
        return _explained(bare, "records")
    first = layers[0][1]
    in_one_list = len({layer.rpartition(".")[0] for layer, _ in layers}) == 1
    if not in_one_list or len(layers) != getattr(stack.config, first.num_hidden_layers_key, None):
        # Layers that are shared (ALBERT) or grouped: only running them tells how often and in which order.
        order = _call_order(stack, path, {recorder for recorder, _ in layers + attentions})
        layers, attentions = (
            [(called, spec) for called in order for recorder, spec in recorders if recorder == called]
            for recorders in (layers, attentions)
        )
    hidden = _sites("recorded", layers)
    if first.capture_initial_hidden_state:
        hidden = (Site("input", hidden[0].path), *hidden)
    if _ties_last(stack):
        hidden = (*hidden[:-1], Site("field", path, "last_hidden_state"))
    backend = bool(stack._supports_attention_backend)
    attention = _sites("attention" if backend else "recorded", attentions)
    layer_paths = tuple(dict.fromkeys(layer for layer, _ in layers))
    rows = replace(bare, hidden=hidden, attention=attention, layer_paths=layer_paths, backend=backend)
    return _explained(rows, "records")


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
    """The modules that a stack at `path` records under `key`, in the order in which transformers hooks them."""

    def recorded(module: nn.Module, name: str, specs: list[OutputRecorder]) -> Iterator[tuple[str, OutputRecorder]]:
        for child_name, child in module.named_children():
            below = _specs(child, key) if isinstance(child, PreTrainedModel) else specs
            yield from recorded(child, f"{name}.{child_name}", below)
        for spec in specs:
            by_class = spec.target_class is not None and isinstance(module, spec.target_class)
            by_name = spec.class_name is not None and name.endswith(spec.class_name)
            if (by_class or by_name) and (spec.layer_name is None or f".{spec.layer_name.strip('.')}." in f"{name}."):
                yield f"{path}{name}".removeprefix("."), spec

    return list(recorded(stack, "", _specs(stack, key)))


def _sites(kind: Literal["attention", "recorded"], recorders: list[tuple[str, OutputRecorder]]) -> tuple[Site, ...]:
    """The site of each call of a recorded module; the calls of each module are counted from 0."""
    calls: Counter[str] = Counter()
    sites = []
    for path, spec in recorders:
        sites.append(Site(kind, path, item=spec.index, call=calls[path]))
        calls[path] += 1
    return tuple(sites)


def _call_order(stack: PreTrainedModel, path: str, wanted: set[str]) -> list[str]:
    """The order in which a stack calls its modules, from one forward on the meta device."""
    order: list[str] = []
    prefix = f"{path}." if path else ""
    modules = {full: stack.get_submodule(full.removeprefix(prefix)) for full in wanted}
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    with watching(modules, leave=lambda full, *call: order.append(full)), torch.no_grad():
        functional_call(stack, empty_state(stack, "meta"), (ids,))
    return order


@contextmanager
def watching(
    modules: Mapping[str, nn.Module],
    enter: Callable[[str], None] | None = None,
    leave: Callable[[str, tuple, dict, object], None] | None = None,
) -> Iterator[None]:
    """While the block runs, `enter` gets the path of each of these modules that is called, and `leave` the path, the
    arguments and the output of each call.
    """
    with ExitStack() as stack:
        for path, module in modules.items():
            if enter is not None:
                stack.callback(module.register_forward_pre_hook(lambda _, args, path=path: enter(path)).remove)
            if leave is not None:
                hook = module.register_forward_hook(
                    lambda _, args, kwargs, output, path=path: leave(path, args, kwargs, output), with_kwargs=True
                )
                stack.callback(hook.remove)
        yield


def empty_state(model: nn.Module, device: str = "cpu") -> dict[str, Tensor]:
    """Parameters and buffers of a model without values, on `meta` or in the current fake mode."""
    return {
        name: torch.empty(x.shape, dtype=x.dtype, device=device).requires_grad_(isinstance(x, nn.Parameter))
        for name, x in chain(model.named_parameters(), model.named_buffers())
    }


# ── the module call that gave each returned state ────────────────────────────────────────────────────────────────────


def _returned(bare: Anatomy, base: PreTrainedModel) -> Anatomy:
    """Rows of a model whose class records nothing but returns them on request (DeBERTa-v2, XLNet).

    They are taken from the modules that give them, or from the model's output if one of them is no module's output.
    """
    accepted = inspect.signature(base.forward).parameters
    count = getattr(base.config, "num_hidden_layers", None)
    if count is None or base.config.is_encoder_decoder:
        return _without_rows(bare, "its class does not record the outputs of its layers")
    fields = [name for name, flag in FLAGS.items() if flag in accepted]
    returned = find_returned(base, bare.base, fields, count)

    def sites(name: str, size: int) -> tuple[Site, ...]:
        if len(places := returned.places.get(name, ())) == size:
            return tuple(replace(place, asks=FLAGS[name] if name == "attentions" else "") for place in places)
        return tuple(Site("field", bare.base, name, item=i) for i in range(size if name in fields else 0))

    hidden, attention = sites("hidden_states", count + 1), sites("attentions", count)
    return _explained(replace(bare, hidden=hidden, attention=attention, layer_paths=returned.layers), "returns")


@dataclass(frozen=True)
class Returned:
    """For each requested field the output that each of its tensors is; a field is missing if one of them is no module's
    output. `layers` are the paths of the layers, empty if no list of modules has as many members.
    """

    places: dict[str, tuple[Site, ...]]
    layers: tuple[str, ...]


def find_returned(model: nn.Module, at: str, fields: Sequence[str], count: int) -> Returned:
    """Run a model of `count` layers on fake tensors and follow its outputs back to the modules that gave them.

    Their paths begin with the model's own path, `at`. It runs in training mode, and with dropout wherever a module may
    have it, so that the input of dropout is not mistaken for its output. Random generators and the model are restored.
    The result is empty for a model that does not run on tensors without values.
    """
    modules = {f"{at}.{path}" if at else path: module for path, module in model.named_modules() if path}
    request = (tuple(fields), count, tuple(modules))
    cached = _cache.get(model)
    if cached is None or cached[0] != request:
        cached = _cache[model] = (request, _run(model, modules, fields, count))
    return cached[1]


_cache: WeakKeyDictionary[nn.Module, tuple[object, Returned]] = WeakKeyDictionary()
"""Results by model, valid while the model has the same modules."""


def _run(model: nn.Module, modules: Mapping[str, nn.Module], fields: Sequence[str], count: int) -> Returned:
    notes = _Notes()
    flags = {FLAGS[name]: True for name in fields}
    try:
        with (
            watching(modules, notes.enter, notes.leave),
            _training(model),
            torch.random.fork_rng(devices=()),
            torch.enable_grad(),
            FakeTensorMode(allow_non_fake_inputs=True),
        ):
            ids = torch.ones(2, 5, dtype=torch.long)
            output = functional_call(model, empty_state(model), (ids,), {"attention_mask": ids, **flags})
        traced = {name: [_traced(tensor, notes.made) for tensor in getattr(output, name)] for name in fields}
    except Exception:  # whatever a model's own code may raise, or a field that is not what its name says
        return Returned({}, ())
    places = {name: tuple(p for p in row if p is not None) for name, row in traced.items()}
    whole = {name: row for name, row in places.items() if len(set(row)) == len(traced[name])}
    return Returned(whole, _layers(modules, notes.calls, count))


_Key = tuple[Node | None, int]
"""A tensor as autograd identifies it: the step that made it, and its place among the step's results."""


class _Notes:
    """The output that each tensor of one forward is, and the number of calls of each module.

    If modules pass a tensor on unchanged, the last of them counts, except a module inside one that began when the
    tensor existed already: it uses the tensor for a purpose of its own.
    """

    def __init__(self) -> None:
        self.made: dict[_Key, Site] = {}
        self.calls: Counter[str] = Counter()
        self._born: dict[_Key, int] = {}
        self._open: list[int] = []
        self._clock = 0

    def enter(self, path: str) -> None:
        self._clock += 1
        self._open.append(self._clock)

    def leave(self, path: str, args: tuple, kwargs: dict, output: object) -> None:
        self._open.pop()
        self._clock += 1
        for item, value in enumerate(output) if isinstance(output, tuple | list) else [(None, output)]:
            if isinstance(value, Tensor) and value.grad_fn is not None:
                key = (value.grad_fn, value.output_nr)
                born = self._born.setdefault(key, self._clock)
                if not self._open or self._open[-1] < born:
                    self.made[key] = Site("output", path, item=item, call=self.calls[path])
        self.calls[path] += 1


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Puts a model into training mode, with dropout in each of its modules that could have it."""
    rates = [(module, module.p) for module in model.modules() if isinstance(module, _DropoutNd)]
    with evaluating(model):
        model.train()
        for dropout, _ in rates:
            dropout.p = 0.5
        try:
            yield
        finally:
            for dropout, rate in rates:
                dropout.p = rate


def _traced(tensor: Tensor, seen: Mapping[_Key, Site]) -> Site | None:
    """The output from which a tensor differs at most in the order of its axes."""
    key: _Key = (tensor.grad_fn, tensor.output_nr)
    same = axes = tuple(range(tensor.dim()))
    while key not in seen:
        step: Any = key[0]
        dims = list(same)
        match step.name() if step is not None else "":
            case "PermuteBackward0":
                dims = [_axis(d, len(axes)) for d in step._saved_dims]
            case "TransposeBackward0":
                one, other = (_axis(d, len(axes)) for d in (step._saved_dim0, step._saved_dim1))
                dims[one], dims[other] = other, one
            case "ViewBackward0" | "UnsafeViewBackward0":
                sizes = step._saved_self_sym_sizes
                if len(sizes) != len(axes) or [sizes[axis] for axis in axes] != list(tensor.shape):
                    return None
            case "CloneBackward0":
                pass
            case _:
                return None
        axes = tuple(dims[axis] for axis in axes)
        key = step.next_functions[0]
    return seen[key] if axes == same else replace(seen[key], axes=axes)


def _axis(number: int, count: int) -> int:
    """One of `count` axes as autograd saves it: negative numbers as unsigned numbers of 64 bits."""
    return (number - 2**64 if number >= 2**63 else number) % count


def _layers(modules: Mapping[str, nn.Module], calls: Counter[str], count: int) -> tuple[str, ...]:
    """The outermost list of as many modules as there are layers, each of them called."""
    for path, module in modules.items():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            layers = tuple(f"{path}.{name}" for name in module._modules)
            if all(calls[layer] for layer in layers):
                return layers
    return ()
