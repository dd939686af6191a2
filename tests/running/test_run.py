"""Whole runs on local files: what is trained, found again, refused and left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError
from brewgraph.models.tokenization import load_tokenizer
from brewgraph.running.data_cache import DataCache
from brewgraph.running.run_identity import identity_of
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.loop import train
from brewgraph.training.reporter import Reporter
from tests.small import LABELS, classifier, metrics, project, rows, save, tokenizer, write_data, write_rows


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


def edit(spec: Path, *pairs: tuple[str, str]) -> Path:
    """Replace parts of a spec that must be there."""
    text = spec.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    spec.write_text(text)
    return spec


def faults(spec: Path) -> list[tuple[str, str, str]]:
    """Code, message and help of everything that a check finds."""
    return [(d.code, d.message, d.help or "") for d in bg.check(spec)]


class Steps(Reporter):
    """Remembers what was trained, and what was said."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.said: list[str] = []

    def begin(self, name: str, steps: int, done: int) -> None:
        self.trained.append(name)

    def say(self, text: str) -> None:
        self.said.append(text)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_leaves_its_folder_and_is_found_again(tmp_path: Path) -> None:
    """Spec, lock, metrics, student with classes from the strings, projections; the second time nothing is trained."""
    spec = project(tmp_path, train="steps = 2")
    result = bg.run(spec)
    assert result.fresh
    assert result.folder.parent == tmp_path / "runs"
    assert sorted(p.name for p in result.folder.iterdir() if p.name != "tensorboard") == [
        "finished.json", "metrics.jsonl", "projections.safetensors", "resolved.json", "spec.brew", "student"
    ]  # fmt: skip
    student = AutoModelForSequenceClassification.from_pretrained(result.folder / "student")
    assert tuple(student.config.id2label[i] for i in range(3)) == LABELS
    assert AutoTokenizer.from_pretrained(result.folder / "student")("best of times").input_ids
    assert (result.folder / "spec.brew").read_text() == spec.read_text()
    assert json.loads((result.folder / "resolved.json").read_text())["params"] == {"T": 4}
    reporter = Steps()
    again = bg.run(spec, reporter=reporter)
    assert (again.fresh, again.folder, again.table) == (False, result.folder, result.table)
    assert reporter.trained == []
    assert reporter.said == [f"runs/{result.folder.name} is already finished; --force runs it again"]
    forced = bg.run(spec, reporter=reporter, force=True)
    assert (forced.fresh, forced.folder, reporter.trained) == (True, result.folder, ["spec"])
    assert len(metrics(forced.folder)) == len([line for line in metrics(forced.folder) if line["step"] <= 2])
    other = bg.run(spec, T=8)
    assert other.fresh
    assert other.folder != result.folder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schedule = linear(", "schedule = cosine("),
        ("schedule = linear(", "schedule = constant("),
        ("masking(p=10%)", "masking(p=20%)"),
        ("masking(p=10%)", "deleting(p=10%)"),
    ],
)
def test_a_changed_setting_is_another_run(tmp_path: Path, old: str, new: str) -> None:
    """Of what kind a schedule and an augmentation are, and by how much texts change."""
    spec = edit(project(tmp_path), ("max_length=32", "max_length=32, augment=[masking(p=10%)]"))
    before = check(read_spec(spec)).spec_hash
    assert check(read_spec(edit(spec, (old, new)))).spec_hash != before


