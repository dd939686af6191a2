"""Stages and tasks: each begins anew, nothing sticks, and what is interrupted ends as what is not."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError
from brewgraph.graph.scalars import Horizon
from brewgraph.recipe.recipe import Frozen
from brewgraph.recipe.settings.train import Adamw, Linear, Sgd
from brewgraph.recipe.values import Length
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.loop import train
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import Draw, StageWork
from tests import warm
from tests.small import metrics, project
from tests.training.toy import TASKS, Student, Toy, frozen_part, material, run, settings, two_stages, weights

# ── clipping ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("each", [False, True])
def test_gradients_are_clipped_as_one_or_each_by_itself(each: bool) -> None:
    """A step of plain descent at rate 1 is as long as the clipped gradient: all of them together, or each parameter's."""
    toy = Toy(Student())
    before = weights(toy)
    found = settings(optimizer=Sgd(lr=1.0), steps=1, max_grad_norm=1e-3, clip_each=each)
    run([StageWork("", lambda: toy, {"": material()}, found)], None)
    moved = {name: float((value - before[name]).norm()) for name, value in weights(toy).items()}
    assert len(moved) == 8
    if each:
        assert list(moved.values()) == pytest.approx([1e-3] * 8, rel=1e-3)
    else:
        assert math.hypot(*moved.values()) == pytest.approx(1e-3, rel=1e-3)
        assert max(moved.values()) < 1e-3


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Listening(Reporter):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        self.steps: list[int] = []

    def begin(self, name: str, steps: int, done: int) -> None:
        self.begun.append((name, steps, done))

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        self.steps.append(step)


def test_one_step_count_for_the_run_and_progress_for_the_stage(tmp_path: Path) -> None:
    """`step` goes on where the stage before ended; `stage_step`, `epoch`, progress and the rate begin anew."""
    student, made, told = Student(TASKS), [], Listening()
    stages = two_stages(student, made, schedule=Linear())
    _, lines = run(stages, tmp_path / "run", told)
    assert [(line["step"], line["stage"], line["stage_step"], line["task"]) for line in lines[:4]] == [
        (1, "warm", 1, "ner"), (2, "warm", 2, "ner"), (3, "warm", 3, "ner"), (4, "warm", 4, "ner")
    ]  # fmt: skip
    later = [line for line in lines[4:] if "loss" in line]
    assert {(line["step"], line["stage"], line["stage_step"]) for line in later} == {
        (6, "joint", 2), (8, "joint", 4), (10, "joint", 6)
    }  # fmt: skip
    assert [line["epoch"] for line in lines[:4]] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3])
    # ner has 3 batches and qa 5, in steps of two: 2 + 3 steps are an epoch of both
    assert {line["step"]: line["epoch"] for line in later} == pytest.approx({6: 2 / 5, 8: 4 / 5, 10: 6 / 5})
    assert [line["lr"] for line in lines[:4]] == pytest.approx([0.05 * x for x in (0.75, 0.5, 0.25, 0)])
    assert later[-1]["lr"] == 0
    assert later[0]["lr"] == pytest.approx(0.02 * 4 / 6)
    assert told.begun == [("toy: warm", 4, 0), ("toy: joint", 6, 0)]
    assert told.steps == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6]
    assert [toy.horizon for toy in made] == [Horizon(4, 3), Horizon(6, 5)]
    assert [progress for _, progress, _ in made[0].seen] == [0, 0.25, 0.5, 0.75]
    assert sorted({progress for _, progress, _ in made[1].seen}) == pytest.approx([i / 6 for i in range(6)])


