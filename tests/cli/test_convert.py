"""`brewgraph convert`: files in, a spec out that checks on small stand-ins, and how it ends where the input is faulty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

import brewgraph as bg
from tests.cli.tiny import command
from tests.conftest import REPOSITORY
from tests.small import LABELS, tokenizer, write_data

CONFIG = {
    "temperature": 8,
    "hard_label_weight": 0.5,
    "is_caching_logits": True,
    "kd_loss_weight_scheduler": "linear_decay",
    "intermediate_matches": [
        {
            "layer_T": 0,
            "layer_S": 0,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": 1,
            "proj": ["linear", 16, 32],
        },
        {
            "layer_T": 2,
            "layer_S": 1,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": 1,
            "proj": ["linear", 16, 32],
        },
        {"layer_T": [2, 2], "layer_S": [1, 1], "feature": "hidden", "loss": "nst", "weight": 1},
        {
            "layer_T": [0, 2],
            "layer_S": [0, 1],
            "feature": "hidden",
            "loss": "fsp",
            "weight": 2,
            "proj": ["relu", 16, 32],
        },
        {"layer_T": 1, "layer_S": 0, "feature": "attention", "loss": "attention_mse_sum", "weight": 0.1},
        {"layer_T": 1, "layer_S": 0, "feature": "attention", "loss": "attention_ce", "weight": 1},
    ],
}
TRAIN = {"gradient_accumulation_steps": 2, "fp16": False, "ckpt_frequency": 2, "output_dir": "out"}
TAGS = "a O\ntale B-X\nof I-X\n\ncities O\n"
ANSWERS = {
    "version": "1.1",
    "data": [{
        "title": "t",
        "paragraphs": [{
            "context": "a tale of two cities",
            "qas": [{"id": "1", "question": "what tale", "answers": [{"text": "cities", "answer_start": 14}]}],
        }],
    }],
}  # fmt: skip
SPEC = """\
brew 1

# From c.json, a configuration of TextBrewer, as its GeneralDistiller computes it.
#
# What could not be carried over, is written differently, or was assumed:
# - inputs_mask: padding does not count in matches, assuming that the adaptor returns it; add --no-inputs-mask if
#   yours does not
# - train(...): optimizer, learning rate, its schedule, epochs or steps, max_grad_norm and the data with its batch
#   size are arguments in TextBrewer: the values here are those of its examples, and max_grad_norm = none is its
#   default
# - weight decay: adamw spares biases and norms, as TextBrewer's examples do by hand; `decay_all=true` decays all,
#   as torch's own AdamW does

param teacher
param student
param train
param dev
param batch = 32
param max_length = 128
param T = 8
param lr = 1e-4
param epochs = 30

teacher big = hf(teacher)
student tiny = hf(student)
data d = files(train=train, dev=dev, batch=batch, max_length=max_length)

let map = [0, 4] -> [0, 1]

soft   = ce(big.logits -> tiny.logits, T=T)
hidden = mse(big.hidden[map] -> tiny.hidden[map] via linear(384 -> 768))

loss = soft + sum(hidden)