def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them byte by byte, but for those of times: also where the tokenizer was called otherwise in between."""
    spec = project(tmp_path, train="steps = 4; save_steps = 2 steps")
    whole = bg.run(spec, out=tmp_path / "whole").folder

    def stop(*args: Any, **settings: Any) -> Any:
        train(*args, **settings, stop_after=3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("brewgraph.running.run.train", stop)
        with pytest.raises(KeyboardInterrupt):
            bg.run(spec, out=tmp_path / "killed")
    for shared in (load_tokenizer(str(tmp_path / name)) for name in ("bert", "tiny")):
        shared("a tale of two cities", truncation=True, max_length=5, padding="max_length")
    killed = bg.run(spec, out=tmp_path / "killed").folder
    files = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (whole, killed)]
    timed = {Path("finished.json")}  # speeds of the closing table
    boards = {p for own in files for p in own if "tfevents" in p.name}
    assert set(files[0]) - boards == set(files[1]) - boards
    assert Path("student/tokenizer.json") in files[0]
    different = [
        p for p in files[0] if p not in timed | boards and (whole / p).read_bytes() != (killed / p).read_bytes()
    ]
    assert different == []
    saved = json.loads((killed / "student" / "tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """A run stopped in the middle trains from its last checkpoint and ends as it would have."""
    spec = project(tmp_path, dropout=True, train="steps = 4; save_steps = 1 steps")
    whole = bg.run(spec, out=tmp_path / "whole").folder

    class Interrupting(Steps):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bg.run(spec, out=tmp_path / "out", reporter=Interrupting())
    reporter = Steps()
    result = bg.run(spec, out=tmp_path / "out", reporter=reporter)
    assert reporter.said == ["resumed at step 2"]
    assert metrics(result.folder) == metrics(whole)
    found, expected = (load_file(f / "student" / "model.safetensors") for f in (result.folder, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (result.folder / "checkpoints").exists()


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    """Another run, or files that are no run, are not overwritten; --force leaves strange files alone."""
    spec = project(tmp_path, train="steps = 1")
    bg.run(spec, out=tmp_path / "out")
    with pytest.raises(bg.UsageError, match=r"out holds another run \(hash \w+\):\n  ~ term soft: T 4 -> 8\nchoose"):
        bg.run(spec, out=tmp_path / "out", T=8)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("dear diary")
    with pytest.raises(bg.UsageError, match=r"notes is not empty and holds no run; choose another --out, or --force"):
        bg.run(spec, out=notes)
    assert bg.run(spec, out=notes, force=True).fresh
    assert (notes / "diary.txt").read_text() == "dear diary"


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    """Below a regular file there is no folder: said before any teacher is trained."""
    teacher_spec(tmp_path)
    (tmp_path / "file").write_text("")
    reporter = Steps()
    with pytest.raises(bg.RunError, match=r"the run folder `.*file/out` cannot be written: Not a directory; .*--out"):
        bg.run(tmp_path / "spec.brew", out=tmp_path / "file" / "out", reporter=reporter)
    assert reporter.trained == []


def test_a_dry_run_leaves_nothing(tmp_path: Path) -> None:
    """One step of student and teacher, and not a file more than before; wherever the run would have been."""
    spec = teacher_spec(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*"))
    reporter = Steps()
    result = bg.run(spec, dry_run=True, reporter=reporter, out=tmp_path / "out")
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert reporter.said[0].startswith("one step, one evaluation and one save succeeded; the student takes ")
    assert [row.name for row in result.table] == ["bert", "tiny"]


# ── teachers of other specs ──────────────────────────────────────────────────────────────────────────────────────────

TEACHER = """brew 1
param steps = 2
student big = hf(model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                 max_position_embeddings=40, vocab_size=150)
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
loss = ce(d.labels -> big.logits)
train { steps = steps; logging_steps = 1 }
"""


def teacher_spec(folder: Path, **settings: Any) -> Path:
    """A spec whose teacher is another spec's student, and whose own student is from scratch."""
    spec = project(folder, **{"train": "steps = 2"} | settings)
    (folder / "teacher.brew").write_text(TEACHER)
    return edit(
        spec,
        ('hf("bert")', 'brew("teacher.brew")'),
        ('hf("tiny")', 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, '
         "intermediate_size=24, max_position_embeddings=40)"),
    )  # fmt: skip


def test_a_teacher_is_trained_once(tmp_path: Path) -> None:
    """Reused by its hash; other data or another param trains it, and a student of its own, anew."""
    spec = teacher_spec(tmp_path)
    reporter = Steps()
    first = bg.run(spec, reporter=reporter)
    assert reporter.trained == ["teacher", "spec"]
    assert sorted(p.name.rsplit("-", 1)[0] for p in Path("runs").iterdir()) == ["spec", "teacher"]
    assert not bg.run(spec, reporter=reporter).fresh
    bg.run(spec, reporter=reporter, T=8)
    assert reporter.trained == ["teacher", "spec", "spec"]
    edit(spec, ('brew("teacher.brew")', 'brew("teacher.brew", steps=3)'))
    third = bg.run(spec, reporter=reporter)
    assert reporter.trained[3:] == ["teacher", "spec"]
    assert third.folder != first.folder
    write_rows(tmp_path / "train.jsonl", rows(20, seed=5))
    fourth = bg.run(spec, reporter=reporter)
    assert reporter.trained[5:] == ["teacher", "spec"]
    assert fourth.folder not in (first.folder, third.folder)


