"""Layers that run again in the backward pass, so that a forward keeps only what enters each of them.

Chen et al. 2016, "Training deep nets with sublinear memory cost", arXiv:1604.06174. transformers' own checkpointing
runs the layers through torch's, which restores random numbers and autocast; what else surrounded the first run (packed
tokens, kernels) is entered again here, so that both runs compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.heads import trunk_of

T = TypeVar("T")

_inside: list[Callable[[], AbstractContextManager[Any]]] = []
"""What surrounds the forward that runs now, the outermost first."""


@contextmanager
def entered_again(enter: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Enter a context, and enter it anew for each layer of this block that runs again."""
    with enter() as value:
        _inside.append(enter)
        try:
            yield value
        finally:
            _inside.pop()


def both_runs() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The `context_fn` of torch's checkpointing: nothing more around the first run, all that surrounds it around the
    second.
    """
    return nullcontext(), _Everything(tuple(_inside))


class _Everything(AbstractContextManager[None]):
    """Contexts that are entered anew for each second run: there are several where a graph is kept for more than one
    backward pass.
    """

    def __init__(self, contexts: tuple[Callable[[], AbstractContextManager[Any]], ...]):
        self._contexts, self._stack = contexts, ExitStack()

    def __enter__(self) -> None:
        for context in self._contexts:
            self._stack.enter_context(context())

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


def recompute_layers(model: nn.Module) -> Callable[[], None]:
    """Make the layers of a model in training mode run again in the backward pass; returns the function that ends it.

    Losses and gradients stay the same. A model that recomputes already stays as it is. Raises RunError for one that
    cannot.
    """
    trunk = trunk_of(model)
    if is_recomputed(trunk):
        return lambda: None
    if not isinstance(trunk, PreTrainedModel) or not trunk.supports_gradient_checkpointing:
        raise RunError(
            f"{type(trunk).__name__} does not support `gradient_checkpointing`: remove it; a smaller `batch` with "
            "`accumulate = 4` needs less memory, too"
        )
    config, cached = trunk.config, getattr(trunk.config, "use_cache", None)
    # older transformers speak of gradient checkpointing
    enable = getattr(trunk, "activation_checkpointing_enable", None) or trunk.gradient_checkpointing_enable
    disable = getattr(trunk, "activation_checkpointing_disable", None) or trunk.gradient_checkpointing_disable
    enable({"use_reentrant": False, "context_fn": both_runs})
    trunk.disable_input_require_grads()  # only reentrant checkpointing needs it; frozen layers stay without a graph
    if cached:
        config.use_cache = False  # a cache of keys and values would be filled twice

    def end() -> None:
        disable()
        if cached:
            config.use_cache = cached

    return end


def is_recomputed(model: nn.Module) -> bool:
    """Whether layers of a model run again in training."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def recomputes_otherwise(module: nn.Module) -> bool:
    """Whether a module runs again without what surrounded its first run, as after a call of transformers' own."""
    if not getattr(module, "gradient_checkpointing", False):
        return False
    run = getattr(module, "_gradient_checkpointing_func", None)
    return getattr(run, "keywords", {}).get("context_fn") is not both_runs
