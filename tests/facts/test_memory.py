"""Facts on disk: what was found out once is not found out again, and nothing that is out of date is believed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import brewgraph.data.sources.examples
from brewgraph.diagnostics import Diagnostic, SourceFault, SpecError
from brewgraph.facts import memory as module
from brewgraph.facts.memory import Memory, print_of_model
from brewgraph.facts.models import Request, print_of_data
from brewgraph.paths import FACTS
from brewgraph.recipe.settings.data_sources import Files, Glue, Hub
from tests.faults.agreement import AGREEMENT
from tests.faults.classes import classes
from tests.faults.meaning import SENSE, add_files
from tests.faults.mutations import MUTATIONS
from tests.faults.table import HEADS
from tests.faults.world import HEAD, LOSS, add_model, make_world, whole

HEAVY = ("torch", "transformers", "datasets", "tokenizers", "numpy", "scipy", "pandas")
SAVED = 'teacher big = hf("saved")\nstudent tiny = hf("saved", hidden_size=4, pretrained=false)\n'
DATA = 'data d = files(train="train.jsonl", batch=4, max_length=16)\n'


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with everything that the specs name."""
    (tmp_path / "world").mkdir()
    folder = make_world(tmp_path / "world")
    add_files(folder)
    add_model(folder)
    return folder


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which facts are kept during this test."""
    monkeypatch.setenv(FACTS, str(tmp_path / "facts"))
    return tmp_path / "facts"


def said(text: str, folder: Path) -> list[Diagnostic]:
    """Everything that a check says."""
    try:
        return list(whole(text, folder).warnings)
    except SpecError as error:
        return list(error.diagnostics)


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on whoever reads a configuration, a tokenizer or rows fails."""

    def reach(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("this was known")

    monkeypatch.setattr(Request, "describe", reach)
    monkeypatch.setattr(brewgraph.data.sources.examples, "facts", reach)
    monkeypatch.setattr("brewgraph.facts.models.TokenFacts.of", reach)
    monkeypatch.setattr("brewgraph.models.tokenization.load_tokenizer", reach)


def test_a_second_check_finds_nothing_out(world: Path, facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a sound spec nor of others about the same models: other layers, other taps, other faults."""
    terms = (
        "mse(big.hidden[1] -> tiny.hidden[1] via linear)",
        "mse(big.hidden[1] -> tiny.hidden[1])",
        "mse(big.hidden[7] -> tiny.hidden[1] via linear)",
        "mse(big.attention[0] -> tiny.attention[0])",
    )
    tap = 'tap t = big @ "encoder.layer.0.output"\ntap u = tiny @ "encoder.layer.0.atention"\n'
    specs = [f"{SAVED}{DATA}loss = {term} + ce(d.labels -> tiny.logits)\n" for term in terms]
    specs.append(f"{SAVED}{DATA}{tap}loss = mse(t -> u via linear) + ce(d.labels -> tiny.logits)\n")
    monkeypatch.setenv(FACTS, "off")
    first = [said(spec, world) for spec in specs]
    assert [sorted({d.code for d in found if d.severity == "error"}) for found in first] == [
        [], ["B204"], ["B206"], [], ["B301"],
    ]  # fmt: skip
    monkeypatch.setenv(FACTS, str(facts))
    assert said(specs[0], world) == first[0]
    forbid(monkeypatch)
    assert [said(spec, world) for spec in specs] == first


@pytest.mark.slow
def test_a_second_check_loads_neither_torch_nor_transformers(world: Path, facts: Path) -> None:
    """The command, in a process of its own, says the same in both cases; so do those that compare and draw."""
    sound = f"{SAVED}{DATA}loss = mse(big.hidden[1] -> tiny.hidden[1] via linear) + ce(d.labels -> tiny.logits)\n"
    (world / "good.brew").write_text(sound)
    (world / "bad.brew").write_text(sound.replace(" via linear", ""))
    (world / "other.brew").write_text(sound.replace(" + ce", " + 2 * ce"))

    def run(*arguments: str) -> tuple[list[str], list[str]]:
        script = (
            f"import sys\nfrom brewgraph.cli.main import main\nsys.argv = {['brewgraph', *arguments]!r}\n"
            f"try:\n    main()\nexcept SystemExit:\n    pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=world, capture_output=True, text=True, check=False)
        *lines, loaded = done.stdout.splitlines()
        return lines, ast.literal_eval(loaded)

    one, other = run("check", "bad.brew"), run("check", "bad.brew")
    assert "error[B204]: widths differ and nothing projects between them" in one[0]
    assert other[0] == one[0]
    assert "torch" in one[1]
    assert other[1] == []
    run("check", "good.brew")  # which asks more: the fault had ended the other check before
    for arguments in (("diff", "good.brew", "other.brew"), ("graph", "good.brew")):
        lines, loaded = run(*arguments)
        assert "ce(d.labels -> tiny.logits)" in "\n".join(lines)
        assert loaded == []
    one, other = run("taps", "saved"), run("taps", "saved")
    assert any("attention" in line for line in one[0])
    assert other == (one[0], [])
    assert run("taps", "good.brew")[1] == []


@pytest.mark.slow
def test_every_fault_is_the_same_from_memory(world: Path, facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All entries of the tables of faults that need models or data, and their right neighbours, word by word."""
    entries = [*SENSE, *AGREEMENT, *(entry for c in MUTATIONS for entry in c.entries)]
    texts = [text for entry in entries for text in (entry.whole(entry.wrong), entry.whole(entry.right))]
    texts += [HEAD.replace(e.old, new) + LOSS for e in HEADS for new in (e.wrong, e.right)]
    assert len(texts) > 300
    assert len(classes()) > 30
    monkeypatch.setenv(FACTS, "off")
    plain = [said(text, world) for text in texts]
    monkeypatch.setenv(FACTS, str(facts))
    for _ in range(2):
        assert [said(text, world) for text in texts] == plain
    assert len(list(facts.iterdir())) > 20


def test_another_content_is_another_fact(world: Path, facts: Path) -> None:
    """A configuration, a tokenizer, a file of data that changes is looked at again."""
    spec = f"{SAVED}{DATA}loss = kd(big.logits -> tiny.logits, T=2) + ce(d.labels -> tiny.logits)\n"
    assert [d.code for d in said(spec, world) if d.severity == "error"] == []
    config = json.loads((world / "saved" / "config.json").read_text())
    (world / "saved" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 12}))
    assert [d.code for d in said(spec, world) if d.severity == "error"] == ["B320", "B320"]
    (world / "saved" / "config.json").write_text(json.dumps(config))
    rows = (world / "train.jsonl").read_text()
    (world / "train.jsonl").write_text(rows.replace('"y"', '"z"', 1))
    (found,) = (d for d in said(spec, world) if d.severity == "error")
    assert found.message == "the numbers of classes differ"


