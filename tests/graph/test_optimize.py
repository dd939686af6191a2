"""Passes: what they keep and merge, that hashes know content alone, weights of terms, order of execution, seeds."""

from __future__ import annotations

import re

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import CANONICAL, canonical
from brewgraph.graph.container import execution_order, info
from brewgraph.graph.scalars import objective_weights, scalar_values
from tests.graph.graphs import SIZES, graph, of_kind, raw
from tests.recipe.specs import FakeFacts, spec

SPEC = """\
teacher big = hf("big")
student tiny = hf(model_type="bert", num_hidden_layers=3)
data docs = files(train="t.jsonl", batch=16)
param T = 4
let map = [0, 12] -> [0, 3]
soft = kd(big.logits -> tiny.logits, T=T)
hard = ce(docs.labels -> tiny.logits)
rows = mse(big.hidden[map] -> tiny.hidden[map] via linear)
gram = nst(big.hidden[6] -> tiny.hidden[1])
loss = 0.5 * soft + 0.25 * hard + sum(rows) + ramp(1 -> 0) * gram
"""


def objective(text: str) -> str:
    """The hash of what a spec computes."""
    found: str = info(graph(text)).objective
    return found


# ── prune, flatten, merge ────────────────────────────────────────────────────────────────────────────────────────────


def test_passes_are_verbs_and_functions() -> None:
    """Named by what they do, listed in one tuple, and applied in its order."""
    assert [rewrite.__name__ for rewrite in CANONICAL] == [
        "prune_to_objective", "flatten_sums", "name_by_content", "merge_equal_nodes"
    ]  # fmt: skip
    found = raw(SPEC)
    for rewrite in CANONICAL:
        found = rewrite(found)
        assert nx.is_frozen(found)
    assert nx.utils.graphs_equal(found, canonical(raw(SPEC)))


def test_equal_terms_add_their_weights() -> None:
    """Written twice under two names, a loss is one value that counts twice."""
    text = spec("x = nst(big.hidden[1] -> tiny.hidden[1])\ny = nst(big.hidden[1] -> tiny.hidden[1])", "loss = x + y\n")
    found = graph(text)
    assert objective_weights(found, 0.0)[info(found).terms["x"]] == 2.0


def test_equal_inline_projections_begin_with_other_weights() -> None:
    """Equal terms with `via linear` have a module each, and a seed each."""
    inline = spec(
        "x = mse(big.hidden[0] -> tiny.hidden[0] via linear)\ny = mse(big.hidden[0] -> tiny.hidden[0] via linear)",
        "loss = x + y\n",
    )
    assert len({p.seed for p in of_kind(graph(inline), n.Projection)}) == 2


def test_a_named_projection_of_two_values_is_one_module() -> None:
    """Two nodes, one site and one seed."""
    text = spec(
        "proj W = linear\nx = mse(big.hidden[0] -> tiny.hidden[0] via W) + mse(big.hidden[12] -> tiny.hidden[3] via W)",
        "loss = x\n",
    )
    found = of_kind(graph(text), n.Projection)
    assert len(found) == 2
    assert {(p.site, p.seed) for p in found} == {("W", found[0].seed)}


def test_keys_are_hashes_of_content() -> None:
    """After merging every key has 16 hexadecimal digits and stands in the order of its name."""
    found = graph(SPEC)
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in found)
    assert list(found) == sorted(found)


# ── what a hash knows ────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("big", "tiny", "docs", "T", "map", "soft", "hard", "rows", "gram")
NEW = st.lists(
    st.from_regex(r"[A-Za-z_][a-z0-9_]{0,6}", fullmatch=True).filter(
        lambda w: (
            w not in ("loss", "true", "false", "none", "train", "linear", "tanh", "relu", "via", "input")
            and w
            not in ("brew", "import", "param", "let", "teacher", "student", "head", "data", "tap", "proj", "cache")
            and w not in ("sample", "task", "stage", "as", "at", "for", "step", "steps", "epoch", "epochs")
        )
    ),
    min_size=len(NAMES),
    max_size=len(NAMES),
    unique=True,
)


