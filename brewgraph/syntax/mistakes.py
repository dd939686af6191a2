"""Messages for common syntax mistakes.

A `Place` describes a fault by what precedes it in its statement, the token itself and what follows. Rules match it from
specific to general (head of a statement, missing operand, missing operator) and answer with message and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from lark import Lark
from lark.exceptions import UnexpectedToken

from brewgraph.diagnostics import suggest
from brewgraph.source import Source, Span
from brewgraph.syntax.foreign import foreign_words, instead
from brewgraph.syntax.logical_lines import Lexeme, lexemes

FORMS = {
    "brew": "brew 1",
    "import": 'import "lib.brew" as lib` or `import package.module as name',
    "param": "param NAME = VALUE",
    "let": "let NAME = VALUE",
    "teacher": 'teacher NAME = hf("…")',
    "student": 'student NAME = hf("…")',
    "head": "head NAME = token_classifier(labels=9)",
    "data": 'data NAME = glue("…")',
    "tap": 'tap NAME = MODEL @ "path"',
    "proj": "proj NAME = linear(312 -> 768)",
    "cache": 'cache NAME = EXPRESSION at "path"',
    "sample": "sample [ner, qa] ~ size ** 0.5",
    "task": "task NAME { … }",
    "stage": "stage NAME for 3 epochs { … }",
    "train": "train { epochs = 3 }",
}
AUTO = 'cache auto at "path" limit 20 GB'
"""The other form of a `cache`."""
_OPERATORS = ("+", "-", "*", "/", "**", "->")


@dataclass(frozen=True)
class Place:
    """Where a statement breaks: lexemes before the culprit, the culprit (empty at the end), the rest of its line."""

    before: tuple[Lexeme, ...]
    here: str
    kind: str
    behind: str

    @property
    def first(self) -> str:
        return self.before[0].text if self.before else ""

    @property
    def last(self) -> str:
        return self.before[-1].text if self.before else ""

    @property
    def shown(self) -> str:
        return f"before `{self.here}`" if self.here else f"after `{self.last}`"

    @property
    def opened(self) -> list[int]:
        """Indices in `before` of the brackets that are open here."""
        stack: list[int] = []
        for i, piece in enumerate(self.before):
            if piece.kind == "open":
                stack.append(i)
            elif piece.kind == "close" and stack:
                stack.pop()
        return stack

    @property
    def bracket(self) -> str:
        return self.before[self.opened[-1]].text if self.opened else ""

    @property
    def level(self) -> tuple[Lexeme, ...]:
        """The lexemes before, in the same brackets, since the last comma."""
        pieces: list[Lexeme] = []
        depth = 0
        for piece in reversed(self.before):
            depth += piece.kind == "close"
            if depth == 0 and (piece.kind == "open" or piece.text == ","):
                break
            pieces += [piece] if depth == 0 else []
            depth -= piece.kind == "open"
        return tuple(pieces)

    @property
    def indexes(self) -> bool:
        """Whether the innermost bracket is an index, not a list."""
        at = self.opened[-1] if self.bracket == "[" else 0
        return at > 0 and ends(self.before[at - 1]) and not (at == 1 and self.first == "sample")

    @property
    def maps(self) -> bool:
        """Whether the innermost bracket is the brace of a mapping, not of a block."""
        return self.bracket == "{" and opens_mapping(self.before[: self.opened[-1]])


def ends(piece: Lexeme) -> bool:
    """Whether a piece can end a value."""
    return piece.kind in ("word", "number", "string", "close")


def opens_mapping(before: Sequence[Lexeme]) -> bool:
    """Whether a brace after these lexemes opens a mapping: a block follows a name, a value or a keyword."""
    if not before:
        return False
    if before[-1].text == "for" and len(before) > 2 and before[0].text == "stage":
        return True
    return not ends(before[-1])


def explain(grammar: Lark, error: UnexpectedToken, span: Span, source: Source, start: int) -> tuple[str, str]:
    """Message and help for a token that the grammar refuses; `start` is where its statement begins."""
    ended = error.token.type == "$END"
    pieces, _ = lexemes(source.text, start, span.end if ended else span.start)
    line_end = source.text.find("\n", span.end)
    place = Place(
        tuple(x for x in pieces if not x.is_blank),
        "" if ended else span.text.strip() or "the line break",
        error.token.type,
        "" if ended else source.text[span.end : line_end if line_end >= 0 else len(source.text)],
    )
    line = source.line(span.position[0])[: span.position[1] + 2]
    if re.search(r"\s--(\s|$)", re.sub(r'"[^"]*"', "", line)):
        return "`--` does not start a comment", "comments start with `#`"
    for rule in _RULES:
        if answer := rule(place):
            return answer
    wanted = ", ".join(sorted(x for x in error.expected if not x.startswith(("_", "$"))))
    return f"`{place.here}` is not allowed here", f"expected one of: {wanted}"


# ── the head of a statement ──────────────────────────────────────────────────────────────────────────────────────────


def _at_the_beginning(place: Place) -> tuple[str, str] | None:
    if place.before:
        return None
    if place.here == "=":
        return "expected a name before `=`", "write `name = …`"
    if place.here == "{":
        return "a brace is not allowed here", "braces follow `task NAME`, `stage NAME` or `train`, on the same line"
    comment = place.here in ("/", "-", "*", "**")
    help = "comments start with `#`" if comment else "start with a name and `=`, or with a keyword such as `teacher`"
    help = "settings belong in braces: `train { epochs = 3 }`" if place.here == "[" else help
    return f"a statement cannot begin with `{place.here}`", help


def _in_a_keyword_statement(place: Place) -> tuple[str, str] | None:
    first, count, here = place.first, len(place.before), place.here
    if first not in FORMS:
        return None
    form = f"write `{FORMS[first]}`"
    if first == "brew":
        if count == 1:
            return "the language's version is expected after `brew`", form
        return f"`{here}` cannot follow the version", "start the next statement on a new line, or after `;`"
    if place.last == "}" and not (first == "stage" and [x.text for x in place.before[2:4]] == ["for", "{"]):
        return "nothing can follow the closing brace", "start the next statement on a new line, or after `;`"
    if first == "import":
        return _in_an_import(place, form)
    if first == "sample":
        if count == 1:
            return "expected the tasks after `sample`", form
        return _in_a_sample(place, form)
    if first == "train":
        return ("braces are expected after `train`", form) if count == 1 else None
    if first == "cache" and (fault := _in_a_cache(place, form)):
        return fault
    if count == 1:
        also = " (a keyword cannot be a name at the beginning of a statement)" if here in ("=", "(", ".", "[") else ""
        return f"expected a name after `{first}`", form + also
    if first in ("task", "stage"):
        if place.last == "for" or [x.text for x in place.before[2:4]] == ["for", "{"]:
            return "expected a length after `for`", form
        if place.kind == "DURATION":
            return f"expected `for` before `{here}`", form
        if here == "for":
            return "only a stage has a length", "write `task NAME { … }`, and `stage NAME for 3 epochs { … }` around it"
        if not place.opened:
            return f"braces are expected after `{place.last}`", form + ", with the brace on the same line"
    if count == 2 and first == "param":
        return "expected `=` after the name of a param", "write `param NAME = VALUE` or `param NAME: int = VALUE`"
    if first == "param" and place.last == ":":
        return "expected a type after `:`", "write `param NAME: int = VALUE`"
    if first == "param" and count == 4 and not _wants_operand(place):
        return "expected `=` after the type of a param", "write `param NAME: int = VALUE`"
    if count == 2 and first == "let" and here == ":":
        return "only a param has a type", "write `param NAME: float = VALUE` or `let NAME = VALUE`"
    if count == 2:
        return f"expected `=` after `{first} {place.last}`", form
    return None


def _in_a_sample(place: Place, form: str) -> tuple[str, str] | None:
    texts = [x.text for x in place.before]
    if place.bracket or "=" in texts:
        return None
    if place.last == "," or (not place.here and "," in [x.text for x in place.before[-2:]]):
        return "expected an option after `,`", "an option is written `name = value`" if "[" in texts else form
    return ("`=` is not allowed here", form) if place.here == "=" and "," not in texts else None


def _in_an_import(place: Place, form: str) -> tuple[str, str]:
    if len(place.before) == 1:
        return "expected a path or a module after `import`", form
    if place.last in ("as", "."):
        return f"expected a name after `{place.last}`", form
    if place.kind == "NAME" and place.before[-1].kind in ("word", "string"):
        return f"expected `as` before `{place.here}`", form
    if place.here == ",":
        return "an import names one thing", "write one `import` for each"
    return f"`{place.here}` is not allowed in an import", form


def _in_a_left_side(place: Place) -> tuple[str, str] | None:
    """An equation or a function before its `=`."""
    depths = accumulate((x.kind == "open") - (x.kind == "close") for x in place.before)
    if place.first in FORMS or any(x.text == "=" and depth <= 0 for x, depth in zip(place.before, depths, strict=True)):
        return None
    first, here, alone = place.first, place.here, "an expression has no effect by itself; name its value: `loss = …`"
    if first in foreign_words()["statement"] and here not in ("=", *_OPERATORS) and len(place.before) == 1:
        return f"`{first}` is not a statement", instead("statement", first)
    if len(place.before) > 1:
        if place.opened:
            help = f"a value has a name: `loss = {first}(…)`; a function is written `f(a, b=2) = …`"
            return f"the parameters of a function are names, not `{here}`", help
        return f"expected `=` after `{first}(…)`", "write `f(a, b) = …` for a function; " + alone
    message = f"expected `=` after `{first}`"
    if here == ":":
        typed = re.match(r"\s*(int|float|str|bool|list|[A-Za-z_]\w*\s*=)", place.behind)
        types = "; types stand only after `param`: `param NAME: int = 3`" if typed else ""
        return message, f"write `{first} = …`, with `=` in place of `:`{types}"
    if meant := suggest(first, FORMS):
        return message, meant
    if here in (".", "[", ","):
        return message, "the left side of an equation is one plain name: `name = …`"
    if here == "-" and (rest := re.match(r"([\w-]+)\s*=", place.behind)):
        return message, f"names have no `-` in them: `{first}_{rest.group(1).replace('-', '_')} = …`"
    if here in _OPERATORS and place.behind.startswith("="):
        return message, f"an equation defines its name once; there is no `{here}=`"
    return message, alone if not here or here in _OPERATORS else "write `name = …`"


def _in_a_mapping(place: Place) -> tuple[str, str] | None:
    if not place.maps:
        return None
    if place.here == "}" and place.before[-1].kind == "word" and place.before[-2].text == "{":
        return "a name needs no braces", f"write `{place.last}`; a list is written `[{place.last}]`"
    forms = "a mapping is written `{name: column}`; lists are written `[a, b]`, tuples `(a, b)`"
    if place.first == "stage" and place.before[place.opened[-1] - 1].text == "for":
        return "expected a length after `for`", f"write `{FORMS['stage']}`"
    if place.here in (";", "the line break"):
        return "a mapping must be on one line", f"close the brace before the line ends; {forms}"
    if place.here == "=" or (ends(place.before[-1]) and ":" not in [x.text for x in place.level]):
        return f"expected `:` {place.shown}", forms
    return None


# ── a place that wants an operand ────────────────────────────────────────────────────────────────────────────────────


def _wants_operand(place: Place) -> bool:
    last = place.before[-1]
    if last.text == "via" and len(place.before) > 1:
        return ends(place.before[-2])
    if last.text == "at" and place.first == "cache" and len(place.before) > 2:
        return ends(place.before[-2])
    if last.text == "input" and len(place.before) > 1 and place.before[-2].text == "@":
        return True
    return not ends(last)


_ANY = r"(->|\*\*|[-+*/])"
_OPERANDS = (
    ("(@|input) ", "expected a path after `{last}`", 'write it in quotes: `bert @ "encoder.layer.3.output"`'),
    ("via ", "expected a projection after `via`", "write `via linear`, or the name of a `proj`"),
    ("at ", "expected a path after `at`", 'say where in quotes: `cache NAME = EXPRESSION at "path"`'),
    (r"\. ", "expected a name after `.`", "a feature is named, `bert.hidden`, or picked, `bert.hidden[3]`"),
    ("~ ", "expected a law after `~`", "write `sample [ner, qa] ~ size ** 0.5`"),
    (r"\S+ \.([0-9]+)", "a number begins with a digit", "write `0.{digits}`"),
    ("= =", "`==` is not valid here", "write one `=`; comparisons are not supported"),
    (r"\S+ =", "expected a name before `=`", "a keyword argument is written `name=value`"),
    (r"[(,[] \*", "`{here}` has nothing to its left", "lists and settings cannot be unpacked; write each argument"),
    ("/ /", "`//` is not valid here", "comments start with `#`; a quotient is written `/`"),
    (r"/ \*", "`/{here}` is not valid here", "comments start with `#`, on each line"),
    (f"{_ANY} {_ANY}", "`{here}` directly follows `{last}`", "put an expression between the operators, or remove one"),
    (r"\S+ /[\w.]", "expected an expression before `/`", 'a path needs quotes: `"/…"`'),
    (rf"\S+ {_ANY}", "expected an expression before `{here}`", "an operand is missing; only `-` can precede a value"),
    (r"\( \)", "the brackets are empty", "write a value in them, or `none`"),
    (r"\[ \]", "the index is empty", "write `[3]`, `[0, 4, 8]`, `[::4]`, or `[:]` for all"),
    (r"\S+ :", "expected an expression before `:`", "a pair is written `30%: 0.2`, a slice `a[1:3]`"),
)
"""What is wrong and the remedy, by the lexeme before the missing operand, the culprit, and the rest of its line."""


def _operand(place: Place) -> tuple[str, str] | None:
    if not _wants_operand(place):
        return None
    for pattern, message, help in _OPERANDS:
        if match := re.match(pattern, f"{place.last} {place.here}{place.behind}"):
            message = message.replace("{here}", place.here).replace("{last}", place.last)
            return message, help.replace("{digits}", match[match.lastindex or 0])
    remove = "" if place.last == "=" else f", or remove `{place.last}`"
    return f"expected an expression {place.shown}", f"put a name or a value there{remove}"


# ── a place that wants an operator ───────────────────────────────────────────────────────────────────────────────────


def _operator(place: Place) -> tuple[str, str] | None:
    here, level = place.here, [x.text for x in place.level]
    if not here:
        if place.first == "cache":
            return "a place on disk is expected", f"say where: `{FORMS['cache']}`"
        return "incomplete statement", "complete it; a line continues after an operator"
    if here == "->":
        return _arrow(place, level)
    if here == ":":
        return _colon(place, level)
    if here == "=":
        return _equals(place, level)
    if here == ",":
        if re.match(r"[0-9]{3}\b", place.behind) and place.before[-1].kind == "number":
            return "a comma is not allowed in a number", f"write `{place.last}{place.behind[:3]}`"
        return "a comma is not allowed outside brackets", "a list is written `[a, b]`; statements are separated by `;`"
    if here in (";", "the line break"):
        return f"the statement ends inside an open `{place.bracket or '{'}`", "close the bracket, or write `,`"
    if here == "{":
        return "braces cannot follow here", "braces follow `task NAME`, `stage NAME`, `train` or a model"
    if here in _OPERATORS and "via" in level:
        return f"`{here}` cannot follow `via`", "`via` binds looser than operators: write `(a via linear) + b`"
    if here == "~":
        return "`~` belongs to `sample`", f"write `{FORMS['sample']}`"
    if here in (")", "]", "}"):
        return f"unexpected `{here}`", "complete the expression before it, or remove it"
    return _side_by_side(place)


def _arrow(place: Place, level: list[str]) -> tuple[str, str]:
    if "->" in level:
        return "only one arrow can stand here", "an arrow joins two sides; put brackets around one of them"
    if place.indexes:
        return "an arrow is not allowed in an index", "name the layer map and use it: `let map = [0, 4] -> [0, 1]`"
    if ":" in level:
        return "an arrow is not allowed in a pair", "a pair is written `30%: 0.2`"
    help = "a match belongs in a call: `mse(a -> b)`; a layer map in `let map = [0, 4] -> [0, 1]`"
    return f"an arrow is not allowed in `{place.first}`", help


def _colon(place: Place, level: list[str]) -> tuple[str, str]:
    if place.indexes:
        return "a slice has at most three parts", "write `[start:stop:step]`"
    if place.bracket == "[":
        return "a slice needs something to pick from", "write `a[0:3]`; a list is written `[0, 1, 2]`"
    if place.bracket == "(":
        return "a pair is not allowed here", "pairs are arguments of a call: `piecewise(0%: 1, 30%: 0.2)`"
    if "lambda" in level:
        return "`lambda` is not valid here", instead("word", "lambda")
    return "`:` is not allowed here", "a pair belongs in a call: `piecewise(0%: 1)`; a slice in an index: `a[1:3]`"


def _equals(place: Place, level: list[str]) -> tuple[str, str]:
    if place.behind.startswith(">"):
        return "`=>` is not valid here", "the arrow is written `->`"
    if place.behind.startswith("="):
        return "`==` is not valid here", "comparisons are not supported"
    if place.bracket == "(" and len(level) > 1 and place.opened[-1] > 0 and ends(place.before[place.opened[-1] - 1]):
        return "the name of a keyword argument is one plain word", "write `name=value`"
    if place.bracket:
        return "a keyword argument is not allowed here", "it belongs in the parentheses of a call: `f(a, T=4)`"
    return "a second `=` is not allowed here", "write one equation for each name; statements are separated by `;`"


def _in_a_cache(place: Place, form: str) -> tuple[str, str] | None:
    """The clauses around the path of a `cache`."""
    words = [x.text for x in place.before]
    if words[1:2] == ["auto"] and words[2:3] not in (["="], []):
        if words[-1] == "limit":
            return "expected a size after `limit`", f"write `{AUTO}`; the limit may be left out"
        return f"`{place.here}` cannot follow the path of a cache here", f"write `{AUTO}`; the limit may be left out"
    if words[1:] == ["auto"] and place.here != "=":
        return "expected `at` and a path after `cache auto`", f"write `{AUTO}`; the limit may be left out"
    if "at" not in words[3:]:
        return (f"the path comes before `{place.here}`", form) if place.here in ("as", "limit") else None
    if words[-1] == "at":
        return None
    clauses = f"write `{FORMS['cache']} as bf16 limit 20 GB`; both clauses may be left out"
    if place.last == "as":
        return "expected a number format after `as`: fp32, bf16 or fp16", clauses
    if place.last == "limit":
        return "expected a size after `limit`", clauses
    return f"`{place.here}` cannot follow the path of a cache here", clauses


def _side_by_side(place: Place) -> tuple[str, str]:
    """An operand or a word right behind an operand."""
    here, last = place.here, place.before[-1]
    level = {x.text for x in place.level}
    foreign = here if here in foreign_words()["word"] else last.text
    if foreign in foreign_words()["word"] and here != "for" and (foreign == here or foreign in ("not", "lambda")):
        return f"`{foreign}` is not valid here", instead("word", foreign)
    if here == "for":
        return "`for` belongs to `stage`", f"write `{FORMS['stage']}`; {instead('word', 'for')}"
    if owner := {"at": "cache", "as": "import"}.get(here):
        return f"`{here}` belongs to `{owner}`", f"write `{FORMS[owner]}`"
    if place.first == "cache" and place.kind == "STRING" and not place.bracket:
        return "expected `at` before the path", f"write `{FORMS['cache']}`"
    if place.first == "sample" and not place.bracket and "~" not in level:
        return f"expected `~` before `{here}`", f"write `{FORMS['sample']}`"
    if not place.bracket and (here in FORMS or re.match(r"[ \t]*=(?!=)", place.behind)):
        return "two statements on one line", "put `;` or a line break between them"
    if re.match(r"[ \t]*=(?!=)", place.behind) and place.bracket == "(":
        return "two arguments without a comma between them", "put a comma between them"
    message = "two expressions without an operator between them"
    if place.kind == "STRING" and last.text in ("f", "r", "b", "u"):
        return message, f"a string has no `{last.text}` before it; `{{k}}` in a string is replaced by the param `k`"
    if last.kind == "number":
        units = ("step", "steps", "epoch", "epochs")
        if place.kind == "NAME" and last.text.isdigit() and here in units:
            return message, f"put a space before the unit: `{last.text} {here}`"
        if re.fullmatch(r"(_[0-9]+)+", here):
            return message, f"a number is written without `_`: `{last.text}{here.replace('_', '')}`"
        if place.kind == "NAME":
            return message, f"put an operator between them: `{last.text} * {here}`"
    if place.kind == "STRING" and last.kind == "word":
        return message, f"put brackets around the argument of a call: `{last.text}({here})`"
    return message, "put an operator or a comma between them"


_RULES = (_at_the_beginning, _in_a_mapping, _in_a_keyword_statement, _in_a_left_side, _operand, _operator)
