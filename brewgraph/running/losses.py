"""The losses of a trained student on held-out rows, and the loss of a finished run built again for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import datasets
from safetensors.torch import load_file

from brewgraph.checking.check import check
from brewgraph.checking.checked import Checked
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import SpecError, UsageError, listing
from brewgraph.graph.scalars import Horizon
from brewgraph.recipe.recipe import Stage, Task, columns_used
from brewgraph.running.data_cache import DataCache, graphs_of
from brewgraph.running.finished import SPLITS, FinishedRun, FinishedTask
from brewgraph.running.predict import labelled_rows, read_like, split_rows
from brewgraph.running.run_identity import finished_teachers
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.checkpoint import load_student
from brewgraph.training.evaluation import losses_on_dev
from brewgraph.training.processes import make_accelerator, this_process
from brewgraph.training.work import place_stage

Rows: TypeAlias = datasets.Dataset | ReadyBatches


def losses_on(
    data_cache: DataCache, checked: Checked, stage: Stage, task: Task, rows: Rows | str, folder: Path
) -> dict[str, float] | None:
    """The loss and its terms on some rows, with the weights of the stage's end; None for a loss of several data sets.

    The student is the builder's, its projections are those that its run saved in `folder`. `rows` are the name of a
    split of the task's data, other examples like them, or batches of tensors.
    """
    work = next(work for work in data_cache.stages(checked) if work.name == stage.name)
    material = work.materials[task.name]
    if not isinstance(rows, ReadyBatches):
        data = material.name
        encodings, _ = data_cache.encodings(data, data_cache.readers(graphs_of(checked, stage, task), data))
        if isinstance(rows, str):
            rows = data_cache.split(data, rows, encodings)
        else:
            rows = data_cache.encode(data, rows, encodings, whole=True)
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
        if (saved := folder / "projections.safetensors").is_file():
            distiller.projections.load_state_dict(load_file(saved))
        return losses_on_dev(distiller, task.name, material, accelerator)
    finally:
        distiller.release()


class RebuiltLoss:
    """The loss of a finished run, built again around its trained student: for students that no labels can score.

    Raises `UsageError` if a model that the loss needs is gone: the files of a teacher, an average of the student,
    Python code that may not run.
    """

    def __init__(self, run: FinishedRun, *, allow_python: bool = False):
        self.run, source = run, run.recipe.source
        needs = f"`{run.folder.path}` has no labels to score it by, and its losses need what it was trained with: "
        try:
            self.checked: Checked = check(source, run.recipe.params)
            home = run.folder.whole.path.parent
            finished = finished_teachers(self.checked, (), home, allow_python=allow_python)
            teachers = {name: path / "student" for name, path in finished.items()}
            self.builder = SpecBuilder(self.checked, teachers=teachers, allow_python=allow_python, scored=False)
            needed = {m for m in self.checked.recipe.models if self.builder.runs(m)}
            if gone := [m for m in needed if self.checked.recipe.models[m].source.averaged is not None]:
                raise UsageError(f"{listing(gone)} followed the student in training, and is not kept")
            for model in needed:
                self.builder.model(model)
        except SpecError as error:
            first = error.diagnostics[0]
            raise UsageError(f"{needs}{first.message}" + (f"; {first.help}" if first.help else "")) from error
        except UsageError as error:
            raise UsageError(f"{needs}{error}") from error
        name = self.checked.recipe.student.name
        self.data_cache = DataCache(self.builder)
        self.builder.models[name] = load_student(self.builder.model(name), run.folder.student)

    def losses(self, task: FinishedTask, source: str) -> tuple[dict[str, float], int]:
        """The loss of a task and its terms on a split, or on a file laid out like its data; and how many examples.

        Raises `UsageError` for a missing split or file, and for a loss of several data sets.
        """
        stage, declared = next((s, t) for s, t in reversed(self.checked.recipe.tasks) if t.name == task.name)
        rows = self._rows(task, source)
        values = losses_on(self.data_cache, self.checked, stage, declared, rows, self.run.folder.path)
        if values is None:
            raise UsageError(f"a loss that reads several data sets ({listing(declared.data)}) cannot be evaluated")
        return values, sum(len(b["index"]) for b in rows.dev) if isinstance(rows, ReadyBatches) else len(rows)

    def _rows(self, task: FinishedTask, source: str) -> Rows:
        name = task.data.name
        if task.data.source.holds_tensors:
            batches = self.builder.tensor_batches(name)
            if source != "dev" or not batches.dev:
                raise UsageError(f"`{name}` holds batches of tensors: its loss is evaluated on dev.safetensors only")
            return batches
        if source in SPLITS:
            return split_rows(self.builder.examples(name), source)
        if task.label_type:
            return labelled_rows(task, source)
        return read_like(task, Path(source), labelled=False, more=columns_used(self.checked.recipe)[name])
