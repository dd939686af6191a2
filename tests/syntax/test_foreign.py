"""Words of other tools: each entry of the table gives its remedy where people write it, and the remedy is sound."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import Diagnostic, SpecError, suggest
from brewgraph.ops import OPERATIONS
from brewgraph.project.check import check_names
from brewgraph.recipe.settings import Train
from brewgraph.source import Source
from brewgraph.syntax.foreign import ARGUMENTS, OPTIONS, TABLE, instead

MODELS = 'teacher big = hf("bert")\nstudent tiny = hf("small")\n'
DATA = 'data d = files(train="train.jsonl", dev="dev.jsonl")\n'
LOSS = "loss = kd(big.logits -> tiny.logits)\n"
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
}
ENTRIES = [(place, word) for place, words in TABLE.items() if place in PLACES for word in words]


def faults(spec: str) -> tuple[Diagnostic, ...]:
    """What a check of names says of a spec."""
    try:
        check_names(Source(spec, "s.brew"), {})
    except SpecError as error:
        return error.diagnostics
    return ()


@pytest.mark.parametrize(("place", "word"), ENTRIES)
def test_a_foreign_word_gets_its_remedy(place: str, word: str) -> None:
    """Written where people write it, each word is a fault at its place, and the help is that of the table."""
    known = ["T", "mask"] if place == "option" else []
    helps = [d.help for d in faults(PLACES[place].format(word))]
    entry = TABLE[place][word]
    wanted = instead(place, word, known)
    assert entry.help == wanted
    assert wanted in helps, (place, word, helps)


@pytest.mark.parametrize(
    ("place", "write"),
    sorted({(place, TABLE[place][word].write) for place, word in ENTRIES if TABLE[place][word].write}),
)
def test_the_remedy_is_sound(place: str, write: str) -> None:
    """What the table says to write passes the check of names where it is written."""
    if place == "name" and write in ("true", "false", "none"):
        spec = MODELS + DATA + LOSS + f"let x = {write}"
    else:
        spec = FOLLOWED[place].format(write)
    assert [d for d in faults(spec) if d.severity == "error"] == []


ARGUMENT_SPECS = {
    "batch": 'files(train="a.jsonl", {0})', "max_length": 'files(train="a.jsonl", {0})', "train": "files({0})",
    "dev": 'files(train="a.jsonl", {0})', "test": 'files(train="a.jsonl", {0})', "label": 'files(train="a.jsonl", {0})',
    "text": 'files(train="a.jsonl", {0})', "classes": 'files(train="a.jsonl", {0})',
    "stride": 'squad(train="a.json", {0})', "mask": 'text(train="a.txt", {0})', "block": 'text(train="a.txt", {0})',
    "lr": "adamw({0})", "betas": "adamw({0})", "eps": "adamw({0})", "weight_decay": "adamw({0})",
    "warmup": "linear({0})",
}  # fmt: skip


def with_argument(call: str) -> str:
    if call.startswith(("adamw", "linear")):
        name = "optimizer" if call.startswith("adamw") else "schedule"
        return MODELS + DATA + LOSS + f"train {{ {name} = {call} }}"
    return MODELS + f"data d = {call}\n" + LOSS


@pytest.mark.parametrize("word", ARGUMENTS)
def test_an_argument_of_other_tools(word: str) -> None:
    """The help names the argument here, and following it passes the check."""
    entry = ARGUMENTS[word]
    call = ARGUMENT_SPECS[entry.write.partition("=")[0]]
    assert entry.help in [d.help for d in faults(with_argument(call.format(f"{word}=1")))]
    assert faults(with_argument(call.format(entry.write))) == ()


def test_an_option_is_offered_only_where_it_is_known() -> None:
    """`temperature` is no option of `mse`, which has no `T`."""
    assert instead("option", "temperature", ["T"]) == OPTIONS["temperature"].help
    assert instead("option", "temperature", ["mask"]) == ""


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
    ],
)  # fmt: skip
def test_near_words_are_slips_of_the_pen(word: str, known: list[str], wanted: str) -> None:
    """A name is offered for letters left out, doubled or swapped, and not for another word."""
    assert suggest(word, known) == (f"did you mean `{wanted}`?" if wanted else "")
