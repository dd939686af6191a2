"""Every fault of the table in a process of its own: one line, its exit code, and the same student after it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import REPOSITORY
from tests.faults_at_run.page import PAGE, lines
from tests.faults_at_run.table import FAULTS, RunFault
from tests.small import project


def make(folder: Path) -> None:
    """A spec whose run has a checkpoint after steps 2 and 4 of 6, and the same with a cache."""
    folder.mkdir()
    text = project(folder, train="steps = 6; save_steps = 2 steps").read_text()
    kept = text.replace("soft = ce(bert.logits", 'cache kept = bert.logits at "kept"\nsoft = ce(kept')
    (folder / "kept.brew").write_text(kept)


def run(
    folder: Path, spec: str = "spec.brew", largest: int | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """`brewgraph run` in a process of its own."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    path = os.pathsep.join((str(Path(__file__).parent), str(REPOSITORY)))
    return subprocess.run(
        [sys.executable, "-m", "brewgraph", "run", spec],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **env},
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )


def student(folder: Path) -> dict[str, Tensor]:
    """The weights of the one finished run."""
    (path,) = folder.glob("runs/*/student/model.safetensors")
    return load_file(path)


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
    """No traceback and no word of a bug; afterwards the same command ends with the very same weights."""
    make(folder := tmp_path / "project")
    ended = run(folder, fault.spec, fault.largest, **fault.env)
    *_, last = ended.stderr.strip().splitlines()
    assert (ended.returncode, last[:7]) == (fault.exit, "error: "), ended.stderr
    assert fault.said in last
    assert "Traceback" not in ended.stderr
    assert "this is a bug" not in ended.stderr
    for blocked in folder.glob("runs/*/checkpoints"):
        if blocked.is_file():
            blocked.unlink()
    again = run(folder, fault.spec)
    assert again.returncode == 0, again.stderr
    assert ("resumed at step 4" in again.stderr) == fault.resumes
    after = student(folder)
    assert after.keys() == undisturbed.keys()
    assert all(after[name].equal(undisturbed[name]) for name in after)
