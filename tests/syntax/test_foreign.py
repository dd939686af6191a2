"""Words of other tools: each entry of the table gives its remedy where people write it, and the remedy is sound."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import pytest

from brewgraph.checking.check import check_names
from brewgraph.cli.main import COMMANDS, about_command, about_option
from brewgraph.convert.convert import Script, convert
from brewgraph.diagnostics import Diagnostic, SourceFault, SpecError, suggest
from brewgraph.inspect.targets import model_of_call
from brewgraph.ops import OPERATIONS
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.recipe.settings.metric_names import validate_metric
from brewgraph.recipe.settings.train import Train
from brewgraph.source import Source
from brewgraph.syntax.foreign import Instead, foreign_words, from_outside, instead

TABLE = foreign_words()
OWN = TABLE["own setting"]
BIG, TINY = 'teacher big = hf("bert")\n', 'student tiny = hf("small")\n'
MODELS = BIG + TINY
DATA = 'data d = files(train="train.jsonl", dev="dev.jsonl")\n'
LOSS = "loss = kd(big.logits -> tiny.logits)\n"
TERMS = "soft = kd(big.logits -> tiny.logits)\nhard = ce(d.labels -> tiny.logits)\n"
PLACES = {
    "setting": MODELS + DATA + LOSS + "train {{ {0} = 1 }}",
    "call": MODELS + DATA + "loss = 0 * kd(big.logits -> tiny.logits) + {0}(big.logits -> tiny.logits)",
    "optimizer": MODELS + DATA + LOSS + "train {{ optimizer = {0}(lr=1e-4) }}",
    "schedule": MODELS + DATA + LOSS + "train {{ schedule = {0} }}",
    "model source": 'teacher big = {0}("bert")\nstudent tiny = hf("small")\n' + DATA + LOSS,
    "data source": MODELS + 'data d = {0}("a")\n' + LOSS,
    "feature": MODELS + DATA + "loss = mse(big.{0} -> tiny.logits)",
    "name": MODELS + DATA + LOSS + "x = {0}",
    "option": MODELS + DATA + "loss = kd(big.logits -> tiny.logits, {0}=4)",
    "projection": MODELS + DATA + "loss = mse(big.hidden[1] -> tiny.hidden[1] via {0})",
    "statement": MODELS + DATA + LOSS + "{0} x",
    "word": MODELS + DATA + LOSS + "x = 1 {0} 2",
}
FOLLOWED = {
    "setting": MODELS + DATA + LOSS + "train {{ {0} }}",
    "call": MODELS + DATA + LOSS + "x = {0}",
    "optimizer": MODELS + DATA + LOSS + "train {{ {0} }}",
    "schedule": MODELS + DATA + LOSS + "train {{ {0} }}",
    "model source": 'teacher big = {0}\nstudent tiny = hf("small")\n' + DATA + LOSS,
    "data source": MODELS + "data d = {0}\n" + LOSS,
    "feature": MODELS + DATA + LOSS + "x = tiny.{0}",
    "name": MODELS + DATA + LOSS + "x = {0}",
    "option": MODELS + DATA + "loss = kd(big.logits -> tiny.logits, {0})",
    "projection": MODELS + DATA + "loss = mse(big.hidden[1] -> tiny.hidden[1] via {0})",
}
ENTRIES = [(place, word) for place, words in TABLE.items() if place in PLACES for word in words]
OPTION_SPECS = {"heads": "loss = mse(relation(big.hidden[1], {0}) -> relation(tiny.hidden[1], {0}))"}
"""Where an option stands that `kd` does not have."""


def faults(spec: str, **given: object) -> tuple[Diagnostic, ...]:
    """What a check of names says of a spec."""
    try:
        check_names(Source(spec, "s.brew"), given)
    except SpecError as error:
        return error.diagnostics
    return ()


def in_place(place: str, word: str, write: str) -> str:
    """A spec with a word at its place."""
    special = OPTION_SPECS.get(write.partition("=")[0]) if place == "option" else None
    return MODELS + DATA + special.format(f"{word}=4") if special else PLACES[place].format(word)


@pytest.mark.parametrize(("place", "word"), ENTRIES)
def test_a_foreign_word_gets_its_remedy(place: str, word: str) -> None:
    """Written where people write it, each word is a fault at its place, and the help is that of the table."""
    entry = TABLE[place][word]
    helps = [d.help for d in faults(in_place(place, word, entry.write))]
    assert instead(place, word, [entry.write.partition("=")[0]]) == entry.help
    assert any(entry.help in help for help in helps), (place, word, helps)


@pytest.mark.parametrize(
    ("place", "write"),
    sorted({(place, TABLE[place][word].write) for place, word in ENTRIES if TABLE[place][word].write}),
)
def test_the_remedy_is_sound(place: str, write: str) -> None:
    """What the table says to write passes the check of names where it is written."""
    if place == "statement":
        spec = with_statement(write)
    elif place == "option" and write.partition("=")[0] in OPTION_SPECS:
        spec = MODELS + DATA + OPTION_SPECS[write.partition("=")[0]].format(write)
    elif place == "name" and write in ("true", "false", "none"):
        spec = MODELS + DATA + LOSS + f"let x = {write}"
    else:
        spec = FOLLOWED[place].format(write)
    assert [d for d in faults(spec) if d.severity == "error"] == []


def with_statement(piece: str) -> str:
    """A spec with a statement, or the expression of one, in the place of what it has of that kind."""
    piece = piece.replace("…", 'train="train.jsonl"').replace("VALUE", "3")
    if piece.startswith("sample"):
        return MODELS + DATA + f"task a {{ {LOSS.strip()} }}\ntask b {{ {LOSS.strip()} }}\n{piece}"
    words = ("brew", "teacher", "student", "data", "loss", "cache", "tap", "stage", "task", "train", "param", "proj")
    if not piece.startswith(words):
        piece = f"x = {piece}"
    lines = [BIG, TINY, DATA, *TERMS.splitlines(keepends=True), LOSS]
    first = " ".join(piece.split()[:2])
    kept = [
        line for line in lines if not line.startswith(first) and not (piece[:5] in ("stage", "task ") and line == LOSS)
    ]
    begin = f"{piece}\n" if piece.startswith("brew") else ""
    return begin + "".join(kept) + ("" if begin else piece)


@pytest.mark.parametrize(
    "piece", sorted({e.elsewhere for words in TABLE.values() for e in words.values() if e.elsewhere})
)
def test_what_stands_elsewhere_is_sound(piece: str) -> None:
    """What is said to stand at another place passes the check of names there."""
    assert [d for d in faults(with_statement(piece)) if d.severity == "error"] == []


FILES = 'files(train="a.jsonl", {0})'
ARGUMENT_SPECS = {
    **dict.fromkeys(("batch", "max_length", "dev", "test", "label", "text", "classes", "problem_type", "weight"), FILES),
    "train": "files({0})", "quoting": FILES, "stride": 'squad(train="a.json", {0})',
    "mask": 'text(train="a.txt", {0})', "block": 'text(train="a.txt", {0})',
    **dict.fromkeys(("lr", "betas", "eps", "weight_decay", "momentum"), "adamw({0})"),
    **dict.fromkeys(("warmup", "num_training_steps", "num_cycles", "total_steps"), "linear({0})"),
    **dict.fromkeys(("alpha", "r", "target", "dropout"), "lora({0})"), "p": "masking({0})",
}  # fmt: skip
"""Where an argument stands: by the one to write, else by the word itself, else in `files(…)`."""


def with_argument(call: str) -> str:
    if call.startswith(("adamw", "linear")):
        name = "optimizer" if call.startswith("adamw") else "schedule"
        return MODELS + DATA + LOSS + f"train {{ {name} = {call} }}"
    if call.startswith("lora"):
        return BIG + f'student tiny = hf("small", adapter={call})\n' + DATA + LOSS
    if call.startswith("masking"):
        call = FILES.format(f"augment={call}")
    return MODELS + f"data d = {call}\n" + LOSS


@pytest.mark.parametrize("word", TABLE["argument"])
def test_an_argument_of_other_tools(word: str) -> None:
    """The help names the argument here, and following it passes the check."""
    entry = TABLE["argument"][word]
    call = ARGUMENT_SPECS.get(entry.write.partition("=")[0] or word, FILES)
    assert entry.help in [d.help for d in faults(with_argument(call.format(f"{word}=1")))]
    if entry.write:
        assert faults(with_argument(call.format(entry.write))) == ()


MODEL = 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, {0})'


@pytest.mark.parametrize("word", TABLE["configuration"])
def test_a_keyword_of_a_model(word: str) -> None:
    """The help names the keyword here, and following it makes a model."""
    entry = TABLE["configuration"][word]
    with pytest.raises(SpecError) as caught:
        _ = model_of_call(MODEL.format(f"{word}=1"))
    assert [d.help for d in caught.value.diagnostics] == [entry.help]


@pytest.mark.parametrize("write", sorted({e.write for e in TABLE["configuration"].values() if e.write}))
def test_the_keyword_that_is_named_is_one(write: str) -> None:
    """It stands in place of the one that is there, as far as there is one."""
    key = write.partition("=")[0]
    if key in ("name", "adapter"):  # not of a model from scratch
        return
    _ = model_of_call(re.sub(rf"{key}=[^,]*, ", "", MODEL).format(write))


@pytest.mark.parametrize("word", TABLE["metric"])
def test_a_metric_of_other_tools(word: str) -> None:
    """Offered for the kind of labels that has it, and taken there; not for others."""
    write = TABLE["metric"][word].write
    for kind in LABEL_TYPES.values():
        if word in kind.metrics:
            continue
        with pytest.raises(SourceFault) as caught:
            validate_metric(word, {"": kind})
        assert caught.value.help.startswith(f"write `{write}`") == (write in kind.metrics), kind
    assert [validate_metric(write, {"": kind}) for kind in LABEL_TYPES.values() if write in kind.metrics]


@pytest.mark.parametrize("word", TABLE["configuration of TextBrewer"])
def test_a_setting_of_textbrewer(word: str) -> None:
    """In a configuration that is converted."""
    with pytest.raises(SpecError) as caught:
        convert([Source(f'{{"temperature": 8, "{word}": 1}}', "a.json")], Script())
    assert [d.help for d in caught.value.diagnostics] == [TABLE["configuration of TextBrewer"][word].help]


@pytest.mark.parametrize("word", TABLE["command"])
def test_a_command_of_other_tools(word: str) -> None:
    """The message names a command that is there."""
    entry = TABLE["command"][word]
    assert about_command(word, [], list(COMMANDS)) == f"there is no command `{word}`: {entry.help}"
    assert word not in COMMANDS
    named = re.findall(r"brewgraph ([\w-]+)", entry.help)
    assert set(named) <= {*COMMANDS, "--help", "--version"}


RUN = ["--out", "--runs", "--set", "--force", "--dry-run", "--without-teacher", "--allow-python", "--deny", "--quiet"]


@pytest.mark.parametrize("word", TABLE["command option"])
def test_an_option_of_other_commands(word: str) -> None:
    """With dashes or underscores; an option that the command does not have is not offered."""
    entry = TABLE["command option"][word]
    assert about_option(f"--{word}", [*RUN, "--format"]) == entry.help
    assert about_option(f"--{word.replace('-', '_')}", [*RUN, "--format"]) == entry.help
    if entry.write:
        assert f"write `{entry.write}`" not in about_option(f"--{word}", ["--help"])


def test_every_setting_has_its_example() -> None:
    """Those who write a setting elsewhere are told how it stands in `train`."""
    assert set(OWN) == set(Train.model_fields)


@pytest.mark.parametrize("word", {**OWN, **TABLE["setting"]})
def test_a_setting_given_with_the_command(word: str) -> None:
    """`--lr 1e-3`, and `--set lr=1e-3` without such a param: the spec that the help describes takes the value."""
    help = from_outside(word)
    spec = MODELS + DATA + TERMS + LOSS
    if word not in TABLE["command option"]:
        option = word.replace("_", "-")
        if option.lower() not in TABLE["command option"]:
            assert about_option(f"--{option}", ["--set"]) == help
        assert help in faults(spec, **{word: 1})[0].help
    if param := re.search(r"write `param (\w+) = (.+?)` and `(.+)` there, then `--set (\w+)=…`", help):
        name, value, used, given = param.groups()
        assert name == given
        spec = f"param {name} = {value}\n" + with_statement(used)
        assert faults(spec) == ()
        assert faults(spec, **{name: check_names(Source(spec, "s.brew"), {}).params[name]}) == ()
    elif word in OWN or TABLE["setting"][word].write or TABLE["setting"][word].elsewhere:
        assert faults(with_statement(help.partition(": ")[2].strip("`"))) == ()
    else:
        assert help == TABLE["setting"][word].remark


def test_a_param_in_place_of_a_value() -> None:
    """Numbers and words may come from a param; lengths, lists and sums stand in the spec."""
    assert from_outside("lr") == (
        "it is a setting of the spec: write `param lr = 5e-5` and `train { optimizer = adamw(lr=lr) }` there, "
        "then `--set lr=…`"
    )
    assert from_outside("warmup").endswith("it is a setting of the spec: `train { schedule = linear(warmup=10%) }`")
    assert from_outside("batch_size") == (
        "the batch size belongs to the data: write `param batch = 32` and `data d = files(…, batch=batch)` there, "
        "then `--set batch=…`"
    )
    assert from_outside("colour") == ""


def test_an_option_is_offered_only_where_it_is_known() -> None:
    """`temperature` is no option of `mse`, which has no `T`."""
    assert instead("option", "temperature", ["T"]) == TABLE["option"]["temperature"].help
    assert instead("option", "temperature", ["mask"]) == ""


@pytest.mark.parametrize("call", ["F.kl_div(big.logits, tiny.logits)", "torch.nn.functional.kl_div(big.logits, tiny.logits)",
                                  "nn.KLDivLoss(reduction=1)(big.logits, tiny.logits)"])  # fmt: skip
def test_a_call_of_torch(call: str) -> None:
    """Whatever stands before it, the loss is the one that is meant."""
    (found,) = faults(MODELS + DATA + f"loss = {call}")
    assert found.help == TABLE["call"]["kl_div"].help
    assert found.span.text == call.partition("(")[0]


def test_the_table_is_read_when_a_word_is_unknown() -> None:
    """A sound spec needs no other tool's words, so checking it reads no table."""
    foreign_words.cache_clear()
    assert faults(MODELS + DATA + LOSS) == ()
    assert foreign_words.cache_info().currsize == 0
    assert faults(MODELS + DATA + LOSS + "train { lr = 1 }")
    assert foreign_words.cache_info().currsize == 1


