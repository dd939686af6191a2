"""Faulty specs beside their right neighbours.

Each entry has what is wrong in a few words, the faulty lines and the right ones (both behind `world.HEAD`, so that they
begin in line 4, and before `world.LOSS`), then what the check says of the faulty ones: code, line, column, the
underlined text, a part of the message and a part of the help.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.world import TINY


@dataclass(frozen=True)
class Pair:
    """One fault and its right neighbour."""

    what: str
    wrong: str
    right: str
    code: str
    place: tuple[int, int]
    text: str
    message: str
    help: str

    def __str__(self) -> str:
        return self.what


NAMES = [
    # ── text and syntax ──────────────────────────────────────────────────────────────────────────────────────────────
    Pair("bracket left open", "x = kd(big.logits -> tiny.logits", "x = kd(big.logits -> tiny.logits)",
         "B001", (4, 7), "(", "unclosed", "add the closing bracket"),
    Pair("bracket closed twice", "x = kd(big.logits -> tiny.logits))", "x = kd(big.logits -> tiny.logits)",
         "B002", (4, 34), ")", "unmatched", "remove it"),
    Pair("string without end", 'let s = "a', 'let s = "a"', "B003", (4, 9), '"a', "unclosed string", "end it with"),
    Pair("two equal signs", "x == 3", "x = 3", "B010", (4, 4), "=", "`==` is not valid", "write one `=`"),
    Pair("single quotes", "let s = 'a'", 'let s = "a"', "B011", (4, 9), "'", "is not valid here", "double quotes"),
    Pair("two arrows", "let m = [0] -> [1] -> [2]", "let m = [0] -> [1]",
         "B010", (4, 20), "->", "only one arrow", "two sides"),
    Pair("unknown version", "brew 2", "brew 1", "B104", (4, 1), "brew 2", "version 2", "supports `brew 1`"),
    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────
    Pair("unknown model", "x = kd(bgi.logits -> tiny.logits)", "x = kd(big.logits -> tiny.logits)",
         "B101", (4, 8), "bgi", "there is no `bgi`", "did you mean `big`?"),
    Pair("unknown operation", "x = msee(big.pooled -> tiny.pooled via linear)",
         "x = mse(big.pooled -> tiny.pooled via linear)",
         "B101", (4, 5), "msee", "there is no operation `msee`", "did you mean `mse`?"),
    Pair("unknown feature", "x = kd(big.logit -> tiny.logits)", "x = kd(big.logits -> tiny.logits)",
         "B103", (4, 12), "logit", "no feature `logit`", "did you mean `logits`?"),
    Pair("unknown projection", "x = mse(big.pooled -> tiny.pooled via lineer)",
         "x = mse(big.pooled -> tiny.pooled via linear)",
         "B101", (4, 39), "lineer", "there is no projection `lineer`", "did you mean `linear`?"),
    Pair("name in a string", 'let s = "layer.{k}"', 'param k = 1\nlet s = "layer.{k}"',
         "B101", (4, 16), "{k}", "there is no `k`", "the spec has"),
    Pair("name given twice", "x = 1\nx = 2", "x = 1\ny = 2", "B105", (5, 1), "x", "given twice", "rename one"),
    Pair("circle", "a = 2 * b\nb = 2 * a", "a = 2 * b\nb = 2",
         "B108", (4, 1), "a", "a name depends on itself: a -> b -> a", "break the circle"),
    Pair("source in an equation", 'x = hf("a")', 'teacher x = brew("teacher.brew")',
         "B102", (4, 5), "hf", "`hf` cannot be used in an equation", "teacher NAME = hf(…)"),
    Pair("optimizer in an equation", "x = adamw(lr=1e-3)", "train { optimizer = adamw(lr=1e-3) }",
         "B102", (4, 5), "adamw", "cannot be used in an equation", "optimizer = adamw(…)"),
    Pair("projection as a schedule", "train { schedule = relu() }", "train { schedule = linear() }",
         "B102", (4, 20), "relu", "`relu` is no schedule", "x via relu"),
    Pair("param without a value", "param T", "param T = 4", "B106", (4, 7), "T", "has no value", "--set T=…"),
    Pair("param of another type", "param T: int = 0.5", "param T: float = 0.5",
         "B109", (4, 7), "T", "the param `T` must be int, got 0.5", "correct the value"),
    # ── numbers, lists, maps ─────────────────────────────────────────────────────────────────────────────────────────
    Pair("division by zero", "let x = 1 / 0", "let x = 1 / 2",
         "B207", (4, 9), "1 / 0", "division by zero", "correct one of the numbers"),
    Pair("layer map of unequal sides", "let m = [0, 1] -> [0]", "let m = [0, 1] -> [0, 1]",
         "B201", (4, 9), "[0, 1] -> [0]", "equally many layers on both sides, got 2 and 1", "pair each layer"),
    Pair("layer map without a side",
         "let m = [0] -> [1]\ny = big.hidden[m]", "let m = [0] -> [1]\ny = big.hidden[m.from]",
         "B205", (5, 16), "m", "as an index needs an arrow", "`m.from` or `m.to`"),
    Pair("lists of unequal length", "x = nst(big.hidden[0, 1] -> tiny.hidden[0, 1, 2])",
         "x = nst(big.hidden[0, 1, 3] -> tiny.hidden[0, 1, 2])",
         "B201", (4, 5), "nst(big.hidden[0, 1] -> tiny.hidden[0, 1, 2])", "a list of 2 cannot be paired", "layer map"),
    Pair("index that is not a number",
         'x = nst(big.hidden["a"] -> tiny.hidden[0])', "x = nst(big.hidden[1] -> tiny.hidden[0])",
         "B203", (4, 20), '"a"', "an index must be an integer", "count from 0"),
    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────
    Pair("arrow turned round", "x = ce(tiny.logits -> d.labels)", "x = ce(d.labels -> tiny.logits)",
         "B210", (4, 8), "tiny.logits -> d.labels", "does not compare logits with labels", "reverse the arrow"),
    Pair("no arrow", "x = kd(big.logits, tiny.logits)", "x = kd(big.logits -> tiny.logits)",
         "B209", (4, 8), "big.logits", "the two sides of an arrow", "kd(teacher.… -> student.…)"),
    Pair("a whole row", "x = nst(big.hidden -> tiny.hidden[0])", "x = nst(big.hidden[:] -> tiny.hidden[0])",
         "B202", (4, 9), "big.hidden", "one value per layer", "`big.hidden[:]`"),
    Pair("temperature of zero", "x = kd(big.logits -> tiny.logits, T=0)", "x = kd(big.logits -> tiny.logits, T=1)",
         "B207", (4, 37), "0", "a temperature must be positive", "T=1"),
    Pair("number added to a loss", "x = ce(d.labels -> tiny.logits) + 1", "x = ce(d.labels -> tiny.logits) * 1",
         "B208", (4, 5), "ce(d.labels -> tiny.logits) + 1", "a number cannot be added to a loss", "`0.5 * x`"),
    Pair("product of losses",
         "x = ce(d.labels -> tiny.logits)\ny = x * x", "x = ce(d.labels -> tiny.logits)\ny = x + x",
         "B208", (5, 5), "x * x", "two losses cannot be multiplied", "how the batch is split"),
    Pair("sum of one tensor", "x = sum(big.hidden[0])", "x = sum(big.hidden[:])",
         "B211", (4, 5), "sum(big.hidden[0])", "reduces a list, got hidden states", "mse("),
    Pair("unknown option", "x = kd(big.logits -> tiny.logits, tau=4)", "x = kd(big.logits -> tiny.logits, T=4)",
         "B120", (4, 35), "tau", "takes no option `tau`", "write `T=4`"),
    Pair("unknown mask", "x = nst(big.hidden[0] -> tiny.hidden[0], mask=pair)",
         "x = nst(big.hidden[0] -> tiny.hidden[0], mask=pairs)",
         "B122", (4, 47), "pair", "unknown mask", "did you mean `pairs`?"),
    Pair("model projected", "x = mse(big.pooled -> tiny via linear)", "x = mse(big.pooled -> tiny.pooled via linear)",
         "B212", (4, 23), "tiny", "a projection maps features, got a model", "via linear"),
    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────
    Pair("learning_rate", "train { learning_rate = 1e-4 }", "train { optimizer = adamw(lr=1e-4) }",
         "B120", (4, 9), "learning_rate", "no setting `learning_rate`", "optimizer = adamw(lr=5e-5)"),
    Pair("num_train_epochs", "train { num_train_epochs = 3 }", "train { epochs = 3 }",
         "B120", (4, 9), "num_train_epochs", "no setting `num_train_epochs`", "write `epochs = 3`"),
    Pair("clip", "train { clip = 1 }", "train { max_grad_norm = 1 }",
         "B120", (4, 9), "clip", "no setting `clip`", "max_grad_norm"),
    Pair("epochs and steps", "train { epochs = 1; steps = 9 }", "train { steps = 9 }",
         "B122", (4, 29), "9", "set epochs or steps, not both", "remove one"),
    Pair("warmup without unit",
         "train { schedule = linear(warmup=100) }", "train { schedule = linear(warmup=100 steps) }",
         "B122", (4, 34), "100", "a length needs a unit", "500 steps"),
    Pair("two trains", "train { seed = 1 }\ntrain { epochs = 1 }", "train { seed = 1; epochs = 1 }",
         "B105", (5, 1), "train", "`train` appears twice", "merge the two"),
    Pair("function to come", "x = generate(big.logits -> tiny.logits)", "x = kd(big.logits -> tiny.logits)",
         "B901", (4, 5), "generate", "`generate` is not supported yet", "remove it"),
]  # fmt: skip
"""What is found without any model, in a moment."""

SHAPES = [
    Pair("path of a tap", 'tap t = big @ "encoder.layer.9"', 'tap t = big @ "encoder.layer.2"',
         "B301", (4, 15), '"encoder.layer.9"', "has no module `encoder.layer.9`", "did you mean"),
    Pair("tap of a ModuleList", 'tap t = big @ "encoder.layer"', 'tap t = big @ "encoder.layer.*"',
         "B302", (4, 15), '"encoder.layer"', "a container that is never called", '"encoder.layer.*"'),
    Pair("layer out of range", "x = nst(big.hidden[4] -> tiny.hidden[0])", "x = nst(big.hidden[3] -> tiny.hidden[0])",
         "B206", (4, 20), "4", "4 is out of range", "`hidden` has 4 members, 0 to 3"),
    Pair("rows of unequal length",
         "x = nst(big.hidden[:] -> tiny.hidden[:])", "x = nst(big.hidden[:3] -> tiny.hidden[:])",
         "B201", (4, 5), "nst(big.hidden[:] -> tiny.hidden[:])", "a list of 4 cannot be paired with a list of 3",
         "map"),
    Pair("widths", "x = mse(big.hidden[0] -> tiny.hidden[0])", "x = mse(big.hidden[0] -> tiny.hidden[0] via linear)",
         "B204", (4, 26), "tiny.hidden[0]", "widths differ and nothing projects", "`tiny.hidden[0] via linear`"),
    Pair("width of a projection", "x = mse(big.pooled -> tiny.pooled via linear(9 -> 16))",
         "x = mse(big.pooled -> tiny.pooled via linear(8 -> 16))",
         "B204", (4, 23), "tiny.pooled via linear(9 -> 16)", "takes width 9, but this has width 8", "leave the sizes out"),
    Pair("projection outside an arrow", "x = tiny.pooled via linear", "x = tiny.pooled via linear(8 -> 4)",
         "B215", (4, 5), "tiny.pooled via linear", "a projection needs its sizes", "`linear(8 -> …)`"),
    Pair("heads",
         'teacher b = hf(model_type="bert", num_attention_heads=4, hidden_size=8, vocab_size=60)\n'
         "x = mse(b.attention[0] -> tiny.attention[0])", "x = mse(big.attention[0] -> tiny.attention[0])",
         "B204", (5, 27), "tiny.attention[0]", "the numbers of heads differ", "num_attention_heads"),
    Pair("mask of another unit", "x = nst(big.hidden[0] -> tiny.hidden[0], mask=tokens)",
         "x = nst(big.hidden[0] -> tiny.hidden[0], mask=none)",
         "B217", (4, 5), "nst(big.hidden[0] -> tiny.hidden[0], mask=tokens)", "one value per pair", "`mask=pairs`"),
    Pair("unknown configuration", 'teacher b = hf(model_type="bert", hiden_size=8)',
         'teacher b = hf(model_type="bert", hidden_size=12)',
         "B313", (4, 46), "8", "has no `hiden_size`", "did you mean `hidden_size`?"),
    Pair("unknown architecture", 'teacher b = hf(model_type="brt")', 'teacher b = hf(model_type="bert")',
         "B312", (4, 27), '"brt"', "no architecture `brt`", "did you mean"),
    Pair("impossible configuration",
         'teacher b = hf(model_type="bert", hidden_size=9, num_attention_heads=2)\n'
         "x = nst(b.hidden[0] -> tiny.hidden[0])",
         'teacher b = hf(model_type="bert", hidden_size=8, num_attention_heads=2, vocab_size=60)\n'
         "x = nst(b.hidden[0] -> tiny.hidden[0])",
         "B306", (4, 13), 'hf(model_type="bert", hidden_size=9, num_attention_heads=2)',
         "not a multiple", "sizes must fit"),
    Pair("folder without a model", 'teacher b = hf("./empty")', 'teacher b = brew("teacher.brew")',
         "B310", (4, 16), '"./empty"', "holds no model", "config.json"),
    Pair("folder of a run", 'teacher b = hf("runs/one")', 'teacher b = hf("runs/one/student")',
         "B310", (4, 16), '"runs/one"', "`runs/one` is the folder of a run", "the folder of the model in it: `runs/one/student`"),
    Pair("folder of a run for its tokenizer", f'teacher b = hf({TINY}, tokenizer="runs/one")'.replace("vocab_size=60, ", ""),
         f'teacher b = hf({TINY}, tokenizer="runs/one/student")'.replace("vocab_size=60, ", ""),
         "B314", (4, 117), '"runs/one"', "`runs/one` is the folder of a run",
         "the folder of the tokenizer in it: `runs/one/student`"),
    Pair("run in place of a spec", 'teacher b = brew("runs/one")', 'teacher b = brew("teacher.brew")',
         "B321", (4, 18), '"runs/one"', "cannot be read", '`hf("runs/one/student")`'),
    Pair("folder around checkpoints", 'teacher b = hf("out")', 'teacher b = hf("out/step-5")',
         "B310", (4, 16), '"out"', "`out` holds no model", "`out/step-5`"),
    Pair("file in place of a model", 'teacher b = hf("teacher.brew")', 'teacher b = brew("teacher.brew")',
         "B310", (4, 16), '"teacher.brew"', "is a file, and a model is a folder", "save_pretrained"),
    Pair("missing folder", 'teacher b = hf("./nowhere")', 'teacher b = brew("teacher.brew")',
         "B310", (4, 16), '"./nowhere"', "there is no folder `./nowhere`", "spec's folder"),
    Pair("missing spec", 'teacher b = brew("teachr.brew")', 'teacher b = brew("teacher.brew")',
         "B321", (4, 18), '"teachr.brew"', "there is no file", "paths are relative to this spec's folder"),
    Pair("spec that builds on itself", 'teacher b = brew("spec.brew")', 'teacher b = brew("teacher.brew")',
         "B322", (4, 18), '"spec.brew"', "specs build on each other in a circle: spec.brew -> spec.brew", "break the"),
]  # fmt: skip
"""What only models show."""


@dataclass(frozen=True)
class Change:
    """A fault that lies in the head: a piece of it, replaced by the wrong one and by a right one."""

    what: str
    old: str
    wrong: str
    right: str
    code: str
    text: str
    message: str
    help: str

    def __str__(self) -> str:
        return self.what


HEADS = [
    Change("missing file", '"train.jsonl"', '"trian.jsonl"', '"train.jsonl"',
           "B401", '"trian.jsonl"', "there is no file `trian.jsonl`", "did you mean `train.jsonl`?"),
    Change("unknown format", '"train.jsonl"', '"odd.xyz"', '"train.jsonl"',
           "B404", '"odd.xyz"', "`odd.xyz` has no format", "`.jsonl`"),
    Change("missing column", "batch=4", "batch=4, text=txet", "batch=4, text=text",
           "B402", "txet", "has no column `txet`", "did you mean `text`?"),
    Change("missing label column", "batch=4", "batch=4, label=lable", "batch=4, label=number",
           "B402", "lable", "has no column `lable`", "did you mean `label`?"),
    Change("labels with holes", '"train.jsonl"', '"holes.jsonl", label=label', '"train.jsonl", label=label',
           "B403", "label", "the label in row 1 of `holes.jsonl` is", ""),
    Change("labels of dev that train lacks", "batch=4", 'batch=4, label=label, dev="strange.jsonl"',
           'batch=4, label=label, dev="train.jsonl"',
           "B403", "label", "the label in row 1 of `strange.jsonl` is 'yes', which no training row has",
           "the classes are `n` and `y`"),
    Change("label column twice", '"train.jsonl"', '"twice.csv", label=label', '"train.jsonl", label=label',
           "B411", "label", "`twice.csv` has two columns `label`", "rename one of them in the header"),
    Change("quote never closed", '"train.jsonl"', '"open.csv"', '"open.csv", quoting=false',
           "B404", '"open.csv"', "`open.csv` has a quote in row 2 that is never closed", "`quoting=false`"),
    Change("quotes in tsv", '"train.jsonl"', '"tabs.tsv"', '"tabs.tsv", quoting=true',
           "B404", '"tabs.tsv"', "`tabs.tsv` has 3 fields in line 3, and 2 names in its header", "`quoting=true`"),
    Change("classes that leave one out", '"train.jsonl"', '"stars.csv", classes=["1", "2", "3", "5"]',
           '"stars.csv", classes=["1", "2", "3", "4", "5"]',
           "B403", '["1", "2", "3", "5"]', "`classes` leaves out `4`, which training rows have",
           "the data's are `1`, `2`, `3`, `4` and `5`"),
    Change("names for labels that count from one", '"train.jsonl"', '"stars.csv", classes=["a", "b", "c", "d", "e"]',
           '"stars.csv", classes=["0", "a", "b", "c", "d", "e"]',
           "B403", '["a", "b", "c", "d", "e"]',
           "`stars.csv` has the label 5, and `classes` names 5, counted from 0 to 4", "subtract 1 from each"),
    Change("batch of none", "batch=4", "batch=0", "batch=1",
           "B122", "0", "`batch`: it must be greater than 0", "examples per batch"),
    Change("text longer than positions", "max_length=16", "max_length=64", "max_length=32",
           "B320", "64", "`tiny` has 32 positions, but examples have up to 64 tokens", "max_length=32"),
    Change("classes", "hidden_size=8,", 'labels=["n"], hidden_size=8,', 'labels=["n", "y"], hidden_size=8,',
           "B323", "ce(d.labels -> tiny.logits)", "the data has 2 classes, `tiny` only 1", "labels=[…]"),
    Change("order of classes", "hidden_size=8,", 'labels=["y", "n"], hidden_size=8,',
           'labels=["n", "y"], hidden_size=8,',
           "B324", "ce(d.labels -> tiny.logits)", "differently", "the model's: y, n; the data's: n, y"),
]  # fmt: skip
"""What only data shows, and what models and data show together."""
