"""The reach of features: the layers that a forward runs for them, the parameters behind them, the modules left over.

A model runs on fake tensors, which take no memory; nothing here knows an architecture by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from transformers import PreTrainedModel

from brewgraph.models.capture.capture import Capture
from brewgraph.models.fake.sentence_ends import OneEndEach
from brewgraph.models.fake.shapes import Shapes, fake_mode
from brewgraph.models.heads import HeadedModel, input_names, trunk_of
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import FLAGS, dissect
from brewgraph.recipe.features import Feature

Features = frozenset[Feature]


@dataclass(frozen=True)
class Depth:
    """How many of a model's layers run for some features: `run` of `present`."""

    run: int
    present: int


class Reach:
    """The parts of one model that features need. Its methods give None if that is unknown; each runs the model once.

    Hooks, mode and the random generators are restored.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy | None = None):
        self.model, self._anatomy = model, anatomy
        self._names: dict[Feature, frozenset[str]] = {}
        self._runs: dict[Features, _Run | None] = {}

    @property
    def anatomy(self) -> Anatomy:
        """The model's anatomy, read on first use."""
        if self._anatomy is None:
            self._anatomy = dissect(self.model)
        return self._anatomy

    @property
    def draws(self) -> bool:
        """Whether a forward in training mode may draw random numbers."""
        return may_draw(self.model)

    @property
    def attention_layers(self) -> int:
        """How many layers with attention there are."""
        return len(self.anatomy.attention)

    @property
    def padded_because(self) -> str:
        """Why its layers cannot run on packed tokens; empty where they may."""
        return self.anatomy.padded_because

    @property
    def names(self) -> frozenset[str]:
        """The names of all parameters."""
        return frozenset(name for name, _ in self.model.named_parameters())

    def depth(self, features: Collection[Feature]) -> Depth | None:
        """The layers that run before these features are available, over all stacks."""
        layers = layers_of(self.anatomy)
        present = len(layers) or len(self.anatomy.attention)
        depths = [_layer(self.anatomy, feature) for feature in features]
        if present and depths and None not in depths and len(self.anatomy.hidden) == present + 1:
            return Depth(max(depth for depth in depths if depth is not None), present)
        run = self._run(frozenset(features))
        if run is None or not layers:
            return None
        calls = [run.calls.get(path, 0) for path in layers]
        return Depth(sum(calls), max(present, len(self.anatomy.hidden) - 1))

    def late(self, features: Collection[Feature]) -> tuple[Feature, ...]:
        """The features that make all layers run: the model returns them, and no module gives them."""
        sites = {feature: self.anatomy.site(feature) for feature in features}
        if any(site.kind == "result" for site in sites.values()):
            return ()
        return tuple(feature for feature, site in sites.items() if site.field in FLAGS)

    def parameters(self, features: Collection[Feature]) -> frozenset[str] | None:
        """The names of the parameters that gradients of these features reach."""
        if any(feature not in self._names for feature in features):
            run = self._run(frozenset(features) | frozenset(self._names), gradients=True)
            if run is None:
                return None
            self._names |= run.names
        return frozenset[str]().union(*(self._names[feature] for feature in features))

    def dead_modules(self, features: Collection[Feature]) -> tuple[str, ...]:
        """The paths of the outermost modules with weights that these features do not need, in order.

        They are neither called nor reached, and a forward without them gives the same features. A layer stays or goes
        as a whole; a layer of which only the input is taken stays as a shell. Empty if the model itself returns one of
        the features.
        """
        run = self._run(frozenset(features), gradients=True)
        if run is None or not run.stopped:
            return ()
        live = {name.rpartition(".")[0] for names in run.names.values() for name in names} | set(run.calls)
        sites = [self.anatomy.site(feature) for feature in features]
        live |= {site.path for site in sites}
        shells = {site.path for site in sites if site.kind == "input"} - run.calls.keys()
        live, shells = _with_outer(live), _with_outer(shells)
        dead: list[str] = []
        whole: list[str] = []
        for path, module in self.model.named_modules():
            inside = any(path.startswith(f"{other}.") for other in whole)
            if isinstance(module, nn.ModuleList):
                whole += [member for name in module._modules if (member := f"{path}.{name}") not in shells]
            if path and path not in live and not inside and next(module.parameters(), None) is not None:
                dead.append(path)
                whole.append(path)
        give_back = remove_modules(self.model, dead)
        try:
            left = _run(self.model, self.anatomy, frozenset(features), gradients=False)
        except Exception:  # code that reads a module's weights without calling it
            left = None
        finally:
            give_back()
        return tuple(dead) if left is not None else ()

    def _run(self, features: Features, *, gradients: bool = False) -> _Run | None:
        run = self._runs.get(features)
        if run is None or (gradients and not run.gradients):
            try:
                run = _run(self.model, self.anatomy, features, gradients)
            except Exception:  # whatever a model's own code may raise
                run = None
            self._runs[features] = run
        return run


