"""The report of a run: what it shows, that every text is escaped, that it loads nothing, and runs that are not whole."""

from __future__ import annotations

import html
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from brewgraph.display.plots import Cloud, Curves, Grid, Scatter, draw
from brewgraph.display.report import Comparison, Report
from brewgraph.inspect.report_of import report_of
from brewgraph.running.records import read_record
from brewgraph.running.sweep import Work, sweep
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder
from tests.cli.tiny import command, write_tiny

matplotlib = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("matplotlib") is None, reason="the extra `report` is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of two steps, each logged."""
    spec = write_tiny(tmp_path_factory.mktemp("report"))
    spec.write_text(spec.read_text().replace("steps = 2 }", "steps = 2; logging_steps = 1 }"))
    (run,) = sweep(Work(Source.read(spec)), {"T": (2,)}).runs
    assert run.fault == ""
    return RunFolder(run.folder)


def report(folder: RunFolder) -> Report:
    record = read_record(folder)
    assert record is not None
    return report_of(record)


def test_a_report_holds_what_the_run_wrote(folder: RunFolder):
    """The table, a point for each model, the terms at each logged step, the command and the versions."""
    made = report(folder)
    assert [cells[0] for cells in made.table] == ["model", "big", "small"]
    assert made.notes == ["scored on dev"]
    scatter = made.plots[0]
    assert isinstance(scatter, Scatter)
    assert [(name, score) for name, _, score in scatter.points] == [("big", 0.5), ("small", 0.5)]
    assert [x.title for x in made.plots if isinstance(x, Scatter)] == [
        "accuracy and size", "accuracy and time", "accuracy and memory",
    ]  # fmt: skip
    assert made.table[0][-1] == "memory"
    assert scatter.areas == [int(1e6 * size) for _, size, _ in scatter.points]
    curves = {x.title: x for x in made.plots if isinstance(x, Curves)}
    weighted, plain = curves["loss and weighted terms"].lines, curves["terms without weights"].lines
    assert [step for step, _ in weighted["loss"]] == [1, 2]
    assert [y for _, y in weighted["hard"]] == pytest.approx([0.5 * y for _, y in plain["hard"]])
    assert next(iter(plain)) == "loss", "so that terms have one colour in both plots"
    assert set(curves["scores on dev"].lines) >= {"accuracy", "macro F1"}
    assert made.command.endswith("student.brew --set=T=2")
    assert "torch" in made.lock
    assert made.lock["spec"] == (folder.resolved or {})["spec"]
    assert made.plan is not None
    assert made.plan.spec == "student.brew", "no folder of this machine: reports are given away"
    assert made.graphs is not None


def test_a_run_that_was_interrupted_has_a_report(folder: RunFolder, tmp_path: Path):
    """Its curves end where it ended; a line that was cut short and a spec whose data is gone are no obstacles."""
    (tmp_path / "x-1").mkdir()
    resolved = {**(folder.resolved or {}), "folder": str(tmp_path)}
    (tmp_path / "x-1" / "resolved.json").write_text(json.dumps(resolved))
    (tmp_path / "x-1" / "spec.brew").write_text((folder.path / "spec.brew").read_text())
    (tmp_path / "x-1" / "metrics.jsonl").write_text(
        '{"step": 7, "loss": 2.5, "terms": {}, "weighted": {}}\n{"step": 8, "lo'
    )
    made = report(RunFolder(tmp_path / "x-1"))
    assert (made.table, made.plan, made.graphs) == ((), None, None)
    assert made.notes[0].startswith("plan and graph are missing: ")
    assert made.notes[1] == "the run is interrupted"
    assert [(x.title, dict(x.lines)) for x in made.plots if isinstance(x, Curves)] == [("loss", {"loss": [(7, 2.5)]})]


