"""`brewgraph taps`: whole outputs, and every way to ask for less or more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertConfig, T5Config

from tests.cli.tiny import command, write_tiny

SIZES = {"vocab_size": 50, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
OVERVIEW = """\
{folder} (BertForMaskedLM)

feature                 shape
logits                  (batch, length, 50)
embeddings              (batch, length, 8)
hidden      [0] to [3]  (batch, length, 8)
attention   [0] to [2]  (batch, 2, length, length)
scores      [0] to [2]  (batch, 2, length, length)
query       [0] to [2]  (batch, 2, length, 4)
key         [0] to [2]  (batch, 2, length, 4)
value       [0] to [2]  (batch, 2, length, 4)
no pooled: its base model has no pooler

module                        class                 output
bert                          BertModel             [0] (batch, length, 8)
  .embeddings                 BertEmbeddings        (batch, length, 8)
    .word_embeddings          Embedding             (batch, length, 8)
    .position_embeddings      Embedding             (1, length, 8)
    .token_type_embeddings    Embedding             (batch, length, 8)
    .LayerNorm                LayerNorm             (batch, length, 8)
    .dropout                  Dropout               (batch, length, 8)
  .encoder                    BertEncoder           [0] (batch, length, 8)
    .layer.{{0..2}}             BertLayer             (batch, length, 8)
      .attention              BertAttention         [0] (batch, length, 8)
                                                    [1] None
        .self                 BertSelfAttention     [0] (batch, length, 8)
                                                    [1] None
          .query              Linear                (batch, length, 8)
          .key                Linear                (batch, length, 8)
          .value              Linear                (batch, length, 8)
          .dropout            Dropout               never called
        .output               BertSelfOutput        (batch, length, 8)
          .dense              Linear                (batch, length, 8)
          .LayerNorm          LayerNorm             (batch, length, 8)
          .dropout            Dropout               (batch, length, 8)
      .intermediate           BertIntermediate      (batch, length, 12)
        .dense                Linear                (batch, length, 12)
        .intermediate_act_fn  GELUActivation        (batch, length, 12)
      .output                 BertOutput            (batch, length, 8)
        .dense                Linear                (batch, length, 8)
        .LayerNorm            LayerNorm             (batch, length, 8)
        .dropout              Dropout               (batch, length, 8)
cls                           BertOnlyMLMHead       (batch, length, 50)
  .predictions                BertLMPredictionHead  (batch, length, 50)
    .transform                BertPredictionHeadT…  (batch, length, 8)
      .dense                  Linear                (batch, length, 8)
      .transform_act_fn       GELUActivation        (batch, length, 8)
      .LayerNorm              LayerNorm             (batch, length, 8)
    .decoder                  Linear                (batch, length, 50)

A path goes from the outside in: tap t = model @ "encoder.layer.*"
--path shows modules in full, with their inputs and the tap statement to write.
"""
DETAILS = """\
{folder} (BertForMaskedLM)

