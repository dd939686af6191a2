"""How long models take for the same batches: all of them take turns, so that load affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from brewgraph.running.scores import FEWEST

ROUNDS = 7
"""Timed passes over the batches."""

_SECONDS = 3.0
"""How long measuring may take. Slow models get fewer batches and fewer rounds, but at least `FEWEST`."""


@dataclass(frozen=True)
class TimedBatch:
    """A batch as one model takes it: `run` returns when the device has processed its `sentences`."""

    sentences: int
    run: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The seconds that a model took for its batch of this `index`, in a round that counts from 0."""

    turn: int
    name: str
    index: int
    seconds: float


def take_turns(
    batches: Mapping[str, Sequence[TimedBatch]],
    clock: Callable[[], float] = time.perf_counter,
    limit: float = _SECONDS,
) -> Iterator[Timing]:
    """The timings of all models in `limit` seconds, or what `FEWEST` rounds of one batch take.

    Each model runs its first batch once to warm up, and once to decide how many batches a round has. Within a round the
    models alternate batch by batch; every second round goes in reverse order.
    """
    begin = clock()
    batches = {name: own for name, own in batches.items() if own}

    def timed(batch: TimedBatch) -> float:
        start = clock()
        batch.run()
        return clock() - start

    for own in batches.values():
        own[0].run()
    once = sum(timed(own[0]) for own in batches.values())
    longest = max((len(own) for own in batches.values()), default=0)
    count = max(1, min(longest, int(limit / (ROUNDS * max(once, 1e-9)))))
    for turn in range(ROUNDS):
        if turn >= FEWEST and clock() - begin > limit:
            break
        for index in range(count):
            for name in list(batches)[:: -1 if turn % 2 else 1]:
                if index < len(batches[name]):
                    yield Timing(turn, name, index, timed(batches[name][index]))


def per_sentence(
    timings: Sequence[Timing], batches: Mapping[str, Sequence[TimedBatch]]
) -> dict[str, tuple[float, ...]]:
    """Seconds per sentence of each model, one value per round, the same rounds for all models."""
    seconds: dict[tuple[str, int], float] = {}
    sentences: dict[tuple[str, int], int] = {}
    for timing in timings:
        key = timing.name, timing.turn
        seconds[key] = seconds.get(key, 0.0) + timing.seconds
        sentences[key] = sentences.get(key, 0) + batches[timing.name][timing.index].sentences
    means = {key: seconds[key] / sentences[key] for key in seconds}
    return {name: tuple(x for (of, _), x in means.items() if of == name) for name in batches if batches[name]}


def measure(
    batches: Mapping[str, Sequence[TimedBatch]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, tuple[float, ...]]:
    """Seconds per sentence of each model, as `per_sentence` gives them."""
    return per_sentence(list(take_turns(batches, clock)), batches)
