"""The server as an editor sees it: a session over stdio with a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pygls")

from tests.cli.tiny import write_tiny
from tests.editor.client import Client, Refused, codes

NAME = "student.brew"
EVERYWHERE = {"start": {"line": 0, "character": 0}, "end": {"line": 999, "character": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editor")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    client = Client(folder, BREWGRAPH_FACTS=str(folder / "facts"))
    client.start()
    yield client
    assert client.stop() == 0
    assert client.shown == []  # no handler failed


@pytest.fixture
def text(client: Client, folder: Path) -> Iterator[str]:
    """The student's spec, open."""
    text = (folder / NAME).read_text()
    client.open(NAME, text)
    yield text
    client.notify("textDocument/didClose", {"textDocument": {"uri": client.uri(NAME)}})


def place(text: str, before: str) -> tuple[int, int]:
    """Line and column behind the first occurrence of some words."""
    offset = text.index(before) + len(before)
    return text.count("\n", 0, offset), offset - text.rfind("\n", 0, offset) - 1


def range_at(line: int, start: int, end: int) -> dict[str, Any]:
    return {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}


def test_every_fault_is_published_as_one_types(client: Client, text: str):
    """A wrong name and a broken line: each has its range, code and page, and neither hides the other."""
    client.change(NAME, text.replace("soft   = kd(big", "soft   = kd(bigg").replace("mean(hidden)", "mean(hidden"))
    faults = client.next_diagnostics(NAME)
    assert codes(faults) == [("B101", 9), ("B001", 13)]
    assert faults[0]["range"] == range_at(9, 12, 16)
    assert faults[0]["message"] == "there is no `bigg`\nhelp: did you mean `big`?"
    assert faults[0]["codeDescription"]["href"].endswith("/explanations/B101.md")
    assert (faults[0]["severity"], faults[0]["source"]) == (1, "brewgraph")
    client.change(NAME, text)
    assert client.next_diagnostics(NAME) == []


def test_columns_count_as_editors_do(client: Client, text: str):
    """Behind an emoji, which is two units of UTF-16, and in lines that end with `\\r\\n`."""
    client.change(NAME, text.replace("kd(big", '"😀" * kd(bigg').replace("\n", "\r\n"))
    fault = next(d for d in client.next_diagnostics(NAME) if d["code"] == "B101")
    assert fault["range"] == range_at(9, 19, 23)


def test_the_remedy_is_an_edit(client: Client, text: str):
    """`did you mean` is a quick fix that changes the wrong word."""
    client.change(NAME, text.replace("kd(big", "kd(bigg"))
    actions = client.ask("codeAction", NAME, range=range_at(9, 13, 13), context={"diagnostics": []})
    assert [action["title"] for action in actions] == ["change to `big`"]
    edit = actions[0]["edit"]["changes"][client.uri(NAME)]
    assert edit == [{"range": range_at(9, 12, 16), "newText": "big"}]


def test_completion_follows_the_last_good_state(client: Client, text: str):
    """In a line that does not parse yet, names of the lines around it are offered."""
    client.change(NAME, text.replace("loss = soft", "loss = so"))
    client.next_diagnostics(NAME)
    assert client.labels(NAME, place(text, "loss = so")) == ["soft", "softmax"]
    client.change(NAME, text.replace("loss = soft", "loss = (big."))
    words = client.labels(NAME, place(text.replace("loss = soft", "loss = (big."), "loss = (big."))
    assert {"logits", "hidden", "attention"} <= set(words)


def test_a_completion_inserts_its_edit(client: Client, text: str):
    """A path in a string is completed from its last slash; a call brings its brackets; a page explains it."""
    client.change(NAME, text.replace('train="train.jsonl"', 'train="./tr'))
    here = place(text.replace('train="train.jsonl"', 'train="./tr'), 'train="./tr')
    files = client.ask("completion", NAME, here)["items"]
    edit = next(item["textEdit"] for item in files if item["label"] == "train.jsonl")
    assert edit == {"range": range_at(here[0], here[1] - 2, here[1]), "newText": "train.jsonl"}
    client.change(NAME, text.replace("soft   = kd", "soft   = m"))
    items = client.ask("completion", NAME, (9, 10))["items"]
    item = next(item for item in items if item["label"] == "mse")
    assert (item["textEdit"]["newText"], item["insertTextFormat"]) == ("mse($0)", 2)
    page = client.request("completionItem/resolve", item)["documentation"]["value"]
    assert "mean squared error" in page.lower()


