"""What a step sends between ranks, and what each rank holds: counted, beside the formulas of docs/scale.md.

    python bench/sharding.py --write docs/scale.md

Two ranks (gloo) train a BERT of four layers by a spec, as DDP and as FSDP2, with and without micro-batches. The tensors
of all collectives of the second step are added up: a ring of n ranks sends (n - 1) / n of the result of an all-gather
and of the input of a reduce-scatter, twice that for an all-reduce.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
RANKS = 2
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
WAYS: dict[str, dict[str, str]] = {
    "DDP": {"ACCELERATE_USE_FSDP": "false"},
    "FSDP2": {**FSDP2, "FSDP_RESHARD_AFTER_FORWARD": "true"},
    "FSDP2, `fsdp_reshard_after_forward: false`": {**FSDP2, "FSDP_RESHARD_AFTER_FORWARD": "false"},
}
SPEC = """teacher bert = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", text=text, label=label, batch=4, max_length=32)
loss = kd(bert.logits -> tiny.logits, T=4) + mse(bert.hidden[2] -> tiny.hidden[1] via linear)
train {{ steps = 2; accumulate = {accumulate} }}
"""
HEADER = ("way", "micro-batches", "sent per step", "formula", "held by a rank", "formula")


def formula(way: str, parts: int, whole: int, layers: int) -> int:
    """Bytes that a rank sends in a step of `parts` micro-batches; `layers` of the `whole` parameters are in layers."""
    share = 4 * (RANKS - 1) / RANKS
    if way == "DDP":
        return round(share * 2 * whole)
    again = 0 if "false" in way else layers
    return round(share * (parts * (whole + again) + whole))


def work(folder: Path) -> None:
    """Train on this rank in each way, and write what was counted."""
    from torch.distributed.tensor import DTensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from brewgraph.checking.check import check, read_spec
    from brewgraph.running.data_cache import DataCache
    from brewgraph.running.spec_builder import SpecBuilder
    from brewgraph.training import loop
    from brewgraph.training.processes import this_process
    from brewgraph.training.reporter import Reporter

    ring = {"_allgather_base_": (0, 1), "_reduce_scatter_base_": (1, 1), "allreduce_": (0, 2)}
    """For each collective the argument whose bytes count, and how often."""

    class Counting(TorchDispatchMode):
        sent = 0.0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            namespace, _, name = func._schema.name.partition("::")
            if namespace == "c10d" and name in ring:
                which, times = ring[name]
                size = sum(x.numel() * x.element_size() for x in tree_leaves(args[which]))
                self.sent += times * size * (RANKS - 1) / RANKS
            return func(*args, **(kwargs or {}))

    seen: dict[str, Any] = {}
    step = loop.StageRun._step

    def counted(self: Any, *rest: Any) -> None:
        with Counting() as counting:
            step(self, *rest)
        state = [x for of in self.state.optimizer.state.values() for x in of.values() if x.dim()]
        held = [x.to_local() if isinstance(x, DTensor) else x for x in (*self.clipped, *self.clipped, *state)]
        layer = [p.numel() for name, p in self.distiller.named_parameters() if ".layer." in name]
        seen.update(
            sent=counting.sent,
            held=sum(x.numel() * x.element_size() for x in held),  # weights, gradients like them, running means
            whole=sum(p.numel() for p in self.clipped),
            layers=sum(layer),
        )

    loop.StageRun._step = counted  # type: ignore[method-assign]
    rows = []
    for way, environment in WAYS.items():
        os.environ.update(environment)
        for parts in (1, 4):
            spec = folder / f"{parts}.brew"
            builder = SpecBuilder(check(read_spec(spec)))
            loop.train(DataCache(builder).stages(builder.checked), "tiny", None, Reporter(), name="x")
            rows.append([way, parts, dict(seen)])
    if this_process().is_main_process:
        (folder / "rows.json").write_text(json.dumps(rows))
    this_process().destroy_process_group()


def main() -> None:
    """Launch the ranks and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, help="the page to write the table to")
    parser.add_argument("--rank-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_in is not None:
        work(options.rank_in)
        return
    from tests.small import save, write_data

    folder = Path(tempfile.mkdtemp(prefix="sharding-"))
    write_data(folder, train=64)
    save(folder / "bert", width=32, seed=1)
    save(folder / "tiny", width=64, layers=4, intermediate_size=256, seed=2)
    for parts in (1, 4):
        (folder / f"{parts}.brew").write_text(SPEC.format(accumulate=parts), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}", __file__]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *launch, "--rank-in", str(folder)], env=environment, check=True)
    lines = [f"| {' | '.join(HEADER)} |", "|---|---:|---:|---:|---:|---:|"]
    for way, parts, seen in json.loads((folder / "rows.json").read_text()):
        held = 16 * seen["whole"] // (1 if way == "DDP" else RANKS)
        numbers = (seen["sent"], formula(way, parts, seen["whole"], seen["layers"]), seen["held"], held)
        lines.append(f"| {way} | {parts} | {' | '.join(f'{round(x):,}' for x in numbers)} |")
    lines.append("")
    lines.append(f"Bytes; {seen['whole']:,} parameters are trained, {seen['layers']:,} of them in layers.")
    shutil.rmtree(folder)
    print("\n".join(lines))
    if options.write is not None:
        before, _, after = options.write.read_text(encoding="utf-8").partition("<!-- counted -->\n")
        rest = after.partition("<!-- end -->")[2]
        table = "\n".join(lines)
        options.write.write_text(f"{before}<!-- counted -->\n\n{table}\n\n<!-- end -->{rest}", encoding="utf-8")


if __name__ == "__main__":
    main()
