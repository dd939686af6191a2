"""Where runs lie and where they are looked for: beside the spec, whatever the working directory is; or in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import brewgraph as bg
from brewgraph.data.sources.examples import open_examples
from brewgraph.inspect.targets import named_folders
from brewgraph.running.finished import open_run
from brewgraph.running.predict import labelled_rows, load_student, score
from tests.cli.tiny import write_tiny
from tests.running.test_run import TEACHER, Steps, edit
from tests.small import project, write_data

TINY = 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, max_position_embeddings=40)'


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`work/spec.brew`, whose teacher is the student of `bank/teacher.brew`; the working directory is neither."""
    monkeypatch.delenv("BREWGRAPH_RUNS", raising=False)
    for name in ("work", "bank", "elsewhere"):
        (tmp_path / name).mkdir()
    spec = project(tmp_path / "work", train="steps = 2")
    write_data(tmp_path / "bank")
    (tmp_path / "bank" / "teacher.brew").write_text(TEACHER)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return edit(spec, ('hf("bert")', 'brew("../bank/teacher.brew")'), ('hf("tiny")', TINY))  # fmt: skip


def names(folder: Path) -> list[str]:
    """The specs whose runs a folder holds."""
    return sorted(path.name.rsplit("-", 1)[0] for path in folder.iterdir()) if folder.is_dir() else []


