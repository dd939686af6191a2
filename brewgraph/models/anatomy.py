"""What a model is made of: its layers, its attention modules, and where in a forward each feature is met.

Nothing here knows an architecture by name. transformers' model classes record themselves which modules give hidden
states and attentions (`can_record_outputs`); classes that do not are asked through `output_hidden_states` and
`output_attentions`. Works on models without weights (meta or fake tensors).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.models.heads import HeadedModel, trunk_of
from brewgraph.recipe.features import ROWS, Feature

RESULTS = {"logits": "logits", "start": "start_logits", "end": "end_logits"}
"""Features that are fields of what the whole model returns."""

BACKEND_ROWS = ("attention", "scores", "query", "key", "value")


@dataclass(frozen=True)
class Site:
    """Where one feature is met in a forward.

    `kind` says what is taken there: `result`, the field `field` of what the model returns; `field`, the same of the
    module at `path`; `input` and `output` of that module (`item` picks from a tuple); `recorded`, its output with
    `item` applied only where the output is a tuple, as transformers' own recorders do; `attention`, the value `field`
    (query, key, value, scores, attention) of the attention function that the module calls. `call` counts the module's
    calls in one forward from 0. The `path` of a result is the head that gives it (empty where the model has no heads).
    """

    kind: Literal["result", "field", "input", "output", "recorded", "attention"]
    path: str = ""
    field: str = ""
    item: int | None = None
    call: int = 0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of one model instance, read once.

    `base` is the path of the base model (empty where the model is its own), `hidden` and `attention` the sites of the
    rows, `layer_paths` the layer modules in the order of the forward, each once (empty where the class records none),
    `backend` whether attention runs through transformers' attention interface, `lacking` the reason for each feature
    that the model does not offer, `modules` every module's path in the model's order with whether it can be called,
    `heads` the names of its heads where it has several on one trunk, `stacks` the paths of the layers of each stack
    (`encoder.block.*`) where it has several, and therefore no rows.
    """

    name: str
    base: str
    hidden: tuple[Site, ...]
    attention: tuple[Site, ...]
    layer_paths: tuple[str, ...]
    backend: bool
    lacking: Mapping[str, str]
    modules: Mapping[str, bool]
    heads: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Read the anatomy of a model. Never touches weights, so it works on the meta device."""
        names = {id(module): path for path, module in model.named_modules()}
        modules = {
            path: type(module).forward is not nn.Module.forward
            for path, module in model.named_modules(remove_duplicate=False)
            if path
        }
        base, rows = "", _Rows(lacking=dict.fromkeys((*ROWS, "pooled"), "it is no transformers model"))
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
        return cls(
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

    @property
    def attention_paths(self) -> tuple[str, ...]:
        """The self-attention modules in the order of the forward, each once; empty where the class records none."""
        return tuple(dict.fromkeys(site.path for site in self.attention if site.kind != "field"))

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of the rows and single features below the head that this model has."""
        return tuple(name for name in (*ROWS, "embeddings", "pooled") if name not in self.lacking)

    def rows(self, name: str) -> int:
        """How many members a row has (`hidden`: layers + 1). A row that the model lacks is a SourceFault B304."""
        return len(self._row(name))

    def site(self, feature: Feature) -> Site:
        """Where a feature is met. SourceFault B301 to B304 where the model has no such place."""
        if feature.head is not None and feature.head not in self.heads:
            raise self._no_head(f"{self.name} has no head `{feature.head}`")
        if feature.name == "tap":
            path = self.resolve(cast(str, feature.path), feature.head)
            return Site("input" if feature.input else "output", path, item=feature.item, call=feature.call)
        if feature.name in RESULTS:
            if self.heads and feature.head is None:
                raise self._no_head(f"`{feature.name}` is given by a head, and {self.name} has {len(self.heads)}")
            return Site("result", feature.head or "", field=RESULTS[feature.name])
        if feature.name == "pooled":
            self._require("pooled")
            return Site("field", self.base, "pooler_output")
        if feature.name == "embeddings":
            self._require("embeddings")
            return self.hidden[0]
        row, index = self._row(feature.name), cast(int, feature.index)
        if not -len(row) <= index < len(row):
            raise SourceFault(
                "B303",
                f"`{feature}` is out of range: {self.name} has {len(row)} of them",
                help=f"`{feature.name}` counts from 0 to {len(row) - 1}, or from -{len(row)} to -1",
            )
        site = row[index]
        return replace(site, field=feature.name) if site.kind == "attention" else site

    def resolve(self, path: str, head: str | None = None) -> str:
        """The full path of a module, given in full, from below the base model, or from below a head.

        Raises SourceFault B301 where there is no such module, B302 where it is a container that never runs.
        """
        for full in (f"{head}.{path}",) if head else (path, f"{self.base}.{path}"):
            if full in self.modules:
                if self.modules[full]:
                    return full
                raise self._container(full)
        raise self._missing(f"{head}.{path}" if head else path)

    def paths(self, pattern: str) -> tuple[str, ...]:
        """The modules that a pattern stands for, in the model's order; `*` stays within one segment of the path.

        Containers that never run are left out. Raises as `resolve` does where nothing matches.
        """
        if not any(sign in pattern for sign in "*?["):
            return (self.resolve(pattern),)
        for full in (pattern, f"{self.base}.{pattern}"):
            segments = full.split(".")
            found = [path for path in self.modules if _matches(path.split("."), segments)]
            callable_ones = tuple(path for path in found if self.modules[path])
            if callable_ones:
                return callable_ones
            if found:
                raise self._container(found[0])
        raise self._missing(pattern)

    def _row(self, name: str) -> tuple[Site, ...]:
        self._require(name)
        return self.hidden if name == "hidden" else self.attention

    def _require(self, name: str) -> None:
        if name in self.lacking:
            others = f"it offers {listing(self.offered)}; " if self.offered else ""
            raise SourceFault(
                "B304",
                f"{self.name} has no `{name}`: {self.lacking[name]}",
                help=f'{others}any module can be tapped by its path: `tap t = model @ "path"`',
            )

    def _no_head(self, message: str) -> SourceFault:
        if not self.heads:
            return SourceFault("B304", message, help="leave it out: the model is one with a single head, or none")
        return SourceFault("B304", message, help=f"say which: it has the heads {listing(self.heads)}")

    def _children(self, prefix: str) -> list[str]:
        depth = prefix.count(".") + 1 if prefix else 0
        below = [path for path in self.modules if not prefix or path.startswith(prefix + ".")]
        return [path.split(".")[depth] for path in below if path.count(".") == depth]

    def _container(self, path: str) -> SourceFault:
        member = next(iter(self._children(path)), "0")
        return SourceFault(
            "B302",
            f"`{path}` is a container that is never called, so it has no output",
            help=f'tap one of its members: "{path}.{member}", or all of them: "{path}.*"',
        )

    def _missing(self, path: str) -> SourceFault:
        short = [full.removeprefix(self.base + ".") for full in self.modules] if self.base else []
        base = self.base if not path.startswith(self.base + ".") else ""
        longest = base
        for segment in path.split("."):
            further = f"{longest}.{segment}" if longest else segment
            if further not in self.modules:
                break
            longest = further
        children = self._children(longest)
        if children and all(child.isdigit() for child in children):
            inside = f"`{children[0]}` to `{children[-1]}`"
        else:
            inside = listing(children) or "no modules"
        inside = f"{f'`{longest}`' if longest else 'the model'} holds {inside}"
        near = suggest(path, [*short, *self.modules])
        return SourceFault("B301", f"{self.name} has no module `{path}`", help=f"{near} {inside}" if near else inside)


