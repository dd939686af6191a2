"""What `docs/security.md` says of specs, folders and files, sentence by sentence."""

from __future__ import annotations

import ast
import gzip
import json
import shutil
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import brewgraph
from brewgraph.checking.check import check_names
from brewgraph.cli.output import Terminal
from brewgraph.diagnostics import SourceFault, SpecError, render
from brewgraph.models.heads import saved_heads
from brewgraph.source import MOST_BYTES, Source
from brewgraph.syntax.format import format_source
from tests.cli.tiny import command
from tests.faults.world import HEAD, LOSS, add_model, find, make_world, whole

# ── a spec cannot exhaust time or memory ─────────────────────────────────────────────────────────────────────────────

CE = "ce(d.labels -> tiny.logits)"
DOUBLED = "f(x) = [x, x]\n"
BLOWUPS = {
    "lists in lists, by calls": (DOUBLED + f"let y = {'f(' * 30}1{')' * 30}\n", "B016"),
    "lists in lists, by functions": (
        DOUBLED.replace("f", "f0") + "".join(f"f{i}(x) = f{i - 1}([x, x])\n" for i in range(1, 30)) + "let y = f29(1)\n",
        "B016",
    ),
    "lists in lists, by names": ("let a0 = 1\n" + "".join(f"let a{i} = [a{i - 1}, a{i - 1}]\n" for i in range(1, 40)), "B016"),
    "features in lists": (DOUBLED + f"y = {'f(' * 30}big.hidden[0]{')' * 30}\n", "B016"),
    "sums of sums": (f"a0 = {CE}\n" + "".join(f"a{i} = a{i - 1} + a{i - 1}\n" for i in range(1, 40)), "B016"),
    "texts in texts": ('let s0 = "xxxxxxxxxx"\n' + "".join(f'let s{i} = "{{s{i - 1}}}{{s{i - 1}}}"\n' for i in range(1, 40)), "B016"),
    "a table of models and layers": (
        f"let m = [{', '.join(['big'] * 3000)}]\ny = sum(nst(m.hidden[0] -> tiny.hidden[{', '.join(['0'] * 3000)}]))\n",
        "B016",
    ),
    "layers of models": (f"let m = [{', '.join(['big'] * 3000)}]\ny = m.hidden[{', '.join(['0'] * 3000)}]\n", "B016"),
    "a chain of sums": (f"a0 = {CE}\n" + "".join(f"a{i} = a{i - 1} + a0\n" for i in range(1, 2000)), "B012"),
    "powers of powers": ("let y = 10 ** 10 ** 10\n", "B207"),
    "products of products": ("let a0 = 999999999999\n" + "".join(f"let a{i} = a{i - 1} * a{i - 1}\n" for i in range(1, 40)), "B207"),
    "a list of a million": (f"let y = [{','.join(['1'] * 10**6)}]\n", "B014"),
    "a layer map of a million": (f"let y = [{','.join(['1'] * 10**6)}] -> [{','.join(['1'] * 10**6)}]\n", "B014"),
    "a hundred thousand statements": ("".join(f"let v{i} = {i}\n" for i in range(10**5)), "B014"),
    "a long line": ("#" + "x" * 10**7 + "\n", "B014"),
    "empty lines": ("\n" * 10**6, "B014"),
    "brackets inside each other": (f"let y = {'[' * 10**4}1{']' * 10**4}\n", "B012"),
    "open brackets": ("let y = " + "([{" * 10**4 + "\n", "B012"),
    "blocks inside each other": ("task a {\n" * 5000 + "}\n" * 5000, "B012"),
    "signs": ("let y = " + "-" * 10**4 + "1\n", "B012"),
    "attributes": ("y = big" + ".a" * 10**4 + "\n", "B012"),
    "names of names": ("".join(f"let a{i} = a{i + 1} + 1\n" for i in range(2000)) + "let a2000 = 1\n", "B012"),
    "calls of calls": ("".join(f"f{i}(x) = f{i + 1}(x) + 1\n" for i in range(1500)) + "f1500(x) = x\nlet y = f0(1)\n", "B012"),
    "faults of syntax": ("let 1\n" * 8000, "B010"),
    "faults of names": ("".join(f"x{i} = bgi.logits\n" for i in range(5000)), "B101"),
    "unclosed comments": ("/*\n" * 9000, "B010"),
    "comments of another language": ("-- x\n" * 9000, "B010"),
    "unclosed texts": ('"\n' * 15000, "B003"),
    "closing brackets": (")\n" * 15000, "B002"),
    "a long unknown name": ("let y = " + "x" * 900_000 + "\n", "B101"),
}  # fmt: skip
"""Specs whose meaning, or whose faults, grow faster than their text, and the code of the first diagnostic."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BLOWUPS)
def test_a_spec_that_blows_up_is_a_diagnostic(name: str) -> None:
    """One diagnostic, or as many as are listed; the formatter has the same one or a result that it keeps."""
    text, code = BLOWUPS[name]
    source = Source(HEAD + text + LOSS)
    with pytest.raises(SpecError) as caught:
        check_names(source, {})
    codes = [d.code for d in caught.value.diagnostics]
    assert code in codes
    assert len(codes) <= 101
    try:
        formatted = format_source(source)
    except SpecError:
        return  # it does not parse
    assert format_source(Source(formatted)) == formatted


def test_the_last_of_many_errors_says_that_there_are_more() -> None:
    """A hundred are listed, and the last diagnostic says that nothing behind them is checked."""
    with pytest.raises(SpecError) as caught:
        check_names(Source("let 1\n" * 300), {})
    diagnostics = caught.value.diagnostics
    assert [d.code for d in diagnostics] == ["B010"] * 100 + ["B015"]
    assert diagnostics[-1].help == "correct these errors first"


def test_large_specs_within_the_limits_are_read() -> None:
    """A thousand terms, their sum, and a list of ten thousand numbers."""
    terms = "".join(f"a{i} = {CE}\n" for i in range(1000))
    names, ones = ", ".join(f"a{i}" for i in range(1000)), ", ".join(["1"] * 1000)
    text = f"{HEAD}{terms}let n = [{', '.join(map(str, range(4000)))}]\nloss = sum([{names}] * [{ones}])\n"
    assert len(check_names(Source(text), {}).equations) == 1001


# ── nothing that a folder holds is run ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and saved models."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    add_model(folder)
    return folder


class Foreign:
    """An object whose pickle, when it is loaded, makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.trace), "w")