class Tags(HTMLParser):
    """The tags of a page and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


@matplotlib
def test_the_page_loads_nothing(folder: RunFolder):
    """No script, no link, no reference but those within the page; the plots are SVG of their own."""
    page = report(folder).write()
    tags = Tags()
    tags.feed(page)
    assert tags.tags & {"script", "link", "img", "iframe", "object"} == set()
    assert [link for link in tags.links if not link.startswith("#")] == []
    assert re.findall(r"url\((?!#)|@import", page) == []
    assert page.count("<figure>") == len(report(folder).plots)
    assert "__" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)


@matplotlib
def test_every_text_is_escaped(folder: RunFolder):
    """Names, notes, errors, spec and lock that hold tags arrive as text."""
    evil = '<script>alert("x")</script>'
    made = Report(
        evil, evil, evil, [("model", evil), (evil, "1")], [evil],
        [Curves(evil, {evil: [(1, 1.0)], f"_{evil}$": [(1, 2.0), (2, float("nan"))]}), Scatter(evil, evil, evil, [(evil, 1.0, 2.0), ("b", 2.0, 1.0)])],
        evil, {evil: evil}, comparisons=[Comparison(evil, [(evil, "1")], [Grid(evil, evil, evil, [evil], [[1]])], [("text",), (evil,)], [evil])],
    )  # fmt: skip
    tags = Tags()
    tags.feed(made.write())
    assert "script" not in tags.tags


@matplotlib
def test_a_plot_is_drawn_in_the_colours_of_the_page():
    """Well-formed, with texts as texts, a name with `$` as it is, and no colour of its own for lines and letters."""
    svg = draw(Curves("t", {"a$b$": [(1, 1.0), (2, 3.0)], "_c": [(1, 2.0), (2, 1.0)]}))
    root = ElementTree.fromstring(svg)
    texts = {x.text.strip() for x in root.iter("{http://www.w3.org/2000/svg}text") if x.text}
    assert {"a$b$", "_c", "optimizer step"} <= texts
    assert {"var(--student)", "var(--teacher)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert re.findall("font:|font-family:", svg) == []


@matplotlib
def test_the_command_writes_the_page(folder: RunFolder):
    """Beside the run's other files; student and teacher are compared once, and left out on demand."""
    first = command("report", str(folder.path), "--no-agreement")
    assert first.exit_code == 0, first.output
    page = folder.path / "report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert "beside its teacher" not in page.read_text()
    second, third = command("report", str(folder.path)), command("report", str(folder.path))
    assert second.stderr.splitlines() == ["big and small run on 8 examples of rows/dev"]
    assert third.stderr == ""
    assert "small beside its teacher big" in page.read_text()
    assert "Classes, by both" in page.read_text()
    (folder.path / "agreement.json").unlink()


@matplotlib
def test_a_teacher_that_is_gone_is_a_note(folder: RunFolder, tmp_path: Path):
    """The page has everything else; the command says so in one line, and succeeds."""
    copied = shutil.copytree(folder.path, tmp_path / folder.path.name)
    resolved = {**(folder.resolved or {}), "folder": str(tmp_path / "away")}
    (copied / "resolved.json").write_text(json.dumps(resolved))
    result = command("report", str(copied))
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("agreement with teachers is missing: ")
    assert line in html.unescape((copied / "report.html").read_text())
    assert not (copied / "agreement.json").exists()


@matplotlib
def test_a_run_on_its_way_is_told(folder: RunFolder, tmp_path: Path):
    """It has a page of what there is, and the remedy is said."""
    copied = shutil.copytree(folder.path, tmp_path / folder.path.name)
    (copied / "finished.json").unlink()
    result = command("report", str(copied))
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("the run is interrupted: the report shows what it has so far; its `brewgraph run`")


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    """In one line, with the remedy."""
    result = command("report", str(tmp_path))
    assert result.exit_code == 2
    line = f"error: there is no run `{tmp_path}`: name the folder that `brewgraph run` made"
    assert result.stderr.splitlines()[-1] == line