def test_means_are_over_the_steps_in_which_a_task_was_drawn(tmp_path: Path) -> None:
    """Six steps of two tasks in one interval: a line each, terms under the task's name, weighted as they count."""
    student = Student(TASKS)
    both = {"ner": material(12), "qa": material(20, seed=1)}
    draw = Draw(dict.fromkeys(TASKS, 1.0), order=("ner", "qa", "qa"))
    still = settings(steps=6, logging_steps=6, optimizer=Sgd(lr=1e-12))
    made: list[Toy] = []

    def make() -> Toy:
        made.append(Toy(student, TASKS))
        return made[-1]

    _, lines = run([StageWork("", make, both, still, draw)], tmp_path / "run")
    assert [(line["step"], line["task"], "stage" in line) for line in lines] == [(6, "ner", False), (6, "qa", False)]
    assert [task for task, _, _ in made[0].seen] == ["ner", "qa", "qa"] * 2
    for line, task, rows in zip(lines, TASKS, (both["ner"], both["qa"]), strict=True):
        data = rows.feeds["d"].dataset
        seen = [index for which, _, index in made[0].seen if which == task]
        with torch.no_grad():
            losses = []
            for index in seen:
                hidden = student(torch.tensor(data["x"][:])[index])
                labels = torch.tensor(data["label"][:])[index]
                losses.append(float(F.cross_entropy(student.heads[f"head_{task}"](hidden), labels)))
        assert line["terms"][f"{task}/hard"] == pytest.approx(sum(losses) / len(seen), abs=1e-5)
        assert line["weighted"][f"{task}/soft"] == pytest.approx(0.5 * line["terms"][f"{task}/soft"])
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), abs=1e-5)


def test_each_task_goes_through_its_own_epochs() -> None:
    """Drawn in between or not, a task sees each of its rows once per epoch of its own, and no stage replays another's
    order."""
    made: list[Toy] = []
    student = Student(TASKS)
    both = {"ner": material(12), "qa": material(20, seed=1)}
    stages = [
        StageWork(
            name,
            lambda: made.append(Toy(student, TASKS)) or made[-1],
            both,
            settings(epochs=3),
            Draw({"ner": 1.0, "qa": 1.0}),
        )
        for name in ("one", "two")
    ]
    run(stages, None)
    orders = []
    for toy in made:
        assert len(toy.seen) == 3 * (3 + 5)
        for task, batches, rows in (("ner", 3, 12), ("qa", 5, 20)):
            seen = [index for which, _, index in toy.seen if which == task]
            epochs = [list(chain(*seen[i : i + batches])) for i in range(0, len(seen), batches)]
            assert all(sorted(epoch) == list(range(rows)) for epoch in epochs if len(epoch) == rows)
            orders += [(task, tuple(epoch)) for epoch in epochs if len(epoch) == rows]
    assert len(set(orders)) == len(orders) >= 8


# ── what a stage leaves to the next ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [("bf16", "fp32"), ("fp32", "bf16"), ("bf16", "fp32", "bf16")])
def test_each_stage_runs_in_its_own_precision(order: tuple[str, ...], tmp_path: Path) -> None:
    """Seen from inside the student's layers, with the real distiller, in either direction."""
    # packing tries a model out once, in full precision, which the hooks below would see
    builder = SpecBuilder(check(read_spec(project(tmp_path))), skip=["pack_tokens"])
    seen: dict[int, set[torch.dtype]] = {}
    stage = -1
    builder.model("tiny").classifier.register_forward_hook(lambda _, __, out: seen[stage].add(out.dtype))
    builder.model("bert").classifier.register_forward_hook(lambda _, __, out: seen[stage].add(out.dtype))
    # evaluation is in full precision whatever training is in
    unscored = replace(DataCache(builder).material(builder.checked, *builder.recipe.tasks[0]), dev=None)

    def make() -> Any:
        nonlocal stage
        stage += 1
        seen[stage] = set()
        return builder.distiller()

    plain = builder.recipe.train.model_copy(update={"steps": 1})
    stages = [
        StageWork(f"s{i}", make, {"": unscored}, plain.model_copy(update={"precision": precision}))
        for i, precision in enumerate(order)
    ]
    train(stages, "tiny", None, Reporter(), name="x")
    kinds = {"bf16": {torch.bfloat16}, "fp32": {torch.float32}}
    assert seen == {i: kinds[precision] for i, precision in enumerate(order)}