def test_data_are_read_once_and_anew_where_they_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check, teacher and student of a run share one reading of each file; the next run reads what has changed alone."""
    spec = teacher_spec(tmp_path)
    read: list[str] = []
    load = datasets.load_dataset

    def counted(*arguments: Any, **options: Any) -> Any:
        read.extend(Path(path).name for path in options["data_files"].values())
        return load(*arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset", counted)
    first = bg.run(spec)
    assert sorted(read) == ["dev.jsonl", "train.jsonl"]
    assert bg.run(spec).folder == first.folder
    assert len(read) == 2
    size = (tmp_path / "dev.jsonl").stat().st_size
    text = (tmp_path / "dev.jsonl").read_text()
    (tmp_path / "dev.jsonl").write_text(text.replace("wisdom", "wisdon"))
    assert (text.count("wisdom") > 0, (tmp_path / "dev.jsonl").stat().st_size) == (True, size)
    second = bg.run(spec)
    assert read[2:] == ["dev.jsonl"]
    assert second.fresh
    assert second.folder != first.folder


@pytest.mark.parametrize("how", ["weight=trust", "class_weights=[1, 2, 4]"])
def test_a_loss_of_examples_that_count_by_their_weights(tmp_path: Path, how: str) -> None:
    """A column of numbers, or one per class: `d.weights` times the loss of each example, by hand."""
    labelled: list[dict[str, Any]] = [{**row, "trust": n} for n, row in enumerate(rows(6), 1)]
    write_rows(tmp_path / "train.jsonl", labelled)
    save(tmp_path / "tiny", layers=1)
    spec = tmp_path / "weights.brew"
    spec.write_text(
        f'student tiny = hf("tiny")\ndata d = files(train="train.jsonl", batch=6, {how})\n'
        'each = ce(d.labels -> tiny.logits, reduce="none")\nloss = batch_mean(d.weights * each)\n'
    )
    checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    (stage,) = DataCache(builder).stages(checked)
    batch = next(stage.materials[""].feeds["d"].batches(0))
    distiller = builder.distiller()
    distiller.student.eval()
    loss = distiller(batch).loss
    labels = batch["labels"]
    weights = batch["index"] + 1.0 if "trust" in how else torch.tensor([1.0, 2.0, 4.0])[labels]
    logits = distiller.student(batch["input_ids"], batch["attention_mask"]).logits
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert loss.item() == pytest.approx((weights * losses).mean().item(), rel=1e-5)


def test_a_changed_teacher_folder_is_another_run(tmp_path: Path) -> None:
    """The weights in a local folder are part of what a run is."""
    spec = project(tmp_path, train="steps = 1")
    first = bg.run(spec)
    save(tmp_path / "bert", width=32, seed=9)
    second = bg.run(spec)
    assert second.fresh
    assert second.folder != first.folder


def test_build_asks_for_a_trained_teacher(tmp_path: Path) -> None:
    """`build()` takes a finished run, and says how to get one."""
    spec = teacher_spec(tmp_path)
    with pytest.raises(bg.UsageError, match=r"`bert` is not trained yet: run `brewgraph run .*teacher.brew` first"):
        bg.load(spec).build()
    bg.run(tmp_path / "teacher.brew")
    trained = next(Path("runs").iterdir()) / "student"
    distiller = bg.load(spec).build()
    weights = load_file(trained / "model.safetensors")
    assert torch.equal(distiller.teachers[0].state_dict()["classifier.weight"], weights["classifier.weight"])


# ── without the teacher ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_teacher_the_same_student_learns_from_labels(tmp_path: Path) -> None:
    """The initial weights are those of distillation, and the loss is that of the labels with its weight."""
    spec = project(tmp_path, train="steps = 2")
    checked = check(read_spec(spec))
    builder = SpecBuilder(checked)
    whole = {name: value.clone() for name, value in builder.distiller().student.state_dict().items()}
    builder.forget_student()
    alone = builder.distiller(checked.without_teachers())
    assert all(torch.equal(value, whole[name]) for name, value in alone.student.state_dict().items())
    assert len(alone.projections) == 0
    assert alone.weights() == {"hard": 0.3}
    result = bg.run(spec, without_teacher=True)
    assert result.folder.name.startswith("spec-alone-")
    assert all(set(line["terms"]) == {"hard"} for line in metrics(result.folder) if "loss" in line)
    assert [row.name for row in result.table] == ["tiny alone"]


def test_without_teacher_something_must_be_left(tmp_path: Path) -> None:
    """A loss that is all teacher has nothing to train alone."""
    spec = project(tmp_path, loss="soft", train="steps = 1")
    with pytest.raises(bg.UsageError, match="every term of the loss needs a teacher, so there is nothing to train"):
        bg.run(spec, without_teacher=True)


def test_the_baseline_makes_a_table_of_three(tmp_path: Path) -> None:
    """Teacher, student alone and student; the baseline's own metrics lie beside; a second run reads the table."""
    spec = project(tmp_path, train="steps = 2; baseline = true")
    reporter = Steps()
    result = bg.run(spec, reporter=reporter)
    assert reporter.trained == ["spec without its teacher", "spec"]
    assert [row.name for row in result.table] == ["bert", "tiny alone", "tiny"]
    sizes = {row.name: row.parameters for row in result.table}
    assert sizes["tiny"] == sizes["tiny alone"] < sizes["bert"]
    assert len([line for line in metrics(result.folder / "alone") if "loss" in line]) == 2
    assert bg.run(spec).table == result.table
    (result.folder / "finished.json").unlink()
    resumed = bg.run(spec, reporter=reporter)
    assert reporter.trained[2:] == ["spec"]
    assert [(r.name, r.scores) for r in resumed.table] == [(r.name, r.scores) for r in result.table]