def _matches(path: list[str], pattern: list[str]) -> bool:
    return len(path) == len(pattern) and all(map(fnmatchcase, path, pattern))


@dataclass
class _Rows:
    """What was found about a model's rows, and why the others are missing."""

    hidden: tuple[Site, ...] = ()
    attention: tuple[Site, ...] = ()
    layers: tuple[str, ...] = ()
    backend: bool = False
    stacks: tuple[str, ...] = ()
    lacking: dict[str, str] = field(default_factory=dict)

    def missing(self, kind: str) -> _Rows:
        """Note the reason for each row that is empty."""
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
        found = (list(_recorded(s, names[id(s)], "", "hidden_states", _specs(s, "hidden_states"))) for s in stacks)
        patterns = tuple(f"{layers[0][0].rpartition('.')[0]}.*" for layers in found if layers)
        return _Rows(stacks=patterns, lacking=dict.fromkeys(ROWS, reason))
    if not stacks:
        return _returned(cast(PreTrainedModel, model.base_model), names[id(model.base_model)])
    stack = stacks[0]
    path = names[id(stack)]
    layers = list(_recorded(stack, path, "", "hidden_states", _specs(stack, "hidden_states")))
    attentions = list(_recorded(stack, path, "", "attentions", _specs(stack, "attentions")))
    if not layers:
        return _Rows().missing("records")
    first = layers[0][1]
    in_one_list = len({found.rpartition(".")[0] for found, _ in layers}) == 1
    if not in_one_list or len(layers) != getattr(stack.config, first.num_hidden_layers_key, None):
        # Layers that are shared (ALBERT) or grouped: only running them tells how often and in which order.
        order = _call_order(stack, path, {found for found, _ in layers + attentions})
        layers = [(found, spec) for found in order for known, spec in layers if known == found]
        attentions = [(found, spec) for found in order for known, spec in attentions if known == found]
    hidden = tuple(Site("recorded", found, item=spec.index, call=call) for found, spec, call in _counted(layers))
    if first.capture_initial_hidden_state:
        hidden = (Site("input", hidden[0].path), *hidden)
    if _ties_last(stack):
        hidden = (*hidden[:-1], Site("field", path, "last_hidden_state"))
    backend = bool(stack._supports_attention_backend)
    kind: Literal["attention", "recorded"] = "attention" if backend else "recorded"
    attention = tuple(Site(kind, found, item=spec.index, call=call) for found, spec, call in _counted(attentions))
    return _Rows(hidden, attention, tuple(dict.fromkeys(found for found, _ in layers)), backend).missing("records")


