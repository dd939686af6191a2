"""Every fault of the table in a process of its own: one line, its exit code, and the same student after it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests import warm
from tests.conftest import REPOSITORY
from tests.faults_at_run.page import PAGE, lines
from tests.faults_at_run.table import DATA_FAULTS, FAULTS, DataFault, RunFault
from tests.small import LABELS, WORDS, project, save, write_rows, write_spec


def make(folder: Path) -> None:
    """A spec whose run has a checkpoint after steps 2 and 4 of 6, the same with a cache, and what may change `before`."""
    folder.mkdir()
    text = project(folder, train="steps = 6; save_steps = 2 steps").read_text()
    kept = text.replace("soft = ce(bert.logits", 'cache kept = bert.logits at "kept"\nsoft = ce(kept')
    (folder / "kept.brew").write_text(kept)
    shutil.copytree(folder / "bert", folder / "before" / "bert")
    shutil.copy(folder / "train.jsonl", folder / "before")


PATH = os.pathsep.join((str(Path(__file__).parent), str(REPOSITORY)))
"""Where Python finds `sitecustomize`."""


def run(
    folder: Path, spec: str = "spec.brew", *options: str, largest: int | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """`brewgraph run` in a process of its own."""
    command = ("-m", "brewgraph", "run", spec, *options)
    limits = {} if largest is None else {resource.RLIMIT_FSIZE: largest}
    return warm.start(command, folder, {**os.environ, "PYTHONPATH": PATH, **env}, limits)


PROGRAM = """
import logging, os, sys
import brewgraph as bg

class Ends(bg.Callback):
    def on_step(self, event):
        if event.step == 4 and "FAULT" in os.environ:
            raise WHAT

logging.basicConfig(level=logging.INFO, format="%(message)s")
print(bg.run("spec.brew", callbacks=[Ends()]), file=sys.stderr)
"""


def program(folder: Path, raises: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A Python program that runs the spec, in a process of its own; under a fault its callback raises."""
    return warm.start(("-c", PROGRAM.replace("WHAT", raises)), folder, {**os.environ, "PYTHONPATH": PATH, **env})


def student(folder: Path) -> dict[str, Tensor]:
    """The weights of the run that finished last."""
    last = max(folder.glob("runs/*/finished.json"), key=lambda path: path.stat().st_mtime_ns)
    return load_file(last.parent / "student" / "model.safetensors")


def resumed(ended: subprocess.CompletedProcess[str]) -> int:
    """The step at which a command resumed, 0 if it did not."""
    step = re.search(r"^resumed at step (\d+)", ended.stderr, re.MULTILINE)
    return int(step[1]) if step else 0


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether weights are the very same."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The student of a run that nothing disturbs."""
    make(folder := tmp_path_factory.mktemp("undisturbed") / "project")
    assert run(folder).returncode == 0
    return student(folder)


