"""What the shell is offered, by the protocol in which it asks; and how completion is installed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.tiny import APP


def offered(line: str) -> list[str]:
    """The words that bash is given behind this line; a blank at its end begins a new word."""
    words = line.split(" ")
    env = {"_BREWGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(APP, [], env=env, prog_name="brewgraph")
    assert result.exit_code == 0, result.output
    return result.output.split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two specs, one of them in a folder, and something else."""
    (tmp_path / "student.brew").write_text('param T = 4\nparam alpha = 0.5\nparam twice = "x"\nthis does not parse\n')
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "teacher.brew").write_text("param depth = 1\n")
    (tmp_path / "models" / "bert").mkdir(parents=True)
    (tmp_path / "models" / "bert" / "config.json").write_text("{}")
    (tmp_path / "train.csv").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("brewgraph expl", ["explain"]),
        ("brewgraph check ", ["inner/", "models/", "student.brew"]),
        ("brewgraph check st", ["student.brew"]),
        ("brewgraph run inner/", ["inner/teacher.brew"]),
        ("brewgraph plan nowhere/", []),
        ("brewgraph explain W20", ["W202", "W204", "W205", "W206", "W207", "W208", "W209"]),
        ("brewgraph explain B00", ["B001", "B002", "B003"]),
        ("brewgraph ops nst", ["nst", "nst_by_length"]),
        ("brewgraph ops fil", ["files"]),
        ("brewgraph check student.brew --set ", ["T=", "alpha=", "twice="]),
        ("brewgraph run student.brew --set t", ["twice="]),
        ("brewgraph plan inner/teacher.brew --set ", ["depth="]),
        ("brewgraph plan none.brew --set ", []),
        ("brewgraph check student.brew --deny w", ["warnings"]),
        ("brewgraph run student.brew --deny W20", ["W202", "W204", "W205", "W206", "W207", "W208", "W209"]),
        ("brewgraph check --format s", ["sarif"]),
        ("brewgraph run student.brew --skip-pass drop", ["drop_dead_terms"]),
        ("brewgraph new --teacher ", ["inner/", "models/"]),
        ("brewgraph new --teacher models/", ["models/bert"]),
        ("brewgraph new --data tr", ["train.csv"]),
        ("brewgraph new --data inn", ["inner/"]),
        ("brewgraph check --d", ["--data", "--deny"]),
    ],
)
def test_words_behind_the_cursor(line: str, words: list[str]) -> None:
    """Commands, specs and the way to them, codes, names of `ops`, params, flags and their words."""
    assert offered(line) == words


def test_runs_are_offered_by_path_and_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders on the way to runs, a run as a whole word, and its name alone where it lies in the folder of runs."""
    for place in ("inner/runs/student-1a", "runs/student-2b", "all/student-3c"):
        (folder / place).mkdir(parents=True)
        (folder / place / "resolved.json").write_text("{}")
    assert offered("brewgraph eval ") == ["all/", "inner/", "models/", "runs/", "student-2b"]
    assert offered("brewgraph predict inner/runs/") == ["inner/runs/student-1a"]
    monkeypatch.setenv("BREWGRAPH_RUNS", "all")
    assert offered("brewgraph eval st") == ["student-3c"]


def test_zsh_gets_the_words_with_what_they_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its protocol has room for a line beside each."""
    env = {"_BREWGRAPH_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "brewgraph explain W205"}
    result = CliRunner().invoke(APP, [], env=env, prog_name="brewgraph")
    assert '"W205":"unused term"' in result.output
    env["_TYPER_COMPLETE_ARGS"] = "brewgraph run student.brew --set al"
    assert '"alpha="' in CliRunner().invoke(APP, [], env=env, prog_name="brewgraph").output


def test_the_script_for_the_shell_calls_this_command() -> None:
    """`--show-completion` prints what a shell is to read."""
    # the shell is named, not looked for among the processes around: tests run under whatever there is
    given = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = "from brewgraph.cli.main import main; main()"
    command = [sys.executable, "-c", script, "--show-completion", "bash"]
    output = subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout
    assert "_BREWGRAPH_COMPLETE=complete_bash" in output
    assert "complete -o default -F _brewgraph_completion brewgraph" in output


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its tab key completes commands, specs, params and codes; typing goes on behind a folder and an equals sign."""
    bin = tmp_path_factory.mktemp("bin")
    script = "from brewgraph.cli.main import main; main()"
    (bin / "brewgraph").write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{script}' \"$@\"\n")
    (bin / "brewgraph").chmod(0o755)
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ ", "INPUTRC": os.devnull}
    env["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    ours, theirs = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        typed(ours, 'eval "$(brewgraph --show-completion bash)"; echo ready\n', "ready\r\n$ ")
        for keys, line in (
            ("brewgraph expl\t.", "brewgraph explain ."),
            ("brewgraph check st\t.", "brewgraph check student.brew ."),
            ("brewgraph run inn\tt\t.", "brewgraph run inner/teacher.brew ."),
            ("brewgraph run student.brew --set al\t0.5", "brewgraph run student.brew --set alpha=0.5"),
            ("brewgraph explain W21\t\t", "W210"),
            ("brewgraph new --teacher models/b\t.", "brewgraph new --teacher models/bert ."),
        ):
            typed(ours, keys, line)
            os.write(ours, b"\x15")  # which empties the line
    finally:
        bash.kill()
        bash.wait()


def typed(terminal: int, keys: str, expected: str) -> None:
    """Type keys, and wait until the terminal shows what is expected."""
    os.write(terminal, keys.encode())
    shown, ends = "", time.monotonic() + 60
    while expected not in shown:
        assert time.monotonic() < ends, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode()


def test_completion_loads_nothing_heavy(folder: Path) -> None:
    """A key in the shell is answered without torch and all that it brings."""
    script = (
        "import os, sys\n"
        "os.environ.update(_BREWGRAPH_COMPLETE='complete_bash', COMP_WORDS='brewgraph run student.brew --set ', COMP_CWORD='4')\n"
        "from brewgraph.cli.main import main\n"
        "sys.argv = ['brewgraph']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print([m for m in ('torch', 'transformers', 'networkx', 'rich') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, check=False)
    assert done.stdout.split() == ["T=", "alpha=", "twice=", "[]"], done.stderr