def _returned(base: PreTrainedModel, path: str) -> _Rows:
    """Rows of a model whose class records nothing but which returns them when asked (DeBERTa-v2, XLNet)."""
    accepted = inspect.signature(base.forward).parameters
    count = getattr(base.config, "num_hidden_layers", None)
    if count is None or base.config.is_encoder_decoder:
        return _Rows(lacking=dict.fromkeys(ROWS, "its class does not record what its layers give"))
    rows = _Rows()
    if "output_hidden_states" in accepted:
        rows.hidden = tuple(Site("field", path, "hidden_states", item=i) for i in range(count + 1))
    if "output_attentions" in accepted:
        rows.attention = tuple(Site("field", path, "attentions", item=i) for i in range(count))
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
    function: Any = type(model).forward
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
    """What a model class records under `key`, in one form (transformers allows a class, a name, or a recorder)."""
    found: Any = (model.can_record_outputs or {}).get(key, [])
    default = 0 if key == "hidden_states" else 1
    return [
        spec
        if isinstance(spec, OutputRecorder)
        else OutputRecorder(
            target_class=cast(Any, None if isinstance(spec, str) else spec),
            index=default,
            class_name=spec if isinstance(spec, str) else None,
        )
        for spec in (found if isinstance(found, list) else [found])
    ]


def _recorded(
    module: nn.Module, path: str, name: str, key: str, specs: list[OutputRecorder]
) -> Iterator[tuple[str, OutputRecorder]]:
    """The modules that transformers would record, in the order in which it installs its own hooks."""
    for child_name, child in module.named_children():
        below = _specs(child, key) if isinstance(child, PreTrainedModel) else specs
        full = f"{path}.{child_name}" if path else child_name
        yield from _recorded(child, full, f"{name}.{child_name}", key, below)
    for spec in specs:
        by_class = spec.target_class is not None and isinstance(module, spec.target_class)
        by_name = spec.class_name is not None and name.endswith(spec.class_name)
        if (by_class or by_name) and (spec.layer_name is None or f".{spec.layer_name.strip('.')}." in f"{name}."):
            yield path, spec


def _counted(found: list[tuple[str, OutputRecorder]]) -> Iterator[tuple[str, OutputRecorder, int]]:
    """Number the calls of each module from 0."""
    calls: dict[str, int] = {}
    for path, spec in found:
        calls[path] = calls.get(path, -1) + 1
        yield path, spec, calls[path]


def _call_order(stack: PreTrainedModel, path: str, wanted: set[str]) -> list[str]:
    """The order in which a stack calls modules of itself, found by one forward on the meta device."""
    order: list[str] = []
    prefix = f"{path}." if path else ""
    hooks = [
        stack.get_submodule(full.removeprefix(prefix)).register_forward_hook(
            lambda module, args, output, full=full: order.append(full)
        )
        for full in wanted
    ]
    empty = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in chain(stack.named_parameters(), stack.named_buffers())
    }
    try:
        with torch.no_grad():
            functional_call(stack, empty, (torch.zeros(1, 2, dtype=torch.long, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
    return order
