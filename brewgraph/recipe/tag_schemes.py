"""Tag schemes: which part of a tag marks the boundaries of an entity, and which its type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

OUTSIDE = "O"
_MEANINGS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
"""The meaning of marks: beginning, inside or end of an entity, or a single-word entity."""
_SCHEMES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
_MARK, _SEPARATOR = f"[{''.join(_MEANINGS)}]", "[-_:/|.]"
_COMMON = re.compile("[BIES]-.+")
_FORMS = (
    re.compile(f"(?P<mark>{_MARK})(?P<separator>{_SEPARATOR})(?P<kind>.+)"),
    re.compile(f"(?P<kind>.+)(?P<separator>{_SEPARATOR})(?P<mark>{_MARK})"),
    re.compile(f"(?P<mark>{_MARK})(?P<separator>)(?P<kind>)"),
)
"""`B-PER`, `PER-B`, `B`."""


@dataclass(frozen=True)
class Scheme:
    """A tag scheme. `marks` are its letters besides `O`, `form` is an index into `_FORMS`."""

    name: str
    marks: str
    form: int
    separator: str

    @property
    def closes(self) -> bool:
        """Whether the last word of an entity has its own mark."""
        return self.marks != "BI"

    @property
    def example(self) -> str:
        """An example of a beginning tag, for messages."""
        return self.tag("B", "PER")

    def split(self, tag: str) -> tuple[str, str] | None:
        """The meaning of a tag (B, I, E or S) and its type, `_` without one; None if it marks no entity."""
        match = _FORMS[self.form].fullmatch(tag)
        if match is None or match["separator"] != self.separator or match["mark"] not in self.marks:
            return None
        return _MEANINGS[match["mark"]], match["kind"] or "_"

    def tag(self, mark: str, kind: str) -> str:
        """The tag of a mark and a type."""
        return (f"{mark}{self.separator}{kind}", f"{kind}{self.separator}{mark}", mark)[self.form]

    def tags(self, kind: str) -> tuple[str, ...]:
        """All tags of a type."""
        return tuple(self.tag(mark, kind) for mark in self.marks)


def find_scheme(tags: Iterable[str]) -> Scheme | None:
    """The scheme of the tags of a data set or a model; None if they mark no entities, as parts of speech.

    One tag such as `B-PER` is enough. Other forms (`B_PER`, `PER-B`, plain `B`) count only if all tags besides `O`
    share the form and all marks belong to one scheme.
    """
    inside = set(tags) - {OUTSIDE}
    common = {tag for tag in inside if _COMMON.fullmatch(tag)}
    for form, pattern in enumerate(_FORMS):
        matches = [
            match for tag in inside if (match := pattern.fullmatch(tag)) and (not common or match["separator"] == "-")
        ]
        separators, marks = {match["separator"] for match in matches}, {match["mark"] for match in matches}
        if not common and (len(matches) < len(inside) or len(separators) != 1 or (form == 2 and "B" not in marks)):
            continue
        name = next((name for name, letters in _SCHEMES.items() if marks <= set(letters)), "IOBES" if common else None)
        if name is not None:
            return Scheme(name, _SCHEMES[name], form, separators.pop())
    return None
