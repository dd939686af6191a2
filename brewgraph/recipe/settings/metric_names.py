"""The metrics of each label type; no torch here. The maths is in `training/metrics.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.label_types import LABEL_TYPES, LOSS, LabelType
from brewgraph.recipe.tag_schemes import find_scheme
from brewgraph.syntax.foreign import instead


def metric_names(label_type: LabelType, classes: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics for these classes: `f1` of class 1 needs two, entities need tags such as `B-PER`. Unknown classes
    (empty) exclude nothing.
    """
    excluded: tuple[str, ...] = ()
    if classes and len(classes) != 2:
        excluded += label_type.binary
    if classes and find_scheme(classes) is None:
        excluded += label_type.entities
    return tuple(name for name in label_type.metrics if name not in excluded)


def greater_is_better(name: str) -> bool:
    """Whether a higher value is better; the task in `ner/f1` does not matter."""
    metric = name.rpartition("/")[2]
    return metric != LOSS and not any(metric in kind.lower_is_better for kind in LABEL_TYPES.values())


def metric_words(name: str) -> str:
    """The display name of a metric: `macro F1`, `exact match`, `ner/F1`."""
    task, slash, metric = name.rpartition("/")
    spelled = f"_{metric}_"
    for kind in LABEL_TYPES.values():
        for part, words in kind.words.items():
            spelled = spelled.replace(f"_{part}_", f"_{words}_")
    return f"{task}{slash}{spelled[1:-1].replace('_', ' ')}"


def keyed(task: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values of a task by full metric name: `ner/f1`, or `f1` if tasks have no names."""
    return {f"{task}/{name}" if task else name: value for name, value in values.items()}


def missing_metrics(label_type: LabelType, unanswerable: Mapping[str, int]) -> tuple[str, ...]:
    """The answer metrics that a data set lacks, by the number of unanswerable questions per split."""
    names = label_type.metrics
    if not (unanswerable.get("train") or unanswerable.get("dev")):
        return tuple(name for name in names if name.startswith(("has_answer", "no_answer")))
    return () if unanswerable.get("dev") else tuple(name for name in names if name.startswith("no_answer"))


def validate_metric(
    name: str,
    tasks: Mapping[str, LabelType],
    classes: Mapping[str, Sequence[str]] | None = None,
    missing: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The full name of the metric that `metric_for_best_model = "…"` means: `f1`, or `ner/f1` where tasks have names.

    `tasks` are the label types by task name (one named "" where the spec has no tasks), `classes` the classes where
    they are known, `missing` metrics that the data of a task do not give. The task may be left out where one alone has
    this metric. Raises `SourceFault` B126 for a metric that no evaluation is going to give, or that several tasks have.
    """
    there = {
        task: [
            metric
            for metric in (*metric_names(kind, (classes or {}).get(task, ())), LOSS)
            if metric not in (missing or {}).get(task, ())
        ]
        for task, kind in tasks.items()
    }
    known = {f"{task}/{metric}" if task else metric: metric for task, names in there.items() for metric in names}
    if name in known:
        return name
    fits = [full for full, metric in known.items() if metric == name]
    if len(fits) == 1:
        return fits[0]
    field = "metric_for_best_model"
    if fits:
        help = f"choose {' or '.join(f'`{full}`' for full in fits)}"
        raise SourceFault("B126", f"several tasks have a metric `{name}`", help=help, field=field)
    near = instead("metric", name, known)
    raise SourceFault(
        "B126",
        f"there is no metric `{name}`",
        help=f"{near}{'; ' if near.startswith('write') else ' '}the metrics here are {listing(known)}".strip(),
        field=field,
    )