def test_the_page_is_up_to_date() -> None:
    """`docs/faults-at-run.md` is what the table makes of it."""
    assert PAGE.read_text(encoding="utf-8") == "\n".join(lines()) + "\n", "run `python -m tests.faults_at_run.page`"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_one_line_and_loses_nothing(fault: RunFault, tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    """No traceback, but of a Python program its own, and no word of a bug; afterwards the same command ends with the
    very same weights.
    """
    if "tracker" in fault.what:
        pytest.importorskip("tensorboard")
    make(folder := tmp_path / "project")
    if fault.between is not None:
        killed = run(folder, fault.spec, *fault.options, **fault.env, FAULT="killed", STEP="5")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        fault.between(folder)
    if fault.embedded:
        ended = program(folder, fault.embedded, **fault.env)
    else:
        ended = run(folder, fault.spec, *fault.options, largest=fault.largest, **fault.env)
    assert ended.returncode == fault.exit, ended.stderr
    assert fault.said in ended.stderr
    assert ended.stderr.count("error: ") == (fault.exit > 0 and not fault.embedded)
    assert ("Traceback" in ended.stderr) == ("Error" in fault.embedded)
    assert "this is a bug" not in ended.stderr
    if fault.mend is not None:
        fault.mend(folder)
    healthy = {} if "FAULT" in fault.env else fault.env
    if fault.embedded:
        again = program(folder, fault.embedded)
    else:
        again = run(folder, fault.spec, *fault.options, **healthy)
    assert again.returncode == 0, again.stderr
    finished_before = "is already finished" in again.stderr
    assert resumed(ended if finished_before else again) == fault.resumes
    assert equal(student(folder), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("fault", DATA_FAULTS, ids=str)
def test_a_hostile_file_of_data_is_one_diagnostic(fault: DataFault, tmp_path: Path) -> None:
    """Soon, with little memory, by a user who may read what its mode says."""
    save(tmp_path / "tiny", layers=1)
    fault.write(tmp_path / fault.name)
    (tmp_path / "spec.brew").write_text(
        f'student tiny = hf("tiny")\ndata d = files(train="{fault.name}")\nloss = ce(d.labels -> tiny.logits)\n'
    )

    limits = {resource.RLIMIT_CPU: 60, resource.RLIMIT_DATA: 2 << 30}
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "BREWGRAPH_FACTS": "off"}
    ended = warm.start(("-m", "brewgraph", "check", "spec.brew"), tmp_path, env, limits, as_user=True)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert fault.said in " ".join(ended.stdout.split())
    assert ended.stdout.count("error[") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        "a teacher is cut short",
        "a teacher is replaced",
        "a data file is cut short",
        "a data file grows",
        "a data file is replaced",
    ],
)
def test_a_run_holds_what_it_reads(what: str, tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    """Files of models and of data that are written over once training has begun change nothing and end nothing."""
    make(folder := tmp_path / "project")
    ended = run(folder, FAULT=what, STEP="3")
    assert ended.returncode == 0, ended.stderr
    assert equal(student(folder), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a data file grows", "a data file loses rows", "a data file is replaced"])
def test_a_file_that_changes_while_a_check_reads_it(what: str, tmp_path: Path) -> None:
    """The check is of no rows that there are: it names the file, whatever it read, and remembers nothing of it."""
    make(folder := tmp_path / "project")
    command = ("-m", "brewgraph", "check", "spec.brew")
    env = {**os.environ, "PYTHONPATH": PATH, "BREWGRAPH_FACTS": "facts"}
    ended = warm.start(command, folder, {**env, "FAULT": what, "STEP": "reading"})
    assert ended.returncode == 1, ended.stderr
    assert "error[B404]: `train.jsonl` changed while it was read" in ended.stdout
    assert "check again, once nothing writes it" in ended.stdout
    shutil.copy(folder / "before" / "train.jsonl", folder)
    again = warm.start(command, folder, env)
    assert (again.returncode, "error" in again.stdout) == (0, False), again.stdout


@pytest.mark.slow
def test_too_little_memory_is_known_beforehand_and_smaller_batches_help(tmp_path: Path) -> None:
    """A step that `plan` says takes more than there is really runs out of memory; the same step in eight parts fits."""
    make(folder := tmp_path / "project")
    texts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(30)) for i in range(1024)]
    write_rows(folder / "train.jsonl", [{"text": x, "label": LABELS[i % 3]} for i, x in enumerate(texts)])
    save(folder / "bert", width=64, seed=1)
    save(folder / "tiny", width=64, seed=2)
    write_spec(folder, batch=1024, train="steps = 1")
    plan = subprocess.run(
        [sys.executable, "-m", "brewgraph", "plan", "spec.brew"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    said = re.search(r"memory\s+([\d.]+) MB at most", plan.stdout)
    assert said is not None, plan.stdout
    there = 0.6 * float(said[1])
    little = {"FAULT": "less memory", "STEP": "0", "MIB": str(int(there))}
    ended = run(folder, **little)
    assert ended.returncode == 3, ended.stderr
    *_, last = ended.stderr.strip().splitlines()
    assert last.startswith("error: out of memory: use smaller batches, `batch=…` of the data, and `accumulate = …`")
    assert "Traceback" not in ended.stderr
    write_spec(folder, batch=128, train="steps = 1; accumulate = 8")
    assert run(folder, **little).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("step", "resumes"), [("3", 2), ("5", 4), ("student", 6)])
def test_a_disk_that_is_really_full(step: str, resumes: int, tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    """On a small file system, filled at a step or before the student is written: one line, and nothing is lost."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        make(folder := disk / "project")
        ended = run(folder, FAULT="a full disk", STEP=step)
        assert ended.returncode == 3, ended.stderr
        assert "cannot be written: " in ended.stderr
        assert "this is a bug" not in ended.stderr
        (folder / "runs" / "filler").unlink()
        again = run(folder)
        assert again.returncode == 0, again.stderr
        assert resumed(again) == resumes
        assert equal(student(folder), undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
