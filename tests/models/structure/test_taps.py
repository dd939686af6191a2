"""Symbols of sizes that were seen twice, and equal layers as one row."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import AutoModel

from brewgraph.diagnostics import SourceFault
from brewgraph.models.fake.shapes import Shapes
from brewgraph.models.structure.anatomy import (
    SIZES,
    Module,
    ModuleValue,
    collapsed,
    gathered,
    show,
    symbols,
    taps_of,
)
from tests.models.tiny import tiny_config

ONE, OTHER = SIZES


@pytest.mark.parametrize(
    ("size", "symbol"),
    [
        (lambda s: 7, 7),
        (lambda s: s.batch, "batch"),
        (lambda s: s.length, "length"),
        (lambda s: s.decoder_length, "decoder_length"),
        (lambda s: s.batch * s.length, "batch * length"),
        (lambda s: 12 * s.batch, "12 * batch"),
        (lambda s: 2 * s.length, "2 * length"),
        (lambda s: 2 * s.length - 1, "2 * length - 1"),
        (lambda s: s.length + 1, "length + 1"),
        (lambda s: s.length - 1, "length - 1"),
        (lambda s: 4 * s.batch * s.length, "4 * batch * length"),
        (lambda s: s.length**2, "?"),
    ],
)
def test_what_varies_gets_its_symbol(size, symbol):
    """Each by two sizes alone, whatever else would fit one of them."""
    assert symbols([size(ONE)], [size(OTHER)]) == (symbol,)


def test_shapes_of_other_ranks_have_no_symbols():
    """What is a matrix once and a vector then is neither."""
    assert symbols([1, 2], [1]) is None


TENSOR, NOTHING = ModuleValue("tensor", ("batch", 3)), ModuleValue("None")
PAIR = ModuleValue("tuple", None, (TENSOR, NOTHING))
TRIPLE = ModuleValue("Output", None, (TENSOR, ModuleValue("Cache"), TENSOR), ("a", "cache", "b"))


def test_values_in_words():
    """A shape, elements with their places or names, or a class."""
    assert show(TENSOR) == "(batch, 3)"
    assert show(PAIR) == "[0] (batch, 3), [1] None"
    assert show(TRIPLE) == "a (batch, 3), cache Cache, b (batch, 3)"
    assert show(ModuleValue("tensor", None)) == "(?)"


def test_the_one_tensor_that_is_meant():
    """The only one of a tuple, or the one that is named."""
    assert TENSOR.element(None, "it") is TENSOR
    assert PAIR.element(None, "it") is TENSOR
    assert PAIR.element(-2, "it") is TENSOR
    assert TRIPLE.element(2, "it") is TENSOR


@pytest.mark.parametrize(
    ("value", "item", "message", "help"),
    [
        (TENSOR, 0, "it is one tensor (batch, 3)", "remove [0]"),
        (PAIR, 1, "it is None at [1]", "use the feature `attention[i]`; or add [0] to the path"),
        (PAIR, 2, "it has no element [2]", "add [0] to the path"),
        (TRIPLE, None, "it holds several tensors", "add [0] or [2] to the path"),
        (TRIPLE, 1, "it is not a tensor at [1]", "add [0] or [2] to the path"),
        (NOTHING, None, "it is not a tensor but None", "tap another module"),
    ],
)
def test_no_tensor_or_several_are_a_fault(value, item, message, help):
    """B305 shows what there is."""
    with pytest.raises(SourceFault) as caught:
        value.element(item, "it")
    assert caught.value.code == "B305"
    assert message in caught.value.message
    assert help in caught.value.help


def test_equal_layers_are_one_row():
    """Two runs of unlike layers are two blocks; a list with one member keeps its number."""
    shapes = Shapes.of(tiny_config("t5"), AutoModel)
    paths = [row.path for row in taps_of(shapes, "t5").modules]
    assert "encoder.block.0.layer.0.SelfAttention.relative_attention_bias" in paths
    assert "encoder.block.{1..2}.layer.1.DenseReluDense.wi" in paths
    assert not any(".{1..2}" in path and "relative_attention_bias" in path for path in paths)
    every = taps_of(shapes, "t5", collapse=False).modules
    assert [row.path for row in every] == [path for path, _ in shapes.model.named_modules() if path]


def row(pattern: str, width: int = 3, kind: str = "Linear") -> Module:
    value = ModuleValue("tensor", ("batch", width))
    return Module(pattern, kind, (value,), (value,))


def test_a_layer_that_differs_stands_alone():
    """By its width, by its class, or by what is below it."""
    layers = [row("a.0"), row("a.1"), row("a.2", 4), row("a.3", 4), row("a.4", 4, "Conv")]
    found = collapsed([row("a", kind="List"), *layers])
    assert [x.path for x in found] == ["a", "a.{0..1}", "a.{2..3}", "a.4"]
    found = collapsed([row("a", kind="List"), row("a.0"), row("a.0.x"), row("a.1")])
    assert [x.path for x in found] == ["a", "a.0", "a.0.x", "a.1"]


def test_rows_that_were_chosen_are_gathered():
    """Those that differ in one number in a row; others are kept one by one."""
    assert [x.path for x in gathered([row("a.0.b"), row("c"), row("a.1.b")])] == ["a.{0..1}.b", "c"]
    assert [x.path for x in gathered([row("a.0.b"), row("a.2.b")])] == ["a.0.b", "a.2.b"]
    assert [x.path for x in gathered([row("a.0.b.0"), row("a.1.b.1")])] == ["a.0.b.0", "a.1.b.1"]


def test_a_module_under_two_names_is_run_once():
    """It is listed under the first, and can be tapped under both."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.again = self.embed

        def forward(self, input_ids):
            return self.again(input_ids)

    shapes = Shapes(Twice())
    assert {path: (x.calls, x.also) for path, x in shapes.modules.items()} == {"embed": (1, ("again",))}
    assert shapes.calls(["again"]) == (("again", 0),)


def test_calls_of_shared_modules_are_in_the_order_of_the_forward():
    """ALBERT with two blocks in a group: they take turns."""
    config = tiny_config("albert", num_hidden_layers=2, num_hidden_groups=1, inner_group_num=2)
    shapes = Shapes.of(config, AutoModel)
    path = "encoder.albert_layer_groups.0.albert_layers"
    assert shapes.calls([f"{path}.0", f"{path}.1"]) == (
        (f"{path}.0", 0), (f"{path}.1", 0), (f"{path}.0", 1), (f"{path}.1", 1),
    )  # fmt: skip
    assert shapes.calls(["embeddings", "pooler"]) == (("embeddings", 0), ("pooler", 0))
