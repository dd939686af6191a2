"""Short specs as people write them who come from other tools: what is said first leads to the spec that they meant."""

from __future__ import annotations

import pytest

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import SpecError
from brewgraph.source import Source

MODELS = 'teacher big = hf("bert")\nstudent tiny = hf("small")\n'
DATA = 'data d = files(train="train.csv", dev="dev.csv")\n'
LOSS = "loss = kd(big.logits -> tiny.logits)\n"
HEAD, WHOLE = MODELS + DATA, MODELS + DATA + LOSS
SPECS = [
    (HEAD + "-- the soft targets\n" + LOSS, "comments start with `#`"),
    (HEAD + "% the soft targets\n" + LOSS, "comments start with `#`"),
    (HEAD + LOSS + "train { epochs = 3 } -- three\n", "comments start with `#`"),
    ('"""\nMy spec.\n"""\n' + WHOLE, "comments start with `#`, on each line"),
    (WHOLE + "[train]\nepochs = 3\n", "settings belong in braces: `train { epochs = 3 }`"),
    (WHOLE + "train:\n  epochs: 3\n", "write `train { epochs = 3 }`"),
    (WHOLE + "train(epochs=3, lr=1e-4)\n", "write `train { epochs = 3 }`"),
    (WHOLE + "trainer = Trainer(max_epochs=3, devices=2)\n", "settings belong in `train { epochs = 3 }`"),
    ('args = TrainingArguments(output_dir="x")\n' + WHOLE, "settings belong in `train { epochs = 3 }`"),
    ("distill_config = DistillationConfig(temperature=8)\n" + WHOLE, "write `kd(big.logits -> tiny.logits, T=4)`"),
    (WHOLE + 'train { output_dir = "x" }\n', "`brewgraph run SPEC --out FOLDER`"),
    (WHOLE + "train { num_train_epochs = 3 }\n", "write `epochs = 3`"),
    (WHOLE + "train { lmbda = 0.5 }\n", "nothing is generated in training"),
    (WHOLE + "train { limit_train_batches = 10 }\n", "write `steps = 1000`"),
    (WHOLE + "train { criterion = kd }\n", "the loss is an equation outside `train`: `loss = kd("),
    (WHOLE + "train { forward_hook = [] }\n", "the output of a module is a tap outside `train`"),
    (WHOLE + "train { batch_sampler = 1 }\n", "sample [a, b] ~ size ** 0.5"),
    (WHOLE + "train { precision = half }\n", "it is one of 'fp32', 'bf16' or 'fp16'"),
    (WHOLE + "train { baseline = True }\n", "write `true`"),
    ("model:\n  teacher: bert\n" + WHOLE, 'write `teacher big = hf("folder")`'),
    ("stage1:\n" + WHOLE, "write `stage first for 3 epochs"),
    ("version 1\n" + WHOLE, "write `brew 1`"),
    ("const T = 4\n" + WHOLE, "a name is defined by `let NAME = VALUE`"),
    (WHOLE.replace('hf("bert")', '"bert"'), 'write `hf("bert")`'),
    (WHOLE.replace('files(train="train.csv", dev="dev.csv")', '"train.csv"'), 'write `files(train="train.csv")`'),
    (WHOLE.replace('files(train="train.csv", dev="dev.csv")', 'load_dataset("imdb")'), 'write `hub("imdb")`'),
    (WHOLE.replace("train=", "batch_size=8, train="), "write `batch=32`"),
    (WHOLE.replace("train=", 'sep=";", train='), "`.csv` has commas, `.tsv` tabs"),
    (WHOLE.replace("train=", 'split="train", train='), 'as `train="train[:10%]", dev="validation"`'),
    (HEAD + "loss = F.cross_entropy(tiny.logits, d.labels)\n", "write `ce(d.labels -> tiny.logits)`"),
    (HEAD + "loss = nn.KLDivLoss()(big.logits, tiny.logits)\n", "write `kl(big.logits -> tiny.logits)`"),
    (HEAD + "loss = kd(big.logits, tiny.logits)\n", "write `kd(teacher.… -> student.…)`"),
    (HEAD + "loss = kd(teacher.logits -> student.logits)\n", "the teacher here is called `big`"),
    (HEAD + "loss = alpha * kd(big.logits -> tiny.logits)\n", "a number is defined by `let NAME = 0.5`"),
    (HEAD + "loss = kd(big.logits -> tiny.logits, alpha=0.5)\n", "a weight is a factor in front"),
    (HEAD + "loss = mse(big.hidden_states[1] -> tiny.hidden_states[1])\n", "write `hidden[-1]`"),
    (HEAD + "loss = mse(big.layer[1] -> tiny.layer[1])\n", '`big @ "encoder.layer.3.output"`'),
    (HEAD + "loss = mse(big.hidden[1] -> tiny.hidden[1] via nn.Linear(16, 32))\n", "write `linear`"),
    (HEAD + "loss = cosine(big.hidden[1] -> tiny.hidden[1])\n", "the loss is `cos(a -> b)`"),
    (HEAD + "loss = ce(labels -> tiny.logits)\n", "write `d.labels`"),
    (HEAD + "kd(big.logits -> tiny.logits)\n", "a value has a name: `loss = kd(…)`"),
    ("param T = 4\n" + HEAD + "loss = kd(big.logits -> tiny.logits, T={T})\n", "write `T`"),
    ("let T: float = 4\n" + WHOLE, "write `param NAME: float = VALUE`"),
    ("T = 4\n" + WHOLE + "train { epochs = T }\n", "define it by `let T = …` or `param T = …`"),
    ("import torch\n" + WHOLE, "remove the import"),
]


@pytest.mark.parametrize(("spec", "help"), SPECS)
def test_the_first_thing_that_is_said(spec: str, help: str) -> None:
    """The remedy of the first diagnostic names what to write."""
    with pytest.raises(SpecError) as caught:
        check_names(Source(spec, "s.brew"), {})
    assert help in caught.value.diagnostics[0].help


def test_the_spec_that_they_meant() -> None:
    """Without its mistake it has no fault."""
    check_names(Source(WHOLE, "s.brew"), {})


@pytest.mark.parametrize(
    "line", ["REM = 3\n", "x = 2\n    - 1\n", "x = [\n    --1,\n    2]\n", 'let text = "-- no comment"\n']
)
def test_what_is_no_comment(line: str) -> None:
    """A name, a line that goes on, a number turned round twice, a text."""
    check_names(Source(WHOLE + line, "s.brew"), {})
