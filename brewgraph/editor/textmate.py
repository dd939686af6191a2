"""The TextMate grammar of specs, made from `grammar/brew.lark`: what VS Code and other editors colour them by.

After each change of the grammar write it with `python -m brewgraph.editor.textmate`. Every terminal has a scope in
`SCOPES`, or is a sign or a keyword; one without is an error here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lark.lexer import PatternStr

from brewgraph.syntax.grammar import grammar

FILE = "grammar/editor/vscode/syntaxes/brew.tmLanguage.json"

_CLAUSE, _NUMBER = "keyword.control.clause.brew", "constant.numeric"
SCOPES = {
    "STRING": "string.quoted.double.brew",
    "DURATION": f"{_NUMBER}.duration.brew",
    "SIZE": f"{_NUMBER}.size.brew",
    "PERCENT": f"{_NUMBER}.percent.brew",
    "FLOAT": f"{_NUMBER}.float.brew",
    "INT": f"{_NUMBER}.integer.brew",
    "_AS": _CLAUSE,
    "_AT_PATH": _CLAUSE,
    "_FOR": _CLAUSE,
    "_LIMIT": _CLAUSE,
    "_VIA": _CLAUSE,
    "INPUT": _CLAUSE,
    "NAME": "variable.other.brew",
}
"""The scope of each terminal that is no keyword and no sign."""
KEYWORD, OPERATOR, PUNCTUATION = "keyword.declaration.brew", "keyword.operator.brew", "punctuation.brew"
_FOLLOWED = {
    "_AS": r"(?=[ \t]+[A-Za-z_])",
    "_AT_PATH": r'(?=[ \t]*")',
    "_FOR": r"(?=[ \t]+[^=\s])",
    "_LIMIT": r"(?=[ \t]+[0-9])",
    "_VIA": r"(?=[ \t]+[A-Za-z_(])",
    "INPUT": r'(?=[ \t]*")',
}
"""What follows a clause word, which elsewhere is a name."""
_BLANK = ("_SEP", "SPACE")
_SIGNS = re.compile(r"[-+*/~@=>]+")
_FORM = r'(?=[ \t]+[A-Za-z_0-9"\[{(]|[ \t]*[{\["])'
"""What follows a keyword: a name, a text, a bracket. Before `=` and operators it is a name."""


def textmate() -> dict[str, Any]:
    """The grammar as its file holds it. Raises `KeyError` for a terminal without a scope."""
    terminals = {x.name: x.pattern for x in grammar().terminals if x.name not in _BLANK}
    words = [x.value for x in terminals.values() if isinstance(x, PatternStr) and x.value.isalpha()]
    signs = [x.value for x in terminals.values() if isinstance(x, PatternStr) and not x.value.isalpha()]
    named = [name for name, x in terminals.items() if not isinstance(x, PatternStr)]
    scopes = {name: SCOPES[name] for name in named}
    of = {name: terminals[name].value for name in named}
    # in this order: where several match at a place, the first one counts
    numbers = [name for name in SCOPES if name in scopes and scopes[name].startswith(_NUMBER)]
    operators = sorted((x for x in signs if _SIGNS.fullmatch(x)), key=len, reverse=True)
    marks = [x for x in signs if x not in operators]
    name = of["NAME"]
    patterns: list[dict[str, Any]] = [
        {"name": "comment.line.number-sign.brew", "match": "#.*$"},
        {
            "name": scopes["STRING"],
            "begin": '"',
            "end": '"|$',
            "patterns": [{"name": "variable.parameter.inserted.brew", "match": rf"\{{{name}\}}"}],
        },
        {
            "match": rf"(?:^|(?<=[;{{}}]))[ \t]*({'|'.join(words)})\b{_FORM}",
            "captures": {"1": {"name": KEYWORD}},
        },
        *({"name": scopes[x], "match": rf"(?<![\w.]){of[x]}{_FOLLOWED[x]}"} for x in _FOLLOWED),
        {"name": "constant.language.brew", "match": r"(?<![\w.])(?:true|false|none)\b(?![ \t]*[=(])"},
        *({"name": scopes[x], "match": rf"(?<!\w){of[x]}"} for x in numbers),
        {"name": "entity.name.function.brew", "match": rf"(?<!\w){name}(?=[ \t]*\()"},
        {"name": "variable.other.member.brew", "match": rf"(?<=\.){name}"},
        {"name": "variable.parameter.brew", "match": rf"(?<!\w){name}(?=[ \t]*=)"},
        {"name": scopes["NAME"], "match": rf"(?<!\w){name}"},
        {"name": OPERATOR, "match": "|".join(map(re.escape, operators))},
        {"name": PUNCTUATION, "match": f"[{re.escape(''.join(marks))};]"},
    ]
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "brew",
        "scopeName": "source.brew",
        "fileTypes": ["brew"],
        "patterns": patterns,
    }


def as_file() -> str:
    """The text of the file."""
    return json.dumps(textmate(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file in this checkout."""
    path = Path(__file__).parents[2] / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_file(), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
