"""Exports of real runs: what is written, that other runtimes give what torch gives, and what is refused."""

from __future__ import annotations

import errno
import json
import re
import resource
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import brewgraph as bg
from brewgraph.models.export_record import read_record
from brewgraph.recipe.label_types import CLASS, NONE, SPANS, TAGS
from brewgraph.running.finished import open_run
from brewgraph.running.predict import labelled_rows, load_student, load_unscored_student, score
from brewgraph.training.folder import RunFolder
from brewgraph.training.lock import locked
from tests.cli.tiny import command
from tests.export.kinds import finished, record, write_spec
from tests.small import save

numpy = pytest.importorskip("numpy")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
capture, onnx_file, write = (
    pytest.importorskip(f"brewgraph.export.{name}") for name in ("capture", "onnx_file", "write")
)
ALL = ("fp32", "fp16", "int8-dynamic", "int8-static")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student tells classes."""
    return finished(tmp_path_factory.mktemp("class"), "class")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The folder of its exports in all precisions."""
    result = command("export", str(run), "-q", *(word for x in ALL for word in ("--precision", x)), "--rows", "20")
    assert result.exit_code == 0, result.output
    return run / "export"


@pytest.fixture(scope="module")
def programs(run: Path, exported: Path) -> Path:
    """The folder of its exports, one of them a program of torch."""
    result = command("export", str(run), "-q", "--to", "torch")
    assert result.exit_code == 0, result.output
    return exported


