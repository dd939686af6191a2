"""`brewgraph run`: trains a spec's student and compares it with its teachers."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brewgraph.cli.options import AllowPython, Deny, Quiet, Runs, Set, SkipPass, Spec, check_spec, parse_deny
from brewgraph.cli.output import more_about, print_diagnostics, table, tally
from brewgraph.diagnostics import UsageError
from brewgraph.display.lines import number
from brewgraph.training.signals import INTERRUPTIONS, Terminated

if TYPE_CHECKING:
    from brewgraph.checking.check import Checked
    from brewgraph.models.description import ModelDescription
    from brewgraph.running.profile import StepProfile
    from brewgraph.running.scores import ScoreRow


@contextmanager
def _repeatable() -> Iterator[None]:
    """Say of an interruption within the block how to go on."""
    try:
        yield
    except INTERRUPTIONS as interruption:
        what = "terminated" if isinstance(interruption, Terminated) else "interrupted"
        raise type(interruption)(f"{what}; {str(interruption) or 'run the same command again'}") from None


@_repeatable()
def command(
    spec: Spec,
    set: Set = None,
    out: Annotated[Path | None, typer.Option(help="The folder of this run.", show_default="RUNS/NAME-HASH")] = None,
    runs: Runs = None,
    force: Annotated[bool, typer.Option("--force", help="Start again, even if the run is finished.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One step, one evaluation and one save; keeps nothing.")
    ] = False,
    without_teacher: Annotated[
        bool, typer.Option("--without-teacher", help="Train the student only on terms that need no teacher.")
    ] = False,
    allow_python: AllowPython = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Time some steps by node of the loss; keeps only profile.json in the folder."),
    ] = False,
    skip_pass: SkipPass = None,
    deny: Deny = None,
    quiet: Quiet = False,
) -> None:
    """Check a spec, train teachers that are specs, train and evaluate the student, and compare the models.

    A finished run is not repeated; an interrupted one resumes from its last checkpoint.
    """
    if profile and (dry_run or force):
        other, why = ("--dry-run", "each trains a few steps") if dry_run else ("--force", "it repeats no run")
        raise UsageError(f"--profile and {other} exclude each other ({why}): leave one of them out")
    denied_codes, skip = parse_deny(deny), tuple(skip_pass or ())
    if skip:
        from brewgraph.graph.optimize import check_names as check_passes

        check_passes(skip)
    main = os.environ.get("RANK", "0") == "0"  # only one rank prints
    checked = check_spec(spec, set, warn=False)
    denied = [w for w in checked.warnings if w.code in denied_codes]
    if main and (denied or not quiet):
        print_diagnostics(denied if quiet else checked.warnings, sys.stderr)
    if denied:
        if main:
            print(f"{tally(denied)} denied{more_about(denied)}", file=sys.stderr)
        raise typer.Exit(1)
    from brewgraph.cli.progress import make_reporter
    from brewgraph.inspect.report_of import write_report
    from brewgraph.running.run import Options, run_checked

    options = Options(out, runs, force, dry_run, without_teacher, allow_python, skip, report=write_report)
    if profile:
        from brewgraph.running.profile import profile_run

        measured = profile_run(checked, options, make_reporter(sys.stderr, quiet=quiet or not main))
        if main:
            print("\n".join(profile_text(measured)))
        return
    result = run_checked(checked, options, make_reporter(sys.stderr, quiet=quiet or not main))
    if main:
        folder = None if dry_run else result.folder
        print("\n".join(summary(checked, result.table, folder, without_teacher=without_teacher)))


def profile_text(profile: StepProfile) -> Iterator[str]:
    """A profile as a table, and where its trace is."""
    from brewgraph.training.folder import display_path

    rows = [["", "forward", "backward", "of a step"]]
    for x in profile.nodes:
        backward = "" if x.backward is None else f"{x.backward:.1f} ms"
        share = (x.forward + (x.backward or 0.0)) / profile.step
        rows.append([x.name, f"{x.forward:.1f} ms", backward, f"{share:.1%}"])
    rows.append(["a step", f"{profile.step:.1f} ms", "", ""])
    yield table(rows, right=range(1, 4))
    yield f"means of {profile.steps} steps under torch's profiler, which slows them down: compare shares"
    yield f"trace: {display_path(profile.trace)}, which opens at https://ui.perfetto.dev"


def summary(checked: Checked, rows: Sequence[ScoreRow], folder: Path | None, *, without_teacher: bool) -> Iterator[str]:
    """The summary of a run: its table, comparisons of the student with its teachers and with the same student trained
    without them, and where it is saved. After a dry run (`folder` None) the table only.
    """
    from brewgraph.running.scores import cells_of
    from brewgraph.training.folder import display_path

    if rows:
        yield table(cells := cells_of(rows), right=range(1, len(cells[0])))
        yield from scored_on(rows)
    if folder is None:
        return
    recipe = checked.recipe
    student = recipe.student.name
    by_name = {row.name: row for row in rows}
    teachers = [by_name[t.name] for t in recipe.teachers if t.name in by_name]
    words = []
    if not without_teacher and student in by_name:
        words += [ratio(by_name[student], teacher) for teacher in teachers]
    if baseline := by_name.get(f"{student} alone"):
        init = getattr(recipe.student.source, "init", None)
        words += beside_alone(by_name.get(student), baseline, init.model if init is not None else None)
    if words:
        yield ""
        yield from words
    facts = checked.facts(checked.recipe.student)
    yield ""
    yield from where_it_is(Path(display_path(folder / "student")), facts.description if facts is not None else None)


def scored_on(rows: Sequence[ScoreRow]) -> Iterator[str]:
    """The split of scores and losses, by task if tasks differ."""
    splits = {task: split for row in rows for task, split in row.splits.items()}
    if len(set(splits.values())) == 1:
        yield f"scored on {next(iter(splits.values()))}"
    elif splits:
        yield "scored on " + ", ".join(f"{split} ({task})" for task, split in splits.items())


def where_it_is(folder: Path, description: ModelDescription | None) -> Iterator[str]:
    """Where the student is saved, and how to load it: a student with heads has a folder for each."""
    heads = description.heads if description is not None else {}
    yield f"the student is in {folder}" + (", one folder per head" if heads else "")
    if heads:
        loads = [f'{head.auto_class}.from_pretrained("{folder / name}")' for name, head in heads.items()]
        yield "plain transformers loads them: " + loads[0]
        yield from (" " * len("plain transformers loads them: ") + load for load in loads[1:])
    elif description is not None:
        yield f'plain transformers loads it: {description.auto_class}.from_pretrained("{folder}")'


def ratio(student: ScoreRow, teacher: ScoreRow) -> str:
    """Student and teacher in a sentence: size, speed, and the share of each task's main score that is kept.

    Speeds are compared if both do the same tasks and the rounds agree, scores if that of the teacher is above zero.
    """
    from brewgraph.running.scores import faster

    compared = [_times(teacher.size / student.size, "smaller", "larger") if student.size else "of unknown size"]
    compared[0] += f" than {teacher.name}"
    times = faster(student.seconds, teacher.seconds) if set(student.tasks) == set(teacher.tasks) else None
    if times is not None:
        compared.append(_times(times, "faster", "slower"))
    kept = " and ".join(
        _kept(name, student.scores[name], teacher.scores[name])
        for name in student.main
        if math.isfinite(student.scores[name])
        and student.scores[name] >= 0  # correlations may be negative
        and 0 < teacher.scores.get(name, 0) < math.inf
    )
    return f"{student.name} is {', '.join(compared)}{', and ' if kept else ''}{kept}"


def beside_alone(student: ScoreRow | None, alone: ScoreRow, init: str | None) -> Iterator[str]:
    """The same student trained without its teacher, in a sentence; `init` is the model whose layers both start from."""
    from brewgraph.recipe.settings.metric_names import metric_words

    scores = [
        f"{metric_words(name)} {number(alone.scores[name])}{_difference(name, student, alone)}"
        for name in alone.main
        if not math.isnan(alone.scores[name])
    ]
    if student is not None and scores:
        yield f"trained without its teacher it has {' and '.join(scores)}"
    if init is not None:
        yield f"{alone.name} starts from weights of {init}: `init=` copies layers, embeddings and a matching head"


def _difference(name: str, student: ScoreRow | None, alone: ScoreRow) -> str:
    """`, 0.0312 worse`: the difference between the student alone and the one with its teacher."""
    from brewgraph.recipe.settings.metric_names import greater_is_better

    if student is None or name not in student.scores:
        return ""
    gap = alone.scores[name] - student.scores[name]
    if not math.isfinite(gap):
        return ""
    if number(abs(gap)) == number(0.0):
        return ", the same"
    return f", {number(abs(gap))} {'better' if (gap > 0) == greater_is_better(name) else 'worse'}"


def _kept(name: str, student: float, teacher: float) -> str:
    from brewgraph.recipe.settings.metric_names import greater_is_better, metric_words

    if greater_is_better(name):
        return f"keeps {student / teacher:.1%} of its {metric_words(name)}"
    return f"has {student / teacher:.2f} times its {metric_words(name)}"


def _times(factor: float, more: str, less: str) -> str:
    if 0.95 < factor < 1.05:
        return f"no {more}"
    return f"{factor:.1f} times {more}" if factor > 1 else f"{1 / factor:.1f} times {less}"