def test_runs_lie_beside_their_specs(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's beside its own spec; found from every working directory, by `run`, `build` and a rehearsal."""
    with pytest.raises(
        bg.UsageError, match=r"run `brewgraph run .*bank/teacher.brew` first; no finished run of it is in "
    ):
        bg.load(spec).build()
    reporter = Steps()
    monkeypatch.chdir(tmp_path / "bank")
    bg.run("teacher.brew", reporter=reporter)
    monkeypatch.chdir(tmp_path)
    result = bg.run("work/spec.brew", reporter=reporter)
    assert reporter.trained == ["teacher", "spec"]
    assert result.folder.parent == tmp_path / "work" / "runs"
    (teacher,) = (tmp_path / "bank" / "runs").iterdir()
    assert f"bank/runs/{teacher.name} is already finished" in reporter.said
    assert names(tmp_path / "work" / "runs") == ["spec"]
    assert not (tmp_path / "runs").exists()
    weights = load_file(teacher / "student" / "model.safetensors")
    for place in ("elsewhere", "work", "bank"):
        monkeypatch.chdir(tmp_path / place)
        assert not bg.run(spec, reporter=reporter).fresh
        assert bg.run(spec, T=8, dry_run=True, reporter=reporter).fresh
        (built,) = bg.load(spec).build().teachers
        assert torch.equal(built.state_dict()["classifier.weight"], weights["classifier.weight"])
    assert reporter.trained == ["teacher", "spec"]


@pytest.mark.parametrize("how", ["option", "variable"])
def test_one_folder_for_all_runs(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """`runs` and BREWGRAPH_RUNS name it, relative to the working directory; the option comes first."""
    options = {"runs": "all"} if how == "option" else {}
    monkeypatch.setenv("BREWGRAPH_RUNS", "nowhere" if how == "option" else "all")
    result = bg.run(spec, **options)
    assert result.folder.parent == Path("all")
    assert names(Path("all")) == ["spec", "teacher"]
    assert not (tmp_path / "work" / "runs").exists()
    assert not (tmp_path / "bank" / "runs").exists()
    assert len(bg.load(spec).build(**options).teachers) == 1
    monkeypatch.delenv("BREWGRAPH_RUNS")
    with pytest.raises(bg.UsageError, match="is not trained yet"):
        bg.load(spec).build()


def test_a_finished_teacher_is_found_wherever_it_may_lie(spec: Path, tmp_path: Path) -> None:
    """Beside its spec where another folder is named for runs; and among the runs of the spec that learns from it."""
    reporter = Steps()
    bg.run(tmp_path / "bank" / "teacher.brew", reporter=reporter)
    bg.run(spec, runs="all", reporter=reporter)
    assert (reporter.trained, names(Path("all"))) == (["teacher", "spec"], ["spec"])
    (tmp_path / "work" / "runs").mkdir()
    (teacher,) = (tmp_path / "bank" / "runs").iterdir()
    teacher.rename(tmp_path / "work" / "runs" / teacher.name)
    bg.run(spec, reporter=reporter)
    assert reporter.trained == ["teacher", "spec", "spec"]
    assert len(bg.load(spec).build().teachers) == 1
    # another teacher's spec is another name: what lies there is not taken for it
    edit(spec, ("teacher.brew", 'teacher.brew", steps=3)#'))
    with pytest.raises(bg.UsageError, match=r"`brewgraph run .*teacher.brew --set steps=3` first"):
        bg.load(spec).build()


def test_a_folder_that_cannot_be_written_names_the_option(spec: Path, tmp_path: Path) -> None:
    """Of the spec and of its teacher, whose folder may be another's; `--out` where that was given."""
    (tmp_path / "bank" / "runs").write_text("")
    with pytest.raises(
        bg.RunError, match=r"`\.\./bank/runs/teacher-\w+` cannot be written: .*; choose another folder with --runs"
    ):
        bg.run(spec)
    with pytest.raises(
        bg.RunError, match=r"`\.\./bank/runs/x` cannot be written: .*; choose another folder with --out"
    ):
        bg.run(spec, out=tmp_path / "bank" / "runs" / "x")
    assert names(Path(bg.run(spec, runs="all").folder.parent)) == ["spec", "teacher"]


def test_a_spec_without_a_file_stands_in_the_working_directory(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of its teachers are looked for beside their specs, as ever."""
    bg.run(spec.parent.parent / "bank" / "teacher.brew")
    monkeypatch.chdir(spec.parent)
    assert len(bg.loads(spec.read_text()).build().teachers) == 1


# ── baselines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_baseline_is_a_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path, its name among the runs, or the folder of its student: scored as in the table, with other weights."""
    spec = project(tmp_path, train="steps = 3; baseline = true")
    monkeypatch.chdir(tmp_path)
    result = bg.run(spec)
    table = {row.name: row.scores for row in result.table}
    name = result.folder.name
    whole = (name, f"runs/{name}", f"runs/{name}/student", str(result.folder))
    alone = (f"{name}/alone", f"runs/{name}/alone", f"{name}/alone/student", str(result.folder / "alone"))
    for row, targets in (("tiny", whole), ("tiny alone", alone)):
        folders = {open_run(target).folder.path.resolve() for target in targets}
        assert folders == {(result.folder / ("alone" if row == "tiny alone" else "")).resolve()}
        task = open_run(targets[0]).task(None)
        assert score(load_student(task), labelled_rows(task, "dev")).values == pytest.approx(table[row])
        assert {Path(*named_folders(target)).resolve() for target in targets} == {task.model.resolve()}
    assert table["tiny"] != table["tiny alone"]
    for place in (result.folder / "alone", result.folder / "alone" / "student"):
        monkeypatch.chdir(place)
        assert open_run(".").folder.path.resolve() == result.folder / "alone"
    monkeypatch.chdir(tmp_path)
    (result.folder / "alone" / "finished.json").unlink()
    with pytest.raises(bg.UsageError, match=f"the run in `runs/{name}/alone` is not finished"):
        open_run(f"{name}/alone")
    with pytest.raises(bg.UsageError, match=f"there is no folder `nothing` .in runs there is {name}"):
        open_run("nothing")


def test_a_recipe_holds_the_specs_of_its_teachers(tmp_path: Path) -> None:
    """Built after another spec was loaded, it does not read them from the disk again."""
    spec = write_tiny(tmp_path)
    bg.run(spec)
    recipe = bg.load(spec)
    (tmp_path / "teacher.brew").unlink()
    with pytest.raises(bg.SpecError, match="B321"):
        bg.load(spec)
    assert recipe.build().terms()[:2] == ("soft", "hard")


def test_a_run_reads_the_data_of_each_spec_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the hash, for the name of the teacher's folder, and for training: one reading."""
    spec, seen = write_tiny(tmp_path), []

    def counted(source: Any, folder: Path, *more: Any, **given: Any) -> Any:
        seen.append(source.batch)
        return open_examples(source, folder, *more, **given)

    monkeypatch.setattr("brewgraph.running.spec_builder.open_examples", counted)
    bg.run(spec)
    assert len(seen) == 2
    seen.clear()
    bg.load(spec).build()
    assert len(seen) == 1  # of the teacher, for the name of its folder
