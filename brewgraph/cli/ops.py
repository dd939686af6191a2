"""`brewgraph ops`: lists everything that a spec can name, with a page for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from brewgraph import ops
from brewgraph.cli.output import explained, wrapped
from brewgraph.diagnostics import UsageError
from brewgraph.display.formula import FormulaError, latex
from brewgraph.recipe.evaluate.calls import FUNCTIONS
from brewgraph.recipe.evaluate.scope import ACROSS, LATER
from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
from brewgraph.recipe.settings.base import Settings, setting_text
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.recipe.settings.model_sources import ADAPTERS, HEADS, MODELS, Layers
from brewgraph.recipe.settings.train import OPTIMIZERS, Train
from brewgraph.recipe.settings.train import SCHEDULES as RATES
from brewgraph.recipe.values import Length
from brewgraph.syntax.foreign import foreign_words, instead


class Entry(NamedTuple):
    """A name of the table, and its page. The names of a section "" are not listed."""

    section: str
    name: str
    summary: str
    make: Callable[[], Page]

    def page(self) -> Iterator[str]:
        """The lines of its page in a terminal."""
        return self.make().text()

    def markdown(self) -> Iterator[str]:
        """Its page as Markdown."""
        return settings_page() if self.name == "train" else self.make().markdown(self.name)


EXAMPLES = {
    "logits": "{0}.logits",
    "positions": "{0}.start",
    "hidden": "{0}.hidden[-1]",
    "attention": "{0}.attention[-1]",
    "scores": "{0}.scores[-1]",
    "states": "{0}.value[-1]",
    "vector": "{0}.pooled",
    "labels": "docs.labels",
    "targets": "docs.labels",
    "probabilities": "probabilities({0}.logits)",
    "places": "probabilities({0}.start)",
}
"""An example of a value of each kind; {0} is the name of a model."""


def complete(incomplete: str) -> Iterator[tuple[str, str]]:
    """Completions of `brewgraph ops`: names of the table with this prefix, with their lines."""
    lines = {name: line for section in _sections().values() for name, line in section.items()}
    yield from ((name, line) for name, line in lines.items() if name.startswith(incomplete))


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A name in the table, or train.", autocompletion=complete)
    ] = None,
    format: Annotated[
        Literal["text", "markdown"], typer.Option(help="markdown: the table or the page as a document.")
    ] = "text",
) -> None:
    """List operations, transforms, projections, schedules, sources and settings, or explain one."""
    if name is None and format == "markdown":
        print("\n".join(table_page(lambda entry: f"`{entry.name}`")))
        return
    if name is None:
        print("\n\n".join("\n".join(section) for section in _overview()))
        print("\n`brewgraph ops NAME` explains one of them.")
        return
    pages = [entry for entry in entries() if entry.name == name]
    if not pages:
        raise UsageError(_unknown(name))
    print("\n\n".join("\n".join(page.markdown() if format == "markdown" else page.page()) for page in pages))


def table_page(link: Callable[[Entry], str]) -> Iterator[str]:
    """The table as a Markdown page; `link` writes the name of an entry."""
    yield from ("# What a spec can name", "", "`brewgraph ops` lists it, `brewgraph ops NAME` prints a page.")
    sections: dict[str, list[Entry]] = {}
    for entry in entries():
        sections.setdefault(entry.section, []).append(entry)
    for title, rows in sections.items():
        if title:
            yield from ("", f"## {title.partition(':')[0].capitalize()}", "")
            yield from (f"`{title.partition(': ')[2]}`", "") if ": " in title else ()
            yield from ("| | |", "|---|---|")
            yield from (f"| {link(row)} | {_cell(row.summary)} |" for row in rows)


def settings_page() -> Iterator[str]:
    """All settings of `train { }` as a Markdown page."""
    yield from ("# The settings of `train { }`", "")
    yield "Written by `brewgraph ops train --format markdown` from the models that check them."
    yield "A stage may override each."
    pages: dict[str, type[Settings]] = {"train": Train, **OPTIMIZERS, **RATES}
    for title, settings in pages.items():
        yield from ("", f"## `{title}`", "")
        if title != "train":
            yield from (inspect.cleandoc(settings.__doc__ or ""), "")
        yield from _settings_table(_fields(settings))
    yield from ("", "## Other words", "")
    yield "What other toolkits call the same thing; written here, each gets the hint on the right."
    yield from ("", "| elsewhere | here |", "|---|---|")
    yield from (f"| `{word}` | {entry.help} |" for word, entry in foreign_words()["setting"].items())


def _fields(settings: type[Settings]) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each setting."""
    for key, field in settings.model_fields.items():
        if key == settings.extras:
            continue
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        # a call with defaults has its own page
        default = f"{type(value).__name__.lower()}()" if isinstance(value, Settings) else setting_text(value)
        default = "needed" if field.is_required() else default
        yield (key, type_text(field.annotation), default, field.description or "")


