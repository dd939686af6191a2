"""Every entry of the table: the faulty spec has its one fault, at its place, with its remedy; its neighbour none."""

from __future__ import annotations

import json
import time
from itertools import combinations
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import Diagnostic, SpecError, render
from brewgraph.models import loading
from brewgraph.source import Source
from tests.faults.agreement import AGREEMENT
from tests.faults.classes import TABLES, classes
from tests.faults.meaning import MEANING, SENSE, Fault, add_files
from tests.faults.mutations import MUTATIONS, Mutation
from tests.faults.page import PAGE, lines
from tests.faults.table import HEADS, NAMES, SHAPES, Change, Pair
from tests.faults.world import HEAD, LOSS, TINY, add_model, find, make_world, whole
from tests.recipe.specs import faults

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the specs name."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    add_files(folder)
    add_model(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these faults may need the weights of a model: whoever reaches for them fails."""

    def reach(*arguments: object, **options: object) -> None:
        raise AssertionError("a check reaches for weights")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", reach)
    monkeypatch.setattr(loading, "build_model", reach)
    monkeypatch.setattr(loading, "_load", reach)
    monkeypatch.setattr(safetensors.torch, "load_file", reach)
    monkeypatch.setattr(torch, "load", reach)


def body(lines: str) -> str:
    """A whole spec with these lines from line 4 on."""
    return f"{HEAD}{lines}\n{LOSS}"


def test_the_table_is_long_and_has_no_entry_twice() -> None:
    """Sixty of text, names, shapes and data, and sixty of meaning."""
    entries: list[Pair | Change] = [*NAMES, *SHAPES, *HEADS, *MEANING, *SENSE, *AGREEMENT]
    assert len([*NAMES, *SHAPES, *HEADS]) >= 60
    assert len([*MEANING, *SENSE]) >= 60
    entries += [entry for c in MUTATIONS for entry in c.entries]
    assert len({entry.what for entry in entries}) == len(entries)


def test_every_class_has_five_entries_and_every_entry_a_class() -> None:
    """What one is not enough to show: a fault found here and not there. Only what is not supported yet has fewer."""
    found = classes()
    assert len({c.title for c in found}) == len(found)
    placed = [entry.what for c in found for entry in c.entries]
    assert sorted(placed) == sorted(entry.what for entry in (*TABLES, *(e for c in MUTATIONS for e in c.entries)))
    assert [(c.title, len(c.entries)) for c in found if len(c.entries) < 5 and c.title != "not supported yet"] == []


def test_the_page_of_faults_is_up_to_date() -> None:
    """`docs/faults.md` is what the tables make of it."""
    assert PAGE.read_text(encoding="utf-8") == "\n".join(lines()) + "\n", "run `python -m tests.faults.page`"


@pytest.mark.parametrize("entry", NAMES, ids=str)
def test_names_and_kinds(entry: Pair) -> None:
    """Found without any model; the right neighbour has no fault of this sort."""
    (found,) = faults(body(entry.wrong))
    assert (found.code, found.span.position, found.span.text) == (entry.code, entry.place, entry.text)
    assert entry.message in found.message
    assert entry.help in found.help
    assert found.help
    assert faults(body(entry.right)) == ()


@pytest.mark.parametrize("entry", SHAPES, ids=str)
def test_models_and_shapes(entry: Pair, world: Path) -> None:
    """Found by the whole check, which builds no weights; nothing is wrong with the names."""
    assert faults(body(entry.wrong)) == ()
    (found,) = find(body(entry.wrong), world)
    assert (found.code, found.span.position, found.span.text) == (entry.code, entry.place, entry.text)
    assert entry.message in found.message
    assert entry.help in found.help
    assert found.help
    assert find(body(entry.right), world) == []


def errors(text: str, folder: Path) -> list[Diagnostic]:
    """The errors of names and kinds in a spec that stands in this folder."""
    try:
        check_names(Source(text, str(folder / "spec.brew")), {})
    except SpecError as error:
        return [d for d in error.diagnostics if d.severity == "error"]
    return []


def is_said(entry: Fault, found: Diagnostic) -> None:
    """The diagnostic is that of the entry, word by word."""
    assert (found.code, found.span.position, found.span.text) == (entry.code, entry.place, entry.text)
    assert (found.message, found.help) == (entry.message, entry.help)
    assert Path(found.span.source.name).name == entry.file


@pytest.mark.parametrize("entry", MEANING, ids=str)
def test_meaning(entry: Fault, world: Path) -> None:
    """Found without any model, one fault for one mistake; the right neighbour has none."""
    (found,) = errors(entry.whole(entry.wrong), world)
    is_said(entry, found)
    assert errors(entry.whole(entry.right), world) == []


@pytest.mark.parametrize("entry", [*SENSE, *AGREEMENT], ids=str)
def test_meaning_that_models_show(entry: Fault, world: Path) -> None:
    """The names are right; the whole check finds the one fault, and none in the right neighbour."""
    assert errors(entry.whole(entry.wrong), world) == []
    (found,) = find(entry.whole(entry.wrong), world)
    is_said(entry, found)
    assert find(entry.whole(entry.right), world) == []


def heard(text: str, folder: Path) -> list[Diagnostic]:
    """The errors of a spec, or where there are none its warnings, but not that the teachers here are random."""
    found = find(text, folder)
    return found or [d for d in whole(text, folder).warnings if d.code != "W302"]


@pytest.mark.parametrize("entry", [entry for c in MUTATIONS for entry in c.entries], ids=str)
def test_mutations_of_good_specs(entry: Mutation, world: Path) -> None:
    """One thing wrong is one fault or one warning, at its place, with its remedy; of the good spec nothing is said."""
    (found,) = heard(entry.whole(entry.wrong), world)
    assert (found.code, found.span.position, found.span.text) == (entry.code, entry.place, entry.text)
    assert entry.message in found.message
    assert entry.help in found.help
    assert found.help
    assert heard(entry.whole(entry.right), world) == []


@pytest.mark.parametrize("entry", HEADS, ids=str)
def test_data_and_models(entry: Change, world: Path) -> None:
    """One piece of the head replaced by a wrong one, and by a right one."""
    assert HEAD.count(entry.old) == 1
    found = find(HEAD.replace(entry.old, entry.wrong) + LOSS, world)
    assert found, "no fault was found"
    assert (found[0].code, found[0].span.text) == (entry.code, entry.text)
    assert {d.code for d in found} == {entry.code}
    assert entry.message in found[0].message
    assert entry.help in found[0].help
    assert all(d.help for d in found)
    assert find(HEAD.replace(entry.old, entry.right) + LOSS, world) == []


@pytest.mark.parametrize("loss", ["rows", "3 * rows"])
def test_a_loss_that_is_a_list(loss: str, world: Path) -> None:
    """`sum(...)` is offered, and helps."""
    rows = HEAD + "rows = nst(big.hidden[0, 1] -> tiny.hidden[0, 1])\n"
    (found,) = find(f"{rows}loss = {loss}\n", world)
    assert (found.code, found.span.position, found.span.text) == ("B213", (5, 1), "loss")
    assert "`sum(…)`" in found.help
    assert find(f"{rows}loss = sum({loss})\n", world) == []


def test_widths_have_labels_on_both_sides(world: Path) -> None:
    """The whole picture, as a terminal shows it."""
    (found,) = find(body("x = mse(big.hidden[0] -> tiny.hidden[0])"), world)
    assert render(found).splitlines()[2:] == [
        "  |",
        "4 | x = mse(big.hidden[0] -> tiny.hidden[0])",
        "  |         ------------- 16 ^^^^^^^^^^^^^^ 8",
        "  |",
        "  = help: add a projection: `tiny.hidden[0] via linear`",
    ]


def test_tokenizers_that_differ(world: Path) -> None:
    """Two folders with vocabularies of their own: tokens do not match, logits do."""
    head = (
        f'teacher big = hf({TINY}, hidden_size=8, num_hidden_layers=1, tokenizer="{{}}")\n'
        f'student tiny = hf({TINY}, hidden_size=8, num_hidden_layers=1, tokenizer="one")\n'
        'data d = files(train="train.jsonl")\n'
    ).replace(", vocab_size=60", "")
    rows = "x = mse(big.hidden[0] -> tiny.hidden[0])\nloss = x + kd(big.logits -> tiny.logits)\n"
    (found,) = find(head.format("two") + rows, world)
    assert (found.code, found.span.text, found.span.position) == ("B214", "tiny.hidden[0]", (4, 26))
    assert found.message == "the two models cut the text into different tokens"
    assert "tokenizer=big" in found.help
    assert find(head.format("one") + rows, world) == []
    assert find(head.format("two") + "loss = kd(big.logits -> tiny.logits)\n", world) == []


def test_faults_of_another_spec_have_their_place_there(world: Path) -> None:
    """What is wrong with the teacher's spec is shown in the teacher's spec."""
    (world / "broken.brew").write_text(HEAD + "loss = ce(d.labels -> tinny.logits)\n")
    (found,) = find(body('teacher b = brew("broken.brew")'), world)
    assert (found.code, Path(found.span.source.name).name, found.span.position) == ("B101", "broken.brew", (4, 23))
    (found,) = find(body('teacher b = brew("around.brew")'), world)
    assert (found.code, Path(found.span.source.name).name, found.span.position) == ("B322", "around.brew", (4, 22))


def test_several_faults_of_shapes_in_one_spec(world: Path) -> None:
    """As many diagnostics as faults, in the order of the text."""
    single = [entry for entry in SHAPES if entry.wrong.startswith("x = ") and entry.code in ("B204", "B215", "B217")]
    text = "\n".join(entry.wrong.replace("x = ", f"x{i} = ", 1) for i, entry in enumerate(single))
    found = find(body(text), world)
    assert [(d.span.position[0], d.code) for d in found] == [(4 + i, entry.code) for i, entry in enumerate(single)]
    assert len(single) >= 4


def test_several_faults_of_models_and_data_in_one_spec(world: Path) -> None:
    """Every model that cannot be is named in the same run."""
    text = body('teacher a = hf(model_type="brt")\nteacher b = hf("./nowhere")\nteacher c = brew("teachr.brew")')
    assert [(d.span.position[0], d.code) for d in find(text, world)] == [(4, "B312"), (5, "B310"), (6, "B321")]


PLACES = {
    "data": ("B403", 6),
    "setting": ("B313", 3),
    "folder": ("B310", 4),
    "layer": ("B206", 7),
    "width": ("B204", 9),
}


@pytest.mark.parametrize("wrong", [some for n in range(6) for some in combinations(PLACES, n)], ids="+".join)
def test_faults_of_every_phase_are_said_together(world: Path, wrong: tuple[str, ...]) -> None:
    """Labels of dev, a setting, a folder, a layer and a width: each with its own fault, and none that follows from it."""
    rows = [json.loads(line) | {"label": "strange"} for line in (world / "train.jsonl").read_text().splitlines()]
    (world / "strangers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"""brew 1
teacher big  = hf({TINY}, hidden_size=16, num_hidden_layers=3)
teacher two  = hf({TINY}, {"hidden_sise" if "setting" in wrong else "hidden_size"}=16, num_hidden_layers=3)
teacher gone = hf("{"./nowhere" if "folder" in wrong else "./saved"}")
student tiny = hf({TINY}, hidden_size=8, num_hidden_layers=2)
data d       = files(train="train.jsonl"{', dev="strangers.jsonl"' if "data" in wrong else ""}, batch=4, max_length=16)
x = mse(big.hidden[{9 if "layer" in wrong else 1}] -> tiny.hidden[1] via linear)
y = kd(two.logits -> tiny.logits)
w = mse(big.hidden[2] -> tiny.hidden[2]{"" if "width" in wrong else " via linear"})
z = kd(gone.logits -> tiny.logits)
loss = ce(d.labels -> tiny.logits) + x + y + w + z
"""
    assert sorted((d.code, d.span.position[0]) for d in find(text, world)) == sorted(PLACES[kind] for kind in wrong)


def test_several_faults_of_syntax_and_names_in_one_spec() -> None:
    """A statement that does not parse hides no other one, and nothing that it may have caused is reported."""
    text = body("x = = 3\ny = kd(big.logit -> tiny.logits)\nz = kd(big.logits -> tiny.logits\nlet w = 1 / 0\nv = x + y")
    assert [(d.span.position[0], d.code) for d in faults(text)] == [(4, "B010"), (5, "B103"), (6, "B001"), (7, "B207")]


def test_every_fault_of_names_in_one_spec() -> None:
    """All entries that parse, one below the other: none hides another."""
    single = [e for e in NAMES if e.code > "B100" and e.wrong.startswith("x = ") and "\n" not in e.wrong]
    found = faults(body("\n".join(entry.wrong.replace("x = ", f"x{i} = ", 1) for i, entry in enumerate(single))))
    assert [(d.span.position[0], d.code) for d in found] == [(4 + i, entry.code) for i, entry in enumerate(single)]
    assert len(single) > 15


def test_no_fault_is_said_twice(world: Path) -> None:
    """One wrong model that is used in five places is one fault."""
    text = body("let w = 1 / 0\n" + "\n".join(f"x{i} = w * kd(big.logits -> tiny.logits, T=w)" for i in range(5)))
    assert [(d.code, d.span.position) for d in find(text, world)] == [("B207", (4, 9))]


def test_a_fault_answers_at_once() -> None:
    """With the grammar built, faults of syntax and names take a few milliseconds; half a second is the bound."""
    faults(body("x = 1"))
    slowest, what = 0.0, ""
    for entry in NAMES:
        begin = time.perf_counter()
        faults(body(entry.wrong))
        took = time.perf_counter() - begin
        slowest, what = max((slowest, what), (took, entry.what))
    print(f"slowest: {1000 * slowest:.1f} ms ({what})")
    assert slowest < 0.5


def test_the_right_spec_is_checked_whole(world: Path) -> None:
    """The head is sound to the end: a graph, its classes, and one warning."""
    checked = whole(HEAD + "soft = kd(big.logits -> tiny.logits)\nloss = soft + ce(d.labels -> tiny.logits)\n", world)
    assert checked.graph is not None
    assert checked.classes == {"d": ("n", "y")}
    assert [w.code for w in checked.warnings] == ["W302"]  # the teacher has random weights
