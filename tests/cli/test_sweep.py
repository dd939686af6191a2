"""`brewgraph sweep`: how values are written, what is asked, and the three formats."""

from __future__ import annotations

import csv
import html
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from brewgraph.cli.options import parse_axes
from brewgraph.cli.sweep import _as_written, summary
from brewgraph.diagnostics import UsageError
from brewgraph.running.scores import ScoreRow
from brewgraph.running.sweep import Between, SweepResult, SweptRun
from tests.cli.tiny import command, write_tiny


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("T=2,4,8", (2, 4, 8)),
        ("T=2", (2,)),
        ("T=2, 4.5,2", (2, 4.5)),
        ("T=0..4", range(5)),
        ("T=-1..1", range(-1, 2)),
        ("T=1e-5..1e-3", Between(1e-5, 1e-3)),
        ("T=0.5..2", Between(0.5, 2.0)),
        ("T=[0, 4],[0, 6]", ((0, 4), (0, 6))),
        ("T='a,b',c", ("a,b", "c")),
        ("T=true,none", (True, None)),
        ("T=1,true", (1, True)),
        ("T=2,2.0,2", (2,)),
        ("T=../data", ("../data",)),
    ],
)
def test_values_of_a_param(text: str, values: object):
    """Commas part them outside of quotes and brackets; a range has both ends."""
    assert parse_axes([text]) == {"T": values}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("T=2,,4", "`--set T=2,,4` has an empty value: remove a comma"),
        ("T=4..0", "`--set T=4..0` is an empty range: write `T=0..4`"),
        ("T=0..9999999999999999999", "`--set T=0..9999999999999999999` is too wide a range: write nearer ends"),
        ("T=1.5..1e999", "`--set T=1.5..1e999` is too wide a range: write nearer ends"),
    ],
)
def test_values_that_are_none(text: str, said: str):
    """With the remedy."""
    with pytest.raises(UsageError) as error:
        parse_axes([text])
    assert str(error.value) == said


def test_a_param_has_one_list_of_values():
    """No value is dropped without a word."""
    with pytest.raises(UsageError, match="`--set T=…` is there twice: write all its values in one, `--set T=A,B,C`"):
        parse_axes(["T=2", "seed=0", "T=4"])


def test_a_search_scale_follows_from_the_range():
    """A factor of ten and more is searched by its logarithm."""
    assert [Between(*x).logarithmic for x in ((1e-4, 1e-3), (0.1, 0.9), (0.0, 1.0), (-1.0, 10.0))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("value", ["abc", "8", "none", 2.5, True, None, (0, 4), 1e-05])
def test_a_value_is_written_as_it_is_read(value: object):
    """In the command that repeats a failed run."""
    assert parse_axes([f"T={_as_written(value)}"]) == {"T": (value,)}


def test_a_large_grid_is_asked_for(tmp_path: Path):
    """Where nobody can answer, with the remedy, and before the spec's models are looked at."""
    spec = write_tiny(tmp_path)
    result = command("sweep", str(spec), "--set", "T=1..10000")
    assert result.exit_code == 2
    assert "the grid has 10,000 runs: add --yes to make them all, or set fewer values" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_no_grid_has_more_than_a_million_runs(tmp_path: Path):
    """Not even with --yes: it would not be made."""
    spec = write_tiny(tmp_path)
    result = command("sweep", str(spec), "--set", "T=1..1000001", "--yes")
    assert result.exit_code == 2
    assert "the sweep has 1,000,001 runs, more than 1,000,000: set fewer values" in result.stderr


def test_the_best_setting_is_named():
    """By the mean of the main score."""
    rows = [(ScoreRow("tiny", {"accuracy": x}, {"": "class"}, 10, 40, 0.0),) for x in (0.5, 0.75)]
    runs = [SweptRun({"T": t, "lr": 0.001}, Path(), row) for t, row in zip((2, 4), rows, strict=True)]
    lines = "\n".join(summary(SweepResult(tuple(runs), ("T",)))).splitlines()
    assert lines[0].split() == ["T", "model", "accuracy", "runs"]
    assert lines[-1] == "best accuracy of tiny: 0.7500 at T=4"


def test_formats_and_a_failed_run(tmp_path: Path):
    """The run whose file is not there ends with 3 and is listed with its command, as first and as last; its sister ends
    well.
    """
    spec = write_tiny(tmp_path)
    text = spec.read_text().replace("param T = 2\n", 'param T = 2\nparam file = "train"\n')
    spec.write_text(text.replace('train="train.jsonl"', 'train="{file}.jsonl"'))
    result = command("sweep", str(spec), "--set", "file=gone", "--set", "T=2,4")
    assert (result.exit_code, (tmp_path / "runs").exists()) == (1, False), "no value has its file"
    first = command("sweep", str(spec), "--set", "file=gone,train", "--quiet")
    assert "1 run failed; the same command repeats it:\n  B401: there is no file `gone.jsonl`" in first.stderr
    result = command("sweep", str(spec), "--set", "file=train,gone", "--format", "csv")
    assert result.exit_code == 3, result.output
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [(row["file"], row["model"], row["runs"], row["accuracy"]) for row in rows] == [
        ("train", "big", "1", "0.5"),
        ("train", "small", "1", "0.5"),
    ]
    assert "2 of 2: file=gone: failed: B401: there is no file `gone.jsonl`" in result.stderr
    assert "error: 1 run failed; the same command repeats it:\n  B401: there is no file `gone.jsonl`" in result.stderr
    assert f"brewgraph run {spec} --set=file=gone" in result.stderr
    page = ["--report", str(tmp_path / "page.html")] if find_spec("matplotlib") else []
    again = json.loads(command("sweep", str(spec), "--set", "file=train,gone", "--format", "json", *page).stdout)
    if page:
        assert "failed at file=gone: B401: there is no file" in html.unescape((tmp_path / "page.html").read_text())
    assert [(x["params"], x["model"], x["scores"]["accuracy"]) for x in again["settings"]][-1] == (
        {"file": "train"},
        "small",
        {"mean": 0.5, "sd": None},
    )
    assert ["error" in run for run in again["runs"]] == [False, True]


def test_options_of_a_cluster(tmp_path: Path):
    spec = str(write_tiny(tmp_path))
    result = command("sweep", spec, "--set", "T=2,4", "--cluster-set", "timeout_min=5")
    assert result.exit_code == 2
    assert "--cluster-set is for jobs of a cluster: add --cluster slurm" in result.stderr
    result = command("sweep", spec, "--set", "T=2", "--cluster", "local", "--cluster-set", "timeout_min")
    assert result.exit_code == 2
    assert "write `--cluster-set timeout_min=VALUE`" in result.stderr
