"""What the codes of diagnostics mean: a line for each in `codes.toml`, and a page for most, a Markdown file beside it.

A page is `# CODE: its line`, words, `## Wrong` and `## Right` with a spec each, and where there is one `## Source`.
A block in place of a spec says in its first line how the fault is met: ```` ```brew run ````, a spec whose run ends
with it; ```` ```python ````, a program that prints a spec; ```` ```json ````, a configuration for `brewgraph convert`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

_TABLE: dict[str, dict[str, str]] = tomllib.loads((files(__package__) / "codes.toml").read_text(encoding="utf-8"))
CODES, FAMILIES = _TABLE["codes"], _TABLE["families"]
SETTING = "In the examples `big` is a teacher of three layers, `tiny` a student of two, `d` labelled texts."
"""What the examples leave out: printed after each page, and declared by the test that runs them."""
_BLOCK = re.compile(r"```([a-z ]+)\n(.*?)```", re.DOTALL)
_PART = re.compile(r"^## (\w+)\n+(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def family(code: str) -> str:
    """The topic of a code's family, in a few words."""
    return FAMILIES.get(code[1:2], "something else")


@dataclass(frozen=True)
class Example:
    """A block of a page: `kind` is `brew`, a spec without what every example has, or as the head of this file says."""

    kind: str
    text: str


@dataclass(frozen=True)
class Page:
    """One code's page."""

    code: str
    title: str
    words: str
    wrong: Example
    right: Example
    source: str
    text: str


def page_of(code: str) -> Page | None:
    """The page of a code, None where it has none."""
    place = files(__package__) / f"{code}.md"
    if not place.is_file():
        return None
    text = place.read_text(encoding="utf-8").strip()
    head, _, body = text.partition("\n")
    parts = {name.lower(): content.strip() for name, content in _PART.findall(body)}
    wrong, right = (Example(*block.groups()) for block in map(_BLOCK.match, (parts["wrong"], parts["right"])) if block)
    words = body[: body.index("## ")].strip()
    return Page(code, head.removeprefix(f"# {code}: "), words, wrong, right, parts.get("source", ""), text)


def explained() -> tuple[str, ...]:
    """The codes that have a page, in order."""
    names = (entry.name for entry in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".md") for name in names if name.endswith(".md")))