bert.encoder.layer.{{0..2}}.attention.self (BertSelfAttention)
  input   (batch, length, 8)
  output  [0] (batch, length, 8)
          [1] None
  write   tap t = model @ "encoder.layer.*.attention.self"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and nothing else."""
    config = BertConfig(**SIZES, num_hidden_layers=3, max_position_embeddings=47, architectures=["BertForMaskedLM"])
    config.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_everything_in_eighty_columns(folder: Path) -> None:
    """The whole output: features, and the tree of modules with equal layers as one."""
    result = command("taps", str(folder))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == OVERVIEW.format(folder=folder)
    assert max(map(len, OVERVIEW.splitlines())) <= 80


def test_a_path_shows_its_modules_in_full(folder: Path) -> None:
    """As a tap would mean it, below the base model as well; else every module with these letters in its path."""
    for path in ("encoder.layer.*.attention.self", "bert.encoder.layer.*.attention.self"):
        assert command("taps", str(folder), "--path", path).stdout == DETAILS.format(folder=folder)
    lines = command("taps", str(folder), "--path", "query").stdout.splitlines()
    assert lines[2] == "bert.encoder.layer.{0..2}.attention.self.query (Linear)"
    one = command("taps", str(folder), "--path", "encoder.layer.1.output").stdout.splitlines()
    assert one[2] == "bert.encoder.layer.1.output (BertOutput)"
    assert one[-1] == '  write   tap t = model @ "encoder.layer.1.output"'
    never = command("taps", str(folder), "--path", "self.dropout", "--all").stdout.splitlines()
    assert sum(line == "  never called: nothing to tap" for line in never) == 3
    wrong = command("taps", str(folder), "--path", "encoder.layr")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "did you mean `encoder.layer`?" in wrong.stderr


def test_levels_and_every_layer(folder: Path) -> None:
    """`--depth` leaves out what lies deeper, `--all` shows equal layers one by one."""
    tree = command("taps", str(folder), "--depth", "1").stdout.partition("module")[2].splitlines()[1:-3]
    assert [line.split()[0] for line in tree] == ["bert", ".embeddings", ".encoder", "cls", ".predictions"]
    lines = command("taps", str(folder), "--all", "--depth", "2").stdout.splitlines()
    assert [line.split()[0] for line in lines if "BertLayer" in line] == [".layer.0", ".layer.1", ".layer.2"]


def test_machines_get_shapes_as_lists(folder: Path) -> None:
    """Features with their counts, modules with their calls, inputs and outputs."""
    (found,) = json.loads(command("taps", str(folder), "--format", "json").stdout)
    features = {row["name"]: row for row in found["features"]}
    assert features["hidden"] == {"name": "hidden", "count": 4, "shape": "(batch, length, 8)"}
    assert features["pooled"] == {"name": "pooled", "lacking": "its base model has no pooler"}
    modules = {row["path"]: row for row in found["modules"]}
    shape = {"shape": ["batch", "length", 8]}
    assert modules["bert.encoder.layer.{0..2}.attention.self"] == {
        "path": "bert.encoder.layer.{0..2}.attention.self",
        "class": "BertSelfAttention",
        "calls": 1,
        "input": [shape],
        "output": [{"0": shape, "1": None}],
    }
    assert modules["bert.encoder.layer"]["calls"] == 0


def test_an_encoder_and_a_decoder(tmp_path: Path) -> None:
    """Lengths of both are told apart, the first block differs from the others, and rows say why there are none."""
    config = T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=12, num_layers=3, num_heads=2)
    config.architectures = ["T5ForConditionalGeneration"]
    config.save_pretrained(tmp_path / "t5")
    lines = command("taps", str(tmp_path / "t5")).stdout.splitlines()
    assert lines[3] == "logits     (batch, decoder_length, 50)"
    assert [line.split()[0] for line in lines if "T5Block" in line] == [".block.0", ".block.{1..2}"] * 2
    assert any("it has 2 stacks of layers (`encoder` and `decoder`)" in line for line in lines)
    assert lines[-2].endswith('tap t = model @ "encoder.block.*"[0]')


def test_the_models_of_a_spec(tmp_path: Path) -> None:
    """All of them, or the one that is named."""
    spec = str(write_tiny(tmp_path))
    titles = [line for line in command("taps", spec).stdout.splitlines() if line.startswith(("teacher", "student"))]
    assert titles == ["teacher big (BertForSequenceClassification)", "student small (BertForSequenceClassification)"]
    assert command("taps", spec, "small").stdout.splitlines()[0] == titles[1]
    assert command("taps", str(tmp_path), "small").exit_code == 2


def test_a_model_may_be_written_as_in_a_spec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings count; a folder is found from where the command is given, and the head is that of the checkpoint."""
    monkeypatch.chdir(folder.parent)
    call = f'hf("{folder.name}", num_hidden_layers=2, hidden_size=12)'
    title, _, *rows = command("taps", f"  {call}").stdout.splitlines()
    assert title == f"{call} (BertForMaskedLM)"
    assert rows[:4] == [
        "feature                 shape",
        "logits                  (batch, length, 50)",
        "embeddings              (batch, length, 12)",
        "hidden      [0] to [2]  (batch, length, 12)",
    ]
    scratch = (
        'hf(model_type="bert", task="token-classification", labels=["A", "B"], num_hidden_layers=1, hidden_size=12)'
    )
    assert "logits                  (batch, length, 2)" in command("taps", scratch).stdout.splitlines()
    several = f'hf("{folder.name}",\n  num_hidden_layers=1)'
    assert command("taps", several).stdout.startswith(f'hf("{folder.name}", num_hidden_layers=1) (BertForMaskedLM)\n')


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ('hf("bert", num_hidden_layer=2)', 1, ["error[B313]", "num_hidden_layer=2)\n", "^", "did you mean `num_hidden_layers`?"]),
        ('hf("nowhere/at/all")', 1, ["error[B310]: there is no folder `nowhere/at/all`", "^^^"]),
        ('hf("bert"', 1, ["error[B001]", "hf("]),
        ('hf("bert", hidden_size=7)', 1, ["error[B306]", "^^^"]),
        ('hfs("bert")', 1, ["there is no model source `hfs`", "^^^"]),
        ('brew("student.brew")', 2, ["only `hf(…)` and `bigru(…)` define a model by themselves"]),
        ('hf("bert"); let x = 3', 2, ["expected one model"]),
    ],
)  # fmt: skip
def test_a_written_model_at_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, said: list[str]
) -> None:
    """As in a spec, with its place; what is no model at all is a mistake of usage."""
    monkeypatch.chdir(folder.parent)
    folder.rename("bert")
    for name in ("taps", "params"):
        result = command(name, call)
        assert result.exit_code == code, result.output
        assert all(words in result.stderr for words in said), result.stderr
        assert "Traceback" not in result.stderr
    assert command("taps", call, "small").exit_code == 2
