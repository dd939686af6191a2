"""The public verbs: `load`, `check`, `run`, `sweep`, `format_text`. Deferred imports make `import brewgraph` quick."""

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
    from torch.utils.data import DataLoader

    from brewgraph.checking.check import Checked
    from brewgraph.data.batching.collate import Collator
    from brewgraph.display.plan import Plan
    from brewgraph.display.render import Shown
    from brewgraph.running.run import RunResult
    from brewgraph.running.spec_builder import SpecBuilder
    from brewgraph.running.sweep import SweepResult
    from brewgraph.runtime.distiller import Distiller
    from brewgraph.training.callbacks import Callback
    from brewgraph.training.reporter import Reporter


class CheckedRecipe:
    """A checked spec: look at its `graph` and `plan()`, `run()` it, or `build()` its loss for a loop of your own, whose
    batches `dataloaders()` gives.
    """

    def __init__(self, checked: Checked):
        self._checked = checked

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the text and the params; whoever loads it, as another process, checks them again."""
        recipe = self._checked.recipe
        return _checked_again, (recipe.source, dict(recipe.params))

    def __deepcopy__(self, memo: Any) -> CheckedRecipe:
        """Itself: nothing in a recipe changes."""
        return self

    @property
    def graph(self) -> nx.DiGraph:
        """The dependency graph of the loss with equal values merged; each node has a `Node` under `"node"`.

        `plan` tells what a run skips or ends early.
        """
        if self._checked.graph is None:
            raise SpecError(self._checked.warnings)
        return self._checked.graph

    @property
    def graphs(self) -> Mapping[tuple[str, str], nx.DiGraph]:
        """The graph of every task, by the names of stage and task, each empty if the spec has none."""
        return self._checked.graphs

    def picture(self, grain: str = "terms", task: str | None = None) -> Shown:
        """The graph as a picture: a notebook draws it, `.save("graph.html")` (or .svg) writes it.

        `grain` is `terms`, the terms of the loss, or `nodes`, every step; `task` is one of several: `STAGE/TASK`.
        """
        from brewgraph.inspect.graph_of import show

        if not self.graphs:
            raise SpecError(self._checked.warnings)
        return show(self._checked, grain, task)

    def plan(self, *, cost: bool = True, skip: Collection[str] = ()) -> Plan:
        """What a run will do, as in `brewgraph plan`: a notebook shows it, `print` writes it in lines.

        `cost=False` omits costs, which take a second or two for a large model. `skip` names passes to leave out. Raises
        `UsageError` for an unknown one.
        """
        from brewgraph.inspect.plan_of import plan_of

        return plan_of(self._checked, cost=cost, skip=_passes(skip))

    def __repr__(self) -> str:
        recipe = self._checked.recipe
        parts = [f"{m.role} {m.name}" for m in recipe.models.values()] + [f"data {name}" for name in recipe.data]
        warnings = f"; {count(len(self.warnings), 'warning')}" if self.warnings else ""
        return f"<recipe {recipe.source.name.strip('<>')}: {', '.join(parts)}{warnings}>"

    def _repr_svg_(self) -> str | None:
        return self.picture()._repr_svg_() if self.graphs else None

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The warnings of the check."""
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

        For a spec with stages this is the loss of one `stage`, by default the first.

        Your own models replace those of the spec by name: `recipe.build(bert=my_teacher, tiny=my_student)`. The others
        are loaded, teachers as far as losses need them. Two models of one declaration share a forward only if one
        object runs for both. Teachers that are another spec's student come from its finished run: in the folder `runs`,
        or the one that BREWGRAPH_RUNS names, else beside that spec or this one.

        `skip` names passes to leave out, as `skip=("truncate_models",)`: the loss is the same, but takes longer.

        Raises `UsageError` if a module gives features in another shape or number than the declared model, if it is both
        the student and a teacher, or if a model's folder has changed its configuration or tokenizer since the spec was
        loaded. Raises `SpecError` B332 if your teacher scores far better on the spec's data with its classes in another
        order, as far as its tokenizer is known.
        """
        builder = self._builder("build", allow_python, runs, models, skip)
        distiller = builder.distiller(stage=stage)
        if models:
            from brewgraph.running.data_cache import DataCache
            from brewgraph.running.teacher_check import check_modules_agree

            check_modules_agree(DataCache(builder), builder.checked, models)
        return distiller

    def dataloaders(
        self,
        *,
        allow_python: bool = False,
        stage: str | None = None,
        task: str | None = None,
        runs: str | Path | None = None,
        **models: nn.Module,
    ) -> dict[str, DataLoader[Any]]:
        """The batches of the run, for `distiller(batch)`: a `DataLoader` for each split of the data, `train` first.

            loaders = recipe.dataloaders()
            for batch in loaders["train"]:
                distiller(batch).loss.backward()

        Rows, encoding, order and seeds are those of `run`. Each iteration of `train` is the next epoch, shuffled,
        masked and augmented anew; `set_epoch(n)` of its batch sampler, which accelerate calls by itself, goes to an
        epoch. The other splits are in their order. With several data sets `train` pairs their batches and is the only
        loader. `stage` and `task` choose what the batches are for, as in `build`; your own
        `models`, `allow_python` and `runs` are those of `build`. No weights are loaded.

        With one data set and tokenizer a batch is flat. B rows, L tokens, W words, C classes:

            input_ids, attention_mask   (B, L) int64; token_type_ids, too, where the tokenizer gives them
            labels    class             (B) int64
                      classes           (B, C) float32, 1 where a class applies
                      value             (B) float32
                      tags              (B, L) int64, at the first token of each word, else -100
                      masked            (B, L) int64, the token that was masked, else -100
                      next              (B, L) int64, the next token (already shifted), -100 at the last one
            start, end                  (B) int64, the tokens of an answer, in place of labels
            index                       (B) int64, the number of the example in its split
            words                       (B, W) int64, the first token of each word, where the loss is by words
            weights, and columns        (B), float32 for weights, where the data or a loss names them

        Models with several tokenizers have a dictionary of their own inputs and labels of tokens under their names:
        `batch["bert"]["input_ids"]`; labels of examples stay at the top. Several data sets have one such batch under
        the name of each. `docs/python.md` shows them all.

        Raises `UsageError` for a stage or task that the spec does not have.
        """
        from brewgraph.running.data_cache import DataCache
        from brewgraph.running.loaders import dataloaders

        builder = self._builder("dataloaders", allow_python, runs, models)
        return dataloaders(DataCache(builder, outlines=True), stage, task)

    def collator(
        self,
        data: str | None = None,
        *,
        training: bool = True,
        allow_python: bool = False,
        stage: str | None = None,
        task: str | None = None,
        runs: str | Path | None = None,
        **models: nn.Module,
    ) -> Collator:
        """What makes a batch of rows that are token ids, those of `recipe.dataloaders()["train"].dataset`: for a loader
        or sampler of your own, `DataLoader(rows, batch_size=8, collate_fn=recipe.collator())`.

        The batches are those of `dataloaders`. With `training` texts are masked and augmented by the seed and the epoch
        (`collator.set_epoch(n)`, counted from 0); without, masks are always those of epoch 0. `data` is one of several
        data sets of a task, by default the first; other arguments are those of `dataloaders`.

        Raises `UsageError` for data that the loss does not read, and for batches of tensors, which are not collated;
        the collator raises it for rows that are not encoded.
        """
        from brewgraph.running.data_cache import DataCache
        from brewgraph.running.loaders import collator

        builder = self._builder("collator", allow_python, runs, models)
        return collator(DataCache(builder, outlines=True), stage, task, data, training=training)

    def _builder(
        self,
        verb: str,
        allow_python: bool,
        runs: str | Path | None,
        models: Mapping[str, nn.Module],
        skip: Collection[str] = (),
    ) -> SpecBuilder:
        """The builder of this spec around the caller's models and the students of finished runs."""
        from brewgraph.running.run_identity import finished_teachers
        from brewgraph.running.spec_builder import SpecBuilder, check_unchanged

        home = None if runs is None else Path(runs)
        teachers = finished_teachers(self._checked, models, home, option=f"{verb}(runs=…)", allow_python=allow_python)
        builder = SpecBuilder(
            self._checked,
            modules=models,
            teachers=teachers,
            allow_python=allow_python,
            skip=_passes(skip),
            scored=False,
        )
        check_unchanged(self._checked, models)
        return builder

    def run(
        self,
        *,
        out: str | Path | None = None,
        runs: str | Path | None = None,
        force: bool = False,
        dry_run: bool = False,
        without_teacher: bool = False,
        allow_python: bool = False,
        skip: Collection[str] = (),
        reporter: Reporter | None = None,
        callbacks: Collection[Callback] = (),
    ) -> RunResult:
        """Train this recipe, as `brewgraph run` does with options of these names; see `brewgraph.run`."""
        from brewgraph.inspect.report_of import write_report
        from brewgraph.running.run import Options, run_checked
        from brewgraph.training.callbacks import Callbacks

        here, home = (None if place is None else Path(place) for place in (out, runs))
        told = Callbacks(callbacks).callbacks
        passes = _passes(skip)
        options = Options(
            here, home, force, dry_run, without_teacher, allow_python, passes, callbacks=told, report=write_report
        )
        return run_checked(self._checked, options, reporter or _reporter_of_run(""))


