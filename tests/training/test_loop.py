"""The loop: splits agree, resumed runs equal uninterrupted ones, and what is no number is named."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import brewgraph as bg
from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.data.batching.order import mark_idle
from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings.train import Train
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.folder import RunFolder, write_checksums
from brewgraph.training.loop import train
from brewgraph.training.processes import make_accelerator
from brewgraph.training.reporter import Reporter
from brewgraph.training.state_files import read_state
from brewgraph.training.trackers import Trackers
from brewgraph.training.work import Material, StageWork
from tests import warm
from tests.small import metrics, project, rows, write_rows, write_spec

State = dict[str, torch.Tensor]


def work(distiller: Any, material: Material, settings: Train) -> StageWork:
    """One stage of one task, neither with a name."""
    return StageWork("", lambda: distiller, {"": material}, settings)


def training(spec: Path, out: Path, **options: Any) -> tuple[State, list[dict[str, Any]]]:
    """Train a spec from its beginning, or on with `resume=True`; the weights at the end and the lines of metrics."""
    checked: Checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    distiller = builder.distiller()
    folder = RunFolder(out)
    folder.prepare()
    train(
        [
            work(
                distiller,
                DataCache(builder).material(builder.checked, *builder.recipe.tasks[0]),
                checked.recipe.train,
            )
        ],
        "tiny",
        folder,
        Reporter(),
        name="x",
        **options,
    )
    return {name: value.clone() for name, value in distiller.state_dict().items()}, metrics(out)


def assert_close(one: tuple[State, list[dict[str, Any]]], other: tuple[State, list[dict[str, Any]]]) -> None:
    """Losses and terms of every step, and weights, to 1e-6."""
    lines = [[line for line in found if "loss" in line] for found in (one[1], other[1])]
    assert len(lines[0]) == len(lines[1]) > 0
    for a, b in zip(*lines, strict=True):
        assert a["step"] == b["step"]
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["terms"] == pytest.approx(b["terms"], abs=1e-6)
    for name, value in one[0].items():
        torch.testing.assert_close(value, other[0][name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    """Batches of 8, of 2 x 4 and of 4 x 2 train alike: lengths differ, so means of means would not; the tail too."""
    spec = project(tmp_path, batch=8, train="epochs = 2")
    whole = training(spec, tmp_path / "whole")
    assert [line["step"] for line in whole[1] if "loss" in line] == [1, 2, 3, 4, 5, 6]
    for batch, parts in ((4, 2), (2, 4)):
        write_spec(tmp_path, batch=batch, train=f"epochs = 2; accumulate = {parts}")
        assert_close(training(spec, tmp_path / f"{parts}"), whole)


WORKER = """
import torch
from pathlib import Path
torch.set_num_threads(1)
from tests.training.test_loop import training
from accelerate import PartialState
weights, _ = training(Path({spec!r}), Path({out!r}){options})
state = PartialState()
assert state.num_processes == 2, state.num_processes
torch.save(weights, Path({out!r}) / f"weights-{{state.process_index}}.pt")
state.destroy_process_group()
"""


STOPPED = """
import os, signal
from pathlib import Path
import torch
torch.set_num_threads(1)
from brewgraph.training import loop
from brewgraph.training.signals import Terminated
from tests.training.test_loop import training
step = loop.StageRun._step
def signalled(self, *rest):
    step(self, *rest)
    if self.state.step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
loop.StageRun._step = signalled
stopped = False
try:
    training(Path({spec!r}), Path({out!r}))
except Terminated:
    stopped = True