def test_a_stage_has_an_optimizer_of_its_own() -> None:
    """Adam's first step is as long as its rate wherever there is a gradient; with momentum of an earlier stage it would
    not be."""
    student = Student(["ner"])

    def stage(name: str, rate: float, steps: int) -> StageWork:
        how = settings(steps=steps, optimizer=Adamw(lr=rate, weight_decay=0))
        return StageWork(name, lambda: Toy(student, ["ner"]), {"ner": material(12)}, how)

    run([stage("one", 0.05, 4)], None)
    middle = weights(student)
    student = Student(["ner"])
    run([stage("one", 0.05, 4), stage("two", 0.3, 1)], None)
    moved = student.heads["head_ner"].weight.detach() - middle["heads.head_ner.weight"]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.3), atol=1e-3, rtol=0)


def test_projections_of_an_earlier_stage_are_taken_up_again(tmp_path: Path) -> None:
    """Also over a stage that does not use them, and where that one is resumed; a new one begins fresh."""

    def stages(student: Student, begun: list[torch.Tensor]) -> list[StageWork]:
        def make(task: str) -> Toy:
            return Toy(student, [task])

        def note() -> Toy:
            toy = make("ner")
            toy.projections["proj_ner"].register_forward_pre_hook(
                lambda module, _: begun.append(module.weight.detach().clone())
            )
            return toy

        ner, qa = {"ner": material(12)}, {"qa": material(8, seed=1)}
        return [
            StageWork("a", lambda: make("ner"), ner, settings(steps=2)),
            StageWork("b", lambda: make("qa"), qa, settings(steps=3)),
            StageWork("c", note, ner, settings(steps=2)),
        ]

    student, begun = Student(TASKS), []
    toy = Toy(Student(TASKS), ["ner"])
    run([StageWork("a", lambda: toy, {"ner": material(12)}, settings(steps=2))], None)
    trained = weights(toy.projections)
    whole, lines = run(stages(student, begun), tmp_path / "whole")
    assert torch.equal(begun[0], trained["proj_ner.weight"])
    run(stages(Student(TASKS), []), tmp_path / "stopped", stop_after=3)
    resumed: list[torch.Tensor] = []
    again, found = run(stages(Student(TASKS), resumed), tmp_path / "stopped", resume=True)
    assert found == lines
    assert torch.equal(resumed[0], begun[0])
    assert all(torch.equal(v, weights(again.distiller)[k]) for k, v in weights(whole.distiller).items())


# ── what a step does not reach ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", [Adamw(lr=0.05, weight_decay=0.5), Adamw(lr=0.05, correct_bias=False), Sgd()])
def test_what_a_step_does_not_reach_stays_as_it_is(optimizer: Any) -> None:
    """Two tasks with heads and projections of their own: those of the one not drawn do not even decay, though they have
    been trained before, and have momentum."""
    student = Student(TASKS)
    both = {"ner": material(12), "qa": material(20, seed=1)}
    before: dict[str, torch.Tensor] = {}
    changed: list[set[str]] = []
    toy = Toy(student, TASKS)

    class Watching(Reporter):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            now = weights(toy)
            changed.append({name for name, value in now.items() if not torch.equal(value, before[name])})
            before.update(now)

    before.update(weights(toy))
    draw = Draw(dict.fromkeys(TASKS, 1.0), order=("ner", "qa"))
    run(
        [StageWork("", lambda: toy, both, settings(steps=6, optimizer=optimizer, accumulate=2), draw)], None, Watching()
    )
    own = {task: {name for name in before if f"head_{task}" in name or f"proj_{task}" in name} for task in TASKS}
    shared = before.keys() - own["ner"] - own["qa"]
    assert len(own["ner"]) == 4
    for step, names in enumerate(changed):
        drawn = TASKS[step % 2]
        assert names == shared | own[drawn]


