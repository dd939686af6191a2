"""`brewgraph run`, on two tiny BERTs and 24 rows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from brewgraph.cli.output import megabytes
from brewgraph.cli.run import ratio, scored_on, summary, where_it_is
from brewgraph.models.task_heads import Head
from brewgraph.running.scores import ScoreRow
from brewgraph.training.folder import RunFolder
from tests.cli.tiny import command, write_tiny


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models are fastest on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run: its folder of runs, its spec, and what the command said."""
    folder = tmp_path_factory.mktemp("run")
    spec = write_tiny(folder)
    result = command("run", str(spec), "--runs", str(folder / "runs"))
    return folder, spec, result


def names(text: str) -> list[str]:
    """The first words of a table's lines."""
    return [line.split()[0] for line in text.split("\n\n")[0].splitlines()]


def test_a_run_ends_with_the_table_and_the_place_of_the_student(ran):
    """Teacher and student side by side, the sentence about them, and how plain transformers loads the student."""
    folder, _, result = ran
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "accuracy", "macro", "F1", "parameters", "size", "sentences/s"]
    assert names(result.stdout) == ["model", "big", "small", "scored"]
    assert len({len(line) for line in lines[:3]}) == 1, "the columns are aligned"
    assert re.search(r" ([\d,]+ ±\d+%|-)$", lines[1])
    assert lines[3] == "scored on dev"
    assert lines[5].startswith("small is ")
    assert " times smaller than big, " in lines[5]
    (student,) = folder.glob("runs/student-*/student")
    assert lines[7:] == [
        f"the student is in {student}",
        f'plain transformers loads it: AutoModelForSequenceClassification.from_pretrained("{student}")',
    ]


def test_what_is_printed_loads(ran):
    """The printed line is true: plain transformers loads the folder."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = ran[2].stdout.split('from_pretrained("')[1].split('"')[0]
    model = AutoModelForSequenceClassification.from_pretrained(path)
    logits = model(**AutoTokenizer.from_pretrained(path)("good fine", return_tensors="pt")).logits
    assert logits.shape == (1, 2)


def test_progress_is_a_few_plain_lines_and_no_noise(ran):
    """stderr holds brewgraph's own lines and nothing of the libraries below."""
    said = ran[2].stderr.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "teacher big", "training teacher", "step 2/2", "step 2/2", "training student", "step 2/2", "step 2/2",
    ]  # fmt: skip
    assert said[1] == "training teacher: 2 steps"
    assert "(soft " in said[5]
    assert said[6].startswith("step 2/2: dev accuracy 0.")


def test_a_second_run_finds_the_first(ran):
    """Nothing is trained again, and the table is the same."""
    folder, spec, first = ran
    again = command("run", str(spec), "--runs", str(folder / "runs"))
    assert again.exit_code == 0
    assert "is already finished; --force runs it again\n" in again.stderr
    assert "training" not in again.stderr
    assert again.stdout == first.stdout


def test_quiet_prints_the_result_alone(ran):
    """`-q`: not a line on stderr."""
    folder, spec, first = ran
    again = command("run", "-q", str(spec), "--runs", str(folder / "runs"))
    assert (again.stdout, again.stderr) == (first.stdout, "")


def test_force_runs_again_and_set_makes_another_run(ran):
    """`--force` trains the student, not its finished teacher; another param is another folder."""
    folder, spec, _ = ran
    forced = command("run", str(spec), "--runs", str(folder / "runs"), "--force")
    assert forced.exit_code == 0
    assert "training student: 2 steps" in forced.stderr
    assert "training teacher" not in forced.stderr
    other = command("run", str(spec), "--runs", str(folder / "runs"), "--set", "T=5")
    assert "training student: 2 steps" in other.stderr
    assert len(list(folder.glob("runs/student-*"))) == 2


