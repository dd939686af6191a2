"""Drawings: complete, in a fixed order, and well formed in each format."""

from __future__ import annotations

import re

import networkx as nx
import pytest

from brewgraph import loads
from brewgraph.display.picture import GRAINS
from brewgraph.display.render import FORMATS, draw, drawing
from brewgraph.graph.nodes import show_shape

SPEC = """
brew 1
teacher big   = hf(model_type="bert", num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
    intermediate_size=64, labels=["a", "b"])
student small = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
    intermediate_size=32, labels=["a", "b"])
data d        = files(train="none.jsonl", label=none, batch=8)
tap t = big @ "bert.encoder.layer.0.output"
{equations}
loss = {loss}
"""
EQUATIONS = [
    "soft = kd(big.logits -> small.logits)",
    "hidden = mse(t -> small.hidden[1] via linear)",
]
LOSS = "ramp(1 -> 0) * soft + 0.5 * hidden"

NODES = """\
loss: +
├── *
│   ├── ramp(1 -> 0)
│   └── soft: kd  mean per example
│       ├── from big.logits  (batch, 2)
│       │   └── teacher big [1]
│       │       └── d for big  (batch, length)
│       ├── to small.logits  (batch, 2)
│       │   └── student small [2]
│       │       └── d for small  (batch, length)
│       └── T = 4
└── *
    ├── 0.5
    └── hidden: mse  mean per token
        ├── from big @ "bert.encoder.layer.0.output"  (batch, length, 32)
        │   └── teacher big [1]
        ├── to linear 16 -> 32  (batch, length, 32)
        │   └── small.hidden[1]  (batch, length, 16)
        │       └── student small [2]
        ├── mask: tokens
        │   └── d for small  (batch, length)
        └── T = 1
"""


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A file of texts without labels in the working directory."""
    (tmp_path / "none.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.chdir(tmp_path)


def graph(equations: list[str] = EQUATIONS, loss: str = LOSS) -> nx.DiGraph:
    """The optimized graph of the spec."""
    return loads(SPEC.format(equations="\n".join(equations), loss=loss)).graph


def test_the_tree_of_nodes_names_what_is_shared_once():
    """The whole text: shapes on values, names on terms, `[1]` on what has several users."""
    assert draw(graph(), "text", "nodes") == NODES


def test_a_loss_that_is_one_term():
    """Without equations the operation itself is the term."""
    found = graph([], "kd(big.logits -> small.logits)")
    assert draw(found) == (
        "loss\n└── kd(big.logits -> small.logits)\n"
        "    ├── logits (batch, 2) of teacher big\n    └── logits (batch, 2) of student small\n"
    )
    assert draw(found, "text", "nodes").startswith("loss: kd  mean per example\n├── from big.logits  (batch, 2)\n")


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("format", FORMATS)
def test_the_order_of_the_loss_does_not_matter(format: str, grain: str):
    """The same loss written the other way round is the same drawing, and so is a second drawing."""
    one = draw(graph(), format, grain)
    assert draw(graph(), format, grain) == one
    assert draw(graph(loss="0.5 * hidden + soft * ramp(1 -> 0)"), format, grain) == one


def test_the_drawing_of_nodes_is_the_graph():
    """A box for every node and a line for every edge, nothing else."""
    original = graph()
    drawn = drawing(original, "nodes")
    again = nx.DiGraph([(line.source, line.target) for line in drawn.lines])
    again.add_nodes_from(box.key for box in drawn.boxes)
    kinds = {box.key: box.kind for box in drawn.boxes}
    nx.set_node_attributes(again, kinds, "kind")
    wanted = nx.DiGraph(original.edges)
    nx.set_node_attributes(wanted, {key: original.nodes[key]["node"].kind for key in original}, "kind")
    assert nx.is_isomorphic(again, wanted, node_match=lambda a, b: a["kind"] == b["kind"])


@pytest.mark.parametrize("grain", GRAINS)
def test_dot_is_well_formed(grain: str):
    """Every line is a node, an edge between nodes, or a setting; quotes are escaped; all of the drawing is there."""
    found = graph()
    drawn = drawing(found, grain)
    lines = draw(found, "dot", grain).splitlines()
    assert lines[0] == "digraph loss {"
    assert lines[-1] == "}"
    text = r'"(?:[^"\\]|\\.)*"'
    nodes, edges = [], []
    for line in lines[3:-1]:
        if node := re.fullmatch(rf"  (\w+) \[label={text}, shape=\w+\];", line):
            nodes.append(node[1])
        elif edge := re.fullmatch(rf"  (\w+) -> (\w+)(?: \[label={text}\])?;", line):
            edges.append((edge[1], edge[2]))
        else:
            raise AssertionError(line)
    assert nodes == [box.key for box in drawn.boxes]
    assert edges == [(line.source, line.target) for line in drawn.lines]
    assert {key for edge in edges for key in edge} <= set(nodes)
    if grain == "nodes":
        assert '[label="big @ \\"bert.encoder.layer.0.output\\"\\n(batch, length, 32)", shape=ellipse];' in "\n".join(
            lines
        )


@pytest.mark.parametrize("grain", GRAINS)
def test_mermaid_is_well_formed(grain: str):
    """Texts stand in quotes and hold no sign that mermaid reads."""
    found = graph()
    drawn = drawing(found, grain)
    lines = draw(found, "mermaid", grain).splitlines()
    assert lines[0] == "flowchart BT"
    nodes = [m for line in lines if (m := re.fullmatch(r'  (\w+)[\[(]+"([^"]*)"[\])]+', line))]
    edges = [m for line in lines if (m := re.fullmatch(r'  (\w+) -->(?:\|"([^"]*)"\|)? (\w+)', line))]
    assert len(nodes) + len(edges) == len(lines) - 1
    assert [m[1] for m in nodes] == [box.key for box in drawn.boxes]
    assert [(m[1], m[3]) for m in edges] == [(line.source, line.target) for line in drawn.lines]
    texts = [m[2].replace("<br>", "") for m in nodes] + [m[2] or "" for m in edges]
    assert not [text for text in texts if set("<>`*") & set(text)]


def test_unknown_shapes_are_said():
    """A shape that is not known is no empty bracket."""
    assert [show_shape(s) for s in (None, (), ("batch", 3))] == ["(?)", "()", "(batch, 3)"]
