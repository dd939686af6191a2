"""A finished student with its card to a hub, or to a folder: what goes along, what never does, and what a hub refuses.

Everything is judged before anything is sent: which files go, that none holds an access token, that the repository
holds nothing else. One commit then takes all files, or none.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brewgraph.diagnostics import RunError, UsageError, listing
from brewgraph.inspect.report_of import REPORT, report_of
from brewgraph.running.damage import ANEW
from brewgraph.running.finished import FinishedRun
from brewgraph.running.records import read_record
from brewgraph.sharing.card import REPO, card_of, printable
from brewgraph.training.folder import display_path

CARD = "README.md"
SPEC = "spec.brew"
ENDINGS = frozenset({".safetensors", ".json", ".txt", ".model", ".md", ".jinja", ".vocab", ".tiktoken"})
"""Files of a student that go along: weights, configuration, tokenizer. Pickles are none of them."""
_TOKENS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|AKIA[0-9A-Z]{16}"
    rb"|sk-[A-Za-z0-9_-]{32,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""Access tokens of hubs and clouds, and private keys."""
SILENCE = 60
"""For so many seconds a hub may stay silent."""
_THEIRS = frozenset({".gitattributes"})
"""Files that a hub adds to a repository."""


@dataclass(frozen=True)
class Upload:
    """What is sent of a student's folder: each file by its path there, as the file on this machine or its content;
    `left_out` stays here. The card is in `files`; it is the user's own if `own_card`.
    """

    student: Path
    files: Mapping[str, Path | bytes]
    left_out: Sequence[str]
    own_card: bool

    def size(self, name: str) -> int:
        """Bytes of a file."""
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size


def placeholder(run: FinishedRun) -> str:
    """What a card calls a student that has no name yet: the folder that it is in."""
    return f"{run.folder.path.name}/{run.folder.student.name}"


def gather(run: FinishedRun, name: str, *, report: bool = False) -> Upload:
    """What is sent of a run whose student is called `name` there: its files, the card, the spec, maybe the report. A
    card in the student's folder is taken as it is, unless it is one that `brewgraph card` wrote and nobody changed.

    Raises `UsageError` for a file that seems to hold an access token, a card that is not UTF-8, or a report without
    matplotlib; `RunError` for a student without weights.
    """
    student = run.folder.student
    files: dict[str, Path | bytes] = {}
    left_out = []
    for path in sorted(student.rglob("*")):
        place = path.relative_to(student).as_posix()
        if path.is_symlink() or not path.is_file():
            continue
        hidden = any(part.startswith(".") for part in path.relative_to(student).parts)
        if hidden or path.suffix not in ENDINGS:
            left_out.append(place)
        else:
            files[place] = path
    if not any(name.endswith(".safetensors") for name in files):
        raise RunError(f"`{display_path(student)}` holds no weights: restore them, or begin anew {ANEW}")
    own_card = CARD in files and own_text(student) != card_of(run, placeholder(run))
    if not own_card:
        files[CARD] = card_of(run, name).encode()
    files[SPEC] = run.folder.whole.path / SPEC
    if report and (record := read_record(run.folder.whole)) is not None:
        files[REPORT] = report_of(record).write().encode()
    upload = Upload(student, dict(sorted(files.items())), tuple(left_out), own_card)
    _demand_no_tokens(upload)
    return upload


def own_text(student: Path) -> str | None:
    """The text of the card in a student's folder; None without one. Raises `UsageError` for one that is not UTF-8."""
    path = student / CARD
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"`{display_path(path)}` is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02X}; save it as "
            "UTF-8"
        ) from error


def _demand_no_tokens(upload: Upload) -> None:
    """Raise `UsageError` for a text with what looks like an access token."""
    for name, content in upload.files.items():
        if name.endswith(".safetensors"):
            continue
        text = content if isinstance(content, bytes) else content.read_bytes()
        if (token := _TOKENS.search(text)) is not None:
            line = text.count(b"\n", 0, token.start()) + 1
            raise UsageError(
                f"`{name}` seems to hold an access token in line {line:,} ({token[0][:7].decode()}…): nothing was "
                "sent; revoke it, take it out of the spec or the file, and run the spec again"
            )


def push_to_folder(upload: Upload, folder: Path) -> None:
    """Copy all files into a folder, which is made. Raises `UsageError` if it holds other files or is the student's own,
    `RunError` if it cannot be written.
    """
    where = display_path(folder)
    try:
        if folder.resolve().is_relative_to(upload.student.resolve()):
            raise UsageError(f"`{where}` is where the student is: name another folder")
        there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        if others := sorted(set(there) - upload.files.keys()):
            raise UsageError(f"`{where}` holds other files, {listing(others, 3)}: name another folder")
        for name, content in upload.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)
    except OSError as error:
        raise RunError(f"`{where}` cannot be written: {error.strerror}; name another folder") from error