train {
    epochs        = epochs
    optimizer     = adamw(lr=lr)
    schedule      = linear(warmup=10%)
    max_grad_norm = none
}
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three kinds, and configurations of teachers and a student for each; no weights."""
    folder = tmp_path_factory.mktemp("stand-ins")
    write_data(folder)
    (folder / "tags.conll").write_text(TAGS)
    (folder / "answers.json").write_text(json.dumps(ANSWERS))
    for name, width, layers in (("big", 32, 2), ("tiny", 16, 1)):
        for kind, labels in (("class", LABELS), ("tags", ("O", "B-X", "I-X")), ("spans", ("x", "y"))):
            config = AutoConfig.for_model(
                "bert", hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24,
                max_position_embeddings=40, vocab_size=120, pad_token_id=0,
            )  # fmt: skip
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
            config.save_pretrained(folder / f"{name}-{kind}")
            tokenizer().save_pretrained(folder / f"{name}-{kind}")
    return folder


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_the_whole_of_a_spec(tmp_path: Path) -> None:
    """Text on stdout, what there is to say on stderr, one line each."""
    matches = [
        {**m, "proj": ["linear", 384, 768], "layer_T": 4 * i} for i, m in enumerate(CONFIG["intermediate_matches"][:2])
    ]  # type: ignore[index]
    result = command("convert", write(tmp_path / "c.json", {"temperature": 8, "intermediate_matches": matches}))
    assert (result.exit_code, result.stdout) == (0, SPEC)
    notes = result.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in notes] == ["inputs_mask", "train(...)", "weight decay"]
    assert all(line.startswith("note: ") for line in notes)


@pytest.mark.parametrize(
    ("options", "kind", "teachers", "ends"),
    [
        ([], "class", ["teacher"], [""]),
        (["--labels", "tags"], "tags", ["teacher"], [""]),
        (["--labels", "tags", "--no-logits-mask", "--no-inputs-mask"], "tags", ["teacher"], [""]),
        (["--labels", "spans"], "spans", ["teacher"], [""]),
        (["--attention", "scores"], "class", ["teacher"], [""]),
        (["--distiller", "BasicDistiller"], "class", ["teacher"], [""]),
        (["--distiller", "MultiTeacherDistiller", "--teachers", "3"], "class", ["teacher_1", "teacher_2", "teacher_3"], [""]),
        (["--distiller", "MultiTaskDistiller", "--task", "a", "--task", "b"], "class", ["teacher_a", "teacher_b"], ["_a", "_b"]),
        (["--distiller", "BasicTrainer"], "class", [], [""]),
    ],
)  # fmt: skip
def test_a_converted_spec_checks(
    stand_ins: Path, tmp_path: Path, options: list[str], kind: str, teachers: list[str], ends: list[str]
) -> None:
    """With models and data given, and nothing else, there is no fault and no warning."""
    config = {"distill_config": CONFIG, "train_config": TRAIN}
    spec = tmp_path / "out" / "spec.brew"
    result = command("convert", write(tmp_path / "c.json", config), "-o", str(spec), *options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == f"wrote {spec}"
    text = spec.read_text()
    assert bg.format_text(text) == text
    train = {"class": "train.jsonl", "tags": "tags.conll", "spans": "answers.json"}[kind]
    params = {name: str(stand_ins / f"big-{kind}") for name in teachers} | {"student": str(stand_ins / f"tiny-{kind}")}
    params |= {f"{split}{end}": str(stand_ins / train) for split in ("train", "dev") for end in ends}
    params |= {"max_length": "32"}
    if kind == "spans":
        spec.write_text(text.replace("stride=128", "stride=8"))
    sets = [x for name, value in params.items() for x in ("--set", f"{name}={value}")]
    checked = command("check", str(spec), *sets)
    assert checked.stdout == f"{spec}: fine\n"
    assert checked.exit_code == 0


def test_a_converted_spec_trains(stand_ins: Path, tmp_path: Path) -> None:
    """An optimizer step, an evaluation and a save, with a teacher and a student of random weights."""
    spec = tmp_path / "spec.brew"
    path = write(tmp_path / "c.json", {**CONFIG, **TRAIN})
    assert command("convert", path, "-o", str(spec)).exit_code == 0
    text = spec.read_text().replace("hf(teacher)", "hf(teacher, pretrained=false)")
    spec.write_text(text.replace("hf(student)", "hf(student, pretrained=false)"))
    params = {"teacher": "big-class", "student": "tiny-class", "train": "train.jsonl", "dev": "dev.jsonl"}
    sets = [x for name, value in params.items() for x in ("--set", f"{name}={stand_ins / value}")]
    result = command(
        "run", str(spec), "--dry-run", "-q", "--runs", str(tmp_path / "runs"), "--set", "max_length=32", *sets
    )
    assert result.exit_code == 0, result.output


def test_several_files_and_stdin(tmp_path: Path) -> None:
    """Settings from stdin, matches from a module of lists, those that are chosen."""
    (tmp_path / "matches.py").write_text(
        f"one = {CONFIG['intermediate_matches'][:1]}\ntwo = {CONFIG['intermediate_matches'][2:3]}\n"
    )  # type: ignore[index]
    files = [str(tmp_path / "matches.py"), "-"]
    result = command("convert", *files, "--matches", "two", "--matches", "one", input='{"temperature": 3}')
    assert result.exit_code == 0
    assert "loss = soft + two + one\n" in result.stdout
    assert "param T = 3\n" in result.stdout
    assert result.stdout.splitlines()[2].startswith("# From matches.py, <stdin>, a configuration of TextBrewer")


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """Nothing is written, and the file stays as it was."""
    out = tmp_path / "spec.brew"
    out.write_text("mine")
    result = command("convert", write(tmp_path / "c.json", CONFIG), "-o", str(out))
    assert (result.exit_code, out.read_text()) == (2, "mine")
    assert "exists already" in result.stderr


def test_a_fault_is_shown_in_the_file_that_has_it(tmp_path: Path) -> None:
    """The whole of stderr: key, place, remedy; exit code 1, and no spec."""
    path = tmp_path / "c.json"
    path.write_text('{\n  "temperature": 8,\n  "kd_loss_typ": "ce"\n}\n')
    out = tmp_path / "spec.brew"
    result = command("convert", str(path), "-o", str(out))
    assert (result.exit_code, result.stdout, out.exists()) == (1, "", False)
    assert (
        result.stderr
        == f"""\
error[B120]: there is no setting `kd_loss_typ`
 --> {path}:3:3
  |
3 |   "kd_loss_typ": "ce"
  |   ^^^^^^^^^^^^^
  |
  = help: did you mean `kd_loss_type`?

1 error; more: brewgraph explain B120
"""
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "there is no file `nowhere.json`"),
        (["."], "is a folder"),
        (["c.json", "--task", "ner"], "--task needs --distiller MultiTaskDistiller"),
        (["c.json", "--distiller", "MultiTaskDistiller", "--task", "ner"], "at least two tasks"),
        (["c.json", "--distiller", "MultiTaskDistiller", "--task", "a", "--task", "b-c"], "`b-c` cannot be the name"),
        (["c.json", "--distiller", "Nobody"], "Nobody"),
        (["c.json", "--matches", "L3"], "no list of matches `L3`"),
        (["c.json", "--attention-from", "1"], "attention layers count from 0"),
        (["c.json", "--attention-from", "2"], "--attention-from"),
        (["c.json", "c.json"], "several configurations of one kind"),
        ([], "Missing argument"),
    ],
)
def test_calls_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    """Exit code 2, a word about it, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    write(Path("c.json"), CONFIG)
    result = command("convert", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_it_needs_no_model_library(tmp_path: Path) -> None:
    """A conversion begins at once: neither torch nor transformers is loaded for it."""
    path = write(tmp_path / "c.json", CONFIG)
    code = (
        "import sys\nfrom brewgraph.cli.main import application\n"
        f"try:\n    application()(['convert', {path!r}])\nexcept SystemExit as done:\n    assert not done.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("brew 1\n")
