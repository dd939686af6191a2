"""What the public verbs say beside what they return: warnings at the caller's line, notes in the log, bars in a notebook."""

from __future__ import annotations

import copy
import logging
import pickle
import re
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import brewgraph as bg
from brewgraph.diagnostics import BrewWarning, SourceFault
from brewgraph.training.reporter import NotebookReporter, in_notebook
from tests.small import classifier, project

LOST = "x = ce(d.labels -> tiny.logits)"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec with one warning: a term that no loss reaches."""
    path = project(tmp_path, train="steps = 1")
    path.write_text(path.read_text().replace("loss = ", f"{LOST}\nloss = ", 1))
    assert [d.code for d in bg.check(path)] == ["W205"]
    return path


@pytest.mark.parametrize("verb", ["load", "loads", "run"])
def test_warnings_are_given_at_the_callers_line(verb: str, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, place and remedy, as the command prints them; once, also where a run checks and trains."""
    monkeypatch.chdir(spec.parent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", bg.BrewWarning)
        {"load": bg.load, "loads": lambda path: bg.loads(path.read_text()), "run": bg.run}[verb](spec)
    (warning,) = [w for w in caught if issubclass(w.category, bg.BrewWarning)]
    assert warning.filename == __file__
    assert warning.message.diagnostic.code == "W205"
    head, place, *_, help = str(warning.message).splitlines()
    line = spec.read_text().splitlines().index(LOST) + 1
    assert head.startswith("W205: ")
    assert place.strip() == f"--> {'<string>' if verb == 'loads' else spec}:{line}:1"
    assert "= help: " in help


def test_a_recipe_that_is_built_has_warned_already(spec: Path) -> None:
    """`build` and `plan` say nothing anew."""
    with pytest.warns(bg.BrewWarning, match="W205"):
        recipe = bg.load(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.build()
        recipe.plan(cost=False)
    assert [d.code for d in recipe.warnings] == ["W205"]


def test_one_kind_can_be_filtered(spec: Path) -> None:
    """By the category and the code with which the text begins; in a spec by its comment."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(bg.BrewWarning, match="W205"):
            bg.load(spec)
        warnings.filterwarnings("ignore", "W205", bg.BrewWarning)
        bg.load(spec)
        warnings.filterwarnings("error", "W205", bg.BrewWarning)
        spec.write_text(spec.read_text().replace(LOST, f"{LOST}  # brew: ignore[W205] later"))
        bg.load(spec)


def test_a_run_logs_what_the_command_prints(spec: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Steps with their losses, scores, notes; under the name `brewgraph`."""
    caplog.set_level(logging.INFO, "brewgraph")
    with pytest.warns(bg.BrewWarning):
        result = bg.run(spec)
    with pytest.warns(bg.BrewWarning):
        bg.run(spec)
    told = [record.getMessage() for record in caplog.records if record.name == "brewgraph"]
    assert told[0] == "spec: 1 steps"
    assert any(line.startswith("step 1: loss ") and ", soft " in line for line in told)
    assert told[-1] == f"{result.folder} is already finished; --force runs it again"


# ── in a notebook ────────────────────────────────────────────────────────────────────────────────────────────────────


class Handle:
    """What a notebook's `display` gives back: draws a thing anew in its place."""

    def __init__(self, first: object):
        self.drawn = [first]

    def update(self, thing: object) -> None:
        self.drawn.append(thing)


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """A notebook: IPython with a kernel, and what it displays."""
    handles: list[Handle] = []

    def display(thing: object, *, display_id: bool) -> Handle:
        assert display_id
        handles.append(Handle(thing))
        return handles[-1]

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))  # type: ignore[arg-type]
    return handles