def test_a_dry_run_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    """One step of everything; afterwards the folder is as before, and no student is promised."""
    spec = write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = command("run", spec.name, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "one step, one evaluation and one save succeeded" in result.stderr
    assert "the student is in" not in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_teacher_there_is_one_row(tmp_path: Path):
    """The same student on the labels alone, in the folder that is asked for; no ratio without a teacher."""
    spec = write_tiny(tmp_path)
    result = command(
        "run", str(spec), "--without-teacher", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "o")
    )
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:2]] == [["small", "alone"]]
    assert "times" not in result.stdout
    assert f"the student is in {tmp_path / 'o' / 'student'}\n" in result.stdout


def test_a_pass_can_be_left_out(ran):
    """The finished run is the same one; names that are none are listed, of `run` as of `plan`."""
    folder, spec, _ = ran
    again = command("run", str(spec), "--runs", str(folder / "runs"), "--skip-pass", "truncate_models")
    assert again.exit_code == 0, again.output
    assert "is already finished" in again.output
    for name in ("run", "plan"):
        wrong = command(name, str(spec), "--skip-pass", "truncate")
        assert wrong.exit_code == 2
        assert "there is no pass `truncate`; did you mean `truncate_models`?" in wrong.stderr
        assert "`merge_equal_nodes`" in wrong.stderr
    plan = command("plan", str(spec), "--skip-pass", "truncate_models")
    assert plan.exit_code == 0, plan.output
    saved = plan.stdout.partition("\nsaved by\n")[2].partition("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in saved.splitlines()}
    assert rows["truncate_models"] == ["left", "out"]
    assert rows["release_values"][:4] == ["values", "held", "at", "once"]


def test_a_folder_that_cannot_be_written_fails_the_run(tmp_path: Path):
    """A file stands where the runs should go: one line, exit code 3."""
    spec = write_tiny(tmp_path)
    (tmp_path / "runs").write_text("")
    result = command("run", str(spec), "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith(f"error: the run folder `{tmp_path / 'runs'}")
    assert "Traceback" not in result.output


def test_a_folder_of_another_run_is_a_usage_error(ran):
    """`--out` names a folder that holds something else."""
    folder, spec, _ = ran
    result = command("run", str(spec), "--runs", str(folder / "runs"), "--out", str(folder))
    assert result.exit_code == 2
    assert result.stderr == f"error: {folder} is not empty and holds no run; choose another --out, or --force\n"


def test_an_interruption_says_how_to_go_on(tmp_path: Path, monkeypatch):
    """Ctrl-C: one line, exit code 130."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brewgraph.running.run._train", interrupted)
    spec = str(write_tiny(tmp_path))
    result = command("run", spec, "--quiet")
    said = "interrupted; run the same command again: no checkpoint exists yet, so training starts anew\n"
    assert (result.exit_code, result.stderr) == (130, said)

    def later(data_cache: object, folder: RunFolder, *_: object, **__: object) -> None:
        with folder.writing_checkpoint(1):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr("brewgraph.running.run._train", later)
    result = command("run", spec, "--quiet", "--force")
    said = "interrupted; run the same command again: teacher resumes at step 1\n"
    assert (result.exit_code, result.stderr) == (130, said)


COPIES = "`init=` copies layers, embeddings and a matching head"


def row(name: str, **changes: float) -> ScoreRow:
    """A row of the table; scores and sizes may be given."""
    sizes = {"parameters": 1, "size": 100, "per_second": 10.0}
    given = {key: changes.pop(key) for key in sizes if key in changes}
    sizes |= given
    seconds = [1 / sizes["per_second"]] * 3
    return ScoreRow(name=name, scores={"accuracy": 0.8, **changes}, tasks={"": "class"}, **sizes, seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"size": 50, "per_second": 30.0, "accuracy": 0.6},
            "s is 2.0 times smaller than t, 3.0 times faster, and keeps 75.0% of its accuracy",
        ),
        (
            {"size": 200, "per_second": 5.0},
            "s is 2.0 times larger than t, 2.0 times slower, and keeps 100.0% of its accuracy",
        ),
        ({"size": 101, "per_second": 10.1}, "s is no smaller than t, no faster, and keeps 100.0% of its accuracy"),
    ],
)
def test_the_sentence_about_size_and_speed(changes, words):
    """Smaller and larger, faster and slower, and neither."""
    assert ratio(row("s", **changes), row("t")) == words


def test_each_task_has_its_columns_and_its_share_of_the_sentence():
    """Two tasks: `ner/F1` and `lm/perplexity`, which is better when low; a model without a task has no value there."""
    tasks = {"ner": "tags", "lm": "masked"}
    scores = {"ner/f1": 0.8, "ner/recall": 0.7, "ner/token_accuracy": 0.9, "lm/perplexity": 12.5}
    teacher = ScoreRow("t", scores, tasks, 1, 100, 10.0)
    student = ScoreRow("s", {**scores, "ner/f1": 0.6, "lm/perplexity": 1234.5678}, tasks, 1, 100, 10.0)
    other = ScoreRow("o", {"ner/f1": 0.5, "ner/token_accuracy": 0.25}, tasks, 1, 100, 10.0)
    assert (student.columns, student.main) == (
        ("ner/f1", "ner/token_accuracy", "lm/perplexity"),
        ("ner/f1", "lm/perplexity"),
    )
    assert (
        ratio(student, teacher)
        == "s is no smaller than t, and keeps 75.0% of its ner/F1 and has 98.77 times its lm/perplexity"
    )
    assert ratio(other, teacher).endswith("and keeps 62.5% of its ner/F1")
    checked = SimpleNamespace(recipe=SimpleNamespace(student=student, teachers=()))
    lines = next(summary(checked, [teacher, student, other], None, without_teacher=False)).splitlines()
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert cells[0] == ["model", "ner/F1", "ner/token accuracy", "lm/perplexity", "parameters", "size", "sentences/s"]
    assert [row[1:4] for row in cells[1:]] == [
        ["0.8000", "0.9000", "12.5"],
        ["0.6000", "0.9000", "1234.6"],
        ["0.5000", "0.2500", "-"],
    ]


def test_each_teacher_has_its_sentence(tmp_path: Path):
    """A student of two tasks, each with a teacher: no speeds, since a teacher sees the examples of its task alone.

    A rehearsal has the table alone: after one step no comparison says anything.
    """
    rows = [
        ScoreRow("tagger", {"ner/f1": 0.5}, {"ner": "tags"}, 4, 400, 10.0),
        ScoreRow("reader", {"qa/f1": 0.4, "qa/exact_match": 0.2}, {"qa": "spans"}, 4, 400, 1.0),
        ScoreRow(
            "trunk", {"ner/f1": 0.25, "qa/f1": 0.3, "qa/exact_match": 0.1}, {"ner": "tags", "qa": "spans"}, 2, 200, 5.0
        ),
    ]
    recipe = SimpleNamespace(student=rows[2], teachers=rows[:2])
    checked = SimpleNamespace(recipe=recipe, facts=lambda model: None)
    said = list(summary(checked, rows, tmp_path, without_teacher=False))
    assert list(summary(checked, rows, None, without_teacher=False)) == said[:1]  # the table
    assert said[2:4] == [
        "trunk is 2.0 times smaller than tagger, and keeps 50.0% of its ner/F1",
        "trunk is 2.0 times smaller than reader, and keeps 75.0% of its qa/F1",
    ]


def test_a_student_with_heads_is_a_folder_for_each_of_them(tmp_path: Path):
    """No folder of its own would load: each head is named with the class that loads it."""
    heads = {"ner": Head("AutoModelForTokenClassification"), "qa": Head("AutoModelForQuestionAnswering")}
    assert list(where_it_is(tmp_path, SimpleNamespace(auto_class="AutoModel", heads=heads))) == [
        f"the student is in {tmp_path}, one folder per head",
        f'plain transformers loads them: AutoModelForTokenClassification.from_pretrained("{tmp_path / "ner"}")',
        f'                               AutoModelForQuestionAnswering.from_pretrained("{tmp_path / "qa"}")',
    ]


def test_correlations_below_zero_are_no_shares():
    """A share of a number that is not above zero says nothing, nor does one of what is not finite."""
    for student, teacher in ((-0.1, 0.5), (0.5, 0.0), (0.5, -0.2), (float("nan"), 0.5), (0.5, float("nan"))):
        rows = [
            ScoreRow(name, {"spearman": x}, {"": "value"}, 1, 100, 10.0) for name, x in (("s", student), ("t", teacher))
        ]
        assert ratio(*rows) == "s is no smaller than t"


def test_speeds_are_compared_only_where_the_rounds_agree():
    """The median of the rounds' ratios; none where they spread widely, are too few, or were not measured."""

    def timed(*seconds: float) -> ScoreRow:
        return replace(row("x"), seconds=seconds)

    teacher = timed(3.0, 6.0, 3.0, 30.0, 3.0)  # the machine is slower in some rounds, for both
    assert "3.0 times faster" in ratio(timed(1.0, 2.0, 1.0, 10.0, 1.0), teacher)
    assert "faster" not in ratio(timed(1.0, 1.0, 2.0, 10.0, 2.0), teacher)
    assert "faster" not in ratio(timed(1.0, 2.0), teacher)
    assert "faster" not in ratio(timed(), teacher)
    checked = SimpleNamespace(recipe=SimpleNamespace(student=row("x"), teachers=()))
    table = next(summary(checked, [timed(0.1, 0.101, 0.102), timed(0.1, 0.4, 0.9)], None, without_teacher=False))
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["±0%", "-"]


@pytest.mark.parametrize(
    ("alone", "student", "kind", "words"),
    [
        ({"accuracy": 0.43421}, {"accuracy": 0.6331}, "class", "accuracy 0.4342, 0.1989 worse"),
        ({"accuracy": 0.9}, {"accuracy": 0.85}, "class", "accuracy 0.9000, 0.0500 better"),
        ({"accuracy": 0.9}, {"accuracy": 0.9}, "class", "accuracy 0.9000, the same"),
        ({"perplexity": 14.5}, {"perplexity": 12.25}, "next", "perplexity 14.5, 2.2500 worse"),
        ({"perplexity": 12.25}, {"perplexity": 14.5}, "masked", "perplexity 12.25, 2.2500 better"),
        ({"spearman": -0.1}, {"spearman": 0.0}, "value", "Spearman -0.1000, 0.1000 worse"),
        ({"spearman": float("nan")}, {"spearman": 0.5}, "value", ""),
    ],
)
def test_the_student_alone_has_its_sentence(tmp_path: Path, alone, student, kind, words):
    """Both numbers are said, and which is better, also where that is the student alone; and what `init=` gave it."""
    teacher, own, other = (
        ScoreRow(name, scores, {"": kind}, 1, 100, 10.0, splits={"": "test"})
        for name, scores in (("t", student), ("s", student), ("s alone", alone))
    )
    for init in (None, SimpleNamespace(model="t")):
        declared = SimpleNamespace(name="s", source=SimpleNamespace(init=init))
        checked = SimpleNamespace(
            recipe=SimpleNamespace(student=declared, teachers=[teacher]), facts=lambda model: None
        )
        said = list(summary(checked, [teacher, other, own], tmp_path, without_teacher=False))
        begins = [f"s alone starts from weights of t: {COPIES}"] if init else []
        assert said[1] == "scored on test"
        told = [f"trained without its teacher it has {words}"] if words else []  # nothing of what is no number
        assert said[4:-2] == [*told, *begins]
        said = list(summary(checked, [other], tmp_path, without_teacher=True))
        assert said[2:-2] == (["", *begins] if begins else [])[: 1 + len(begins)]


def test_tasks_may_be_scored_on_different_splits():
    """One of them has test rows."""
    rows = [row("t"), replace(row("s"), splits={"ner": "test", "qa": "dev"})]
    assert list(scored_on(rows)) == ["scored on test (ner), dev (qa)"]
    assert list(scored_on(rows[:1])) == []


def test_sizes_in_words():
    """From bytes to gigabytes."""
    assert [megabytes(n) for n in (7, 19_400, 4_200_000, 1_340_000_000)] == ["7 bytes", "19.4 kB", "4.2 MB", "1.3 GB"]
