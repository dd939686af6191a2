"""Paths of a spec, wherever one may stand: what can be none is said at its place, `~` is the home folder, and near names
on disk come before the hub.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brewgraph.checking.check import check
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.paths import locate
from brewgraph.source import Source
from tests.faults.world import HEAD, LOSS, add_model, make_world

TEACHER, STUDENT, DATA = HEAD.splitlines()
BASE = HEAD + LOSS
PLACES = {
    "import": 'import "{}" as lib\n' + BASE,
    "model": BASE.replace(TEACHER, 'teacher big = hf("{}")'),
    "tokenizer": BASE.replace("hidden_size=16", 'hidden_size=16, tokenizer="{}"'),
    "spec": BASE + 'teacher other = brew("{}")\n',
    "train": BASE.replace("train.jsonl", "{}"),
    "dev": BASE.replace('train="train.jsonl"', 'train="train.jsonl", dev="{}"'),
    "test": BASE.replace('train="train.jsonl"', 'train="train.jsonl", test="{}"'),
    "conll": BASE.replace(DATA, 'data d = conll(train="{}", batch=4, max_length=16)'),
    "squad": BASE.replace(DATA, 'data d = squad(train="{}", batch=4, max_length=16, stride=4)').replace(
        "ce(d.labels -> tiny.logits)", "ce(d.start -> tiny.start)"
    ),
    "text": BASE.replace(DATA, 'data d = text(train="{}", batch=4, max_length=16, mask=15%)'),
    "hub": BASE.replace(DATA, 'data d = hub("{}", text=text, label=label, batch=4, max_length=16)'),
    "batches": BASE.replace(DATA, 'data d = batches("{}")'),
    "cache": HEAD + 'cache c = big.logits at "{}"\nloss = kd(c -> tiny.logits)\n',
}
"""A spec for every place in which a path may stand."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model, data and tokenizers."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    add_model(folder)
    shutil.copytree(folder / "saved", folder / "minilm")
    (folder / "corpus").mkdir()
    shutil.copy(folder / "train.jsonl", folder / "corpus" / "train.jsonl")
    (folder / "folder.jsonl").mkdir()
    (folder / "a.txt").write_text("some words of a text\n" * 20)
    return folder


def said(text: str, folder: Path) -> list[Diagnostic]:
    """The errors of a spec."""
    try:
        check(Source(text, str(folder / "spec.brew")))
    except SpecError as error:
        return [d for d in error.diagnostics if d.severity == "error"]
    return []


@pytest.mark.parametrize("name", ["a\0b", "\0", "a" * 300, "/b" * 3000, "~nobody_is_called_so/x", " "])
@pytest.mark.parametrize("place", PLACES)
def test_what_can_be_no_path_is_said_at_its_place(place: str, name: str, world: Path) -> None:
    """A NUL byte, a name too long for any file system, a home that nobody has, nothing at all: one error, no crash."""
    text = PLACES[place].replace("{}", name)
    (found,) = said(text, world)
    assert found.code == ("B244" if place == "cache" else "B346")
    assert "` is not a valid path: " in found.message
    assert "\0" not in found.message
    assert len(found.message) < 160
    assert name in found.span.text