def check_name(name: str) -> None:
    """Raise `UsageError` for what cannot be the name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if REPO.fullmatch(name) is None:
            raise HFValidationError
    except HFValidationError as error:
        address = "; an address is no name" if "://" in name else ""
        raise UsageError(
            f"`{printable(name)}` cannot be the name of a repository: write `USER/MODEL`, of letters, digits, `-`, `_` "
            f"and `.`{address}; a folder is --to-folder"
        ) from error


def push_to_hub(
    upload: Upload, name: str, *, private: bool = False, revision: str | None = None, replace: bool = False
) -> str:
    """Send all files in one commit to the repository `name`, which is made if it is not there; its address.

    `revision` is a branch, also made. Files of the repository that are none of these are deleted with `replace`, else
    they are a `UsageError`. Raises `RunError` for what the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import get_session

    get_session().timeout = SILENCE  # by default it waits for ever
    with _explained(name, revision, "nothing was sent"):
        api = HfApi(library_name="brewgraph")
        url = api.create_repo(name, private=private or None, exist_ok=True)
        repo = url.repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = set(api.list_repo_files(repo, revision=revision)) - _THEIRS
        others = sorted(there - upload.files.keys())
        if others and not replace:
            raise UsageError(
                f"`{repo}` holds files that are none of this student's, {listing(others, 3)}: choose another name or "
                "--revision, or --replace them"
            )
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in upload.files.items()
        ]
        changes += [CommitOperationDelete(path, is_folder=False) for path in others]
    with _explained(name, revision, "the hub has all of it or nothing, and the same command is safe to repeat"):
        api.create_commit(repo, changes, commit_message="Student and card by brewgraph", revision=revision)
    return f"{url}" + (f"/tree/{revision}" if revision else "")


@contextmanager
def _explained(name: str, revision: str | None, state: str) -> Iterator[None]:
    """Turns what a hub refuses into one line with the remedy. `state` says what the hub has if it gives no answer."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise RunError(
            "HF_HUB_OFFLINE is set: unset it, or copy the student with --to-folder and upload that later"
        ) from error
    except LocalTokenNotFoundError as error:
        raise RunError(f"{ENDPOINT} does not know you: {_LOG_IN}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        kept = state if status is None or status >= 500 else "nothing was sent"
        raise RunError(f"{_refused(status, name, revision, ENDPOINT, error)}; {kept}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        said = printable(str(error))
        if isinstance(error, ValueError) and "metadata" in said.lower():
            raise UsageError(
                f"the hub does not take the head of {CARD}: {said}; correct it; nothing was sent"
            ) from error
        raise RunError(  # such as the page of a network that wants a login first
            f"{ENDPOINT} does not answer as a hub does ({type(error).__name__}: {said}): check HF_ENDPOINT and the "
            f"network; {state}"
        ) from error
    except Exception as error:
        # the hub's client says by a RuntimeError that a file could not be sent, and why by its cause
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        if not isinstance(cause, OSError | RuntimeError) and not _is_of_the_network(cause):
            raise
        reason = printable(str(cause)) or type(cause).__name__
        raise RunError(
            f"{ENDPOINT} cannot be reached ({reason}): try again, or copy the student with --to-folder; {state}"
        ) from error


_LOG_IN = "`hf auth login`, or set HF_TOKEN to a token that may write"


def _is_of_the_network(error: BaseException) -> bool:
    """Whether an error is one of the library that the hub's client speaks through."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _refused(status: int | None, name: str, revision: str | None, endpoint: str, error: Exception) -> str:
    """What a hub refused, and what to do."""
    namespace = name.rpartition("/")[0]
    of = f"`{namespace}`" if namespace else "your account"
    said = printable(getattr(error, "server_message", None) or "")
    if status == 401:
        return f"{endpoint} does not know you: {_LOG_IN}"
    if status == 403:
        return f"your token may not write to `{name}`{f' ({said})' if said else ''}: take one that may write to {of}"
    if status == 404:
        where = f"`{name}` at revision `{revision}`" if revision else f"`{name}`"
        return f"{endpoint} has no {where}, or hides it from you: check the name and that your token sees {of}"
    if status == 409:
        return f"`{name}` was changed meanwhile{f' ({said})' if said else ''}: run the command again"
    if status in (413, 507):
        return f"{endpoint} has no room for `{name}`{f' ({said})' if said else ''}: free some, or use another account"
    if status is not None and (status == 429 or status >= 500):
        return f"{endpoint} answers {status}{f' ({said})' if said else ''}: try again later"
    return f"{endpoint} refused `{name}`: {said or printable(str(error))}; check the name"
