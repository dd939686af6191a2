"""`brewgraph eval` and `brewgraph predict`, on a finished run of two tiny BERTs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.tiny import command, write_tiny

ROWS = [
    {"text": "good fine nice", "label": "good"},
    {"text": "bad", "label": "bad"},
    {"text": "poor sad", "label": "bad"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose teacher is gone: nothing here needs it."""
    folder = tmp_path_factory.mktemp("run")
    spec = write_tiny(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = command("run", "-q", str(spec), "--runs", str(folder / "runs"))
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    for path in folder.glob("runs/teacher-*"):
        shutil.rmtree(path)
    (found,) = folder.glob("runs/student-*")
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def predictions(*arguments: str) -> list[dict[str, Any]]:
    result = command("predict", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_saved_student_scores_what_the_run_said(run: Path) -> None:
    """On `dev` the numbers are those of the closing table, in words and as JSON."""
    rows = json.loads((run / "finished.json").read_text())["table"]
    (scores,) = (row["scores"] for row in rows if row["name"] == "small")
    result = command("eval", str(run))
    assert result.exit_code == 0, result.output
    head, *lines = result.stdout.splitlines()
    assert head == f"{run} on dev: 8 examples"
    assert lines[0].split() == ["accuracy", f"{scores['accuracy']:.4f}"]
    assert lines[1].split() == ["macro", "F1", f"{scores['macro_f1']:.4f}"]
    told = json.loads(command("eval", str(run), "--format", "json").stdout)
    assert (told["run"], told["data"], told["examples"]) == (str(run), "dev", 8)
    assert told["scores"] == pytest.approx(scores)


def test_another_file_is_scored_with_the_classes_of_the_run(run: Path, tmp_path: Path) -> None:
    """A file that holds one class of two: its labels keep their meaning, and the score is that of the predictions."""
    rows = [row for row in ROWS if row["label"] == "good"] * 3
    path = write(tmp_path / "other.jsonl", [*rows, {"text": "awful", "label": "good"}])
    found = predictions(str(run), str(path))
    told = json.loads(command("eval", str(run), "--data", str(path), "--format", "json").stdout)
    assert told["examples"] == 4
    assert told["scores"]["accuracy"] == sum(row["label"] == "good" for row in found) / 4


def test_predictions_are_those_of_plain_transformers(run: Path, tmp_path: Path) -> None:
    """A row per input row, in order: the likeliest class, and every class's probability; labels are not needed."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bare = write(tmp_path / "bare.jsonl", [{"text": row["text"]} for row in ROWS])
    found = predictions(str(run), str(bare))
    assert [row["index"] for row in found] == [0, 1, 2]
    model = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    for row, given in zip(found, ROWS, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(given["text"], return_tensors="pt")).logits[0]
        expected = dict(zip(("bad", "good"), logits.softmax(-1).tolist(), strict=True))
        assert row["probabilities"] == {name: round(value, 4) for name, value in expected.items()}
        assert row["text"] == given["text"]
        assert row["label"] == max(expected, key=expected.__getitem__)
    assert predictions(str(run), str(write(tmp_path / "labelled.jsonl", ROWS))) == found


def test_other_formats_and_an_output_file(run: Path, tmp_path: Path) -> None:
    """A csv of the same rows gives the same; `-o` writes the lines, and says so unless quiet."""
    table = tmp_path / "rows.csv"
    table.write_text("text\n" + "".join(f"{row['text']}\n" for row in ROWS))
    out = tmp_path / "out.jsonl"
    result = command("predict", str(run), str(table), "-o", str(out))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"3 predictions in {out}\n")
    assert [json.loads(line) for line in out.read_text().splitlines()] == predictions(str(run), str(table))
    assert command("predict", "-q", str(run), str(table), "-o", str(out)).stderr == ""


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_of_a_student_is_named(run: Path, tmp_path: Path, name: str) -> None:
    """One line, with what to do."""
    copy = shutil.copytree(run, tmp_path / "copy")
    path = copy / "student" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = command("eval", str(copy))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert str(path if name != "tokenizer.json" else path.parent) in result.stderr
    assert result.stderr.endswith(": restore it, or begin anew by `brewgraph run SPEC --force`\n")


NAME_IT = "name the folder that `brewgraph run` made"


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_what_is_no_finished_run_is_a_usage_error(verb: str, run: Path, tmp_path: Path) -> None:
    """No folder, a folder without a run, a run that has not ended: one line each, exit code 2."""
    file = [str(write(tmp_path / "rows.jsonl", ROWS))] if verb == "predict" else []
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(run, copy)
    (copy / "finished.json").unlink()
    for folder, words in (
        (
            tmp_path / "runs" / "kopy",
            f"there is no folder `{tmp_path / 'runs' / 'kopy'}` (in {tmp_path / 'runs'} there is copy): {NAME_IT}",
        ),
        (
            tmp_path / "runs",
            f"`{tmp_path / 'runs'}` holds no run (in {tmp_path / 'runs'} there is copy): {NAME_IT}",
        ),
        (
            tmp_path / "copy",
            f"there is no folder `{tmp_path / 'copy'}` (in {tmp_path / 'runs'} there is copy): {NAME_IT}",
        ),
        (copy / "spec.brew", f"`{copy / 'spec.brew'}` is a file: {NAME_IT}"),
        (copy, f"the run in `{copy}` is not finished: repeat its `brewgraph run` command"),
    ):
        result = command(verb, str(folder), *file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {words}")
        assert result.stderr.count("\n") == 1


def test_what_is_wrong_with_the_rows_is_a_usage_error(run: Path, tmp_path: Path) -> None:
    """A file or split that is not there, a column that is missing, a label that the run does not know."""
    named = write(tmp_path / "other.jsonl", [{"txt": "good", "label": "good"}])
    strange = write(tmp_path / "strange.jsonl", [*ROWS, {"text": "so so", "label": "godo"}])
    odd = tmp_path / "rows.xml"
    odd.write_text("<rows/>")
    for arguments, words in (
        (("predict", str(run), str(tmp_path / "othr.jsonl")), "there is no file `{}/othr.jsonl`; did you mean `other.jsonl`?"),
        (("eval", str(run), "--data", "tets"), "there is no split and no file `tets`: did you mean `test`?"),
        (("eval", str(run), "--data", str(tmp_path / "x")), "there is no file `{}/x`"),
        (("eval", str(run), "--data", "test"), "the data of the run has no split `test`: it has `train` and `dev`; or name a file"),
        (("predict", str(run), str(named)), "`{}/other.jsonl` has no column `text` (did you mean `txt`?"),
        (("eval", str(run), "--data", str(strange)), "`{}/strange.jsonl` has a label `godo`, which the run does not know: did you mean `good`?"),
        (("predict", str(run), str(odd)), "`{}/rows.xml` has no format that is known here"),
    ):  # fmt: skip
        result = command(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("error: " + words.format(tmp_path))
        assert result.stderr.count("\n") == 1


def test_the_folder_of_the_data_is_gone(run: Path, tmp_path: Path) -> None:
    """`eval` says where the data lay and what to do, and a file still works."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    resolved = json.loads((copy / "resolved.json").read_text())
    (copy / "resolved.json").write_text(json.dumps({**resolved, "folder": str(tmp_path / "gone")}))
    result = command("eval", str(copy))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: the data of the run were in `{tmp_path / 'gone'}`, which is no longer there: put that folder back, or "
        "name a file with --data\n"
    )
    (tmp_path / "gone").mkdir()
    result = command("eval", str(copy))
    assert (result.exit_code, "error[B401]: there is no file `train.jsonl`" in result.stderr) == (1, True)
    rows = write(tmp_path / "rows.jsonl", ROWS)
    assert command("eval", str(copy), "--data", str(rows)).exit_code == 0
    assert len(predictions(str(copy), str(rows))) == 3


def test_a_run_of_several_tasks(run: Path, tmp_path: Path) -> None:
    """Each task by its own head and under its own name; a file belongs to one of them, which has to be named."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    resolved = json.loads((copy / "resolved.json").read_text())
    (task,) = resolved["tasks"].values()
    tasks = {"mood": {**task, "head": "one"}, "tone": {**task, "head": "two"}}
    (copy / "resolved.json").write_text(json.dumps({**resolved, "tasks": tasks}))
    for head in ("one", "two"):
        shutil.copytree(run / "student", copy / "student" / head)
    (copy / "student" / "config.json").unlink()
    alone = json.loads(command("eval", str(run), "--format", "json").stdout)["scores"]
    told = json.loads(command("eval", str(copy), "--format", "json").stdout)
    assert told["examples"] == 16
    assert told["scores"] == {f"{name}/{metric}": value for name in tasks for metric, value in alone.items()}
    one = command("eval", str(copy), "--task", "tone")
    assert one.stdout.splitlines()[1].split() == ["tone/accuracy", f"{alone['accuracy']:.4f}"]
    rows = str(write(tmp_path / "rows.jsonl", ROWS))
    assert command("predict", str(copy), rows).exit_code == 2
    assert command("eval", str(copy), "--data", rows).exit_code == 2
    assert predictions(str(copy), rows, "--task", "mood") == predictions(str(run), rows)


def test_texts_that_are_typed_or_piped(run: Path, tmp_path: Path) -> None:
    """`--text`, and from a pipe plain lines, JSON lines, csv and tsv: all give what the file of the same rows gives."""
    expected = predictions(str(run), str(write(tmp_path / "rows.jsonl", ROWS)))
    texts = [row["text"] for row in ROWS]
    assert predictions(str(run), *(word for text in texts for word in ("--text", text))) == expected
    for content in (
        "\n".join(texts),
        "".join(f"{text}\r\n" for text in texts),
        "".join(json.dumps(row) + "\n" for row in ROWS),
        "label,text\n" + "".join(f"bad,{text}\n" for text in texts),
        "text\tlabel\n" + "".join(f"{text}\tbad\n" for text in texts),
    ):
        result = command("predict", str(run), "-", input=content)
        assert [json.loads(line) for line in result.stdout.splitlines()] == expected, result.output


def test_what_cannot_be_predicted_from_is_a_usage_error(run: Path, tmp_path: Path) -> None:
    """Nothing, two at once, an empty pipe, other bytes, a name without a format, no folder, the file that is read."""
    kept = tmp_path / "kept.csv"
    kept.write_text("text\ngood\n")
    (tmp_path / "link.csv").symlink_to(kept)
    for arguments, input, words in (
        ((), None, "give either a FILE (- for standard input) or `--text`"),
        (("x.csv", "--text", "good"), None, "give either a FILE (- for standard input) or `--text`"),
        (("-",), " \n", "standard input holds no rows"),
        (("-",), b"good\n\xff\xfe\n", "line 2 of standard input is not UTF-8"),
        (("-",), '{"txt": "good"}', "standard input has no column `text` (did you mean `txt`?"),
        (("--text", "good", "-o", "out.parquet"), None, "the format of `out.parquet` is unknown"),
        (
            ("--text", "good", "-o", str(kept / "o.csv")),
            None,
            f"`{kept / 'o.csv'}` cannot be written: `{kept}` is a file",
        ),
        (("--text", "good", "-o", str(tmp_path)), None, f"the format of `{tmp_path}` is unknown"),
        ((str(kept), "-o", str(kept)), None, f"`{kept}` is the input file"),
        ((str(kept), "-o", str(tmp_path / "link.csv")), None, f"`{tmp_path / 'link.csv'}` is the input file"),
    ):
        result = command("predict", str(run), *arguments, input=input)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith(f"error: {words}")
        assert result.stderr.count("\n") == 1
    assert kept.read_text() == "text\ngood\n"


def test_the_likeliest_classes_and_all_digits(run: Path, tmp_path: Path) -> None:
    """`--top` keeps the likeliest, `--digits` their decimals; a table has a column per class, or per rank."""
    (whole,) = predictions(str(run), "--text", "good fine", "--digits", "17")
    (short,) = predictions(str(run), "--text", "good fine", "--top", "1", "--digits", "2")
    best = max(whole["probabilities"], key=whole["probabilities"].__getitem__)
    assert sum(whole["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert any(round(value, 7) != value for value in whole["probabilities"].values())
    assert short["probabilities"] == {best: round(whole["probabilities"][best], 2)}
    out = tmp_path / "out.csv"
    assert command("predict", str(run), "--text", "good, fine", "-o", str(out)).exit_code == 0
    header, row = out.read_text().splitlines()
    assert header == "index,text,label,probability_bad,probability_good"
    assert row.startswith('0,"good, fine",')
    ranked = command("predict", str(run), "--text", "good fine", "--top", "1", "--format", "tsv").stdout
    assert ranked.splitlines() == ["index\ttext\tlabel\tclass_1\tprobability_1", f"0\tgood fine\t{best}\t{best}\t{round(whole['probabilities'][best], 4)}"]  # fmt: skip