# ── modules of one's own ─────────────────────────────────────────────────────────────────────────────────────────────

FACTORY = """
from pathlib import Path
Path(__file__).with_suffix(".imported").write_text("")
import torch
from tests.small import classifier

class Own(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.emb = torch.nn.Embedding(200, width)
        self.out = torch.nn.Linear(width, 3)
        self.tied = self.emb
    def forward(self, input_ids, attention_mask=None):
        from transformers.modeling_outputs import SequenceClassifierOutput
        return SequenceClassifierOutput(logits=self.out(self.emb(input_ids).mean(1)))

def make(width=8):
    return Own(width)
"""


def python_spec(folder: Path, target: str = "factory_of_one_file:make") -> Path:
    spec = project(folder, loss="soft + 0.3 * hard", train="steps = 2")
    (folder / "factory_of_one_file.py").write_text(FACTORY)
    kept = [line for line in spec.read_text().splitlines() if not line.startswith(("hidden", "gram", "let"))]
    spec.write_text("\n".join(kept) + "\n")
    return edit(spec, ('hf("tiny")', f'python("{target}", width=6)'))


def test_python_is_imported_only_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check never imports; a run only with leave; the student is saved as plain weights, tied ones once."""
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    spec = python_spec(tmp_path)
    trace = tmp_path / "factory_of_one_file.imported"
    assert [code for code, _, _ in faults(spec) if code.startswith("B")] == []
    with pytest.raises(bg.RunError, match=r"`factory_of_one_file:make` is in no installed package; .*--allow-python"):
        bg.run(spec)
    assert not trace.exists()
    result = bg.run(spec, allow_python=True)
    assert trace.exists()
    assert not bg.run(spec, allow_python=True).fresh
    assert load_file(result.folder / "student" / "model.safetensors")["emb.weight"].shape == (200, 6)
    with pytest.raises(bg.SpecError, match="has no `mak`"):
        bg.run(edit(spec, (":make", ":mak")), allow_python=True)


def test_other_code_is_another_run(tmp_path: Path) -> None:
    """The hash of a run follows the text of a factory and of an imported module with operations; a check runs neither."""
    spec = python_spec(tmp_path)
    losses = tmp_path / "losses_of_one_file.py"
    text = 'raise RuntimeError\nfrom brewgraph.ops import operation\n@operation(takes={"logits -> logits": "example"}, source="x")\ndef own(source, target):\n    """x"""\n    return 0 * target.sum(-1)\n'
    edit(spec, ("brew 1\n", "brew 1\nimport losses_of_one_file as my\n"), ("loss = soft", "loss = my.own(bert.logits -> tiny.logits) + soft"))  # fmt: skip

    def found() -> str:
        checked = check(read_spec(spec))
        return identity_of(checked, {}).hash

    losses.write_text(text)
    first = found()
    assert found() == first
    losses.write_text(text.replace("0 *", "1 *"))
    second = found()
    (tmp_path / "factory_of_one_file.py").write_text(FACTORY.replace("mean(1)", "sum(1)"))
    assert len({first, second, found()}) == 3


def test_standard_library_is_no_factory(tmp_path: Path) -> None:
    """`os:system` is no installed package, and nothing of it is called."""
    spec = python_spec(tmp_path, target="os:system")
    with pytest.raises(bg.RunError, match="`os:system` is in no installed package"):
        bg.run(spec)


def test_models_of_ones_own_in_ones_own_loop(tmp_path: Path) -> None:
    """`build(bert=…, tiny=…)` takes modules as they are; a plain loop lowers the loss; strange names are refused."""
    spec = project(tmp_path)
    teacher, student = classifier(width=32, seed=3), classifier(width=16, layers=1, seed=4)
    distiller = bg.load(spec).build(bert=teacher, tiny=student)
    assert distiller.student is student
    encoded = tokenizer()([row["text"] for row in rows(6)], padding=True, return_tensors="pt")
    batch = {**encoded, "labels": torch.arange(6) % 3}
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = distiller(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(bg.UsageError, match="the spec has no model `big`; it has `bert` and `tiny`"):
        bg.load(spec).build(big=teacher)


# ── initial weights ──────────────────────────────────────────────────────────────────────────────────────────────────


def student(spec: Path) -> Any:
    return SpecBuilder(check(read_spec(spec))).distiller().student


def test_layers_are_copied_from_the_teacher(tmp_path: Path) -> None:
    """`init=bert.layers[1, 0]` takes these layers in this order, and embeddings and head with them."""
    spec = project(tmp_path)
    made = student(edit(spec, ('hf("tiny")', 'hf("bert", pretrained=false, init=bert.layers[1, 0])'))).state_dict()
    teacher = load_file(tmp_path / "bert" / "model.safetensors")
    turned = {name: name.replace("layer.0.", "layer.x.").replace("layer.1.", "layer.0.") for name in made}
    copied = {name: other.replace("layer.x.", "layer.1.") for name, other in turned.items()}
    assert all(torch.equal(made[name], teacher[other]) for name, other in copied.items())
    edit(spec, ("init=bert.layers[1, 0]", "num_hidden_layers=1, init=bert.layers[1, 0]"))
    with pytest.raises(bg.SpecError, match=r"`init` gives 2 layers to `tiny`, which has 1"):
        student(spec)
    edit(spec, ("num_hidden_layers=1, init=bert.layers[1, 0]", "init=bert.layers[1, 5]"))
    with pytest.raises(bg.SpecError, match=r"beyond the 2 that there are"):
        student(spec)
    edit(spec, ("init=bert.layers[1, 5]", "hidden_size=16, init=bert.layers[1, 0]"))
    with pytest.raises(bg.SpecError, match=r"`init` cannot copy `bert.encoder.layer.1.*: the layers differ in shape"):
        student(spec)


def test_pretrained_weights_that_do_not_fit_are_a_fault(tmp_path: Path) -> None:
    """Another width loses the whole pretraining, and is no silence but B318; fewer layers load what they can."""
    spec = edit(project(tmp_path), ('hf("tiny")', 'hf("bert", hidden_size=16)'))
    with pytest.raises(
        bg.SpecError, match=r"weights of `.*bert` do not fit this configuration, .* among them"
    ) as raised:
        student(spec)
    assert [d.code for d in raised.value.diagnostics] == ["B318"]
    fewer = student(edit(spec, ("hidden_size=16", "num_hidden_layers=1")))
    teacher = load_file(tmp_path / "bert" / "model.safetensors")
    assert torch.equal(fewer.state_dict()["classifier.weight"], teacher["classifier.weight"])


# ── data and tokenizers ──────────────────────────────────────────────────────────────────────────────────────────────


def test_one_tokenizer_makes_one_encoding_and_two_make_two(tmp_path: Path) -> None:
    """Equal tokenizers share their tensors, cut to the shorter model; different ones have their own, under names."""
    spec = project(tmp_path, loss="soft + 0.3 * hard")
    save(tmp_path / "tiny", width=16, layers=1, max_position_embeddings=8)
    edit(spec, (", max_length=32", ""))
    builder = SpecBuilder(check(read_spec(spec)))
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    batch = material.collator(list(material.feeds["d"].dataset.select(range(8))))
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels", "index"}
    assert batch["input_ids"].shape == (8, 8)
    save(tmp_path / "tiny", width=16, layers=1, vocab_size=60)
    kept = [line for line in spec.read_text().splitlines() if not line.startswith(("hidden", "gram"))]
    spec.write_text("\n".join(kept) + "\n")
    builder = SpecBuilder(check(read_spec(spec)))
    distiller = builder.distiller()
    material = DataCache(builder).material(builder.checked, *builder.recipe.tasks[0])
    batch = material.collator(list(material.feeds["d"].dataset.select(range(8))))
    assert set(batch) == {"bert", "tiny", "labels", "index"}
    assert batch["bert"]["input_ids"].shape != batch["tiny"]["input_ids"].shape
    assert distiller(batch).loss.isfinite()
    assert [row.name for row in bg.run(spec).table] == ["bert", "tiny"]


def test_local_folders_laid_out_as_on_the_hub(tmp_path: Path) -> None:
    """`glue("rte")` and `hub(...)` read folders of that name without a network."""
    spec = project(tmp_path, train="steps = 1", loss="soft + 0.3 * hard")
    write_data(tmp_path / "folder")
    (tmp_path / "folder" / "dev.jsonl").rename(tmp_path / "folder" / "validation.jsonl")
    files = 'files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)'
    hub = 'hub("folder", text=text, label=label, batch=4, max_length=32)'
    assert len(bg.run(edit(spec, (files, hub))).table) == 2

    pairs = [{"sentence1": row["text"], "sentence2": "age of wisdom", "label": n % 2} for n, row in enumerate(rows(8))]
    glue = tmp_path / "nyu-mll" / "glue"
    for split in ("train", "validation"):
        write_rows(glue / "rte" / f"{split}.jsonl", pairs)
    files_of = "".join(f"\n  - split: {split}\n    path: rte/{split}.jsonl" for split in ("train", "validation"))
    (glue / "README.md").write_text(f"---\nconfigs:\n- config_name: rte\n  data_files:{files_of}\n---\n")
    labels = {"id2label": {0: "entailment", 1: "not_entailment"}, "label2id": {"entailment": 0, "not_entailment": 1}}
    for name, width in (("bert", 32), ("tiny", 16)):
        model = classifier(width=width, num_labels=2)
        model.config.update(labels)
        model.classifier = torch.nn.Linear(width, 2)
        model.save_pretrained(tmp_path / name)
    result = bg.run(edit(spec, (hub, 'glue("rte", batch=4, max_length=32)')))
    saved = AutoModelForSequenceClassification.from_pretrained(result.folder / "student")
    assert saved.config.id2label == labels["id2label"]
    assert len(result.table) == 2


def test_a_schedule_changes_the_weights_of_a_run(tmp_path: Path) -> None:
    """`ramp(1 -> 0)`: what is logged as weighted falls from the whole term to a fifth of it in five steps."""
    spec = project(tmp_path, loss="ramp(1 -> 0) * soft + hard")
    lines = [line for line in metrics(bg.run(spec).folder) if "loss" in line]
    shares = [line["weighted"]["soft"] / line["terms"]["soft"] for line in lines]
    assert shares == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), abs=1e-6)


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────

RANK = """
import sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
import brewgraph as bg
from accelerate import PartialState
from tests.running.test_run import Steps
for dry_run in (True, False, False):
    reporter = Steps()
    result = bg.run({spec!r}, reporter=reporter, dry_run=dry_run)
    line = f"{{PartialState().process_index}} {{reporter.trained}} {{len(result.table)}} {{result.fresh}}\\n"
    sys.stdout.write(line)  # in one piece: both processes write
    sys.stdout.flush()
