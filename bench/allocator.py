"""Steps with malloc as brewgraph sets it, beside steps with its defaults: processes in turns.

    python bench/allocator.py --workloads W1 W4 --processes 3

Workloads are those of `race.py`, with random values for stored logits. Prints, for each, brewgraph's setting over the
defaults: the median step, page faults of a step, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time


def one(name: str, steps: int) -> dict[str, float]:
    """The median seconds and page faults of a step, and the peak of memory in bytes."""
    import torch
    from contestant import Contestant
    from race import WARM, WORKLOADS, Context, batches, drawn_lengths

    workload = WORKLOADS[name]
    contestant, content = Contestant(Context(workload, 0.1)), batches(7 + WARM, 16, drawn_lengths())
    if workload.stored:
        contestant.cache.update({i: torch.randn(16, 3) for i in range(len(content))})
    seconds, faults = [], []
    for i in range(WARM + len(content) + steps):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        contestant.step(content[i % len(content)], i % len(content))
        seconds.append(time.perf_counter() - start)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    first, peak = WARM + len(content), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"step": statistics.median(seconds[first:]), "faults": statistics.median(faults[first:]), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", default=["W1", "W4", "W4t"])
    parser.add_argument("--steps", type=int, default=21)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.steps)))
        return
    sides = (None, {**os.environ, "MALLOC_": ""})  # a variable of that prefix keeps brewgraph from setting anything
    for name in options.workloads:
        call = [sys.executable, __file__, "--one", name, "--steps", str(options.steps)]
        pairs = [
            [json.loads(subprocess.run(call, env=env, check=True, stdout=subprocess.PIPE).stdout) for env in sides]
            for _ in range(options.processes)
        ]
        ratios = {key: statistics.median(ours[key] / usual[key] for ours, usual in pairs) for key in pairs[0][0]}
        print(name, {key: round(value, 3) for key, value in ratios.items()}, flush=True)


if __name__ == "__main__":
    main()
