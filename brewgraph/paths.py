"""Where the paths of a spec lead, and whether a file can be written: the one place that resolves them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from brewgraph.diagnostics import SourceFault, UsageError, closest, listing, shortened, suggest

CACHE_SUFFIX = ".lmdb"
"""How the name of a file ends that keeps values on disk."""

EXPORT_RECORD = "export.json"
"""The file of an exported model that describes it."""

FACTS = "BREWGRAPH_FACTS"
"""The variable of the environment that names the folder of facts; `off` for none."""


def locate(name: str, folder: Path, field: str | None = None) -> Path:
    """The path that a spec in this folder means by a name: below the folder, or absolute; `~` is the home folder.

    Nothing need be there. SourceFault B346 for what no file system could hold, or what this user may not look at.
    """
    try:
        if not name.strip():
            raise ValueError("it is empty")
        path = folder / Path(name).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # which refuses what can be no path
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceFault(
            "B346",
            f"`{shown(name)}` is not a valid path: {reason[:1].lower()}{reason[1:].rstrip('.')}",
            help="name a file or folder, below this spec's folder or by an absolute path",
            field=field,
        ) from error
    return path


def at_home(name: str | Path) -> Path:
    """The path of a name in which `~` is the home folder; `~NAME` of nobody is a name like any other."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_file(path: Path) -> bool:
    """Whether there is a plain file, or a link to one: no folder, no link to nowhere, no pipe, which keeps waiting."""
    try:
        return path.is_file()
    except OSError:  # a link to itself
        return False


def read_json(path: Path) -> object:
    """The value in a file of JSON. `OSError` where there is no plain file, `ValueError` for whatever else is not JSON
    in UTF-8 or is nested too deeply.
    """
    if not is_file(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return parse_json(path.read_bytes().decode("utf-8"))


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text. `ValueError` for anything else, also where it is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shipped_text(name: str) -> str:
    """A file that ships with the package: the installed one, or the checkout of an editable install."""
    package = Path(__file__).parent
    shipped = package / name
    return (shipped if shipped.is_file() else package.parent / name).read_text(encoding="utf-8")


def check_writable(path: Path, remedy: str = "name another file") -> None:
    """A file can be written there, in folders that are made where they are missing; `UsageError` says why it cannot."""
    try:
        if path.is_dir():
            raise UsageError(f"`{path}` is a folder: name a file in it")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise UsageError(f"`{path}` cannot be written: `{above}` is a file, not a folder; {remedy}")
        if not os.access(path if path.exists() else above, os.W_OK):
            raise UsageError(f"`{path}` cannot be written: permission denied; {remedy}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"`{shown(str(path))}` cannot be written: {reason}; {remedy}") from error


def write_file(path: Path, text: str) -> None:
    """Write a text, and the folders that it stands in. What was there stays where that fails, as on a full disk. Raises
    as `check_writable`.
    """
    check_writable(path)
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (target.exists() and not target.is_file()) or not os.access(target.parent, os.W_OK):
            target.write_text(text, encoding="utf-8")  # a device, or a file in a folder that takes no new one
        else:
            replace_file(target, text)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be written: {error.strerror or error}; name another file") from error


def replace_file(path: Path, text: str) -> None:
    """Write a text in place of a file, whole or not at all; a file's mode is kept, a link stays a link."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def facts_folder() -> Path | None:
    """The folder of what is remembered of models, data and this machine; None where nothing is to be kept."""
    setting = os.environ.get(FACTS, "")
    if setting.lower() == "off":
        return None
    if setting:
        return at_home(setting)
    import platformdirs

    return platformdirs.user_cache_path("brewgraph") / "facts"


def keep_fact(path: Path, text: str) -> None:
    """Write a fact, whole or not at all. A folder that cannot be written keeps none."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)


def no_path(name: str) -> str:
    """What to do about a name that is no path on this machine: an address, or a pattern. Empty for any other."""
    if "://" in name:
        hub = name.partition("huggingface.co/")[2].removeprefix("datasets/").rstrip("/")
        return (
            f'on the hub it is called `"{hub}"`' if hub else "download it, and name the file or folder on this machine"
        )
    if set("*?") & set(name):
        return 'name one file for each split; several are joined: `files(train="a.csv") + files(train="b.csv")`'
    return ""


def shown(name: str) -> str:
    """A name as a message shows it: what cannot be printed as its escape, and not longer than a line."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return shortened(plain)


def near_folder(path: Path, holding: tuple[str, ...]) -> str:
    """The folder beside `path` that is called nearly like it and holds such a file; empty where there is none."""
    if not path.parent.is_dir():
        return ""
    folders = (entry for entry in path.parent.iterdir() if entry.is_dir())
    names = [entry.name for entry in folders if any(found for pattern in holding for found in entry.glob(pattern))]
    near = closest(path.name, names)
    return near[0] if near is not None else ""


def nearby(path: Path, limit: int = 8) -> str:
    """What is there where `path` is not: a similar name, else some names of its folder."""
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        return f"it is a folder that holds {listing(inside, limit)}" if inside else "it is an empty folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"the folder {path.parent} is empty"
    return suggest(path.name, names) or f"in {path.parent} there is {listing(names, limit)}"
