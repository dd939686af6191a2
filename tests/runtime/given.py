"""The runtime on features that a test hands in: specs, graphs, masks and programs are real, the models are not.

`cases` writes a loss for whatever the registries hold, so that nobody has to think of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from brewgraph.cli.ops import example
from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import ALONE
from brewgraph.ops.registry import is_own
from brewgraph.recipe.features import Feature, Shape
from brewgraph.runtime.program import Program
from tests.graph.graphs import graph
from tests.recipe.specs import FakeFacts

torch.set_num_threads(1)

CLASSES = 4
HEAD = """\
teacher big = hf("big")
student tiny = hf(model_type="bert")
data docs = batches("folder", labels="{labels}")
"""


# ── models that give what they got ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Facts(FakeFacts):
    """Two layers of width 4 with two heads; classes per example or, where `per_token`, per token."""

    layers: int = 2
    width: int = 4
    per_token: bool = False

    def shape(self, feature: Feature) -> Shape:
        """Sizes small enough for finite differences."""
        if feature.name == "logits":
            return ("batch", "length", CLASSES) if self.per_token else ("batch", CLASSES)
        return {
            "start": ("batch", "length"),
            "end": ("batch", "length"),
            "attention": ("batch", 2, "length", "length"),
            "scores": ("batch", 2, "length", "length"),
            "query": ("batch", 2, "length", 2),
            "key": ("batch", 2, "length", 2),
            "value": ("batch", 2, "length", 2),
        }.get(feature.name) or super().shape(feature)


class Echo(nn.Module):
    """A model whose output is its encoding, in which the features lie."""

    def forward(self, **encoding: Tensor) -> dict[str, Tensor]:
        return encoding


class Given:
    """In place of a capture: features by their names."""

    def __init__(self, model: nn.Module, features: tuple[Feature, ...], *others: Any, **options: Any):
        self.features = features
        self.armed = nullcontext

    def can_stop(self, features: Any) -> bool:
        """They are all there at the end only."""
        return False

    def collect(self, output: dict[str, Tensor], features: Any = None) -> dict[Feature, Tensor]:
        """The features as they were handed in."""
        return {feature: output[f"given {feature}"] for feature in self.features}


# ── losses of whatever there is ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """A loss, the kind of its data's labels, and whether logits are per token. `about` is what it is a case of."""

    about: str
    loss: str
    labels: str = "class"
    per_token: bool = False

    def __str__(self) -> str:
        return f"{self.loss}{' per token' * self.per_token}"


COMPARED = {
    "attention": ("mse", "kl"), "scores": ("mse", "kl"), "probabilities": ("mse", "kl"), "places": ("kl",),
    "logits": ("mse", "kd"),
    "positions": ("kd",), "hidden": ("mse",), "vector": ("mse",),
}  # fmt: skip
"""Losses that look at what a transform gives, by its kind."""

OPTIONS = {
    "relation": ("heads=2",), "probabilities": ("T=2",), "mse": ("T=2",), "ce": ("T=2",), "kl": ("T=2",), "kd": ("T=2",),
    "bce": ("T=2",), "infonce": ("T=0.5",),
}  # fmt: skip
"""Options beside the defaults; a default of 0.05 makes second derivatives too large for finite differences."""

BUILT_IN = {
    "stop": ("mse(stop(big.hidden[0]) -> tiny.hidden[0])",),
    "words": ("mse(words(big.hidden[0]) -> words(tiny.hidden[0]))", "nst(words(big.hidden[0]) -> words(tiny.hidden[0]))",
              "pkd(words(big.hidden[0]) -> words(tiny.hidden[0]))",
              "kl(relation(words(big.hidden[0])) -> relation(words(tiny.hidden[0])))"),
    "token_mean": ("mse(token_mean(big.hidden[0]) -> token_mean(tiny.hidden[0]))",
                   "mse(token_mean(words(big.hidden[0])) -> token_mean(words(tiny.hidden[0])))",
                   'batch_mean(token_mean(mse(big.hidden[0] -> tiny.hidden[0], reduce="none")))'),
    "batch_mean": ('batch_mean(mse(big.hidden[0] -> tiny.hidden[0], reduce="none"))',
                   'batch_mean(kd(big.logits -> tiny.logits, reduce="none"))'),
}  # fmt: skip
"""Losses with the functions of one value that are built in."""


