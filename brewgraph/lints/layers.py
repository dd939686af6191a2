"""Layer maps off by one: hidden states count from the embeddings, 0 to n, attention from layer one, 0 to n - 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.lints.subject import Subject
from brewgraph.recipe import values as v

PER_LAYER = ("attention", "scores", "query", "key", "value")
"""Rows that count from the first layer."""


@dataclass
class _Matches:
    """What an operation compares between two models' rows: pairs of indices, each with a place where it stands."""

    teacher: str
    student: str
    feature: str
    pairs: dict[tuple[int, int], v.Apply] = field(default_factory=dict)


def find_shifted_maps(subject: Subject) -> Iterator[Diagnostic]:
    """W206: layers that were counted as the other row counts them."""
    found = list(_matches(subject))
    for hidden in found:
        if hidden.feature != "hidden" or len(hidden.pairs) < 2:
            continue
        if (shifted := _shifted(subject, hidden)) is not None:
            yield shifted
            continue
        for other in found:
            same = (other.teacher, other.student, set(other.pairs)) == (hidden.teacher, hidden.student, {*hidden.pairs})
            if other.feature in PER_LAYER and same:
                one, two = next(iter(hidden.pairs.values())), next(iter(other.pairs.values()))
                message = f"the same layers stand here as of `hidden`, and `{other.feature}[i]` is of the layer after"
                i, j = max(hidden.pairs)
                help = (
                    f"`hidden[{i}]` is the output of layer {i}, `{other.feature}[{i}]` belongs to layer {i + 1}: "
                    f"write one less here, {i - 1} -> {j - 1} for {i} -> {j}"
                )
                labels = (Label(one.source.span, "these count from the embeddings"),)
                yield Diagnostic("W206", message, two.source.span.to(two.target.span), help, labels=labels)
                break


def _shifted(subject: Subject, hidden: _Matches) -> Diagnostic | None:
    """What is wrong with pairs of hidden states, taken as layers; None where nothing is."""
    counts = subject.count(hidden.teacher, "hidden"), subject.count(hidden.student, "hidden")
    if counts[0] is None or counts[1] is None or (0, 0) in hidden.pairs:
        return None
    last = counts[0] - 1, counts[1] - 1
    highest = max(i for i, _ in hidden.pairs), max(j for _, j in hidden.pairs)
    embeddings = next((pair for pair in hidden.pairs if 0 in pair), None)
    if embeddings is not None and highest != last:
        i, j = embeddings
        what = f"the teacher's layer {i}" if j == 0 else f"the student's layer {j}"
        message = f"this matches embeddings with {what}: `hidden[0]` is before the first layer"
    elif highest == (last[0] - 1, last[1]):
        embeddings = max(hidden.pairs)
        message = f"the student's last layer learns from the teacher's last but one: `hidden` goes to {last[0]}"
    else:
        return None
    apply = hidden.pairs[embeddings]
    ends = f"0 to {last[0]} of `{hidden.teacher}` and 0 to {last[1]} of `{hidden.student}`"
    help = f"`hidden[n]` is the output of layer n, {ends}"
    return Diagnostic("W206", message, apply.source.span.to(apply.target.span), help)


def _matches(subject: Subject) -> Iterator[_Matches]:
    """The matches of single layers between two models, by operation and row, over all losses."""
    found: dict[tuple[str, str, str, str], _Matches] = {}
    for loss in subject.losses:
        for x in v.walk(loss):
            if not isinstance(x, v.Apply):
                continue
            sides = [v.takes_in(x.source), v.takes_in(x.target)]
            if [len(takes) for takes in sides] != [1, 1]:
                continue
            one, two = sides[0][0], sides[1][0]
            i, j = one.feature.index, two.feature.index
            if one.model == two.model or one.feature.name != two.feature.name or i is None or j is None:
                continue
            key = (x.operation, one.model, two.model, one.feature.name)
            found.setdefault(key, _Matches(*key[1:])).pairs.setdefault((i, j), x)
    yield from found.values()