def test_hover_explains_the_word(client: Client, text: str):
    """An operation's page, a setting's line, a feature's kind, a code's meaning; nothing on white space."""

    def hover(before: str, changed: str = text) -> str:
        answer = client.ask("hover", NAME, place(changed, before))
        return answer["contents"]["value"] if answer else ""

    assert "source: Hinton" in hover("soft   = k")
    assert hover("steps").startswith("`steps`: optimizer steps")
    assert hover("small.hid").startswith("`hidden`: hidden states: (batch, length, width)")
    assert hover("teach").startswith("```brew\nteacher NAME")
    assert hover("brew 1\n") == ""
    noted = text.replace("brew 1\n", "brew 1\n# brew: ignore[W205]\n")
    client.change(NAME, noted)
    assert hover("ignore[W2", noted).startswith("**W205**")


def test_definition_and_references(client: Client, text: str, folder: Path):
    """A use leads to its definition, in this file or another; a path to its file."""
    line = text[: text.index("hard   =")].count("\n")
    assert client.ask("definition", NAME, (line, 12))["range"] == range_at(7, 5, 9)
    assert client.ask("definition", NAME, place(text, 'brew("teach'))["uri"] == client.uri("teacher.brew")
    found = client.ask("references", NAME, place(text, "soft"), context={"includeDeclaration": True})
    assert [x["range"]["start"]["line"] for x in found] == [9, 13]
    (folder / "lib.brew").write_text("# made by hand\nwarm(x) = 2 * x\n")
    client.change(NAME, text.replace("brew 1", 'brew 1\nimport "lib.brew" as lib').replace("0.5 *", "lib.warm(1) *"))
    answer = client.ask("definition", NAME, (14, 20))
    assert (answer["uri"], answer["range"]) == (client.uri("lib.brew"), range_at(1, 0, 4))


def test_rename_changes_every_use(client: Client, text: str):
    """Definition and uses, in the order of the text; the result has no other fault."""
    assert client.ask("prepareRename", NAME, place(text, "soft")) == range_at(9, 0, 4)
    edits = client.ask("rename", NAME, place(text, "param T"), newName="tau")["changes"][client.uri(NAME)]
    assert [(e["range"]["start"]["line"], e["newText"]) for e in edits] == [(2, "tau"), (9, "tau")]


def test_rename_leaves_the_source_alone(client: Client, text: str):
    """`data files = files(…)`: the declaration and its uses; the source is no name to rename."""
    client.change(NAME, changed := text.replace("rows ", "files ").replace("rows.", "files."))
    edits = client.ask("rename", NAME, place(changed, "data file"), newName="x")["changes"][client.uri(NAME)]
    assert [e["range"]["start"] for e in edits] == [{"line": 7, "character": 5}, {"line": 10, "character": 12}]
    assert client.ask("prepareRename", NAME, place(changed, "= file")) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2x", "is no name: a name consists of letters"),
        ("a-b", "is no name"),
        ("ö", "is no name"),
        ("", "is no name"),
        ("teacher", "is a word of the language"),
        ("none", "is a word of the language"),
        ("big", "the spec already has `big`"),
    ],
)
def test_rename_refuses(client: Client, text: str, name: str, message: str):
    """Invalid and taken names are refused, with the reason."""
    with pytest.raises(Refused, match=message):
        client.ask("rename", NAME, place(text, "soft"), newName=name)