SPEC = HEAD + 'teacher b = hf("{name}")\nloss = kd(b.logits -> tiny.logits)\n'


def pickled(folder: Path, save: Callable[[dict[str, object], Path], None], content: dict[str, object]) -> Path:
    """A copy of the saved model whose weights are pickled."""
    shutil.copytree(folder / "saved", to := folder / f"pickled{len(list(folder.iterdir()))}")
    state = load_file(to / "model.safetensors")
    (to / "model.safetensors").unlink()
    save({**state, **content}, to / "pytorch_model.bin")
    return to


def in_parts(state: dict[str, object], path: Path) -> None:
    """Weights in two files and their index."""
    torch.save(state, path.with_name("a.bin"))
    path.with_name("pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state, "a.bin")}))


SAVES: dict[str, Callable[[dict[str, object], Path], None]] = {
    "a zip": torch.save,
    "the format before torch 1.6": partial(torch.save, _use_new_zipfile_serialization=False),
    "parts": in_parts,
    "a later protocol": partial(torch.save, pickle_protocol=4),
}


@pytest.mark.parametrize("how", SAVES)
def test_a_pickle_with_a_foreign_object_is_a_diagnostic_and_is_never_run(how: str, world: Path) -> None:
    """`check` names the file and what it would call, with how to convert it; the same weights alone are sound."""
    trace = world / "trace"
    folder = pickled(world, SAVES[how], {"epoch": Foreign(trace)})
    (fault,) = find(SPEC.format(name=folder.name), world)
    assert (fault.code, fault.span.text) == ("B315", f'"{folder.name}"')
    assert fault.message.startswith(f"`{'a.bin' if how == 'parts' else 'pytorch_model.bin'}` of `")
    assert "safetensors.torch.save_file" in fault.help
    assert not trace.exists()
    if how != "a later protocol":  # which torch refuses for weights, too
        assert find(SPEC.format(name=pickled(world, SAVES[how], {}).name), world) == []


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x80\x02", b"x" * 1000, b"\x80\x02}q\x00(X\xff\xff\xff\xff"])
def test_a_broken_pickle_is_a_diagnostic(content: bytes, world: Path) -> None:
    """A file that was cut short, and one of another kind."""
    folder = pickled(world, lambda state, path: (path.write_bytes(content) and None) or None, {})
    (fault,) = find(SPEC.format(name=folder.name), world)
    assert fault.code == "B315"
    assert "cannot be read" in fault.message


def test_torch_allows_what_the_check_allows() -> None:
    """Everything that builds tensors for torch is allowed; the check knows no callable beyond torch's list."""
    from torch._weights_only_unpickler import _get_allowed_globals

    from brewgraph.models.task_heads import _OF_TENSORS

    assert [name for name in _get_allowed_globals() if not _OF_TENSORS.fullmatch(name)] == []
    assert not any(
        map(_OF_TENSORS.fullmatch, ("os.system", "torch.hub.load", "torch.load", "builtins.eval", "posix.system"))
    )


# ── a model folder cannot exhaust time or memory ─────────────────────────────────────────────────────────────────────

CONFIGS = {
    "layers": {"num_hidden_layers": 10**8},
    "labels": {"num_labels": 10**9},
    "no names of classes": {"id2label": 3},
    "a text for a width": {"hidden_size": "wide"},
    "layers of an unknown kind": {"layer_types": ["x", "y"]},
    "no number format": {"dtype": "os.system"},
    "no architecture": {"model_type": "../../x"},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", CONFIGS)
def test_a_hostile_configuration_is_a_diagnostic(what: str, world: Path) -> None:
    """Counts that would be built one by one, and values of a wrong type."""
    shutil.copytree(world / "saved", folder := world / f"config{len(list(world.iterdir()))}")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIGS[what]))
    (fault,) = find(SPEC.format(name=folder.name), world)
    assert (fault.code, fault.span.text) == ("B310", f'"{folder.name}"')


