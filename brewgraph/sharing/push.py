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
from brewgraph.display.lines import one_line
from brewgraph.inspect.report_of import REPORT, report_of
from brewgraph.running.finished import FinishedRun
from brewgraph.running.records import read_record
from brewgraph.sharing.card import card_of
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
_THEIRS = frozenset({".gitattributes"})
"""Files that a hub adds to a repository."""


@dataclass(frozen=True)
class Upload:
    """What is sent: each file by its path there, as the file on this machine or its content; `left_out` stays here.
    The card is in `files`; it is the user's own if `own_card`.
    """

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

    Raises `UsageError` for a file that seems to hold an access token, or a report without matplotlib.
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
    own = student / CARD
    own_card = own.is_file() and own.read_text(encoding="utf-8") != card_of(run, placeholder(run))
    if not own_card:
        files[CARD] = card_of(run, name).encode()
    files[SPEC] = run.folder.whole.path / SPEC
    if report and (record := read_record(run.folder.whole)) is not None:
        files[REPORT] = report_of(record).write().encode()
    upload = Upload(dict(sorted(files.items())), tuple(left_out), own_card)
    _demand_no_tokens(upload)
    return upload


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
    """Copy all files into a folder, which is made. Raises `UsageError` if it holds other files, `RunError` if it cannot
    be written.
    """
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if others := sorted(set(there) - upload.files.keys()):
        raise UsageError(f"`{display_path(folder)}` holds other files, {listing(others, 3)}: name another folder")
    try:
        for name, content in upload.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)
    except OSError as error:
        where = display_path(folder)
        raise RunError(f"`{where}` cannot be written: {error.strerror}; name another folder") from error


def push_to_hub(
    upload: Upload, name: str, *, private: bool = False, revision: str | None = None, replace: bool = False
) -> str:
    """Send all files in one commit to the repository `name`, which is made if it is not there; its address.

    `revision` is a branch, also made. Files of the repository that are none of these are deleted with `replace`, else
    they are a `UsageError`. Raises `UsageError` for a name that cannot be one, `RunError` for what the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    with _explained(name, revision):
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
        api.create_commit(repo, changes, commit_message="Student and card by brewgraph", revision=revision)
    return f"{url}" + (f"/tree/{revision}" if revision else "")


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Turns what a hub refuses into one line with the remedy."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HFValidationError as error:
        raise UsageError(
            f"`{name}` cannot be the name of a repository: write `USER/MODEL`, of letters, digits, `-`, `_` and `.`; a "
            "folder is --to-folder"
        ) from error
    except OfflineModeIsEnabled as error:
        raise RunError(
            "HF_HUB_OFFLINE is set: unset it, or copy the student with --to-folder and upload that later"
        ) from error
    except LocalTokenNotFoundError as error:
        raise RunError(f"{ENDPOINT} does not know you: {_LOG_IN}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise RunError(f"{_refused(status, name, revision, ENDPOINT, error)}; nothing was sent") from error
    except ValueError as error:
        said = one_line(str(error))
        if "metadata" not in said.lower():
            raise
        raise UsageError(f"the hub does not take the head of {CARD}: {said}; correct it; nothing was sent") from error
    except Exception as error:
        # the hub's client says by a RuntimeError that a file could not be sent, and why by its cause
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        if not isinstance(cause, OSError | RuntimeError) and not _is_of_the_network(cause):
            raise
        raise RunError(_unreachable(ENDPOINT, cause)) from error


_LOG_IN = "`hf auth login`, or set HF_TOKEN to a token that may write"


def _unreachable(endpoint: str, error: BaseException) -> str:
    reason = one_line(str(error)) or type(error).__name__
    return f"{endpoint} cannot be reached ({reason}): try again, or copy the student with --to-folder; nothing was sent"


def _is_of_the_network(error: BaseException) -> bool:
    """Whether an error is one of the library that the hub's client speaks through."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _refused(status: int | None, name: str, revision: str | None, endpoint: str, error: Exception) -> str:
    """What a hub refused, and what to do."""
    namespace = name.rpartition("/")[0]
    of = f"`{namespace}`" if namespace else "your account"
    said = one_line(getattr(error, "server_message", None) or "")
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
    return f"{endpoint} refused `{name}`: {said or one_line(str(error))}; check the name"