def test_a_run_shows_a_bar_and_its_table(spec: Path, handles: list[Handle], capsys: pytest.CaptureFixture[str]) -> None:
    """A bar for each training, drawn to its end; the result is the table of the models, as a page and as text."""
    with pytest.warns(bg.BrewWarning):
        result = bg.run(spec)
    (handle,) = handles
    assert repr(handle.drawn[0]) == "spec: step 0/1"
    assert repr(handle.drawn[-1]).startswith("spec: step 1/1, loss ")
    assert '<progress value="1" max="1"' in handle.drawn[-1]._repr_html_()  # type: ignore[attr-defined]
    with pytest.warns(bg.BrewWarning):
        again = bg.run(spec)
    assert "is already finished; --force runs it again" in capsys.readouterr().out
    lines = str(result).splitlines()
    assert lines[0].split()[:4] == ["model", "accuracy", "macro", "F1"]
    assert [line.split()[0] for line in lines[1:3]] == ["bert", "tiny"]
    assert lines[4].endswith(f"{result.folder.name}/student")
    assert str(again) == f"{result}, finished before"
    shown = ElementTree.fromstring(result._repr_html_())
    cells = [[cell.text for cell in row] for row in shown.iter("tr")]
    assert cells[0][:3] == ["model", "accuracy", "macro F1"]
    assert [row[1] for row in cells[1:]] == [f"{row.scores['accuracy']:.4f}" for row in result.table]


def test_a_bar_is_not_drawn_more_often_than_eyes_can_see(handles: list[Handle]) -> None:
    """Four times a second, and at the last step."""
    now = iter([0.0, *(step / 100 for step in range(1, 101))])
    reporter = NotebookReporter(lambda: next(now))
    reporter.begin("a < b", 100, 0)
    for step in range(1, 101):
        reporter.step(step, 0.5 if step % 10 == 0 else None, {"soft": 0.25} if step % 10 == 0 else {})
    drawn = [repr(thing) for thing in handles[0].drawn]
    assert drawn == [
        "a < b: step 0/100",
        "a < b: step 25/100, loss 0.5000 (soft 0.25), 1 s left",
        "a < b: step 50/100, loss 0.5000 (soft 0.25), 0 s left",
        "a < b: step 75/100, loss 0.5000 (soft 0.25), 0 s left",
        "a < b: step 100/100, loss 0.5000 (soft 0.25), 1 s",
    ]
    assert "a &lt; b" in handles[0].drawn[0]._repr_html_()  # type: ignore[attr-defined]


def test_without_a_kernel_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a terminal's IPython nor in plain Python."""
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=SimpleNamespace))  # type: ignore[arg-type]
    assert not in_notebook()


def test_what_a_cell_shows_of_a_recipe(spec: Path) -> None:
    """The recipe in a line, its plan in a fixed font, its warnings and its faults as the command prints them."""
    with pytest.warns(bg.BrewWarning):
        recipe = bg.load(spec)
    assert repr(recipe) == f"<recipe {spec}: teacher bert, student tiny, data d; 1 warning>"
    (warning,) = recipe.warnings
    assert str(warning).startswith(f"warning[W205]: {warning.message}\n")
    plan = ElementTree.fromstring(recipe.plan(cost=False)._repr_html_())
    blocks = list(plan.iter("pre"))
    assert blocks
    assert all("white-space: pre; font-family: ui-monospace" in block.attrib["style"] for block in blocks)
    spec.write_text(spec.read_text().replace("T=T", "T=U"))
    with pytest.raises(bg.SpecError) as raised:
        bg.load(spec)
    shown = raised.value._render_traceback_()
    assert shown[0].startswith("error[B101]: ")
    assert any("^" in line for line in shown)
    assert bg.UsageError("no such file")._render_traceback_() == ["UsageError: no such file"]


def test_faults_arrive_whole_in_another_process(spec: Path) -> None:
    """Pools of processes and test runners hand them on pickled."""
    with pytest.warns(bg.BrewWarning):
        (warning,) = bg.load(spec).warnings
    raised = (
        bg.SpecError([warning]),
        SourceFault("B401", "no file", help="name one", field="train"),
        bg.UsageError("no such file"),
        BrewWarning.of(warning),
    )
    for error in raised:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


