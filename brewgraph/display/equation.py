"""A graph as a spec writes it: the loss spelled out, weights multiplied out, lists and names resolved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, node, of_kind
from brewgraph.graph.scalars import scalar_keys
from brewgraph.ops import OPERATIONS, TRANSFORMS
from brewgraph.ops.alone import BUILT_IN
from brewgraph.ops.registry import DeclaredFunction
from brewgraph.recipe.numbers import factors


@dataclass(frozen=True)
class TermPlan:
    """An addend of the loss. `weight` is a number, or a number and schedules; `unit` is what the term is a mean over.

    `mask` is empty where every unit counts because nothing can be hidden; `key` is that of the value in the graph.
    """

    names: tuple[str, ...]
    weight: str
    equation: str
    unit: str
    mask: str
    key: str

    @property
    def weighted(self) -> str:
        """The equation with its weight in front, if that is not one."""
        return self.equation if self.weight == "1" else f"{self.weight} * {self.equation}"

    @property
    def title(self) -> str:
        """The names of the term, else its equation."""
        return " = ".join(self.names) or self.equation


def spell_out(graph: Graph) -> tuple[TermPlan, ...]:
    """The addends of the loss with their weights multiplied out, in the order of the spec's equations."""
    terms: list[TermPlan] = []
    names: dict[str, list[str]] = {}
    for name, key in info(graph).terms.items():
        names.setdefault(key, []).append(name)
    scalars = scalar_keys(graph)

    def walk(key: str, constant: float, schedules: tuple[str, ...]) -> None:
        current = node(graph, key)
        weights = {x: _weight(graph, x) for x in current.inputs if x in scalars}
        changing = tuple(text for _, texts in weights.values() for text in texts)
        if isinstance(current, n.Combine) and not (changing and current.operator == "/"):
            numbers = [weights[x][0] if x in weights else None for x in current.inputs]
            counted = zip(current.inputs, factors(current.operator, numbers), strict=True)
            parts = [(used, factor) for used, factor in counted if used not in scalars]
            if parts and all(factor is not None for _, factor in parts):
                for used, factor in sorted(parts, key=lambda x: in_order(graph, x[0])) if current.commutes else parts:
                    walk(used, constant * (factor or 0.0), (*schedules, *changing))
                return
        weight_text = " * ".join([*([f"{constant:g}"] if constant != 1 or not schedules else []), *schedules])
        unit, mask = (current.unit, mask_of(graph, current)) if isinstance(current, n.Loss) else ("", "")
        terms.append(TermPlan(tuple(names.get(key, ())), weight_text, spell(graph, key), unit, mask, key))

    walk(info(graph).objective, 1.0, ())
    return tuple(terms)


def _weight(graph: Graph, key: str) -> tuple[float, tuple[str, ...]]:
    """A scalar as a constant and the schedules that it is multiplied with."""
    current = node(graph, key)
    if isinstance(current, n.Number):
        return current.value, ()
    if isinstance(current, n.Combine) and current.operator == "*":
        parts = [_weight(graph, x) for x in sorted(current.inputs, key=lambda x: in_order(graph, x))]
        return math.prod(c for c, _ in parts), tuple(f for _, factors in parts for f in factors)
    return 1.0, (spell(graph, key, inside=True),)


def in_order(graph: Graph, key: str) -> tuple[int, int, str]:
    """A sort key for the order of the spec, which a graph does not keep: the first equation in a value, its place."""
    places = {k: i for i, k in reversed(list(enumerate(info(graph).terms.values())))}
    below = nx.ancestors(graph, key) | {key}
    return min((places[k] for k in below if k in places), default=len(places)), node(graph, key).span.start, key


def in_spec_order(graph: Graph, keys: Iterable[str]) -> list[str]:
    """Values in the order of the spec; those of one equation and place by their text."""
    return sorted(keys, key=lambda key: (in_order(graph, key)[:2], spell(graph, key)))


