"""`brewgraph params`: whole outputs, and every kind of thing that has parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

from tests.cli.tiny import command, write_tiny

SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
TREE = """\
                                     parameters   share     memory
{folder} (BertForMaskedLM)                1,478  100.0%     5.9 kB
├── bert                                  1,340   90.7%     5.4 kB
│   ├── embeddings                          808   54.7%     3.2 kB
│   └── encoder                             532   36.0%     2.1 kB
└── cls                                     138    9.3%  552 bytes
    └── predictions                         138    9.3%  552 bytes
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and nothing else: there are no weights that could be loaded."""
    config = BertConfig(**SIZES, max_position_embeddings=47, architectures=["BertForMaskedLM"])
    config.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_tree_of_counts_shares_and_memory(folder: Path) -> None:
    """The whole output down to two levels; a node with one child shows its numbers, too."""
    result = command("params", str(folder), "--depth", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert squeezed(result.stdout) == squeezed(TREE.format(folder=folder))
    whole = sum(p.numel() for p in BertForMaskedLM(BertConfig.from_pretrained(folder)).parameters())
    assert f"{whole:,}" == "1,478"


def test_columns_are_aligned(folder: Path) -> None:
    """Each line of the tree ends in the same column."""
    lines = [line for line in command("params", str(folder)).stdout.splitlines() if "tied" not in line]
    assert len({len(line) for line in lines}) == 1


def test_what_is_tied_says_to_what(folder: Path) -> None:
    """The whole tree names the parameter whose numbers are shared, and gives no number for it."""
    lines = squeezed(command("params", str(folder)).stdout)
    (tied,) = [line for line in lines if line.endswith("weight = bert.embeddings.word_embeddings.weight tied")]
    assert not any(character.isdigit() for character in tied)


def test_machines_get_the_same_numbers(folder: Path) -> None:
    """A list with one tree."""
    (tree,) = json.loads(command("params", str(folder), "--format", "json", "--depth", "1").stdout)
    assert tree == {
        "name": f"{folder} (BertForMaskedLM)",
        "parameters": 1478,
        "trainable": 1478,
        "bytes": 4 * 1478,
        "children": [
            {"name": "bert", "parameters": 1340, "trainable": 1340, "bytes": 4 * 1340},
            {"name": "cls", "parameters": 138, "trainable": 138, "bytes": 4 * 138},
        ],
    }


def test_the_models_of_a_spec(tmp_path: Path) -> None:
    """All of them, or the one that is named; a spec's params can be set."""
    spec = str(write_tiny(tmp_path))
    result = command("params", spec, "--depth", "0")
    assert result.exit_code == 0, result.output
    heads = [line for line in squeezed(result.stdout) if "(" in line]
    assert heads == [
        "teacher big (BertForSequenceClassification) 25,762 100.0% 103.0 kB",
        "student small (BertForSequenceClassification) 6,306 100.0% 25.2 kB",
    ]
    one = command("params", spec, "small", "--depth", "0", "--set", "T=3")
    assert [line for line in squeezed(one.stdout) if "(" in line] == heads[1:]


def test_an_adapter_s_trunk_is_not_trained(tmp_path: Path) -> None:
    """How many of the numbers learn stands below the tree."""
    spec = write_tiny(tmp_path)
    text = spec.read_text().replace("hf(model_type", "hf(init=big.layers[[0]], adapter=lora(r=2), model_type")
    text = text.replace("hidden_size=16", "hidden_size=32").replace("intermediate_size=32", "intermediate_size=64")
    spec.write_text(text.replace(" via linear", ""))
    result = command("params", str(spec), "small", "--depth", "0")
    assert result.exit_code == 0, result.output
    trained = int(result.stdout.splitlines()[-1].removesuffix(" of them are trained").replace(",", ""))
    assert 0 < trained < 3000


def test_a_run_has_the_parameters_of_its_student(folder: Path, tmp_path: Path) -> None:
    """The folder of a run stands for its student, with heads for one model each; an unfinished one has none yet."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "resolved.json").write_text("{}")
    unfinished = command("params", str(run))
    assert unfinished.exit_code == 2
    assert "is not finished" in unfinished.stderr
    folder.rename(run / "student")
    assert "1,478" in command("params", str(run), "--depth", "0").stdout
    (run / "student").rename(run / "ner")
    (run / "student").mkdir()
    (run / "ner").rename(run / "student" / "ner")
    result = command("params", str(run), "--depth", "0")
    assert f"{run}/student/ner (BertForMaskedLM)" in result.stdout


def test_a_folder_with_weights_alone(tmp_path: Path) -> None:
    """A module that is no transformers model is saved as bare weights: their names make the tree."""
    save_file({"layer.weight": torch.zeros(2, 3)}, tmp_path / "model.safetensors")
    result = command("params", str(tmp_path), "--format", "json")
    (tree,) = json.loads(result.stdout)
    assert (tree["parameters"], tree["children"][0]["name"]) == (6, "layer")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere/x/y"], 2, "there is no folder `nowhere/x/y`"),
        (["nobody/nothing-of-this-name"], 2, "cannot be reached"),
        ([".", "--depth", "1"], 2, "holds no model"),
        (["nowhere.brew"], 2, "there is no file `nowhere.brew`"),
        ([".", "small"], 2, "is not a spec"),
        (["student.brew", "smal"], 2, "did you mean `small`?"),
        ([".", "--depth", "-1"], 2, "--depth"),
        (["faulty.brew"], 1, "error[B101]: there is no `a`"),
    ],
)
def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str) -> None:
    """What is no model, no run and no spec: the exit code, a word about it, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    Path("faulty.brew").write_text("brew 1\nloss = ce(a.x -> b.y)\n")
    result = command("params", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_a_model_may_be_written_as_in_a_spec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sizes than those of its folder, before there is a spec."""
    monkeypatch.chdir(folder.parent)
    call = f'hf("{folder.name}", num_hidden_layers=3)'
    lines = command("params", call, "--depth", "2").stdout.splitlines()
    assert lines[1].split()[-4:] == ["2,542", "100.0%", "10.2", "kB"]
    assert lines[1].startswith(f"{call} (BertForMaskedLM)")
