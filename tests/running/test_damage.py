"""Files of a run folder that are cut, empty, no JSON or of another type: nothing is removed, and one line says why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import brewgraph as bg
from brewgraph.running.damage import damage
from brewgraph.training.folder import RunFolder
from brewgraph.training.reporter import Reporter
from tests.cli.tiny import command
from tests.small import project

KINDS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_text(""),
    "zeros": lambda path: path.write_bytes(bytes(50)),
    "no JSON": lambda path: path.write_bytes(b"\xff\xfe hello"),
    "a list": lambda path: path.write_text("[1]"),
    "of other types": lambda path: path.write_text('{"hash": 3, "params": [], "tasks": "x", "table": {"a": 1}}'),
    "of tasks that are none": lambda path: path.write_text('{"tasks": {"": 3}, "table": [3]}'),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec, a finished run of it in `done`, and in `begun` one that was interrupted after its first checkpoint."""
    spec = project(tmp_path_factory.mktemp("damage"), train="steps = 2; save_steps = 1 steps")
    bg.run(spec, out=str(spec.parent / "done"))
    with pytest.raises(KeyboardInterrupt):
        bg.run(spec, out=str(spec.parent / "begun"), reporter=Interrupting())
    return spec


class Interrupting(Reporter):
    """Breaks off behind the second step."""

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt


def content(folder: Path) -> dict[str, bytes]:
    """All that took training in a folder."""
    paths = [path for path in folder.rglob("*.safetensors") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.timeout(60)  # a reader that waits for a pipe is at fault
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["done/resolved.json", "done/finished.json", "begun/resolved.json"])
def test_a_damaged_run_is_refused_by_every_command(
    place: str, kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the file and the remedy, and nothing is removed; `runs` lists it with what is wrong."""
    state, name = place.split("/")
    folder = shutil.copytree(made.parent / state, tmp_path / "runs" / "spec-1")
    KINDS[kind](folder / name)
    before = content(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bg.RunError, match=f"runs/spec-1/{name} cannot be read: restore it, or begin anew with --force"):
        bg.run(made, out="runs/spec-1")
    for words in (["eval"], ["predict", "--text", "x"], ["report"]):
        result = command(words[0], "runs/spec-1", *words[1:])
        assert result.exit_code == 3, (words, result.stderr)
        assert f"{name} cannot be read: restore it, or begin anew by `brewgraph run SPEC --force`" in result.stderr
    listed = command("runs", "--state", "damaged").stdout
    assert listed.splitlines()[-1] == f"spec-1 is damaged: runs/spec-1/{name} cannot be read"
    assert command("runs", "remove", "--unfinished", "--yes").stdout == "no unfinished runs\n"
    assert content(folder) == before


def test_a_missing_file_is_damage_where_something_was_trained(made: Path, tmp_path: Path) -> None:
    """A folder without a student or checkpoints is free."""
    folder = RunFolder(shutil.copytree(made.parent / "begun", tmp_path / "run"))
    (folder.path / "resolved.json").unlink()
    assert damage(folder).endswith("run/resolved.json is missing beside a trained student")
    shutil.rmtree(folder.checkpoints)
    assert damage(folder) == ""
    (folder.path / "resolved.json").write_text("{")
    assert damage(folder) == ""


@pytest.mark.parametrize("kind", ["cut", "a folder", "a link to nowhere"])
def test_force_begins_anew(kind: str, made: Path, tmp_path: Path) -> None:
    """Whatever stands in the place of the files."""
    folder = shutil.copytree(made.parent / "done", tmp_path / "run")
    for name in ("resolved.json", "finished.json"):
        KINDS[kind](folder / name)
    assert bg.run(made, out=str(folder), force=True).fresh
    assert content(folder) == content(made.parent / "done")
    assert damage(RunFolder(folder)) == ""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_other_files_of_a_run(kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs, tags and the last error count as missing; a spec that cannot be read is named."""
    folder = shutil.copytree(made.parent / "done", tmp_path / "runs" / "spec-1")
    for name in ("metrics.jsonl", "tags.json", "failed.json"):
        (folder / name).touch()
        KINDS[kind](folder / name)
    monkeypatch.chdir(tmp_path)
    assert "finished" in command("runs").stdout
    assert not bg.run(made, out="runs/spec-1").fresh
    assert command("report", "runs/spec-1").exit_code == 0
    KINDS[kind](folder / "spec.brew")
    for words in (["eval"], ["predict", "--text", "x"]):
        result = command(words[0], "runs/spec-1", *words[1:])
        assert result.exit_code in (2, 3), result.stderr
        assert "--force" in result.stderr or "holds no run" in result.stderr
