"""Comments as other languages write them: said once for lines that follow each other, and taken out of the text."""

from __future__ import annotations

import re

from brewgraph.diagnostics import Collector
from brewgraph.source import Source, Span

_ENDS = {"/*": "*/", "<!--": "-->", '"""': '"""', "'''": "'''"}
_BEGINS = re.compile(r"""^[ \t]*(--(?=[\s-]|$)|//|%|REM(?= +\w)|/\*|<!--|\"{3}|'{3})""", re.MULTILINE)
"""What begins a line and no statement; `--x` is a number turned round twice."""


def without_foreign_comments(source: Source, collector: Collector) -> Source:
    """The spec with blanks in place of such comments, so that the rest is read; each is a fault, B010."""
    text, at, said = source.text, 0, -1
    while found := _BEGINS.search(text, at):
        begin, mark = found.start(1), found[1]
        closed = text.find(_ENDS[mark], found.end()) if mark in _ENDS else -1
        line_end = text.find("\n", closed if closed >= 0 else begin)
        end = len(text) if line_end < 0 else line_end
        if text[said:begin].strip() or said < 0:
            help = "comments begin with `#`" + (", on each line" if mark in _ENDS else "")
            collector.add("B010", f"`{mark}` begins no comment", Span(source, begin, found.end()), help=help)
        text = text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:]
        at = said = end
    return source if said < 0 else Source(text, source.name)
