"""New names: whether a name may be given to something else's place, and the edits that do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from brewgraph.diagnostics import UsageError
from brewgraph.editor.analysis import Analysis
from brewgraph.editor.index import Symbol, Use
from brewgraph.explanations import CODES
from brewgraph.recipe.features import ROWS, SINGLES
from brewgraph.syntax import tree as t
from brewgraph.syntax.parser import KEYWORDS

_TAKEN = {"true", "false", "none", "loss"}


def renamable(use: Use, analysis: Analysis) -> Symbol:
    """The name at a place. Raises `UsageError` if it is not this text's to rename."""
    symbol = use.symbol
    if symbol.place.source.name != analysis.source.name:
        raise UsageError(f"`{symbol.name}` is defined in {symbol.place.source.name}: rename it there")
    if is_implied(symbol):
        raise UsageError(f"give the import a name to rename: write `{symbol.statement.span.text} as {symbol.name}`")
    if symbol.name == "loss" and symbol.kind == "equation":
        raise UsageError("`loss` is the name of what is trained")
    return symbol


def rename(symbol: Symbol, name: str, analysis: Analysis, again: Callable[[str], Analysis]) -> list[tuple[int, int]]:
    """The places that change. Raises `UsageError` for a name that is none, is taken, or would break the spec."""
    if not analysis.parsed:
        raise UsageError("the spec does not parse: correct that first, so that every use is known")
    if not (name.isascii() and name.isidentifier()):
        raise UsageError(
            f"`{name}` is no name: a name consists of letters, digits and _, and does not begin with a digit"
        )
    if name in KEYWORDS or name in _TAKEN:
        raise UsageError(f"`{name}` is a word of the language")
    if symbol.kind == "head" and name in (*ROWS, *SINGLES, "layers"):
        raise UsageError(f"`{name}` is a feature of every model and cannot name a head")
    index = analysis.index
    alike = (s for s in index.symbols.values() if s.is_function == symbol.is_function and s.kind != "head")
    if symbol.kind == "head":
        alike = (s for s in index.symbols.values() if s.kind == "head")
    if name != symbol.name and any(s.name == name for s in alike):
        raise UsageError(f"the spec already has `{name}`")
    places = sorted({(place.start, place.end) for place in index.uses_of(symbol)})
    text, end = "", 0
    for start, stop in places:
        text += analysis.source.text[end:start] + name
        end = stop
    before, after = (_codes(x) for x in (analysis, again(text + analysis.source.text[end:])))
    if new := after - before:
        code = next(iter(new))
        raise UsageError(f"with the name `{name}` the spec has another fault: {code}, {CODES.get(code, '')}")
    return places


def _codes(analysis: Analysis) -> Counter[str]:
    """How often each code is said: messages contain names."""
    return Counter(fault.code for fault in analysis.faults)


def is_implied(symbol: Symbol) -> bool:
    """Whether an import has no name in the text, as `import "lib.brew"`."""
    return isinstance(symbol.statement, t.Import) and symbol.place.text != symbol.name