@given(new=NEW, order=st.permutations(range(9)), addends=st.permutations(range(4)), wide=st.booleans())
@settings(max_examples=40, deadline=None)
def test_names_order_spacing_and_comments_do_not_count(
    new: list[str], order: list[int], addends: list[int], wide: bool
) -> None:
    """Every name replaced, statements and addends in any order, other blanks, a comment on every line: one hash."""
    lines = SPEC.splitlines()
    terms = lines[-1].removeprefix("loss = ").split(" + ")
    statements = [lines[i] for i in order] + ["loss = " + " + ".join(terms[i] for i in addends)]
    text = "\n".join(statements)
    # keyword names (T=…, labels) stay: they are the language's
    for i, old in enumerate(NAMES):
        text = re.sub(rf"(?<![\w.\"@]){old}\b(?!=[^=])", f"@{i}@", text)
    for i, name in enumerate(new):
        text = text.replace(f"@{i}@", name)
    if wide:
        text = re.sub(r" ([+*=]) ", r"   \1  ", text).replace("\n", "   # a remark\n\n")
    assert objective(text) == objective(SPEC)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5 * soft", "0.6 * soft"),
        ("param T = 4", "param T = 5"),
        ("T=T)", "T=ramp(4 -> 1))"),
        ("kd(big", "kl(big"),
        ("[0, 12] -> [0, 3]", "[0, 12] -> [0, 2]"),
        ("big.hidden[6]", "big.hidden[5]"),
        ("big.hidden[6]", "big.embeddings"),
        ("sum(rows)", "mean(rows)"),
        ("ramp(1 -> 0)", "ramp(1 -> 0.1)"),
        ('hf("big")', 'hf("bigger")'),
        ('hf("big")', 'hf("big", revision="v2")'),
        ("num_hidden_layers=3", "num_hidden_layers=4"),
        ("t.jsonl", "u.jsonl"),
        ("via linear", "via tanh"),
        ("via linear", "via linear(lr=1e-3)"),
        ("-> tiny.hidden[1])", "-> tiny.hidden[1], mask=none)"),
        (" + 0.25 * hard", ""),
        ("0.25 * hard", "0.25 * hard - hard"),
        ("gram = nst(big.hidden[6] -> tiny.hidden[1])", "gram = nst(tiny.hidden[1] -> big.hidden[6])"),
    ],
)
def test_what_is_computed_counts(old: str, new: str) -> None:
    """Another number, layer, temperature, operation, source or mask is another hash."""
    assert SPEC.count(old) == 1
    assert objective(SPEC.replace(old, new)) != objective(SPEC)


def test_the_batch_size_is_no_part_of_what_is_computed() -> None:
    """The loss of an example is the same however examples are put together; projections begin alike too."""
    assert objective(SPEC.replace("batch=16", "batch=32")) == objective(SPEC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5 * x", "x * 0.5"),
        ("x + y", "y + x"),
        ("sum([x, y])", "x + y"),
        ("mean([x, y])", "mean([y, x])"),
        ("(1 + 1) * x", "2 * x"),
        ("half * x", "0.5 * x"),
    ],
)
def test_ways_of_writing_one_thing(one: str, other: str) -> None:
    """Commuting sides, folded numbers and names change nothing."""
    body = "param half = 0.5\nx = nst(big.hidden[0] -> tiny.hidden[0])\ny = nst(big.hidden[1] -> tiny.hidden[1])"
    assert objective(spec(body, f"loss = {one}\n")) == objective(spec(body, f"loss = {other}\n"))


@pytest.mark.parametrize(("one", "other"), [("x - y", "y - x"), ("x / 2", "2 * x"), ("x", "x + x")])
def test_ways_of_writing_two_things(one: str, other: str) -> None:
    """What does not commute keeps its order."""
    body = "x = nst(big.hidden[0] -> tiny.hidden[0])\ny = nst(big.hidden[1] -> tiny.hidden[1])"
    assert objective(spec(body, f"loss = {one}\n")) != objective(spec(body, f"loss = {other}\n"))


def test_a_teacher_is_no_student() -> None:
    """The role of a model is a part of what is computed: the one is constant."""
    one = (
        'teacher a = hf("m")\nstudent b = hf("n")\ndata d = files(train="t")\nloss = nst(a.hidden[0] -> b.hidden[0])\n'
    )
    other = one.replace("teacher a", "student a").replace("student b", "teacher b")
    sizes = {"a": FakeFacts(2, 8), "b": FakeFacts(2, 8)}
    assert info(graph(one, sizes)).objective != info(graph(other, sizes)).objective


# ── weights of terms ─────────────────────────────────────────────────────────────────────────────────────────────────

X, Y, Z = (f"nst(big.hidden[{i}] -> tiny.hidden[{i}])" for i in (0, 1, 2))


