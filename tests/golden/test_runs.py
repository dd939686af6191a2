"""Every training recorded from TextBrewer, done again from a spec through the loop that `brewgraph run` trains with.

Each case of the recording has a spec of its name in `textbrewer/`. What differs from one recording to another (models,
batches, the tasks that were drawn) comes from the recording; what the configuration says stands in the spec. The loss
and each of its terms are compared at every micro-batch, then the student's weights after the last step, entry by entry.
Adam trains some entries by rounding alone, so that no two programs agree on them (`rounding`): these are found in every
run by a second training in double precision, and are shown to have no effect.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoConfig, PreTrainedModel

import brewgraph as bg
from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.graph import nodes as n
from brewgraph.graph.container import info, node
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.runtime.distiller import Distiller, parameter_name
from brewgraph.training.checkpoint import save_student
from brewgraph.training.loop import Whole, train
from brewgraph.training.reporter import Reporter
from tests.golden.rounding import gradients_seen, made_of_rounding

SPECS = Path(__file__).parent / "textbrewer"
CASES = (
    "accumulate_clip_warmup",
    "basic_ce",
    "basic_mse_scheduled",
    "cwsm",
    "flsw",
    "general_attention",
    "general_cos_pkd_fsp",
    "general_hidden_projected",
    "multi_task",
    "multi_teacher",
    "probability_shift",
    "question_answering",
    "supervised",
    "teacher_batch_differs",
    "token_classification_masked",
)
LOSS, WEIGHT = 1e-5, 1e-4
"""How far a loss may be off, relatively, and a weight, absolutely."""
LABELS = {"total_loss": "loss", "unweighted_kd_loss": "kd", "unweighted_hard_label_loss": "hard"}
"""TextBrewer's names of losses and the specs'; its intermediate matches are the specs' other terms, in their order."""

EXACT = 1e-12
"""How far a student's outputs may be off in double precision."""

Losses = Mapping[str, float]


@dataclass(frozen=True)
class Replay:
    """A training done again: the losses of each micro-batch, the student's folder, the largest gradients of its entries."""

    losses: list[Losses]
    student: Path
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True)
class Run:
    """A recorded run: what was recorded, its spec, the training done again, the entries that rounding alone trains."""

    folder: Path
    case: Mapping[str, Any]
    checked: Checked
    replay: Replay
    rounding: Mapping[str, Tensor]


def recorded_case(shared: Path, name: str) -> dict[str, Any]:
    """What the recording says about a run."""
    return json.loads((shared / name / "case.json").read_text())


