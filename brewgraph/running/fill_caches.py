"""`brewgraph cache`: compute what a spec keeps on disk before it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelerate.utils import send_to_device

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import UsageError
from brewgraph.running.data_cache import DataCache
from brewgraph.running.run_identity import finished_teachers
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.processes import make_accelerator, this_process
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import micro_batches, place_stage


def fill_caches(
    checked: Checked, reporter: Reporter, *, runs: Path | None = None, allow_python: bool = False
) -> Mapping[str, tuple[int, int, int]]:
    """Compute the kept values of all training data, in the batches of the first epoch: for each `cache` how many
    examples this process wrote, found there, and left out at the limit.

    An interrupted call goes on where it stopped. Several ranks share the batches. Raises `UsageError` for a spec
    without a `cache`, or whose teachers are specs that are not trained yet.
    """
    if not checked.recipe.caches:
        help = 'write `cache NAME = big.logits at "folder"`, and use NAME in the loss'
        raise UsageError(f"{Path(checked.recipe.source.name).name} keeps nothing on disk: {help}")
    teachers = finished_teachers(checked, (), runs, option="--runs", allow_python=allow_python)
    builder = SpecBuilder(checked, teachers=teachers, allow_python=allow_python, scored=False)
    process, counts = this_process(), dict[str, tuple[int, int, int]]()
    for index, work in enumerate(DataCache(builder, reporter.say).stages(checked)):
        accelerator, distiller = make_accelerator(work.settings), work.make()
        try:
            distiller.to(accelerator.device)
            feeds = place_stage(index, work, process.process_index, process.num_processes).feeds
            lengths = {task: max(map(len, own.values())) for task, own in feeds.items()}
            done = 0
            reporter.begin(work.name or "caches", sum(lengths.values()), done)
            for task, own in feeds.items():
                for _, (batch,) in zip(range(lengths[task]), micro_batches(own, 1, 0), strict=False):
                    with accelerator.autocast():
                        distiller.fill_caches(send_to_device(batch, accelerator.device), task)
                    done += 1
                    reporter.step(done, None, {})
            for name, numbers in distiller.cached().items():
                written, read, left_out = (a + b for a, b in zip(counts.get(name, (0, 0, 0)), numbers, strict=True))
                counts[name] = written, read, left_out
        finally:
            reporter.end()
            distiller.release()
            accelerator.free_memory()
    return counts