(Path({out!r}) / f"stopped-{{os.environ['RANK']}}").write_text(str(stopped))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_at_one_step(tmp_path: Path) -> None:
    """The run then goes on as one that was not stopped."""
    spec = project(tmp_path, batch=8, train="steps = 6; save_steps = 50 steps")
    whole = on_two_ranks(spec, tmp_path / "whole")
    on_ranks(STOPPED, spec, tmp_path / "stopped")
    assert [(tmp_path / "stopped" / f"stopped-{rank}").read_text() for rank in range(2)] == ["True", "True"]
    assert [step for step, _ in RunFolder(tmp_path / "stopped").complete_checkpoints()] == [3]
    again = on_two_ranks(spec, tmp_path / "stopped", ", resume=True")
    for one, other in zip(whole, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def on_two_ranks(spec: Path, out: Path, options: str = "") -> list[State]:
    """Train on two processes on the CPU; the weights of each."""
    on_ranks(WORKER, spec, out, options)
    return [torch.load(out / f"weights-{rank}.pt", weights_only=True) for rank in range(2)]


def on_ranks(worker: str, spec: Path, out: Path, options: str = "") -> None:
    """Run a program on two processes on the CPU."""
    warm.start_ranks("-c", worker.format(spec=str(spec), out=str(out), options=options))


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    """Two ranks of 4 give the losses, the weights and one file of metrics of one rank of 8, accumulated or not, with
    projections, a pooler that no term reaches, and labels that one rank has none of; resumed too."""
    loss = "sum(hidden) + sum(gram)"
    spec = project(tmp_path, batch=8, loss=loss, train="steps = 4; save_steps = 2 steps")
    write_rows(tmp_path / "dev.jsonl", rows(7))
    whole = training(spec, tmp_path / "whole")
    found = on_two_ranks(spec, tmp_path / "ranks")
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert_close((found[0], metrics(tmp_path / "ranks")), whole)
    on_two_ranks(spec, tmp_path / "stopped", ", stop_after=3")
    again = on_two_ranks(spec, tmp_path / "stopped", ", resume=True")
    assert_close((again[1], metrics(tmp_path / "stopped")), whole)
    write_spec(tmp_path, batch=4, train="steps = 4; accumulate = 2")
    spec_one = tmp_path / "spec.brew"
    whole = training(spec_one, tmp_path / "accumulated")
    found = on_two_ranks(spec_one, tmp_path / "accumulated-ranks")
    assert_close((found[1], metrics(tmp_path / "accumulated-ranks")), whole)
    scores = [
        [line["dev"] for line in lines if "dev" in line]
        for lines in (whole[1], metrics(tmp_path / "accumulated-ranks"))
    ]
    assert scores[0] == scores[1] != []


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "settings"), [(4, ""), (2, "; accumulate = 2; group_by_length = true")])
def test_a_last_batch_of_fewer_rows_than_ranks(tmp_path: Path, batch: int, settings: str) -> None:
    """Nine rows end with a batch of one, dev has one row: steps, losses, reported values, scores and weights are those
    of one rank. A rank without a row takes part and adds nothing."""
    loss = "sum(hidden) + sum(gram) + 0.3 * hard"
    spec = project(
        tmp_path, batch=batch, loss=loss, train=f"epochs = 2{settings}; report = [soft]; eval_steps = 2 steps"
    )
    write_rows(tmp_path / "train.jsonl", rows(9))
    write_rows(tmp_path / "dev.jsonl", rows(1))
    whole = training(spec, tmp_path / "whole")
    assert [line["step"] for line in whole[1] if "loss" in line] == list(range(1, 7))
    found = on_two_ranks(spec, tmp_path / "ranks")
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    lines = metrics(tmp_path / "ranks")
    assert_close((found[0], lines), whole)
    assert [line["dev"] for line in lines if "dev" in line] == [
        pytest.approx(line["dev"]) for line in whole[1] if "dev" in line
    ]
    for line, other in zip(lines, whole[1], strict=True):
        if batch == 4 and "report" in line and line["step"] in (3, 6):  # one rank has no row of this batch
            assert line["report"] == pytest.approx(other["report"], abs=1e-6)


def test_an_idle_batch_counts_for_nothing(tmp_path: Path) -> None:
    """No units, a loss and gradients of zero; beside the counts of the batch's owner, too."""
    distiller = bg.load(project(tmp_path, loss="sum(hidden) + sum(gram) + 0.3 * hard")).build()
    ids = torch.randint(5, 30, (1, 7))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([1])}
    own, idle = distiller.count(batch), distiller.count(mark_idle(batch))
    assert own.tolist() != idle.tolist() == [0.0] * len(own)
    for counts in (None, own):
        output = distiller(mark_idle(batch), counts)
        assert float(output.loss.detach()) == 0.0
        assert all(float(term.detach()) == 0.0 for term in output.terms.values())
        output.loss.backward()
        assert all(p.grad is None or not p.grad.any() for p in distiller.parameters())
    assert float(distiller(batch, own).loss.detach()) > 0


