"""The command as a whole: help, exit codes, what it imports and how long it takes to begin."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from brewgraph.cli import lsp
from brewgraph.cli.main import COMMANDS
from brewgraph.cli.output import reported
from brewgraph.diagnostics import RunError, SourceFault, UsageError
from tests.cli.tiny import command

HEAVY = ("torch", "transformers", "datasets", "networkx", "accelerate", "rich")
ROOT = Path(__file__).parents[2]


def process(*arguments: str, folder: Path, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    call = ["-m", "brewgraph"] if code is None else ["-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **env}
    return subprocess.run(
        [sys.executable, *call, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_version_is_that_of_the_package():
    """`--version` prints name and version, and nothing else."""
    result = command("--version")
    assert (result.exit_code, result.output) == (0, f"brewgraph {version('brewgraph')}\n")


def test_help_names_every_command_with_its_summary(monkeypatch: pytest.MonkeyPatch):
    """Each command has a line of its own, with words, none of which is cut off in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    result = command("--help")
    assert (result.exit_code, "..." in result.output.partition("Commands:")[2]) == (0, False)
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    summaries = {words[0]: words[1] for words in lines if len(words) == 2 and words[0] in COMMANDS}
    assert list(summaries) == [
        "run",
        "sweep",
        "runs",
        "report",
        "card",
        "push",
        "check",
        "cache",
        "fmt",
        "plan",
        "graph",
        "diff",
        "eval",
        "predict",
        "export",
        "bench",
        "ops",
        "explain",
        "taps",
        "params",
        "convert",
        "new",
        "lsp",
    ]


def test_the_language_server_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch):
    """Without pygls, or started by hand in a terminal: one line with the remedy, code 2."""
    monkeypatch.setattr("brewgraph.cli.lsp.find_spec", lambda name: None)
    result = command("lsp")
    assert result.exit_code == 2
    assert 'the language server needs pygls: pip install "brewgraph[lsp]"' in result.output
    monkeypatch.setattr("brewgraph.cli.lsp.find_spec", lambda name: name)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    with pytest.raises(UsageError, match="an editor starts this command"):
        lsp.command()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str):
    """`brewgraph NAME --help` works and shows the usage."""
    result = command(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: brewgraph {name}" if "brewgraph" in result.output[:20] else "Usage:")


def test_a_missing_command_is_a_usage_error():
    """Without a command the exit code is 2, and the message says what is missing."""
    result = command()
    assert result.exit_code == 2
    assert "Missing command" in result.output


def test_an_unknown_command_gets_a_suggestion():
    """A slip of the finger is answered with the command that was meant."""
    result = command("chek")
    assert result.exit_code == 2
    assert "there is no command `chek`: did you mean `check`?" in result.output


def test_an_unknown_option_is_a_usage_error():
    """Options that are none end with 2 and are named."""
    result = command("ops", "--frmat", "x")
    assert result.exit_code == 2
    assert "No such option: --frmat" in result.output


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("name a file"), 2, "error: name a file\n"),
        (RunError("the labels are gone"), 3, "error: the labels are gone\n"),
        (SourceFault("B310", "there is no folder `x`", help="look"), 1, "error: there is no folder `x` (look)\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 3, "error: No space left on device: runs/x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("run it again"), 130, "run it again\n"),
        (
            ValueError("odd\nvery odd"),
            3,
            "error: ValueError: odd\n"
            "this is a bug in brewgraph or in a model; BREWGRAPH_TRACEBACK=1 shows the traceback\n",
        ),
        (
            RuntimeError("shapes"),
            3,
            "error: RuntimeError: shapes\n"
            "this is a bug in brewgraph or in a model; BREWGRAPH_TRACEBACK=1 shows the traceback\n",
        ),
    ],
)
def test_every_error_has_its_exit_code_and_words(error, code, said, capsys, monkeypatch):
    """Each kind of exception ends with its code and a few lines on stderr."""
    monkeypatch.delenv("BREWGRAPH_TRACEBACK", raising=False)

    @reported
    def fails() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        fails()
    assert ended.value.exit_code == code
    assert capsys.readouterr() == ("", said)


