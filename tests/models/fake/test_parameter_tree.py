"""Trees of parameters: what counts, what is shared, and that neither weights nor memory are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from brewgraph.diagnostics import SourceFault
from brewgraph.models.fake.parameter_tree import ParameterNode, configured_model, parameter_tree, saved_tree
from brewgraph.models.fake.shapes import count_parameters
from tests.models.tiny import SETTINGS, tiny, tiny_config

WORDS = "bert.embeddings.word_embeddings.weight"


def leaves(node: ParameterNode, above: str = "") -> dict[str, ParameterNode]:
    """The parameters of a tree by their whole names."""
    found: dict[str, ParameterNode] = {}
    for name, child in node.children.items():
        path = f"{above}.{name}".removeprefix(".")
        found |= leaves(child, path) if child.children else {path: child}
    return found


def build(device: str) -> nn.Module:
    """A BERT whose output embedding is its input embedding."""
    with torch.device(device):
        made: nn.Module = AutoModelForMaskedLM.from_config(tiny_config("bert"))
    return made


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tied_weights_count_once(device: str) -> None:
    """On the meta device, where no two tensors have memory to compare, as on the CPU."""
    model = build(device)
    tree = parameter_tree(model)
    assert tree.parameters == tree.trainable == sum(p.numel() for p in model.parameters())
    tied = {name: leaf.tied for name, leaf in leaves(tree).items() if leaf.tied}
    assert tied == {
        "cls.predictions.decoder.weight": WORDS,
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    assert leaves(tree)[WORDS].parameters == 64 * 32
    assert [leaves(tree)[name].parameters for name in tied] == [0, 0]


def test_every_node_has_the_sum_of_those_below() -> None:
    """Counts, bytes and trainable ones add up, of a node with a single child too."""
    tree = parameter_tree(build("cpu"))

    def check(node: ParameterNode) -> None:
        for child in node.children.values():
            check(child)
        if node.children:
            for what in ("parameters", "trainable", "bytes"):
                assert getattr(node, what) == sum(getattr(child, what) for child in node.children.values())

    check(tree)
    cls = tree.children["cls"]
    assert list(cls.children) == ["predictions"]
    assert cls.parameters == cls.children["predictions"].parameters == 32 * 32 + 32 + 2 * 32 + 64


def test_memory_follows_the_type_and_frozen_ones_are_no_trainable_ones() -> None:
    """Two bytes for each number in half precision; what needs no gradient is counted, and not trained."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).half()
    model[0].requires_grad_(False)
    tree = parameter_tree(model)
    assert (tree.parameters, tree.trainable, tree.bytes) == (26, 10, 52)


def test_two_names_for_the_same_memory_count_once() -> None:
    """Two parameters over one storage are one, as are two names of one module; equal sizes alone are not."""
    model = nn.Module()
    model.one, model.other, model.third = (nn.Linear(3, 4, bias=False) for _ in range(3))
    model.other.weight = nn.Parameter(model.one.weight.data)
    model.again = model.third
    tree = parameter_tree(model)
    assert tree.parameters == 24
    assert {name: leaf.tied for name, leaf in leaves(tree).items() if leaf.tied} == {
        "other.weight": "one.weight",
        "again.weight": "third.weight",
    }


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_configuration_suffices(kind: str) -> None:
    """The tree of the model that a configuration names is that of the model itself, weight for weight."""
    real = tiny(kind, AutoModelForSequenceClassification)
    config = tiny_config(kind)
    config.architectures = [type(real).__name__]
    built = configured_model(config)
    assert type(built) is type(real)
    assert all(p.device.type != "meta" for p in real.parameters())
    assert parameter_tree(built) == parameter_tree(real)
    assert parameter_tree(built).parameters == count_parameters(real)


@pytest.mark.parametrize(
    ("architectures", "name"),
    [
        (None, "BertModel"),
        (["OwnForTokenClassification"], "BertForTokenClassification"),
        (["BertForPreTraining"], "BertForPreTraining"),
    ],
)
def test_the_class_that_a_configuration_names(architectures: Any, name: str) -> None:
    """None named: the bare model; one that transformers lacks: what its ending tells; any other: just that one."""
    config = tiny_config("bert")
    config.architectures = architectures
    assert type(configured_model(config)).__name__ == name


def test_a_file_of_weights_is_read_by_its_header(tmp_path: Path) -> None:
    """Counts and bytes of the tensors that lie in it."""
    tensors = {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(4, dtype=torch.bfloat16), "b": torch.zeros(5)}
    save_file(tensors, tmp_path / "x.safetensors")
    tree = saved_tree(tmp_path / "x.safetensors")
    assert (tree.parameters, tree.bytes) == (21, 4 * 17 + 2 * 4)
    assert (tree.children["a"].parameters, tree.children["a"].bytes) == (16, 56)
    (tmp_path / "y.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SourceFault, match="y.safetensors` cannot be read") as raised:
        saved_tree(tmp_path / "y.safetensors")
    assert raised.value.code == "B310"


def test_a_tree_for_machines_ends_where_it_is_told_to() -> None:
    """Depth counts levels below the node."""
    tree = parameter_tree(nn.Sequential(nn.Linear(3, 4)))
    whole = tree.as_json()
    assert whole == {
        "name": "model", "parameters": 16, "trainable": 16, "bytes": 64,
        "children": [
            {"name": "0", "parameters": 16, "trainable": 16, "bytes": 64, "children": [
                {"name": "weight", "parameters": 12, "trainable": 12, "bytes": 48},
                {"name": "bias", "parameters": 4, "trainable": 4, "bytes": 16},
            ]},
        ],
    }  # fmt: skip
    assert "children" not in tree.as_json(0)
    assert "children" not in tree.as_json(1)["children"][0]
