"""What other tools call things, and what to write here instead: one table, asked before near names are looked for.

The table is data: the TOML files beside this module hold one `[[place]]` per entry, where the place is the position in
which people write the words. `words` are separated by blanks; `Instead` describes the other fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from brewgraph.diagnostics import closest

_FILES = ("settings", "equations", "sources", "statements", "commands")
_KNOWN_ONLY = ("argument", "option", "metric", "configuration", "command option")
"""Places where a remedy is offered only if what it writes is known: sources, operations and commands take different
words.
"""

_LONG, _SURE, _CLEAR = 4, 0.8, 0.8
"""A misspelled foreign word needs `_LONG` letters and a nearness of `_SURE`; a known word nearer than `_CLEAR` wins."""

_LAST = re.compile(r"(\w+)( ?= ?)([^\s=,()]+(?: \w+)?)(\)*)$")
"""The last setting of a piece of a spec: its name, `=`, its value, closing brackets."""


class Instead(NamedTuple):
    """What to write in place of a foreign word.

    `write` is a piece of a spec for the place where the word stands, `elsewhere` one for another place. `remark` is
    further advice; before `elsewhere` it says where that place is.
    """

    write: str = ""
    remark: str = ""
    elsewhere: str = ""

    @property
    def help(self) -> str:
        """The remedy of a diagnostic."""
        there = ": ".join(x for x in (self.remark, f"`{self.elsewhere}`" if self.elsewhere else "") if x)
        return "; ".join(x for x in (f"write `{self.write}`" if self.write else "", there) if x)


@cache
def foreign_words() -> Mapping[str, Mapping[str, Instead]]:
    """Place -> word -> entry. The files are read on the first call: most specs hold no foreign word."""
    import tomllib

    places: dict[str, dict[str, Instead]] = {}
    for name in _FILES:
        text = (files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
        for place, entries in tomllib.loads(text).items():
            for entry in entries:
                places.setdefault(place, {}).update(dict.fromkeys(entry.pop("words").split(), Instead(**entry)))
    places["statement"] |= places["word"]  # these words are foreign at the beginning of a statement, too
    return places


def instead(place: str, word: str, known: Iterable[str] = ()) -> str:
    """The remedy for an unknown word at this place: what other tools mean by it, else a near known word, else empty.

    `known` are the words that this place takes.
    """
    names = list(known)
    entries = foreign_words().get(place, {})
    if place in _KNOWN_ONLY:
        entries = {x: e for x, e in entries.items() if not e.write or e.write.partition("=")[0].split()[0] in names}
    if word in entries:
        return entries[word].help
    near, foreign = closest(word, names), closest(word, (x for x in entries if len(x) >= _LONG))
    if foreign and foreign[1] >= _SURE and (near is None or near[1] < min(foreign[1], _CLEAR)):
        return entries[foreign[0]].help
    return f"did you mean `{near[0]}`?" if near else ""


def from_outside(word: str) -> str:
    """The remedy for a setting that was passed to the command: in the spec, by a param. Empty for other words."""
    entry = foreign_words()["own setting"].get(word) or foreign_words()["setting"].get(word)
    if entry is None:
        return ""
    if entry.write:
        return "it is a setting of the spec: " + _as_param(entry.write, "train {{ {} }}")
    return f"{entry.remark}: {_as_param(entry.elsewhere)}" if entry.elsewhere else entry.remark


def _as_param(piece: str, frame: str = "{}") -> str:
    """How to change a piece of a spec from the command line: `optimizer = adamw(lr=5e-5)` needs `param lr = 5e-5` and
    `optimizer = adamw(lr=lr)`. No param holds 10%, 500 steps or a list: the spec itself must change.

    `frame` is what surrounds the piece.
    """
    last = _LAST.search(piece)
    if last is None or re.search(r"[%\[\]\s…]", last[3]):
        return f"`{frame.format(piece)}`"
    name, joint, value, close = last.groups()
    quoted = f'"{value}"' if re.fullmatch(r"(?!true|false)[a-z]\w*", value) else value
    used = frame.format(f"{piece[: last.start()]}{name}{joint}{name}{close}")
    return f"write `param {name} = {quoted}` and `{used}` there, then `--set {name}=…`"