def _passes(skip: Collection[str]) -> tuple[str, ...]:
    """The names of passes to leave out. Raises `UsageError` for an unknown one, and for a text in place of a list."""
    from brewgraph.graph.optimize import check_names

    names = skip if isinstance(skip, str) else tuple(skip)
    check_names(names)
    return tuple(names)


def _checked_again(source: Source, params: Mapping[str, Any]) -> CheckedRecipe:
    """The recipe of a pickle."""
    from brewgraph.checking.check import check

    return CheckedRecipe(check(source, params))


def load(path: str | Path, /, **params: Any) -> CheckedRecipe:
    """Read and check a spec; keyword arguments set its params. Raises `SpecError` with every fault found.

    Each warning of the check is a `BrewWarning` at the caller's line, and in `warnings` of the recipe.
    """
    return CheckedRecipe(_warned(path, params))


def loads(text: str, /, **params: Any) -> CheckedRecipe:
    """The same for a spec in a string; paths are relative to the working directory."""
    if not isinstance(text, str):
        remedy = ": `bg.load(path)` reads a file" if isinstance(text, Path) else ""
        raise UsageError(f"expected the text of a spec, got a value of type `{type(text).__name__}`{remedy}")
    if "\n" not in text.strip() and text.strip().endswith(".brew"):
        raise UsageError(f"expected the text of a spec, got the path `{text.strip()}`: `bg.load(path)` reads a file")
    return CheckedRecipe(_warned(Source(text), params))


