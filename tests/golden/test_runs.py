"""Every training recorded from TextBrewer, done again from a spec through the loop that `brewgraph run` trains with.

Each case of the recording has a spec of its name in `textbrewer/`. What differs from one recording to another (models,
batches, the tasks that were drawn) comes from the recording; what the configuration says stands in the spec. The loss
and each of its terms are compared at every micro-batch, then the student's weights after the last step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import node
from brewgraph.project.build import Workshop
from brewgraph.project.check import Checked, check, read_spec
from brewgraph.project.materials import Pantry
from brewgraph.runtime.distiller import Distiller, parameter_name
from brewgraph.training.checkpoint import save_student
from brewgraph.training.loop import train
from brewgraph.training.reporter import Reporter
from brewgraph.training.stage import Whole

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

UNSEEN = ("self.key.bias",)
UNSEEN_IN_SPANS = ("qa_outputs.bias", "encoder.layer.1.output.LayerNorm.bias")
"""Weights that no softmax sees, see `test_what_no_softmax_sees`: what they add is one number for all keys of a query, or
for all tokens that may be the start of an answer. Their gradient is zero but for rounding, which Adam makes steps of: two
trainings by one program do not agree on them either. They are compared by what the student says."""

Losses = Mapping[str, float]


@dataclass
class Replay:
    """A training done again: the losses of each micro-batch, and the student's folder."""

    losses: list[Losses] = field(default_factory=list)
    student: Path = Path()


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
    return [name for name in graph.graph["terms"] if name.rpartition("/")[2] not in LABELS.values()]


def start_projections(distiller: Distiller, recorded: Mapping[str, Tensor]) -> None:
    """Begin where TextBrewer's projections began: those of its i-th match are `i.weight`, or `i.0.weight`."""
    graph = distiller.graph
    places: dict[str, str] = {}
    for i, term in enumerate(matches_of(graph)):
        below = nx.ancestors(graph, graph.graph["terms"][term])
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


def train_again(checked: Checked, folder: Path, place: Path) -> Replay:
    """Train as `brewgraph run` does, with the recording's projections; the student is saved below `place`."""
    workshop = Workshop(checked)
    if (file := folder / "projections_init.safetensors").is_file():
        start_projections(workshop.distiller(), load_file(file))
    with losses_seen() as losses:
        name = checked.recipe.student.name
        outcome = train(Pantry(workshop).stages(checked), name, None, Reporter(), name="golden")
    save_student(outcome.distiller.student, place / "student")
    return Replay(losses, place / "student")


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


def worst_weight(ours: Path, theirs: Path) -> tuple[float, str]:
    """The largest deviation of a weight that has an effect, and in which tensor it is."""
    mine, other = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    unseen = unseen_in(mine)
    assert len(unseen) <= 5
    return largest([(float((mine[name] - other[name]).abs().max()), f"`{name}`") for name in mine.keys() - unseen])


def unseen_in(weights: Collection[str]) -> set[str]:
    """Which of a student's weights no softmax sees."""
    ends = UNSEEN + (UNSEEN_IN_SPANS if "qa_outputs.bias" in weights else ())
    return {name for name in weights if name.endswith(ends)}


def largest(found: list[tuple[float, str]]) -> tuple[float, str]:
    """The largest deviation and its place; one that is no number is larger than any."""
    return max((value if math.isfinite(value) else math.inf, place) for value, place in found)


def outputs(student: PreTrainedModel, batches: Mapping[str, Tensor]) -> list[Tensor]:
    """The logarithms of what a student gives each class, or each token as the start or the end, on every batch."""
    found = []
    for i in {int(key.split(".")[0]) for key in batches}:
        inputs = {name: batches[f"{i}.{name}"] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            out = student.eval()(**inputs)
        found += [torch.log_softmax(out[name], -1) for name in ("logits", "start_logits", "end_logits") if name in out]
    return found


def load_student(folder: Path) -> PreTrainedModel:
    """The model in a folder, of the class that its configuration names."""
    config = AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run(name: str, shared: Path, tmp_path: Path) -> None:
    """Losses of every micro-batch to 1e-5, the student's final weights to 1e-4, and so what it says."""
    folder = shared / name
    case = recorded_case(shared, name)
    checked = check(read_spec(SPECS / f"{name}.brew"), params_of(case, folder))
    assert checked.warnings == ()
    replay = train_again(checked, folder, tmp_path)
    matches = [x.rpartition("/")[2] for x in matches_of(next(iter(checked.graphs.values())))]
    theirs = [named(losses, matches) for losses in case["per_step_losses"]]
    assert len(replay.losses) == len(theirs)
    # a term whose weight is zero in a step is not computed in it
    assert {key for losses in replay.losses for key in losses} == theirs[0].keys() - unused(case)
    loss, at = worst_loss(replay.losses, theirs)
    weight, inside = worst_weight(replay.student, folder / "student_final")
    batches = load_file(folder / "batches.safetensors")
    pairs = zip(*(outputs(load_student(x), batches) for x in (replay.student, folder / "student_final")), strict=True)
    output = max(float((a - b).abs().max()) for a, b in pairs)
    said = (
        f"{name}: losses are off by {loss:.1e} at most ({at}), weights by {weight:.1e} ({inside}), "
        f"what the student says by {output:.1e}"
    )
    print(said)
    assert loss <= LOSS, said
    assert weight <= WEIGHT, said
    assert output <= WEIGHT, said


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


def test_the_command_trains_the_same(shared: Path, tmp_path: Path) -> None:
    """`brewgraph run` leaves the student that the loop above does: the recorded one."""
    folder = shared / "teacher_batch_differs"
    params = params_of(recorded_case(shared, folder.name), folder)
    result = bg.run(SPECS / f"{folder.name}.brew", params=params, out=tmp_path / "run", reporter=Reporter())
    weight, inside = worst_weight(result.folder / "student", folder / "student_final")
    assert weight <= WEIGHT, f"off by {weight:.1e} in {inside}"


def test_what_no_softmax_sees(shared: Path) -> None:
    """Biases of keys, those of the scores of starts and ends, and of the last states that these are made from, have no
    effect: in double precision any number in their place gives the same distributions. Every other weight has one."""
    folder = shared / "question_answering"
    batches = {key: x for key, x in load_file(folder / "batches.safetensors").items() if key.startswith("0.")}
    student = load_student(folder / "student_final").double()
    before = outputs(student, batches)
    for name, parameter in student.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter += torch.linspace(-1, 1, parameter.numel()).double().view_as(parameter)
        off = max(float((a - b).abs().max()) for a, b in zip(before, outputs(student, batches), strict=True))
        with torch.no_grad():
            parameter.copy_(kept)
        unseen = name.endswith((*UNSEEN, *UNSEEN_IN_SPANS))
        assert off < 1e-12 if unseen else off > 1e-6, name
