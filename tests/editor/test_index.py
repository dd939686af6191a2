"""Names of a spec: where each is defined and used, in tasks, functions, heads, strings and imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.checking.check import read
from brewgraph.editor.index import Index, index_of
from brewgraph.source import Source

ROOT = Path(__file__).parents[2]
SPEC = """\
brew 1
import "lib.brew" as lib
param T = 4
teacher big = hf("b{T}")
student tiny = hf("t", init=big.layers[0]) { head ner = token_classifier(labels=3) }
data docs = files(train="d.jsonl", text=T, label=docs)
soft(t, T=T) = kd(big.logits -> tiny.ner.logits, T=T * t)
task one { data mine = glue("mnli"); loss = soft(t=2) + lib.kd(T=T) }
sample [one] ~ size
train { freeze = [tiny.ner]; precision = fp32; metric_for_best_model = "one/f1" }
"""


@pytest.fixture
def index(tmp_path: Path) -> Index:
    (tmp_path / "lib.brew").write_text("kd(T) = T\n")
    source = Source(SPEC, str(tmp_path / "spec.brew"))
    return index_of(read(source, {}).spec, source)


def uses(index: Index, name: str, kind: str) -> list[tuple[int, str]]:
    """The line, from 1, and the text of each use of one name."""
    symbol = next(use.symbol for use in index.uses if use.symbol.name == name and use.symbol.kind == kind)
    return [(place.position[0], place.text) for place in index.uses_of(symbol)]


@pytest.mark.parametrize(
    ("name", "kind", "lines"),
    [
        ("T", "param", [3, 4, 7, 8]),  # in a string, as a default, as an argument; never the parameter or a column
        ("T", "parameter", [7, 7]),
        ("t", "parameter", [7, 7, 8]),
        ("soft", "function", [7, 8]),
        ("big", "teacher", [4, 5, 7]),
        ("ner", "head", [5, 7, 10]),
        ("docs", "data", [6]),  # `label=docs` is a column
        ("one", "task", [8, 9, 10]),
        ("lib", "import", [2, 8]),
    ],
)
def test_every_use_of_a_name_is_found(index: Index, name: str, kind: str, lines: list[int]):
    """A name's definition and uses, and none of others that are called alike."""
    assert uses(index, name, kind) == [(line, name) for line in lines]


def test_a_name_of_an_import_leads_to_its_file(index: Index):
    """`lib.kd` is defined in the imported file."""
    use = index.at(SPEC.index("kd(T=T)"))
    assert use is not None
    assert (Path(use.symbol.place.source.name).name, use.symbol.place.start) == ("lib.brew", 0)


def test_the_body_of_a_task_is_a_scope(index: Index):
    """Inside a task its own names are visible before those outside."""
    inside = [s.name for s in index.visible(index.scope_at(SPEC.index("mine")))]
    assert inside[:2] == ["mine", "loss"]
    assert "mine" not in [s.name for s in index.visible(index.scope_at(SPEC.index("sample")))]


@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.brew")), ids=lambda p: str(p.relative_to(ROOT)))
def test_uses_of_shipped_specs_stand_where_their_names_stand(path: Path):
    """In every shipped spec each use is spelled like the name that it means, and nothing is used twice."""
    source = Source.read(path)
    index = index_of(read(source, {}).spec, source)
    assert index.uses
    assert [use.place.text for use in index.uses] == [use.symbol.name for use in index.uses]
    places = [(use.place.start, use.place.end) for use in index.uses]
    assert len(places) == len(set(places))


def test_a_param_may_stand_for_a_word(tmp_path: Path):
    """Its use has its name, so that both are renamed; other words are no names."""
    text = 'brew 1\nparam precision = "fp32"\nparam mean = 1\ntrain { precision = precision; normalise = micro }\n'
    source = Source(text, str(tmp_path / "spec.brew"))
    made = index_of(read(source, {}).spec, source)
    assert uses(made, "precision", "param") == [(2, "precision"), (4, "precision")]
    assert {use.symbol.name for use in made.uses} == {"precision", "mean"}
