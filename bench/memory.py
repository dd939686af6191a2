"""The most memory that a step of race.py's workloads takes: brewgraph beside loops written by hand.

    python bench/memory.py --workload W1 --batch 16

Each contestant trains on the same batches in a process of its own. Memory is the most that the process held in a step,
beside what it held before: weights and the optimizer's running means, which are alike, stand before the first step.
"""

from __future__ import annotations

import argparse
import json
import resource

from recomputing import each_alone, resident

WHO = ("plain loop", "careful loop", "brewgraph, padded", "brewgraph")


def measure(asked: argparse.Namespace, name: str) -> int:
    """The bytes of a contestant's steps."""
    import torch
    from race import CONTESTANTS, WORKLOADS, Context, batches, drawn_lengths

    torch.set_num_threads(asked.threads)
    contestant = CONTESTANTS[name](Context(WORKLOADS[asked.workload], dropout=0.1))
    for group in contestant.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    contestant.optimizer.step()  # of zero: it makes the running means
    contestant.optimizer.zero_grad()
    before = resident()
    for key, batch in enumerate(batches(asked.steps, asked.batch, drawn_lengths())):
        contestant.step(batch, key)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="W1", choices=("W1", "W2", "W3"))
    for name, default in (("batch", 16), ("steps", 2), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked, asked.one)))
        return
    held = each_alone(__file__, WHO)
    for name, size in held.items():
        print(f"{name}: {size / 1e9:.2f} GB, {size / held['plain loop']:.2f} of the plain loop's")


if __name__ == "__main__":
    main()