def _with_outer(paths: Collection[str]) -> set[str]:
    """Paths with those of the modules around them."""
    return {*paths, *(path[:at] for path in paths for at, sign in enumerate(path) if sign == ".")}


_reaches: WeakKeyDictionary[Shapes, Reach] = WeakKeyDictionary()


def reach_of(shapes: Shapes) -> Reach:
    """The reach of a model that is not built yet; models that share their shapes share it, too."""
    if shapes not in _reaches:
        _reaches[shapes] = Reach(shapes.model, shapes.anatomy)
    return _reaches[shapes]


@dataclass(frozen=True)
class _Run:
    """One forward: how often each module was called, whether it ended early, and what each feature reaches."""

    calls: dict[str, int]
    stopped: bool
    gradients: bool
    names: dict[Feature, frozenset[str]]


def _run(model: nn.Module, anatomy: Anatomy, features: Features, gradients: bool) -> _Run | None:
    if not isinstance(trunk_of(model), PreTrainedModel):
        return None
    tensors = [*model.parameters(), *model.buffers()]
    calls: dict[str, int] = {}
    with ExitStack() as stack:
        capture = Capture(model, features, anatomy)
        stack.callback(capture.remove)
        stack.enter_context(evaluating(model))
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(_counting(path, calls)).remove)
        stack.enter_context(fake_mode(model))
        stack.enter_context(OneEndEach(trunk_of(model)))
        stack.enter_context(torch.set_grad_enabled(gradients))
        until = features if capture.can_stop(features) else ()
        output: Any = None
        with capture.armed(until):
            output = model(**_inputs(model, tensors[0].device))
        values = capture.collect(output)
        ids = {id(parameter): name for name, parameter in model.named_parameters()}
        names = {feature: frozenset(_reached(value, ids)) for feature, value in values.items()} if gradients else {}
    return _Run(calls, bool(until), gradients, names)


def _inputs(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """All inputs that a tokenizer may give, as some have weights of their own: XLNet's token types."""
    accepted = input_names(model)
    names = [x for x in ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids") if x in accepted]
    return dict.fromkeys(names or ["input_ids"], torch.ones(2, 5, dtype=torch.long, device=device))


def _counting(path: str, calls: dict[str, int]) -> Callable[..., None]:
    def count(module: nn.Module, args: object) -> None:
        calls[path] = calls.get(path, 0) + 1

    return count


def _reached(value: Tensor, names: dict[int, str]) -> Iterator[str]:
    """The names of the parameters behind a value in the autograd graph; `names` are those of all, by id."""
    seen: set[Node] = set()
    waiting = [value.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (name := names.get(id(getattr(step, "variable", None)))) is not None:
            yield name
        waiting += [after for after, _ in step.next_functions]


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


def layers_of(anatomy: Anatomy) -> tuple[str, ...]:
    """The paths of a model's layers; of an encoder-decoder those of both stacks."""
    return anatomy.layer_paths or tuple(chain.from_iterable(map(anatomy.paths, anatomy.stacks)))


def _layer(anatomy: Anatomy, feature: Feature) -> int | None:
    """How many layers run before a feature is available, if each layer runs once; None: unknown."""
    site = anatomy.site(feature)
    paths = anatomy.layer_paths
    if site.kind == "result":
        return len(paths)
    for i, path in enumerate(paths):
        if site.path == path or site.path.startswith(f"{path}."):
            return i if site.kind == "input" and site.path == path else i + 1
    return None


def may_draw(model: nn.Module) -> bool:
    """Whether a forward in training mode may draw random numbers: any dropout, or code outside transformers."""
    trunk = trunk_of(model)
    if not isinstance(trunk, PreTrainedModel):
        return True
    parts = model.heads.values() if isinstance(model, HeadedModel) else [trunk]
    rates = [rate for part in parts for name, rate in vars(part.config).items() if "drop" in name]
    rates += [
        getattr(module, "p", 0.0) for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)
    ]
    return any(isinstance(rate, float | int) and rate > 0 for rate in rates)


def can_end_early(model: nn.Module) -> bool:
    """Whether a hook may end a forward early: not if the model is compiled, or recomputed in the backward pass."""
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
