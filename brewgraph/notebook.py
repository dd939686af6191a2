"""`%load_ext brewgraph` in a notebook: `%%brew NAME` checks the spec in its cell, shows it with its faults and its
graph, and leaves the recipe in NAME.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter

from brewgraph.api import CheckedRecipe
from brewgraph.checking.check import check
from brewgraph.cli.options import parse_sets
from brewgraph.cli.output import tally
from brewgraph.diagnostics import Diagnostic, SpecError, UsageError, render
from brewgraph.display.lines import MONO
from brewgraph.display.render import Shown
from brewgraph.editor.pygments_lexer import BrewLexer
from brewgraph.inspect.graph_of import show
from brewgraph.source import Source


class CellError(SpecError):
    """The faults of a cell, which are shown there: what follows is one line, and no cell below is run."""

    def _render_traceback_(self) -> list[str]:
        return [f"SpecError: {tally(self.diagnostics)} in the spec above, which is not loaded"]


class LineError(UsageError):
    """What is wrong with the params behind the magic, in one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"UsageError: {self}"]


def register(shell: Any) -> None:
    """Add the cell magic to an IPython shell."""

    def brew(line: str, cell: str) -> None:
        """Check the spec in this cell and leave its recipe in NAME: `%%brew NAME T=4 seed=1` sets params."""
        from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

        try:
            name, params = parse_line(line)
        except UsageError as error:
            raise LineError(str(error)) from None
        shell.user_ns.pop(name, None)  # so that no cell goes on with an earlier recipe
        source = Source(cell, name or "cell").settled()
        try:
            checked = check(source, params)
        except SpecError as error:
            display(HTML(page(source, error.diagnostics)))
            raise CellError(error.diagnostics) from None
        shown = show(checked, cost=False) if checked.graphs else None
        display(HTML(page(source, checked.warnings, shown)))
        if name:
            shell.user_ns[name] = CheckedRecipe(checked)

    shell.register_magic_function(brew, magic_kind="cell", magic_name="brew")


def parse_line(line: str) -> tuple[str, dict[str, Any]]:
    """The name and the params of `%%brew NAME T=4 seed=1`, as `--set` takes them. Raises `UsageError`."""
    words = line.split()
    name = words.pop(0) if words and "=" not in words[0] else ""
    if name and (not name.isidentifier() or keyword.iskeyword(name)):
        raise UsageError(f"`{name}` is no name for a recipe: write `%%brew NAME` or `%%brew NAME T=4`")
    if other := next((word for word in words if "=" not in word), None):
        raise UsageError(f"`{other}` is no param of the form `name=value`: write `%%brew {name or 'NAME'} T=4`")
    return name, parse_sets(words)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLOURS = {"error": "#d1242f", "warning": "#9a6700", "place": "#6e7781", "second": "#0969da", "help": "#1a7f37"}
_TINTS = {"error": "rgba(209, 36, 47, .14)", "warning": "rgba(212, 167, 44, .2)"}
_STYLE = f"""<style>
.brew-cell {{ display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }}
.brew-cell > div {{ flex: 1 1 30em; min-width: 0; max-width: 100%; overflow-x: auto; }}
.brew-cell pre {{ margin: 0; padding: .5em; font: 12px/1.5 {MONO}; white-space: pre; }}
.brew-cell pre {{ background: #fff; color: #1d2430; }}
.brew-cell .said {{ border-top: 1px solid #d5dae1; }}
.brew-cell .number {{ color: #8b949e; user-select: none; }}
.brew-cell svg {{ max-width: 100%; height: auto; }}
{{tokens}}
@media (prefers-color-scheme: dark) {{
.brew-cell pre {{ background: #14181f; color: #e7ebf1; }}
{{dark}}
}}
</style>"""


def page(source: Source, diagnostics: Sequence[Diagnostic], shown: Shown | None = None) -> str:
    """A spec in colours with the lines of its diagnostics tinted, these as the command prints them, and the graph of
    each task beside it.
    """
    style = _STYLE.replace("{tokens}", _tokens("default")).replace("{dark}", _tokens("github-dark"))
    said = "\n\n".join(_said(x) for x in diagnostics)
    spec = f"<pre>{_lines(source, diagnostics)}</pre>" + (f'<pre class="said">{said}</pre>' if said else "")
    graphs = "".join(_graph(shown, task) for task in shown.graphs) if shown is not None else ""
    return f'{style}<div class="brew-cell"><div>{spec}</div>{f"<div>{graphs}</div>" if graphs else ""}</div>'


def _tokens(style: str) -> str:
    """The rules that colour the pieces of a spec."""
    rules = HtmlFormatter(style=style).get_style_defs(".brew-cell pre").splitlines()
    return "\n".join(rule for rule in rules if rule.startswith(".brew-cell pre .") and "{" in rule)


def _lines(source: Source, diagnostics: Sequence[Diagnostic]) -> str:
    """The numbered lines of a spec, those tinted where a diagnostic begins: errors before warnings."""
    marked: dict[int, str] = {}
    for x in sorted(diagnostics, key=lambda x: x.severity, reverse=True):
        if x.span.source == source:
            marked[x.span.position[0]] = x.severity
    coloured = highlight(source.text, BrewLexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))
    lines = coloured.rstrip("\n").split("\n")
    width = len(str(len(lines)))
    out = []
    for number, line in enumerate(lines, 1):
        tint = f' style="background: {_TINTS[marked[number]]}"' if number in marked else ""
        out.append(f'<span{tint}><span class="number">{number:>{width}}</span>  {line}</span>')
    return "\n".join(out)


def _said(diagnostic: Diagnostic) -> str:
    """A diagnostic as the command prints it, in HTML. `render` shows control characters as text, so two of them mark
    where a colour begins and ends.
    """
    text = escape(render(diagnostic, lambda words, role: f"\x01{_COLOURS[role]}\x02{words}\x03"))
    for mark, tag in (("\x01", '<span style="color: '), ("\x02", '">'), ("\x03", "</span>")):
        text = text.replace(mark, tag)
    return text


def _graph(shown: Shown, task: str) -> str:
    caption = f"<div>{escape(task)}</div>" if task else ""
    return caption + replace(shown, task=task).write("svg")