def test_frozen_parts_stand_still_for_their_stage_and_come_back() -> None:
    """A module by its path, below the base too, with a wildcard; a projection; all in one stage only."""
    student = Student(TASKS)
    before = weights(student)
    freeze = (
        frozen_part("module", "tiny", "layers.0"),
        frozen_part("module", "tiny", "heads.*.bias"),
        frozen_part("projection", "proj_ner"),
    )
    toy = Toy(student, ["ner"])
    projected = weights(toy.projections)
    ner = {"ner": material(12)}
    run([StageWork("a", lambda: toy, ner, settings(steps=2, optimizer=Adamw(weight_decay=0.5)), freeze=freeze)], None)
    middle = weights(student)
    still = {"base.layers.0.weight", "base.layers.0.bias", "heads.head_ner.bias", "heads.head_qa.bias"}
    unused = {"heads.head_qa.weight"}
    assert {name for name in middle if torch.equal(middle[name], before[name])} == still | unused
    assert all(torch.equal(v, projected[k]) for k, v in weights(toy.projections).items())
    assert all(p.requires_grad for p in toy.parameters())
    run([StageWork("b", lambda: Toy(student, ["ner"]), ner, settings(steps=1))], None)
    after = weights(student)
    unmoved = {name for name in after if torch.equal(after[name], middle[name])}
    assert unmoved == {"heads.head_qa.weight", "heads.head_qa.bias"}


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            frozen_part("module", "tiny", "layers.7"),
            "`tiny` has no parameters at `layers.7`; did you mean `base.layers.1`?",
        ),
        (frozen_part("module", "tiny", "dropout"), "`tiny` has no parameters at `dropout`"),
        (frozen_part("projection", "prj_ner"), "no projection `prj_ner` is used here; did you mean `proj_ner`?"),
        (frozen_part("model", "bert"), "`bert` is never trained; the student is `tiny`"),
    ],
)
def test_freezing_nothing_is_a_fault(freeze: Frozen, message: str) -> None:
    """A path that has no parameters, a projection that is not there, a teacher."""
    work = StageWork("", lambda: Toy(Student(["ner"]), ["ner"]), {"ner": material()}, settings(), freeze=(freeze,))
    with pytest.raises(RunError, match=message.replace("?", r"\?")):
        run([work], None)


def test_freezing_everything_is_a_fault_and_the_student_alone_is_none() -> None:
    """With the student frozen the projections train."""
    student = Student(["ner"])
    toy, before = Toy(student, ["ner"]), weights(student)
    freeze = (frozen_part("model", "tiny"),)
    run([StageWork("", lambda: toy, {"ner": material()}, settings(steps=1), freeze=freeze)], None)
    assert all(torch.equal(value, before[name]) for name, value in weights(student).items())
    both = (*freeze, frozen_part("projection", "proj_ner"))
    with pytest.raises(RunError, match="there is nothing to train"):
        run([StageWork("", lambda: Toy(student, ["ner"]), {"ner": material()}, settings(), freeze=both)], None)
    assert all(p.requires_grad for p in student.parameters())


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stop", [3, 4, 5, 7, 9])
def test_a_run_interrupted_in_any_stage_ends_as_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    """In the first stage, between the two, in the second between two lines: weights, the running average, metrics."""

    def whole(out: str, **options: Any) -> tuple[Any, list[dict[str, Any]], list[Toy]]:
        made: list[Toy] = []
        outcome, lines = run(two_stages(Student(TASKS, dropout=0.3), made), tmp_path / out, **options)
        return outcome, lines, made

    expected, lines, _ = whole("whole")
    stopped, _, _ = whole("stopped", stop_after=stop)
    assert (stopped.finished, stopped.step) == (False, stop)
    torch.manual_seed(99)
    told = Listening()
    found, again, made = whole("stopped", resume=True, reporter=told)
    # at the end of a stage there is no checkpoint of it, and none of the next before that begins
    kept, stage = {4: (3, "warm")}.get(stop, (stop, "warm" if stop < 4 else "joint"))
    assert told.said == [f"resumed at step {kept} of stage {stage}"]
    assert [toy.identity for toy in made] == (["one", "two"] if stage == "warm" else ["two"])
    assert again == lines
    assert found.finished
    assert found.step == expected.step == 10
    assert all(torch.equal(v, weights(found.distiller)[k]) for k, v in weights(expected.distiller).items())
    assert torch.equal(found.distiller.average, expected.distiller.average)