def own(registry: dict[str, Any]) -> list[Any]:
    """What this package declares, each once."""
    return [x for name, x in registry.items() if x.name == name and is_own(x.module)]


def operation_cases() -> Iterator[Case]:
    """Every operation on all that it takes, logits per example and per token, with its defaults and with options."""
    for operation in own(OPERATIONS):
        for (source, target), unit in operation.takes.items():
            sides = f"{example(source, 'big')} -> {example(target, 'tiny')}"
            for more in ("", *(f", {o}" for o in OPTIONS.get(operation.name, ()))):
                loss = f"{operation.name}({sides}{more})"
                if source == "targets":
                    yield Case(operation.name, loss, "classes")
                    continue
                if (source, target) == ("labels", "positions"):
                    yield Case(operation.name, loss.replace("docs.labels", "docs.start"), "spans")
                    continue
                yield Case(operation.name, loss)
                if unit == "position" or (source, target) == ("labels", "logits"):
                    yield Case(operation.name, loss, "tags", per_token=True)


def transform_cases() -> Iterator[Case]:
    """Every transform of all that it takes, inside losses."""
    for transform in own(TRANSFORMS):
        for kinds, result in transform.takes.items():
            for more in ("", *(f", {o}" for o in OPTIONS.get(transform.name, ()))):
                source, target = (
                    f"{transform.name}({', '.join(example(kind, model) for kind in kinds)}{more})"
                    for model in ("big", "tiny")
                )
                for operation in COMPARED[result]:
                    # sums over heads are no distributions
                    loss = f"{'mse' if transform.name == 'head_sum' else operation}({source} -> {target})"
                    yield Case(transform.name, loss)
                    if "logits" in kinds:
                        yield Case(transform.name, loss, "tags", per_token=True)


def temperature_cases() -> Iterator[Case]:
    """Every temperature of each example's own and of each token's own."""
    for temperature in own(TEMPERATURES):
        loss = f"kd(big.logits -> tiny.logits, T={temperature.name}(4))"
        yield Case(temperature.name, loss)
        yield Case(temperature.name, loss, "tags", per_token=True)


def built_in_cases() -> Iterator[Case]:
    """Every function of one value that is built in."""
    for name in ALONE:
        yield from (Case(name, loss) for loss in BUILT_IN[name])


def cases() -> list[Case]:
    """All of them, each once."""
    return list(dict.fromkeys([*operation_cases(), *transform_cases(), *temperature_cases(), *built_in_cases()]))


def said(what: str) -> Callable[[str], str]:
    """The message of a comparison, with what was compared."""
    return lambda message: f"{what}: {message}"


# ── programs and batches ─────────────────────────────────────────────────────────────────────────────────────────────

Values = dict[tuple[str, str], Tensor]
"""Features, or their gradients, by model and name."""
LENGTHS = (3, 1, 2)


def batch_of(case: Case, lengths: tuple[int, ...] = LENGTHS, longest: int | None = None) -> dict[str, Any]:
    """The encoding of examples of these lengths, padded to the longest one or beyond, and labels of the case's kind.

    Each example has a word that begins at its first token, and another one at its last where that is not the same.
    """
    size = longest or max(lengths)
    mask = torch.tensor([[i < length for i in range(size)] for length in lengths])
    words = torch.tensor([[0 if length else -1, length - 1 if length > 1 else -1, -1] for length in lengths])
    if case.labels == "tags":
        labels = (torch.arange(size)[None] + torch.arange(len(lengths))[:, None]) % CLASSES
        labels = labels.masked_fill(~mask, -100)
    elif case.labels == "classes":
        labels = (torch.arange(CLASSES)[None] + torch.arange(len(lengths))[:, None]) % 2.0
    else:
        labels = torch.tensor([max(length - 1, 0) for length in lengths])
    name = "start" if case.labels == "spans" else "labels"
    return {name: labels, "attention_mask": mask.long(), "words": words}


