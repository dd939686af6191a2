"""Specs to test with: one that is written out, and random legal ones: every statement kind, with blanks, comments and line breaks wherever the language has room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

from brewgraph.diagnostics import Collector
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from brewgraph.syntax.tree import Spec

T = TypeVar("T")

NAMES = (
    "a",
    "bert",
    "soft_2",
    "T",
    "via",
    "for",
    "at",
    "as",
    "input",
    "steps",
    "epochs",
    "teacher",
    "data",
    "task",
    "from",
)
FREE_NAMES = tuple(name for name in NAMES if name not in ("teacher", "data", "task"))  # at the beginning of a statement
NUMBERS = (
    "0",
    "3",
    "12",
    "1.",
    "0.5",
    "1e-4",
    "2.5E+3",
    "10%",
    "2.5%",
    "3 epochs",
    "1 step",
    "1000  steps",
    "2\tepochs",
)
STRINGS = ('""', '"a b"', '"bert.encoder.layer.*"', '"# { ; ( no comment"', '"naïve ツ\t→"', '"{k} -> {n}"')
COMMENTS = ("#", "# plain", "#tight", '# "quoted ) ] }', "# naïve ツ → ", "#   kept   inside  \t", "# x = 1; train {")
CONTINUES_AFTER = frozenset(("+", "-", "*", "/", "**", "->", "=", ",", "~", "@"))
CONTINUES_BEFORE = frozenset(("+", "-", "*", "/", "**", "->"))

MAIN = """\
brew 1

# BERT-base into 3 layers of width 384, on MNLI (TextBrewer's T3-small recipe, with labels)
param T = 8

teacher bert = hf("textattack/bert-base-uncased-MNLI")
student tiny = hf("google-bert/bert-base-uncased", num_hidden_layers=3, hidden_size=384, intermediate_size=1536, pretrained=false)
data mnli    = glue("mnli", batch=32, max_length=128)

let map = [0, 4, 8, 12] -> [0, 1, 2, 3]      # hidden 0 is the embedding output, n the output of layer n

soft   = ce(bert.logits -> tiny.logits, T=T)
hard   = ce(mnli.labels -> tiny.logits)
hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
gram   = nst(bert.hidden[map] -> tiny.hidden[map])

loss = soft + 0.3 * hard + sum(hidden) + sum(gram)

