"""What is said of a run that meets another one, or an earlier state of itself, in its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import brewgraph as bg
from brewgraph.training.folder import LOCK, RunFolder
from brewgraph.training.lock import Owner, psutil
from brewgraph.training.reporter import Reporter
from tests.cli.tiny import command, write_tiny
from tests.running.test_run import Steps, edit
from tests.small import metrics, project, rows, save, write_rows

SETTINGS = "steps = 4; save_steps = 1 steps"


class Interrupting(Reporter):
    """Breaks off behind a step."""

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in `out` that was interrupted behind a checkpoint."""
    monkeypatch.chdir(tmp_path)
    spec = project(tmp_path, train=SETTINGS)
    with pytest.raises(KeyboardInterrupt, match="run the same command again: spec resumes at step 2"):
        bg.run(spec, out="out", reporter=Interrupting())
    return spec


def other_data(folder: Path) -> None:
    write_rows(folder / "train.jsonl", rows(20, 9))


def other_weights(folder: Path) -> None:
    save(folder / "bert", width=32, seed=9)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (("0.3 * hard", "0.5 * hard"), ["~ term hard: weight 0.3 -> 0.5"]),
        (("lr=1e-3", "lr=1e-2"), ["~ setting optimizer.lr: 0.001 -> 0.01"]),
        (("soft + 0.3", "0.3"), ["- term soft: ce(bert.logits -> tiny.logits, T=4)"]),
        ((", batch=4", ", batch=5"), ["~ data d: batch 4 -> 5"]),
        (other_data, ["~ data d: content"]),
        (other_weights, ["~ teacher bert: content"]),
        ({"T": 8}, ["~ term soft: T 4 -> 8"]),
    ],
)
def test_another_spec_in_the_folder_of_a_run_is_refused(spec: Path, change: Any, lines: list[str]) -> None:
    """What changed is said in meaning; the interrupted run stays as it is, and goes on when the change is undone."""
    before, params = spec.read_text(), change if isinstance(change, dict) else {}
    restore = None
    if isinstance(change, tuple):
        edit(spec, change)
    elif callable(change):
        change(spec.parent)
        restore = True
    with pytest.raises(bg.UsageError) as refused:
        bg.run(spec, out="out", **params)
    head, *said, help = str(refused.value).splitlines()
    assert head.startswith("out holds another run (hash ")
    assert [line.strip() for line in said] == lines
    assert help == "choose another --out, or --force"
    assert [step for step, _ in RunFolder(Path("out")).complete_checkpoints()] == [1, 2]
    if restore is None:
        spec.write_text(before)
        reporter = Steps()
        bg.run(spec, out="out", reporter=reporter)
        assert reporter.said == ["resumed at step 2"]


def test_a_changed_spec_says_which_run_it_leaves_behind(spec: Path) -> None:
    """In the folder of all runs: an interrupted one of the same params, that nobody continues just now."""
    with pytest.raises(KeyboardInterrupt):
        bg.run(spec, reporter=Interrupting())
    (left,) = Path("runs").iterdir()
    other_data(spec.parent)
    reporter = Steps()
    bg.run(spec, T=8, dry_run=True, reporter=reporter)
    bg.run(spec, T=8, reporter=reporter)
    assert reporter.said == ["one step, one evaluation and one save succeeded; " + reporter.said[0].partition("; ")[2]]
    reporter = Steps()
    result = bg.run(spec, reporter=reporter)
    assert reporter.said == [
        f"{left} was interrupted, and is not continued, because this changed:\n  ~ data d: content"
    ]
    assert result.folder != left
    assert [step for step, _ in RunFolder(left).complete_checkpoints()] == [1, 2]
    parent = psutil.Process(os.getppid())
    (left / LOCK).write_text(json.dumps(asdict(Owner(Owner.this().host, parent.pid, parent.create_time()))))
    bg.run(spec, force=True, reporter=(reporter := Steps()))
    assert reporter.said == []


def test_a_run_without_its_teacher_is_another_run(spec: Path) -> None:
    """Although its spec is the same."""
    with pytest.raises(bg.UsageError, match=r"out holds another run \(hash \w+\); choose another --out, or --force"):
        bg.run(spec, out="out", without_teacher=True)


def test_a_spec_that_can_no_longer_be_read_is_refused_too(spec: Path) -> None:
    """Without saying what changed."""
    (Path("out") / "spec.brew").write_text("brew 1\nloss = ")
    with pytest.raises(bg.UsageError, match=r"out holds another run \(hash \w+\); choose another --out, or --force"):
        bg.run(spec, out="out", T=8)


