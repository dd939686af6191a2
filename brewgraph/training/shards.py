"""Student, projections and teachers sharded over ranks: PyTorch's FSDP2, as `accelerate launch` is told to use it.

Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277. Each rank holds 1/n of every parameter, gradient and running mean.
A layer gathers its parameters before it runs and frees them afterwards; gradients are averaged over ranks, as DDP does.
Everything that is in no layer (embeddings, heads, projections) is one group, whole from the beginning of the step to
the end of its backward pass, because losses read the weights of the last linear layer outside of its forward.

accelerate's own FSDP does nothing on a CPU, so `fully_shard` is called here, on every device alike.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError, listing
from brewgraph.models.heads import trunk_of
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.settings.train import Train
from brewgraph.runtime.distiller import Distiller

_TORCH = "2.13"
"""The version of torch by which sharded modules are made plain here."""
_REFUSED = {
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "false; shards stay on the GPU"),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "fsdp_activation_checkpointing",
        "false, and `train { gradient_checkpointing = true }` in the spec",
    ),
}
"""Flags of `fsdp_config` that are not supported: their names there, and what to write instead."""


@dataclass(frozen=True)
class Sharding:
    """What `fsdp_config` of accelerate's configuration asks for.

    With `reshard_after_forward` a layer frees its parameters between forward and backward. `layers` are names of the
    classes that are groups of their own; by default the layers of the model. Without `by_layer` all is one group.
    """

    reshard_after_forward: bool = True
    by_layer: bool = True
    layers: tuple[str, ...] = ()


def sharding(world: int) -> Sharding | None:
    """How to shard over `world` ranks; None where accelerate was not told to, or there is one rank. Raises `RunError`
    for what is not supported.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP") or world == 1:
        return None
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise RunError(f"FSDP version {version} is not supported: set `fsdp_version: 2` in fsdp_config")
    for name, (field, instead) in _REFUSED.items():
        if parse_flag_from_env(name):
            raise RunError(f"`{field}: true` is not supported: set it to {instead}")
    if ignored := os.environ.get("FSDP_IGNORED_MODULES"):
        raise RunError(f"`fsdp_ignored_modules: {ignored}` is not supported: remove it from fsdp_config")
    for name, size in os.environ.items():
        if name.startswith("PARALLELISM_CONFIG_") and name.endswith("_SIZE") and size not in ("", "1", str(world)):
            field = name.removeprefix("PARALLELISM_CONFIG_").lower()
            raise RunError(f"`parallelism_config_{field}: {size}` is not supported: remove `parallelism_config`")
    policy = os.environ.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper()
    if policy not in ("TRANSFORMER_BASED_WRAP", "NO_WRAP"):
        raise RunError(
            f"`fsdp_auto_wrap_policy: {policy}` is not supported: set it to TRANSFORMER_BASED_WRAP, to shard by layer"
        )
    classes = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    return Sharding(
        os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "1", "full_shard"),
        policy == "TRANSFORMER_BASED_WRAP",
        tuple(filter(None, (name.strip() for name in classes.split(",")))),
    )


@lru_cache(maxsize=1)
def _mesh(device: str, world: int) -> DeviceMesh:
    return init_device_mesh(device, (world,))


# ── a module that is sharded ─────────────────────────────────────────────────────────────────────────────────────────


class _Part:
    """A module with `fully_shard` applied. `take_off` makes it plain again, `put_on` undoes that.

    PyTorch has no public names for this. Those inside of it are looked up here, all of them before any is used;
    `RunError` for a torch that has others.
    """

    def __init__(self, module: nn.Module):
        self.module, self.sharded_class = module, type(module)
        self._kept: dict[str, Any] = {}
        try:
            contract = import_module("torch.distributed._composable.contract")
            self._keys = contract.STATE_KEY, contract.REGISTRY_KEY
            self._states = import_module("torch.distributed._composable_state")._module_state_mapping
            self.state: Any = module._get_fsdp_state()  # type: ignore[operator]
            self.before, self.after = self.state._pre_forward_hook_handle.id, self.state._post_forward_hook_handle.id
            self._hooks = self.state._pre_forward, self.state._post_forward
            self._handles()
        except (ImportError, AttributeError) as error:
            raise RunError(
                f"cannot shard over ranks with torch {torch.__version__}: {error}; "
                f"install torch {_TORCH}, or launch without `fsdp_config`"
            ) from error

    def _handles(self) -> list[Any]:
        """The handles of the hooks by which a sharded module is saved and loaded."""
        if (group := self.state._fsdp_param_group) is None:
            return []
        return [
            *(parameter._post_load_hook_handle for parameter in group.fsdp_params),
            *group._module_to_pre_save_state_dict_hook_handle.values(),
            *group._module_to_pre_load_state_dict_hook_handle.values(),
        ]

    def take_off(self) -> None:
        module = self.module
        module.__class__ = self.sharded_class.__mro__[2]  # after its own class and FSDPModule
        module._forward_pre_hooks.pop(self.before)
        module._forward_pre_hooks_with_kwargs.pop(self.before)
        module._forward_hooks.pop(self.after)
        self._kept = {key: vars(module).pop(key) for key in self._keys}
        del self._states[module]
        for handle in self._handles():  # only plain modules are saved and loaded
            handle.remove()

    def put_on(self) -> None:
        module = self.module
        module.__class__ = self.sharded_class
        module._forward_pre_hooks[self.before] = self._hooks[0]
        module._forward_pre_hooks_with_kwargs[self.before] = True
        module._forward_pre_hooks.move_to_end(self.before, last=False)  # type: ignore[attr-defined]
        module._forward_hooks[self.after] = self._hooks[1]
        vars(module).update(self._kept)
        self._states[module] = weakref.ref(self.state)