def _unknown(name: str) -> str:
    if name in LATER:
        return f"`{name}` belongs to the language, but is not supported in this version"
    places = ("call", "setting", "data source", "model source", "optimizer", "projection")
    place = next((place for place in places if name in foreign_words()[place]), "call")
    hint = instead(place, name, [entry.name for entry in entries()]) or "`brewgraph ops` lists all names"
    return f"there is no `{name}`: {hint}"


def _overview() -> Iterator[list[str]]:
    """The sections of the table."""
    sections = _sections()
    width = max(len(name) for names in sections.values() for name in names)
    for title, names in sections.items():
        yield [title, explained([(f"{name:<{width}}", words) for name, words in names.items()], "  ")]


def _sections() -> dict[str, dict[str, str]]:
    """The names of each section with their summaries."""
    sections: dict[str, dict[str, str]] = {}
    for entry in entries():
        if entry.section:
            sections.setdefault(entry.section, {})[entry.name] = entry.summary
    return sections


def entries() -> Iterator[Entry]:
    """Everything that has a page; a name may have several (`linear` is a projection and a schedule)."""
    sections: tuple[tuple[str, Mapping[str, Any], Callable[[str, Any], Page]], ...] = (
        ("losses: name(from -> to)", ops.OPERATIONS, _declared),
        ("transforms: name(value)", ops.TRANSFORMS, _declared),
        ("temperatures: T=name(base)", ops.TEMPERATURES, _declared),
        ("projections: value via name", ops.PROJECTIONS, _projection),
        ("schedules: weights that change with training", ops.SCHEDULES, _schedule),
        ("functions across a list, and of one value", FUNCTIONS, _function),
        ("models: teacher NAME = …, student NAME = …", MODELS, partial(_settings, "a model")),
        ("heads: student NAME = … { head NAME = … }", HEADS, partial(_settings, "a head")),
        ("adapters: hf(…, adapter=…)", ADAPTERS, partial(_settings, "an adapter")),
        ("data: data NAME = …", DATA, partial(_settings, "data")),
        ("changes of texts: data NAME = …(augment=[…])", AUGMENTATIONS, partial(_settings, "a change of texts")),
        ("train { optimizer = … }", OPTIMIZERS, partial(_settings, "an optimizer")),
        ("train { schedule = … }", RATES, partial(_settings, "a learning rate's schedule")),
        ("", {"layers": Layers}, partial(_settings, "some layers of a model")),
        ("settings", {"train": Train}, partial(_settings, "the settings of training")),
    )
    for section, registry, page in sections:
        for name, thing in registry.items():
            yield Entry(section, name, _summary(name, thing), partial(page, name, thing))


def _summary(name: str, thing: Any) -> str:
    """What a name is in a line: the summary of a declaration, a text, or the first line of a docstring."""
    if name == "train":
        return f"the settings of `train {{ }}`: {', '.join(list(thing.model_fields)[:5])}, …"
    if name in getattr(thing, "also", ()):
        return f"another name of {thing.name}"
    words = thing if isinstance(thing, str) else getattr(thing, "summary", None)
    return words or inspect.cleandoc(thing.__doc__ or "").split("\n")[0].replace("`", "")


