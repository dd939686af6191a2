"""The public verbs: `load`, `check`, `run`, `format_text`. Each is a few lines; the rooms below do the work.

The rooms are imported when a verb is called, so that `import brewgraph`, and with it the command, begins at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.diagnostics import BrewWarning, Diagnostic, SpecError, UsageError
from brewgraph.display.lines import count
from brewgraph.source import Source

if TYPE_CHECKING:
    import networkx as nx
    from torch import nn

    from brewgraph.checking.check import Checked
    from brewgraph.display.plan import Plan
    from brewgraph.display.render import Shown
    from brewgraph.running.run import RunResult
    from brewgraph.runtime.distiller import Distiller
    from brewgraph.training.reporter import Reporter


class Recipe:
    """A checked spec: look at its `graph`, or `build()` it into a torch module."""

    def __init__(self, checked: Checked):
        self._checked = checked

    @property
    def graph(self) -> nx.DiGraph:
        """The dependency graph of the loss, equal values merged; nodes carry their `Node` under `"node"`.

        What a run leaves out or ends early, `plan` says.
        """
        if self._checked.graph is None:
            raise SpecError(self._checked.warnings)
        return self._checked.graph

    @property
    def graphs(self) -> Mapping[tuple[str, str], nx.DiGraph]:
        """The graph of every task, by the names of its stage and its own, empty where the spec has none."""
        return self._checked.graphs

    def picture(self, grain: str = "terms", task: str | None = None) -> Shown:
        """The graph to look at: a notebook draws it, `.save("graph.html")` (or .svg) writes it.

        `grain` is `terms`, what the loss is made of, or `nodes`, every step; `task` one of several: `STAGE/TASK`.
        """
        from brewgraph.display.render import find_task
        from brewgraph.inspect.graph_of import show

        if not self.graphs:
            raise SpecError(self._checked.warnings)
        return show(self._checked, grain, None if task is None else find_task(task, self.graphs))

    def plan(self, *, cost: bool = True, skip: Collection[str] = ()) -> Plan:
        """What a run will do, as `brewgraph plan` says it: a notebook shows it, `print` writes it in lines.

        Without what a batch costs, which takes a second or two for a large model, where `cost` is false. `skip` names
        passes that are left out. Raises `UsageError` for one that is none.
        """
        from brewgraph.graph.optimize import check_names
        from brewgraph.inspect.plan_of import plan_of

        check_names(skip)
        return plan_of(self._checked, cost=cost, skip=tuple(skip))

    def __repr__(self) -> str:
        recipe = self._checked.recipe
        named = [f"{m.role} {m.name}" for m in recipe.models.values()] + [f"data {name}" for name in recipe.data]
        warned = f"; {count(len(self.warnings), 'warning')}" if self.warnings else ""
        return f"<recipe {recipe.source.name.strip('<>')}: {', '.join(named)}{warned}>"

    def _repr_svg_(self) -> str | None:
        return self.picture()._repr_svg_() if self.graphs else None

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What the check found legal but worth a word."""
        return self._checked.warnings

    def build(
        self,
        *,
        allow_python: bool = False,
        stage: str | None = None,
        skip: Collection[str] = (),
        runs: str | Path | None = None,
        **models: nn.Module,
    ) -> Distiller:
        """The loss as a torch module: `distiller(batch).loss.backward()`; with tasks `distiller(batch, task="ner")`.

        Of a spec with stages it is the first one's, or that of the `stage` that is named.

        Models of your own take the place of the spec's by name: `recipe.build(bert=my_teacher, tiny=my_student)`. The
        others are loaded, teachers as far as losses need them. Two models of one declaration are one forward only where
        one object runs for both. Teachers that are another spec's student are taken from its finished run: in the
        folder `runs`, or the one that BREWGRAPH_RUNS names, else beside that spec or this one.

        Raises `UsageError` where a module gives another shape or number of the features that the spec takes than the
        declared model, where it is given for the student and a teacher at once, and where a model's folder has another
        configuration or tokenizer than when the spec was loaded. Raises `SpecError` B332 where your teacher scores
        far better on rows of the spec's data with its classes in another order, as far as its tokenizer is known.

        `skip` names passes that are left out, as `skip=("truncate_models",)`: the loss is the same, and takes longer.
        """
        from brewgraph.running.run import finished_teachers
        from brewgraph.running.spec_builder import SpecBuilder
        from brewgraph.running.unchanged import check_unchanged

        finished = finished_teachers(
            self._checked, models, None if runs is None else Path(runs), allow_python=allow_python
        )
        teachers = {name: path / "student" for name, path in finished.items()}
        builder = SpecBuilder(
            self._checked, given=models, teachers=teachers, allow_python=allow_python, skip=skip, scored=False
        )
        check_unchanged(self._checked, models)
        distiller = builder.distiller(stage=stage)
        if models:
            from brewgraph.running.data_cache import DataCache
            from brewgraph.running.teacher_check import check_given_agree

            check_given_agree(DataCache(builder), builder.checked, models)
        return distiller