class ShardedModule:
    """A module whose parameters are sharded in place, its `layers` each as a group of their own.

    The module's own parameters are kept without memory, and get their values back in `whole` and by `end`.
    """

    def __init__(self, root: nn.Module, layers: Sequence[nn.Module], mesh: DeviceMesh, **options: bool | None):
        self.root = root
        self._owners = [(m, name, p) for m in root.modules() for name, p in m._parameters.items() if p is not None]
        self._devices = [p.device for _, _, p in self._owners]
        by_layer, by_root = options["by_layer"], options["by_root"]
        for layer in reversed(_separable(root, layers)):  # the inner of two before the outer
            own = list(layer.parameters())
            fully_shard(layer, mesh=mesh, reshard_after_forward=by_layer)
            _free(own)  # at once: the whole module need not fit on the device
        fully_shard(root, mesh=mesh, reshard_after_forward=by_root)
        self._parts = [_Part(m) for m in root.modules() if isinstance(m, FSDPModule)]
        for module in root.modules():  # marks for a compiler, and for transformers' own sharding
            for mark in ("_is_fsdp_managed_module", "_fsdp_use_orig_params"):
                vars(module).pop(mark, None)
        _free(p for _, _, p in self._owners)

    def reset(self) -> None:
        """Shard what a forward left whole."""
        for part in self._parts:
            part.module.reshard()  # type: ignore[operator]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The plain module with whole parameters within the context, which all ranks enter together."""
        sharded = self._gather(to_devices=False)
        self._take_off()
        try:
            yield
        finally:
            for (module, name, _), parameter in zip(self._owners, sharded, strict=True):
                module._parameters[name] = parameter
            for part in self._parts:
                part.put_on()
            _free(p for _, _, p in self._owners)

    def end(self) -> None:
        """Make the module plain again, with whole parameters on the devices where they were."""
        self._gather(to_devices=True)
        self._take_off()

    def _take_off(self) -> None:
        for part in self._parts:
            part.take_off()

    @torch.no_grad()
    def _gather(self, *, to_devices: bool) -> list[Any]:
        """Put whole parameters into the module; the sharded ones are returned."""
        self.reset()
        sharded = [module._parameters[name] for module, name, _ in self._owners]
        values: dict[int, Tensor] = {}  # tied parameters once
        for (module, name, own), device, parameter in zip(self._owners, self._devices, sharded, strict=True):
            assert isinstance(parameter, DTensor)
            if id(parameter) not in values:
                full = parameter.full_tensor()
                values[id(parameter)] = full.to(device) if to_devices else full
                own.data = values[id(parameter)]
            module._parameters[name] = own
        return sharded


