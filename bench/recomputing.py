"""What `gradient_checkpointing` saves and costs: a step of a student with it and without it, in a process each.

    python bench/recomputing.py --layers 12 --batch 16 --length 128

Teacher and student are BERTs of random weights, batches random tokens without padding; the loss matches logits and two
hidden states. Memory is the most that the process held in a step, beside what it held before its first forward. Both
sides run in one call, so that ratios compare.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPEC = """brew 1
teacher big = hf(model_type="bert", num_hidden_layers=2, hidden_size={width}, num_attention_heads={heads},
    intermediate_size={inner}, vocab_size=500, labels=["a", "b"])    # brew: ignore[W302] only its time is asked
student small = hf(model_type="bert", num_hidden_layers={layers}, hidden_size={width}, num_attention_heads={heads},
    intermediate_size={inner}, vocab_size=500, labels=["a", "b"])
data d = files(train="rows.jsonl", batch={batch}, max_length={length})
loss = kd(big.logits -> small.logits) + mse(big.hidden[1] -> small.hidden[{half}])
train {{ gradient_checkpointing = {again} }}
"""


def measure(asked: argparse.Namespace, again: str) -> dict[str, float]:
    """The peak of memory in bytes and the median seconds of a step."""
    import torch

    import brewgraph as bg

    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rows.jsonl").write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
        sizes = {"width": asked.width, "heads": asked.width // 64, "inner": 4 * asked.width, "layers": asked.layers}
        spec = Path(folder, "spec.brew")
        spec.write_text(
            SPEC.format(**sizes, batch=asked.batch, length=asked.length, half=asked.layers // 2, again=again)
        )
        distiller = bg.load(spec).build()
    ids = torch.randint(5, 17, (asked.batch, asked.length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for parameter in distiller.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, seconds = resident(), []
    for _ in range(asked.steps):
        start = time.perf_counter()
        distiller(batch).loss.backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"bytes": peak - before, "seconds": statistics.median(seconds)}


def resident() -> int:
    """The bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def each_alone(script: str, names: Iterable[str]) -> dict[str, Any]:
    """What a script prints as JSON with `--one NAME`, in a process of its own for each name."""
    printed = {}
    for name in names:
        command = [sys.executable, "-W", "ignore", script, *sys.argv[1:], "--one", name]
        printed[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 12), ("width", 768), ("batch", 16), ("length", 128), ("steps", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked, asked.one)))
        return
    found = each_alone(__file__, ("false", "true"))
    memory, seconds = (found["true"][key] / found["false"][key] for key in ("bytes", "seconds"))
    print(f"with it: {memory:.2f} of the memory, {seconds:.2f} times as long")


if __name__ == "__main__":
    main()