@pytest.mark.usefixtures("facts")
def test_a_folder_that_was_moved_is_known_where_it_is_now(world: Path) -> None:
    """What is remembered is about content: no path of the old place is in it, in a fault's words neither."""
    specs = [
        f"{SAVED}{DATA}loss = mse(big.hidden[1] -> tiny.hidden[1] via linear) + ce(d.labels -> tiny.logits)\n",
        f'teacher big = hf("saved", layrs=3)\n{SAVED[SAVED.index("student") :]}{DATA}loss = kd(big.logits -> tiny.logits)\n',
    ]

    def told(folder: Path) -> list[tuple[str, str, str]]:
        return [(d.code, d.message, d.help) for spec in specs for d in said(spec, folder)]

    before = told(world)
    assert [code for code, *_ in before] == ["B313"]
    moved = world.rename(world.parent / "elsewhere")
    assert told(moved) == before


def test_the_print_of_a_folder_is_its_content(world: Path) -> None:
    """Neither where it lies nor when it was written, but every file that describes the model, and which others are
    there.
    """
    before = print_of_model(str(world / "saved"))
    (world / "saved").rename(world / "moved")
    assert print_of_model(str(world / "moved")) == before
    os.utime(world / "moved" / "config.json", (1, 1))
    assert print_of_model(str(world / "moved")) == before
    tokenizer = world / "moved" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    changed = print_of_model(str(world / "moved"))
    assert changed != before
    (world / "moved" / "model.safetensors").unlink()
    assert print_of_model(str(world / "moved")) != changed