def test_a_stage_that_began_is_not_preceded_again(tmp_path: Path) -> None:
    """The first thing that a later stage does is to write a checkpoint: a fault in its first step repeats no other."""
    made: list[Toy] = []
    stages = two_stages(Student(TASKS), made)

    class Failing(Reporter):
        def begin(self, name: str, steps: int, done: int) -> None:
            if name.endswith("joint"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stages, tmp_path / "run", Failing())
    told = Listening()
    run(two_stages(Student(TASKS), made), tmp_path / "run", told, resume=True)
    assert told.said == ["resumed at step 4 of stage joint"]
    assert told.begun == [("toy: joint", 6, 0)]


def test_a_checkpoint_of_other_stages_is_refused(tmp_path: Path) -> None:
    """Another length of a stage that is over, another meaning, another draw, one stage less."""
    run(two_stages(Student(TASKS), []), tmp_path / "run", stop_after=6)

    def refused(stages: list[StageWork]) -> None:
        with pytest.raises(
            RunError, match="belongs to another spec, other data or other settings; start anew with --force"
        ):
            run(stages, tmp_path / "run", resume=True)

    first, second = two_stages(Student(TASKS), [])
    refused([first])
    refused([replace(first, settings=settings(steps=5)), second])
    refused([replace(first, identity="other"), second])
    refused([first, replace(second, draw=Draw({"ner": 1.0, "qa": 1.0}))])
    refused([first, replace(second, freeze=(frozen_part("module", "tiny", "layers.0"),))])
    refused([first, replace(second, make=lambda: Toy(Student(TASKS), TASKS, "three"))])
    assert run([first, second], tmp_path / "run", resume=True)[0].finished


# ── means of means, values beside the loss, faults ───────────────────────────────────────────────────────────────────


