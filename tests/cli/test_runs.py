"""`brewgraph runs`: the list and its filters, comparisons, tags, and what is removed."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from brewgraph.training.folder import RunFolder, folder_size
from brewgraph.training.lock import locked
from tests.cli.test_main import HEAVY, process
from tests.cli.tiny import command, write_tiny

PREFIX = f"""
import sys, atexit
atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))
from brewgraph.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs at T=2 and T=4, and of their teacher."""
    folder = tmp_path_factory.mktemp("runs")
    spec = write_tiny(folder)
    for value in (2, 4):
        assert command("run", str(spec), "--set", f"T={value}").exit_code == 0
    return folder


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


def made(folder: Path, name: str, **files: object) -> RunFolder:
    """The folder of a run with these files of JSON."""
    (folder / name).mkdir(parents=True)
    for file, content in {"resolved": {"hash": "x", "params": {"T": 8}}, **files}.items():
        (folder / name / f"{file}.json").write_text(json.dumps(content))
    return RunFolder(folder / name)


def run_at(folder: Path, value: int) -> str:
    """The name of the student's run at this temperature."""
    return next(
        x.parent.name
        for x in folder.glob("runs/student-*/resolved.json")
        if json.loads(x.read_text())["params"]["T"] == value
    )


def test_the_list_tells_state_params_scores_and_size(here: Path):
    """Only params in which runs of a spec differ are shown; the last line counts bytes."""
    result = command("runs", "--sort", "name")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["run", "state", "when", "params", "score", "size"]
    assert sorted(line[4] for line in lines[1:3]) == ["T=2", "T=4"]
    assert lines[3][:2] == [next(here.glob("runs/teacher-*")).name, "finished"]
    assert lines[3][4] == "-"
    assert lines[1][5:7] == ["accuracy", "0.5000"]
    assert lines[4][:2] == ["3", "runs,"]


def test_filters(here: Path):
    """By param, by name, by state; CSV has a column for each param and score."""
    rows = list(csv.DictReader(command("runs", "--set", "T=4", "--format", "csv").stdout.splitlines()))
    assert [(row["name"], row["param T"], row["accuracy"]) for row in rows] == [(run_at(here, 4), "4", "0.5")]
    listed = json.loads(command("runs", "--name", "teacher-*", "--format", "json").stdout)
    assert [(x["spec"], x["state"], list(x["scores"])) for x in listed] == [("teacher", "finished", ["big"])]
    size = sum(x.stat().st_size for x in Path(listed[0]["folder"]).rglob("*") if x.is_file())
    assert listed[0]["bytes"] == size
    assert command("runs", "--state", "failed").stdout == "no runs\n"


def test_states(tmp_path: Path):
    """A lock of a live process, an error on record, neither of both."""
    made(tmp_path, "a-1", failed={"error": "the disk is full"})
    stopped = made(tmp_path, "b-1")
    (stopped.path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 10, "loss": 1.5}\n')
    busy = made(tmp_path, "c-1", failed={"error": "of an earlier try"})
    with locked(busy.path, print):
        listed = json.loads(command("runs", "--runs", str(tmp_path), "--sort", "name", "--format", "json").stdout)
        text = command("runs", "--runs", str(tmp_path)).stdout
    assert [(x["state"], x["step"], x["error"]) for x in listed] == [
        ("failed", None, "the disk is full"),
        ("interrupted", 10, None),
        ("running", None, None),
    ]
    assert "b-1  interrupted, step 10  " in text
    assert "; unfinished 2, " in text
    assert text.endswith("a-1 failed: the disk is full\n")


def test_diff_tells_meaning_and_scores(here: Path):
    """The temperature is a change of the term, not of text; the scores of both models follow."""
    result = command("runs", "diff", run_at(here, 2), run_at(here, 4))
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"{run_at(here, 2)} -> {run_at(here, 4)}", "~ term soft: T 2 -> 4"]
    assert [line.split()[0] for line in lines[3:]] == ["model", "big", "big", "small", "small"]
    assert lines[4].split() == ["big", "accuracy", "0.5000", "0.5000", "+0.0000"]


def test_diff_tells_content_and_versions(here: Path, tmp_path: Path):
    """Other rows in a file of the same name, and another version of a library."""
    names = []
    for version, fingerprint in (("2.0", "a"), ("2.1", "b")):
        source = here / "runs" / run_at(here, 2)
        resolved = json.loads((source / "resolved.json").read_text())
        resolved["fingerprints"]["data 0"] = fingerprint
        resolved["circumstances"]["torch"] = version
        folder = made(tmp_path, f"x-{fingerprint}", resolved=resolved)
        (folder.path / "spec.brew").write_text((source / "spec.brew").read_text())
        names.append(str(folder.path))
    result = command("runs", "diff", *names)
    assert result.stdout.splitlines() == ["x-a -> x-b", "~ data rows: content", "~ torch 2.0 -> 2.1"]