def test_rename_refuses_while_the_spec_is_broken(client: Client, text: str):
    """Uses in a statement that does not parse would be missed."""
    client.change(NAME, text.replace("mean(hidden)", "mean(hidden"))
    with pytest.raises(Refused, match="does not parse"):
        client.ask("rename", NAME, place(text, "soft"), newName="tau")


def test_the_outline_is_the_statements(client: Client, text: str):
    """Each named statement, and the settings inside `train`."""
    symbols = client.ask("documentSymbol", NAME)
    assert [x["name"] for x in symbols] == ["T", "big", "small", "rows", "soft", "hard", "hidden", "loss", "train"]
    assert [x["name"] for x in symbols[-1]["children"]] == ["steps"]


def test_format_is_that_of_the_command(client: Client, text: str):
    """The formatted text, with the line ends of the file; none for a text that does not parse."""
    from brewgraph.api import format_text

    options = {"tabSize": 4, "insertSpaces": True}
    ragged = text.replace("T=T", "T =  T").replace("\n", "\r\n")
    client.change(NAME, ragged)
    (edit,) = client.ask("formatting", NAME, options=options)
    lines = ragged.split("\r\n")
    start, end = (sum(len(x) + 2 for x in lines[: p["line"]]) + p["character"] for p in edit["range"].values())
    assert ragged[:start] + edit["newText"] + ragged[end:] == format_text(text).replace("\n", "\r\n")
    client.change(NAME, format_text(text))
    assert client.ask("formatting", NAME, options=options) == []
    client.change(NAME, text + "x = (\n")
    assert client.ask("formatting", NAME, options=options) == []


def test_semantic_tokens_cover_the_names(client: Client, text: str):
    """Five numbers for each use, in the order of the text."""
    data = client.ask("semanticTokens/full", NAME)["data"]
    assert data[:10] == [2, 6, 1, 1, 0, 2, 8, 3, 2, 0]  # `T` is a parameter, `big` a class


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_that_was_never_saved(client: Client):
    """Has its faults and completions; a folder that does not exist has, too."""
    for uri in ("untitled:Untitled-1", "file:///no/such/folder/x.brew"):
        faults = client.open(uri, "brew 1\nloss = nothing\n")
        assert [d["code"] for d in faults] == ["B101", "B107", "B107"]
        assert "let" in client.labels(uri, (1, 0))


def test_a_file_that_is_not_utf8(client: Client, folder: Path):
    """The editor shows it in some encoding; the fault says what every command would say, until it is saved right."""
    (folder / "latin.brew").write_bytes("brew 1\n# gr\xfc\xdfe\n".encode("latin-1"))
    first = client.open("latin.brew", "brew 1\n# grüße\n")[0]
    assert first["message"].startswith("line 2 of `latin.brew` is not UTF-8")
    (folder / "latin.brew").write_text("brew 1\n# grüße\n", encoding="utf-8")
    client.notify("textDocument/didSave", {"textDocument": {"uri": client.uri("latin.brew")}})
    assert not any("UTF-8" in d["message"] for d in client.next_diagnostics("latin.brew"))


def test_a_spec_that_imports_another(client: Client, folder: Path):
    """A fault of the other file is shown at the import, and is gone when that file is saved without it."""
    (folder / "other.brew").write_text("f(x) = )\n")
    faults = client.open("importing.brew", 'brew 1\nimport "other.brew" as o\nlet a = o.f(1)\n')
    fault = next(d for d in faults if d["message"].startswith("in "))
    assert fault["range"]["start"]["line"] == 1
    assert fault["relatedInformation"][0]["location"]["uri"] == client.uri("other.brew")
    (folder / "other.brew").write_text("f(x) = x\n")
    client.notify("textDocument/didSave", {"textDocument": {"uri": client.uri("other.brew")}})
    assert not any(d["message"].startswith("in ") for d in client.next_diagnostics("importing.brew"))


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * 10_000,
        "".join(f"x{i} = kd(a.logits -> b.logits)\n" for i in range(10_000)),
        "(" * 10_000,
        "\0\x0c\u2028" * 100,
        "x = " + "1 + " * 5000 + "1\n",
    ],
    ids=["short lines", "long lines", "brackets", "odd characters", "a sum"],
)
def test_a_huge_or_odd_text_ends(client: Client, text: str):
    """10,000 lines, brackets or odd characters: faults come, requests are answered meanwhile."""
    client.notify(
        "textDocument/didOpen",
        {"textDocument": {"uri": client.uri("huge.brew"), "languageId": "brew", "version": 1, "text": text}},
    )
    client.versions[client.uri("huge.brew")] = 1
    client.ask("completion", "huge.brew", (9_999, 0))
    assert client.next_diagnostics("huge.brew")
    client.ask("documentSymbol", "huge.brew")
    client.ask("formatting", "huge.brew", options={"tabSize": 4, "insertSpaces": True})
    client.notify("textDocument/didClose", {"textDocument": {"uri": client.uri("huge.brew")}})


