"""How fast models run beside each other: passes over the same batches, in turn, so that load hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

ROUNDS = 7
"""Passes over the batches that are timed."""

_FEWEST = 3
_SECONDS = 3.0
"""How long measuring may take; of slow models fewer batches are timed, and fewer rounds, but never below `_FEWEST`."""

_WIDEST = 0.2
"""The spread above which two models are not compared."""


@dataclass(frozen=True)
class Work:
    """A batch as one model takes it: `run` returns when the device is done with its `sentences`."""

    sentences: int
    run: Callable[[], object]


def measure(
    works: Mapping[str, Sequence[Work]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[float, ...]]:
    """Seconds per sentence of each model, one value for each round; equal places are of the same round.

    Each model runs its first batch once to warm up and once to see how long it takes, which decides how many batches a
    round has. In a round the models alternate batch by batch, every second round in reverse order.
    """
    begin = clock()
    works = {name: own for name, own in works.items() if own}

    def timed(work: Work) -> float:
        start = clock()
        work.run()
        return clock() - start

    for own in works.values():
        own[0].run()
    one = sum(timed(own[0]) for own in works.values())
    longest = max((len(own) for own in works.values()), default=0)
    batches = max(1, min(longest, int(_SECONDS / (ROUNDS * max(one, 1e-9)))))
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS):
        if number >= _FEWEST and clock() - begin > _SECONDS:
            break
        seconds = dict.fromkeys(works, 0.0)
        for place in range(batches):
            for name in list(works)[:: -1 if number % 2 else 1]:
                if place < len(works[name]):
                    seconds[name] += timed(works[name][place])
        for name, own in works.items():
            found[name].append(seconds[name] / sum(work.sentences for work in own[:batches]))
    return {name: tuple(values) for name, values in found.items()}


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles as a share of the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def faster(seconds: Sequence[float], than: Sequence[float]) -> float | None:
    """How many times faster the first model is: the median of the rounds' ratios.

    None where they spread so widely that they say nothing, or are too few.
    """
    ratios = [slow / quick for quick, slow in zip(seconds, than, strict=False) if quick]
    if len(ratios) < _FEWEST or spread(ratios) > _WIDEST:
        return None
    return median(ratios)
