"""`brewgraph ops`: lists everything that a spec can name, with a page for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from brewgraph import ops
from brewgraph.cli.output import explained, wrapped
from brewgraph.diagnostics import UsageError
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
    page: Callable[[], Iterator[str]]


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
        Literal["text", "markdown"], typer.Option(help="markdown: all settings of `train { }` as a page for documents.")
    ] = "text",
) -> None:
    """List operations, transforms, projections, schedules, sources and settings, or explain one."""
    if format == "markdown":
        print("\n".join(settings_page()))
        return
    if name is None:
        print("\n\n".join("\n".join(section) for section in _overview()))
        print("\n`brewgraph ops NAME` explains one of them.")
        return
    pages = [entry.page for entry in entries() if entry.name == name]
    if not pages:
        raise UsageError(_unknown(name))
    print("\n\n".join("\n".join(page()) for page in pages))


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
        rows = list(_fields(settings))
        yield f"| {' | '.join(rows[0])} |"
        yield f"|{'---|' * len(rows[0])}"
        yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows[1:])
    yield from ("", "## Other words", "")
    yield "What other toolkits call the same thing; written here, each gets the hint on the right."
    yield from ("", "| elsewhere | here |", "|---|---|")
    yield from (f"| `{word}` | {entry.help} |" for word, entry in foreign_words()["setting"].items())


def _fields(settings: type[Settings]) -> Iterator[tuple[str, str, str, str]]:
    """A row of titles, then a row per setting."""
    yield ("name", "type", "default", "meaning")
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
    sections: tuple[tuple[str, Mapping[str, Any], Callable[[str, Any], Iterator[str]]], ...] = (
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


def _declared(name: str, declared: ops.Operation | ops.DeclaredTransform | ops.DeclaredTemperature) -> Iterator[str]:
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
    call = f"{name}({arguments}{''.join(f', {o.name}={_short(o.default)}' for o in declared.options)})"
    title = wrapped(f"{call}   {what}")
    yield title if "\n" not in title else f"{call}\n  {what}"
    yield from ("", *(_prose(text) for text in (declared.summary, declared.text) if text), "")
    if takes:
        kinds = dict.fromkeys(kind for side in sides for kind in ops.side_kinds(side))
        yield from ("takes", explained(takes, "  "), "")
        yield from ("where", explained([(kind, ops.KINDS[kind]) for kind in kinds], "  "))
        yield from ("",) if note else ()
    yield from (wrapped(note),) if note else ()
    rows = [*((f"{o.name} = {_short(o.default)}", o.text) for o in declared.options), *options]
    yield from ("", "options", explained(rows, "  ")) if rows else ()
    fits = f"  {line}" == wrapped(line, "  ")
    yield from ("", "example", f"  {line}" if fits else f"  {line}".replace(" -> ", " ->\n      "), "")
    yield wrapped(f"source: {declared.source}", hang="  ")


def _prose(text: str) -> str:
    """Paragraphs, wrapped anew; indented ones stay as they are."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") or "\n " in p else wrapped(" ".join(p.split())) for p in parts)


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


def _function(name: str, words: str) -> Iterator[str]:
    what = "across a list" if name in ACROSS else "of one value; on a list, of each member"
    yield from (f"{name}   a function {what}", "", _prose(words))


def _projection(name: str, projection: ops.ProjectionKind) -> Iterator[str]:
    yield from (f"{name}   a projection: {projection.summary}", "")
    yield wrapped(
        "Weights start from N(0, 0.02), biases from zero. Inline each use is a separate module; a named one is shared. "
        "Sizes may be omitted if the other side of an arrow fixes them; lr and weight_decay may be set."
    )
    yield from ("", "example")
    yield f"  hidden = mse(big.hidden[4] -> small.hidden[2] via {name})"
    yield f"  proj W = {name}(312 -> 768, lr=1e-3)"


def _schedule(name: str, function: Callable[..., float]) -> Iterator[str]:
    yield from (f"{name}   a schedule: a number that changes with training", "")
    yield from (_prose(function.__doc__ or ""), "", "example")
    call, _, _ = (function.__doc__ or "").removeprefix("`").partition("`")
    yield f"  loss = {call} * soft + hard"


def _settings(what: str, name: str, settings: type[Settings]) -> Iterator[str]:
    yield from (f"{name}   {what}", "", _prose(settings.__doc__ or ""))
    rows = list(_fields(settings))[1:]
    if rows:
        yield ""
    for key, kind, default, meaning in rows:
        start = key if default == "needed" else f"{key} = {default}"
        yield wrapped(f"{kind}; needed" if default == "needed" else kind, f"  {start}   ", "      ")
        yield wrapped(meaning, "      ")
    if settings.extras is not None:
        yield ""
        yield wrapped(f"Other keywords: {settings.model_fields[settings.extras].description}.")


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
