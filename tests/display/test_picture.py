"""Pictures: what is drawn in each grain, and what each box knows."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from brewgraph.diagnostics import UsageError
from brewgraph.display.picture import picture
from brewgraph.display.render import Face, Shown, faces, find_task, is_dense, write_svg
from tests.graph.graphs import graph, kinds

SPEC = """\
teacher bert = hf("bert")
student tiny = hf(model_type="bert")
data d = files(train="train.jsonl")
soft = kd(bert.logits -> tiny.logits, T=3)
loss = 0.5 * soft + ce(d.labels -> tiny.logits) + sum(mse(bert.hidden[LAYERS] -> tiny.hidden[:] via linear))
"""
SMALL, LARGE = (
    SPEC.replace("LAYERS", "0, 4, 8, 12"),
    SPEC.replace("LAYERS", "0, 4, 8, 12").replace(
        "loss =", "more = nst(bert.hidden[0, 1, 2, 3, 4, 5, 6] -> tiny.hidden[0, 1, 2, 3, 1, 2, 3])\nloss = sum(more) +"
    ),
)


def test_terms() -> None:
    """Data, models, features of both, terms with their weights, the loss; each knows where it comes from."""
    drawn = picture(graph(SMALL), "terms")
    texts = faces(drawn)
    assert [box.role for box in drawn.boxes].count("term") == 6
    titles = {(box.role, texts[box.key].title) for box in drawn.boxes}
    assert {("data", "d"), ("teacher", "bert"), ("student", "tiny"), ("feature", "labels"), ("loss", "loss")} <= titles
    soft = next(box for box in drawn.boxes if box.names == "soft")
    assert texts[soft.key] == Face("soft", ("kd(bert.logits -> tiny.logits, T=3)",), "0.5 ×")
    assert dict(soft.facts) == {
        "weight": "0.5", "kind": "loss", "equation": "kd(bert.logits -> tiny.logits, T=3)", "unit": "example",
        "shape": "one number",
    }  # fmt: skip
    assert soft.span is not None
    assert soft.span.text == "kd(bert.logits -> tiny.logits, T=3)"
    tones = {box.title: box.tone for box in drawn.boxes if box.role == "feature" and texts[box.key].lines}
    assert (tones["hidden[12]"], tones["hidden[3]"], tones["labels"]) == ("teacher", "student", "data")
    sides = {line.label for line in drawn.lines if line.target == soft.key}
    assert sides == {"from", "to"}


def test_many_terms_stand_closer() -> None:
    """With more than twelve features each has one line, its shape beside its name."""
    small, large = picture(graph(SMALL), "terms"), picture(graph(LARGE), "terms")
    assert (is_dense(small), is_dense(large)) == (False, True)
    texts = faces(large)
    features = [texts[box.key] for box in large.boxes if box.role == "feature"]
    assert {face.lines for face in features} == {()}
    assert "(B, L, 768)" in {face.badge for face in features}
    assert max(len(line) for face in texts.values() for line in face.lines) <= 50


def test_nodes_are_all_there() -> None:
    """A box for every node."""
    found = graph(SMALL)
    drawn = picture(found, "nodes")
    assert len(drawn.boxes) == sum(kinds(found).values())
    assert "T = 3" in {face.title for face in faces(drawn).values()}


@pytest.mark.parametrize("grain", ["terms", "nodes"])
def test_an_svg_is_well_formed(grain: str) -> None:
    """A card for each box and a path for each line; sizes of letters stand in the style."""
    drawn = picture(graph(SMALL), grain)
    root = ElementTree.fromstring(write_svg(drawn, 'a "title" & more'))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}g")) == len(drawn.boxes)
    assert len([p for p in root.findall(f"{space}path") if p.get("class", "").startswith("line")]) == len(
        {(line.source, line.target) for line in drawn.lines}
    )
    style = root.findtext(f"{space}style") or ""
    assert all(int(size) >= 11 for size in re.findall(r"(\d+)px", style))


def test_what_is_saved_where(tmp_path: Path) -> None:
    """The suffix says the format; another one is refused."""
    shown = Shown({"": graph(SMALL)}, "a.brew", "0", {})
    assert shown.save(tmp_path / "a.svg").read_text() == shown._repr_svg_()
    assert shown.save(tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert shown.save(tmp_path / "a.txt").read_text().startswith("loss\n")
    with pytest.raises(UsageError, match=r"`a.png` has no suffix of a format"):
        shown.save(tmp_path / "a.png")


def test_tasks_by_name() -> None:
    """By stage and task, or by the task alone where one has it; by the stage where it has no tasks."""
    one = graph(SMALL)
    graphs = {("warm", ""): one, ("main", "ner"): one, ("main", "qa"): one, ("last", "ner"): one}
    assert find_task("warm", graphs) == "warm"
    assert find_task("main/qa", graphs) == "main/qa"
    assert find_task("ner", graphs) == "main/ner"
    with pytest.raises(UsageError, match="did you mean `ner`"):
        find_task("nre", graphs)
