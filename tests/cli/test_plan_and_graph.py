"""`brewgraph plan` and `brewgraph graph`: whole outputs for the quickstart, and what is not known said so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.tiny import command, write_tiny

PLAN = """\
{spec}   (T = 2)

models
  teacher big = brew("teacher.brew")
    is         bert, AutoModelForSequenceClassification, 2 layers, width 32, 2 classes
    parameters 25,762 at most: the vocabulary is still to be trained
    starts as  the student of teacher.brew: its finished run, or trained first
    tokenizer  WordPiece, trained on the data, at most 200 pieces
  student small = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
    is         bert, AutoModelForSequenceClassification, 1 layer, width 16, 2 classes
    parameters 6,306 at most: the vocabulary is still to be trained
    starts as  random weights
    tokenizer  that of big

data
  rows = files(train="train.jsonl", dev="dev.jsonl", batch=8, max_length=16)
    16 rows to train on, 8 per batch over all ranks, at most 16 tokens
    2 classes: bad, good

loss
  loss = kd(big.logits -> small.logits, T=2)    # soft
       + 0.5 * ce(rows.labels -> small.logits)  # hard
       + 0.5 * mse(big.hidden[0] -> small.hidden[0] via linear(16 -> 32))
       + 0.5 * mse(big.hidden[2] -> small.hidden[1] via linear(16 -> 32))
           # hidden[0..1]
  mean over examples                  soft
  mean over labels, -100 left out     hard
  mean over tokens, padding left out  hidden[0..1]

each batch runs
  teacher big    2 of 2 layers, without gradients, for hidden[0], hidden[2],
                 logits
  student small  1 of 1 layer, with gradients, for hidden[0], hidden[1], logits

each batch costs
  forward   5.66 MFLOP: big 4.74 MFLOP, small 660 kFLOP, projections and losses
            262 kFLOP
  backward  1.84 MFLOP
  memory    {memory}
  of        8 examples of 16 tokens, as a CPU computes them; memory is beside
            parameters, their gradients and the optimizer

saved by
  merge_equal_nodes  values computed 24 -> 22, values held at once 26 -> 23
  pack_tokens        layers of `big` and `small` run on real tokens alone
  release_values     values held at once 23 -> 10

projections
  hidden.0  linear 16 -> 32  544 parameters  of small.hidden[0]
  hidden.1  linear 16 -> 32  544 parameters  of small.hidden[1]

trained
  7,394 parameters (6,306 of small + 1,088 of projections)

memory
  student's device  {total}: weights 132.6 kB (big 103.0 kB, small 25.2 kB,
                    projections 4.4 kB), gradients 29.6 kB, optimizer 59.2 kB,
                    activations {peak}

training
  steps             2
  optimizer         adamw(lr=5e-05, betas=[0.9, 0.999], eps=1e-08,
                    weight_decay=0.01, decay_all=false, layerwise_decay=1,
                    correct_bias=true)
  schedule          linear(warmup=0%)
"""

GRAPH = """\
loss
├── soft = kd(big.logits -> small.logits, T=2)
│   ├── logits (batch, 2) of teacher big
│   └── logits (batch, 2) of student small
├── 0.5 * hard = ce(rows.labels -> small.logits)
│   ├── labels of data rows
│   └── logits (batch, 2) of student small
├── 0.5 * hidden[0] = mse(big.hidden[0] -> small.hidden[0] via linear(16 -> 32))
│   ├── hidden[0] (batch, length, 32) of teacher big
│   └── hidden[0] (batch, length, 16) of student small
└── 0.5 * hidden[1] = mse(big.hidden[2] -> small.hidden[1] via linear(16 -> 32))
    ├── hidden[2] (batch, length, 32) of teacher big
    └── hidden[1] (batch, length, 16) of student small
"""

FAR = """\
brew 1
teacher t = hf("nobody/nothing-of-this-name")
student s = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
               intermediate_size=16, vocab_size=50)