def _free(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.new_empty(0)


def _separable(root: nn.Module, layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers, each once, that share no parameter with anything outside of them."""
    everywhere = _uses(root)
    return [
        layer
        for layer in dict.fromkeys(layers)
        if (own := _uses(layer)) and all(everywhere[key] == n for key, n in own.items())
    ]


def _uses(module: nn.Module) -> Counter[int]:
    """In how many places of a module each parameter is."""
    return Counter(id(p) for m in module.modules() for p in m._parameters.values() if p is not None)


def _layers(model: nn.Module, how: Sharding, *, strict: bool) -> list[nn.Module]:
    """The layers of a model that are groups of their own. Raises `RunError` if `strict` and no class has the name."""
    if not how.by_layer:
        return []
    if how.layers:
        chosen = [module for module in model.modules() if type(module).__name__ in how.layers]
        if chosen:
            return chosen
        if strict:
            raise RunError(
                f"fsdp_transformer_layer_cls_to_wrap: the student has no {listing(how.layers)}; "
                f"its layers are {listing(sorted({type(m).__name__ for m in _known_layers(model)})) or 'not known'}"
            )
    return _known_layers(model)


def _known_layers(model: nn.Module) -> list[nn.Module]:
    if not isinstance(trunk_of(model), PreTrainedModel):
        return []
    present = dict(model.named_modules())
    return [present[path] for path in dissect(model).every_layer if path in present]


# ── what a stage shards ──────────────────────────────────────────────────────────────────────────────────────────────


class Shards:
    """The sharded modules of one stage: frozen teachers if the settings say so, then student and projections, and the
    averages of the student.

    Raises `RunError` for what cannot be sharded.
    """

    def __init__(self, how: Sharding, distiller: Distiller, settings: Train, device: torch.device, world: int):
        for fault in _faults(distiller, settings):
            raise RunError(f"cannot shard over ranks: {fault}")
        self.how, self.distiller, self.world = how, distiller, world
        self.mesh = _mesh(device.type, world)
        self.stay_whole: tuple[str, ...] = ()
        self._main: ShardedModule | None = None
        self._beside: list[ShardedModule] = []
        if settings.shard_teachers:
            movable, self.stay_whole = distiller.shardable_teachers()
            for teacher in movable:
                self._shard_beside(teacher)

    def _shard_beside(self, model: nn.Module) -> None:
        # without a backward pass to free them, layers free their parameters after each forward
        layers = _layers(model, self.how, strict=False)
        self._beside.append(ShardedModule(model, layers, self.mesh, by_layer=True, by_root=False))

    def shard(self, wrapped: nn.Module) -> None:
        """Shard the module around the distiller, and the averages of the student."""
        # packed layers return views, and nothing changes them in place
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        layers = _layers(self.distiller.student, self.how, strict=True)
        reshard = self.how.reshard_after_forward
        self._main = ShardedModule(wrapped, layers, self.mesh, by_layer=reshard, by_root=False)
        for average in self.distiller.averages:
            self._shard_beside(average)
        self.distiller.forget_parameters()

    @property
    def note(self) -> str:
        """What is sharded, in one line."""
        frozen = len(self._beside) - len(self.distiller.averages)
        parts = ["student", "projections", *(["averages"] if self.distiller.averages else [])]
        parts += ["teachers"] if frozen else []
        rest = (
            f"; not {listing(self.stay_whole)}: on a device of its own, quantized, or with a parameter without an axis"
        )
        over = f"{self.world} ranks ({self.mesh.device_type})"
        return f"FSDP2: {', '.join(parts)} are sharded over {over}{rest if self.stay_whole else ''}"

    @property
    def in_step(self) -> bool:
        """Whether ranks must run as many forwards as each other when they evaluate."""
        return bool(self._beside)

    def synchronise(self, last: bool) -> None:
        """Before the forward of a micro-batch: whether ranks exchange gradients after it."""
        assert self._main is not None
        root: Any = self._main.root
        root.set_requires_gradient_sync(last)
        root.set_is_last_backward(last)

    def free(self) -> None:
        """After a backward pass: shard what forwards of teachers left whole for it, as the last linear layer."""
        for module in self._beside:
            module.reset()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Student and projections as plain modules within the context, which all ranks enter together."""
        assert self._main is not None
        with self._main.whole():
            self.distiller.forget_parameters()
            yield
        self.free()
        self.distiller.forget_parameters()

    def end(self) -> None:
        """Make everything plain again; done once."""
        for module in filter(None, (self._main, *self._beside)):
            module.end()
        self._main, self._beside = None, []
        self.distiller.forget_parameters()


def _faults(distiller: Distiller, settings: Train) -> Iterator[str]:
    """Why a stage cannot be sharded, with the remedy."""
    plain = "or launch without FSDP (`distributed_type: MULTI_GPU`)"
    if settings.precision == "fp16":
        yield f"`precision = fp16` is not supported: use `precision = bf16`, {plain}"
    if settings.compile:
        yield f"`compile = true` is not supported: remove it, {plain}"
    if names := distiller.draws_reach():
        yield f"what a step reaches is drawn on each rank, since `{names[0]}` is set: set it to 0, {plain}"
    for name, parameter in distiller.named_parameters():
        if parameter.ndim == 0:
            yield f"`{name}` is a single number without an axis; {plain.removeprefix('or ')}"
        if not parameter.is_floating_point() or hasattr(parameter, "quant_state"):
            yield f"the student is quantized (`{name}`): remove `quantization`, {plain}"
    for name, module in distiller.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield f"`{name}` keeps running means, which each rank would have its own of: use another norm, {plain}"
    kinds = {p.dtype for p in distiller.parameters() if p.requires_grad}
    if len(kinds) > 1:
        formats = sorted(str(kind).removeprefix("torch.") for kind in kinds)
        yield f"trained parameters have several number formats ({listing(formats)}): give all one, {plain}"
    if settings.shard_teachers and distiller.cached():
        yield (
            "`shard_teachers = true` and `cache` do not go together, because a rank that finds a value does not run "
            "the teacher, for which the others wait; remove one of them"
        )


# ── states on disk ───────────────────────────────────────────────────────────────────────────────────────────────────


def gathered(state: Any, *, keep: bool) -> Any:
    """A nested state with whole tensors in place of sharded ones, on the CPU; None in place of them where a rank does
    not `keep` them. All ranks call it with the same state.
    """
    return _map_tensors(state, lambda x: _whole(x, keep=keep) if isinstance(x, DTensor) else x)


def _whole(x: DTensor, *, keep: bool) -> Tensor | None:
    full = x.full_tensor()
    return full.cpu() if keep else None


def _map_tensors(state: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _map_tensors(value, change) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_map_tensors(value, change) for value in state)
    return state


def scattered(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer as `gathered` gave it, each tensor sharded as its parameter is. Without sharded
    parameters it stays as it is.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def sharded(value: Any, parameter: nn.Parameter) -> Any:
        if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)

    of = {
        index: {name: sharded(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": of}