def test_requests_about_unknown_documents_are_answered(client: Client):
    """A request that comes after a document was closed has an empty answer."""
    for method in ("hover", "definition", "completion", "references", "documentHighlight"):
        more = {"context": {"includeDeclaration": True}} if method == "references" else {}
        assert client.ask(method, "closed.brew", (0, 0), **more) in (None, [], {"isIncomplete": False, "items": []})


def test_a_request_whose_document_closes_meanwhile_is_answered(client: Client):
    """No request waits for the analysis of a text that nobody has open any more."""
    client.open("closing.brew", "brew 1\n")
    client.change("closing.brew", "x = 1\n" * 5_000)
    document = {"textDocument": {"uri": client.uri("closing.brew")}}
    client.count += 1
    client.send({"id": client.count, "method": "textDocument/documentSymbol", "params": document})
    client.notify("textDocument/didClose", document)
    answer = client.wait(lambda m: m.get("id") == client.count and "method" not in m)
    assert answer["result"] == []


# ── with models ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_shapes_come_once_models_are_known(client: Client, text: str):
    """A sound spec gets its shapes, weights and costs in the background; a fault of shapes its range; each moves along
    with the text until the next check.
    """
    while not client.ask("inlayHint", NAME, range=EVERYWHERE):
        client.next_diagnostics(NAME)
    hints = {(h["position"]["line"], h["label"]) for h in client.ask("inlayHint", NAME, range=EVERYWHERE)}
    assert {(9, "(batch, 2)"), (11, "16 -> 32"), (11, "(batch, length, 32)"), (10, "× 0.5")} <= hints
    while "being computed" in (said := client.ask("hover", NAME, place(text, "soft"))["contents"]["value"]):
        pass  # each of these waits
    assert "MFLOP forward" in said

    client.change(NAME, text.replace(" via linear", ""))
    assert client.next_diagnostics(NAME) == []  # names and kinds are right
    fault = client.next_diagnostics(NAME)[0]
    assert (fault["code"], fault["range"]["start"]["line"]) == ("B204", 11)
    client.change(NAME, "# moved\n" + text.replace(" via linear", ""))
    moved = client.next_diagnostics(NAME)[0]
    assert (moved["code"], moved["range"]["start"]["line"]) == ("B204", 12)
    assert (10, "(batch, 2)") in {
        (h["position"]["line"], h["label"]) for h in client.ask("inlayHint", NAME, range=EVERYWHERE)
    }

    changed = text + 'tap t = big @ "enc'
    client.change(NAME, changed)
    words = client.labels(NAME, place(changed, '@ "enc'))
    assert {"encoder.layer.0", "encoder.layer.1.attention.self.query"} <= set(words)
    client.change(NAME, text + "x = big.")
    assert "start" not in client.labels(NAME, place(text + "x = big.", "x = big."))  # a classifier has none


def test_the_server_starts_without_torch():
    """What the server imports holds neither torch nor transformers: checks that need them run in the worker."""
    import subprocess

    code = "import sys, brewgraph.cli.ops, brewgraph.editor.server; print({'torch', 'transformers'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