# ── one page each ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Page:
    """What is known of a name. Paragraphs are Markdown; `tables` are titled rows of a name and its words; a setting is
    name, type, default and meaning, as `_fields` yields it."""

    call: str
    what: str
    paragraphs: tuple[str, ...] = ()
    formula: str = ""
    tables: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    settings: tuple[tuple[str, str, str, str], ...] = ()
    note: str = ""
    example: tuple[str, ...] = ()
    source: str = ""

    def text(self) -> Iterator[str]:
        """The lines for a terminal, at most as wide as it is."""
        title = wrapped(f"{self.call}   {self.what}")
        yield title if "\n" not in title else f"{self.call}\n  {self.what}"
        if self.paragraphs:
            yield from ("", wrapped(self.paragraphs[0]))
        if self.formula:
            yield from ("", wrapped(self.formula, "    "))
        for paragraph in self.paragraphs[1:]:
            yield from ("", wrapped(paragraph))
        for title, rows in self.tables:
            yield from ("", title, explained(list(rows), "  "))
        if self.settings:
            yield ""
        for key, kind, default, meaning in self.settings:
            start = key if default == "needed" else f"{key} = {default}"
            yield wrapped(f"{kind}; needed" if default == "needed" else kind, f"  {start}   ", "      ")
            yield wrapped(meaning, "      ")
        if self.note:
            yield from ("", wrapped(self.note))
        if self.example:
            yield from ("", "example")
        for line in self.example:
            fits = f"  {line}" == wrapped(line, "  ")
            yield f"  {line}" if fits else f"  {line}".replace(" -> ", " ->\n      ")
        if self.source:
            yield from ("", wrapped(f"source: {self.source}", hang="  "))

    def markdown(self, name: str) -> Iterator[str]:
        """The same as Markdown, under a title; a formula is a block of LaTeX, ```math."""
        yield from (f"# {name}", "", f"`{self.call}`: {self.what}" if self.call != name else self.what.capitalize())
        for i, paragraph in enumerate(self.paragraphs):
            yield from ("", paragraph)
            if i == 0 and self.formula:
                yield from ("", *_formula_block(self.formula))
        for title, rows in self.tables:
            yield from ("", f"## {title.capitalize()}", "", "| | |", "|---|---|")
            yield from (f"| `{_cell(key)}` | {_cell(words)} |" for key, words in rows)
        if self.settings:
            yield from ("", "## Arguments", "", *_settings_table(self.settings))
        if self.note:
            yield from ("", f"{self.note[:1].upper()}{self.note[1:]}.".replace("..", "."))
        if self.example:
            yield from ("", "## Example", "", "```brew fragment", *self.example, "```")
        if self.source:
            yield from ("", "## Source", "", self.source)


