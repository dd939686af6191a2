"""A formula as the docstring of an operation states it, `T² Σ_c p_c (log p_c - log q_c)`, as LaTeX.

Words are names (`from`, `width`); single letters may have an index (`x_i`, `d_ij`) and a power (`x²`, `x^γ`, `xᵀ`).
From lowest to highest precedence: `,`, relations, `+ -`, `/`, products (`·`, or nothing between), prefixes
(`Σ_i`, `mean_i`, `log`, …, which reach over a product), powers. `‖x‖` is a norm.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\s*([^\W\d_]+|\d+(?:\.\d+)?|[²³ᵀ]|\S)")
_GREEK = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "λ": r"\lambda", "π": r"\pi", "σ": r"\sigma",
}  # fmt: skip
_RELATIONS = {"=": "=", "<": "<", "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "∈": r"\in", "↔": r"\leftrightarrow"}
_POWERS = {"²": "2", "³": "3", "ᵀ": r"\top"}
_PREFIXES = {
    "Σ": r"\sum", "log": r"\log", "mean": r"\operatorname*{mean}", "max": r"\max", "min": r"\min",
    "argmax": r"\operatorname*{argmax}",
}  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]+")


class FormulaError(ValueError):
    """A text that is no formula; the message quotes the place."""


def latex(text: str) -> str:
    """The LaTeX of a formula, its clauses one below the other. Raises `FormulaError`."""
    reader = _Reader(text)
    clauses = [reader.relation()]
    while reader.accept(","):
        clauses.append(reader.relation())
    reader.end()
    if len(clauses) == 1:
        return clauses[0]
    return "\\begin{gathered} " + r" \\ ".join(clauses) + " \\end{gathered}"


class _Reader:
    def __init__(self, text: str):
        self.text = text
        # a superscript T is a letter to Python
        self.tokens = [x for token in _TOKEN.findall(text) for x in re.findall(r"[²³ᵀ]|[^²³ᵀ]+", token)]
        self.at = 0
        self.in_norm = False
        self.depth = 0
        """How many parentheses are open."""

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def accept(self, *tokens: str) -> str:
        token = self.next
        if token not in tokens or not token:
            return ""
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise FormulaError(f"expected `{token}`, not `{self.next or 'the end'}`, in `{self.text}`")

    def end(self) -> None:
        if self.next:
            raise FormulaError(f"`{self.next}` has no meaning here in `{self.text}`")

    def relation(self) -> str:
        parts = [self.sum()]
        while relation := self.accept(*_RELATIONS):
            parts += [_RELATIONS[relation], self.sum()]
        return " ".join(parts)

    def sum(self) -> str:
        parts = ["-"] if self.accept("-") else []
        parts.append(self.quotient())
        while sign := self.accept("+", "-"):
            parts += [sign, self.quotient()]
        return " ".join(parts)

    def quotient(self) -> str:
        above = self.product()
        if not self.accept("/"):
            return above
        below = self.product()
        if self.next == "/":
            raise FormulaError(f"write parentheses around one of two quotients in `{self.text}`")
        if self.depth and " " not in above + below:
            return f"{above} / {below}"
        return f"\\frac{{{_bare(above)}}}{{{_bare(below)}}}"

    def product(self) -> str:
        parts = [self.factor()]
        while True:
            if self.accept("·"):
                parts.append(r"\cdot")
            elif not self.begins():
                return " ".join(parts)
            parts.append(self.factor())

    def begins(self) -> bool:
        """Whether a factor begins here; inside a norm the next bar closes it."""
        if self.next == "‖":
            return not self.in_norm
        return bool(_LETTERS.match(self.next)) or self.next[:1].isdigit() or self.next in ("(", "√")

    def factor(self) -> str:
        name = self.accept(*_PREFIXES)
        if not name:
            return self.power()
        prefix = _PREFIXES[name] + self.index()
        if self.accept("("):
            return f"{prefix}{self.inside()}{self.powers()}"
        return f"{prefix} {self.product()}"

    def power(self) -> str:
        return self.atom() + self.powers()

    def powers(self) -> str:
        """An exponent and a transposition."""
        exponents = []
        while mark := self.accept(*_POWERS, "^"):
            exponents.append(self.atom() if mark == "^" else _POWERS[mark])
        return f"^{{{' '.join(exponents)}}}" if exponents else ""

    def atom(self) -> str:
        token = self.next
        if self.accept("("):
            return self.inside()
        if self.accept("√"):
            return f"\\sqrt{{{_bare(self.atom())}}}"
        if self.accept("‖"):
            self.in_norm = True
            value = self.sum()
            self.in_norm = False
            self.expect("‖")
            return f"\\lVert {value} \\rVert"
        if token[:1].isdigit():
            self.at += 1
            return token
        if not _LETTERS.match(token):
            raise FormulaError(f"expected a value, not `{token or 'the end'}`, in `{self.text}`")
        self.at += 1
        name = _GREEK.get(token) or (token if len(token) == 1 else f"\\mathrm{{{token}}}")
        name += self.index()
        if len(token) > 1 and self.accept("("):
            return name.replace("mathrm", "operatorname", 1) + self.inside()
        return name

    def index(self) -> str:
        """`_ij`, `_1`, `_{i < j}`."""
        if not self.accept("_"):
            return ""
        if self.accept("{"):
            text = self.relation()
            self.expect("}")
            return f"_{{{text}}}"
        token = self.next
        if not token or not (_LETTERS.match(token) or token.isdigit()):
            raise FormulaError(f"expected an index, not `{token or 'the end'}`, in `{self.text}`")
        self.at += 1
        # letters are indices, one after the other; a word is none
        return f"_{{{token}}}" if len(token) <= 3 else f"_{{\\mathrm{{{token}}}}}"

    def inside(self) -> str:
        self.depth += 1
        parts = [self.relation()]
        while self.accept(","):
            parts.append(self.relation())
        self.expect(")")
        self.depth -= 1
        return f"\\left( {', '.join(parts)} \\right)"


def _bare(text: str) -> str:
    """Without the parentheses around all of it."""
    if not (text.startswith(r"\left( ") and text.endswith(r" \right)")):
        return text
    depth = 0
    for mark in re.finditer(r"\\(left|right)\b", text):
        depth += 1 if mark[1] == "left" else -1
        if depth == 0:
            return text[7:-8] if mark.end() == len(text) - 1 else text
    return text