data d = builtin("python-docs")
loss = {loss}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The tiny spec."""
    return write_tiny(tmp_path)


def far(tmp_path: Path, loss: str) -> str:
    """A spec whose teacher cannot be reached."""
    (tmp_path / "far.brew").write_text(FAR.format(loss=loss))
    return str(tmp_path / "far.brew")


def test_a_plan_says_what_will_happen(tiny: Path):
    """The whole of it, but for the settings that are defaults."""
    result = command("plan", str(tiny))
    assert (result.exit_code, result.stderr) == (0, "")
    memory = next(line for line in result.stdout.splitlines() if line.startswith("  memory "))
    peak = " ".join(memory.split()[1:3])
    total = f"{132.624 + 29.576 + 59.152 + float(peak.split()[0]):.1f} kB"
    wanted = PLAN.format(spec=tiny, memory=" ".join(memory.split()[1:]), peak=peak, total=total)
    assert " ".join(result.stdout.split()).startswith(" ".join(wanted.split()))
    assert re.fullmatch(r"  memory    [\d.]+ kB at most, [\d.]+ kB of it between forward and backward", memory)


def test_a_plan_fits_a_terminal(tiny: Path):
    """80 columns, apart from what has no space to break at."""
    wide = [line for line in command("plan", str(tiny)).stdout.splitlines() if len(line) > 80]
    assert [line for line in wide if len(line.split()) > 3] == []


def test_a_plan_without_costs_and_as_json(tiny: Path):
    """What is not counted is not said; everything that the lines say is there for machines."""
    assert "each batch costs" not in command("plan", str(tiny), "--no-cost").stdout
    found = json.loads(command("plan", str(tiny), "--format", "json").stdout)
    (part,) = found["parts"]
    assert [term["names"] for term in part["terms"]] == [["soft"], ["hard"], ["hidden[0]"], ["hidden[1]"]]
    assert (part["cost"]["batch"], part["cost"]["length"]) == (8, 16)
    assert part["cost"]["forward"] > sum(forward["flops"] for forward in part["cost"]["forwards"]) > 0
    assert found["stages"][0]["trainable"] == [6306, 1088]
    assert len(found["hash"]) == 16


def test_a_plan_of_what_cannot_be_reached_is_honest(tmp_path: Path):
    """The warning on stderr; `unknown` where nothing is known; the loss spelled out as far as it goes."""
    result = command("plan", far(tmp_path, "mse(t.hidden[2] -> s.hidden[1]) + kd(t.logits -> s.logits)"))
    assert result.exit_code == 0
    assert "warning[W301]" in result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines.count("is unknown") == 1
    assert "starts as the weights of nobody/nothing-of-this-name" in lines
    assert "loss = mse(t.hidden[2] -> s.hidden[1])" in lines
    assert "mean over tokens, padding left out term 1" in lines
    assert "unknown: nothing is known of t before it is loaded" in lines


def test_a_list_of_unknown_length_leaves_the_loss_open(tmp_path: Path):
    """A slice of layers that nobody can count: plan says so, graph cannot draw it."""
    spec = far(tmp_path, "sum(mse(t.hidden[:] -> s.hidden[:]))")
    result = command("plan", spec)
    assert result.exit_code == 0
    assert "unknown: its lists cannot be spelled out before the models above can be reached" in " ".join(
        result.stdout.split()
    )
    result = command("graph", spec)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.endswith("error: the graph is unknown until the models above can be reached\n")


def test_a_graph_is_a_tree_of_terms(tiny: Path):
    """The whole output."""
    result = command("graph", str(tiny))
    assert (result.exit_code, result.stdout, result.stderr) == (0, GRAPH, "")


@pytest.mark.parametrize(("format", "first"), [("dot", "digraph loss {"), ("mermaid", "flowchart BT")])
@pytest.mark.parametrize("grain", ["terms", "nodes"])
def test_graphs_in_other_formats(tiny: Path, format: str, first: str, grain: str):
    """Each begins as its format does, and params are taken."""
    result = command("graph", str(tiny), "--format", format, "--grain", grain, "--set", "T=7")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == first
    assert ("T=7" if grain == "terms" else '"7"') in result.stdout


def test_graphs_as_picture_and_page(tiny: Path, tmp_path: Path):
    """A picture to stdout, a page to a file; both say what a batch costs."""
    drawn = command("graph", str(tiny), "--format", "svg").stdout
    assert drawn.startswith("<svg ")
    titles = re.findall(r'class="title"[^>]*>([^<]+)<', drawn)
    assert {"rows", "big", "small", "soft", "hard", "hidden[0]", "hidden[1]", "loss"} <= set(titles)
    assert "1 of 1 layer<" in drawn
    file = tmp_path / "graph.html"
    result = command("graph", str(tiny), "--format", "html", "--out", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    page = file.read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert set(data["pictures"]) == {"0:terms", "0:nodes"}
    loss = dict(data["pictures"]["0:terms"]["cards"]["0:terms/loss"]["facts"])
    assert loss["batch"] == "8 examples of 16 tokens"
    soft = next(c for c in data["pictures"]["0:terms"]["cards"].values() if c["title"] == "soft")
    assert soft["span"]["text"] == "kd(big.logits -> small.logits, T=T)"
    assert (soft["span"]["line"], soft["span"]["file"]) == (10, "student.brew")
    assert soft["span"]["before"].endswith("soft   = ")


@pytest.mark.parametrize("name", ["plan", "graph"])
def test_faults_go_to_stderr(name: str):
    """Where diagnostics are not the result they leave stdout empty."""
    result = command(name, "-", input="brew 1\nloss = ce(a.x -> b.y)\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error[B101]: there is no `a`" in result.stderr


HEADED = """\
student net = hf(model_type="bert", num_hidden_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=60) {
    head ner    = token_classifier(labels=3)
    head answer = span_classifier()
}
data d = conll(train="a.conll", batch=2)
loss   = ce(d.labels -> net.ner.logits)
stage one for 2 steps { train { seed = 3; precision = bf16 } }
stage two for 4 steps { train { freeze = [net @ "embeddings"] } }
train { logging_steps = 5 }
"""


def test_heads_and_what_stages_do_not_share(tmp_path: Path) -> None:
    """The class that loads each head's folder; of later stages their length, and settings that the first has not."""
    (tmp_path / "a.conll").write_text("word B-PER\nhere O\n\n" * 3)
    (tmp_path / "headed.brew").write_text(HEADED)
    result = command("plan", str(tmp_path / "headed.brew"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    is "))
    assert lines[start : start + 3] == [
        "    is           bert, 1 layer, width 8",
        "    head ner     AutoModelForTokenClassification, 3 classes",
        "    head answer  AutoModelForQuestionAnswering",
    ]
    one, two = lines.index("stage one"), lines.index("stage two, apart from what one has too")
    assert {"seed", "precision", "logging_steps"} <= {line.split()[0] for line in lines[one + 1 : two] if line}
    assert [line.split() for line in lines[two + 1 :]] == [
        ["steps", "4"], ["precision", "fp32"], ["freeze", "[net", "@", '"embeddings"]'], ["seed", "0"]
    ]  # fmt: skip


def test_a_graph_is_written_into_a_folder_that_is_not_there(tiny: Path, tmp_path: Path) -> None:
    """The folder is made; one that cannot be is a fault of usage, said before anything is drawn."""
    file = tmp_path / "new" / "deep" / "graph.dot"
    assert command("graph", str(tiny), "--format", "dot", "--out", str(file)).exit_code == 0
    assert file.read_text().startswith("digraph")
    for out in (file / "x.dot", file.parent):
        result = command("graph", str(tiny), "--format", "dot", "--out", str(out))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: `{out}` ")
