"""`brewgraph fmt`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tiny import command

LOOSE = "brew 1\nparam T=3  # heat\n"


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A spec that is not formatted, with an unusual mode."""
    path = tmp_path / "loose.brew"
    path.write_text(LOOSE)
    path.chmod(0o640)
    return path


def neat() -> str:
    """The formatter's own word on what the text should be."""
    from brewgraph import format_text

    return format_text(LOOSE)


def test_a_file_is_rewritten_in_place_and_keeps_its_mode(loose: Path):
    """The file changes, its mode does not, nothing is left beside it, and the count is said."""
    result = command("fmt", str(loose))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 file changed\n")
    assert loose.read_text() == neat() != LOOSE
    assert stat.S_IMODE(loose.stat().st_mode) == 0o640
    assert [p.name for p in loose.parent.iterdir()] == ["loose.brew"]


def test_a_formatted_file_is_not_written(loose: Path):
    """The second time nothing is written: not even the time of change moves."""
    command("fmt", str(loose))
    os.utime(loose, (1, 1))
    result = command("fmt", str(loose))
    assert (result.stderr, loose.stat().st_mtime) == ("1 file unchanged\n", 1)


def test_check_lists_and_writes_nothing(loose: Path, tmp_path: Path):
    """`--check` ends with 1 and names the files; for neat ones with 0."""
    (tmp_path / "neat.brew").write_text(neat())
    result = command("fmt", "--check", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, f"would change: {loose}\n")
    assert result.stderr == "1 file would change, 1 file unchanged\n"
    assert loose.read_text() == LOOSE
    assert command("fmt", "--check", str(tmp_path / "neat.brew")).exit_code == 0


def test_diff_shows_and_writes_nothing(loose: Path):
    """`--diff` prints a unified diff and ends with 0; with `--check` with 1."""
    result = command("fmt", "--diff", str(loose))
    assert result.exit_code == 0
    before, after = LOOSE.splitlines()[1], neat().splitlines()[1]
    assert result.stdout == f"--- {loose}\n+++ {loose}\n@@ -1,2 +1,2 @@\n brew 1\n-{before}\n+{after}\n"
    assert loose.read_text() == LOOSE
    assert command("fmt", "--diff", "--check", str(loose)).exit_code == 1


def test_stdin_goes_to_stdout():
    """`-` gives the formatted text and nothing else."""
    result = command("fmt", "-", input=LOOSE)
    assert (result.exit_code, result.stdout, result.stderr) == (0, neat(), "")


def test_a_faulty_spec_is_left_alone_and_the_others_are_not(loose: Path, tmp_path: Path):
    """Its diagnostics are printed, its text stays; the other file is formatted; exit code 1."""
    bad = tmp_path / "bad.brew"
    bad.write_text("loss = ce(a -> b\n")
    result = command("fmt", str(tmp_path))
    assert result.exit_code == 1
    assert "error[B001]: unclosed `(`" in result.stderr
    assert result.stderr.endswith("1 file changed, 1 file at fault\n")
    assert (bad.read_text(), loose.read_text()) == ("loss = ce(a -> b\n", neat())


def test_folders_are_searched_but_not_hidden_ones_nor_runs(loose: Path, tmp_path: Path):
    """Specs below are found; what a run or a hidden folder keeps is left alone."""
    for folder in ("deep/er", ".hidden", "runs/x"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.brew").write_text(LOOSE)
    (tmp_path / "runs/x/resolved.json").write_text("{}")
    result = command("fmt", str(tmp_path))
    assert result.stderr == "2 files changed\n"
    assert (tmp_path / "deep/er/a.brew").read_text() == neat()
    assert (tmp_path / ".hidden/a.brew").read_text() == (tmp_path / "runs/x/a.brew").read_text() == LOOSE


def test_line_ends_and_links_are_kept(tmp_path: Path):
    """A file with Windows' line ends keeps them; a link stays a link."""
    path = tmp_path / "w.brew"
    path.write_bytes(LOOSE.replace("\n", "\r\n").encode())
    link = tmp_path / "link.brew"
    link.symlink_to(path)
    assert command("fmt", str(link)).exit_code == 0
    assert path.read_bytes() == neat().replace("\n", "\r\n").encode()
    assert link.is_symlink()


def test_usage_errors(tmp_path: Path):
    """A file that is not there, and a folder without specs."""
    missing = tmp_path / "x.brew"
    assert command("fmt", str(missing)).stderr == f"error: there is no file `{missing}`\n"
    result = command("fmt", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, f"error: there is no *.brew in {tmp_path}\n")
    missing.write_bytes("x = 1".encode("utf-16"))
    said = f"error: line 1 of `{missing}` is not UTF-8: byte 1 is 0xFF, and the file is probably UTF-16; "
    assert command("fmt", str(missing)).stderr.startswith(said)


def test_a_name_that_looks_like_an_option_stands_behind_two_dashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An option that is none is a usage error, wherever it stands; behind `--` it is a file, options may follow files."""
    monkeypatch.chdir(tmp_path)
    Path("--odd.brew").write_text(neat())
    result = command("fmt", "--odd.brew")
    assert (result.exit_code, "No such option: --odd.brew" in result.stderr) == (2, True)
    assert command("fmt", "--check", "--", "--odd.brew").stderr == "1 file unchanged\n"
    Path("loose.brew").write_text(LOOSE)
    assert command("fmt", "loose.brew", "--check").exit_code == 1


def test_the_help_names_what_may_be_given():
    """The usage line and the words below it tell of files, folders and stdin."""
    said = command("fmt", "--help").stdout
    assert said.startswith("Usage: brewgraph fmt [OPTIONS] [FILE|FOLDER|-]...\n")
    assert "Folders are searched for *.brew; - reads stdin, to stdout." in said


@pytest.mark.parametrize(("name", "loaded"), [("fmt", []), ("check", ["pydantic"])])
def test_it_loads_neither_pydantic_nor_torch(name: str, loaded: list[str], tmp_path: Path):
    """In a process of its own, on a spec that is sound; `check`, which reads settings, shows that the test can fail."""
    (tmp_path / "a.brew").write_text("brew 1\nloss = ce(a.x -> b.y)\n")
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([m for m in ('pydantic', 'torch') if m in sys.modules]))\n"
        "from brewgraph.cli.main import main\n"
        "main()\n"
    )
    call = [sys.executable, "-c", script, name, "a.brew"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == repr(loaded), result.stderr
