"""Weights that are probably not what was meant: means of teachers that do not add up, soft targets without T²."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.lints.subject import Subject, at, weighted
from brewgraph.recipe import values as v

NEARLY = (0.75, 1.25)
"""Sums of weights that look like a mean of teachers gone wrong; others are taken for what was meant."""
ROUNDED = 0.015
"""How far from one a sum of rounded weights may lie: 0.33 + 0.33 + 0.33."""


def find_uneven_means(subject: Subject) -> Iterator[Diagnostic]:
    """W210: one operation onto one feature from several teachers, with weights that nearly sum to one."""
    seen: set[int] = set()
    for loss in subject.losses:
        for x in v.walk(loss):
            if not isinstance(x, v.Combine) or x.operator != "+" or id(x) in seen:
                continue
            addends = list(_addends(x, seen))
            total = sum(weight for _, weight in addends)
            groups: dict[object, list[tuple[str, float, v.Value]]] = {}
            for value, weight in addends:
                if (known := _teacher_of(value)) is not None:
                    groups.setdefault(known[1], []).append((known[0], weight, value))
            for group in groups.values():
                if (said := _uneven(group, total)) is not None:
                    first, last = group[0][2].span, group[-1][2].span
                    place = x.span if first.source != last.source or last.start < first.start else first.to(last)
                    help = "let them sum to one, or write `mean(…)` over the list of teachers"
                    yield Diagnostic("W210", said, place, help)


def _uneven(group: list[tuple[str, float, v.Value]], total: float) -> str | None:
    weights = [weight for _, weight, _ in group]
    several = len({teacher for teacher, _, _ in group}) == len(group) > 1
    between = all(0 < weight < 1 for weight in weights)
    if not several or not between or abs(total - 1) <= ROUNDED or abs(sum(weights) - 1) <= ROUNDED:
        return None
    if not NEARLY[0] <= sum(weights) <= NEARLY[1]:
        return None
    return f"the weights of the teachers sum to {sum(weights):.4g}, not to 1: {' + '.join(f'{w:g}' for w in weights)}"


def _addends(x: v.Value, seen: set[int]) -> Iterator[tuple[v.Value, float]]:
    """The addends of a sum and of the sums in it, each with its weight where that is one number."""
    if isinstance(x, v.Combine) and x.operator == "+":
        seen.add(id(x))
        for operand in x.operands:
            yield from _addends(operand, seen)
    elif isinstance(x, v.Combine) and x.operator == "*" and len(x.operands) == 2:
        a, b = x.operands
        weight, value = (a, b) if isinstance(a, v.Number) else (b, a)
        if isinstance(weight, v.Number):
            yield value, weight.value
    elif isinstance(x, v.Apply | v.Take):
        yield x, 1.0


def _teacher_of(x: v.Value) -> tuple[str, object] | None:
    """The model that a match, or a feature, comes from, and all the rest of it, which others may share."""
    if isinstance(x, v.Take):
        return x.model, ("feature", x.data, x.feature, x.passing)
    if isinstance(x, v.Apply) and isinstance(x.source, v.Take):
        source = x.source
        feature = (source.data, source.feature.name, source.feature.head)
        return source.model, (x.operation, feature, x.target, x.options, x.mask)
    return None


def find_unscaled_targets(subject: Subject) -> Iterator[Diagnostic]:
    """W213: cross-entropy with a model at a high temperature beside a loss on labels, without the factor T²."""
    for loss in subject.losses:
        moments = [{id(x): (x, w) for x, w in weighted(loss, 1.0, progress)} for progress in (0.0, 0.5, 63 / 64)]
        applied = {key: x for moment in moments for key, (x, _) in moment.items()}
        heights = {key: max(abs(m[key][1]) for m in moments if key in m) for key in applied}
        hard = [key for key, x in applied.items() if _is_hard(x)]
        if not hard:
            continue
        highest = max(hard, key=lambda key: heights[key])
        for key, x in applied.items():
            T = _temperature(x)
            if T is None or T < 2 or not heights[key] or heights[key] / (heights[highest] or 1.0) >= T * T / 2:
                continue
            name = x.declared.name
            times = f"{T * T:g}"
            message = f"`{name}` has no factor T²: at T={T:g} its gradient is about {times} times smaller than at 1"
            remedy = x.declared.unscaled
            help = f"{remedy}, or `{times} * {name}(…)`, so that its weight means something beside the labels"
            here = applied[highest].span.source == x.span.source
            labels = (Label(applied[highest].span, "the loss on labels"),) if here else ()
            yield Diagnostic("W213", message, x.span, help, labels=labels)
            break  # one word for start and end, or for several teachers


def _is_hard(x: v.Apply) -> bool:
    return isinstance(x.source, v.Column) and x.source.kind in ("labels", "targets")


def _temperature(x: v.Apply) -> float | None:
    """The temperature at which a match of two models' logits begins; None where it is no such match."""
    if not x.declared.unscaled or isinstance(x.source, v.Column) or x.target.kind not in ("logits", "positions"):
        return None
    if x.source.kind not in ("logits", "positions"):
        return None
    option = dict(x.options).get("T")
    if isinstance(option, v.Temperature):
        return option.base
    return at(option, 0.0) if isinstance(option, v.Value) else None