@pytest.mark.slow
def test_two_ranks_switch_terms_off_and_read_caches_as_one(tmp_path: Path) -> None:
    """Projections that no term reaches for half of the steps, a teacher that runs only then, and logits that each rank
    writes and reads for its own examples."""
    loss = "0.3 * hard + after(50%) * sum(hidden) + (1 - after(50%)) * soft"
    spec = project(tmp_path, batch=8, loss=loss, train="steps = 6")
    text = spec.read_text().replace("soft = ce(bert.logits", 'cache kept = bert.logits at "store"\nsoft = ce(kept')
    spec.write_text(text)
    whole = training(spec, tmp_path / "whole")
    terms = [sorted(line["terms"]) for line in whole[1] if "terms" in line]
    assert terms[0] == ["hard", "soft"]
    assert terms[-1] == ["hard", "hidden[0]", "hidden[1]"]
    for out in ("read", "written"):
        found = on_two_ranks(spec, tmp_path / out)
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
        assert_close((found[0], metrics(tmp_path / out)), whole)
        assert len(list((tmp_path / "store").glob("*.lmdb"))) == 1
        shutil.rmtree(tmp_path / "store")


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SAVING = "epochs = 2; accumulate = 2; save_steps = 1 steps; save_total_limit = 2"


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    """Mid-epoch, with dropout and accumulation, between two lines of metrics: weights and metrics to the bit."""
    spec = project(tmp_path, dropout=True, batch=4, train=SAVING)
    spec.write_text(spec.read_text().replace("logging_steps = 1", "logging_steps = 3"))
    whole = training(spec, tmp_path / "whole")
    training(spec, tmp_path / "stopped", stop_after=stop)
    torch.manual_seed(99)
    found = training(spec, tmp_path / "stopped", resume=True)
    assert found[1] == whole[1]
    assert [line["step"] for line in whole[1] if "loss" in line] == [3, 6]
    assert all(torch.equal(value, whole[0][name]) for name, value in found[0].items())


def test_incomplete_checkpoints_are_ignored_and_old_ones_rotate(tmp_path: Path) -> None:
    """A run goes on from the newest whole checkpoint; the last two whole ones are kept; leftovers are cleared away."""
    spec = project(tmp_path, batch=4, train=SAVING)
    whole = training(spec, tmp_path / "whole")
    training(spec, tmp_path / "stopped", stop_after=4)
    folder = RunFolder(tmp_path / "stopped")
    assert [step for step, _ in folder.complete_checkpoints()] == [3, 4]
    newest = folder.checkpoints / "step-000004"
    size = (newest / "state.json").stat().st_size - 10
    os.truncate(newest / "state.json", size)
    shutil.copytree(folder.checkpoints / "step-000003", folder.checkpoints / "step-000009")
    (folder.checkpoints / "step-000009" / "complete.json").unlink()
    (folder.checkpoints / ".step-000005.part").mkdir()
    assert [step for step, _ in folder.complete_checkpoints()] == [3]
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "loss"')
    said: list[str] = []

    class Listening(Reporter):
        def say(self, text: str) -> None:
            said.append(text)

    checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    distiller = builder.distiller()
    stage = work(
        distiller, DataCache(builder).material(builder.checked, *builder.recipe.tasks[0]), checked.recipe.train
    )
    train([stage], "tiny", folder, Listening(), name="x", resume=True)
    assert [text.replace(str(folder.checkpoints), "") for text in said] == [
        "the checkpoint /step-000009 is damaged: complete.json cannot be read; step-000003 is used instead",
        f"the checkpoint /step-000004 is damaged: state.json has {size:,} bytes and should have {size + 10:,}; "
        "step-000003 is used instead",
        "resumed at step 3",
    ]
    assert metrics(folder.path) == whole[1]
    assert [step for step, _ in folder.complete_checkpoints()] == [5, 6]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000005", "step-000006"]
    assert not list(folder.checkpoints.glob(".*.part"))


