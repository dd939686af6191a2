"""Caches that save nothing."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.lints.subject import Subject
from brewgraph.recipe import values as v

Forward = tuple[str, str, int]
"""A model, the data that it runs on, and the pass."""


def find_idle_caches(subject: Subject) -> Iterator[Diagnostic]:
    """W216: a teacher of which something else is taken too, so that its forward runs whatever is kept."""
    said: set[Forward] = set()
    for loss in subject.losses:
        kept: dict[Forward, list[v.Cached]] = {}
        bare: list[v.Take] = []
        _sort(loss, kept, bare)
        for take in bare:
            forward = _forward(take)
            caches = kept.get(forward, [])
            # what is taken beside its cache is one value with it
            if not caches or forward in said or any(cached.value == take for cached in caches):
                continue
            said.add(forward)
            cached = caches[0]
            message = f"the forward of `{take.model}` runs for this, so the cache `{cached.name}` saves nothing"
            labels = (Label(cached.span, "what is kept"),)
            help = f'keep it too: `cache NAME = {take.model}.{take.feature} at "{cached.path}"`'
            yield Diagnostic("W216", message, take.span, help, labels=labels)


def _forward(take: v.Take) -> Forward:
    return take.model, take.data, take.passing


def _sort(x: v.Value, kept: dict[Forward, list[v.Cached]], bare: list[v.Take]) -> None:
    """What a value takes from forwards, told apart: inside caches, and outside of them."""
    if isinstance(x, v.Cached):
        for part in v.walk(x):
            if isinstance(part, v.Take):
                kept.setdefault(_forward(part), []).append(x)
        return
    if isinstance(x, v.Take):
        bare.append(x)
    for part in v.parts(x):
        _sort(part, kept, bare)