def sessions_agree(run: Path, folder: Path, *, within: float) -> None:
    """Plain onnxruntime gives what the student gives, for other numbers of rows and lengths, with padding."""
    task = open_run(run).task(None)
    student = load_student(task) if task.label_type else load_unscored_student(task)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    told = record(folder)
    assert [x.name for x in session.get_inputs()] == told["inputs"]
    assert all(x.shape == ["batch", "length"] for x in session.get_inputs())
    for rows, length in ((1, 1), (1, 9), (5, 4), (4, 16)):
        ids = torch.randint(5, 60, (rows, length))
        inputs = {name: torch.zeros_like(ids) for name in told["inputs"]} | {"input_ids": ids}
        inputs["attention_mask"] = torch.ones_like(ids)
        if rows > 1:
            inputs["attention_mask"][0, length // 2 :] = 0
        with torch.no_grad():
            expected = student.model(**inputs)
        real = inputs["attention_mask"].bool().numpy()
        outputs = session.run(told["outputs"], {name: x.numpy() for name, x in inputs.items()})
        for name, output in zip(told["outputs"], outputs, strict=True):
            wanted = getattr(expected, name).numpy()
            aligned = task.label_type.aligned or (not task.label_type and wanted.ndim == 3)
            one, other = (output[real], wanted[real]) if aligned else (output, wanted)
            numpy.testing.assert_allclose(one, other, atol=within, rtol=0)


@pytest.mark.parametrize(
    "kind",
    [
        "spans",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("classes", "value", "tags", "masked", "next", "")),
    ],
)
def test_every_kind_of_student_gives_the_same_in_onnx(tmp_path: Path, kind: str) -> None:
    """Outputs, and the scores that `eval` prints of the exported folder, wherever that lies."""
    run = finished(tmp_path, kind)
    out = tmp_path / "elsewhere" / "model"
    result = command("export", str(run), "-q", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert record(out)["difference"] < 1e-4
    sessions_agree(run, out, within=1e-4)
    if kind:
        task = open_run(run).task(None)
        rows = labelled_rows(task, "dev")
        before = score(load_student(task), rows)
        after = score(load_student(open_run(out).task(None)), rows)
        assert after.values == pytest.approx(before.values, rel=1e-4)
        assert record(out)["scores"]["after"] == pytest.approx(before.values, rel=1e-4)
    else:
        assert record(out)["scores"] == {}


@pytest.mark.parametrize(("target", "kind"), [("onnx", "class"), ("torch", "class"), ("onnx", "tags")])
def test_texts_longer_than_the_positions_are_cut_as_for_the_student(tmp_path: Path, target: str, kind: str) -> None:
    """Of the data nothing says how long a text may be: the student has 14 positions, and so have its exports."""
    spec = write_spec(tmp_path, kind)
    text = re.sub(r", max_length=\d+", "", spec.read_text())
    spec.write_text(text.replace("max_position_embeddings=40", "max_position_embeddings=14"))
    long = "a tale of two cities was the best of times " * 9
    if kind == "class":
        with (tmp_path / "dev.jsonl").open("a") as file:
            file.write(json.dumps({"text": long, "label": "good"}) + "\n")
    run = bg.run(spec).folder
    result = command("export", str(run), "-q", "--to", target)
    assert result.exit_code == 0, result.output
    folder = run / "export" / f"{target}-fp32"
    assert (record(folder)["max_length"], record(folder)["difference"] < 1e-4) == (14, True)
    assert 'cut = {"truncation": True, "max_length": 14}' in (folder / "README.md").read_text()
    scores = [
        score(load_student(open_run(x).task(None)), labelled_rows(open_run(x).task(None), "dev")).values
        for x in (run, folder)
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)
    measured = command("bench", str(run), "-q", "--seconds", "0.1", "--rows", "20")
    assert measured.exit_code == 0, measured.output
    assert f"{target}-fp32" in measured.stdout
    # an export that does not tell, as of an earlier version
    told = record(folder)
    del told["max_length"]
    (folder / "export.json").write_text(json.dumps(told))
    refused = command("eval", str(folder))
    assert (
        refused.exit_code,
        refused.stderr.splitlines()[-1].startswith("error: the exported model cannot run a batch of "),
    ) == (3, True)
    assert "export the student again, or give it shorter texts" in refused.stderr


@pytest.mark.parametrize("target", ["onnx", "torch"])
def test_a_student_with_an_adapter_is_exported_merged(tmp_path: Path, target: str) -> None:
    """What it learnt is in its weights."""
    save(tmp_path / "base", layers=2, seed=3)
    spec = write_spec(tmp_path, "class", student='hf("base", adapter=lora(r=2))')
    run = bg.run(spec).folder
    assert (run / "student" / "adapter").is_dir()
    result = command("export", str(run), "-q", "--to", target)
    assert result.exit_code == 0, result.output
    folder = run / "export" / f"{target}-fp32"
    assert record(folder)["difference"] < 1e-5
    assert not (folder / "adapter").exists()
    one, other = (load_student(open_run(x).task(None)).model for x in (run, folder))
    base = type(one).from_pretrained(tmp_path / "base")
    inputs = {"input_ids": torch.randint(5, 60, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
    inputs["token_type_ids"] = torch.zeros(3, 9, dtype=torch.long)
    with torch.no_grad():
        logits = one(**inputs).logits
        assert torch.allclose(other(**inputs).logits, logits, atol=1e-5)
        assert not torch.allclose(base(**inputs).logits, logits, atol=1e-3)


def test_two_exports_to_one_folder_do_not_mix(run: Path, tmp_path: Path) -> None:
    """The second one ends in a line, and the first one's files stay. What a killed one left is no obstacle."""
    out = tmp_path / "served"
    (part := tmp_path / ".served.part").mkdir()
    with locked(part, lambda text: None):
        result = command("export", str(run), "-q", "--to", "torch", "--out", str(out))
        assert part.is_dir()
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert f"{out.name}`: wait for it, or choose another folder with --out" in result.stderr
    (scratch := tmp_path / ".export-abc").mkdir()
    for left in (part, scratch):
        (left / ".lock").write_text(json.dumps({"host": socket.gethostname(), "process": 2**22 + 1, "started": 1.0}))
    result = command("export", str(run), "-q", "--to", "torch", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_each_precision_says_what_it_changes(run: Path, exported: Path) -> None:
    """fp32 gives torch's outputs, lower precisions nearly, in smaller files; the table and the records agree."""
    told = {x: record(exported / f"onnx-{x}") for x in ALL}
    apart = {x: told[x]["difference"] for x in ALL}
    assert apart["fp32"] < 1e-5 < apart["fp16"] < apart["int8-dynamic"] < 1
    assert apart["int8-static"] < 1
    sessions_agree(run, exported / "onnx-fp32", within=1e-5)
    sessions_agree(run, exported / "onnx-fp16", within=0.02)
    sessions_agree(run, exported / "onnx-int8-dynamic", within=1.0)
    assert [told[x]["calibration"] for x in ALL] == [0, 0, 0, 20]
    assert {x["opset"] for x in told.values()} == {told["fp32"]["opset"]}
    size = {x: (exported / f"onnx-{x}" / "model.onnx").stat().st_size for x in ALL}
    assert size["fp16"] < size["fp32"]
    assert size["int8-dynamic"] < size["fp32"]
    assert told["fp32"]["labels"] == list(open_run(run).task(None).classes)
    assert told["fp32"]["versions"].keys() >= {"torch", "onnx", "onnxruntime"}


def test_the_folder_needs_no_run_and_no_brewgraph(run: Path, exported: Path, tmp_path: Path) -> None:
    """Tokenizer, labels and model open with their own libraries; nothing of this machine's code is in the model."""
    from transformers import AutoConfig, AutoTokenizer

    folder = shutil.copytree(exported / "onnx-fp32", tmp_path / "copy")
    inputs = dict(AutoTokenizer.from_pretrained(folder)(["it was the best"], return_tensors="np"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = {x.name for x in session.get_inputs()}
    (logits,) = session.run(None, {name: x for name, x in inputs.items() if name in names})
    labels = AutoConfig.from_pretrained(folder).id2label
    told = json.loads(command("predict", str(folder), "--text", "it was the best").stdout)
    assert told["label"] == labels[int(logits.argmax())]
    assert told == json.loads(command("predict", str(run), "--text", "it was the best").stdout)
    assert b"site-packages" not in (folder / "model.onnx").read_bytes()
    assert "model.onnx" in (folder / "README.md").read_text()


def test_a_program_of_torch(run: Path, tmp_path: Path) -> None:
    """A program of torch.export gives the very outputs; its file has no traces of code."""
    result = command("export", str(run), "-q", "--to", "torch", "--out", str(tmp_path / "pt"))
    assert result.exit_code == 0, result.output
    assert record(tmp_path / "pt")["difference"] < 1e-6
    module = torch.export.load(str(tmp_path / "pt" / "model.pt2")).module()
    names = record(tmp_path / "pt")["inputs"]
    assert module(**{name: torch.ones(5, 3, dtype=torch.long) for name in names})[0].shape == (5, 3)
    assert b"site-packages" not in (tmp_path / "pt" / "model.pt2").read_bytes()


@pytest.mark.slow
def test_openvino(run: Path) -> None:
    """All precisions, where it is installed; in a process of its own, whose warnings are no errors."""
    if find_spec("openvino") is None or find_spec("nncf") is None:
        pytest.skip("openvino or nncf is not installed")
    words = [word for x in ALL for word in ("--precision", x)]
    line = [sys.executable, "-m", "brewgraph", "export", str(run), "-q", "--to", "openvino", *words]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{run} on dev: 12 examples")
    told = {x: record(run / "export" / f"openvino-{x}")["difference"] for x in ALL}
    assert told["fp32"] < 1e-5
    assert max(told.values()) < 1


def test_differences_count_at_real_tokens_only() -> None:
    """Padding may hold anything; NaN is no small difference, and -inf in both is none."""
    one, other = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    other[0, 2], other[1, 0, 0] = 9.0, 0.5
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert write.difference(one, other, mask, TAGS) == write.difference(one, other, mask, NONE) == 0.5
    assert write.difference(one[:, 0], other[:, 0], mask, CLASS) == 0.5
    hidden = torch.tensor([[float("-inf"), 1.0, 5.0], [0.0, 0.0, 0.0]])
    assert write.difference(hidden, hidden.clone(), mask, SPANS) == 0.0
    assert write.difference(one * float("nan"), other, mask, TAGS) == float("inf")


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(*arguments: str, code: int = 2) -> str:
    """The one line of an error."""
    result = command("export", "-q", *arguments)
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.slow
def test_modules_that_a_target_cannot_express_are_named(tmp_path: Path) -> None:
    """A GRU over the real tokens is laid out for one length; nothing is left in the folder."""
    gru = 'hf(model_type="bigru", hidden_size=8, embedding_size=8)'
    run = finished(tmp_path, "class", student=gru)
    line = refused(str(run), code=3)
    begin = "torch.export, which every export needs, cannot express `bigru.layers.0.forwards` (GRU: its computation is "
    assert line.startswith(f"{begin}fixed to one length or batch size)")
    assert line.endswith("train another architecture")
    assert list((run / "export").iterdir()) == []


class Odd(torch.nn.Module):
    """A module with an operation that ONNX lacks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


def test_operations_that_onnx_lacks_are_named() -> None:
    """The innermost module whose operations ONNX does not have, of modules that torch captures."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.odd = torch.nn.Embedding(9, 4), Odd()

        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": self.odd(self.plain(input_ids))})

    model, example = Model(), {"input_ids": torch.ones(3, 5, dtype=torch.long)}
    program = capture.capture(model, example, ["logits"])
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        onnx_file.to_onnx(program, ["input_ids"], ["logits"])
    fault = capture.inexpressible("onnx", model, example, caught.value, lambda p: onnx_file.to_onnx(p, [], []))
    assert str(fault).startswith("onnx cannot express `odd` (Odd: ")
    assert "airy_ai" in str(fault)
    assert str(fault).endswith("choose another `--to`, or train another architecture")


def test_no_module_is_blamed_for_a_width_that_equals_the_length() -> None:
    """Modules are tried on axes that are told apart by their sizes: the example is cut until they differ."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear, self.odd = torch.nn.Embedding(9, 6), torch.nn.Linear(6, 5), Odd()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.odd(self.linear(self.embedding(input_ids)))

    def express(program: Any) -> None:
        if any("airy" in str(node.target) for node in program.graph.nodes):
            raise ValueError("no airy_ai")

    example = {"input_ids": torch.ones(3, 6, dtype=torch.long)}
    fault = capture.inexpressible("onnx", Model(), example, ValueError("no airy_ai"), express)
    assert str(fault).startswith("onnx cannot express `odd` (Odd: no airy_ai): choose another `--to`")


def test_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    """An unfinished run, a folder with something else, a name that is not there."""
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    (copy / "finished.json").unlink()
    assert refused(str(copy)).endswith("is not finished: repeat its `brewgraph run` command to resume it")
    (tmp_path / "other").mkdir()
    assert "holds no run" in refused(str(tmp_path / "other"))
    line = refused(str(tmp_path / "gone"))
    assert line.startswith(f"there is no folder `{tmp_path / 'gone'}`")
    assert line.endswith(": name the folder that `brewgraph run` made")


def test_the_home_of_nobody_is_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~NAME` of no user is a folder like any other."""
    (tmp_path / "~nobody-here").mkdir()
    (tmp_path / "~nobody-here" / "notes.txt").touch()
    run = run.resolve()
    monkeypatch.chdir(tmp_path)
    line = refused(str(run), "--out", "~nobody-here")
    assert line == "`~nobody-here` is not empty and holds no exported model: choose another --out"


def test_what_the_options_exclude(run: Path, exported: Path, tmp_path: Path) -> None:
    """Each with what to do instead, before a model is loaded."""
    assert refused(str(run), "--precision", "int8-dynamc").endswith("did you mean `int8-dynamic`?")
    assert refused(str(run), "--precision", "int8").endswith("choose int8-dynamic or int8-static")
    assert "int8-static needs `--to onnx or openvino`" in refused(
        str(run), "--to", "torch", "--precision", "int8-static"
    )
    for option, value in (("--calibration", "train"), ("--rows", "8")):
        line = refused(str(run), "--precision", "int8-dynamic", option, value)
        assert line == f"{option} is of no use without `--precision int8-static`: add that, or remove it"
    two = ("--precision", "fp32", "--precision", "fp16", "--out", str(tmp_path / "x"))
    assert "export one precision at a time" in refused(str(run), *two)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert "choose another --out" in refused(str(run), "--out", str(tmp_path / "full"))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    assert "name the run that it comes from" in refused(str(exported / "onnx-fp32"))
    assert "no split `test`: it has `train` and `dev`" in refused(str(run), "--data", "test")


def test_calibration_needs_rows(run: Path, tmp_path: Path) -> None:
    """A split that is not there, a file that is not, and one without rows."""
    static = (str(run), "--precision", "int8-static", "--calibration")
    assert "no split `test`" in refused(*static, "test")
    assert "there is no file" in refused(*static, str(tmp_path / "gone.jsonl"))
    (tmp_path / "none.jsonl").write_text("")
    assert refused(*static, str(tmp_path / "none.jsonl")).endswith(
        "none.jsonl` has no rows (name a file or split with rows)"
    )
    (tmp_path / "bare.jsonl").write_text(json.dumps({"text": "it was the best"}) + "\n")
    out = tmp_path / "out"
    result = command("export", *static, str(tmp_path / "bare.jsonl"), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert record(out)["calibration"] == 1


@pytest.mark.parametrize("target", ["onnx", "torch"])
def test_a_full_disk_leaves_the_earlier_export(run: Path, exported: Path, target: str) -> None:
    """One line with the remedy; the export of before is still whole, and nothing else lies beside it."""
    folder = exported / f"{target}-fp32"
    if target != "onnx":
        shutil.copytree(exported / "onnx-fp32", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    beside = {path.name for path in exported.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        line = refused(str(run), "--to", target, code=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written: " in line
    assert line.endswith("choose another disk with --out; nothing of the run or of earlier exports has changed")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in exported.iterdir()} == beside


def test_a_disk_that_cannot_be_written_is_no_bug(tmp_path: Path) -> None:
    """Errors of the machine become one line; others stay what they are."""
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")):
        with pytest.raises(bg.RunError, match="make room"), write._explained(tmp_path):
            raise error
    with pytest.raises(RuntimeError, match="a bug"), write._explained(tmp_path):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "export"), ("onnx", "export"), ("openvino", "openvino")]
)
def test_missing_packages(run: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    """One line that names the extra."""
    monkeypatch.setitem(sys.modules, package, None)
    target = "openvino" if package == "openvino" else "onnx"
    line = refused(str(run), "--to", target)
    assert line.startswith(f"{package}")
    assert line.endswith(f'`pip install "brewgraph[{extra}]"`')


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "config.json"])
@pytest.mark.parametrize("content", [b"", b"hello \xff", None])
def test_a_damaged_file_of_an_export_is_named(programs: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    """One line for a file that is cut, empty or something else, whatever its runtime raises."""
    source = programs / ("onnx-fp32" if name == "model.onnx" else "torch-fp32")
    folder = shutil.copytree(source, tmp_path / "copy")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    result = command("eval", str(folder))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith(f"error: `{folder / name}` cannot be read (")
    assert result.stderr.endswith("): copy the folder again, or export the student again\n")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "tensorrt"),
        ("file", ""),
        ("file", 5),
        ("label_type", "zzz"),
        ("labels", [1]),
        ("scores", []),
        ("run", {}),
        ("run", {"spec": "brew 1\n!", "folder": ".", "params": {}, "tasks": {}}),
        ("run", {"spec": 5, "folder": 5, "params": None, "tasks": []}),
    ],
)
def test_a_damaged_record_is_named(exported: Path, tmp_path: Path, key: str, value: Any) -> None:
    """Whatever stands in it: one line."""
    folder = shutil.copytree(exported / "onnx-fp32", tmp_path / "copy")
    (folder / "export.json").write_text(json.dumps(record(folder) | {key: value}))
    result = command("eval", str(folder))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: `{folder / 'export.json'}` cannot be read")
    assert line.endswith("export the student again")


def test_numbers_that_json_lacks_are_read_back(exported: Path, tmp_path: Path) -> None:
    """An infinite difference, and a score of nothing, are null in the record."""
    folder = shutil.copytree(exported / "onnx-fp32", tmp_path / "copy")
    scores = {"before": {"accuracy": None}, "after": {"accuracy": 0.5}}
    (folder / "export.json").write_text(json.dumps(record(folder) | {"difference": None, "scores": scores}))
    told = read_record(folder)
    assert told is not None
    assert numpy.isnan([told.difference, told.scores["before"]["accuracy"]]).all()
    assert told.scores["after"] == {"accuracy": 0.5}


def test_what_an_export_may_replace(run: Path, exported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """An exported folder with a damaged record; nothing that holds other things, is a disk, or the working directory."""
    folder = shutil.copytree(exported / "onnx-fp32", tmp_path / "copy")
    (folder / "export.json").write_text("{")
    again = ("--to", "torch", "--out", str(folder))
    (folder / ".git").mkdir()
    (folder / "notes.md").write_text("years of work")
    assert refused(str(run), *again).endswith(
        "also holds `.git` and `notes.md`, which would be lost: move that, or choose another --out"
    )
    shutil.rmtree(folder / ".git")
    (folder / "notes.md").unlink()
    link = tmp_path / "link"
    link.symlink_to(folder)
    result = command("export", "-q", str(run), "--to", "torch", "--out", str(link))
    assert result.exit_code == 0, result.output
    assert (link.is_symlink(), record(folder)["target"]) == (True, "torch")
    assert not (folder / "model.onnx").exists()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["copy", "link"]
    (tmp_path / "file").write_text("")
    line = refused(str(run), "--out", str(tmp_path / "file" / "x"))
    assert line.endswith(f"`{tmp_path / 'file'}` is a file, not a folder; choose another --out")
    monkeypatch.chdir(_made(tmp_path / "here"))
    assert refused(str(run), "--out", ".").endswith("which cannot be replaced: name a folder in it with --out")
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    assert "is a mounted disk" in refused(str(run), "--out", str(_made(tmp_path / "disk")))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_damaged_export_says_so(exported: Path, tmp_path: Path) -> None:
    """A record that cannot be read, and a model that is gone."""
    folder: Any = shutil.copytree(exported / "onnx-fp16", tmp_path / "copy")
    (folder / "model.onnx").unlink()
    result = command("eval", str(folder))
    assert (result.exit_code, "has no model.onnx: copy the folder again" in result.stderr) == (2, True)
    (folder / "export.json").write_text("{}")
    result = command("eval", str(folder))
    assert (result.exit_code, "export the student again" in result.stderr) == (2, True)


def test_a_new_run_in_the_folder_drops_the_exports(tmp_path: Path) -> None:
    """They are of the student of before."""
    folder = RunFolder(tmp_path)
    (folder.exports / "onnx-fp32").mkdir(parents=True)
    folder.clear("hash")
    assert not folder.exports.exists()


def test_a_teacher_may_be_gone(tmp_path: Path) -> None:
    """An export reads the student alone, and a head of several is a model of its own."""
    save(tmp_path / "tiny", layers=1)
    from tests.export.kinds import write_data

    write_data(tmp_path, "class")
    (tmp_path / "spec.brew").write_text(
        'brew 1\nteacher t = hf("tiny")\nstudent s = hf("tiny") { head one = sequence_classifier()\n'
        "head two = sequence_classifier() }\n"
        'data d = files(train="train.jsonl", dev="dev.jsonl", batch=8)\n'
        "task a { loss = kd(t.logits -> s.one.logits) + ce(d.labels -> s.one.logits) }\n"
        "task b { loss = ce(d.labels -> s.two.logits) }\ntrain { steps = 2 }\n"
    )
    run = bg.run(tmp_path / "spec.brew").folder
    shutil.rmtree(tmp_path / "tiny")
    assert "choose one by --task" in refused(str(run))
    result = command("export", "-q", str(run), "--task", "b", "--to", "torch")
    assert result.exit_code == 0, result.output
    folder = run / "export" / "torch-fp32-b"
    assert record(folder)["difference"] < 1e-6
    assert command("eval", str(folder)).exit_code == 0