def test_tags(here: Path):
    """They are kept in the folder, shown, found and taken away."""
    name = run_at(here, 4)
    assert command("runs", "tag", name, "best", "sent to Ann").stdout == f"{name}: best, sent to Ann\n"
    assert [x["name"] for x in json.loads(command("runs", "--tag", "best", "--format", "json").stdout)] == [name]
    assert "best, sent to Ann" in command("runs").stdout
    assert "best, sent to Ann" in [
        row["tags"] for row in csv.DictReader(command("runs", "--format", "csv").stdout.splitlines())
    ]
    assert command("runs", "tag", name, "best", "sent to Ann", "--delete").stdout == f"{name}: no tags\n"
    assert command("runs", "--tag", "best").stdout == "no runs\n"


def test_what_is_unfinished_is_removed_after_a_question(tmp_path: Path):
    """Without a terminal `--yes` is needed; a finished run and one that a process is at stay."""
    made(tmp_path, "whole-1", finished={"table": []})
    made(tmp_path, "half-1")
    busy = made(tmp_path, "busy-1")
    with locked(busy.path, print):
        refused = command("runs", "remove", "--unfinished", "--runs", str(tmp_path))
        assert (refused.exit_code, len(list(tmp_path.iterdir()))) == (2, 3)
        assert "this removes 1 run, " in refused.stderr
        assert "add --yes" in refused.stderr
        result = command("runs", "remove", "--unfinished", "--yes", "--runs", str(tmp_path))
        assert result.exit_code == 0
        assert sorted(x.name for x in tmp_path.iterdir()) == ["busy-1", "whole-1"]
        named = command("runs", "remove", "busy-1", "--yes", "--runs", str(tmp_path))
        assert named.exit_code == 3
        assert "busy-1 is running: end it first" in named.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs", "--runs", "nowhere"], 2, "there is no folder `nowhere`: runs are in `runs/` beside each spec; name it with --runs"),
        (["runs", "diff", "nothing", "teacher"], 2, "there is no run `nothing`: runs has student-"),
        (["runs", "remove"], 2, "name the runs to remove, or write --unfinished"),
        (["runs", "tag", "teacher", "a,b"], 2, "`a,b` cannot be a tag: write words that can be printed, without a comma"),
        (["runs", "tag", "teacher", "red\x1b[31m"], 2, "`red\\x1b[31m` cannot be a tag: write words that can be printed"),
        (["runs", "tag", "teacher", " "], 2, "`` cannot be a tag"),
        (["runs", "dif"], 2, "there is no command `dif`: did you mean `diff`?"),
        (["runs", "."], 2, "a folder follows an option: `brewgraph runs --runs .`"),
    ],
)  # fmt: skip
def test_bad_input(here: Path, arguments: list[str], code: int, said: str):
    """One line with the remedy."""
    result = command(*arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_the_list_loads_nothing_heavy(here: Path):
    """Neither does tagging."""
    for arguments in (
        ["runs"],
        ["runs", "tag", run_at(here, 2), "x"],
        ["runs", "tag", run_at(here, 2), "x", "--delete"],
    ):
        result = process(*arguments, folder=here, code=PREFIX)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "HEAVY []"


def test_a_run_that_is_named_twice_is_removed_once(tmp_path: Path):
    """By its name and by its folder."""
    made(tmp_path, "half-1")
    result = command("runs", "remove", "half-1", str(tmp_path / "half-1"), "--yes", "--runs", str(tmp_path))
    assert (result.exit_code, result.stdout[:14]) == (0, "removed 1 run,"), result.output
    assert list(tmp_path.iterdir()) == []


def test_files_that_go_while_they_are_counted_count_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the checkpoints of a run that goes on."""
    (tmp_path / "kept").write_bytes(b"12345")
    (tmp_path / "gone").write_bytes(b"123")
    stat = os.stat

    def racing(path, *arguments, **more):
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return stat(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", racing)
    assert folder_size(tmp_path) == 5


def test_a_table_that_cannot_be_shown_is_damaged(tmp_path: Path):
    """Of a type of labels that is not known, and with a score that is no number."""
    row = {
        "name": "s",
        "scores": {"accuracy": 0.5},
        "tasks": {"": "class"},
        "parameters": 1,
        "size": 4,
        "per_second": 1.0,
    }
    made(tmp_path, "good-1", finished={"table": [row]})
    made(tmp_path, "kind-1", finished={"table": [{**row, "tasks": {"": "colours"}}]})
    made(tmp_path, "score-1", finished={"table": [{**row, "scores": {"accuracy": "high"}}]})
    listed = json.loads(command("runs", "--runs", str(tmp_path), "--sort", "name", "--format", "json").stdout)
    assert [x["state"] for x in listed] == ["finished", "damaged", "damaged"]
    assert listed[1]["error"].endswith("finished.json cannot be read")


def test_a_run_that_goes_while_the_list_is_made_is_left_out(tmp_path: Path):
    """Its files vanish between two looks."""
    (tmp_path / "gone-1").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "gone-1" / "resolved.json")
    assert command("runs", "--runs", str(tmp_path)).stdout == "no runs\n"