def test_a_name_on_the_hub_stands_for_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline for that which was loaded last; where none was, nothing is remembered."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert print_of_model("org/name") == "a" * 40
    assert print_of_model("org/name", "main") == "a" * 40
    assert print_of_model("org/name", "other") is None
    assert print_of_model("org/none") is None


def test_the_print_of_data(world: Path) -> None:
    """Files by their state, what is known beforehand by its name; what only the hub knows has none."""
    source = Files(train="train.jsonl")
    before = print_of_data(source, world)
    assert before is not None
    os.utime(world / "train.jsonl", (1, 1))
    assert print_of_data(source, world) != before
    assert print_of_data(Files(train="none.jsonl"), world) is None
    assert print_of_data(Glue(task="mnli"), world) is not None
    assert print_of_data(Hub(name="org/set"), world) is None


def test_what_cannot_be_read_or_written_is_found_anew(tmp_path: Path) -> None:
    """A memory never fails, and never tells what it cannot read."""
    kept = Memory(tmp_path / "facts")
    assert kept.recall("a", tuple[int, ...], lambda: (1, 2)) == (1, 2)
    assert kept.recall("a", tuple[int, ...], lambda: (3,)) == (1, 2)
    (file,) = (tmp_path / "facts").iterdir()
    for broken in ("", "{", "[]", '{"found": "no list"}', '{"refused": 3}', "null"):
        file.write_text(broken)
        assert kept.recall("a", tuple[int, ...], lambda: (4,)) == (4,)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert Memory(blocked).recall("a", tuple[int, ...], lambda: (5,)) == (5,)
    assert Memory(blocked / "below").recall("a", tuple[int, ...], lambda: (6,)) == (6,)
    assert Memory(None).recall("a", tuple[int, ...], lambda: (7,)) == (7,)
    assert kept.recall(None, tuple[int, ...], lambda: (8,)) == (8,)


def test_faults_are_remembered_unless_they_are_the_networks(tmp_path: Path) -> None:
    """What a folder lacks it lacks the next time as well; a hub may be reached then."""
    kept, asked = Memory(tmp_path), []

    def fail(code: str) -> int:
        asked.append(code)
        raise SourceFault(code, "no", help="do", field="name")

    for code, times in (("B313", 1), ("B311", 2)):
        for _ in range(2):
            with pytest.raises(SourceFault) as found:
                kept.recall(code, int, lambda code=code: fail(code))
            assert (found.value.code, found.value.help, found.value.field) == (code, "do", "name")
        assert asked.count(code) == times


def test_other_versions_tell_other_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update everything is found out again."""
    kept = Memory(tmp_path)
    kept.recall("a", int, lambda: 1)
    monkeypatch.setattr(module, "_versions", lambda: "others")
    assert kept.recall("a", int, lambda: 2) == 2


def test_old_facts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many those that were not asked for the longest time."""
    monkeypatch.setattr(module, "_KEPT", 10)
    kept = Memory(tmp_path)
    for i in range(10):
        kept.recall(str(i), int, lambda i=i: i)
        for file in tmp_path.iterdir():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 100))
    assert kept.recall("0", int, lambda: -1) == 0  # the oldest was asked for just now
    kept.recall("new", int, lambda: 10)
    assert len(list(tmp_path.iterdir())) == 9
    assert kept.recall("0", int, lambda: -1) == 0
    assert kept.recall("1", int, lambda: -1) == -1


def test_where_facts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's cache, in the folder that is named, or nowhere."""
    monkeypatch.setenv(FACTS, str(tmp_path))
    assert Memory.of_user().folder == tmp_path
    monkeypatch.setenv(FACTS, "off")
    assert Memory.of_user().folder is None
    monkeypatch.delenv(FACTS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert Memory.of_user().folder == tmp_path / "brewgraph" / "facts"