def test_gradients_are_curves(folder: RunFolder, tmp_path: Path):
    """In the colours of their terms."""
    copied = shutil.copytree(folder.path, tmp_path / folder.path.name)
    line = {"step": 1, "loss": 2.0, "terms": {"a": 1.0, "b": 1.0}, "weighted": {"a": 1.0, "b": 1.0}}
    line |= {"gradient_shares": {"a": 0.25, "b": 0.75}, "gradient_norms": {"loss": 3.0, "a": 1.0, "b": 3.0}}
    (copied / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    curves = {x.title: x.lines for x in report(RunFolder(copied)).plots if isinstance(x, Curves)}
    assert curves["share of the gradient on the student"] == {"loss": [], "a": [(1, 0.25)], "b": [(1, 0.75)]}
    assert curves["norm of the gradient on the student"] == {"loss": [(1, 3.0)], "a": [(1, 1.0)], "b": [(1, 3.0)]}


def logged(folder: RunFolder, to: Path, *lines: object) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The curves of a run with these lines in its log, by title."""
    copied = shutil.copytree(folder.path, to / folder.path.name)
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {x.title: dict(x.lines) for x in report(RunFolder(copied)).plots if isinstance(x, Curves)}


def test_tasks_have_curves_of_their_own(folder: RunFolder, tmp_path: Path):
    """Their losses and scores are no one line; a perplexity is beside no share."""
    curves = logged(
        folder, tmp_path,
        {"step": 2, "task": "a", "loss": 2.0, "terms": {"a/first/a/near": 0.5}, "weighted": {"a/first/a/near": 0.25}},
        {"step": 2, "task": "b", "loss": 3.0, "terms": {"b/near": 0.75}, "weighted": {"b/near": 0.5}},
        {"step": 2, "task": "a", "dev": {"accuracy": 0.5, "perplexity": 40.0}},
        {"step": 2, "task": "b", "dev": {"accuracy": 0.75}},
    )  # fmt: skip
    assert curves["loss and weighted terms"] == {
        "a/loss": [(2, 2.0)], "b/loss": [(2, 3.0)], "first/a/near": [(2, 0.25)], "b/near": [(2, 0.5)],
    }  # fmt: skip
    assert list(curves["terms without weights"]) == ["a/loss", "b/loss", "first/a/near", "b/near"], "of one colour"
    assert curves["scores on dev"] == {"a/accuracy": [(2, 0.5)], "b/accuracy": [(2, 0.75)]}
    assert curves["a/perplexity on dev"] == {"a/perplexity": [(2, 40.0)]}


def test_of_many_terms_the_largest_are_drawn(folder: RunFolder, tmp_path: Path):
    """A legend of two hundred hides the lines."""
    terms = {f"t{i}": float(i) for i in range(200)}
    curves = logged(folder, tmp_path, {"step": 1, "loss": 9.0, "terms": terms, "weighted": terms})
    assert list(curves["loss and weighted terms, the 11 largest of 200 terms"]) == [
        "loss", *(f"t{i}" for i in range(189, 200)),
    ]  # fmt: skip


def test_what_no_run_logs_is_left_out(folder: RunFolder, tmp_path: Path):
    """Lines of a damaged file: other types, numbers that cannot be drawn."""
    curves = logged(
        folder, tmp_path, 5, {"step": "x", "loss": 1.0}, {"step": 10**400, "loss": 1.0}, {"step": True, "loss": 1.0},
        {"step": 1, "loss": 2.0, "terms": [1], "weighted": None, "dev": 3}, {"step": 2, "loss": None, "terms": {"a": "b"}},
    )  # fmt: skip
    assert curves == {"loss": {"loss": [(1, 2.0)]}}


@matplotlib
def test_the_student_has_its_colour_and_no_disc_is_cut():
    """That of the graph, whatever its place; steps are whole, and shares have no room below zero."""
    svg = draw(Scatter("t", "a", "b", [("big", 1.0, 0.0), ("tiny", 0.9, 0.0)], [4.0, 1.0]))
    assert svg.index("var(--teacher)") < svg.index("var(--student)")
    texts = {x.text for x in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if x.text}
    assert not [x for x in texts if x.startswith("\N{MINUS SIGN}")]
    svg = draw(Curves("t", {"x": [(1, 0.0), (3, 0.0)]}))
    texts = {x.text for x in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if x.text}
    assert {"1", "2", "3"} <= texts
    assert not [x for x in texts if x.startswith("\N{MINUS SIGN}") or x == "1.5"]


@matplotlib
def test_a_name_turns_no_text(recwarn: pytest.WarningsRecorder):
    """Nor does one that matplotlib's font lacks warn."""
    svg = draw(Grid("t", "s", "b", ["\u202eevil", "tab\there", "\u597d\u574f"], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    texts = {x.text for x in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"\ufffdevil", "tab here", "\u597d\u574f"} <= texts
    assert list(recwarn) == []


@matplotlib
def test_a_grid_shows_each_count(folder: RunFolder):
    """As text, with names cut; a cloud leaves out what is no number."""
    svg = draw(Grid("t", "s", "b", ["a" * 30, "<b>"], [[12, 0], [3, 1234]]))
    texts = {x.text for x in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"12", "3", "1,234", "a" * 17 + "…", "<b>"} <= texts
    assert "0" not in texts
    assert "image" not in svg
    ElementTree.fromstring(draw(Cloud("t", "a", "b", [(0.0, 1.0), (float("nan"), 1.0)])))
    ElementTree.fromstring(draw(Cloud("t", "a", "b", [])))


def test_without_matplotlib_the_remedy_is_said(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    """One line, and no page."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    (folder.path / "report.html").unlink(missing_ok=True)
    result = command("report", str(folder.path))
    assert result.exit_code == 2
    assert "a report is drawn by matplotlib: `pip install brewgraph[report]`" in result.stderr
    assert not (folder.path / "report.html").exists()
