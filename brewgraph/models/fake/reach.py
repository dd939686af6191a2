"""What a forward needs for some of its features: layers that run, parameters that are reached, modules that are left.

A model is asked by running it on fake tensors, which takes no memory; nothing here knows an architecture by name.
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
from transformers import PreTrainedModel

from brewgraph.models.capture.capture import Capture
from brewgraph.models.fake.sentence_ends import OneEndEach
from brewgraph.models.fake.shapes import Shapes, fake_mode
from brewgraph.models.heads import HeadedModel, input_names, trunk_of
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.structure.trace_outputs import FLAGS
from brewgraph.recipe.features import Feature

Features = frozenset[Feature]


@dataclass(frozen=True)
class Depth:
    """How many of a model's layers run for some features: `run` of `present`."""

    run: int
    present: int


class Reach:
    """What one model needs for features. Its methods give None where it cannot be found out; each runs the model once.

    The model is left as it was: its hooks, its mode, the random generators.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy | None = None):
        self.model, self._anatomy = model, anatomy
        self._names: dict[Feature, frozenset[str]] = {}
        self._runs: dict[Features, _Run | None] = {}

    @property
    def anatomy(self) -> Anatomy:
        """The model's anatomy, read when it is first asked for."""
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
    def names(self) -> frozenset[str]:
        """The names of all parameters."""
        return frozenset(name for name, _ in self.model.named_parameters())

    def depth(self, features: Collection[Feature]) -> Depth | None:
        """The layers that run until these features are there; those of all stacks, where there are several."""
        layers = layers_of(self.anatomy)
        present = len(layers) or len(self.anatomy.attention)
        own = [_layer(self.anatomy, feature) for feature in features]
        if present and own and None not in own and len(self.anatomy.hidden) == present + 1:
            return Depth(max(x for x in own if x is not None), present)
        found = self._run(frozenset(features))
        if found is None or not layers:
            return None
        calls = [found.calls.get(path, 0) for path in layers]
        return Depth(sum(calls), max(present, len(self.anatomy.hidden) - 1))

    def late(self, features: Collection[Feature]) -> tuple[Feature, ...]:
        """Those for whose sake alone all layers run: the model returns them, and no module gives them."""
        sites = {feature: self.anatomy.site(feature) for feature in features}
        if any(site.kind == "result" for site in sites.values()):
            return ()
        return tuple(feature for feature, site in sites.items() if site.field in FLAGS)

    def parameters(self, features: Collection[Feature]) -> frozenset[str] | None:
        """The names of the parameters that gradients of these features reach."""
        if any(feature not in self._names for feature in features):
            found = self._run(frozenset(features) | frozenset(self._names), gradients=True)
            if found is None:
                return None
            self._names |= found.names
        return frozenset[str]().union(*(self._names[feature] for feature in features))

    def dead_modules(self, features: Collection[Feature]) -> tuple[str, ...]:
        """The paths of modules with weights that these features have no need of, the outermost ones, in their order.

        They are neither called nor reached, and a forward without them gives the features all the same. A layer stays
        whole or goes as a whole; of one that only has its input taken the shell stays. None are found where the model
        itself returns one of the features.
        """
        found = self._run(frozenset(features), gradients=True)
        if found is None or not found.stopped:
            return ()
        live = {name.rpartition(".")[0] for names in found.names.values() for name in names} | set(found.calls)
        sites = [self.anatomy.site(feature) for feature in features]
        live |= {site.path for site in sites}
        shells = {site.path for site in sites if site.kind == "input"} - found.calls.keys()
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
        known = self._runs.get(features)
        if known is None or (gradients and not known.gradients):
            try:
                known = _run(self.model, self.anatomy, features, gradients)
            except Exception:  # whatever a model's own code may raise: then nothing is known of it
                known = None
            self._runs[features] = known
        return known


def _with_outer(paths: Collection[str]) -> set[str]:
    """Paths, and those of the modules around them."""
    return {*paths, *(path[:at] for path in paths for at, sign in enumerate(path) if sign == ".")}


_known: WeakKeyDictionary[Shapes, Reach] = WeakKeyDictionary()


def reach_of(shapes: Shapes) -> Reach:
    """The reach of a model that is not built yet; models that share their shapes share it, too."""
    if shapes not in _known:
        _known[shapes] = Reach(shapes.model, shapes.anatomy)
    return _known[shapes]


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
        own = {id(parameter): name for name, parameter in model.named_parameters()}
        names = {feature: frozenset(_reached(value, own)) for feature, value in values.items()} if gradients else {}
    return _Run(calls, bool(until), gradients, names)


def _inputs(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """All that a tokenizer may give, as some weights are only there for some of it: XLNet's of token types."""
    named = input_names(model)
    names = [x for x in ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids") if x in named]
    return dict.fromkeys(names or ["input_ids"], torch.ones(2, 5, dtype=torch.long, device=device))


def _counting(path: str, calls: dict[str, int]) -> Any:
    def count(module: nn.Module, args: Any) -> None:
        calls[path] = calls.get(path, 0) + 1

    return count


def _reached(value: Tensor, own: dict[int, str]) -> Iterator[str]:
    """The parameters behind a value, by walking what autograd has noted."""
    seen: set[Any] = set()
    waiting = [value.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (name := own.get(id(getattr(step, "variable", None)))) is not None:
            yield name
        waiting += [after for after, _ in step.next_functions]


def remove_modules(model: nn.Module, paths: Collection[str]) -> Callable[[], None]:
    """Take modules out of a model; returns what puts them back. A list keeps its other members, a module has None."""
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
    """How many layers have run when a feature is there, for a model whose layers run once each; None: not known."""
    site = anatomy.site(feature)
    paths = anatomy.layer_paths
    if site.kind == "result":
        return len(paths)
    for i, path in enumerate(paths):
        if site.path == path or site.path.startswith(f"{path}."):
            return i if site.kind == "input" and site.path == path else i + 1
    return None


def may_draw(model: nn.Module) -> bool:
    """Whether a forward in training mode may draw random numbers: dropout anywhere, or code that nobody knows."""
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
    """Whether a forward of a model may be cut short from inside: not where it is compiled, or recomputed backwards."""
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