@pytest.mark.parametrize("text", ["[" * 10**5, "null", '"x"', "{", "[1]", '{"a": ' + "9" * 10**4 + "}", ""])
def test_a_configuration_that_is_no_object_is_a_diagnostic(text: str, world: Path) -> None:
    """Also where it is nested beyond what can be read."""
    shutil.copytree(world / "saved", folder := world / f"config{len(list(world.iterdir()))}")
    (folder / "config.json").write_text(text)
    (fault,) = find(SPEC.format(name=folder.name), world)
    assert (fault.code, fault.span.text) == ("B310", f'"{folder.name}"')


@pytest.mark.timeout(60)
def test_a_spec_asks_for_no_more_layers_than_are_built(world: Path) -> None:
    """The number is named."""
    (fault,) = find(
        HEAD + 'teacher b = hf(model_type="bert", num_hidden_layers=100000000)\nloss = kd(b.logits -> tiny.logits)\n',
        world,
    )
    assert (fault.code, fault.span.text) == ("B313", "100000000")


# ── nor can data ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.csv.gz", "bomb.parquet.gz"])
def test_a_file_that_unpacks_without_end_is_a_diagnostic(name: str, world: Path) -> None:
    """200 MB of blanks in 200 KB."""
    with gzip.open(world / name, "wb") as file:
        for _ in range(200):
            file.write(b" " * 10**6)
    (fault,) = find(HEAD.replace("train.jsonl", name) + LOSS, world)
    assert (fault.code, fault.span.text) == ("B404", f'"{name}"')
    assert "unpacks to more than 200 times its size" in fault.message


@pytest.mark.timeout(60)
def test_a_text_that_unpacks_without_end_is_a_diagnostic(world: Path) -> None:
    """The same for a source that reads a whole file at once."""
    with gzip.open(world / "bomb.txt.gz", "wb") as file:
        for _ in range(200):
            file.write(b" " * 10**6)
    (fault,) = find(
        'student tiny = hf("saved")\ndata d = text(train="bomb.txt.gz", mask=15%)\nloss = ce(d.labels -> tiny.logits)\n',
        world,
    )
    assert (fault.code, fault.span.text) == ("B404", '"bomb.txt.gz"')


@pytest.mark.parametrize(
    "row", ["[" * 10**5 + "]" * 10**5, '{"text": ' + "[" * 10**5 + "]" * 10**5 + ', "label": "y"}']
)
def test_rows_that_are_nested_without_end_are_a_diagnostic(row: str, world: Path) -> None:
    """In JSON lines."""
    (world / "deep.jsonl").write_text(row + "\n")
    (fault,) = find(HEAD.replace("train.jsonl", "deep.jsonl") + LOSS, world)
    assert fault.code in ("B404", "B415")


def test_no_more_than_a_spec_may_have_is_read_of_a_file() -> None:
    """/dev/zero has no end."""
    assert len(Source.read("/dev/zero").text) == MOST_BYTES


def test_a_folder_of_rows_that_are_nested_without_end_is_a_diagnostic(world: Path) -> None:
    """As `hub` reads it."""
    (world / "deep").mkdir()
    (world / "deep" / "train.jsonl").write_text('{"text": ' + "[" * 10**5 + "]" * 10**5 + ', "label": "y"}\n')
    text = HEAD.replace('files(train="train.jsonl"', 'hub("./deep"')
    (fault,) = find(text + LOSS, world)
    assert (fault.code, fault.span.text) == ("B404", '"./deep"')


# ── what is shown commands no terminal ───────────────────────────────────────────────────────────────────────────────

HOSTILE = "\x1b]0;title\x07\x1b[2Jx\x9b\u202ey"


