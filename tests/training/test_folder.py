"""Folders that take the place of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brewgraph.training.folder import RunFolder, named_run, put_back, replacing

ROOT = Path(__file__).parents[2]
KILLED = """
import os, sys
from pathlib import Path
from brewgraph.training.folder import replacing
def rename(path, target, rename=Path.rename, calls=[]):
    calls.append(path)
    if len(calls) == 2:
        os.kill(os.getpid(), 9)
    return rename(path, target)
Path.rename = rename
with replacing(Path(sys.argv[1])) as temporary:
    (temporary / "weights").write_text("after")
"""


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """An interruption while the names change: the folder of before is whole and has its name."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("before")
    renames, rename = 0, Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == failing:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(folder) as temporary:
        (temporary / "weights").write_text("after")
    assert (folder / "weights").read_text() == "before"
    with replacing(folder) as temporary:
        (temporary / "weights").write_text("after")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "weights").read_text() == "after"


def killed_between_the_renames(folder: Path) -> None:
    """A folder with an earlier content, whose replacement is killed without warning at its worst moment."""
    folder.mkdir(parents=True)
    (folder / "weights").write_text("before")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".{folder.name}.before", f".{folder.name}.part"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    """Who reads the folder next finds the earlier one, who replaces it leaves nothing else, also where that fails."""
    killed_between_the_renames(read := tmp_path / "read" / "model")
    assert (named_run(read).path / "weights").read_text() == "before"
    killed_between_the_renames(failed := tmp_path / "failed" / "model")
    with pytest.raises(OSError, match="full"), replacing(failed):
        raise OSError("full")
    assert (failed / "weights").read_text() == "before"
    killed_between_the_renames(replaced := tmp_path / "replaced" / "model")
    for folder in (read, failed, replaced):
        with replacing(folder) as temporary:
            (temporary / "weights").write_text("anew")
        assert (folder / "weights").read_text() == "anew"
        assert list(folder.parent.iterdir()) == [folder]


def test_only_what_a_kill_left_is_put_back(tmp_path: Path) -> None:
    """A folder of such a name alone is the user's; a checkpoint that was replaced goes with the old ones."""
    (tmp_path / ".model.before").mkdir()
    put_back(tmp_path / "model")
    put_back(Path())
    put_back(tmp_path / ("x" * 250))
    assert [path.name for path in tmp_path.iterdir()] == [".model.before"]
    run = RunFolder(tmp_path / "run")
    for name in (".best.before", ".step-000004.before", ".step-000004.part"):
        (run.checkpoints / name).mkdir(parents=True)
    run.rotate(1, 6)
    assert [path.name for path in run.checkpoints.iterdir()] == [".best.before"]


def test_a_reader_between_the_renames_disturbs_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts the earlier folder back, and the writer moves that aside again."""
    folder, rename = tmp_path / "model", Path.rename
    folder.mkdir()
    read: list[Path] = []

    def disturbed(path: Path, target: Path) -> Path:
        if path.suffix == ".part" and not read:
            read.append(path)
            (path.with_name(".model.before") / "weights").write_text("before")
            put_back(folder)
            assert (folder / "weights").read_text() == "before"
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", disturbed)
    with replacing(folder) as temporary:
        (temporary / "weights").write_text("after")
    assert read
    assert (folder / "weights").read_text() == "after"
    assert list(tmp_path.iterdir()) == [folder]