def test_the_traceback_is_there_for_those_who_ask(capsys, monkeypatch):
    """BREWGRAPH_TRACEBACK=1 prints it above the line."""
    monkeypatch.setenv("BREWGRAPH_TRACEBACK", "1")

    @reported
    def fails() -> None:
        raise ValueError("odd")

    with pytest.raises(typer.Exit):
        fails()
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)")
    assert "error: ValueError: odd" in said


@pytest.mark.parametrize("command", ["check", "run", "plan", "graph"])
def test_a_bad_spec_ends_with_1_and_never_with_a_traceback(command: str, tmp_path: Path):
    """In a process of its own: diagnostics, exit code 1, and no heavy import on the way."""
    (tmp_path / "bad.brew").write_text("brew 1\nloss = ce(a.x -> b.y)\n")
    result = process(command, "bad.brew", folder=tmp_path)
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "error[B101]: there is no `a`" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["fmt", "good.brew"], 0),
        (["check", "bad.brew"], 1),
        (["check", "syntax.brew"], 1),
        (["ops", "kd"], 0),
        (["explain", "W205"], 0),
        (["new"], 0),
    ],
)
def test_light_commands_import_nothing_heavy(arguments: list[str], code: int, tmp_path: Path):
    """torch, transformers, datasets, networkx and rich stay where they are."""
    (tmp_path / "good.brew").write_text("brew 1\nparam T=3\n")
    (tmp_path / "bad.brew").write_text("brew 1\nloss = ce(a.x -> b.y)\n")
    (tmp_path / "syntax.brew").write_text("brew 1\nloss = ce(a -> b\n")
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "from brewgraph.cli.main import main\n"
        "main()\n"
    )
    result = process(*arguments, folder=tmp_path, code=script)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (code, "HEAVY []"), result.stderr


def test_help_answers_at_once(tmp_path: Path):
    """`--help` takes less than half a second of processor time: the best of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process("--help", folder=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(taken) < 0.5


def test_a_reader_that_goes_away_is_no_fault_of_ours(tmp_path: Path):
    """`brewgraph ops | head -1` shows no error."""
    line = f"{sys.executable} -m brewgraph ops | head -1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("losses: name(from -> to)\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s.brew",), "write `brewgraph run s.brew`"),
        (("rum", "s.brew"), "did you mean `run`?"),
        (("train", "s.brew"), "write `brewgraph run`"),
        (("run", "s.brew", "--epochs", "3"), "`--set epochs=…`"),
        (("run", "s.brew", "--lr=3"), "`--set lr=…`"),
        (("run", "s.brew", "--batch-size", "3"), "`--set batch=…`"),
        (("run", "s.brew", "--output_dir", "x"), "write `--out FOLDER`"),
        (("run", "--config", "s.brew"), "write `brewgraph run SPEC`"),
        (("run", "s.brew", "--gpus", "2"), "`accelerate launch -m brewgraph run SPEC`"),
        (("run", "s.brew", "--resume"), "the same command"),
        (("check", "s.brew", "--set", "epochs"), "write `--set epochs=VALUE`"),
    ],
)
def test_what_other_tools_take_gets_the_right_command(arguments: tuple[str, ...], said: str) -> None:
    """A spec in the place of a command, and options of other tools, end with 2 and say what to write."""
    result = command(*arguments)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_closed_streams_are_no_fault(tmp_path: Path) -> None:
    """Standard streams that the caller closed: the command works, and what it prints is lost."""
    spec = tmp_path / "student.brew"
    spec.write_text("x = 1\n")
    for closed in (">&-", "2>&-", "<&-"):
        line = f'"{sys.executable}" -m brewgraph fmt --check student.brew {closed}'
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, "bug" in done.stderr) == (0, False), (closed, done.stderr)
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m brewgraph check student.brew >&-'],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, "bug" in done.stderr) == (1, False), done.stderr