def load(path: str | Path, /, **params: Any) -> Recipe:
    """Read and check a spec; keyword arguments replace its params. Raises `SpecError` with every fault found.

    What the check warns of is a `BrewWarning` each, at the caller's line, and in `warnings` of the recipe.
    """
    from brewgraph.checking.check import read_spec

    return Recipe(_warned(read_spec(path), params))


def loads(text: str, /, **params: Any) -> Recipe:
    """The same for a spec in a string; its relative paths start at the working directory."""
    if not isinstance(text, str):
        remedy = ": `bg.load(path)` reads a file" if isinstance(text, Path) else ""
        raise UsageError(f"the text of a spec is wanted, got a value of the type `{type(text).__name__}`{remedy}")
    if "\n" not in text.strip() and text.strip().endswith(".brew"):
        raise UsageError(f"the text of a spec is wanted, and `{text.strip()}` is a path: `bg.load(path)` reads a file")
    return Recipe(_warned(Source(text), params))


def _warned(source: Source, params: Mapping[str, Any]) -> Checked:
    """The check of a spec, its warnings given at the line outside of brewgraph that asked for it."""
    from brewgraph.checking.check import check

    checked = check(source, params)
    package, level = str(Path(__file__).parent), 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    for diagnostic in checked.warnings if os.environ.get("RANK", "0") == "0" else ():  # one rank of several speaks
        warnings.warn(BrewWarning.of(diagnostic), stacklevel=level)
    return checked


def check(path: str | Path, /, **params: Any) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with a spec, errors and warnings, in the order of the text; empty where nothing is."""
    from brewgraph.checking.check import check, read_spec

    try:
        return check(read_spec(path), params).warnings
    except SpecError as error:
        return error.diagnostics


def run(
    path: str | Path,
    /,
    *,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
    without_teacher: bool = False,
    allow_python: bool = False,
    skip: Collection[str] = (),
    reporter: Reporter | None = None,
    params: Mapping[str, Any] | None = None,
    **given: Any,
) -> RunResult:
    """Train a spec, as the command does with options of these names. Other keywords replace params of the spec, as
    `T=4`; a param that is called like an option goes into `params`.

    A run lies in `runs/` beside its spec, or in the folder that `runs` or the variable BREWGRAPH_RUNS names.
    Warnings are those of `load`; what else there is to say goes to the reporter: in a notebook a bar, else Python's
    logging under the name `brewgraph`, at the level INFO.
    """
    from brewgraph.checking.check import read_spec
    from brewgraph.running.run import Options, run_checked
    from brewgraph.training.notebook import NotebookReporter, in_notebook
    from brewgraph.training.reporter import LogReporter

    here, home = (None if place is None else Path(place) for place in (out, runs))
    options = Options(here, home, force, dry_run, without_teacher, allow_python, tuple(skip))
    checked = _warned(read_spec(path), {**given, **(params or {})})
    return run_checked(checked, options, reporter or (NotebookReporter() if in_notebook() else LogReporter()))


def format_text(text: str) -> str:
    """A spec's text in the one way in which it is written. Raises `SpecError` where it does not parse."""
    from brewgraph.syntax.format import format_source

    return format_source(Source(text))
