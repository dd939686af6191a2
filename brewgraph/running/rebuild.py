"""A finished run's loss built again around its student: for what only the loss tells of a student without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brewgraph.checking.check import Checked, check
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import SpecError, UsageError, listing
from brewgraph.recipe.needs import columns_used
from brewgraph.running.data_cache import DataCache
from brewgraph.running.dev_losses import losses_on
from brewgraph.running.finished import SPLITS, FinishedRun, FinishedTask
from brewgraph.running.predict import labelled_rows, read_like
from brewgraph.running.run import finished_teachers
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.checkpoint import load_student


class Rebuilt:
    """The models of a finished run, the student with its trained weights.

    Raises `UsageError` where a model that the losses need cannot be had any more: a teacher whose files are gone, one
    that followed the student in training, Python code that may not run.
    """

    def __init__(self, run: FinishedRun, *, allow_python: bool = False):
        self.run, source = run, run.recipe.source
        needs = f"`{run.folder.path}` has no labels to score it by, and its losses need what it was trained with: "
        try:
            self.checked: Checked = check(source, run.recipe.params)
            home = run.folder.whole.path.parent
            finished = finished_teachers(self.checked, {}, home, allow_python=allow_python)
            teachers = {name: path / "student" for name, path in finished.items()}
            self.builder = SpecBuilder(self.checked, teachers=teachers, allow_python=allow_python, scored=False)
            read = {m for m in self.checked.recipe.models if self.builder.runs(m)}
            if gone := [m for m in read if self.checked.recipe.models[m].source.averaged is not None]:
                raise UsageError(f"{listing(gone)} followed the student in training, and is not kept")
            for model in read:
                self.builder.model(model)
        except SpecError as error:
            first = error.diagnostics[0]
            raise UsageError(f"{needs}{first.message}" + (f"; {first.help}" if first.help else "")) from error
        except UsageError as error:
            raise UsageError(f"{needs}{error}") from error
        name = self.checked.recipe.student.name
        self.data_cache = DataCache(self.builder)
        self.builder.models[name] = load_student(self.builder.model(name), run.folder.student)

    def losses(self, task: FinishedTask, what: str) -> tuple[dict[str, float], int]:
        """The loss of a task and its terms on a split, or on a file laid out like its data; and how many examples.

        Raises `UsageError` for a split or file that is not there, and for a loss of several data sets.
        """
        folder = self.run.folder.path
        stage, own = next((s, t) for s, t in reversed(self.checked.recipe.tasks) if t.name == task.name)
        rows = self._rows(task, what)
        found = losses_on(self.data_cache, self.checked, stage, own, rows, folder)
        if found is None:
            raise UsageError(f"the loss reads {listing(own.data)}, and is evaluated where it reads one data set")
        ready = isinstance(rows, ReadyBatches)
        return found, sum(len(batch["index"]) for batch in rows.dev) if ready else len(rows)

    def _rows(self, task: FinishedTask, what: str) -> Any:
        name, source = task.data.name, task.data.source
        if source.holds_tensors:
            ready = self.builder.ready(name)
            if what != "dev" or not ready.dev:
                raise UsageError(f"`{name}` are ready batches: a loss is evaluated on those of `dev.safetensors`")
            return ready
        if what in SPLITS:
            splits = self.builder.examples(name).splits
            if what not in splits:
                raise UsageError(f"the data of the run has no split `{what}`: it has {listing(splits)}; or name a file")
            return splits[what]
        if task.label_type:
            return labelled_rows(task, what)
        return read_like(task, Path(what), labelled=False, more=columns_used(self.checked.recipe)[name])
