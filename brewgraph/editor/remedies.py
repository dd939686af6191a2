"""Edits that remove a fault, made from the remedy that its diagnostic names. Each is tried before it is offered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from brewgraph.editor.analysis import Analysis, Fault
from brewgraph.editor.context import context_at
from brewgraph.syntax import tree as t

_MEANT = re.compile(r"did you mean `([^`]+)`\?")
_WRITE = re.compile(r"(?:write|add a projection:|pick layers:|one plain name:|call it|use) `([^`]+)`")
_BLANKS = re.compile(r"…|\b[A-Z]{3,}\b")
"""What stands in a remedy where the user must fill something in."""


@dataclass(frozen=True)
class Remedy:
    """An edit: `start` to `end` of the text becomes `text`."""

    title: str
    start: int
    end: int
    text: str

    def applied(self, text: str) -> str:
        return text[: self.start] + self.text + text[self.end :]


def remedies(fault: Fault, analysis: Analysis, again: Callable[[str], Analysis]) -> list[Remedy]:
    """The edits that remove a fault of this text and bring no other error. `again` reads a text anew."""
    text = analysis.source.text
    kept: dict[tuple[int, int, str], Remedy] = {}
    known = _counted(analysis.faults)
    seen = known[fault.code, fault.message]
    for remedy in _candidates(fault, analysis):
        key = remedy.start, remedy.end, remedy.text
        if key in kept or text[remedy.start : remedy.end] == remedy.text:
            continue
        after = _counted(again(remedy.applied(text)).faults)
        gone = not seen or after[fault.code, fault.message] < seen
        if gone and not any(number > known[what] for what, number in after.items() if what[0].startswith("B")):
            kept[key] = remedy
    if fault.is_warning:
        silenced = _silence(fault, text)
        kept[silenced.start, silenced.end, silenced.text] = silenced
    return list(kept.values())


def _counted(faults: tuple[Fault, ...]) -> Counter[tuple[str, str]]:
    return Counter((fault.code, fault.message) for fault in faults)


def _candidates(fault: Fault, analysis: Analysis) -> Iterator[Remedy]:
    text = analysis.source.text
    here = text[fault.start : fault.end]
    for match in _MEANT.finditer(fault.help):
        meant = match.group(1)
        for word in [here, *reversed(re.findall(r"`([^`]+)`", fault.message))]:
            at = [m.start() for m in re.finditer(rf"(?<![\w]){re.escape(word)}(?![\w])", here)] if word else []
            if at:
                start = fault.start + at[-1]
                yield Remedy(f"change to `{meant}`", start, start + len(word), meant)
    for match in _WRITE.finditer(fault.help):
        write = match.group(1)
        if _BLANKS.search(write):
            continue
        yield Remedy(f"write `{write}`", fault.start, fault.end, write)
        if (statement := _statement(fault, analysis)) is not None:
            start, end = statement.span.start, statement.span.end
            yield Remedy(f"write `{write}`", start, end, write)
    if fault.code == "W110" and fault.help == "remove it":
        line_end = text.find("\n", fault.start)
        comment = text.rfind("#", 0, fault.start)
        yield Remedy("remove the comment", comment, len(text) if line_end < 0 else line_end, "")


def _statement(fault: Fault, analysis: Analysis) -> t.Statement | None:
    """The innermost statement around a fault."""
    around = [
        node
        for node in analysis.spec.walk()
        if isinstance(node, t.Statement) and node.span.start <= fault.start and fault.end <= node.span.end
    ]
    return around[-1] if around else None


def _silence(fault: Fault, text: str) -> Remedy:
    """A comment above the statement that silences the warning."""
    statement = context_at(text, fault.start).statement
    start = statement[0].start if statement else fault.start
    line = text.rfind("\n", 0, start) + 1
    indent = re.match(r"[ \t]*", text[line:])
    white = indent.group() if indent is not None else ""
    return Remedy(f"ignore {fault.code} here", line, line, f"{white}# brew: ignore[{fault.code}]\n")
