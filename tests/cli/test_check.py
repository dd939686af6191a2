"""`brewgraph check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny import command, write_tiny

BAD = "brew 1\nparam T = 3\nloss = ce(a.logits -> b.logits, TT=2)\n"


def test_a_sound_spec_is_fine(tmp_path: Path):
    """The whole output is one line, the exit code 0."""
    spec = write_tiny(tmp_path)
    result = command("check", str(spec))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{spec}: fine\n", "")


def test_quiet_says_nothing_of_a_sound_spec(tmp_path: Path):
    """`-q` leaves the closing line out."""
    result = command("check", "-q", str(write_tiny(tmp_path)))
    assert (result.exit_code, result.output) == (0, "")


def test_faults_are_the_result_and_go_to_stdout():
    """From stdin: the diagnostic with its place, the tally, exit code 1."""
    result = command("check", "-", input="brew 1\nloss = ce(a -> b\n")
    assert result.exit_code == 1
    assert result.stdout == (
        "error[B001]: unclosed `(`\n --> <stdin>:2:10\n  |\n2 | loss = ce(a -> b\n  |          ^\n"
        "  |\n  = help: add the closing bracket\n\n<stdin>: 1 error; more: brewgraph explain B001\n"
    )
    assert result.stderr == ""


def test_several_specs_are_all_checked(tmp_path: Path):
    """A fault in the first does not hide the second; the exit code is that of the worst."""
    spec = write_tiny(tmp_path)
    bad = tmp_path / "bad.brew"
    bad.write_text(BAD)
    result = command("check", str(bad), str(spec))
    assert result.exit_code == 1
    closing = [line for line in result.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert closing[-1] == f"{spec}: fine"
    assert closing[0].startswith(f"{bad}: ")
    assert "error" in closing[0]


def test_json_is_one_list_of_all_faults(tmp_path: Path):
    """Machines get every diagnostic of every spec in one list, with file, line and column."""
    one, two = tmp_path / "one.brew", tmp_path / "two.brew"
    one.write_text(BAD)
    two.write_text("brew 2\n")
    result = command("check", "--format", "json", str(one), str(two))
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert {d["file"] for d in found} == {str(one), str(two)}
    place = next(d for d in found if d["message"] == "there is no `a`")
    assert (place["code"], place["severity"], place["line"], place["column"]) == ("B101", "error", 3, 11)


def test_json_of_a_sound_spec_is_an_empty_list(tmp_path: Path):
    """Nothing but the list."""
    result = command("check", "--format", "json", str(write_tiny(tmp_path)))
    assert (result.exit_code, result.output) == (0, "[]\n")


def test_warnings_alone_are_no_failure(tmp_path: Path):
    """A model that cannot be reached is a warning: exit code 0, and the tally says so."""
    spec = tmp_path / "far.brew"
    spec.write_text(
        'brew 1\nstudent s = hf("nobody/nothing-of-this-name")\ndata d = glue("rte")\nloss = ce(d.labels -> s.logits)\n'
    )
    result = command("check", str(spec))
    assert result.exit_code == 0
    assert "warning[W301]: the configuration of `nobody/nothing-of-this-name` cannot be reached" in result.stdout
    assert result.stdout.endswith(f"{spec}: 1 warning; more: brewgraph explain W301\n")


def test_params_are_set_from_outside(tmp_path: Path):
    """A value that the spec refuses is a fault; a param that it has not gets a suggestion."""
    spec = str(write_tiny(tmp_path))
    assert command("check", spec, "--set", "T=4").exit_code == 0
    result = command("check", spec, "--set", "T=0")
    assert result.exit_code == 1
    assert "error[B207]: a temperature must be positive" in result.stdout
    (tmp_path / "two.brew").write_text((tmp_path / "student.brew").read_text().replace("param T", "param temp"))
    result = command("check", str(tmp_path / "two.brew"), "--set", "tmp=4")
    assert "error[B106]: the spec has no param `tmp` to set" in result.stdout
    assert "did you mean `temp`?" in result.stdout


@pytest.mark.parametrize("arguments", [["check"], ["check", "a.brew", "--format", "xml"]])
def test_wrong_usage_ends_with_2(arguments: list[str]):
    """No spec, or a format that is none."""
    assert command(*arguments).exit_code == 2


def test_a_set_without_a_sign_ends_with_2(tmp_path: Path):
    """The line on stderr shows the form."""
    result = command("check", str(write_tiny(tmp_path)), "--set", "T")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: `--set T` is not of the form `name=value`: write `--set T=VALUE`\n",
    )


def test_an_unknown_file_names_its_neighbours(tmp_path: Path):
    """The specs that the folder does have are listed, or the one that was meant is named."""
    write_tiny(tmp_path)
    for name, said in (
        ("xyz.brew", "that folder has student.brew, teacher.brew"),
        ("studnt.brew", "did you mean `student.brew`?"),
    ):
        result = command("check", str(tmp_path / name))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"error: there is no file `{tmp_path / name}`; {said}\n"


def test_a_folder_is_no_spec(tmp_path: Path):
    """A folder is refused in one line."""
    result = command("check", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, f"error: `{tmp_path}` is a folder; name a file in it\n")


def test_data_is_looked_at_where_that_is_asked_for(tmp_path: Path):
    """Both splits, the tokens of the models, and what is wrong, before the closing line; no failure."""
    spec = write_tiny(tmp_path)
    result = command("check", "--data", str(spec))
    assert (result.exit_code, result.stderr) == (0, "")
    found = result.stdout.splitlines()
    assert found[:3] == [
        "data rows",
        "  train  16 rows; bad 8 (50.0%), good 8 (50.0%)",
        "         8 (50.0%) with the texts of an earlier one: rows 9, 10, 11, 12, 13, …",
    ]
    assert any(line.startswith("  tokens of `big` in dev: ") and "more than 16" in line for line in found)
    assert any(line.startswith("  warning: 8 of 8 rows of dev (100.0%; ") for line in found)
    assert found[-1] == f"{spec}: fine"


def test_data_for_machines(tmp_path: Path):
    """One object: the diagnostics, and the reports by spec and name."""
    spec = write_tiny(tmp_path)
    found = json.loads(command("check", "--data", "--format", "json", str(spec)).stdout)
    assert found["diagnostics"] == []
    report = found["data"][str(spec)]["rows"]
    assert report["splits"]["train"]["labels"] == {"bad": 8, "good": 8}
    assert {x["encoding"] for x in report["lengths"]} == {"big"}


def test_data_that_cannot_be_read_is_a_fault_of_the_spec(tmp_path: Path):
    """A text that is missing, with and without a report on the data."""
    spec = write_tiny(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write('{"text": null, "label": "good"}\n')
    for options in ((), ("--data",)):
        result = command("check", *options, str(spec))
        assert result.exit_code == 1
        assert "error[B404]: `text` in row 17 of `train.jsonl` is missing" in result.stdout
        assert result.stdout.endswith(f"{spec}: 1 error; more: brewgraph explain B404\n")


def test_a_teacher_of_another_spec_that_cannot_be_reached(tmp_path: Path):
    """The network is at fault, not the spec: a warning, as where the model is named itself."""
    write_tiny(tmp_path)
    teacher = (tmp_path / "teacher.brew").read_text()
    made = teacher[teacher.index("hf(") : teacher.index("data rows")]
    (tmp_path / "teacher.brew").write_text(teacher.replace(made, 'hf("nobody/nothing-of-this-name")\n'))
    result = command("check", str(tmp_path / "student.brew"))
    assert result.exit_code == 0, result.stdout
    assert "warning[W301]: the student of" in result.stdout