PartialState().destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_write_one_run(tmp_path: Path) -> None:
    """Teacher, baseline and student on two processes: one writes and speaks, and both find the finished run."""
    spec = teacher_spec(tmp_path, train="steps = 2; baseline = true; save_steps = 1 steps")
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(root=str(Path(__file__).resolve().parents[2]), spec=str(spec)))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "0 ['teacher', 'spec without its teacher', 'spec'] 3 True",
        "0 [] 2 True",
        "0 [] 3 False",
        "1 [] 2 True",
        "1 [] 3 False",
        "1 [] 3 True",
    ]
    assert sorted(p.name.rsplit("-", 1)[0] for p in Path("runs").iterdir()) == ["spec", "teacher"]


def test_a_loss_that_reaches_nothing_but_what_is_frozen(tmp_path: Path) -> None:
    """It is said so, before an optimizer is made of no parameters."""
    write_data(tmp_path)
    save(tmp_path / "one")
    (tmp_path / "spec.brew").write_text(
        'brew 1\nteacher t = hf("one")\nstudent s = hf("one", pretrained=false)\ndata d = files(train="train.jsonl")\n'
        'loss = mse(t.embeddings -> s.embeddings)\ntrain { steps = 1; freeze = [s @ "embeddings"] }\n'
    )
    with pytest.raises(RunError, match="everything that this stage's loss reaches is frozen"):
        bg.run(tmp_path / "spec.brew", out=tmp_path / "out")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_that_are_not_those_of_the_check_are_not_trained_on(split: str, tmp_path: Path) -> None:
    """Whether they are others, or gone: the message names the file, and a check of the new ones is one of them."""
    checked = check(read_spec(project(tmp_path)))
    path = tmp_path / f"{split}.jsonl"
    content = path.read_text()
    path.write_text(content + content)
    with pytest.raises(
        RunError, match=f"^`{split}.jsonl` of `d` changed since the spec was checked: once nothing writes"
    ):
        SpecBuilder(checked).examples("d")
    rows_now = SpecBuilder(check(read_spec(tmp_path / "spec.brew"))).examples("d").splits[split]
    assert len(rows_now) == 2 * len(content.splitlines())
    path.unlink()
    with pytest.raises(RunError, match=f"^`{split}.jsonl` of `d` changed since"):
        SpecBuilder(checked).examples("d")


