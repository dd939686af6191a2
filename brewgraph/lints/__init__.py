"""Warnings about specs that are legal but probably not intended; a lint is a function from a checked recipe to some."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from brewgraph.diagnostics import Diagnostic
from brewgraph.lints.layers import find_idle_caches, find_shifted_maps
from brewgraph.lints.splitting import find_small_batches, find_split_batches
from brewgraph.lints.subject import Subject
from brewgraph.lints.terms import (
    find_dead_losses,
    find_idle_adapters,
    find_unreached_terms,
    find_unread_weights,
    find_untrained_heads,
    find_untrained_projections,
)
from brewgraph.lints.weights import (
    find_late_schedules,
    find_still_schedules,
    find_uneven_means,
    find_unscaled_targets,
    find_vanishing_temperatures,
)

__all__ = ["LINTS", "Lint", "Subject", "lint"]

Lint = Callable[[Subject], Iterator[Diagnostic]]
LINTS: tuple[Lint, ...] = (
    find_unreached_terms,
    find_shifted_maps,
    find_late_schedules,
    find_still_schedules,
    find_vanishing_temperatures,
    find_uneven_means,
    find_untrained_projections,
    find_split_batches,
    find_unscaled_targets,
    find_untrained_heads,
    find_idle_adapters,
    find_idle_caches,
    find_dead_losses,
    find_unread_weights,
    find_small_batches,
)


def lint(subject: Subject) -> Iterator[Diagnostic]:
    """The warnings of all lints, in the order of their codes."""
    for look in LINTS:
        yield from look(subject)
