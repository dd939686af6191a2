"""The losses of a trained student on rows that it was not trained on: the program that trained it, in eval mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from brewgraph.checking.check import Checked
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.graph.scalars import Horizon
from brewgraph.recipe.recipe import Stage, Task
from brewgraph.running.data_cache import DataCache, graphs_of
from brewgraph.training.loop import make_accelerator
from brewgraph.training.processes import this_process
from brewgraph.training.scoring import losses_on_dev
from brewgraph.training.work import place_stage


def losses_on(
    data_cache: DataCache, checked: Checked, stage: Stage, task: Task, rows: Any, folder: Path
) -> dict[str, float] | None:
    """The loss and its terms on some rows, with weights as at the stage's end; None for a loss of several data sets.

    The student is the builder's, its projections are those that its run kept in `folder`. `rows` are a split of
    the task's data by name, other examples like them, or ready batches.
    """
    work = next(work for work in data_cache.stages(checked) if work.name == stage.name)
    material = work.materials[task.name]
    if not isinstance(rows, ReadyBatches):
        data = material.name
        encodings, _ = data_cache.encodings(data, data_cache.readers(graphs_of(checked, stage, task), data))
        named = isinstance(rows, str)
        rows = (
            data_cache.split(data, rows, encodings) if named else data_cache.encode(data, rows, encodings, whole=True)
        )
    material = replace(material, dev=rows)
    if not material.has_losses:
        return None
    process = this_process()
    length = place_stage(0, work, process.process_index, process.num_processes).length
    accelerator = make_accelerator(stage.train)
    distiller = work.make()
    try:
        distiller.to(accelerator.device)
        distiller.horizon = Horizon(length.steps, length.per_epoch)
        if (kept := folder / "projections.safetensors").is_file():
            distiller.projections.load_state_dict(load_file(kept))
        return losses_on_dev(distiller, task.name, material, accelerator)
    finally:
        distiller.release()