def test_a_diagnostic_shows_control_characters_and_does_not_send_them(world: Path) -> None:
    """In the line of the spec, in a name of a file, and in a label of the data, with the marks below their text."""
    rows = [{"text": "a", "label": label} for label in (f"n{HOSTILE}", f"n{HOSTILE} ", "y") * 2]
    (world / "hostile.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checked = whole(HEAD.replace("train.jsonl", "hostile.jsonl") + LOSS, world)
    shown = "".join(map(render, checked.warnings))
    shown += "".join(
        map(render, find(f'{HEAD}let s = "{HOSTILE}"; x = big.nothing\nteacher b = hf("./{HOSTILE}")\n{LOSS}', world))
    )
    assert not set("\x1b\x07\x9b\u202e") & set(shown)
    assert shown.count("\u241b]0;title\u2407\u241b[2Jx\ufffd\ufffdy") >= 3
    assert f"{' ' * len(HOSTILE)}                     ^^^^^^^\n" in shown


def test_a_terminal_obeys_only_our_own_colours() -> None:
    """Whatever is printed: what moves the cursor or sets the title is shown; files and pipes get all as it is."""
    stream = StringIO()
    terminal = Terminal(stream)
    terminal.write(f"\x1b[1;31merror\x1b[0m {HOSTILE}\x1b[8mhidden\rover\n")
    assert (
        stream.getvalue()
        == "\x1b[1;31merror\x1b[0m \u241b]0;title\u2407\u241b[2Jx\ufffd\ufffdy\u241b[8mhidden\u240dover\n"
    )


# ── code of folders, and what is written ─────────────────────────────────────────────────────────────────────────────


def test_no_command_before_a_run_runs_code_or_writes_beside_the_spec(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with code of its own, a module, a script and pickles: all stay as they are, and nothing new is there."""
    trace, code = world / "ran", "open({!r}, 'w')\nraise SystemExit('code was run')\n"
    shutil.copytree(world / "saved", folder := world / "bringing_code")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": classes}))
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    for path in (folder / "evil.py", world / "mine.py", world / "sitecustomize.py"):
        path.write_text(code.format(str(trace)))
    with (world / "mine.py").open("a") as file:
        file.write('@brewgraph.ops.operation(takes={"logits": "logits"}, source="…")\ndef near(a, b): ...\n')
    torch.save(Foreign(trace), folder / "training_args.bin")
    (world / "hostile.brew").write_text("import mine\n" + SPEC.format(name="bringing_code"))
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    monkeypatch.chdir(world)
    for words in ("check", "plan", "graph", "fmt --check", "explain"):
        more = ("b",) if words == "explain" else ()
        result = command(*words.split(), "hostile.brew", *more)
        assert "code was run" not in result.output
    assert not trace.exists()
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()} == before


def test_every_call_that_could_load_code_says_no() -> None:
    """`from_pretrained` of an auto class, wherever it stands in the package."""
    calls = [
        (path.name, call)
        for path in Path(brewgraph.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "from_pretrained"
    ]
    assert len(calls) >= 6
    for name, call in calls:
        of_auto = not ast.unparse(call.func.value).startswith("type(")  # the student's own class
        says = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert not of_auto or says.get("trust_remote_code") == "False", name


def test_a_data_set_with_a_script_is_refused(world: Path) -> None:
    """Even where it holds rows as well."""
    (world / "scripted").mkdir()
    (world / "scripted" / "scripted.py").write_text("raise SystemExit('code was run')\n")
    (world / "scripted" / "train.jsonl").write_text('{"text": "a", "label": "y"}\n')
    (fault,) = find(HEAD.replace('files(train="train.jsonl"', 'hub("./scripted"') + LOSS, world)
    assert (fault.code, "scripts are no longer supported" in fault.message) == ("B404", True)


@pytest.mark.parametrize(
    "index", ['{"../../x": "AutoModel"}', '{"ner": "pipeline"}', "[]", "{", "[" * 10**5, '{"ner": 3}']
)
def test_an_index_of_heads_names_heads_and_known_classes_alone(index: str, tmp_path: Path) -> None:
    """It comes with the folder of a run."""
    (tmp_path / "heads.json").write_text(index)
    with pytest.raises(SourceFault, match="does not name heads"):
        saved_heads(tmp_path)


def test_pages_and_pictures_escape_names_and_texts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of a tap, a value of a param and a file's name that would be tags."""
    monkeypatch.chdir(world)
    name = "<img src=x onerror=alert(1)>.brew"
    (world / name).write_text(HEAD + 'tap t = big @ "pooler"\nlet s = "</script><script>alert(1)</script>"\n' + LOSS)
    for to, format in (("page.html", "html"), ("picture.svg", "svg")):
        result = command("graph", name, "--format", format, "--out", to)
        assert result.exit_code == 0, result.output
        content = (world / to).read_text()
        assert f"<{format}" in content
        assert "<img src=x" not in content
        assert "<script>alert" not in content