def test_home_is_expanded_everywhere(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/x` in `files`, `hf`, `tokenizer`, `brew` and `import`, as a shell has it."""
    monkeypatch.setenv("HOME", str(world))
    assert locate("~/one", Path("elsewhere")) == world / "one"
    for place, name in [("train", "train.jsonl"), ("model", "saved"), ("tokenizer", "one"), ("spec", "teacher.brew")]:
        assert said(PLACES[place].replace("{}", f"~/{name}"), world) == [], place


def test_a_folder_where_a_file_is_due(world: Path) -> None:
    """It is called a folder, and not offered as its own correction."""
    (found,) = said(PLACES["train"].replace("{}", "folder.jsonl"), world)
    assert (found.code, found.help) == ("B401", "it is an empty folder")
    (found,) = said(PLACES["import"].replace("{}", "folder.jsonl"), world)
    assert (found.code, found.help) == ("B114", "it is an empty folder")


@pytest.mark.parametrize(
    ("place", "name", "code", "meant"),
    [
        ("model", "minilmm", "B310", "minilm"),
        ("model", "./minilmm", "B310", "minilm"),
        ("tokenizer", "minilmm", "B310", "minilm"),
        ("hub", "corpuss", "B401", "corpus"),
    ],
)
def test_near_names_on_disk_come_before_the_hub(place: str, name: str, code: str, meant: str, world: Path) -> None:
    """A typo beside a folder of that sort is an error which names the folder, and the folder is right."""
    (found,) = said(PLACES[place].replace("{}", name), world)
    assert found.code == code
    assert f"did you mean `{meant}`?" in found.help
    assert (
        said(PLACES[place].replace("{}", meant).replace("label=label, batch", "label=label, dev=none, batch"), world)
        == []
    )


@pytest.mark.parametrize("name", ["other", "org/other"])
def test_other_names_are_the_hubs(name: str, world: Path) -> None:
    """What is called like nothing on disk may be on the hub: a warning, as before."""
    assert said(PLACES["model"].replace("{}", name), world) == []


@pytest.mark.parametrize(
    ("place", "right"), [("train", "./train.jsonl"), ("dev", "./train.jsonl"), ("text", "./a.txt"),
                         ("model", "./saved"), ("hub", "./corpus")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("written", "above"),
    [
        ("file", 'param file = "./none/at.all"\n'),
        ('"{folder}/at.all"', 'param folder = "./none"\n'),
        ("named", 'param folder = "./none"\nlet named = "{folder}/at.all"\n'),
    ],
)
def test_what_a_param_names_may_be_given_from_outside(
    place: str, right: str, written: str, above: str, world: Path
) -> None:
    """The remedy is the one that works: with `--set`, what was not there is."""
    text = above + PLACES[place].replace('"{}"', written)
    (found,) = [d for d in said(text, world) if "./none/at.all" in d.message]
    param = "file" if written == "file" else "folder"
    assert found.span.text == written
    assert found.help.endswith(f"`--set {param}=…` gives another")
    if written == "file":
        check(Source(text, str(world / "spec.brew")), {"file": right})


def test_a_name_that_is_written_has_no_param(world: Path) -> None:
    """Nothing can be set for a name that stands in the spec."""
    (found,) = said('param file = "x.jsonl"\n' + PLACES["train"].replace("{}", "none.jsonl"), world)
    assert "--set" not in found.help


@pytest.mark.parametrize(
    ("place", "name", "help"),
    [
        ("train", "https://x.org/train.csv", "download it"),
        ("dev", "s3://bucket/dev.jsonl", "download it"),
        ("train", "data/*.csv", 'files(train="a.csv") + files(train="b.csv")'),
        ("model", "https://huggingface.co/owner/name", 'on the hub it is called `"owner/name"`'),
        ("hub", "https://huggingface.co/datasets/imdb", 'on the hub it is called `"imdb"`'),
    ],
)
def test_addresses_and_patterns(place: str, name: str, help: str, world: Path) -> None:
    """What is no path on this machine is not looked for in folders."""
    (found,) = said(PLACES[place].replace("{}", name), world)
    assert help in found.help


@pytest.mark.parametrize(
    ("name", "sign", "remedy"),
    [
        ("a.csv", ";", "its columns are separated by `;`: save it with commas as .csv, or with tabs as .tsv"),
        ("a.csv", "|", "its columns are separated by `|`: save it with commas as .csv, or with tabs as .tsv"),
        ("a.csv", "\t", "its columns are separated by tabs: a file with tabs is called .tsv"),
        ("a.tsv", ",", "its columns are separated by `,`: a file with commas is called .csv"),
    ],
)
def test_another_separator(name: str, sign: str, remedy: str, world: Path) -> None:
    """The separator of a table follows from its name; another one leaves a single column."""
    (world / name).write_text(f"text{sign}label\ngood{sign}1\nbad{sign}0\n")
    found = said(PLACES["train"].replace("{}", name), world)
    assert [(d.code, d.help) for d in found if d.code == "B402"] == [("B402", remedy)]
    right = {"tabs": name.replace("csv", "tsv"), "commas": name.replace("tsv", "csv")}
    if rename := next((right[word] for word in right if f"a file with {word} is" in remedy), None):
        (world / name).rename(world / rename)
        assert not [d for d in said(PLACES["train"].replace("{}", rename), world) if d.code == "B402"]


@pytest.mark.parametrize(
    ("line", "written", "help"),
    [
        (DATA, 'data d = "train.jsonl"', 'write `files(train="train.jsonl")`'),
        (DATA, 'data d = "imdb"', 'write `hub("imdb")`'),
        (TEACHER, 'teacher big = "saved"', 'write `hf("saved")`'),
        (DATA, 'data d = files("train.jsonl")', 'write `train="train.jsonl"`'),
    ],
)
def test_a_name_in_place_of_a_source(line: str, written: str, help: str, world: Path) -> None:
    """The call is written around it."""
    (found,) = said(BASE.replace(line, written), world)
    assert found.help.startswith(help)
