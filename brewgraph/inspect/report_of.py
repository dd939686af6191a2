"""The report of a run, from what its folder holds and its spec computes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from brewgraph.checking.check import Checked, check
from brewgraph.diagnostics import BrewError, UsageError
from brewgraph.display.lines import number
from brewgraph.display.plots import COLOURS, Cloud, Curves, Grid, Plot, Scatter
from brewgraph.display.report import Comparison, Report
from brewgraph.paths import is_file, parse_json, write_file
from brewgraph.recipe.label_types import LABEL_TYPES, Form
from brewgraph.recipe.settings.metric_names import keyed, metric_words
from brewgraph.running.agreement import Agreement, read_agreements
from brewgraph.running.changes import spec_of
from brewgraph.running.damage import ANEW, refuse_damage
from brewgraph.running.records import RunRecord, read_record
from brewgraph.running.scores import ScoreRow, cells_of
from brewgraph.training.folder import RunFolder, display_path

REPORT = "report.html"
"""The file of a run's folder that its report is written to."""
_HUGE = 1e300
"""Numbers beyond cannot be drawn."""
_TERMS = 11
"""The most terms that are drawn: those with the largest sums of weighted values."""
_GRADIENTS = 60
"""The most points of a curve of gradients, which differ much from step to step."""


def report_of(record: RunRecord, missing: Sequence[str] = ()) -> Report:
    """The report of a run in any state but `damaged`: what it has is shown. Raises `UsageError` for a folder without
    its spec, `RunError` for a damaged one. `missing` are notes on what could not be measured.

    Where the models of the spec can no longer be reached, plan and graph are left out, and a note says so.
    """
    # which load torch: a sweep in processes of its own does not
    from brewgraph.inspect.graph_of import show
    from brewgraph.inspect.plan_of import plan_of

    folder, resolved = record.folder, record.folder.resolved or {}
    refuse_damage(folder, ANEW)
    try:
        source, params = spec_of(folder, f"{record.spec}.brew")
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"the spec of `{display_path(folder.path)}` cannot be read: run it again with --force"
        ) from error
    checked: Checked | None = None
    notes = [record.error] if record.error else []
    try:
        checked = check(source, params)
    except BrewError:
        notes.append("plan and graph are missing: the models or the data of the spec can no longer be reached")
    if record.state != "finished":
        notes.append(f"the run is {record.state}" + (f" at step {record.step:,}" if record.step is not None else ""))
    splits = sorted({split for row in record.table for split in row.splits.values()})
    if splits:
        notes.append(f"scored on {' and '.join(splits)}")
    notes += missing
    about = f"{record.state}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(record.when))}, hash {record.hash}"
    return Report(
        title=record.name,
        about=about,
        command=run_command(display_path(source.folder / f"{record.spec}.brew"), params),
        table=cells_of(record.table, memory=True) if record.table else (),
        notes=notes,
        plots=(*_scatters(record.table), *_curves(folder), *_curves(folder.baseline, "without its teacher: ")),
        spec=source.text,
        lock={
            **resolved.get("circumstances", {}),
            **resolved.get("fingerprints", {}),
            "spec": resolved.get("spec", ""),
        },
        plan=plan_of(checked) if checked is not None else None,
        graphs=show(checked) if checked is not None and checked.graphs else None,
        comparisons=tuple(map(_comparison, read_agreements(folder) or ())),
    )


def write_report(folder: RunFolder) -> Path:
    """Write the report of a run that has just been finished into its folder. Raises `UsageError` without matplotlib."""
    record = read_record(folder)
    assert record is not None
    path = folder.path / REPORT
    # this process is still at the run
    write_file(path, report_of(replace(record, state="finished", step=None)).write())
    return path


def run_command(spec: str, params: Mapping[str, Any]) -> str:
    """The command that runs a spec with these params."""
    return shlex.join(["brewgraph", "run", spec, *(f"--set={name}={_as_set(value)}" for name, value in params.items())])