def params_of(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The params of a case's spec."""
    if case["task_order"] is None:
        return {"folder": str(folder), "epochs": case["epochs"]}
    batches = {key.split(".")[0] for key in load_file(folder / "batches.safetensors")}
    order = case["task_order"]
    return {"folder": str(folder), "order": order, "steps": len(order), "half": len(batches) // 2}


@contextmanager
def losses_seen() -> Iterator[list[Losses]]:
    """The loss and the terms of each micro-batch that is trained on inside, terms without the names of their tasks."""
    seen: list[Losses] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, Whole):
            seen.append({key.rpartition("/")[2]: float(value.detach()) for key, value in output.items()})

    handle = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def matches_of(graph: nx.DiGraph) -> list[str]:
    """The terms that are intermediate matches, in the order of the spec."""
    return [name for name in info(graph).terms if name.rpartition("/")[2] not in LABELS.values()]


def start_projections(distiller: Distiller, recorded: Mapping[str, Tensor]) -> None:
    """Begin where TextBrewer's projections began: those of its i-th match are `i.weight`, or `i.0.weight`."""
    graph = distiller.graph
    places: dict[str, str] = {}
    for i, term in enumerate(matches_of(graph)):
        below = nx.ancestors(graph, info(graph).terms[term])
        for site in {x.site for key in below if isinstance(x := node(graph, key), n.Projection)}:
            places[parameter_name(site)] = f"{i}."
    given = {}
    for name, own in distiller.projections.state_dict().items():
        site, kind = name.split(".")[0], name.rpartition(".")[2]
        (key,) = (key for key in recorded if key.startswith(places[site]) and key.endswith(kind))
        assert recorded[key].shape == own.shape
        given[name] = recorded[key]
    assert len(given) == len(recorded)
    distiller.projections.load_state_dict(given)


def train_again(checked: Checked, folder: Path, place: Path, *, double: bool = False) -> Replay:
    """Train as `brewgraph run` does, with the recording's projections; the student is saved in `place`."""
    builder = SpecBuilder(checked)
    if (file := folder / "projections_init.safetensors").is_file():
        start_projections(builder.distiller(), load_file(file))
    stages = DataCache(builder).stages(checked)
    if double:
        stages = tuple(replace(stage, make=lambda make=stage.make: make().double()) for stage in stages)
    with losses_seen() as losses, gradients_seen() as gradients:
        outcome = train(stages, checked.recipe.student.name, None, Reporter(), name="golden")
    save_student(outcome.distiller.student, place)
    return Replay(losses, place, gradients.of(outcome.distiller.student))


def named(recorded: Losses, matches: list[str]) -> Losses:
    """A micro-batch's recorded losses by the names of the spec."""
    others = iter(matches)
    return {LABELS.get(name) or next(others): value for name, value in recorded.items()}


def worst_loss(ours: list[Losses], theirs: list[Losses]) -> tuple[float, str]:
    """The largest relative deviation of a loss or a term, and where it is."""
    found = [
        (abs(mine[name] - other[name]) / abs(other[name]), f"`{name}` of micro-batch {step}")
        for step, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        for name in other.keys() & (mine.keys() | {"loss"})
    ]
    return largest(found)


def worst_weight(ours: Path, theirs: Path, left_out: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest deviation of an entry that is not left out, and in which tensor it is."""
    mine, other = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert mine.keys() == other.keys() >= left_out.keys()
    off = {name: (mine[name] - other[name]).abs() for name in mine}
    kept = {name: x[~left_out[name]] if name in left_out else x for name, x in off.items()}
    return largest([(float(x.max()), f"`{name}`") for name, x in kept.items() if x.numel()])


def largest(found: list[tuple[float, str]]) -> tuple[float, str]:
    """The largest deviation and its place; one that is no number is larger than any."""
    return max((value if math.isfinite(value) else math.inf, place) for value, place in found)


def outputs(student: PreTrainedModel, batches: Mapping[str, Tensor]) -> list[Tensor]:
    """A student's logits on every batch; of starts and ends the logarithms of what it gives each token."""
    found = []
    for i in sorted({int(key.split(".")[0]) for key in batches}):
        inputs = {name: batches[f"{i}.{name}"] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            out = student.eval()(**inputs)
        found += [out["logits"]] if "logits" in out else []
        found += [torch.log_softmax(out[name], -1) for name in ("start_logits", "end_logits") if name in out]
    return found


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of two students' outputs."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def load_student(folder: Path) -> PreTrainedModel:
    """The model in a folder, of the class that its configuration names."""
    config = AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder)


@pytest.fixture(scope="module")
def done_again(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A recorded run by its name, trained again once for all tests: as it is, and in double precision."""

    @cache
    def again(name: str) -> Run:
        folder, place = shared / name, tmp_path_factory.mktemp(name)
        case = recorded_case(shared, name)
        checked = check(read_spec(SPECS / f"{name}.brew"), params_of(case, folder))
        replay = train_again(checked, folder, place / "single")
        double = train_again(checked, folder, place / "double", double=True)
        return Run(folder, case, checked, replay, made_of_rounding(double.gradients, replay.gradients))

    return again


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run(name: str, done_again: Callable[[str], Run]) -> None:
    """Losses of every micro-batch to 1e-5, the student's final weights to 1e-4, and what it says to 1e-5."""
    run = done_again(name)
    assert run.checked.warnings == ()
    matches = [x.rpartition("/")[2] for x in matches_of(next(iter(run.checked.graphs.values())))]
    theirs = [named(losses, matches) for losses in run.case["per_step_losses"]]
    assert len(run.replay.losses) == len(theirs)
    # a term whose weight is zero in a step is not computed in it
    assert {key for losses in run.replay.losses for key in losses} == theirs[0].keys() - unused(run.case)
    loss, at = worst_loss(run.replay.losses, theirs)
    final = run.folder / "student_final"
    # only Adam makes steps of rounding: of another optimizer every entry is compared
    left_out = run.rounding if run.case["optimizer"] == "adamw" else {}
    weight, inside = worst_weight(run.replay.student, final, left_out)
    batches = load_file(run.folder / "batches.safetensors")
    output = apart(*(outputs(load_student(x), batches) for x in (run.replay.student, final)))
    said = (
        f"{name}: losses are off by {loss:.1e} at most ({at}), weights by {weight:.1e} ({inside}), "
        f"what the student says by {output:.1e}"
    )
    print(said)
    assert loss <= LOSS, said
    assert weight <= WEIGHT, said
    assert output <= LOSS, said


@pytest.mark.parametrize("name", CASES)
def test_what_rounding_trains_has_no_effect(name: str, done_again: Callable[[str], Run]) -> None:
    """In double precision the student says the same with TextBrewer's values of the entries that are left out, and with
    any others; with every other tensor changed it says something else."""
    run = done_again(name)
    batches = load_file(run.folder / "batches.safetensors")
    theirs = load_file(run.folder / "student_final" / "model.safetensors")
    student = load_student(run.replay.student).double()
    before = outputs(student, batches)
    own = dict(student.named_parameters())
    kept = {name: parameter.detach().clone() for name, parameter in own.items()}
    first = {key: value for key, value in batches.items() if key.startswith("0.")}
    at_first = outputs(student, first)
    with torch.no_grad():
        for key, left_out in run.rounding.items():
            own[key][left_out] = theirs[key].double()[left_out]
        assert apart(before, outputs(student, batches)) <= EXACT
        for key, parameter in own.items():
            parameter.copy_(kept[key])
        for key, parameter in own.items():
            left_out = run.rounding.get(key, torch.zeros_like(kept[key], dtype=torch.bool))
            change = torch.linspace(-1, 1, parameter.numel()).double().view_as(parameter)
            for chosen, unseen in ((left_out, True), (~left_out, False)):
                if chosen.any():
                    parameter[chosen] += change[chosen]
                    off = apart(at_first, outputs(student, first))
                    assert off <= EXACT if unseen else off > 1e-6, key
                    parameter.copy_(kept[key])


def test_entries_are_left_out_by_their_gradients() -> None:
    """A gradient that is small, or zero in both precisions, is no reason; one that is neither zero nor real is a fault."""
    single = {"w": torch.tensor([1.0, 1e-6, 1e-9, 0.0])}
    assert made_of_rounding({"w": torch.tensor([1.0, 1e-6, 1e-16, 0.0]).double()}, single)["w"].tolist() == [
        False,
        False,
        True,
        False,
    ]
    with pytest.raises(AssertionError, match="neither zero nor real"):
        made_of_rounding({"w": torch.tensor([1.0, 1e-6, 1e-11, 0.0]).double()}, single)
    with pytest.raises(AssertionError, match="float32 has a gradient"):
        made_of_rounding({"w": torch.tensor([1.0, 0.0, 1e-16, 0.0]).double()}, {"w": torch.tensor([1.0, 1e-5, 0, 0])})


def unused(case: Mapping[str, Any]) -> set[str]:
    """Losses that TextBrewer writes down and that have no part in the total: those on labels, where their weight is 0.

    A specification has no such term.
    """
    config = case["distillation_config"]
    weighted = config.get("hard_label_weight", 0) or "hard_label_weight_scheduler" in config
    return set() if weighted else {"hard"}


def test_every_case_has_its_spec(shared: Path) -> None:
    """Cases, specs and recorded runs are the same fifteen, and each spec says which configuration it equals."""
    assert sorted(path.stem for path in SPECS.glob("*.brew")) == list(CASES)
    assert sorted(path.parent.name for path in shared.glob("*/case.json")) == list(CASES)
    for name in CASES:
        text, distiller = (SPECS / f"{name}.brew").read_text(), recorded_case(shared, name)["distiller"]
        assert f"\n# {'BasicTrainer' if distiller == 'Trainer' else f'{distiller}Distiller'}" in text, name
        assert bg.format_text(text) == text


def test_the_command_trains_the_same(done_again: Callable[[str], Run], tmp_path: Path) -> None:
    """`brewgraph run` leaves the student that the loop above does: the recorded one."""
    run = done_again("teacher_batch_differs")
    params = params_of(run.case, run.folder)
    result = bg.run(SPECS / f"{run.folder.name}.brew", params=params, out=tmp_path / "run", reporter=Reporter())
    weight, inside = worst_weight(result.folder / "student", run.folder / "student_final", run.rounding)
    assert weight <= WEIGHT, f"off by {weight:.1e} in {inside}"