# ── what is no such thing ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", [bg.load, bg.check, bg.run])
def test_a_text_is_no_path(verb: Any, spec: Path) -> None:
    """Each says what is wanted, and who reads the other."""
    for given in (spec.read_text(), "loss = 0", "student tiny = hf(x) { head a }"):
        with pytest.raises(bg.UsageError, match="got the text of one: read it with `bg.loads"):
            verb(given)
    for given in (None, 3, {}):
        with pytest.raises(bg.UsageError, match=f"a path .* of type `{type(given).__name__}`"):
            verb(given)


@pytest.mark.parametrize("given", ["spec.brew", "specs/one.brew\n", Path("spec.brew"), 3, None, b"loss"])
def test_a_path_is_no_text(given: Any) -> None:
    """As it is written, and where it is no text at all."""
    with pytest.raises(bg.UsageError, match="expected the text of a spec") as raised:
        bg.loads(given)
    assert ("`bg.load(path)` reads a file" in str(raised.value)) == ("brew" in str(given))


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
def test_stages_tasks_and_models_that_are_none(spec: Path) -> None:
    """What a spec does not have, and what is no module, is said before anything is built."""
    recipe = bg.load(spec)
    for options, words in (
        ({"stage": "x"}, "the spec has no stage `x`: it has no stages: leave `stage` out"),
        ({"skip": "truncate_models"}, "`skip` is a list of passes, got a text: skip=['truncate_models']"),
        ({"tiny": 1}, "`tiny=1` replaces the model `tiny` but is not a `torch.nn.Module`"),
        ({"tiny": None}, "`tiny=None` replaces"),
        ({"tiny": "tiny"}, 'name the folder in the spec: tiny = hf("tiny")'),
        ({"tiny": Path("tiny")}, 'from_pretrained("tiny")'),
        ({"tiny": nn.Linear}, "pass an object, `tiny=Linear(…)`"),
        ({"bert": {"weight": 0}}, "`bert={'weight': 0}` replaces the model `bert`"),
        ({"tiny": nn.Linear(2, 2)}, "the module for `tiny` cannot be used"),
        ({"small": nn.Linear(2, 2)}, "the spec has no model `small`; it has `bert` and `tiny`"),
    ):
        with pytest.raises(bg.UsageError, match=re.escape(words)):
            recipe.build(**options)
    distiller = recipe.build()
    for call in (distiller.count, distiller, distiller.report):
        with pytest.raises(bg.UsageError, match="the spec has no task `x`: it has none; leave `task` out"):
            call({}, task="x")
    text = spec.read_text()
    start = text.index("loss =")
    spec.write_text(
        text[:start] + "stage warm for 1 steps { loss = soft }\nstage tune for 1 steps { loss = soft + hard }\n"
    )
    staged = bg.load(spec)
    for wrong, words in (
        ("worm", "did you mean `warm`?"),
        ("x", "it has `warm` and `tune`"),
        ("", "it has"),
        (3, "it has"),
    ):
        with pytest.raises(bg.UsageError, match=re.escape(f"the spec has no stage `{wrong}`: {words}")):
            staged.build(stage=wrong)  # type: ignore[arg-type]
    assert staged.build(stage="tune").terms() == ("soft", "hard")


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
@pytest.mark.parametrize("verb", ["plan", "build", "run"])
def test_passes_are_a_list(spec: Path, verb: str) -> None:
    """A text is not read letter by letter; unknown passes are named; any collection of names will do."""
    recipe = bg.load(spec)
    for skip in ("truncate_models", "abc", ""):
        with pytest.raises(bg.UsageError, match=re.escape(f"`skip` is a list of passes, got a text: skip=[{skip!r}]")):
            getattr(recipe, verb)(skip=skip)
    with pytest.raises(bg.UsageError, match="there is no pass `truncate_model`; did you mean `truncate_models`?"):
        getattr(recipe, verb)(skip=(name for name in ["truncate_model"]))


def test_a_picture_of_what_is_not_there(spec: Path) -> None:
    """An unknown grain, format or suffix is said, with those that there are."""
    recipe = bg.load(spec)
    with pytest.raises(bg.UsageError, match="^there is no grain `x`: write `terms` or `nodes`$"):
        recipe.picture("x")
    with pytest.raises(
        bg.UsageError, match="write `terms` or `nodes`; `.save\\(path\\)` of the picture writes a file$"
    ):
        recipe.picture("graph.svg")
    picture = recipe.picture("nodes")
    with pytest.raises(
        bg.UsageError, match="there is no format `png`: write `text`, `dot`, `mermaid`, `svg` and `html`"
    ):
        picture.write("png")
    with pytest.raises(bg.UsageError, match="`graph` has no suffix of a format: end it with one of `.svg`, `.html`"):
        picture.save("graph")