# ── the same run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_other_versions_and_passes_do_not_continue_a_run(spec: Path) -> None:
    """Its last bits could change; --force begins anew."""
    path = Path("out/resolved.json")
    resolved = json.loads(path.read_text())
    versions = resolved["circumstances"] | {"torch": "2.0.0"}
    path.write_text(json.dumps(resolved | {"circumstances": versions}))
    now = resolved["circumstances"]["torch"]
    said = (
        "the run in out was interrupted, and would not continue exactly:\n"
        f"  ~ torch 2.0.0 -> {now}\n  ~ skipped passes none -> pack_tokens\n"
        "restore that, or begin anew with --force"
    )
    with pytest.raises(bg.UsageError) as refused:
        bg.run(spec, out="out", skip=["pack_tokens"])
    assert str(refused.value) == said
    assert json.loads(path.read_text())["circumstances"] == versions
    reporter = Steps()
    assert bg.run(spec, out="out", force=True, reporter=reporter).fresh
    assert reporter.said == []
    # of a finished run nothing is left to continue
    path.write_text(json.dumps(resolved | {"circumstances": versions}))
    assert not bg.run(spec, out="out").fresh


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("steps = 4", "steps = 4; compile = true"), "compile false -> true"),
        (("adamw(", "adamw(fused=false, "), "fused none -> false"),
        (('hf("bert"', 'hf("bert", device="cpu"'), "devices none -> bert on cpu"),
    ],
)
def test_other_devices_and_kernels_do_not_continue_a_run(spec: Path, change: tuple[str, str], line: str) -> None:
    """They round otherwise, and compiled layers draw other dropout."""
    edit(spec, change)
    with pytest.raises(bg.UsageError, match=f"would not continue exactly:\n  ~ {line}\nrestore that"):
        bg.run(spec, out="out")


def test_settings_that_train_nothing_may_change(spec: Path) -> None:
    """It is said, and the run goes on."""
    edit(spec, ("logging_steps = 1", "logging_steps = 2"))
    reporter = Steps()
    bg.run(spec, out="out", reporter=reporter)
    change = "logging_steps 1 -> 2, which changes nothing that is trained"
    assert reporter.said == [f"since out was interrupted: {change}", "resumed at step 2"]


def test_a_broken_off_force_is_never_half_a_run(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever clearing the folder is broken off, the same command begins anew."""
    whole = metrics(bg.run(spec, out="whole").folder)
    unlink, rmtree, left = Path.unlink, shutil.rmtree, 0

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    def unlinked(path: Path, **options: Any) -> None:
        if path.parent.name == "out" and path.name in ("finished.json", "metrics.jsonl", "spec.brew"):
            count()
        unlink(path, **options)

    def removed(path: Path, **options: Any) -> None:
        if Path(path).parent.name == "out":
            count()
        rmtree(path, **options)

    for at in (2, 3, 4, 5, 6):
        left = at
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "unlink", unlinked)
            patched.setattr(shutil, "rmtree", removed)
            bg.run(spec, out="out", force=True)
        reporter = Steps()
        assert metrics(bg.run(spec, out="out", reporter=reporter).folder) == whole
        assert reporter.said == []
        left = 0
        with pytest.raises(KeyboardInterrupt):
            bg.run(spec, out="out", force=True, reporter=Interrupting())


# ── two processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_process_in_a_folder_is_refused(tmp_path: Path) -> None:
    """One line and exit code 3, for a spec and for its teacher; a dead owner is taken over."""
    spec = write_tiny(tmp_path)
    result = command("run", str(spec), "--runs", str(tmp_path / "runs"))
    (student,), (teacher,) = (list(tmp_path.glob(f"runs/{name}-*")) for name in ("student", "teacher"))
    code = "from brewgraph.training.lock import Owner, asdict, json; print(json.dumps(asdict(Owner.this())))"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    parent = psutil.Process(os.getppid())
    alive = json.dumps(asdict(Owner(Owner.this().host, parent.pid, parent.create_time())))
    for folder in (teacher, student):
        (folder / "finished.json").unlink()
    for folder in (teacher, student):
        (teacher / LOCK).unlink(missing_ok=True)
        (folder / LOCK).write_text(alive)
        result = command("run", "-q", str(spec), "--runs", str(tmp_path / "runs"))
        assert result.exit_code == 3
        (line,) = result.stderr.splitlines()
        assert f"{folder.name} is in use by process {parent.pid} on " in line
    (student / LOCK).write_text(dead)
    result = command("run", str(spec), "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 0
    assert f"process {json.loads(dead)['process']}, which ran in " in result.stderr
    assert not (student / LOCK).exists()


def test_a_finished_run_needs_no_lock(tmp_path: Path) -> None:
    """Somebody else may own the folder, and it may be read-only."""
    spec = project(tmp_path, train="steps = 1")
    folder = bg.run(spec).folder
    (folder / LOCK).write_text('{"host": "elsewhere", "process": 1, "started": 1}')
    assert not bg.run(spec).fresh
    with pytest.raises(bg.RunError, match="belongs to process 1 on elsewhere"):
        bg.run(spec, force=True)
    assert (folder / "finished.json").exists()
