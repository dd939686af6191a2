"""Completions by where the cursor stands: `|` in a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.checking.check import read
from brewgraph.cli.ops import entries
from brewgraph.editor.analysis import analyse
from brewgraph.editor.completion import Completion, Known, complete
from brewgraph.editor.context import context_at
from brewgraph.editor.facts import ModelFact
from brewgraph.editor.hover import hover_word
from brewgraph.editor.index import index_of
from brewgraph.editor.reference import Reference
from brewgraph.source import Source

SPEC = """\
brew 1
param T = 4
teacher big = hf("b")
student tiny = hf("t") { head ner = token_classifier(labels=3) }
data d = glue("mnli")
let map = [0, 4] -> [0, 1]
proj W = linear(3 -> 4)
f(x, scale=2) = x * scale
task one { own = 1 }
loss = ce(d.labels -> tiny.logits)
"""
BIG = ModelFact(
    "Bert", "bert", 10, (("logits", None, "(batch, 2)"), ("hidden", 5, "(batch, length, 8)")),
    (("bert.encoder.layer.0", "Layer", "(8)"), ("bert.pooler", "Pooler", "(8)"), ("classifier", "Linear", "(2)")),
)  # fmt: skip


def completions(line: str, folder: Path = Path(".")) -> list[Completion]:
    """What may stand at `|` in a line below the spec."""
    text = SPEC + line.replace("|", "")
    source = Source(SPEC, str(folder / "spec.brew"))
    index = index_of(read(source, {}).spec, source)
    offset = len(SPEC) + line.index("|")
    scope = index.scope_at(SPEC.index("own")) if line.startswith("own") else index.root
    return complete(context_at(text, offset), Known(index, scope, {"big": BIG}, Reference(entries())))


@pytest.mark.parametrize(
    ("line", "has", "lacks"),
    [
        ("|", ["teacher", "task", "train", "import"], ["head", "mse", "big", "loss"]),
        ("te|", ["teacher"], ["task"]),
        ("task x { |", ["data", "let"], ["param", "stage", "import", "head"]),
        ("student s = hf('x') { |", ["head"], ["task"]),
        ("teacher x = |", ["hf", "brew", "ema"], ["files", "mse"]),
        ("data x = |", ["files", "glue", "d"], ["hf"]),
        ("x = big.|", ["logits", "hidden", "layers"], ["attention", "pooled"]),  # what the model has
        ("x = tiny.|", ["logits", "ner", "attention"], []),  # nothing is known of it
        ("x = tiny.ner.|", ["logits", "start"], ["ner", "hidden"]),
        ("x = d.|", ["labels", "weights"], ["logits"]),
        ("x = one.|", ["own"], ["loss"]),
        ("x = map.|", ["from", "to"], ["logits"]),
        ("x = big.hidden[m|", ["map"], ["T"]),
        ("x = mse(big.hidden[0] -> tiny.hidden[0] via |", ["linear", "W"], ["big", "mse"]),
        ("x = kd(big.logits -> tiny.logits, |", ["T=", "mask=", "reduce="], []),
        ("x = kd(big.logits -> tiny.logits, T=4, |", ["mask="], ["T="]),
        ("x = kd(big.logits -> tiny.logits, T=|", ["flsw", "T"], ["adamw"]),
        ("x = kd(big.logits -> tiny.logits, mask=|", ["none", "tokens", "pairs", "labels"], ["hf"]),
        ("x = f(|", ["x=", "scale="], []),
        ("x = |", ["mse", "f", "sum", "big", "T"], ["flsw", "adamw", "hf"]),
        ("own = |", ["own", "big"], []),
        ("data x = glue(\"|", ["mnli", "sst2"], ["files"]),
        ("data x = files(|", ["train=", "batch=", "max_length="], ["big"]),
        ("data x = files(train=\"a\", problem_type=|", ["multi_label", '"multi_label"'][:1], []),
        ("data x = files(augment=|", ["masking"], ["mse"]),
        ("data x = files(augment=[masking(|", ["p="], ["train="]),
        ("train { |", ["epochs", "optimizer", "precision"], ["teacher"]),
        ("train { optimizer = |", ["adamw", "sgd"], ["linear"]),
        ("train { optimizer = adamw(|", ["lr=", "betas="], ["warmup="]),
        ("train { schedule = |", ["linear", "cosine"], ["adamw"]),
        ("train { schedule = linear(|", ["warmup="], ["lr="]),
        ("train { precision = |", ["bf16", "fp32"], ["mse"]),
        ("train { compile = |", ["true", "false"], []),
        ("train { report = [|", ["gradient_shares"], []),
        ("tap t = big @ \"|", ["encoder.layer.0", "pooler", "classifier"], ["bert.pooler"]),
        ("tap t = big @ \"enc|", ["encoder.layer.0"], ["pooler"]),
        ("tap t = big @ |", ["input"], ["big"]),
        ("cache x = big.logits at \"c\" as |", ["bf16"], ["mse"]),
        ("param x: |", ["int", "str"], ["big"]),
        ("sample [|", ["one"], ["big"]),
        ("import \"x\" |", ["as"], []),
        ("teacher x = hf(\"{|", ["T"], ["big"]),
        ("# brew: ignore[|", ["W205"], ["B101"]),
        ("# |", [], ["teacher", "W205"]),
    ],
)  # fmt: skip
def test_completions_follow_the_place(line: str, has: list[str], lacks: list[str]):
    """Each place offers what may stand there, and nothing that may not."""
    labels = [word.label for word in completions(line)]
    assert [word for word in has if word not in labels] == []
    assert [word for word in lacks if word in labels] == []


def test_files_are_those_below_the_spec(tmp_path: Path):
    """A path offers the files of its folder; an import specs alone; a folder that is not there nothing."""
    (tmp_path / "rows").mkdir()
    for name in ("rows/a.jsonl", "b.csv", "lib.brew", ".hidden"):
        (tmp_path / name).write_text("")

    def labels(line: str) -> list[str]:
        return [word.label for word in completions(line, tmp_path)]

    assert labels('data x = files(train="|') == ["b.csv", "lib.brew", "rows"]
    assert labels('data x = files(train="rows/|') == ["a.jsonl"]
    assert labels('import "|') == ["lib.brew", "rows"]
    assert labels('data x = files(train="none/|') == []
    assert labels('data x = files(train="\0/|') == []


def test_a_page_explains_each_call():
    """Operations, sources and settings carry their line, and name their page."""
    word = next(word for word in completions("x = ms|") if word.label == "mse")
    assert (word.page, word.insert) == ("mse", "mse($0)")
    assert word.detail == Reference(entries()).summary("mse") != ""


@pytest.mark.parametrize("name", ["papers/ner-and-qa.brew", "textbrewer/lib/matches.brew", "results/multitask.brew"])
def test_every_place_of_a_spec_has_its_answer(name: str):
    """While a spec is written from its beginning, each text that comes up is read, completed, and explained."""
    path = Path(__file__).parents[2] / "specs" / name
    text = path.read_text(encoding="utf-8")
    reference = Reference(entries())
    for offset in range(0, len(text), 41):
        analysis = analyse(Source(text[:offset], str(path)))
        known = Known(analysis.index, analysis.index.scope_at(offset), {"big": BIG}, reference)
        words = complete(context_at(text[:offset], offset), known)
        assert len(words) == len({word.label for word in words})
        hover_word(text[:offset], offset, known, [])
