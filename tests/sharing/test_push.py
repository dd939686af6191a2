"""A push to a hub on this machine and to a folder: what is sent, what stays, and what a hub refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoModelForSequenceClassification

from brewgraph.models.export_record import ExportRecord
from tests.cli.test_main import process
from tests.cli.tiny import command
from tests.sharing.stub_hub import TOKEN, StubHub, stub_hub

SENT = ["README.md", "config.json", "model.safetensors", "spec.brew", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with stub_hub() as hub:
        yield hub


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, to change."""
    shutil.copytree(finished, tmp_path / "runs" / finished.name)
    return tmp_path / "runs" / finished.name


CODE = """
import json, os, sys, time
from brewgraph.sharing import push
from tests.cli.tiny import command
push.SILENCE = int(os.environ["SILENCE"])
time.sleep = lambda seconds: None  # between attempts
for arguments, env in json.loads(sys.argv[1]):
    os.environ.update(env)
    result = command("push", *arguments)
    print(json.dumps([result.exit_code, result.stdout, result.stderr]))
"""


class Pushed(NamedTuple):
    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The last line of stderr."""
        return self.stderr.splitlines()[-1]


def push(hub: str, *calls: Sequence[str], tokens: Sequence[str] = (), silence: int = 60, **env: str) -> list[Pushed]:
    """Pushes one after the other, in a process that has this hub and waits for its `silence`, in seconds; there is no
    terminal to ask at.
    """
    own = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "SILENCE": str(silence), **env}
    listed = [(list(call), {"HF_TOKEN": token}) for call, token in zip_longest(calls, tokens, fillvalue=TOKEN)]
    result = process(json.dumps(listed), folder=Path.cwd(), code=CODE, **own)
    assert result.returncode == 0, result.stderr
    return [Pushed(*json.loads(line)) for line in result.stdout.splitlines()]


def test_a_push_is_listed_and_then_there(run: Path, hub: StubHub, tmp_path: Path) -> None:
    """A new private repository holds the student and its card, loads in transformers, and takes the next push."""
    (run / "student" / "old.bin").write_bytes(b"a pickle")
    (run / "student" / ".secret").write_text("x")
    (run / "student" / "checkpoint-2").mkdir()
    (run / "student" / "checkpoint-2" / "optimizer.pt").write_bytes(b"a pickle")
    dry, first, again = push(
        hub.url,
        [str(run), "me/none", "--dry-run"],  # as long as the other name, which the card repeats
        [str(run), "me/tiny", "--private"],
        [str(run), "tiny", "--revision", "v2"],
    )
    assert (dry.code, dry.stdout, dry.stderr) == (0, "nothing was sent to me/none\n", first.stderr)
    assert (first.code, first.stdout) == (0, f"{hub.url}/me/tiny\n"), first.stderr
    assert list(hub.repos) == ["me/tiny"]
    files = hub.repos["me/tiny"]["main"]
    assert (sorted(set(files) - {".gitattributes"}), hub.private) == (SENT, {"me/tiny"})
    assert [line.split()[0] for line in first.stderr.splitlines()] == [*SENT, "stays"]
    assert first.said == "stays here: .secret, checkpoint-2/optimizer.pt, old.bin"
    assert b"from_pretrained('me/tiny')" in files["README.md"]
    assert files["model.safetensors"] == (run / "student" / "model.safetensors").read_bytes()
    got = tmp_path / "got"
    got.mkdir()
    for name, content in files.items():
        (got / name).write_bytes(content)
    assert AutoModelForSequenceClassification.from_pretrained(got).num_parameters() == 4018
    assert (again.code, again.stdout) == (0, f"{hub.url}/me/tiny/tree/v2\n"), again.stderr
    assert b"from_pretrained('tiny')" in hub.repos["me/tiny"]["v2"]["README.md"]
    assert hub.repos["me/tiny"]["main"]["README.md"] == files["README.md"]


def test_a_card_that_was_completed_by_hand_is_sent_as_it_is(run: Path, tmp_path: Path) -> None:
    """One that `brewgraph card` wrote and nobody changed is written anew, with the name of its place."""
    card = run / "student" / "README.md"
    assert command("card", str(run), "--write").exit_code == 0
    assert command("push", str(run), "--to-folder", str(tmp_path / "a")).exit_code == 0
    assert "from_pretrained('a')" in (tmp_path / "a" / "README.md").read_text()
    card.write_text(card.read_text().replace("library_name", "license: mit\nlibrary_name"))
    refused = command("card", str(run), "--write")
    assert refused.exit_code == 2
    assert "is there and differs from the card of the run: --force replaces it" in refused.stderr
    result = command("push", str(run), "--to-folder", str(tmp_path / "b"))
    assert "yours" in result.stderr
    assert (tmp_path / "b" / "README.md").read_bytes() == card.read_bytes()


def test_a_card_that_cannot_be_sent(run: Path, tmp_path: Path) -> None:
    """One that is a link stays, and is written from the run; one in another encoding is named."""
    card, out = run / "student" / "README.md", tmp_path / "out"
    (tmp_path / "mine.md").write_text("mine")
    card.symlink_to(tmp_path / "mine.md")
    assert command("push", str(run), "--to-folder", str(out)).exit_code == 0
    assert (out / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    card.unlink()
    card.write_bytes("---\nlicense: mit\n---\nGrüße".encode("latin-1"))
    for words in (["push", str(run), "me/x", "--dry-run"], ["card", str(run), "--write"]):
        result = command(*words)
        assert result.exit_code == 2
        assert result.stderr.endswith("student/README.md` is not UTF-8: byte 23 is 0xFC; save it as UTF-8\n")
    assert command("card", str(run), "--write", "--force").exit_code == 0


def test_a_student_that_is_not_whole_is_not_sent(run: Path, tmp_path: Path) -> None:
    """Nor is one into its own folder."""
    own = command("push", str(run), "--to-folder", str(run / "student"))
    assert own.exit_code == 2
    assert own.stderr.endswith("student` is where the student is: name another folder\n")
    assert not (run / "student" / "README.md").exists()
    (run / "student" / "model.safetensors").unlink()
    result = command("push", str(run), "--to-folder", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert "student` holds no weights: restore them, or begin anew by `brewgraph run SPEC --force`" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_exported_student_is_not_pushed(run: Path, tmp_path: Path) -> None:
    """The card is that of the run: which is to be named."""
    resolved = json.loads((run / "resolved.json").read_text())
    of = {"spec": (run / "spec.brew").read_text(), **{key: resolved[key] for key in ("folder", "params", "tasks")}}
    record = ExportRecord(
        "onnx", "fp32", "model.onnx", 17, (), (), None, "class", (), "", 0, 0.0, {}, 0, {}, "", of
    )  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(asdict(record)))
    (tmp_path / "model.onnx").touch()
    for file in (run / "student").glob("*.json"):
        shutil.copy(file, tmp_path)
    for words in (["card", str(tmp_path)], ["push", str(tmp_path), "me/x", "--dry-run"]):
        result = command(*words)
        assert result.exit_code == 2
        assert "holds an exported student, which has no card: name the run that it is of" in result.stderr


def test_other_files_of_a_repository_are_kept_unless_told(run: Path, hub: StubHub) -> None:
    """They are named; `--replace` deletes them in the same commit."""
    for name in ("me/old", "me/older"):
        hub.repos[name] = {"main": {"pytorch_model.bin": b"x", "config.json": b"{}"}}
    refused, replaced = push(hub.url, [str(run), "me/old"], [str(run), "me/older", "--replace"])
    assert (refused.code, replaced.code) == (2, 0)
    assert refused.said == (
        "error: `me/old` holds files that are none of this student's, `pytorch_model.bin`: choose another name or "
        "--revision, or --replace them"
    )
    assert sorted(hub.repos["me/old"]["main"]) == ["config.json", "pytorch_model.bin"]
    assert sorted(hub.repos["me/older"]["main"]) == SENT


REFUSED = [
    ("me/x", "other", 3, "error: HUB does not know you: `hf auth login`, or set HF_TOKEN to a token that may write; nothing was sent"),
    ("you/x", TOKEN, 3, "error: your token may not write to `you/x` (You don't have the rights to create a model under this namespace): take one that may write to `you`; nothing was sent"),
    ("me/forbidden", TOKEN, 3, "error: your token may not write to `me/forbidden` (no: 403): take one that may write to `me`; nothing was sent"),
    ("me/hidden", TOKEN, 3, "error: HUB has no `me/hidden`, or hides it from you: check the name and that your token sees `me`; nothing was sent"),
    ("me/down", TOKEN, 3, "error: HUB answers 500 (no: 500): try again later; nothing was sent"),
    ("a/b/c", TOKEN, 2, "error: `a/b/c` cannot be the name of a repository: write `USER/MODEL`, of letters, digits, `-`, `_` and `.`; a folder is --to-folder"),
    ("./x y", TOKEN, 2, "error: `./x y` cannot be the name of a repository: write `USER/MODEL`, of letters, digits, `-`, `_` and `.`; a folder is --to-folder"),
]  # fmt: skip


def test_a_hub_that_refuses(run: Path, hub: StubHub) -> None:
    """One line with the remedy; no repository has a file of the student."""
    hub.fails = {"me/forbidden/commit": 403, "me/hidden/tree": 404, "me/down/tree": 500}
    results = push(hub.url, *([str(run), name] for name, *_ in REFUSED), tokens=[token for _, token, *_ in REFUSED])
    told = [(code, said.replace("HUB", hub.url)) for *_, code, said in REFUSED]
    assert [(result.code, result.said) for result in results] == told
    assert not any("README.md" in files for branches in hub.repos.values() for files in branches.values())


@pytest.mark.slow
def test_a_hub_that_is_no_hub(run: Path, hub: StubHub) -> None:
    """Silent, gone in the middle of a file, gone before it says that it has the commit, or the login page of a network:
    one line each, soon, which says what is there.
    """
    hub.fails = {
        "me/page/tree": "page", "/objects/me/cut/": "gone", "me/lost/commit": "gone", "/repos/create": "silent",
    }  # fmt: skip
    for name in ("me/page", "me/cut", "me/lost"):
        hub.repos[name] = {"main": {}}
    (silent,) = push(hub.url, [str(run), "me/x"], silence=1)
    del hub.fails["/repos/create"]
    page, cut, lost = push(hub.url, *([str(run), name] for name in ("me/page", "me/cut", "me/lost")))
    said = [x.said.replace(hub.url, "HUB") for x in (silent, page, cut, lost)]
    assert [x.code for x in (silent, page, cut, lost)] == [3, 3, 3, 3]
    assert said[0] == (
        "error: HUB cannot be reached (timed out): try again, or copy the student with --to-folder; nothing was sent"
    )
    assert said[1].startswith("error: HUB does not answer as a hub does (JSONDecodeError: ")
    assert said[1].endswith("): check HF_ENDPOINT and the network; nothing was sent")
    for words in said[2:]:
        assert words.startswith("error: HUB cannot be reached (")
        assert words.endswith("; the hub has all of it or nothing, and the same command is safe to repeat")
    assert {name: branches["main"] for name, branches in hub.repos.items()} == {
        "me/page": {},
        "me/cut": {},
        "me/lost": {},
    }


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached(run: Path) -> None:
    """Nobody listens; and where the machine is told to be offline."""
    (result,) = push("http://127.0.0.1:9", [str(run), "me/x"])
    assert result.code == 3
    assert result.said.startswith("error: http://127.0.0.1:9 cannot be reached (")
    assert result.said.endswith("): try again, or copy the student with --to-folder; nothing was sent")
    (result,) = push("http://127.0.0.1:9", [str(run), "me/x"], HF_HUB_OFFLINE="1")
    assert (result.code, result.said) == (
        3, "error: HF_HUB_OFFLINE is set: unset it, or copy the student with --to-folder and upload that later",
    )  # fmt: skip


def test_a_folder_takes_the_same_files(run: Path, tmp_path: Path) -> None:
    """Again, too; not one that holds anything else. The baseline goes as the student does."""
    out = tmp_path / "out"
    for _ in range(2):
        assert command("push", str(run), "--to-folder", str(out)).exit_code == 0
    assert sorted(x.name for x in out.iterdir()) == SENT
    assert AutoModelForSequenceClassification.from_pretrained(out).num_parameters() == 4018
    (out / "mine.txt").write_text("x")
    refused = command("push", str(run), "--to-folder", str(out))
    assert refused.exit_code == 2
    assert "holds other files, `mine.txt`: name another folder" in refused.stderr
    assert command("push", str(run / "alone"), "--to-folder", str(tmp_path / "alone")).exit_code == 0
    assert "trained without a teacher, to compare" in (tmp_path / "alone" / "README.md").read_text()


def test_a_token_is_never_sent(run: Path, tmp_path: Path) -> None:
    """In the spec, of which the card is full too; the file and the line are named, not the token."""
    token = "hf_" + "a1B2" * 9
    spec = run / "spec.brew"
    spec.write_text(spec.read_text() + f"# {token}\n")
    result = command("push", str(run), "--to-folder", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "seems to hold an access token in line " in result.stderr
    assert token not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN"], "name the repository, as `USER/MODEL`, or --to-folder FOLDER: one of both"),
        (["RUN", "me/x", "--to-folder", "out"], "one of both"),
        (["RUN", "--to-folder", "out", "--private"], "--private, --revision and --replace are of repositories"),
        (["nowhere", "me/x"], "there is no folder `nowhere`"),
        (["~no-such-user/x", "me/x"], "there is no folder `~no-such-user/x`"),
        (["RUN", "me/ünï", "--dry-run"], "`me/ünï` cannot be the name of a repository: write `USER/MODEL`"),
        (["RUN", "https://huggingface.co/me/x"], "and `.`; an address is no name; a folder is --to-folder"),
        (["RUN", "me/x\n\033[31m"], "`me/x [31m` cannot be the name of a repository"),
        (["RUN/student/..", "me/x", "--dry-run", "--bogus"], "No such option"),
        (["RUN/..", "me/x"], "holds no run"),
    ],
)
def test_bad_input(run: Path, arguments: list[str], said: str) -> None:
    """One line with the remedy."""
    result = command("push", *(x.replace("RUN", str(run)) for x in arguments))
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_an_unfinished_run_is_not_pushed(run: Path) -> None:
    """Neither is a card of it written."""
    (run / "finished.json").unlink()
    for name in ("push", "card"):
        result = command(name, str(run), *(["me/x"] if name == "push" else []))
        assert result.exit_code == 2
        assert "is not finished: repeat its `brewgraph run` command to resume it" in result.stderr
