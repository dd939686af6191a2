"""`brewgraph new`: starters that are sound, and files that are never overwritten."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brewgraph.cli import new
from brewgraph.paths import shipped_text
from tests.cli.tiny import command
from tests.small import rows, save, write_rows


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_quickstart_is_two_specs_in_a_folder_and_sound(here: Path):
    """What is written is said, with what to do next, and the check finds nothing."""
    result = command("new")
    assert (result.exit_code, result.stdout) == (
        0,
        "wrote quickstart/student.brew\nwrote quickstart/teacher.brew\n"
        "next: brewgraph check quickstart/student.brew, then brewgraph run quickstart/student.brew\n",
    )
    assert (here / "quickstart/student.brew").read_text() == shipped_text("specs/quickstart/student.brew")
    assert command("check", "quickstart/student.brew").stdout == "quickstart/student.brew: fine\n"


def test_the_student_can_have_another_name(here: Path):
    """`new my.brew` writes it under that name, its teacher beside it."""
    result = command("new", "deep/my.brew")
    assert result.stdout.splitlines()[:2] == ["wrote deep/my.brew", "wrote deep/teacher.brew"]
    assert command("new", "teacher.brew").exit_code == 2


def test_mnli_is_one_spec(here: Path):
    """It is sound as far as it can be known without the hub, and formatted."""
    result = command("new", "--from", "mnli", "m.brew")
    assert result.stdout == "wrote m.brew\nnext: brewgraph check m.brew, then brewgraph run m.brew\n"
    assert command("check", "m.brew", "-q").exit_code == 0
    assert command("fmt", "--check", "m.brew").exit_code == 0


def test_nothing_is_overwritten(here: Path):
    """Where one of the files exists, none is written; exit code 2."""
    (here / "teacher.brew").write_text("mine")
    result = command("new", "my.brew")
    assert (result.exit_code, result.stderr) == (2, "error: `teacher.brew` exists already; name another file\n")
    assert sorted(p.name for p in here.iterdir()) == ["teacher.brew"]
    assert (here / "teacher.brew").read_text() == "mine"


def test_an_unknown_starter_ends_with_2():
    """The known ones are listed."""
    result = command("new", "--from", "nothing")
    assert result.exit_code == 2
    assert "quickstart" in result.output


def test_the_tutorial_is_a_folder_of_specs_and_data(here: Path):
    """Two specs and three files of rows; the teacher's spec is sound, and the student's once its teacher exists."""
    result = command("new", "t", "--from", "tutorial")
    assert result.stdout.splitlines() == [
        *(f"wrote t/{name}" for name in ("teacher.brew", "student.brew", "train.csv", "dev.csv", "new.csv")),
        "next: brewgraph check t/teacher.brew, then brewgraph run t/teacher.brew",
    ]
    assert command("check", "t/teacher.brew", "--data").exit_code == 0
    assert command("fmt", "--check", "t").exit_code == 0
    assert command("new", "t.brew", "--from", "tutorial").exit_code == 2


# ── for a teacher and data of one's own ──────────────────────────────────────────────────────────────────────────────


def test_options_make_a_spec_for_a_teacher_and_data(here: Path):
    """What was guessed is a note on stderr; files, the check and what to do next are the result."""
    save(here / "bert", layers=4)
    write_rows(here / "train.jsonl", rows(40))
    write_rows(here / "dev.jsonl", rows(10, 1))
    result = command(
        "new", "my", "--teacher", "bert", "--data", "train.jsonl", "--layers", "2", "--text", "text", "--label", "label"
    )
    assert (result.exit_code, result.stdout) == (
        0,
        "wrote my/student.brew\nmy/student.brew: fine\n"
        "next: brewgraph plan my/student.brew, then brewgraph run my/student.brew\n",
    )
    assert result.stderr == ("note: evaluates on `dev.jsonl`, which is beside the training file: --dev names another\n")
    assert (
        'files(train="../train.jsonl", dev="../dev.jsonl", text=text, label=label'
        in Path("my/student.brew").read_text()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "train.csv"), "--teacher is missing: it names the folder of a model"),
        (("--teacher", "bert"), "--data is missing: it names a file of rows"),
        (("--layers", "2"), "--teacher is missing: it names the folder of a model"),
        (
            ("--teacher", "bert", "--data", "train.csv", "--student", "tiny", "--layers", "2"),
            "--layers keeps layers of the teacher, and --student names another model: leave one of them out",
        ),
        (
            ("--from", "mnli", "--teacher", "bert"),
            "--from writes a spec that ships, which has models and data: leave out the other options",
        ),
        (("--teacher", "bert", "--data", "train.csv"), "--data: there is no file `train.csv`: "),
    ],
)
def test_options_that_do_not_go_together_end_with_2(here: Path, options: tuple[str, ...], message: str):
    """In one line, and nothing is written."""
    save(here / "bert")
    result = command("new", "my", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert [x.name for x in here.iterdir()] == ["bert"]


def test_a_terminal_is_asked(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Enter takes what was found; an answer that cannot be used is refused, and asked for again."""
    monkeypatch.setattr(new, "_can_ask", lambda: True)
    save(here / "bert", layers=4)
    content = [{"review": row["text"], "mood": row["label"]} for row in rows(60)]
    write_rows(here / "reviews.jsonl", content)
    answers = ["brt", "bert", "review.jsonl", "reviews.jsonl", "", "", "", "1", ""]
    result = command("new", input="".join(f"{x}\n" for x in answers))
    assert result.exit_code == 0, result.output
    assert "error: --teacher: there is no folder `brt`: did you mean `bert`?" in result.stderr
    assert "error: --data: there is no file `review.jsonl`: did you mean `reviews.jsonl`?" in result.stderr
    assert "text column, or two of them as first,second [review]: " in result.stdout
    assert "label column, or none [mood]: " in result.stdout
    assert "student: how many of the teacher's layers, or the folder of a smaller model [2]: " in result.stdout
    assert "distil/student.brew: fine\n" in result.stdout
    assert "num_hidden_layers=1, init=big.layers[0]" in Path("distil/student.brew").read_text()


