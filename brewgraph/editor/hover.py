"""What to say about the word under the cursor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from brewgraph.editor.completion import Known
from brewgraph.editor.context import context_at, word_at
from brewgraph.editor.facts import ShapeFact, TermFact
from brewgraph.editor.index import Symbol, Use
from brewgraph.editor.reference import options_of, train_settings
from brewgraph.explanations import CODES, page_of
from brewgraph.ops import KINDS
from brewgraph.recipe.features import ROWS, SINGLES
from brewgraph.syntax.mistakes import FORMS

_LINES = 12
"""The most lines of a statement that are shown."""
_WHAT = {
    "param": "a param", "let": "a name for a value", "teacher": "a frozen model",
    "student": "the model that is trained", "data": "a data set", "tap": "a module's output", "proj": "a projection",
    "cache": "a kept value", "head": "a head", "equation": "an equation", "function": "a function",
    "parameter": "a parameter", "task": "a task", "stage": "a part of training", "import": "an import",
}  # fmt: skip


@dataclass(frozen=True)
class Hover:
    """Markdown for a stretch of the text."""

    markdown: str
    start: int
    end: int


def hover_symbol(
    use: Use, terms: Iterable[TermFact], shapes: Sequence[ShapeFact], costs: Sequence[Sequence[str]]
) -> Hover:
    """A name: its definition, and what is known of its value: shape, weight, cost."""
    symbol, rows = use.symbol, [list(row) for row in costs]
    if not rows:
        for term in terms:
            if term.start == symbol.place.end:
                rows += [
                    [
                        term.name,
                        ", ".join(filter(None, (f"weight {term.weight}", term.unit and f"mean over {term.unit}s"))),
                    ]
                ]
        value = getattr(symbol.statement, "value", None)
        if value is not None:
            rows += [["shape", x.text] for x in shapes if (x.start, x.end) == (value.span.start, value.span.end)]
    return Hover("\n\n".join(filter(None, (_definition(symbol), _table(rows)))), use.place.start, use.place.end)


def _definition(symbol: Symbol) -> str:
    lines = symbol.statement.span.text.split("\n")
    text = "\n".join(lines[:_LINES]) + ("\n…" if len(lines) > _LINES else "")
    path = ".".join((*symbol.path, symbol.name))
    return f"```brew\n{text}\n```\n`{path}`: {_WHAT.get(symbol.kind, 'a name')}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"- {title}: {_code(words)}" for title, words in rows)


def _code(text: str) -> str:
    return f"`{text}`" if re.search(r"[*_<>|]", text) and "`" not in text else text


def hover_word(text: str, offset: int, known: Known, shapes: Iterable[ShapeFact]) -> Hover | None:
    """A word that is no name of the spec: a call, an argument, a setting, a feature, a keyword, a code."""
    start, end = word_at(text, offset)
    word = text[start:end]
    c = context_at(text, start)
    if not word or c.in_string:
        return None
    if c.in_comment:
        return _code_of(word, start, end)
    behind = text[end:].lstrip(" \t")
    if c.last == ".":
        return _feature(word, start, end, shapes)
    if behind.startswith("(") or c.last == "via" or (not c.opened and c.last == "=" and word in known.reference.pages):
        keyword = "via" if c.last == "via" else c.argument_name or c.role
        page = known.reference.text(word, keyword)
        return Hover(page, start, end) if page else None
    if behind.startswith("=") and not behind.startswith("=="):
        options = (
            train_settings()
            if c.block == "train" and not c.statement
            else options_of(c.callee, c.role)
            if c.opened
            else []
        )
        option = next((o for o in options if o.name == word), None)
        if option is not None:
            default = f" Default: `{option.default}`." if option.default else ""
            words = f" One of {', '.join(f'`{w}`' for w in option.words)}." if option.words else ""
            return Hover(f"`{word}`: {option.text}.{default}{words}", start, end)
    if not c.statement and word in FORMS:
        return Hover(f"```brew\n{FORMS[word]}\n```", start, end)
    page = known.reference.text(word, c.keyword) if c.opened or c.block == "train" else ""
    return Hover(page, start, end) if page else None


def _feature(word: str, start: int, end: int, shapes: Iterable[ShapeFact]) -> Hover | None:
    kind = {**SINGLES, **ROWS}.get(word)
    around = [x for x in shapes if x.start <= start and end <= x.end]
    if kind is None and not around:
        return None
    here = min(around, key=lambda x: x.end - x.start, default=None)
    lines = [f"`{word}`: {KINDS[kind]}"] if kind else [f"`{word}`"]
    lines += [f"here `{here.text}`"] if here is not None else []
    return Hover("\n\n".join(lines), start, end)


def _code_of(word: str, start: int, end: int) -> Hover | None:
    if word not in CODES:
        return None
    page = page_of(word)
    return Hover(f"**{word}**: {CODES[word]}" + (f"\n\n{page.words}" if page is not None else ""), start, end)