@pytest.mark.parametrize(
    ("loss", "progress", "expected"),
    [
        ("x + y + z", 0.0, (1, 1, 1)),
        ("0.3 * x + y + z", 0.0, (0.3, 1, 1)),
        ("x * 0.3 - y + -z", 0.0, (0.3, -1, -1)),
        ("x - (y - z)", 0.0, (1, -1, 1)),
        ("x / 4 + y / 2 + z", 0.0, (0.25, 0.5, 1)),
        ("ramp(1 -> 0) * x + y + z", 0.0, (1, 1, 1)),
        ("ramp(1 -> 0) * x + y + z", 0.75, (0.25, 1, 1)),
        ("(1 - ramp(1 -> 0)) * x + ramp(1 -> 0) * y + z", 0.25, (0.25, 0.75, 1)),
        ("x / ramp(1 -> 2) + y + z", 0.5, (1 / 1.5, 1, 1)),
        ("mean([x, y, z])", 0.0, (1 / 3, 1 / 3, 1 / 3)),
        ("0.5 * sum([x, 2 * mean([y, z])])", 0.0, (0.5, 0.5, 0.5)),
        ("2 * (x + 3 * (y + 4 * z))", 0.0, (2, 6, 24)),
        ("x + x + y + z", 0.0, (2, 1, 1)),
        ("2 ** ramp(0 -> 2) * x + y + z", 0.5, (2, 1, 1)),
    ],
)
def test_weights_of_terms(loss: str, progress: float, expected: tuple[float, ...]) -> None:
    """By how much each named term counts in the loss at this moment of the training."""
    found = graph(spec(f"x = {X}\ny = {Y}\nz = {Z}", f"loss = {loss}\n"))
    weights = objective_weights(found, progress)
    assert [weights[info(found).terms[name]] for name in "xyz"] == pytest.approx(expected)
    assert weights[info(found).objective] == 1.0


def test_scalars_of_a_graph() -> None:
    """Numbers, schedules and what is made of them, at one moment."""
    found = graph(spec(f"w = 2 * ramp(1 -> 0)\nx = {X}", "loss = w * x\n"))
    assert sorted(scalar_values(found, 0.5).values()) == [0.5, 1.0, 2.0]


# ── order and seeds ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_execution_follows_the_edges_and_nothing_else() -> None:
    """Inputs first; the same for every spec of one hash."""
    found = graph(SPEC)
    order = execution_order(found)
    assert sorted(order) == sorted(found)
    assert all(order.index(used) < order.index(key) for used, key in found.edges)
    lines = SPEC.splitlines()
    turned = "\n".join([*reversed(lines[:-1]), lines[-1]])
    assert execution_order(graph(turned)) == order


def seeds(text: str) -> list[str]:
    """The seeds of a spec's projections."""
    return sorted(p.seed for p in of_kind(graph(text), n.Projection))


def test_seeds_follow_from_what_is_projected() -> None:
    """Neither names nor the order of statements or of layers change an initial weight."""
    one = spec(
        "x = mse(big.hidden[0, 4] -> tiny.hidden[0, 1] via linear)\n"
        "y = cos(big.hidden[0] -> tiny.hidden[0] via linear)",
        "loss = sum(x) + y\n",
    )
    other = spec(
        "second = cos(big.hidden[0] -> tiny.hidden[0] via linear)\n"
        "first = mse(big.hidden[4, 0] -> tiny.hidden[1, 0] via linear)",
        "loss = second + sum(first)\n",
    )
    assert seeds(one) == seeds(other)
    assert len(set(seeds(one))) == 3
    assert objective(one) == objective(other)


def test_seeds_know_the_use() -> None:
    """Another layer, or another operation, begins with other weights."""
    one = spec("x = mse(big.hidden[0] -> tiny.hidden[0] via linear)", "loss = x\n")
    assert seeds(one) != seeds(one.replace("tiny.hidden[0]", "tiny.hidden[1]"))
    assert seeds(one) != seeds(one.replace("mse(", "cos("))
    assert seeds(one) == seeds(one.replace("loss = x", "loss = 0.5 * x"))


def test_a_named_and_an_inline_projection_begin_alike() -> None:
    """A name is only a name."""
    inline = spec("x = mse(big.hidden[0] -> tiny.hidden[0] via linear)", "loss = x\n")
    named = spec("proj W = linear\nx = mse(big.hidden[0] -> tiny.hidden[0] via W)", "loss = x\n")
    assert seeds(inline) == seeds(named)
    assert objective(inline) == objective(named)
    assert SIZES["student"].width == 384
