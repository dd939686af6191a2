"""The lexer of specs for Pygments: in documents, in notebooks and in terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pygments.lexer import Lexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from brewgraph.recipe.evaluate.scope import LANGUAGE
from brewgraph.syntax.format import Token as SpecToken
from brewgraph.syntax.format import with_roles
from brewgraph.syntax.logical_lines import lexemes

_KINDS = {"comment": Comment.Single, "newline": Whitespace, "string": String.Double, "number": Number, "other": Error}
_ROLES = {
    "keyword": Keyword.Declaration, "clause": Keyword, "unary": Operator, "binary": Operator, "equals": Operator,
    "named": Operator,
}  # fmt: skip
_UNITS = frozenset(("step", "steps", "epoch", "epochs", "token", "tokens", "kB", "KB", "MB", "GB", "TB"))


class BrewLexer(Lexer):
    """Colours the specs of brewgraph."""

    name = "brew"
    url = "https://pypi.org/project/brewgraph/"
    aliases: ClassVar[list[str]] = ["brew", "brewgraph"]
    filenames: ClassVar[list[str]] = ["*.brew"]
    mimetypes: ClassVar[list[str]] = ["text/x-brew"]

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        """The pieces of a text with their types; together they are the text, whatever it is."""
        pieces, _ = lexemes(text)
        roles = {id(token.lexeme): token for token in with_roles(pieces)}
        code = [piece for piece in pieces if not piece.is_blank]
        places = {id(piece): i for i, piece in enumerate(code)}
        for piece in pieces:
            at = places.get(id(piece))
            if at is None:
                yield piece.start, _KINDS.get(piece.kind, Whitespace), piece.text
                continue
            before = code[at - 1].text if at else ""
            behind = code[at + 1].text if at + 1 < len(code) else ""
            yield piece.start, _type(roles[id(piece)], before, behind), piece.text


def _type(token: SpecToken, before: str, behind: str) -> Any:
    """The type of a piece of code, from its role and its neighbours."""
    lexeme = token.lexeme
    if lexeme.kind in _KINDS:
        return _KINDS[lexeme.kind]
    if token.role in _ROLES:
        return _ROLES[token.role]
    if lexeme.kind != "word":
        return Punctuation
    if before == ".":
        return Name.Attribute
    if lexeme.text in _UNITS and before[:1].isdigit() and before[-1:].isdigit():
        return Keyword.Type
    if behind == "(":
        return Name.Builtin if lexeme.text in LANGUAGE else Name.Function
    if lexeme.text in ("true", "false", "none"):
        return Keyword.Constant
    return Name.Variable if token.begins else Name
