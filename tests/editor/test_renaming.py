"""New names: which places change, and what is refused. Names of the language keep their meaning, whatever is named so."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import UsageError
from brewgraph.editor.analysis import Analysis, analyse
from brewgraph.editor.renaming import renamable, rename
from brewgraph.source import Source
from tests.faults.world import TINY

MODELS = f"""\
teacher big = hf({TINY}, hidden_size=16, num_hidden_layers=3)
student tiny = hf({TINY}, hidden_size=8, num_hidden_layers=2)
"""
DATA = 'data d = files(train="train.jsonl")\n'


def renamed(text: str, before: str, name: str) -> str:
    """The text once the name behind some words has a new one."""

    def again(changed: str) -> Analysis:
        return analyse(Source(changed, "spec.brew"))

    analysis = again(text)
    assert [x.code for x in analysis.faults if not x.is_warning] == []
    use = analysis.index.at(text.index(before) + len(before))
    assert use is not None
    for start, end in reversed(rename(renamable(use, analysis), name, analysis, again)):
        text = text[:start] + name + text[end:]
    return text


@pytest.mark.parametrize(
    ("what", "before", "text", "after"),
    [
        ("data as a source", "data ",
         MODELS + 'data squad = squad(train="a.json")\nloss = ce(squad.start -> tiny(squad).start)\n',
         MODELS + 'data x = squad(train="a.json")\nloss = ce(x.start -> tiny(x).start)\n'),
        ("data as a source of another", "data ",
         MODELS + 'data files = files(train="a.jsonl")\ndata e = files + files(train="b.jsonl")\nloss = ce(e.labels -> tiny(e).logits)\n',
         MODELS + 'data x = files(train="a.jsonl")\ndata e = x + files(train="b.jsonl")\nloss = ce(e.labels -> tiny(e).logits)\n'),
        ("model as a source", "teacher ",
         'teacher hf = hf("a")\nstudent tiny = hf("b", init=hf.layers[0, 1], tokenizer=hf)\n' + DATA + "loss = kd(hf.logits -> tiny.logits)\n",
         'teacher x = hf("a")\nstudent tiny = hf("b", init=x.layers[0, 1], tokenizer=x)\n' + DATA + "loss = kd(x.logits -> tiny.logits)\n"),
        ("model as an average", "teacher ",
         'teacher ema = ema(tiny)\nstudent tiny = hf("b")\n' + DATA + "loss = kd(ema.logits -> tiny.logits)\n",
         'teacher x = ema(tiny)\nstudent tiny = hf("b")\n' + DATA + "loss = kd(x.logits -> tiny.logits)\n"),
        ("equation as its operation", "\n" + DATA,
         MODELS + DATA + "kd = kd(big.logits -> tiny.logits, T=4)\nloss = kd + kd(big.logits -> tiny.logits, T=2)\n",
         MODELS + DATA + "x = kd(big.logits -> tiny.logits, T=4)\nloss = x + kd(big.logits -> tiny.logits, T=2)\n"),
        ("number as a function and a schedule", "let ",
         MODELS + DATA + "let sum = 2\nloss = sum * sum([kd(big.logits -> tiny.logits)])\n",
         MODELS + DATA + "let x = 2\nloss = x * sum([kd(big.logits -> tiny.logits)])\n"),
        ("number as a projection and a schedule", "let ",
         MODELS + DATA + "let linear = 2\nloss = linear * mse(big.pooled -> tiny.pooled via linear(8 -> 16)) + kd(big.logits -> tiny.logits)\ntrain { schedule = linear(warmup=10%) }\n",
         MODELS + DATA + "let x = 2\nloss = x * mse(big.pooled -> tiny.pooled via linear(8 -> 16)) + kd(big.logits -> tiny.logits)\ntrain { schedule = linear(warmup=10%) }\n"),
        ("param as an optimizer and an adapter", "param ",
         "param lora = 4\nparam lr = 0.1\n" + 'student tiny = hf("b", adapter=lora(r=lora))\n' + DATA + "loss = ce(d.labels -> tiny.logits)\ntrain { optimizer = adamw(lr=lr) }\n",
         "param x = 4\nparam lr = 0.1\n" + 'student tiny = hf("b", adapter=lora(r=x))\n' + DATA + "loss = ce(d.labels -> tiny.logits)\ntrain { optimizer = adamw(lr=lr) }\n"),
        ("param as an augmentation", "param ",
         MODELS + "param masking = 0.1\n" + 'data d = files(train="a.jsonl", augment=[masking, masking(p=masking)])\nloss = ce(d.labels -> tiny.logits)\n',
         MODELS + "param x = 0.1\n" + 'data d = files(train="a.jsonl", augment=[masking, masking(p=x)])\nloss = ce(d.labels -> tiny.logits)\n'),
        ("number as the size of a task", "let ",
         MODELS + "let size = 2\n" + DATA + "task a { loss = size * ce(d.labels -> tiny.logits) }\ntask b { loss = kd(big.logits -> tiny.logits) }\nsample [a, b] ~ size\n",
         MODELS + "let x = 2\n" + DATA + "task a { loss = x * ce(d.labels -> tiny.logits) }\ntask b { loss = kd(big.logits -> tiny.logits) }\nsample [a, b] ~ size\n"),
        ("head as a source", "head ",
         'student tiny = hf("b") { head sequence_classifier = sequence_classifier() }\n' + DATA + "loss = ce(d.labels -> tiny.sequence_classifier.logits)\n",
         'student tiny = hf("b") { head x = sequence_classifier() }\n' + DATA + "loss = ce(d.labels -> tiny.x.logits)\n"),
    ],
)  # fmt: skip
def test_a_name_of_the_language_stays(what: str, before: str, text: str, after: str) -> None:
    """A declaration may be called as a source, an operation or a projection: it and its uses are renamed, calls are not."""
    assert renamed(text, before, "x") == after
    assert renamed(after, before, text[text.index(before) + len(before) :].partition(" ")[0].partition("(")[0]) == text


def test_a_function_may_have_the_name_of_an_operation() -> None:
    """Then it is what calls mean, and they follow it; another one may not take that name."""
    text = MODELS + DATA + "{f}(m) = mse(m)\nloss = {f}(big.logits -> tiny.logits)\n"
    assert renamed(text.format(f="kd"), DATA, "x") == text.format(f="x")
    with pytest.raises(UsageError, match="with the name `kd` the spec has another fault: W101"):
        renamed(text.format(f="x"), DATA, "kd")
