"""`brewgraph bench`: latency, throughput and memory of a run's teachers, its student and its exports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brewgraph.cli.options import AllowPython, Format, Quiet, Run, Task
from brewgraph.cli.output import count, hush, megabytes, table
from brewgraph.running.finished import open_run
from brewgraph.training.folder import json_text

if TYPE_CHECKING:
    from brewgraph.export.bench import BenchResult


def command(
    run: Run,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models of the spec, exports of the run such as onnx-fp32, or exported folders; by default all.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(metavar="SPLIT|FILE", help="The texts: train, dev, test, or a file.")] = "dev",
    rows: Annotated[int, typer.Option(min=1, help="The number of texts.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Texts of a batch for the throughput.")] = 32,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Threads of the CPU. Repeatable.", show_default="all cores")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")] = "cpu",
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long each model is measured.")] = 5.0,
    task: Task = None,
    allow_python: AllowPython = False,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Measure teachers, student and exports on the same texts: one at a time, and in batches.

    Models take turns text by text, so that other load affects all alike; compare them within one call.
    """
    finished = open_run(run)
    finished_task = finished.task(task)
    hush()
    import torch

    from brewgraph.export.bench import Options, bench

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    results = {}
    for number in dict.fromkeys(threads or [torch.get_num_threads()]):
        options = Options(tuple(models or ()), data, rows, batch, seconds, device, number)
        results[number] = bench(finished, finished_task, options, allow_python=allow_python, say=say)
    for name, reason in next(iter(results.values())).left_out.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    if format == "json":
        content = [{"threads": number, **as_json(result)} for number, result in results.items()]
        print(json_text({"run": run, "data": data, "batch": batch, "device": device, "results": content}, indent=2))
        return
    for place, (number, result) in enumerate(results.items()):
        if place:
            print()
        where = f"{device}, {count(number, 'thread')}"
        lengths = " to ".join(map(str, sorted({min(result.lengths), max(result.lengths)})))
        print(f"{run} on {data}: {count(len(result.lengths), 'text')} of {lengths} tokens; {where}")
        print("\n".join(tables(result, batch, device)))


def as_json(result: BenchResult) -> dict[str, Any]:
    """The measurements in seconds and bytes."""
    first = result.models[0]
    return {
        "texts": len(result.lengths),
        "models": [
            {key: value for key, value in asdict(x).items() if key not in ("latencies", "fastest", "batched")}
            | {f"p{q}": x.percentile(q) for q in (50, 90, 99)}
            | {"faster": x.faster(first), "texts_per_second": x.per_second}
            for x in result.models
        ],
    }


def tables(result: BenchResult, batch: int, device: str) -> Iterator[str]:
    """The table of models, then the medians by length if texts differ in it."""
    first = result.models[0]
    header = ["model", "p50", "p90", "p99", "faster", f"texts/s by {batch}", "memory", "size"]
    rows = [header]
    for x in result.models:
        faster = "" if x is first else f"{x.faster(first):.2f}x"
        memory = "-" if x.memory is None else megabytes(x.memory)
        name = x.name if x.place == device else f"{x.name} ({x.place})"
        times = [milliseconds(x.percentile(q)) for q in (50, 90, 99)]
        rows.append([name, *times, faster, f"{x.per_second:,.0f}", memory, megabytes(x.size)])
    yield table(rows, right=range(1, len(header)))
    buckets = sorted({most for x in result.models for most in x.buckets})
    if len(buckets) > 1:
        yield ""
        lines = [["p50 by tokens", *(f"to {most}" for most in buckets)]]
        for x in result.models:
            lines.append([x.name, *(milliseconds(x.buckets[most]) if most in x.buckets else "-" for most in buckets)])
        yield table(lines, right=range(1, len(buckets) + 1))


def milliseconds(seconds: float) -> str:
    """`3.41 ms`."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
