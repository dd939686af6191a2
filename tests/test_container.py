"""The container file: what it copies is there and is enough for the wheel, and it does what the README says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from brewgraph.cli.main import COMMANDS
from tests.conftest import REPOSITORY

FILE = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(word: str) -> list[str]:
    """What follows a word at the beginning of a line, with continued lines joined."""
    return re.findall(rf"^{word} (.*)$", FILE.replace("\\\n", " "), re.M)


def copied() -> list[str]:
    """The files and folders that come from the repository."""
    plain = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from=")]
    return [name for names in plain for name in names]


def test_what_it_copies_is_there() -> None:
    """Every source of a COPY; and the stage that another one copies from."""
    assert copied()
    assert all((REPOSITORY / name).exists() for name in copied())
    stages = {line.partition(" AS ")[2] for line in instructions("FROM")} - {""}
    assert {line.split()[0] for line in instructions("COPY") if "--from=" in line} == {f"--from={x}" for x in stages}


def test_it_runs_the_command_as_nobody_special() -> None:
    """On a Python that the package supports, with the script of the package as its entry, not as root."""
    versions = {re.fullmatch(r"python:(3\.\d+)-slim(?: AS \w+)?", line) for line in instructions("FROM")}
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert all(x is not None and tuple(map(int, x[1].split("."))) >= least for x in versions)
    (entry,), (user,) = instructions("ENTRYPOINT"), instructions("USER")
    assert entry == f'["{next(iter(PROJECT["scripts"]))}"]'
    assert user != "root"
    assert f"useradd --create-home {user}" in FILE


def test_its_commands_are_those_of_the_readme() -> None:
    """The tested versions are installed as there, and what its head says to run exists."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt" in readme
    assert re.search(r"pip install .*-c /tmp/constraints.txt /dist/\*.whl", FILE)
    shown = re.findall(r"^# .* brewgraph (\w+) (\S+)$", FILE, re.M)
    assert shown == [("new", "quickstart"), ("run", "quickstart/student.brew")]
    assert {verb for verb, _ in shown} <= set(COMMANDS)


@pytest.mark.slow
def test_what_it_copies_makes_a_wheel_that_runs(tmp_path: Path) -> None:
    """The wheel holds grammar and specs, and its command writes the quickstart, outside of the repository."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    leave = shutil.ignore_patterns("runs", "__pycache__", "node_modules")
    for name in copied():
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name, **({"ignore": leave} if copy is shutil.copytree else {}))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = "from brewgraph.cli.main import main; main()"
    for words, text in (
        (["--help"], "Write a commented spec to start from."),
        (["new", "quickstart"], "wrote quickstart/student.brew"),
        (["fmt", "--check", "quickstart"], ""),
    ):
        run = [sys.executable, "-c", script, *words]
        env = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BREWGRAPH_FACTS": "off"}
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert text in done.stdout
