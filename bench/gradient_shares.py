"""What `report = [gradient_shares]` costs: steps that measure beside steps that do not, in turns in one process.

    python bench/gradient_shares.py --layers 4 --batch 16 --length 64

The teacher is a BERT of twice the layers and width of the student, both of random weights; batches are random tokens
without padding. The loss has three terms: logits, labels and the hidden states of every layer. A run pays the ratio at
each `logging_steps`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

SPEC = """brew 1
teacher big = hf(model_type="bert", num_hidden_layers={twice}, hidden_size={wide}, num_attention_heads=8,
    intermediate_size={inner}, vocab_size=500, labels=["a", "b"])    # brew: ignore[W302] only its time is asked
student small = hf(model_type="bert", num_hidden_layers={layers}, hidden_size={width}, num_attention_heads=4,
    intermediate_size={half}, vocab_size=500, labels=["a", "b"])
data d = files(train="rows.jsonl", batch={batch}, max_length={length})
soft = kd(big.logits -> small.logits)
hard = ce(d.labels -> small.logits)
hidden = mean(mse(big.hidden[{of_teacher}] -> small.hidden[{of_student}] via linear))
loss = soft + hard + hidden
"""


def main() -> None:
    """Print the ratio of a measuring step to one that does not, and what a run pays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("layers", 4), ("width", 128), ("batch", 16), ("length", 64), ("steps", 15), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    import torch
    from accelerate import Accelerator

    import brewgraph as bg
    from brewgraph.training.gradient_shares import measure_gradients

    torch.set_num_threads(asked.threads)
    layers = [*range(1, asked.layers + 1)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rows.jsonl").write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
        spec = Path(folder, "spec.brew")
        sizes = {"layers": asked.layers, "twice": 2 * asked.layers, "width": asked.width, "wide": 2 * asked.width}
        listed = {"of_teacher": ", ".join(str(2 * i) for i in layers), "of_student": ", ".join(map(str, layers))}
        more = {"inner": 8 * asked.width, "half": 4 * asked.width, "batch": asked.batch, "length": asked.length}
        spec.write_text(SPEC.format(**sizes, **listed, **more))
        distiller = bg.load(spec).build()
    ids = torch.randint(5, 17, (asked.batch, asked.length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    optimizer, accelerator = torch.optim.AdamW(distiller.parameters()), Accelerator(cpu=True)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * asked.steps + 2):
        start = time.perf_counter()
        if turn % 2:
            measure_gradients(distiller, "", [batch], None, 1.0, accelerator, gather=True)
        distiller(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if turn > 1:  # the first of each warm up
            seconds[bool(turn % 2)].append(time.perf_counter() - start)
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    print(f"{len(distiller.terms())} terms: a step that measures takes {ratio:.2f} times as long as one that does not")
    for every in (1, 10, 20, 100):
        print(f"logging_steps = {every}: {1 + (ratio - 1) / every:.3f} of the time of a run without it")


if __name__ == "__main__":
    main()