@dataclass
class Bench:
    """A loss laid out, and the shapes of the features that it is computed from."""

    program: Program
    shapes: dict[tuple[str, str], Shape]

    def encoded(self, values: Values, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with an encoding for each model, in which its features lie."""
        return batch | {
            model: {**batch, **{f"given {name}": x for (of, name), x in values.items() if of == model}}
            for model in ("big", "tiny")
        }

    def run(self, values: Values, batch: dict[str, Any], counts: Tensor | None = None) -> Tensor:
        """The loss of these features; `counts` are those of the whole batch that this one is a piece of."""
        return self.program.run(self.encoded(values, batch), 0.5, counts)[0]

    def gradients(self, values: Values, batch: dict[str, Any], counts: Tensor | None = None) -> tuple[Tensor, Values]:
        """The loss, and its gradient in every feature that has one."""
        leaves = {key: x.detach().clone().requires_grad_() for key, x in values.items()}
        loss = self.run(leaves, batch, counts)
        loss.backward()
        return loss.detach(), {key: x.grad for key, x in leaves.items() if x.grad is not None}

    def padded(self, values: Values, value: float, more: int = 0, lengths: tuple[int, ...] = LENGTHS) -> Values:
        """The same features with this value wherever padding stands, and so much more of it appended."""
        changed: Values = {}
        for key, x in values.items():
            shape = self.shapes[key]
            real = torch.ones([1] * len(shape), dtype=torch.bool)
            for axis in (i for i, size in enumerate(shape) if size == "length"):
                view = [len(lengths) if i == 0 else -1 if i == axis else 1 for i in range(len(shape))]
                mask = torch.tensor([[i < length for i in range(x.shape[axis])] for length in lengths])
                real = real & mask.view(view)
            amounts = [amount for size in reversed(shape) for amount in (0, more * (size == "length"))]
            changed[key] = nn.functional.pad(x.masked_fill(~real, value), amounts, value=value)
        return changed


@cache
def lay_out(case: Case) -> Bench:
    """The program of a case, by way of its spec and graph."""
    facts = {role: Facts(per_token=case.per_token) for role in ("teacher", "student")}
    return bench_of(HEAD.format(labels=case.labels) + f"loss = {case.loss}\n", facts)


def bench_of(text: str, facts: Mapping[str, FakeFacts]) -> Bench:
    """The program of a spec about models of which no more is known than these facts, by role."""
    found = graph(text, facts)
    with mock.patch("brewgraph.runtime.program.Capture", Given):
        program = Program(found, {"big": Echo(), "tiny": Echo()}, {})
    taps = [x for key in found if isinstance(x := node(found, key), n.Tap)]
    return Bench(program, {(x.model, str(x.feature)): x.shape or () for x in taps})


def draw(bench: Bench, batch: dict[str, Any], dtype: torch.dtype = torch.float64) -> Values:
    """Random features: normal numbers; attention is a distribution over the keys that are no padding."""
    generator = torch.Generator().manual_seed(0)
    mask = batch["attention_mask"].bool()
    sizes = {"batch": mask.shape[0], "length": mask.shape[1]}
    values: Values = {}
    for (model, name), shape in bench.shapes.items():
        x = torch.randn([size if isinstance(size, int) else sizes[size] for size in shape], generator=generator)
        if name.startswith("attention"):
            x = x.masked_fill(~mask[:, None, None], -1e9).softmax(-1)
        values[model, name] = x.to(dtype)
    return values
