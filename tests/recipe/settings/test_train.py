"""`train { }` and the arguments of sources: values, units, and what is said about wrong ones."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from brewgraph.diagnostics import Collector
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.settings.data_sources import Files
from brewgraph.recipe.settings.model_sources import Hf, Layers
from brewgraph.recipe.settings.train import Adamw, Constant, Cosine, Linear, Sgd, Slanted, Train
from brewgraph.recipe.values import Length
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.recipe.specs import fault, faults, names, spec


def test_defaults() -> None:
    """A spec without `train` trains with AdamW on a straight line."""
    train = names("").train
    assert train == Train()
    assert (train.optimizer, train.schedule, train.epochs, train.seed) == (Adamw(), Linear(), 3, 0)


def test_every_setting() -> None:
    """Numbers, words, calls, lengths and params."""
    train = names(
        """\
param n = 7
let rate = 1e-3
train {
    epochs = n; optimizer = adamw(lr=rate, betas=[0.9, 0.98], weight_decay=0); schedule = cosine(warmup=10%)
    precision = bf16; accumulate = 2; max_grad_norm = none; seed = 3
    eval_steps = 100 steps; save_steps = 0.5 epochs; baseline = true
}"""
    ).train
    assert train.epochs == 7
    assert train.optimizer == Adamw(lr=1e-3, betas=(0.9, 0.98), weight_decay=0)
    assert train.schedule == Cosine(warmup=Length(0.1, "share"))
    assert (train.precision, train.accumulate, train.max_grad_norm, train.seed) == ("bf16", 2, None, 3)
    assert (train.eval_steps, train.save_steps, train.baseline) == (Length(100, "step"), Length(0.5, "epoch"), True)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("trackers = [tensorboard, wandb]", ("tensorboard", "wandb")),
        ("trackers = mlflow", ("mlflow",)),
        ('trackers = ["trackio"]', ("trackio",)),
        ("trackers = []", ()),
        ("trackers = none", None),
        ("seed = 1", None),
    ],
)
def test_trackers_are_words(setting: str, expected: object) -> None:
    """One, several, none, or those that are installed."""
    assert names(f"train {{ {setting} }}").train.trackers == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("schedule = cosine", Cosine()),
        ("schedule = constant", Constant()),
        ("schedule = constant(warmup=100 steps)", Constant(warmup=Length(100, "step"))),
        ("schedule = linear", Linear()),
        ("schedule = slanted", Slanted()),
        ("schedule = slanted(warmup=100 steps, ratio=30)", Slanted(warmup=Length(100, "step"), ratio=30)),
        ("optimizer = adamw", Adamw()),
        ("optimizer = sgd(momentum=0.9)", Sgd(momentum=0.9)),
    ],
)
def test_calls_may_leave_their_brackets_out(setting: str, expected: object) -> None:
    """Each name stands for its own class, not for the first one whose fields fit."""
    train = names(f"train {{ {setting} }}").train
    found = getattr(train, setting.split()[0])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("train", "code", "place", "message", "help"),
    [
        ("epochz = 3", "B120", (4, 9), "`train` has no setting `epochz`", "did you mean `epochs`?"),
        ("epochs = 3; steps = 4", "B122", (4, 29), "set epochs or steps, not both", "remove one of them"),
        ("epochs = 3; epochs = 4", "B125", (4, 21), "`epochs` is given twice", "remove one of them"),
        ("epochs = 0", "B122", (4, 18), "`epochs`: it must be greater than 0, got `0`", "passes over"),
        ("epochs = -2", "B122", (4, 18), "`epochs`: it must be greater than 0, got `-2`", "passes over"),
        ("epochs = true", "B122", (4, 18), "`epochs` is not a boolean", "passes over the training data"),
        ('epochs = "a"', "B122", (4, 18), "`epochs`: expected a number, got `a`", "passes over"),
        ("epochs = nope", "B101", (4, 18), "there is no `nope`", "the spec has"),
        ("epochs = big", "B202", (4, 18), "`epochs` is a setting and needs a constant, got a model", "number"),
        ("epochs = 3 epochs", "B122", (4, 18), "`epochs`: expected a number", "passes over"),
        ("steps = 1.5", "B122", (4, 17), "`steps`: expected an integer, got `1.5`", "optimizer steps"),
        ("precision = bf61", "B122", (4, 21), "`precision` cannot be `bf61`", "did you mean `bf16`?"),
        ("precision = 3", "B122", (4, 21), "`precision` cannot be `3`", "'fp32', 'bf16' or 'fp16'"),
        ("baseline = 3", "B122", (4, 20), "`baseline`: expected true or false, got `3`", "without its"),
        ("seed = -1", "B122", (4, 16), "`seed`: it must be greater than or equal to 0, got `-1`", "random"),
        ("max_grad_norm = 0", "B122", (4, 25), "`max_grad_norm`: it must be greater than 0, got `0`", "clip"),
        ("optimizer = adam(lr=3)", "B101", (4, 21), "there is no optimizer `adam`", "write `optimizer = adamw(lr=5e-5)`; there are `adamw` and `sgd`"),
        ('optimizer = "adamw"', "B101", (4, 21), 'there is no optimizer `"adamw"`', "did you mean `adamw`?"),
        ("optimizer = adamw(lr=0)", "B122", (4, 30), "`lr`: it must be greater than 0, got `0`", "learning"),
        ("optimizer = adamw(3)", "B121", (4, 27), "`adamw` takes nothing without a name", "name it: `lr`"),
        ("optimizer = adamw(l=3)", "B120", (4, 27), "`adamw` has no setting `l`", "`lr`"),
        ("optimizer = adamw(lr=1, lr=2)", "B125", (4, 33), "`lr` is given twice", "remove one of them"),
        ("optimizer = adamw(lr=big)", "B202", (4, 30), "`lr` is a setting and needs a constant", "number"),
        ("optimizer = adamw(betas=[0.9])", "B122", (4, 33), "`betas`: wrong number of members", "means"),
        ("optimizer = adamw(key: 3)", "B121", (4, 27), "`adamw` takes no `key: value` arguments", "write `name=value`"),
        ("schedule = linear(warmup=10)", "B122", (4, 34), "`warmup`: a length needs a unit: 10%, 500 steps", "10%"),
        ("schedule = linear(warmup=120%)", "B122", (4, 34), "`warmup`: more than 100% of the training", "10%"),
        ('schedule = linear(warmup="a")', "B122", (4, 34), "`warmup`: a length needs a unit", "10%"),
        ("eval_steps = 100", "B122", (4, 22), "`eval_steps`: a length needs a unit", "how often to evaluate"),
        ("eval_steps = 0 steps", "B122", (4, 22), "`eval_steps`: the interval must be positive", "how"),
        ("let x = 3", "B110", (4, 9), "`train` holds settings only", "write `name = value`"),
    ],
)  # fmt: skip
def test_faulty_settings(train: str, code: str, place: tuple[int, int], message: str, help: str) -> None:
    """The caret is under the value, or under the name where that is wrong."""
    found = fault(f"train {{ {train} }}")
    assert (found.code, found.span.position) == (code, place)
    assert found.message.startswith(message)
    assert help in found.help


def test_train_twice() -> None:
    """Only the word is underlined, and the first is shown."""
    found = fault("train { epochs = 1 }\ntrain { epochs = 2 }")
    assert (found.code, found.span.text, found.span.position) == ("B105", "train", (5, 1))
    assert found.labels[0].span.position == (4, 1)
    assert found.help == "merge the two"


def test_all_faulty_settings_at_once() -> None:
    """Unknown names and wrong values of one block come together."""
    found = faults(spec("train { epohcs = 1; seed = -1; optimizer = adamw(lr=0); precision = fp8 }"))
    assert [d.code for d in found] == ["B120", "B122", "B122", "B122"]


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arguments_of_a_source() -> None:
    """Strings, lists, layers of another model, and whatever a configuration may hold."""
    recipe = names(
        'teacher t = hf("a", task="masked-lm", labels=["x", "y"], init=big.layers[0, 4], tokenizer=big, '
        "hidden_size=2 * 8)"
    )
    source = recipe.models["t"].source
    assert source == Hf(
        name="a",
        task="masked-lm",
        labels=("x", "y"),
        init=Layers(model="big", layers=(0, 4)),
        tokenizer="big",
        config={"hidden_size": 16},
    )


def test_a_model_may_start_from_one_layer() -> None:
    """A single number after `layers` is a list of one."""
    source = names('teacher t = hf("a", init=big.layers[3])').models["t"].source
    assert source == Hf(name="a", init=Layers(model="big", layers=(3,)))


def test_columns_are_bare_names() -> None:
    """They belong to the data, not to the spec, even where the spec has the same name."""
    text = spec("").replace('files(train="train.jsonl")', 'files(train="t.jsonl", text=[big, "other"], label=tiny)')
    assert faults(text) == ()
    from brewgraph.checking.check import check_names
    from brewgraph.source import Source

    source = check_names(Source(text), {}).data["d"].source
    assert isinstance(source, Files)
    assert (source.text, source.label) == (("big", "other"), "tiny")


@pytest.mark.parametrize(
    ("source", "code", "place", "message"),
    [
        ("hf", "B101", (4, 13), "`hf` needs parentheses"),
        ('"a"', "B101", (4, 13), 'there is no model source `"a"`'),
        ('files(train="a")', "B102", (4, 13), "`files` is no model source"),
        ("hff()", "B101", (4, 13), "there is no model source `hff`"),
        ("hf()", "B123", (4, 13), "a model needs either a name or a model_type"),
        ('hf("a", model_type="bert")', "B123", (4, 13), "a model needs either a name or a model_type"),
        ('hf(model_type="bert", revision="x")', "B123", (4, 44), "a model from scratch has no revision"),
        ('hf("a", "b")', "B121", (4, 21), "`hf` takes only `name` without a name"),
        ('hf("a", name="b")', "B125", (4, 21), "`name` is given twice"),
        ('hf("a", x=3, x=4)', "B125", (4, 26), "`x` is given twice"),
        ("hf(3)", "B122", (4, 16), "`name`: expected a string, got `3`"),
        ('hf("")', "B122", (4, 16), "`name`: string should have at least 1 character, got ``"),
        ('hf("a", task="tokens")', "B122", (4, 26), "`task` cannot be `tokens`"),
        ('hf("a", labels=3)', "B122", (4, 28), "`labels`: expected a list, got `3`"),
        ('hf("a", labels=[1, 2])', "B122", (4, 28), "`labels`: expected a string, got `1`"),
        ('hf("a", pretrained=3)', "B122", (4, 32), "`pretrained`: expected true or false, got `3`"),
        ('hf("a", vocab_size=0)', "B122", (4, 32), "`vocab_size`: it must be greater than 0, got `0`"),
        ('hf("a", init=big)', "B202", (4, 26), "`init` cannot be a model"),
        ('hf("a", init=big.layers[0:1])', "B203", (4, 26), "`layers` needs a list of numbers"),
        ('hf("a", init=big.layers)', "B203", (4, 26), "`layers` needs a list of numbers"),
        ('hf("a", init=3)', "B122", (4, 26), "`init`: expected layers of a model, got `3`"),
        ('hf("a", hidden_size=big.logits)', "B202", (4, 33), "`hidden_size` is a setting and needs a constant, got"),
        ('hf("a", hidden_size=d)', "B202", (4, 33), "`hidden_size` is a setting and needs a constant, got a"),
        ('hf("a", hidden_size=3 epochs)', "B202", (4, 33), "`hidden_size` is a setting and needs a constant, got"),
        ('hf("a", init=t.layers[0, 1])', "B108", (4, 9), "a name depends on itself: t -> t"),
        ("brew()", "B122", (4, 13), "`brew` needs `path`"),
        ('python("package")', "B122", (4, 20), "`target`: it is written module:name, got `package`"),
    ],
)
def test_faulty_model_sources(source: str, code: str, place: tuple[int, int], message: str) -> None:
    """The caret is under the argument, or under the whole call where something is missing."""
    found = fault(f"teacher t = {source}")
    assert (found.code, found.span.position) == (code, place)
    assert found.message.startswith(message)
    assert found.help


@pytest.mark.parametrize(
    ("source", "code", "column", "message", "help"),
    [
        ('files("a")', "B121", 16, "`files` takes nothing without a name", "name it: "),
        ("files()", "B122", 10, "`files` needs `train`", "add train=…"),
        ("files(train=a)", "B101", 22, "there is no `a`", 'strings need quotes: `"a"`'),
        ("files(train=ab/c-d.jsonl)", "B101", 22, "there is no `ab`", 'strings need quotes: `"ab/c-d.jsonl"`'),
        ('files(train="a", classes=[yes, "no"])', "B101", 35, "there is no `yes`", '`["yes", "no"]`'),
        ('files(train="a", batch=a)', "B101", 33, "there is no `a`", "the spec has"),
        ('files(train="a", batch=0)', "B122", 33, "`batch`: it must be greater than 0, got `0`", "all ranks"),
        ('files(train="a", batch=1.5)', "B122", 33, "`batch`: expected an integer or a number with its unit, got `1.5`", "ranks"),
        ('files(train="a", batch=true)', "B122", 33, "`batch` is not a boolean", "examples per batch"),
        ('files(train="a", batch_size=3)', "B120", 27, "`files` has no setting `batch_size`", "write `batch=32`"),
        ('files(train="a", text=3)', "B122", 32, "`text` names one or two columns", "text=[first, second]"),
        ('files(train="a", text=none)', "B122", 32, "`text` names one or two columns", "text=column"),
        ('files(train="a", text=[])', "B122", 32, "`text`: wrong number of members", "one or two"),
        ('files(train="a", text=[a, b, c])', "B122", 32, "`text`: wrong number of members", "one or two"),
        ('files(train="a", label=[a, b])', "B122", 10, "several label columns need problem_type=multi_label", "correct"),
        ('files(train="a", problem_type=regresion)', "B122", 40, "`problem_type` cannot be `regresion`", "`regression`"),
        ('files(train="a", class_weights=[0])', "B122", 41, "`class_weights`: it is `balanced`, or a list", "balanced"),
        ('conll(train="a", separator=tb)', "B122", 37, "`separator` cannot be `tb`", "did you mean `tab`?"),
        ('conll(train="a", tags=0)', "B122", 10, "words and tags cannot both be in column 0", "correct one of them"),
        ('squad(train="a", stride=384)', "B122", 10, "windows of 384 tokens cannot share 384", "correct one of them"),
        ('text(train="a", mask=3 epochs)', "B122", 31, "`mask`: expected a number or a percentage: 0.1 or 10%", "as 15%"),
        ('text(train="a", mask=120%)', "B122", 31, "`mask`: it must be less than 1", "as 15%"),
        ('glue("mnlii")', "B122", 15, "`task` cannot be `mnlii`", "did you mean `mnli`?"),
        ('builtin("python")', "B122", 18, "`name` cannot be `python`", "did you mean `python-docs`?"),
        ('file(train="a")', "B101", 10, "there is no data source `file`", "did you mean `files`?"),
        ('hf("a")', "B102", 10, "`hf` is no data source", "teacher NAME = hf(…)"),
    ],
)  # fmt: skip
def test_faulty_data_sources(source: str, code: str, column: int, message: str, help: str) -> None:
    """The only data set, so that nothing else is at fault."""
    found = faults(spec("").replace('files(train="train.jsonl")', source))
    assert [(d.code, d.span.position) for d in found] == [(code, (3, column))]
    assert found[0].message.startswith(message)
    assert help in found[0].help


def test_settings_are_strict_from_python_too() -> None:
    """Whoever builds them in Python meets the same rules."""
    with pytest.raises(ValidationError, match="set epochs or steps, not both"):
        Train(epochs=1, steps=2)
    with pytest.raises(ValidationError, match="a length needs a unit"):
        Linear(warmup=10)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Files(train="a", shuffle=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("data", ['squad(train="a", max_length=32)', 'conll(train="a", tags=0)'])
def test_one_fault_of_data_is_one_fault(data: str) -> None:
    """What its labels would have been is not guessed, whatever is made of them."""
    text = f'student s = hf("x")\ndata d = {data}\nloss = ce(d.start -> s.start) + ce(d.labels -> s.logits)\n'
    assert [(d.code, d.span.position) for d in faults(text)] == [("B122", (2, 10))]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("epochs = 5\n", ["write `train { epochs = 5 }`"]),
        ("let batch_size = 8\n", ["the batch size belongs to the data: `data d = files(…, batch=32)`"]),
        ("lr = 1e-4\nwarmup = 10%\n", ["write `optimizer = adamw(lr=5e-5)`", "write `schedule = linear(warmup=10%)`"]),
        ('model = "bert"\n', ['models are statements outside `train`: `teacher big = hf("folder")`']),
        ("let epochs = 5\ntrain { epochs = epochs }\n", []),
        ('let seed = 1\ndata more = files(train="{seed}.csv")\n', []),
        ("param epochs = 5\n", []),
        ("alpha = 0.5\nterm = alpha * kd(big.logits -> tiny.logits)\n", []),
        ("temperature = kd(big.logits -> tiny.logits)\n", []),
        ("colour = 3\n", []),
    ],
)
def test_settings_that_nothing_reads(lines: str, said: list[str]) -> None:
    """A constant that is called like a setting and that no expression or text reads gets W406 and its remedy."""
    source, collector = Source(spec(lines), "s.brew"), Collector()
    elaborate(parse(source, collector), source, {}, collector)
    assert not [d for d in collector.errors if d.code != "B112"]
    assert [d.help for d in collector.sorted() if d.code == "W406"] == said


@pytest.mark.parametrize("place", ["train { epochs = n }", 'data more = files(train="a.csv", batch=n)'])
def test_an_equation_is_no_constant(place: str) -> None:
    """A number that is given a name by an equation belongs to losses; `let` and `param` make constants."""
    (found,) = [d for d in faults(spec(f"n = 5\n{place}")) if d.code == "B202"]
    assert found.message.endswith("is a setting and needs a constant, got an equation")
    assert found.help == "define it by `let n = …` or `param n = …`"
    assert not [d for d in faults(spec(f"let n = 5\n{place}")) if d.code == "B202"]
