"""`cache auto`: the values of fewest bytes between the teachers and what training changes."""

from __future__ import annotations

from pathlib import Path

import pytest

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.display.equation import spell
from brewgraph.graph.container import info
from tests.small import save, write_pair

MODELS = 'teacher bert = hf("bert")\nteacher other = hf("other")\nstudent tiny = hf("tiny")\n'
DATA = 'data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length={length}{more})\n'
MEAN = "kd(mean([bert.logits, other.logits]) -> tiny.logits)"
RELATION = "kl(relation(bert.query[1], heads=2) -> relation(tiny.query[0], heads=2))"
HIDDEN = "mse(bert.hidden[2] -> tiny.hidden[1] via linear) + kd(other.logits -> tiny.logits)"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    save(tmp_path / "other", width=16, seed=3)
    return tmp_path


def kept(folder: Path, loss: str, limit: str = "", length: int = 32, more: str = "", extra: str = "") -> set[str]:
    """The values that `cache auto` keeps, in equation text, of every task."""
    path = folder / "spec.brew"
    body = loss if "loss =" in loss else f"loss = {loss}\n"
    path.write_text(f'{MODELS}{DATA.format(length=length, more=more)}cache auto at "store"{limit}\n{extra}{body}')
    graphs = check(read_spec(path)).graphs.values()
    return {spell(graph, key) for graph in graphs for key in info(graph).caches}


def test_the_fewest_bytes(world: Path) -> None:
    """One value where one does, the smaller side of a transform, and nothing that a kept value makes needless."""
    assert kept(world, "kd(bert.logits -> tiny.logits)") == {"bert.logits"}
    assert kept(world, MEAN) == {"mean([other.logits, bert.logits])"}
    assert kept(world, f"{MEAN} + kd(bert.logits -> tiny.logits)") == {
        "mean([other.logits, bert.logits])",
        "bert.logits",
    }
    assert kept(world, HIDDEN) == {"bert.hidden[2]", "other.logits"}
    # a relation has heads x length numbers a token, a query its width of 32
    assert kept(world, RELATION, length=32) == {"bert.query[1]"}
    assert kept(world, RELATION, length=8) == {"relation(bert.query[1], heads=2)"}


def test_what_a_limit_leaves(world: Path) -> None:
    """20 rows of 32 tokens of width 32 take 81,920 bytes, 20 rows of 3 logits 240: the teacher of the logits rests."""
    assert kept(world, HIDDEN, " limit 83 KB") == {"bert.hidden[2]", "other.logits"}
    assert kept(world, HIDDEN, " limit 82 KB") == {"other.logits"}
    both = "kd(bert.logits -> tiny.logits) + nst(bert.hidden[2] -> tiny.hidden[0])"
    assert kept(world, both, " limit 83 KB") == {"bert.logits", "bert.hidden[2]"}
    assert kept(world, both, " limit 80 KB") == set()  # the forward runs for the hidden states, so logits cost nothing


def test_what_is_never_kept(world: Path) -> None:
    """What changes from epoch to epoch, or depends on the batch; then W219 says so."""
    augmented = ", augment=[deleting(p=0.1)]"
    assert kept(world, "kd(bert.logits -> tiny.logits)", more=augmented) == set()
    assert kept(world, "ce(d.labels -> tiny.logits)") == set()
    padded = "mse(bert.hidden[2] -> tiny.hidden[1] via linear, mask=none)"
    assert kept(world, padded) == set()
    assert kept(world, f"{padded} + kd(other.logits -> tiny.logits)") == {"other.logits"}
    assert "W219" not in [warning.code for warning in check(read_spec(world / "spec.brew")).warnings]
    kept(world, "ce(d.labels -> tiny.logits)")
    assert "W219" in [warning.code for warning in check(read_spec(world / "spec.brew")).warnings]


def test_a_named_cache_stays(world: Path) -> None:
    """It is kept where its statement says, and costs the choice nothing."""
    named = 'cache soft = bert.logits at "mine"\n'
    assert kept(world, "kd(mean([soft, other.logits]) -> tiny.logits)", extra=named) == {
        "bert.logits",
        "mean([other.logits, bert.logits])",
    }
    graph = bg.load(world / "spec.brew").graph
    assert {spell(graph, key): place.folder for key, place in info(graph).caches.items()}["bert.logits"] == "mine"


def test_one_choice_for_all_stages(world: Path) -> None:
    """A value that both read is kept for both, beside what only one of them reads."""
    stages = (
        f"stage one {{\nloss = {RELATION}\n}}\nstage two {{\nloss = kd(bert.logits -> tiny.logits) + {RELATION}\n}}\n"
    )
    assert kept(world, stages) == {"bert.query[1]", "bert.logits"}


def test_a_run(world: Path) -> None:
    """The second run reads what the first has kept, with the same numbers; the hash is that without a cache."""
    train = "train { epochs = 2; optimizer = adamw(lr=1e-3) }\n"
    kept(world, MEAN, extra=train)
    auto = world / "spec.brew"
    plain = world / "plain.brew"
    plain.write_text(auto.read_text().replace('cache auto at "store"\n', ""))
    assert check(read_spec(auto)).spec_hash == check(read_spec(plain)).spec_hash
    first, second = bg.run(auto), bg.run(auto, force=True)
    assert len(list((world / "store").glob("*.lmdb"))) == 1
    without = bg.run(plain, out=world / "out")
    assert first.table[-1].scores == second.table[-1].scores == without.table[-1].scores
