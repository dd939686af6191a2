"""Where a training step goes: some steps under torch's profiler, their time by node of the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import RunError
from brewgraph.running.data_cache import DataCache
from brewgraph.running.run import Options, scratch_folder, short_builder
from brewgraph.running.run_identity import identify
from brewgraph.runtime.program import MARK
from brewgraph.training.folder import RunFolder, runs_folder
from brewgraph.training.loop import train
from brewgraph.training.processes import on_main_process
from brewgraph.training.reporter import Reporter

WARM, STEPS = 3, 8
"""Steps before the profile, in which memory is reserved and kernels are chosen, and steps of it."""


@dataclass(frozen=True)
class NodeTime:
    """What one node takes per step, in milliseconds. `backward` is None for what has no gradient."""

    name: str
    forward: float
    backward: float | None


@dataclass(frozen=True)
class StepProfile:
    """The mean of some steps, in milliseconds: the nodes, longest first, and the whole; `trace` opens in Perfetto."""

    nodes: tuple[NodeTime, ...]
    step: float
    steps: int
    trace: Path


def profile_run(checked: Checked, options: Options, reporter: Reporter) -> StepProfile:
    """Train the first stage for some steps and profile them. Keeps nothing but the trace, in the folder of the run.
    Raises as `run_checked`.
    """
    with scratch_folder() as scratch:
        builder = short_builder(checked, WARM + STEPS + 1, options, scratch)
        data_cache = DataCache(builder, reporter.say)
        what = builder.checked.without_teachers() if options.without_teacher else builder.checked
        name = identify(builder, "alone" if options.without_teacher else "").folder_name
        folder = RunFolder(options.out or runs_folder(checked.folder, options.runs) / name)
        on_main_process(lambda: folder.prepare("--out" if options.out else "--runs"))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        with profile(activities=activities, schedule=schedule(wait=0, warmup=WARM, active=STEPS, repeat=1)) as running:
            work = data_cache.stages(what)[:1]
            train(
                work,
                builder.recipe.student.name,
                None,
                _Stepping(running, reporter),
                name=Path(checked.recipe.source.name).stem,
                stop_after=WARM + STEPS,
            )
        events = list(running.events() or ())
        nodes, step, steps = _times(events)
        on_main_process(lambda: running.export_chrome_trace(str(folder.trace)))
    return StepProfile(tuple(nodes), step, steps, folder.trace)


class _Stepping(Reporter):
    """Tells the profiler of each step."""

    def __init__(self, running: Any, reporter: Reporter):
        self.running, self.reporter = running, reporter

    def say(self, text: str) -> None:
        self.reporter.say(text)

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        self.running.step()


def _times(events: list[Any]) -> tuple[list[NodeTime], float, int]:
    """The mean time of each node, of what else has a name, and of a step. An operation of the backward pass belongs to
    the node in which the operation with its sequence number ran.
    """
    step_events = [event for event in events if event.name.startswith("ProfilerStep")]
    if not step_events:
        raise RunError(f"training ends before step {WARM + STEPS}: leave `early_stopping_patience` out to profile it")
    steps = len(step_events)
    forward, backward = defaultdict[str, float](float), defaultdict[str, float](float)
    owner: dict[int, str] = {}
    marked = sorted((x for x in events if x.name.startswith(MARK)), key=lambda x: x.time_range.start)
    for event in marked:
        name = event.name.removeprefix(MARK)
        forward[name] += event.time_range.elapsed_us()
        inside = [*event.cpu_children]
        for child in inside:
            inside += child.cpu_children
        owner |= {child.sequence_nr: name for child in inside if child.sequence_nr >= 0}
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function"):
            backward[owner.get(event.sequence_nr, "")] += event.time_range.elapsed_us()
    named = {"optimizer": "Optimizer.step#", "waiting for data": "enumerate(DataLoader)#"}
    beside = {
        name: sum(x.time_range.elapsed_us() for x in events if x.name.startswith(begin))
        for name, begin in named.items()
    }
    beside["backward of the rest"] = backward.pop("", 0.0)
    step = sum(x.time_range.elapsed_us() for x in step_events)
    beside["everything else"] = max(0.0, step - sum(forward.values()) - sum(backward.values()) - sum(beside.values()))
    per_step = 1e3 * steps
    nodes = [
        NodeTime(name, time / per_step, backward[name] / per_step if name in backward else None)
        for name, time in forward.items()
    ]
    nodes.sort(key=lambda x: -(x.forward + (x.backward or 0.0)))
    rest = [NodeTime(name, time / per_step, None) for name, time in beside.items()]
    return nodes + rest, step / per_step, steps