def _as_set(value: Any) -> str:
    """A param as `--set` reads it; lists of a file are its tuples."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_set, value))}]"
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _scatters(table: Sequence[ScoreRow]) -> Iterator[Scatter]:
    """The main score that most models have over size, and over time and memory where these were measured: of two and
    more models.
    """
    by_name = {name: [row for row in table if name in row.scores] for row in table for name in row.main}
    name = max(by_name, key=lambda name: len(by_name[name]), default="")
    rows = by_name.get(name, [])
    if len(rows) < 2:
        return
    words, sizes = metric_words(name), [row.size for row in rows]
    places = [
        ("size", "MB of weights", [row.size / 1e6 for row in rows]),
        ("time", "ms per sentence, in batches", [1e3 / row.per_second if row.per_second else 0.0 for row in rows]),
        ("memory", "MB of weights and of a batch's tensors", [row.memory / 1e6 for row in rows]),
    ]
    for what, across, values in places:
        if all(values):
            points = [(row.name, value, row.scores[name]) for row, value in zip(rows, values, strict=True)]
            yield Scatter(f"{words} and {what}", across, words, points, sizes)


def _comparison(x: Agreement) -> Comparison:
    """A student beside a teacher: classes of both, calibration, pairs of numbers, places in a text."""
    plots: list[Plot] = []
    if x.counts:
        of = "Types of words" if LABEL_TYPES[x.kind].form is Form.TAGS else "Classes"
        plots.append(Grid(f"{of}, by both", f"{x.student} predicts", f"{x.teacher} predicts", x.names, x.counts))
    if x.reliability:
        curves = {name: [(at, right) for at, right, _ in bins] for name, bins in x.reliability.items()}
        plain = {name: curves[name] for name in (x.student, x.teacher) if name in curves}
        scaled = {name: curves[name] for of in plain if (name := f"{of}, scaled") in curves}
        # lines without values, so that a model has one colour, and is dashed where it is scaled
        between: dict[str, list[tuple[float, float]]] = {" " * i: [] for i in range(1, COLOURS + 1 - len(plain))}
        lines = {**plain, **between, **scaled}
        plots.append(Curves("Calibration", lines, True, "confidence", "share that is right", diagonal=True))
    if x.points:
        plots.append(Cloud(f"{x.measured}, by both", x.teacher, x.student, x.points))
    plots += [Curves(name, {name: line}, True, "place in the text, in tokens") for name, line in x.positions.items()]
    task = f" on task {x.task}" if x.task else ""
    return Comparison(
        title=f"{x.student} beside its teacher {x.teacher}{task}",
        scores=[(name, number(value)) for name, value in x.scores.items()],
        plots=plots,
        examples=x.partings,
        notes=[f"measured on {x.examples:,} examples of {x.data}/{x.split}", *x.notes],
    )


def _curves(folder: RunFolder, of: str = "") -> Iterator[Curves]:
    """The loss with its terms, weighted and unweighted, what each gives to the gradient, the learning rate, and scores
    on dev: as far as logged.
    """
    logged: dict[str, dict[str, list[tuple[int, float]]]] = {}
    losses: dict[str, None] = {}
    terms: dict[str, float] = {}
    for line in _log(folder):
        task = str(line.get("task", ""))
        (loss,) = keyed(task, {"loss": 0.0})
        plain, weighted = (_by_term(line, part) for part in ("terms", "weighted"))
        losses[loss] = None
        for name in plain:
            terms[name] = terms.get(name, 0.0) + abs(weighted.get(name, 0.0))
        values = {
            "loss and weighted terms": {**_numbers({loss: line.get("loss")}), **weighted},
            "terms without weights": plain,
            "share of the gradient on the student": _by_term(line, "gradient_shares"),
            "norm of the gradient on the student": _by_term(line, "gradient_norms"),
            "cosine to the gradient of the loss": _by_term(line, "gradient_cosines"),
            "learning rate": _numbers({"learning rate": line.get("lr")}),
            "scores on dev": keyed(task, _numbers(line.get("dev"))),
        }
        for title, named in values.items():
            for name, value in named.items():
                logged.setdefault(title, {}).setdefault(name, []).append((line["step"], value))
    scores = {metric_words(name): points for name, points in logged.pop("scores on dev", {}).items()}
    # beside what is no share, as a perplexity, shares would be flat
    shares = [name for name, points in scores.items() if all(abs(value) <= 1 for _, value in points)]
    for name, points in scores.items():
        title = "scores on dev" if name in shares and len(shares) > 1 else f"{name} on dev"
        logged.setdefault(title, {})[name] = points
    largest = sorted(terms, key=lambda name: -terms[name])[:_TERMS]
    shown = [*losses, *(name for name in terms if name in largest)]
    for title, lines in logged.items():
        if "gradient" in title and len(terms) < 2:
            continue  # it is that of the loss
        if lines.keys() <= losses.keys() | terms.keys():
            if lines.keys() <= losses.keys():
                title = "loss"
            if lines.keys() & terms.keys() - set(largest):
                title += f", the {len(largest)} largest of {len(terms):,} terms"
            # also of those without values, so that a term has one colour in all plots
            lines = {name: lines.get(name, []) for name in shown if name in lines or name in losses}
        size = -(-max(map(len, lines.values())) // _GRADIENTS) if "gradient" in title else 1
        means = {name: _means(line, size) for name, line in lines.items()}
        of_lines = title if size == 1 else f"{title}, means of {size} lines"
        yield Curves(f"{of}{of_lines}", means, title.endswith(" on dev"))


def _by_term(line: Mapping[str, Any], part: str) -> dict[str, float]:
    """The numbers of terms by name; that of a term within the task of the line holds it already."""
    task = line.get("task")

    def own(name: str) -> str:
        rest = name.removeprefix(f"{task}/")
        return rest if task and task in rest.split("/")[:-1] else name

    return {own(name): value for name, value in _numbers(line.get(part)).items()}


def _means(line: Sequence[tuple[int, float]], size: int) -> list[tuple[float, float]]:
    """The means of so many values each, at the last of their places."""
    parts = (line[i : i + size] for i in range(0, len(line), size))
    return [(part[-1][0], fmean(value for _, value in part)) for part in parts]


def _log(folder: RunFolder) -> Iterator[Mapping[str, Any]]:
    """The lines of metrics.jsonl; one that a crash cut short, or that is none of a run, is left out."""
    path = folder.path / "metrics.jsonl"
    with suppress(OSError):
        for text in path.read_bytes().splitlines() if is_file(path) else ():
            with suppress(ValueError):
                line = parse_json(text)
                if isinstance(line, dict) and _numbers({"step": line.get("step")}):
                    yield line


def _numbers(values: object) -> dict[str, float]:
    """The finite numbers by name in a part of a line of metrics.jsonl; what is none is left out."""
    named = values.items() if isinstance(values, dict) else ()
    return {name: x for name, x in named if type(x) in (int, float) and -_HUGE < x < _HUGE}