def test_in_a_terminal_too_the_quickstart_is_a_name_or_an_empty_answer(here: Path, monkeypatch: pytest.MonkeyPatch):
    """As the README has it: `brewgraph new quickstart` asks nothing."""
    monkeypatch.setattr(new, "_can_ask", lambda: True)
    assert command("new", "quickstart").stdout.startswith("wrote quickstart/student.brew\n")
    assert "wrote other/student.brew" in command("new", "other", input="\n").stdout
    assert command("new", "third", input="").exit_code == 1
    assert not (here / "third").exists()


@pytest.mark.slow
def test_a_real_terminal(here: Path):
    """A process with a terminal at both ends asks, and writes what the answers say."""
    save(here / "bert", layers=2)
    write_rows(here / "train.jsonl", rows(40))
    ours, theirs = pty.openpty()
    script = "from brewgraph.cli.main import main; main()"
    env = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", script, "new"], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=here
    )
    os.close(theirs)
    seen = answer_questions(ours, ["bert", "train.jsonl", "", "", "", "", "mine"])
    if "next:" not in seen:
        process.kill()
    assert process.wait(60) == 0, seen
    assert "mine/student.brew: fine" in seen
    assert (here / "mine" / "dev.jsonl").is_file()


def answer_questions(terminal: int, answers: list[str]) -> str:
    """Everything that a terminal shows until its process ends; each answer follows a question."""
    seen, asked, ends = "", 0, time.monotonic() + 60
    while time.monotonic() < ends:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 4096).decode()
        except OSError:  # the other end is closed
            break
        seen += piece
        if seen.endswith(": ") and asked < len(answers):
            os.write(terminal, f"{answers[asked]}\n".encode())
            asked += 1
    return seen