def test_micro_normalisation_is_the_mean_of_the_batches_means(tmp_path: Path) -> None:
    """Of batches of 4, 4 and 1 rows the global mean weighs rows alike, the other one batches."""
    found = {}
    for normalise in ("global", "micro"):
        student = Student()
        toy = Toy(student)
        before = weights(student)
        how = settings(steps=1, accumulate=3, normalise=normalise, max_grad_norm=None, optimizer=Sgd(lr=1.0))
        _, lines = run([StageWork("", lambda toy=toy: toy, {"": material(9)}, how)], tmp_path / normalise)
        found[normalise] = (lines[0], {k: before[k] - v for k, v in weights(student).items()}, toy)
    data = material(9).feeds["d"].dataset
    toy = Toy(Student())
    losses = []
    for _, _, index in found["micro"][2].seen:
        batch = {"x": torch.tensor(data["x"][:])[index], "labels": torch.tensor(data["label"][:])[index]}
        losses.append((toy(batch | {"index": torch.tensor(index)}).loss, len(index)))
    assert [rows for _, rows in losses] == [4, 4, 1]
    expected = {
        "micro": sum(loss for loss, _ in losses) / 3,
        "global": sum(loss * rows for loss, rows in losses) / 9,
    }
    assert abs(expected["micro"] - expected["global"]) > 0.01
    for normalise, loss in expected.items():
        line, moved, _ = found[normalise]
        assert line["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
        assert line["loss"] == pytest.approx(line["terms"]["hard"] + 0.5 * line["terms"]["soft"], abs=1e-6)
        toy.zero_grad()
        loss.backward(retain_graph=True)
        for name, parameter in toy.student.named_parameters():
            torch.testing.assert_close(moved[name], parameter.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("together", [True, False])
def test_what_is_clipped(tmp_path: Path, together: bool) -> None:
    """The gradient of student and projections as one, or the student's alone, and projections as they are."""
    found, whole = {}, {}
    for norm, into in ((None, whole), (0.1, found)):
        student = Student()
        toy = Toy(student)
        before = weights(toy)
        how = settings(steps=1, max_grad_norm=norm, clip_projections=together, optimizer=Sgd(lr=1.0))
        run([StageWork("", lambda toy=toy: toy, {"": material(4)}, how)], tmp_path / f"{norm}")
        into |= {name: before[name] - value for name, value in weights(toy).items()}

    def length(moved: dict[str, torch.Tensor], part: str) -> float:
        return float(sum(x.square().sum() for name, x in moved.items() if name.startswith(part)) ** 0.5)

    assert length(whole, "student") > 0.1 < length(whole, "projections")
    if together:
        assert length(found, "") == pytest.approx(0.1, rel=1e-4)
    else:
        assert length(found, "student") == pytest.approx(0.1, rel=1e-4)
        assert length(found, "projections") == pytest.approx(length(whole, "projections"), rel=1e-6)


def test_reported_values_stand_beside_the_terms(tmp_path: Path) -> None:
    """At logging steps those of the step's batches, in evaluation those of the dev split without dropout; asking for
    them changes nothing."""
    both = {"ner": material(12, dev=5), "qa": material(20, seed=1)}
    draw = Draw(dict.fromkeys(TASKS, 1.0), order=("ner", "qa"))
    lines, ends = {}, {}
    for report in ((), ("size",)):
        student = Student(TASKS, dropout=0.3)
        plan = settings(steps=4, logging_steps=2, eval_steps=Length(4, "step"), report=report)
        _, lines[report] = run(
            [StageWork("", lambda s=student: Toy(s, TASKS), both, plan, draw)], tmp_path / f"run{len(report)}"
        )
        ends[report] = weights(student)
    assert all(torch.equal(value, ends[()][name]) for name, value in ends[("size",)].items())
    assert not any("report" in line or "size" in line.get("dev", {}) for line in lines[()])
    asked = lines[("size",)]
    assert [(line["task"], "report" in line, "dev" in line) for line in asked] == [
        ("ner", False, False), ("qa", True, False), ("ner", False, False), ("qa", True, False), ("ner", False, True)
    ]  # fmt: skip
    assert list(asked[1]["report"]) == ["qa/size"]
    student.eval()
    x = torch.tensor(both["ner"].dev["x"][:])
    assert asked[-1]["dev"]["size"] == pytest.approx(float(student(x).detach().square().mean()), rel=1e-5)


def test_a_loss_that_is_no_number_names_stage_and_task(tmp_path: Path) -> None:
    """And its rows, in the task's own counting."""
    made: list[Toy] = []
    stages = two_stages(Student(TASKS), made)

    class Breaking(Reporter):
        def begin(self, name: str, steps: int, done: int) -> None:
            if name.endswith("joint"):
                with torch.no_grad():
                    made[-1].projections["proj_qa"].bias.fill_(math.nan)

    message = (
        r"^`qa/soft` is not a finite number at step \d+ of stage `joint`, task `qa` \(training rows \d+(, \d+){7}\);"
    )
    with pytest.raises(RunError, match=message):
        run(stages, tmp_path / "run", Breaking())


# ── ranks ────────────────────────────────────────────────────────────────────────────────────────────────────────────

WORKER = """
import torch
from pathlib import Path
torch.set_num_threads(1)
from accelerate import PartialState
from tests.training.toy import *
made = []
student = Student(TASKS)
outcome, _ = run(two_stages(student, made), Path({out!r}))
state = PartialState()
assert state.num_processes == 2, state.num_processes
tasks = [task for toy in made for task, _, _ in toy.seen]
torch.save([weights(outcome.distiller), tasks], Path({out!r}) / f"end-{{state.process_index}}.pt")
state.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_draw_and_train_as_one(tmp_path: Path) -> None:
    """The same tasks at the same steps; weights and metrics of one process, parts that no step reaches too."""
    out = tmp_path / "ranks"
    warm.start_ranks("-c", WORKER.format(out=str(out)))
    made: list[Toy] = []
    expected, lines = run(two_stages(Student(TASKS), made), tmp_path / "one")
    tasks = [task for toy in made for task, _, _ in toy.seen]
    ends = [torch.load(out / f"end-{rank}.pt", weights_only=True) for rank in range(2)]
    assert ends[0][1] == ends[1][1] == tasks
    assert set(tasks) == {"ner", "qa"}
    for name, value in weights(expected.distiller).items():
        assert torch.equal(ends[0][0][name], ends[1][0][name])
        torch.testing.assert_close(ends[0][0][name], value, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    found = metrics(out)
    assert len(found) == len(lines) > 4
    for line, other in zip(found, lines, strict=True):
        assert (line["step"], line["stage"], line["task"]) == (other["step"], other["stage"], other["task"])
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert line["terms"] == pytest.approx(other["terms"], abs=1e-6)