def test_tensors_that_are_not_those_of_the_check_are_not_trained_on(tmp_path: Path) -> None:
    """Their headers alone were checked."""
    save(tmp_path / "tiny", layers=1)
    ids = torch.ones(2, 3, dtype=torch.int64)
    tensors = {"0.input_ids": ids, "0.attention_mask": ids.clone(), "0.labels": torch.tensor([0, 1])}
    (tmp_path / "ready").mkdir()
    save_file(tensors, tmp_path / "ready" / "batches.safetensors")
    spec = tmp_path / "spec.brew"
    spec.write_text('student tiny = hf("tiny")\ndata d = batches("ready")\nloss = ce(d.labels -> tiny.logits)\n')
    checked = check(read_spec(spec))
    assert len(SpecBuilder(checked).tensor_batches("d")) == 1
    save_file({**tensors, "0.labels": torch.tensor([1, 1])}, tmp_path / "ready" / "batches.safetensors")
    with pytest.raises(RunError, match="^`batches.safetensors` of `d` changed since the spec was checked"):
        SpecBuilder(checked).tensor_batches("d")


def test_processes_that_read_different_rows_do_not_train_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of them was checked with its own."""
    monkeypatch.setattr("brewgraph.running.run.gather_object", lambda own: [*own, "0123456789abcdef"])
    with pytest.raises(RunError, match="^the processes of this run read different data or models"):
        bg.run(project(tmp_path))
    assert not (tmp_path / "runs").exists()