def spell(graph: Graph, key: str, *, inside: bool = False) -> str:
    """A value as a spec writes it, names resolved, without the options that the spec leaves out."""
    current = node(graph, key)
    match current:
        case n.Projection():
            sizes = f"({current.into} -> {current.out})" if current.into and current.out else ""
            text = f"{spell(graph, current.value, inside=True)} via {current.activation or 'linear'}{sizes}"
        case n.Combine(operator="mean" | "max"):
            return f"{current.operator}([{', '.join(spell(graph, x) for x in current.inputs)}])"
        case n.Combine(operator="softmax"):
            return f"softmax([{', '.join(spell(graph, x) for x in current.inputs)}])[{current.position}]"
        case n.Combine():
            inputs = sorted(current.inputs, key=lambda x: in_order(graph, x)) if current.commutes else current.inputs
            text = f" {current.operator} ".join(spell(graph, x, inside=True) for x in inputs)
        case n.Loss():
            return _spell_loss(graph, current)
        case n.Tap():
            return _spell_tap(graph, current)
        case n.Transform():
            return _spell_transform(graph, current)
        case n.Mean():
            return f"batch_mean({spell(graph, current.value)})"
        case n.Bundle():
            return f"({', '.join(spell(graph, x) for x in current.inputs)})"
        case _:
            return current.label()
    return f"({text})" if inside else text


def _spell_tap(graph: Graph, tap: n.Tap) -> str:
    """A feature, with the input of its forward if the graph has several, and its pass if it is not the first."""
    forward = node(graph, tap.forward)
    entry = node(graph, forward.entry) if isinstance(forward, n.Forward) else None
    if not isinstance(forward, n.Forward) or not isinstance(entry, n.Input):
        return tap.label()
    several = len({x.data for _, x in of_kind(graph, n.Input)}) > 1
    arguments = [entry.data] if several or forward.passing > 1 else []
    arguments += [f"pass={forward.passing}"] if forward.passing > 1 else []
    return tap.model + (f"({', '.join(arguments)})" if arguments else "") + tap.label().removeprefix(tap.model)


def _spell_transform(graph: Graph, current: n.Transform) -> str:
    declared = BUILT_IN.get(current.name) or TRANSFORMS.get(current.name)
    arguments = [*(spell(graph, key) for key in current.values), *_spell_options(graph, current, declared)]
    arguments += ["mask=none"] if declared is not None and declared.needs_layout and not current.masked else []
    return f"{current.name}({', '.join(arguments)})"


def _spell_loss(graph: Graph, loss: n.Loss) -> str:
    declared = OPERATIONS.get(loss.operation)  # none for one of a module that is only read
    arguments = [f"{spell(graph, loss.source)} -> {spell(graph, loss.target)}", *_spell_options(graph, loss, declared)]
    mask = mask_of(graph, loss)
    if mask == "none" or _sees_padding(graph, loss.target):
        arguments.append("mask=none")
    elif mask and mask != n.DEFAULT_MASKS.get(loss.unit) and (loss.unit in n.DEFAULT_MASKS or "." in mask):
        arguments.append(f"mask={mask}")
    if not loss.reduced:
        arguments.append('reduce="none"')
    return f"{loss.operation.rpartition(':')[2]}({', '.join(arguments)})"


def _spell_options(graph: Graph, x: n.Loss | n.Transform, declared: DeclaredFunction | None) -> Iterator[str]:
    """The options that a spec writes: numbers and schedules, then words."""
    defaults = {o.name: o.default for o in declared.options} if declared is not None else {}
    for name, key in x.arguments.items():
        value = node(graph, key)
        if name in x.written or not (isinstance(value, n.Number) and value.value == defaults.get(name)):
            yield f"{name}={spell(graph, key)}"
    yield from (f"{name}={word}" for name, word in x.words if name in x.written or word != defaults.get(name))


def _sees_padding(graph: Graph, key: str) -> bool:
    """Whether padding counts in a side of scores over positions, because the loss has `mask=none`."""
    current = node(graph, key)
    if isinstance(current, n.Tap):
        return current.padding
    return not isinstance(current, n.Loss) and any(_sees_padding(graph, used) for used in current.inputs)


def mask_of(graph: Graph, loss: n.Loss) -> str:
    """The mask of a loss as a spec writes it; empty for a loss without one."""
    mask = node(graph, loss.mask) if loss.mask is not None else None
    return spell_mask(graph, mask) if isinstance(mask, n.Mask) else ""


def spell_mask(graph: Graph, mask: n.Mask) -> str:
    return mask.which if mask.column is None else node(graph, mask.column).label()