train { epochs = 40; optimizer = adamw(lr=1e-4); schedule = linear(warmup=10%) }
"""


def read(text: str) -> Spec:
    """The tree of a text that must parse."""
    collector = Collector()
    spec = parse(Source(text), collector)
    collector.raise_errors()
    return spec


@dataclass(frozen=True)
class Written:
    """A legal spec, and its comments in order, right-stripped."""

    text: str
    comments: tuple[str, ...]


@dataclass
class Author:
    """Writes one spec. `number` draws an integer of a range and is every choice: Hypothesis's, so that a failure shrinks,
    or a seeded generator's, for volume.
    """

    number: Callable[[int, int], int]
    comments: list[str] = field(default_factory=list)

    def pick(self, options: tuple[T, ...]) -> T:
        return options[self.number(0, len(options) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.number(0, one_in - 1) == one_in - 1

    def many(self, make: Callable[[], list[str]], most: int, separator: str = ",", least: int = 0) -> list[str]:
        """Up to `most` pieces with separators between them, now and then one after the last."""
        pieces = [make() for _ in range(self.number(least, most))]
        tokens = [token for piece in pieces for token in (*piece, separator)]
        return tokens if pieces and self.chance(5) else tokens[:-1]

    # expressions: lists of tokens, one method per level of precedence
    def atom(self, depth: int) -> list[str]:
        kind = self.number(0, 6 if depth > 0 else 2)
        if kind == 0:
            return [self.pick(NAMES)]
        if kind == 1:
            return [self.pick(NUMBERS)]
        if kind == 2:
            return [self.pick(STRINGS if self.chance(3) else ("true", "none", "x"))]
        if kind == 3:
            return ["[", *self.many(lambda: self.argument(depth - 1), 3), "]"]
        if kind == 4:
            return ["(", *self.argument(depth - 1), ")"]
        if kind == 5:
            pairing = lambda: [*self.expression(depth - 1), ":", *self.expression(depth - 1)]  # noqa: E731
            return ["{", *self.many(pairing, 2), "}"]
        return ["(", *self.argument(depth - 1), ",", *self.many(lambda: self.argument(depth - 1), 2), ")"]

    def postfix(self, depth: int) -> list[str]:
        tokens = self.atom(depth)
        while depth > 0 and self.chance(3):
            kind = self.number(0, 3)
            if kind == 0:
                tokens += [".", self.pick(NAMES)]
            elif kind == 1:
                tokens += ["(", *self.many(lambda: self.item(depth - 1), 3), ")"]
            elif kind == 2:
                tokens += ["[", *self.many(lambda: self.subscript(depth - 1), 2, least=1), "]"]
            else:
                tokens += ["@", *(["input"] if self.chance(2) else []), self.pick(STRINGS)]
        return tokens

    def unary(self, depth: int) -> list[str]:
        if self.chance(6):
            return ["-", *self.unary(depth)]
        tokens = self.postfix(depth)
        return [*tokens, "**", *self.unary(depth - 1)] if self.chance(8) else tokens

    def sum(self, depth: int) -> list[str]:
        tokens = self.unary(depth)
        while self.chance(4):
            tokens += [self.pick(("+", "-", "*", "/")), *self.unary(depth - 1)]
        return tokens

    def expression(self, depth: int) -> list[str]:
        tokens = self.sum(depth)
        return [*tokens, "via", *self.postfix(depth - 1)] if self.chance(8) else tokens

    def argument(self, depth: int) -> list[str]:
        tokens = self.expression(depth)
        return [*tokens, "->", *self.expression(depth)] if self.chance(5) else tokens

    def item(self, depth: int) -> list[str]:
        kind = self.number(0, 3)
        if kind == 0:
            return [self.pick(NAMES), "=", *self.argument(depth)]
        if kind == 1:
            return [*self.expression(depth), ":", *self.expression(depth)]
        return self.argument(depth)

    def subscript(self, depth: int) -> list[str]:
        if self.chance(2):
            return self.expression(depth)
        ends = [self.expression(0) if self.chance(2) else [] for _ in range(3)]
        return [*ends[0], ":", *ends[1], *([":", *ends[2]] if self.chance(2) else [])]

    # layout: where a blank, a line break or a comment may stand
    def comment(self) -> str:
        text = self.pick(COMMENTS)
        self.comments.append(text.rstrip())
        return text

    def line_break(self) -> str:
        pieces = []
        for _ in range(self.pick((1, 1, 1, 2, 3))):
            pieces += [self.pick(("", "", " ", "   ", "\t")), self.comment() if self.chance(3) else "", "\n"]
        return "".join(pieces) + self.pick(("", "  ", "        ", "\t"))

    def render(self, tokens: list[str]) -> str:
        out, opened, left = [], [], ""
        for token in tokens:
            glued = left[-1:].isalnum() or left[-1:] == "_" or left[-1:] in ".%"
            needs_blank = bool(left) and glued and (token[0].isalnum() or (token[0] in "_." and left[0].isdigit()))
            if left:
                if (
                    opened[-1:] in (["("], ["["]) or left in CONTINUES_AFTER or token in CONTINUES_BEFORE
                ) and self.chance(8):
                    out.append(self.line_break())
                else:
                    out.append(self.pick((" ", " ", "  ", "\t") if needs_blank else ("", " ", " ", "   ")))
            out.append(token)
            if token in ("(", "[", "{"):
                opened.append(token)
            elif token in (")", "]", "}"):
                opened.pop()
            left = token
        return "".join(out)

    # statements
    def statement(self, nesting: int) -> str:
        kind = self.number(0, 17 if nesting > 0 else 13)
        name, depth = self.pick(NAMES), 2

        def value() -> list[str]:
            return self.expression(depth)

        if kind <= 3:
            return self.render([self.pick(FREE_NAMES), "=", *self.argument(depth)])
        if kind == 4:
            return self.render(["param", name, *self.maybe([":", "int"]), *self.maybe(["=", *value()])])
        if kind == 5:
            return self.render(["let", name, "=", *self.argument(depth)])
        if kind == 6:
            target = [self.pick(STRINGS)] if self.chance(2) else ["my", ".", "pack", *self.maybe([".", name])]
            return self.render(["import", *target, *self.maybe(["as", name])])
        if kind == 7:
            return self.render([self.pick(("head", "data", "proj")), name, "=", *value()])
        if kind == 8:
            return self.render(
                ["tap", name, "=", "bert", "@", *self.maybe(["input"]), '"layer.*"', *self.maybe(["[", "1", "]"])]
            )
        if kind == 9:
            return self.render(
                [
                    "cache",
                    name,
                    "=",
                    *value(),
                    "at",
                    self.pick(STRINGS),
                    *self.maybe(["as", "bf16"]),
                    *self.maybe(["limit", "20 GB"]),
                ]
            )
        if kind == 10:
            options = [token for _ in range(self.pick((0, 1))) for token in (",", name, "=", *self.argument(1))]
            return self.render(["sample", *value(), *self.maybe(["~", *value()]), *options])
        if kind == 11:
            parameters = self.many(lambda: [self.pick(NAMES), *self.maybe(["=", *self.expression(1)])], 3)
            return self.render([self.pick(FREE_NAMES), "(", *parameters, ")", "=", *self.argument(depth)])
        if kind == 12:
            return self.render(["brew", "1"])
        if kind == 13:
            return self.render([self.pick(("teacher", "student")), name, "=", *value()])
        heads = {
            14: ["task", name],
            15: ["stage", name, *self.maybe(["for", *self.expression(1)])],
            16: ["train"],
            17: [self.pick(("teacher", "student")), name, "=", *value()],
        }
        return self.render(heads[kind]) + self.pick(("", " ", "  ")) + self.block(nesting - 1)

    def maybe(self, tokens: list[str]) -> list[str]:
        return tokens if self.chance(2) else []

    def block(self, nesting: int) -> str:
        if self.chance(2):
            body = self.one_line(nesting)
            return "{" + body + "}"
        return "{" + self.statements(nesting, 3) + "}"

    def one_line(self, nesting: int) -> str:
        out = self.pick(("", " ", " ; "))
        for _ in range(self.pick((0, 1, 2, 3))):
            out += self.statement(0) + self.pick((";", " ; ", "; ", ";;"))
        return out if self.chance(3) else out.rstrip("; ") + self.pick(("", " "))

    def statements(self, nesting: int, most: int) -> str:
        out = self.line_break() if self.chance(2) else ""
        for _ in range(self.number(0, most)):
            out += self.statement(nesting)
            out += self.pick((";", " ; ", ";\n")) if self.chance(6) else self.line_break()
        return out


@st.composite
def specs(draw: Callable) -> Written:
    """A legal spec, as Hypothesis chooses."""
    return write_spec(lambda low, high: draw(st.integers(low, high)))


def write_spec(number: Callable[[int, int], int]) -> Written:
    """A legal spec of up to five statements, with CRLF line ends now and then, with or without a final line break."""
    author = Author(number)
    text = author.statements(2, 5)
    if author.chance(3):
        text = text.rstrip("\n")
    if author.chance(5):
        text = text.replace("\n", "\r\n")
    return Written(text, tuple(author.comments))


@st.composite
def mutations(draw: Callable, text: str) -> str:
    """`text` with one to six characters or stretches deleted, doubled, or put in."""
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            text = text[:at] + text[at + draw(st.integers(1, 4)) :]
        elif kind == 1:
            text = text[:at] + text[at : at + 3] + text[at:]
        elif kind == 2:
            text = (
                text[:at]
                + draw(st.sampled_from(tuple("(){}[]\"#;:=,.@~+-*/>\n\t 09aé'%\\\0\x0b\x85\ufeff")))
                + text[at:]
            )
        else:
            text = text[:at] + draw(st.text(max_size=3)) + text[at:]
    return text