def _formula_block(formula: str) -> tuple[str, ...]:
    """LaTeX, or the text itself where an operation of somebody else states something that is no formula."""
    try:
        return ("```math", latex(formula), "```")
    except FormulaError:
        return ("```text", formula, "```")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _settings_table(rows: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    yield "| name | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _declared(name: str, declared: ops.Operation | ops.DeclaredTransform | ops.DeclaredTemperature) -> Page:
    takes: list[tuple[str, str]] = []
    sides: list[str] = []
    options: list[tuple[str, str]] = []
    note = ""
    if isinstance(declared, ops.Operation):
        others = [other for other in (declared.name, *declared.also) if other != name]
        arguments, what = "from -> to", "a loss" + (f", also called {' and '.join(others)}" if others else "")
        takes = [(f"{a} -> {b}", ops.UNITS[unit]) for (a, b), unit in declared.takes.items()]
        sides = [side for pair in declared.takes for side in pair]
        options = [("mask = …", "none, tokens, pairs or labels; left out, the kind chooses it")]
        if declared.same:
            note = f"both sides need the same {' or '.join(sorted(declared.same))}"
        line = f"{name} = {name}({example(sides[0], 'big')} -> {example(sides[1], 'small')})"
    elif isinstance(declared, ops.DeclaredTransform):
        first = next(iter(declared.takes))
        arguments, what = ", ".join(first), "a transform"
        takes = [(", ".join(kinds), f"gives {result}") for kinds, result in declared.takes.items()]
        sides = [side for kinds, result in declared.takes.items() for side in (*kinds, result)]
        options = [("mask = …", "none or tokens; left out, padding is hidden")] if declared.needs_layout else []
        line = f"{name}({', '.join(example(kind, 'big') for kind in first)})"
    else:
        arguments, what = "base", "a temperature for each example or token"
        options = [("base", "the temperature that they vary around")]
        if declared.couples_batch:
            note = "the value of an example depends on the other examples of its batch"
        line = f"soft = ce(big.logits -> small.logits, T={name}(4))"
    kinds = dict.fromkeys(kind for side in sides for kind in ops.side_kinds(side))
    rows = (*((f"{o.name} = {_short(o.default)}", o.text) for o in declared.options), *options)
    tables = (
        ("takes", tuple(takes)),
        ("where", tuple((kind, ops.KINDS[kind]) for kind in kinds)),
        ("options", rows),
    )
    return Page(
        f"{name}({arguments}{''.join(f', {o.name}={_short(o.default)}' for o in declared.options)})",
        what,
        (declared.summary, *_paragraphs(declared.text)),
        declared.formula,
        tuple((title, rows) for title, rows in tables if rows),
        note=note,
        example=(line,),
        source=declared.source,
    )


def _paragraphs(text: str) -> tuple[str, ...]:
    """The paragraphs of a docstring, each in one line."""
    return tuple(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n") if part.strip())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def example(side: str, model: str) -> str:
    """A side of an arrow in a spec: a value, a tuple of two layers, or a whole row."""
    if ops.is_row(side):
        return f"{model}.hidden"
    if ops.is_tuple(side):
        layers = (EXAMPLES[kind].format(model).replace("-1", f"{i}") for i, kind in enumerate(ops.side_kinds(side)))
        return f"({', '.join(layers)})"
    return EXAMPLES[side].format(model)


def _function(name: str, words: str) -> Page:
    what = "across a list" if name in ACROSS else "of one value; on a list, of each member"
    return Page(name, f"a function {what}", _paragraphs(words))


def _projection(name: str, projection: ops.ProjectionKind) -> Page:
    words = (
        "Weights start from N(0, 0.02), biases from zero. Inline each use is a separate module; a named one is shared. "
        "Sizes may be omitted if the other side of an arrow fixes them; lr and weight_decay may be set."
    )
    lines = (
        f"hidden = mse(big.hidden[4] -> small.hidden[2] via {name})",
        f"proj W = {name}(312 -> 768, lr=1e-3)",
    )
    return Page(name, f"a projection: {projection.summary}", (words,), example=lines)


def _schedule(name: str, function: Callable[..., float]) -> Page:
    summary, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n")
    formula, text = ops.split_formula(rest)
    call, _, _ = summary.removeprefix("`").partition("`")
    paragraphs = (summary, *_paragraphs(text))
    what = "a schedule: a number that changes with training"
    return Page(name, what, paragraphs, formula, example=(f"loss = {call} * soft + hard",))


def _settings(what: str, name: str, settings: type[Settings]) -> Page:
    note = ""
    if settings.extras is not None:
        note = f"Other keywords: {settings.model_fields[settings.extras].description}."
    rows = tuple(_fields(settings))
    return Page(name, what, _paragraphs(settings.__doc__ or ""), settings=rows, note=note)


def type_text(annotation: Any) -> str:
    """A field's type in a word or two."""
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if annotation is type(None):
        return "none"
    if annotation is Length:
        return "length: 10%, 500 steps, 1 epochs"
    words = {int: "integer", float: "number", str: "text", bool: "true | false"}
    if annotation in words:
        return words[annotation]
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return f"list of {type_text(arguments[0])}" if Ellipsis in arguments else f"{len(arguments)} numbers"
    if hasattr(annotation, "__metadata__"):  # Annotated: a positive integer is an integer with a bound
        return type_text(arguments[0])
    if arguments:
        return " | ".join(dict.fromkeys(type_text(a) for a in arguments))
    return "a call" if annotation is Settings else f"{annotation.__name__.lower()}(…)"
