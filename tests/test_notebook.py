"""`%%brew`: what a cell shows of a spec, what it leaves, and the notebooks of `examples/`, which run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import brewgraph as bg
from brewgraph.notebook import parse_line
from tests.conftest import REPOSITORY
from tests.small import project

NOTEBOOKS = sorted((REPOSITORY / "examples" / "notebooks").glob("*.ipynb"))


class Shell:
    """A shell with names, which keeps the magics that are registered."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {}
        self.magics: dict[str, Callable[[str, str], None]] = {}

    def register_magic_function(self, function: Any, magic_kind: str, magic_name: str) -> None:
        assert magic_kind == "cell"
        self.magics[magic_name] = function


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that cells show."""
    pages: list[str] = []
    display = SimpleNamespace(HTML=str, display=pages.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    return pages


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell with the extension, in a folder with the models and data that the spec names."""
    project(tmp_path)
    monkeypatch.chdir(tmp_path)
    shell = Shell()
    bg.load_ipython_extension(shell)
    return shell


def plain(html: str) -> str:
    """The text of a page, without marks."""
    text = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return (
        re.sub(r"<[^>]+>", "", text)
        .replace("&gt;", ">")
        .replace("&lt;", "<")
        .replace("&quot;", '"')
        .replace("&#x27;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
    )


def test_a_cell_leaves_its_recipe_and_shows_its_graph(shell: Shell, shown: list[str], tmp_path: Path) -> None:
    """The recipe has the params of the line; the spec is there line by line, coloured, and the graph beside it."""
    text = (tmp_path / "spec.brew").read_text()
    shell.magics["brew"]("recipe T=7", text)
    assert isinstance(shell.user_ns["recipe"], bg.Recipe)
    assert shell.user_ns["recipe"]._checked.recipe.params["T"] == 7
    (page,) = shown
    spec, graph = page.partition("<svg")[::2]
    lines = plain(spec).splitlines()
    assert [line.split("  ", 1)[1] for line in lines if line[:2].strip().isdigit()] == text.splitlines()
    assert re.search(r'<span class="kd?">teacher</span>', spec)
    assert 'class="brew"' in graph
    assert "the loss of recipe" in graph


def test_a_fault_is_shown_as_the_command_prints_it(shell: Shell, shown: list[str], tmp_path: Path) -> None:
    """Every diagnostic, its line tinted, all of it escaped; the cell fails in one line, and an old recipe is gone."""
    text = (tmp_path / "spec.brew").read_text()
    brew = shell.magics["brew"]
    brew("recipe", text)
    wrong = text.replace("ce(bert.logits -> tiny.logits, T=T)", 'ce(bert.logits -> tiny.logit, T="<b>&")')
    with pytest.raises(bg.SpecError) as raised:
        brew("recipe", wrong)
    assert "recipe" not in shell.user_ns
    page = shown[-1]
    assert "<svg" not in page
    assert "<b>" not in page
    for diagnostic in raised.value.diagnostics:
        assert str(diagnostic) in plain(page)
    number = raised.value.diagnostics[0].span.position[0]
    (tinted,) = re.findall(r'<span style="background: [^"]+"><span class="number">\s*(\d+)', page)
    assert int(tinted) == number
    errors = len(raised.value.diagnostics)
    (line,) = raised.value._render_traceback_()
    assert line == f"SpecError: {errors} error{'s' if errors > 1 else ''} in the spec above, which is not loaded"


def test_a_cell_without_a_spec_and_a_line_without_sense(shell: Shell, shown: list[str]) -> None:
    """One line below the cell each, as IPython asks for it; nothing is left."""
    with pytest.raises(bg.SpecError) as raised:
        shell.magics["brew"]("recipe", "\n")
    assert raised.value._render_traceback_() == ["SpecError: 3 errors in the spec above, which is not loaded"]
    assert "error[" in plain(shown[-1])
    with pytest.raises(bg.UsageError) as refused:
        shell.magics["brew"]("recipe layers=[0, 4]", "brew 1\n")
    assert refused.value._render_traceback_() == [
        "UsageError: `4]` is no param of the form `name=value`: write `%%brew recipe T=4`"
    ]
    assert shell.user_ns == {}


def test_a_warning_is_shown_beside_the_graph(shell: Shell, shown: list[str], tmp_path: Path) -> None:
    """The recipe is left; without a name nothing is."""
    text = (tmp_path / "spec.brew").read_text().replace("loss = ", "lost = ce(d.labels -> tiny.logits)\nloss = ", 1)
    shell.magics["brew"]("", text)
    assert shell.user_ns == {}
    assert "warning[W205]" in plain(shown[-1])
    assert "<svg" in shown[-1]


def test_tasks_have_a_graph_each(shell: Shell, shown: list[str], tmp_path: Path) -> None:
    """Under the names of stage and task."""
    text = (tmp_path / "spec.brew").read_text().partition("loss = ")[0]
    shell.magics["brew"](
        "", f"{text}stage warm for 1 steps {{ loss = soft }}\nstage tune for 1 steps {{ loss = hard }}\n"
    )
    assert shown[-1].count("<svg") == 2
    assert "<div>warm</div>" in shown[-1]


def test_what_follows_the_magic() -> None:
    """A name, params, both or neither; anything else says what to write."""
    assert parse_line("") == ("", {})
    assert parse_line("recipe") == ("recipe", {})
    assert parse_line("T=4 name=x") == ("", {"T": 4, "name": "x"})
    assert parse_line("recipe layers=[0,4]") == ("recipe", {"layers": (0, 4)})
    for line, words in (
        ("a.b", "`a.b` is no name for a recipe: write `%%brew NAME`"),
        ("class", "`class` is no name"),
        ("recipe T 4", "`T` is no param of the form `name=value`: write `%%brew recipe T=4`"),
        ("recipe --set=4", "not of the form `name=value`"),
    ):
        with pytest.raises(bg.UsageError, match=words):
            parse_line(line)


# ── the notebooks of examples/ ───────────────────────────────────────────────────────────────────────────────────────


def test_there_are_notebooks() -> None:
    """Two, which were executed from top to bottom, hold no path of a machine, and are small."""
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        counts = [cell["execution_count"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1)), path.name
        assert not re.search(r"/(tmp|home|root|work|Users|usr|opt)/", text), path.name
        assert len(text) < 200_000, path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs in a kernel, offline, and prints the numbers that it shows."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    before = nbformat.read(path, as_version=4)
    again = nbformat.from_dict(json.loads(json.dumps(before)))
    nbclient.NotebookClient(again, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for new, old in zip(again.cells, before.cells, strict=True):
        words, numbers = printed(new)
        assert (words, pytest.approx(numbers, abs=0.02)) == printed(old)


def printed(cell: Any) -> tuple[str, list[float]]:
    """What a cell prints or fails with, its words and its numbers; not pictures, nor the table, which holds speeds."""
    outputs = cell.get("outputs", ())
    text = "".join(x.get("text", "") if x["output_type"] == "stream" else x.get("ename", "") for x in outputs)
    number = r"\d+\.\d+"
    return re.sub(number, "x", text), [float(x) for x in re.findall(number, text)]