def test_a_run_without_checkpoint_begins_its_metrics_anew(tmp_path: Path) -> None:
    """A run interrupted before its first checkpoint starts over, and says nothing twice."""
    spec = project(tmp_path, train="steps = 5; save_steps = 5 steps")
    whole = training(spec, tmp_path / "whole")
    training(spec, tmp_path / "stopped", stop_after=2)
    assert [line["step"] for line in metrics(tmp_path / "stopped")] == [1, 2]
    assert training(spec, tmp_path / "stopped", resume=True)[1] == whole[1]


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    """Of another loss, another seed or another size: never loaded; nor is what is no checkpoint at all."""
    spec = project(tmp_path, train="steps = 5; save_steps = 1 steps")
    training(spec, tmp_path / "out", stop_after=2)
    write_spec(tmp_path, train="steps = 5; save_steps = 1 steps; seed = 1")
    message = r"step-000002` does not fit this run: it belongs to another spec, other data or other settings; .*--force"
    with pytest.raises(RunError, match=message):
        training(spec, tmp_path / "out", resume=True)
    write_spec(tmp_path, train="steps = 5; save_steps = 1 steps", loss="soft + sum(hidden)")
    with pytest.raises(RunError, match=message):
        training(spec, tmp_path / "out", resume=True)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_checkpoint_never_runs_code(name: str, tmp_path: Path) -> None:
    """A state file that pickles a call is refused, although its checksum is right, and the call is not made."""

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    spec = project(tmp_path, train="steps = 5; save_steps = 1 steps")
    training(spec, tmp_path / "out", stop_after=2)
    path = tmp_path / "out" / "checkpoints" / "step-000002"
    torch.save(Evil(), path / name)
    (path / "complete.json").unlink()
    write_checksums(path, 2)
    with pytest.raises(RunError, match="step-000002` does not fit this run: .*; start anew with --force"):
        training(spec, tmp_path / "out", resume=True)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "student/model.safetensors", "complete.json"])
