"""Measurements of a run's models: who is measured, on which texts, what the table says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brewgraph.export.bench import Measured, bucket_of
from tests.cli.tiny import command, write_tiny

FAST = ("-q", "--seconds", "0.1", "--threads", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a teacher that is a run of its own, and its student as a program of torch."""
    folder = tmp_path_factory.mktemp("bench")
    spec = write_tiny(folder)
    result = command("run", "-q", str(spec), "--runs", str(folder / "runs"))
    assert result.exit_code == 0, result.output
    (path,) = folder.glob("runs/student-*")
    result = command("export", "-q", str(path), "--to", "torch")
    assert result.exit_code == 0, result.output
    return path


def test_teacher_student_and_exports_are_measured_on_the_same_texts(run: Path) -> None:
    """The teacher first, to which the others are compared; percentiles in order, and bytes of each."""
    result = command("bench", str(run), *FAST, "--rows", "6", "--batch", "3", "--format", "json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (measured,) = told["results"]
    assert (told["batch"], measured["texts"], measured["threads"]) == (3, 6, 1)
    assert [model["name"] for model in measured["models"]] == ["big", "small", "torch-fp32"]
    for model in measured["models"]:
        assert 0 < model["p50"] <= model["p90"] <= model["p99"]
        assert model["texts_per_second"] > 0
        assert list(model["buckets"]) == ["16"]
    big, small, exported = measured["models"]
    assert big["faster"] == 1.0
    assert (big["size"], small["size"]) == (4 * 21186, 4 * 4018)
    assert exported["size"] == (run / "export" / "torch-fp32" / "model.pt2").stat().st_size


def test_models_are_chosen_by_name_and_by_folder(run: Path) -> None:
    """In the order of the command; a folder may be anywhere."""
    folder = run / "export" / "torch-fp32"
    result = command("bench", str(run), str(folder), "small", *FAST, "--threads", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{run} on dev: 8 texts of 3 to 6 tokens; cpu, 1 thread"
    assert lines[1].split() == ["model", "p50", "p90", "p99", "faster", "texts/s", "by", "32", "memory", "size"]
    assert [line.split()[0] for line in lines[2:4]] == [str(folder), "small"]
    assert lines[3].split()[7].endswith("x")
    assert lines[5] == f"{run} on dev: 8 texts of 3 to 6 tokens; cpu, 2 threads"
    alone = command("bench", str(folder), *FAST)
    assert alone.exit_code == 0, alone.output
    assert alone.stdout.splitlines()[2].split()[0] == "torch-fp32"


def test_names_that_are_not_there(run: Path) -> None:
    """With the nearest one; and rows and devices that are not there."""
    line = command("bench", str(run), "torch-fp23", *FAST).stderr
    assert "has no model and no export `torch-fp23`: did you mean `torch-fp32`?" in line
    assert "no split `test`" in command("bench", str(run), "--data", "test").stderr


def test_a_teacher_that_is_gone_is_left_out(run: Path, tmp_path: Path) -> None:
    """It is said why, and that is an error only where it is asked for."""
    copy = tmp_path / "runs" / run.name
    shutil.copytree(run, copy)
    told = json.loads((copy / "resolved.json").read_text())
    for name in ("teacher.brew", "student.brew", "train.jsonl", "dev.jsonl"):
        shutil.copy(Path(told["folder"]) / name, tmp_path)
    (copy / "resolved.json").write_text(json.dumps(told | {"folder": str(tmp_path)}))
    result = command("bench", str(copy), *FAST)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("big is left out: `big` is not trained yet: run `brewgraph run ")
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["small", "torch-fp32"]
    result = command("bench", str(copy), "big", *FAST)
    assert (result.exit_code, result.stderr.startswith("error: `big` cannot be measured: ")) == (2, True)


def test_an_export_whose_replacement_was_killed_is_back(run: Path, tmp_path: Path) -> None:
    """Between the two renames: for who measures the run, and for who names the folder."""
    (tmp_path / "runs").mkdir()
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    folder = copy / "export" / "torch-fp32"
    for arguments in ((str(copy),), (str(folder),), (str(copy), str(folder))):
        shutil.copytree(folder, folder.with_name(".torch-fp32.part"), dirs_exist_ok=True)
        folder.rename(folder.with_name(".torch-fp32.before"))
        result = command("bench", *arguments, *FAST, "--rows", "2")
        assert result.exit_code == 0, result.output
        assert "torch-fp32" in result.stdout.splitlines()[-1]
        assert not folder.with_name(".torch-fp32.before").exists()


def test_a_damaged_export_is_left_out(run: Path, tmp_path: Path) -> None:
    """It is said why, and the others are measured; an error where it is asked for, or where it is all there is."""
    (tmp_path / "runs").mkdir()
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    for name, file in (("bad-model", "model.pt2"), ("bad-record", "export.json")):
        folder = shutil.copytree(copy / "export" / "torch-fp32", copy / "export" / name)
        (folder / file).write_text("hello")
    result = command("bench", str(copy), *FAST)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[-2:]] == ["small", "torch-fp32"]
    told = sorted(line for line in result.stderr.splitlines() if line.startswith("bad-"))
    assert [line.partition(":")[0] for line in told] == ["bad-model is left out", "bad-record is left out"]
    assert told[0].endswith("copy the folder again, or export the student again")
    for arguments in ((str(copy), "bad-model"), (str(copy), "bad-record"), (str(copy / "export" / "bad-model"),)):
        result = command("bench", *arguments, *FAST)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "measured: " in result.stderr


def test_times_as_numbers() -> None:
    """Percentiles over all samples; a ratio of each text's fastest time, to which load only adds."""

    def measured(*fastest: float) -> Measured:
        latencies = tuple(x + extra for x in fastest for extra in (0.0, 9.0))
        return Measured("m", "cpu", 1, None, latencies, {}, fastest, (0.5, 0.1, 0.2))

    big, small = measured(2.0, 4.0), measured(1.0, 1.0)
    assert small.faster(big) == 3.0
    assert big.percentile(50) == 7.5
    assert small.per_second == 5.0
    assert [bucket_of(tokens) for tokens in (1, 16, 17, 512, 513, 1500)] == [16, 16, 32, 512, 1024, 2048]