def _warned(spec: Source | str | Path, params: Mapping[str, Any]) -> Checked:
    """Check a spec or the one in a file, and warn at the line outside of brewgraph that called it."""
    from brewgraph.checking.check import check, read_spec

    checked = check((spec if isinstance(spec, Source) else read_spec(spec)).settled(), params)
    package, level = str(Path(__file__).parent), 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    for diagnostic in checked.warnings if os.environ.get("RANK", "0") == "0" else ():  # only one rank warns
        warnings.warn(BrewWarning.of(diagnostic), stacklevel=level)
    return checked


def check(path: str | Path, /, **params: Any) -> tuple[Diagnostic, ...]:
    """All errors and warnings of a spec, in the order of the text."""
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
    callbacks: Collection[Callback] = (),
    params: Mapping[str, Any] | None = None,
    **settings: Any,
) -> RunResult:
    """Train a spec, as the command does with options of these names. Other keywords set params of the spec, as `T=4`;
    a param with the name of an option goes into `params`.

    A run is saved in `runs/` beside its spec, or in the folder that `runs` or the variable BREWGRAPH_RUNS names.
    Warnings are those of `load`. Progress goes to the reporter: by default a bar in a notebook, else Python's logging
    under the name `brewgraph` at the level INFO. `callbacks` are told of steps, evaluations and checkpoints and may end
    the run, see `Callback`; a dry run and a run that was finished before tell nothing.

    In the main thread Ctrl-C raises `KeyboardInterrupt`, and SIGTERM `SystemExit` with the code 143, once the current
    step is done and a checkpoint is written, from which the same call resumes.
    """
    recipe = load(path, **{**settings, **(params or {})})
    return recipe.run(
        out=out,
        runs=runs,
        force=force,
        dry_run=dry_run,
        without_teacher=without_teacher,
        allow_python=allow_python,
        skip=skip,
        reporter=reporter,
        callbacks=callbacks,
    )


def sweep(
    path: str | Path,
    /,
    *,
    jobs: int = 1,
    runs: str | Path | None = None,
    allow_python: bool = False,
    params: Mapping[str, Any] | None = None,
    **settings: Any,
) -> SweepResult:
    """Run a spec at every combination of values of its params: `bg.sweep("spec.brew", T=[2, 4, 8], seed=range(5))`.

    Other keywords are params, as in `run`: a list or a range holds values to try, anything else is one value. The
    result prints as a table of means and standard deviations over `seed`; `settings` holds them and `runs` each run. A
    run that fails is in `failed` and ends no other. Finished runs are found again, so the same call resumes a sweep.

    With `jobs` above 1 so many runs are made at a time, in processes that import the calling script: call it below
    `if __name__ == "__main__":`.
    """
    from brewgraph.inspect.report_of import write_report
    from brewgraph.running.sweep import Work, first_point
    from brewgraph.running.sweep import sweep as run_all
    from brewgraph.training.reporter import log

    values = {**settings, **(params or {})}
    axes = {name: x if isinstance(x, list | range) else (x,) for name, x in values.items()}
    source = _warned(path, first_point(axes)).recipe.source
    work = Work(source, None if runs is None else Path(runs), allow_python, _reporter_of_run, jobs, report=write_report)
    return run_all(work, axes, say=log.info)


def _reporter_of_run(label: str) -> Reporter:
    from brewgraph.training.reporter import LogReporter, NotebookReporter, in_notebook

    return NotebookReporter() if in_notebook() else LogReporter()


def format_text(text: str) -> str:
    """A spec's text, formatted. Raises `SpecError` if it does not parse."""
    from brewgraph.syntax.format import format_source

    return format_source(Source(text))