def test_a_damaged_checkpoint_is_passed_over(name: str, tmp_path: Path) -> None:
    """One bit that changed is found by the checksum; the run goes on from the checkpoint before, or begins anew."""
    spec = project(tmp_path, train=SAVING)
    whole = training(spec, tmp_path / "whole")
    for kept in (2, 1):
        out = tmp_path / f"stopped-{kept}"
        training(spec, out, stop_after=3)
        for path in sorted((out / "checkpoints").glob("step-*"))[-1 : -1 - (3 - kept) : -1]:
            content = bytearray((path / name).read_bytes())
            content[len(content) // 2] ^= 16
            (path / name).write_bytes(content)
        assert RunFolder(out).newest_checkpoint()[0] == (out / "checkpoints" / "step-000002" if kept == 2 else None)
        again = training(spec, out, resume=True)
        assert again[1] == whole[1]
        assert all(torch.equal(value, whole[0][key]) for key, value in again[0].items())


def test_a_checkpoint_that_was_not_renamed_yet_is_used(tmp_path: Path) -> None:
    """Its files are whole: the process ended between writing and renaming."""
    spec = project(tmp_path, train=SAVING)
    training(spec, tmp_path / "out", stop_after=3)
    folder = RunFolder(tmp_path / "out")
    (folder.checkpoints / "step-000003").rename(folder.checkpoints / ".step-000003.part")
    assert folder.newest_checkpoint() == (folder.checkpoints / ".step-000003.part", [])
    (folder.checkpoints / ".step-000003.part" / "complete.json").unlink()
    assert folder.newest_checkpoint() == (folder.checkpoints / "step-000002", [])


# ── faults and settings ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("value", "accumulate"), [(math.nan, 1), (math.inf, 2)])
def test_a_loss_that_is_no_number_is_named(value: float, accumulate: int, tmp_path: Path) -> None:
    """The term, the step and the rows of the batch; the last checkpoint stays good."""
    spec = project(tmp_path, batch=2, train=f"steps = 5; save_steps = 1 steps; accumulate = {accumulate}")
    checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    folder = RunFolder(tmp_path / "out")
    folder.prepare()
    seen: list[int] = []

    class Breaking(Reporter):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            seen.append(step)
            if step == 2:
                with torch.no_grad():
                    distiller.projections["hidden:1"].linear.bias.fill_(value)

    message = (
        r"^`hidden\[1\]` is not a finite number at step 3 \(training rows \d+(, \d+){%d}\); a smaller learning rate"
    )
    with pytest.raises(RunError, match=message % (2 * accumulate - 1)):
        train([work(distiller, material, checked.recipe.train)], "tiny", folder, Breaking(), name="x")
    assert seen == [1, 2]
    assert [step for step, _ in folder.complete_checkpoints()] == [1, 2]


def test_two_precisions_in_one_process(tmp_path: Path) -> None:
    """A teacher in full precision and a student in bf16: each as it was asked, and nothing of it is left behind."""
    spec = project(tmp_path, train="steps = 2; precision = bf16")
    half = training(spec, tmp_path / "half")
    write_spec(tmp_path, train="steps = 2")
    checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    forward = type(distiller).forward
    settings = checked.recipe.train
    stage = work(distiller, material, settings.model_copy(update={"precision": "bf16"}))
    train([stage], "tiny", None, Reporter(), name="x")
    assert distiller.forward.__func__ is forward
    assert make_accelerator(settings).mixed_precision == "no"
    full = training(spec, tmp_path / "full")
    assert full[1][0]["loss"] != half[1][0]["loss"]
    assert full[1][0]["loss"] == pytest.approx(half[1][0]["loss"], rel=0.05)


def test_launch_settings_do_not_divide_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch` was told about accumulation leaves the steps alone."""
    spec = project(tmp_path, train="steps = 2")
    expected = training(spec, tmp_path / "one")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert_close(training(spec, tmp_path / "other"), expected)


def test_the_best_of_a_specs_students_is_kept(tmp_path: Path) -> None:
    """By a metric of the real evaluation: what is on the disk is what remains, and scores what the log says."""
    train = 'steps = 6; eval_steps = 2 steps; metric_for_best_model = "accuracy"; normalise = micro'
    weights, lines = training(project(tmp_path, train=train), tmp_path / "out")
    scores = {line["step"]: line["dev"]["accuracy"] for line in lines if "dev" in line}
    kept = read_state(RunFolder(tmp_path / "out").best)
    assert list(scores) == [2, 4, 6]
    assert kept["step"] == max(scores, key=lambda step: (scores[step], -step))
    assert all(torch.equal(value, kept["module"][name]) for name, value in weights.items())


def test_a_student_without_classes_is_not_scored(tmp_path: Path) -> None:
    """Hidden states alone train a model without a head: there are its losses to evaluate."""
    spec = project(tmp_path, loss="sum(hidden)", train="steps = 2")
    text = spec.read_text()
    spec.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("soft", "hard"))) + "\n")
    _, lines = training(spec, tmp_path / "out")
    logged, evaluated = [line for line in lines if "dev" not in line], [line for line in lines if "dev" in line]
    assert [sorted(line) for line in logged] == [["epoch", "loss", "lr", "step", "terms", "weighted"]] * 2
    assert {tuple(line["dev"]) for line in evaluated} == {("loss", *logged[0]["terms"])}


def test_weight_decay_spares_biases_norms_and_projections_have_their_own_rate(tmp_path: Path) -> None:
    """Matrices decay, vectors do not, and a projection's `lr` and `weight_decay` are its own."""
    from brewgraph.training.optimizer import build_optimizer

    spec = project(tmp_path)
    spec.write_text(spec.read_text().replace("via linear", "via linear(lr=0.1, weight_decay=0.5)"))
    distiller = SpecBuilder(check(read_spec(spec))).distiller()
    settings = Train()
    optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
    names = {id(p): name for name, p in distiller.named_parameters()}
    found = {
        (names[id(p)].startswith("projections"), p.ndim > 1): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    lr = settings.optimizer.lr
    assert found == {
        (False, True): (lr, 0.01),
        (False, False): (lr, 0.0),
        (True, True): (0.1, 0.5),
        (True, False): (0.1, 0.0),
    }


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    """Where the `board` extra is installed: every loss and evaluation of metrics.jsonl, also across a resume."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    spec = project(tmp_path, batch=8, train="steps = 6; save_steps = 2 steps")
    out = tmp_path / "run"
    out.mkdir()
    for options in ({"stop_after": 3}, {"resume": True}):
        trackers = Trackers(["tensorboard"])
        trackers.begin(RunFolder(out))
        _, lines = training(spec, out, trackers=trackers, **options)
        trackers.end(finished=False)
    board = accumulator.EventAccumulator(str(RunFolder(out).board)).Reload()
    losses = {event.step: event.value for event in board.Scalars("loss")}
    assert len(board.Scalars("loss")) == len(losses), "a point is recorded once"
    assert losses == pytest.approx({line["step"]: line["loss"] for line in lines if "loss" in line}, rel=1e-6)
    assert [event.step for event in board.Scalars("dev/accuracy")] == [line["step"] for line in lines if "dev" in line]