def test_each_word_has_one_entry() -> None:
    """A place lists no word twice: the second entry would replace the first one silently."""
    for file in files("brewgraph.syntax.foreign").iterdir():
        if file.name.endswith(".toml"):
            for place, entries in tomllib.loads(file.read_text(encoding="utf-8")).items():
                words = [word for entry in entries for word in entry["words"].split()]
                assert len(words) == len(set(words)), place


def test_help_of_an_entry() -> None:
    """What to write, then what else there is to know."""
    assert Instead("a", "b", "c").help == "write `a`; b: `c`"
    assert (Instead("a").help, Instead(remark="b").help) == ("write `a`", "b")


READINGS = [
    ("setting", "epoch_num", "epochs = 3"), ("setting", "batchsize", "batch=32"), ("setting", "learn_rate", "lr=5e-5"),
    ("setting", "epochz", "did you mean `epochs`?"), ("setting", "metric_best", "metric_for_best_model"),
    ("setting", "length", "max_length=128"), ("setting", "num_layers", "num_hidden_layers=2"),
    ("setting", "saving_steps", "did you mean `save_steps`?"), ("setting", "best_model", "`metric_for_best_model`?"),
    ("call", "cosine_sim2", "cos(big.hidden"), ("call", "sim", "cos(big.hidden"), ("call", "cross_entrop", "ce(d.labels"),
    ("call", "klloss", "kl(big.logits"), ("call", "contrast", "infonce("), ("call", "gramm", "did you mean `gram`?"),
    ("call", "distance", "mse("), ("call", "max_pool", "no maximum over tokens"), ("call", "mes", "did you mean `mse`?"),
    ("call", "hidden", "`big.hidden[-1]`"), ("call", "rkd_angl", "did you mean `rkd_angle`?"), ("call", "zebra", ""),
    ("projection", "lin", "did you mean `linear`?"), ("projection", "MLP", "linear"),
    ("data source", "jsonll", "files(train="), ("data source", "conl", "did you mean `conll`?"),
    ("model source", "gpt2", "hf("), ("optimizer", "adamm", "did you mean `adamw`?"),
    ("schedule", "const", "did you mean `constant`?"), ("feature", "score", "did you mean `scores`?"),
    ("argument", "clases", "did you mean `classes`?"), ("metric", "f1macro", "macro_f1"),
    ("command", "status", "`brewgraph runs`"), ("command", "pred", "did you mean `predict`?"),
]  # fmt: skip
"""Words that are nearly one of here or of elsewhere, and what the answer leads to."""
KNOWN = {
    "setting": list(Train.model_fields), "call": [*OPERATIONS, "cosine", "sum", "max", "words"],
    "projection": ["linear", "relu", "tanh"], "data source": ["files", "glue", "hub", "conll", "text", "batches"],
    "model source": ["hf", "brew", "python"], "optimizer": ["adamw", "sgd"],
    "schedule": ["linear", "cosine", "constant"], "feature": ["scores", "hidden", "logits", "pooled"],
    "argument": ["train", "dev", "text", "label", "classes", "class_weights"],
    "metric": ["accuracy", "macro_f1", "f1", "matthews"], "command": list(COMMANDS),
}  # fmt: skip


