"""One word of another tool and what takes its place here."""

from __future__ import annotations

import re
from typing import NamedTuple


class Instead(NamedTuple):
    """What to write in place of a foreign word.

    `write` is a piece of a spec for the place where the word stands, `elsewhere` one for another place, `remark` what
    else to know; before `elsewhere` it says where that is.
    """

    write: str = ""
    remark: str = ""
    elsewhere: str = ""

    @property
    def help(self) -> str:
        """The remedy of a diagnostic."""
        there = ": ".join(x for x in (self.remark, f"`{self.elsewhere}`" if self.elsewhere else "") if x)
        return "; ".join(x for x in (f"write `{self.write}`" if self.write else "", there) if x)


def words(several: str, write: str = "", remark: str = "", elsewhere: str = "") -> dict[str, Instead]:
    """The same entry for several words, which stand between blanks."""
    return dict.fromkeys(several.split(), Instead(write, remark, elsewhere))


_LAST = re.compile(r"(\w+)( ?= ?)([^\s=,()]+(?: \w+)?)(\)*)$")
"""The last setting of a piece of a spec: its name, `=`, its value, closing brackets."""


def as_param(piece: str, frame: str = "{}") -> str:
    """How a piece of a spec is changed from outside: by a param in place of its value, or, for a value that no param
    has (10%, 500 steps, lists), in the spec. `frame` is what the piece stands in.

    `optimizer = adamw(lr=5e-5)` needs `param lr = 5e-5` and `optimizer = adamw(lr=lr)`.
    """
    last = _LAST.search(piece)
    if last is None or re.search(r"[%\[\]\s…]", last[3]):
        return f"`{frame.format(piece)}`"
    name, joint, value, close = last.groups()
    quoted = f'"{value}"' if re.fullmatch(r"(?!true|false)[a-z]\w*", value) else value
    used = frame.format(f"{piece[: last.start()]}{name}{joint}{name}{close}")
    return f"write `param {name} = {quoted}` and `{used}` there, then `--set {name}=…`"
