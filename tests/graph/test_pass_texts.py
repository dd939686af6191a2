"""Every pass shows itself in `passes.txt`: the equations of a spec before it and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest

from brewgraph.display.equation import spell
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import CANONICAL, Pass, canonical
from brewgraph.graph.container import info, node, nodes_of, of_kind, rewritten
from brewgraph.graph.optimize import PASSES, SKIPPABLE, VOCABULARY, running_order, split_vocabularies
from brewgraph.recipe.features import Feature, Shape
from tests.graph.graphs import SIZES, raw
from tests.recipe.specs import HEAD, FakeFacts

FILE = Path(__file__).with_name("passes.txt")
ALL: dict[str, Pass] = {rewrite.__name__: rewrite for rewrite in (*CANONICAL, *PASSES)}


@dataclass(frozen=True)
class Example:
    """A section of the file is a pass, a paragraph in it an example: a title, a spec, `;`, the equations afterwards."""

    rewrite: str
    title: str
    before: str
    after: str


def examples() -> Iterator[Example]:
    """Those of the file, in its order."""
    _, *sections = re.split(r"^== ", FILE.read_text(encoding="utf-8"), flags=re.M)
    for section in sections:
        rewrite, *paragraphs = re.split(r"^-- ", section, flags=re.M)
        for paragraph in paragraphs:
            title, _, text = paragraph.partition("\n")
            before, _, after = text.partition("\n;")
            yield Example(rewrite.strip(), title, before.strip(), after.strip())


def before(example: Example) -> nx.DiGraph:
    """The graph that a pass gets: as it was built, or canonical; of the merging pass, with equal nodes apart."""
    rewrite = ALL[example.rewrite]
    sizes = WRITERS if rewrite is split_vocabularies else {**SIZES, "two": SIZES["teacher"]}
    built = raw(f"{HEAD}{example.before}\n", sizes)
    if rewrite not in SKIPPABLE:
        return built
    return canonical(built, merged=rewrite in PASSES)


class Writer(FakeFacts):
    """A language model: logits of each token over a vocabulary."""

    def shape(self, feature: Feature) -> Shape:
        return ("batch", "length", VOCABULARY) if feature.name == "logits" else super().shape(feature)


WRITERS = {"teacher": Writer(12, 768), "student": Writer(3, 384)}


class Name(n.Node, label="{0.name}"):
    """Stands in a graph for a value that has a name."""

    name: str


def equations(graph: nx.DiGraph) -> str:
    """A graph as a spec would write it, and below what else is known of it."""
    known, nodes = info(graph), nodes_of(graph)
    names: dict[str, list[str]] = {}
    for name, key in known.terms.items():
        names.setdefault(key, []).append(name)
    named = {key: Name((), own[0], shape=None, span=nodes[key].span) for key, own in names.items()}

    def write(key: str) -> str:
        """A value, those with names inside it by their names."""
        return spell(rewritten(graph, {**nodes, **{k: x for k, x in named.items() if k != key}}), key)

    lines = [f"{' = '.join(own)} = {write(key)}" for key, own in names.items()]
    loss = names[known.objective][0] if known.objective in names else write(known.objective)
    return "\n".join([*lines, f"loss = {loss}", *(f"# {line}" for line in remarks(graph))])


def remarks(graph: nx.DiGraph) -> Iterator[str]:
    """What passes have found, a line each."""
    known = info(graph)
    forwards = []
    for key, forward in of_kind(graph, n.Forward):
        taps = sorted(spell(graph, used) for used, _ in of_kind(graph, n.Tap, graph.successors(key)))
        flags = [name for name in ("stops", "narrow", "packed") if getattr(forward, name)]
        forwards.append(" ".join([", ".join(taps), *(f"({flag})" for flag in flags)]))
    yield f"forwards: {'; '.join(sorted(forwards))}"
    split = sorted(spell(graph, key) for key, tap in of_kind(graph, n.Tap) if tap.split)
    if split:
        yield f"split: {', '.join(split)}"
    if known.reached is not None:
        yield f"reached: {', '.join(sorted([*map(str, known.reached.features), *known.reached.sites]))}"
    if known.kept is not None:
        yield f"kept: {', '.join(sorted(spell(graph, key) for key in known.kept)) or 'none'}"
    for key, weights in sorted((known.guards or {}).items(), key=lambda pair: spell(graph, pair[0])):
        yield f"skipped: {spell(graph, key)}, while {' or '.join(spell(graph, w) for w in weights)} is zero"
    if known.guards == {}:
        yield "skipped: nothing"
    if known.frozen:
        yield "frozen: yes"
    for key in running_order(graph):
        if gone := (known.released or {}).get(key):
            words = sorted(spell(graph, used) for used in gone if isinstance(node(graph, used), n.Tap | n.Loss))
            if words:
                yield f"released: {', '.join(words)}, after {spell(graph, key)}"


@pytest.mark.parametrize("example", list(examples()), ids=lambda x: f"{x.rewrite}: {x.title}")
def test_a_pass_does_what_its_text_says(example: Example) -> None:
    """The pass alone, on the graph of the spec; remarks below the spec hold before it."""
    graph = before(example)
    assert [f"# {line}" for line in remarks(graph)] == re.findall("^# .*", example.before, re.M)
    assert equations(ALL[example.rewrite](graph)) == example.after


def test_every_pass_has_a_text() -> None:
    """In the order in which they run."""
    assert list(dict.fromkeys(example.rewrite for example in examples())) == list(ALL)
