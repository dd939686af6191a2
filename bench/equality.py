"""One step is one step: how far the weights of ten steps differ between the ways to compute them.

    python bench/equality.py --out docs/equality.md

For a loss of each unit (examples, tokens, pairs, labels, the batch, and the first four together) a small student is
trained for ten steps of 32 rows by `brewgraph run`, at once, in micro-batches, on two ranks (gloo), on two ranks that
share the rows unevenly, without the packed layout, killed on two ranks and resumed on one, and sharded (FSDP2) over two
ranks, at once and killed and resumed on one. The table has the largest difference of a final weight from the run at
once, in fp32.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS, STEPS = 320, 10
LOSSES = {
    "example": "kd(bert.logits -> tiny.logits, T=4)",
    "token": "mse(bert.hidden[2] -> tiny.hidden[1] via linear)",
    "pair": "nst(bert.hidden[2] -> tiny.hidden[1])",
    "label": "ce(d.labels -> tiny.logits)",
    "batch": "infonce(bert.hidden[2] -> tiny.hidden[1] via linear)",
    "batch, by sums": "emd(bert.hidden[:] -> tiny.hidden[:] via linear) + kd(bert.logits -> tiny.logits, T=flsw(4))",
    "all": "kd(bert.logits -> tiny.logits, T=4) + mse(bert.hidden[2] -> tiny.hidden[1] via linear) "
    "+ nst(bert.hidden[2] -> tiny.hidden[1]) + 0.3 * ce(d.labels -> tiny.logits)",
}
SPEC = """teacher bert = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", text=text, label=label, batch={batch}, max_length=32)
loss = {loss}
train {{ steps = {steps}; accumulate = {accumulate}; optimizer = adamw(lr=1e-3, eps=1e-5); save_steps = 1 steps
    logging_steps = 1 }}
"""
WAYS: Mapping[str, tuple[int, int, int, tuple[str, ...]]] = {
    "1 x 32": (32, 1, 1, ()),
    "4 x 8": (8, 4, 1, ()),
    "2 ranks x 16": (32, 1, 2, ()),
    "2 ranks of 16 and 15": (31, 1, 2, ()),
    "padded": (32, 1, 1, ("--skip-pass", "pack_tokens")),
    "2 ranks, resumed on 1": (32, 1, 2, ()),
    "FSDP2 x 2": (32, 1, 2, ()),
    "FSDP2 x 2, resumed on 1": (32, 1, 2, ()),
}
"""Batch, micro-batches, ranks and options of each way. Uneven ranks have 31 rows a step; so has their reference."""


SHARDED = """distributed_type: FSDP
num_processes: 2
main_process_port: 0
use_cpu: true
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}
"""
"""The configuration of accelerate that shards."""


def command(spec: Path, out: Path, ranks: int, options: tuple[str, ...], *, sharded: bool = False) -> list[str]:
    """`brewgraph run` on so many ranks."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    if sharded and ranks > 1:
        (out.parent / "fsdp2.yaml").write_text(SHARDED, encoding="utf-8")
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(out.parent / "fsdp2.yaml")]
    return [sys.executable, *launch, "-m", "brewgraph", "run", str(spec), "--out", str(out), *options]


def run(folder: Path, unit: str, way: str, batch: int) -> dict[str, Tensor]:
    """The weights that a way of training ends with."""
    _, accumulate, ranks, options = WAYS[way]
    sharded = way.startswith("FSDP2")
    out = folder / f"{unit}-{way}-{batch}".replace(" ", "")
    spec = out.with_suffix(".brew")
    text = SPEC.format(batch=batch, accumulate=accumulate, loss=LOSSES[unit], steps=STEPS)
    spec.write_text(text, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    if "resumed" in way:
        first = subprocess.Popen(
            command(spec, out, ranks, options, sharded=sharded), env=environment, stdout=subprocess.DEVNULL
        )
        while first.poll() is None and not list((out / "checkpoints").glob("step-*/complete.json")):
            time.sleep(0.001)
        if first.poll() is None:
            for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
                process.kill()
        first.wait()
        ranks = 1
    whole = command(spec, out, ranks, options, sharded=sharded)
    done = subprocess.run(whole, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    if sharded and ranks > 1 and "are sharded over 2 ranks" not in done.stdout + done.stderr:
        raise RuntimeError(f"{way}: nothing was sharded")
    if "resumed" in way and "resumed at step" not in done.stdout + done.stderr:
        raise RuntimeError(f"{way}: the run was over before it was killed")
    return load_file(out / "student" / "model.safetensors")


def main() -> None:
    """Run all ways for all units, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="the page to write the table to")
    parser.add_argument("--unit", action="append", choices=LOSSES, help="only this unit; may be repeated")
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    from tests.small import save, write_data

    folder = Path(tempfile.mkdtemp(prefix="equality-"))
    write_data(folder, train=ROWS)
    save(folder / "bert", width=32, seed=1)
    save(folder / "tiny", width=16, layers=1, seed=2)
    chosen = options.unit or list(LOSSES)
    lines = [f"| unit of the loss | {' | '.join(list(WAYS)[1:])} |", f"|{'---|' * len(WAYS)}"]
    for unit in chosen:
        cells = []
        whole: dict[int, dict[str, Tensor]] = {}
        for way, (batch, accumulate, _, _) in WAYS.items():
            rows = batch * accumulate
            if rows not in whole:
                whole[rows] = run(folder, unit, "1 x 32", rows)
            if way == "1 x 32":
                continue
            if accumulate > 1 and unit.startswith("batch"):
                cells.append("W212")
                continue
            weights = run(folder, unit, way, batch)
            worst = max(float((whole[rows][name] - weights[name]).abs().max()) for name in weights)
            cells.append(f"{worst:.1e}")
            print(unit, way, cells[-1], flush=True)
        lines.append(f"| {unit} | {' | '.join(cells)} |")
    shutil.rmtree(folder)
    print("\n".join(lines))
    if options.out is not None and not options.unit:
        page = options.out.read_text(encoding="utf-8").partition("<!-- table -->")[0]
        options.out.write_text(f"{page}<!-- table -->\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