@pytest.mark.parametrize(("place", "word", "wanted"), READINGS)
def test_what_is_nearly_a_word(place: str, word: str, wanted: str) -> None:
    """The one thing that is meant comes before a known word that only looks like it."""
    said = instead(place, word, KNOWN[place])
    assert wanted in said
    assert said or not wanted


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--dry", "did you mean `--dry-run`?"),
        ("--ouput", "did you mean `--out`?"),
        ("--quite", "did you mean `--quiet`?"),
        ("--n_epochs", "write `param epochs = 3`"),
        ("--T", "write `param T = 4`"),
        ("--warmup-steps", "`train { schedule = linear(warmup=500 steps) }`"),
        ("--colour", ""),
    ],
)
def test_what_is_nearly_an_option(option: str, wanted: str) -> None:
    """Options of the command, and settings that are given as if they were."""
    said = about_option(option, RUN)
    assert wanted in said
    assert said or not wanted


@pytest.mark.parametrize(
    ("word", "known", "wanted"),
    [
        ("steps", ["stage", "task"], ""),
        ("mes", OPERATIONS, "mse"),
        ("msee", OPERATIONS, "mse"),
        ("epohcs", Train.model_fields, "epochs"),
        ("optimzer", Train.model_fields, "optimizer"),
        ("acumulate", Train.model_fields, "accumulate"),
        ("loging_steps", Train.model_fields, "logging_steps"),
        ("student", ["task", "tap"], ""),
        ("colour", Train.model_fields, ""),
        ("input", ["import", "stage"], ""),
        ("MSE", OPERATIONS, "mse"),
        ("TRAIN.CSV", ["test.csv", "train.csv"], "train.csv"),
        ("model", ["let", "tap", "data"], ""),
        ("f1_macro", ["f1", "macro_f1"], "macro_f1"),
        ("classweights", ["class_weights", "classes"], "class_weights"),
        ("--dry", ["--deny", "--dry-run"], "--dry-run"),
        ("li", ["linear"], ""),
    ],
)  # fmt: skip
def test_near_words_are_slips_of_the_pen(word: str, known: list[str], wanted: str) -> None:
    """A name is offered for letters left out, doubled or swapped, and not for another word."""
    assert suggest(word, known) == (f"did you mean `{wanted}`?" if wanted else "")
