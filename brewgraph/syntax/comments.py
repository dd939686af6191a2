"""Comments: those of other languages, which are taken out of the text, and those that silence warnings.

`# brew: ignore[W205]` silences a warning for a line or a statement, `ignore-file[…]` for a spec. At the end of a line
it applies to that line; on a line of its own to the statement below, to its last line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from brewgraph.diagnostics import Collector, Ignore, suggest
from brewgraph.source import Source, Span
from brewgraph.syntax.logical_lines import Lexeme, lexemes

_ENDS = {"/*": "*/", "<!--": "-->", '"""': '"""', "'''": "'''"}
_BEGINS = re.compile(r"""^[ \t]*(--(?=-*(?:\s|$))|//|%|REM(?= +\w)|/\*|<!--|\"{3}|'{3})""", re.MULTILINE)
"""Starts of comment lines in other languages; `--x` and `---x` are values negated twice and thrice."""


def without_foreign_comments(source: Source, collector: Collector) -> Source:
    """The spec with spaces in place of such comments, so that the rest is parsed; each is a fault, B010."""
    text, at, said = source.text, 0, -1
    before, kept = _Before(text), [""]
    unclosed: set[str] = set()
    while (found := _BEGINS.search(text, at)) and not collector.is_full:
        begin, mark = found.start(1), found[1]
        if mark == "--" and before.goes_on(begin):
            at = found.end()
            continue
        closed = text.find(_ENDS[mark], found.end()) if mark in _ENDS and mark not in unclosed else -1
        if closed < 0:
            unclosed.add(mark)
        line_end = text.find("\n", closed if closed >= 0 else begin)
        end = len(text) if line_end < 0 else line_end
        if text[said:begin].strip() or said < 0:
            help = "comments start with `#`" + (", on each line" if mark in _ENDS else "")
            collector.add("B010", f"`{mark}` does not start a comment", Span(source, begin, found.end()), help=help)
        kept += [text[max(said, 0) : begin], re.sub(r"[^\n]", " ", text[begin:end])]
        at = said = before.at = end
    return source if said < 0 else replace(source, text="".join(kept) + text[said:])


class _Before:
    """The code before a place in a text, which is read once, from one place to the next; comments in between are left
    out by moving `at`.
    """

    def __init__(self, text: str):
        self.text, self.at = text, 0
        self.opened: list[str] = []
        self.last: Lexeme | None = None

    def goes_on(self, end: int) -> bool:
        """Whether the code ends inside parentheses or brackets, or behind an operator, so that `-- x` is an operand."""
        for piece in lexemes(self.text, self.at, end)[0]:
            if piece.kind == "open":
                self.opened.append(piece.text)
            elif piece.kind == "close" and self.opened:
                self.opened.pop()
            self.last = self.last if piece.is_blank else piece
        self.at = end
        return (self.last is not None and self.last.kind == "operator") or self.opened[-1:] in (["("], ["["])


_MEANT = re.compile(r"#\s*brew\s*:")
_FORM = re.compile(r"#\s*brew\s*:\s*(ignore|ignore-file)\s*\[([^\]]*)\]")


def find_ignores(source: Source, pieces: Sequence[Lexeme], collector: Collector) -> None:
    """Collect the `ignore` comments of a text, and a warning for each malformed one."""
    for i, comment in enumerate(pieces):
        if comment.kind != "comment" or not _MEANT.match(comment.text):
            continue
        place = Span(source, comment.start, comment.end)
        form = _FORM.match(comment.text)
        if form is None:
            help = "write `# brew: ignore[W205]`, with commas between codes and the reason after the bracket"
            collector.add("W110", "malformed `brew:` comment: it silences nothing", place, help=help)
            continue
        start = comment.start + form.start(2)
        words = re.finditer(r"[^\s,]+", form.group(2))
        codes = tuple((word.group(), Span(source, start + word.start(), start + word.end())) for word in words)
        if not codes:
            collector.add("W110", "this comment names no code", place, help="write `# brew: ignore[W205]`")
        line = source.position(comment.start)[0]
        if form.group(1) == "ignore-file":
            if any(not x.is_blank for x in pieces[:i]):
                help = "move it above the first statement, or write `ignore` for one statement"
                collector.add("W110", "`ignore-file` must precede the first statement", place, help=help)
                continue
            ignore = Ignore(codes, source, 1, source.position(len(source.text))[0])
        elif source.line(line)[: source.position(comment.start)[1] - 1].strip():
            ignore = Ignore(codes, source, line, line)
        else:
            ignore = Ignore(codes, source, line, source.position(_statement_end(pieces, i))[0])
        if ignore not in collector.ignores:
            collector.ignores.append(ignore)


def _statement_end(pieces: Sequence[Lexeme], comment: int) -> int:
    """The end of the statement below a comment, including its braces."""
    depth, end, begun = 0, pieces[comment].end, False
    for x in pieces[comment + 1 :]:
        if x.kind == "close" and depth == 0:
            break  # the end of the body that the comment stands in
        if begun and depth == 0 and (x.breaks or x.text == ";"):
            break
        if not x.is_blank:
            begun, end = True, x.end
            depth += {"open": 1, "close": -1}.get(x.kind, 0)
    return end


def check_ignores(collector: Collector, source: Source, unsettled: frozenset[str] = frozenset()) -> None:
    """A warning for every ignored code that no diagnostic has, except for `unsettled` ones."""
    if not collector.ignores:
        return
    from brewgraph.explanations import CODES

    warnings = [code for code in CODES if code.startswith("W")]
    for ignore in [ignore for ignore in collector.ignores if ignore.source == source]:
        for code, place in ignore.codes:
            if code in CODES and code not in warnings:
                help = "fix the error: only warnings can be ignored"
                collector.add("W110", f"`{code}` is an error, and errors cannot be silenced", place, help=help)
            elif code not in warnings:
                help = suggest(code, warnings) or "`brewgraph explain` lists the codes"
                collector.add("W110", f"there is no warning `{code}`", place, help=help)
            elif code not in unsettled and not any(ignore.covers(code, d) for d in collector.diagnostics):
                collector.add("W110", f"no {code} is reported here", place, help="remove it")
