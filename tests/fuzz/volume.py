"""Specs by the hundred thousand: `python -m tests.fuzz.volume grammar 200000 --seed 1` writes them from the grammar, by a
seeded generator instead of Hypothesis, and judges each as the tests do.

Each has a seed of its own, so `--seed N` with a count of 1 is one of them again. A spec may take 2 seconds of the
processor for everything that the judge does with it, and the process 1 GiB of memory.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from types import FrameType

from tests.fuzz.judge import judge
from tests.fuzz.specs import living, mutated, seeds
from tests.syntax.strategies import write_spec

SECONDS, BYTES = 2, 1 << 30
GENERATORS: dict[str, Callable[[int], str]] = {
    "grammar": lambda seed: write_spec(random.Random(seed).randint).text,
    "meaning": lambda seed: living(random.Random(seed)),
    "mutations": mutated,
}


class Slow(BaseException):
    """A spec took too long."""


def _slow(signal_number: int, frame: FrameType | None) -> None:
    raise Slow(f"more than {SECONDS} s of the processor")


def main() -> int:
    """Judge specs, print those at fault with their seeds, then a line of figures; 1 if any is at fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.volume", description=__doc__)
    parser.add_argument("generator", choices=GENERATORS)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first spec")
    options = parser.parse_args()
    generate, ends, faults, slowest = GENERATORS[options.generator], Counter[str](), 0, (0.0, 0)
    signal.signal(signal.SIGPROF, _slow)
    judge(seeds()[0])  # imports all that it needs, which searches for garbage may then leave out
    gc.freeze()
    begin = time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        text = generate(seed)
        since = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            ends[judge(text)] += 1
        except (Exception, Slow):
            faults += 1
            print(f"── {options.generator}, --seed {seed}\n{text}\n{traceback.format_exc()}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, (time.process_time() - since, seed))
        if _peak() > BYTES:
            print(f"── {options.generator}: {_peak() >> 20:,} MiB after --seed {seed}\n{text}", flush=True)
            return 1
    wall = time.monotonic() - begin
    print(
        f"{options.generator}: {options.count:,} specs from seed {options.seed:,}, {faults} at fault, "
        f"{', '.join(f'{count:,} {end}' for end, count in sorted(ends.items()))}; {options.count / wall:.0f} a second; "
        f"slowest {slowest[0]:.2f} s (seed {slowest[1]}); peak {_peak() >> 20:,} MiB",
        flush=True,
    )
    return 1 if faults else 0


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


if __name__ == "__main__":
    sys.exit(main())