def test_a_picture_in_a_folder_that_is_not_there(spec: Path, tmp_path: Path) -> None:
    """Folders are made; what cannot be one is said."""
    picture = bg.load(spec).picture()
    assert picture.save(tmp_path / "new" / "deep" / "x.svg").read_text().startswith("<svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(bg.UsageError, match="`.*file` is a file, not a folder"):
        picture.save(tmp_path / "file" / "x.svg")


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
def test_what_a_built_loss_cannot_do(spec: Path) -> None:
    """A student put in afterwards would train in vain, copies would share hooks: each is said, with the way to go."""
    recipe = bg.load(spec)
    distiller = recipe.build().eval()
    batch = {"input_ids": torch.randint(5, 60, (3, 7)), "attention_mask": torch.ones(3, 7).long()}
    batch["labels"] = torch.tensor([0, 1, 2])
    for odd, words in (
        (lambda: setattr(distiller, "student", classifier(layers=1)), "give another student to `recipe.build"),
        (lambda: copy.deepcopy(distiller), "a distiller cannot be copied or pickled: build another"),
        (lambda: copy.copy(distiller), "cannot be copied or pickled"),
        (lambda: pickle.dumps(distiller), "cannot be copied or pickled"),
        (lambda: torch.save(distiller, spec.parent / "x.pt"), "cannot be copied or pickled"),
        (distiller._replicate_for_data_parallel, "use `DistributedDataParallel`"),
    ):
        with pytest.raises(bg.UsageError, match=words):
            odd()
    with pytest.raises(bg.RunError, match="`attention_mask` is None: leave it out"):
        distiller({**batch, "attention_mask": None})
    other = recipe.build().eval()
    with torch.no_grad():
        for parameter in other.student.parameters():
            parameter.mul_(1.5)
    assert other(batch).loss != distiller(batch).loss
    other.load_state_dict(distiller.state_dict())
    distiller.student = distiller.student
    assert torch.equal(other(batch).loss, distiller(batch).loss)


# ── a recipe elsewhere ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory is later: models, data and runs are where they were when it was read."""
    text = project(tmp_path / "spec", train="steps = 1").read_text()
    monkeypatch.chdir(tmp_path / "spec")
    of_file, of_text = bg.load("spec.brew"), bg.loads(text)
    monkeypatch.chdir("/")
    for recipe in (of_file, of_text):
        assert len(recipe.dataloaders()["train"]) == 5
        folder = recipe.run().folder
        assert folder.parent == tmp_path / "spec" / "runs"
        assert (folder / "student" / "model.safetensors").is_file()


def test_a_recipe_can_be_copied_and_pickled(spec: Path) -> None:
    """A copy is the recipe, which nothing changes; a pickle is checked again, and has the same params and hash."""
    recipe = bg.load(spec, T=7)
    assert copy.deepcopy({"a": recipe})["a"] is recipe
    other = pickle.loads(pickle.dumps(recipe))
    assert other._checked.recipe.params["T"] == 7
    assert other._checked.spec_hash == recipe._checked.spec_hash


def test_runs_of_two_threads_take_turns(tmp_path: Path) -> None:
    """Both have the students that they have alone, to the bit: seeds of dropout belong to the process."""
    recipe = bg.load(project(tmp_path, train="steps = 3", dropout=True))
    alone = recipe.run(out=tmp_path / "alone").folder
    places = [tmp_path / "one", tmp_path / "two"]
    threads = [threading.Thread(target=recipe.run, kwargs={"out": place}) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = load_file(alone / "student" / "model.safetensors")
    for place in places:
        student = load_file(place / "student" / "model.safetensors")
        assert all(student[name].equal(expected[name]) for name in expected)
