"""`brewgraph ops`: lists everything that a spec can name, with a page for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from brewgraph.cli.output import explained, wrapped
from brewgraph.diagnostics import UsageError

if TYPE_CHECKING:
    from brewgraph.ops import DeclaredTemperature, DeclaredTransform, Operation, ProjectionKind
    from brewgraph.ops.registry import Option
    from brewgraph.recipe.settings.base import Settings


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
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A name in the table, or train.",
            show_default=False,
            autocompletion=complete,
        ),
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
    pages = [entry.page for entry in _entries() if entry.name == name]
    if not pages:
        raise UsageError(_unknown(name))
    print("\n\n".join("\n".join(page()) for page in pages))


def settings_page() -> Iterator[str]:
    """All settings of `train { }` as a Markdown page."""
    from brewgraph.recipe.settings.train import OPTIMIZERS, Train
    from brewgraph.recipe.settings.train import SCHEDULES as RATES
    from brewgraph.syntax.foreign import foreign_words

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
        if key != settings.extras:
            default = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
            yield (key, type_text(field.annotation), default, field.description or "")


def _unknown(name: str) -> str:
    from brewgraph.recipe.evaluate.scope import LATER
    from brewgraph.syntax.foreign import foreign_words, instead

    if name in LATER:
        return f"`{name}` belongs to the language, but is not supported in this version"
    places = ("call", "setting", "data source", "model source", "optimizer", "projection")
    place = next((place for place in places if name in foreign_words()[place]), "call")
    hint = instead(place, name, [entry.name for entry in _entries()]) or "`brewgraph ops` lists all names"
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
    for entry in _entries():
        if entry.section:
            sections.setdefault(entry.section, {})[entry.name] = entry.summary
    return sections


def _entries() -> Iterator[Entry]:
    """Everything that has a page; a name may have several (`linear` is a projection and a schedule)."""
    from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
    from brewgraph.recipe.evaluate.calls import FUNCTIONS
    from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
    from brewgraph.recipe.settings.data_sources import DATA
    from brewgraph.recipe.settings.model_sources import ADAPTERS, HEADS, MODELS, Layers
    from brewgraph.recipe.settings.train import OPTIMIZERS, Train
    from brewgraph.recipe.settings.train import SCHEDULES as RATES

    for name, o in OPERATIONS.items():
        summary = f"another name of {o.name}" if name in o.also else o.summary
        yield Entry("losses: name(from -> to)", name, summary, partial(_operation, name, o))
    for name, x in TRANSFORMS.items():
        yield Entry("transforms: name(value)", name, x.summary, partial(_transform, name, x))
    for name, temperature in TEMPERATURES.items():
        yield Entry("temperatures: T=name(base)", name, temperature.summary, partial(_temperature, name, temperature))
    for p in PROJECTIONS.values():
        yield Entry("projections: value via name", p.name, p.summary, partial(_projection, p))
    for name, function in SCHEDULES.items():
        page = partial(_schedule, name, function)
        yield Entry("schedules: weights that change with training", name, _summary(function), page)
    for name, words in FUNCTIONS.items():
        yield Entry("functions across a list, and of one value", name, words, partial(_function, name, words))
    registries: tuple[tuple[str, str, Mapping[str, type[Settings]]], ...] = (
        ("models: teacher NAME = …, student NAME = …", "a model", MODELS),
        ("heads: student NAME = … { head NAME = … }", "a head", HEADS),
        ("adapters: hf(…, adapter=…)", "an adapter", ADAPTERS),
        ("data: data NAME = …", "data", DATA),
        ("changes of texts: data NAME = …(augment=[…])", "a change of texts", AUGMENTATIONS),
        ("train { optimizer = … }", "an optimizer", OPTIMIZERS),
        ("train { schedule = … }", "a learning rate's schedule", RATES),
        ("", "some layers of a model", {"layers": Layers}),
    )
    for section, what, registry in registries:
        for name, settings in registry.items():
            yield Entry(section, name, _summary(settings), partial(_settings, name, what, settings))
    first = ", ".join(list(Train.model_fields)[:5])
    page = partial(_settings, "train", "the settings of training", Train)
    yield Entry("settings", "train", f"the settings of `train {{ }}`: {first}, …", page)


# ── one page each ────────────────────────────────────────────────────────────────────────────────────────────────────


def _operation(name: str, operation: Operation) -> Iterator[str]:
    from brewgraph.ops import UNITS

    others = [other for other in (operation.name, *operation.also) if other != name]
    also = f", also called {' and '.join(others)}" if others else ""
    yield from _title(f"{name}(from -> to{_signature(operation.options)})", f"a loss{also}")
    yield from _words(operation)
    yield "takes"
    yield explained([(f"{a} -> {b}", UNITS[unit]) for (a, b), unit in operation.takes.items()], "  ")
    yield from _kinds([side for pair in operation.takes for side in pair])
    if operation.same:
        yield ""
        yield wrapped(f"both sides need the same {' or '.join(sorted(operation.same))}")
    mask = ("mask = …", "none, tokens, pairs or labels; left out, the kind chooses it")
    yield from _options(operation.options, mask)
    (source, target), _ = next(iter(operation.takes.items()))
    yield from _example(f"{name} = {name}({example(source, 'big')} -> {example(target, 'small')})")
    yield wrapped(f"source: {operation.source}", hang="  ")


def _transform(name: str, transform: DeclaredTransform) -> Iterator[str]:
    arguments = next(iter(transform.takes))
    yield from _title(f"{name}({', '.join(arguments)}{_signature(transform.options)})", "a transform")
    yield from _words(transform)
    yield "takes"
    yield explained([(", ".join(kinds), f"gives {result}") for kinds, result in transform.takes.items()], "  ")
    yield from _kinds([kind for kinds, result in transform.takes.items() for kind in (*kinds, result)])
    mask = ("mask = …", "none or tokens; left out, padding is hidden")
    yield from _options(transform.options, *([mask] if transform.needs_layout else []))
    yield from _example(f"{name}({', '.join(example(kind, 'big') for kind in arguments)})")
    yield wrapped(f"source: {transform.source}", hang="  ")


def _temperature(name: str, temperature: DeclaredTemperature) -> Iterator[str]:
    yield from _title(f"{name}(base{_signature(temperature.options)})", "a temperature for each example or token")
    yield from _words(temperature)
    if temperature.couples_batch:
        yield "the value of an example depends on the other examples of its batch"
    yield from _options(temperature.options, ("base", "the temperature that they vary around"))
    yield from _example(f"soft = ce(big.logits -> small.logits, T={name}(4))")
    yield wrapped(f"source: {temperature.source}", hang="  ")


def _signature(options: tuple[Option, ...]) -> str:
    return "".join(f", {o.name}={_short(o.default)}" for o in options)


def _title(call: str, what: str) -> Iterator[str]:
    """The first line of a page: the call and what it is; two lines if one is too long."""
    line = wrapped(f"{call}   {what}")
    yield from (line,) if "\n" not in line else (call, f"  {what}")


def _words(declaration: Operation | DeclaredTransform | DeclaredTemperature) -> Iterator[str]:
    yield ""
    yield from (_prose(text) for text in (declaration.summary, declaration.text) if text)
    yield ""


def _prose(text: str) -> str:
    """Paragraphs, wrapped anew; indented ones stay as they are."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") or "\n " in p else wrapped(" ".join(p.split())) for p in parts)


def _kinds(sides: list[str]) -> Iterator[str]:
    from brewgraph.ops import KINDS, side_kinds

    kinds = dict.fromkeys(kind for side in sides for kind in side_kinds(side))
    yield ""
    yield "where"
    yield explained([(kind, KINDS[kind]) for kind in kinds], "  ")


def _options(options: tuple[Option, ...], *more: tuple[str, str]) -> Iterator[str]:
    rows = [*((f"{o.name} = {_short(o.default)}", o.text) for o in options), *more]
    if rows:
        yield ""
        yield "options"
        yield explained(rows, "  ")


def _example(line: str) -> Iterator[str]:
    line = f"  {line}"
    yield from ("", "example", line if line == wrapped(line[2:], "  ") else line.replace(" -> ", " ->\n      "), "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def example(side: str, model: str) -> str:
    """A side of an arrow in a spec: a value, a tuple of two layers, or a whole row."""
    from brewgraph.ops import is_row, is_tuple, side_kinds

    if is_row(side):
        return f"{model}.hidden"
    if is_tuple(side):
        layers = (EXAMPLES[kind].format(model).replace("-1", f"{i}") for i, kind in enumerate(side_kinds(side)))
        return f"({', '.join(layers)})"
    return EXAMPLES[side].format(model)


def _function(name: str, words: str) -> Iterator[str]:
    from brewgraph.recipe.evaluate.scope import ACROSS

    what = "across a list" if name in ACROSS else "of one value; on a list, of each member"
    yield from (f"{name}   a function {what}", "", _prose(words))


def _projection(projection: ProjectionKind) -> Iterator[str]:
    yield from (f"{projection.name}   a projection: {projection.summary}", "")
    yield wrapped(
        "Weights start from N(0, 0.02), biases from zero. Inline each use is a separate module; a named one is shared. "
        "Sizes may be omitted if the other side of an arrow fixes them; lr and weight_decay may be set."
    )
    yield from ("", "example")
    yield f"  hidden = mse(big.hidden[4] -> small.hidden[2] via {projection.name})"
    yield f"  proj W = {projection.name}(312 -> 768, lr=1e-3)"


def _schedule(name: str, function: Callable[..., float]) -> Iterator[str]:
    yield from (f"{name}   a schedule: a number that changes with training", "")
    yield from (_prose(function.__doc__ or ""), "", "example")
    call, _, _ = (function.__doc__ or "").removeprefix("`").partition("`")
    yield f"  loss = {call} * soft + hard"


def _settings(name: str, what: str, settings: type[Settings]) -> Iterator[str]:
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
    from typing import Literal

    from brewgraph.recipe.values import Length

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
    from brewgraph.recipe.settings.base import Settings

    return "a call" if annotation is Settings else f"{annotation.__name__.lower()}(…)"


def _default(value: Any) -> str:
    from brewgraph.recipe.settings.base import Settings, setting_text

    # a call with defaults has its own page
    return f"{type(value).__name__.lower()}()" if isinstance(value, Settings) else setting_text(value)


def _summary(thing: Any) -> str:
    """The first line of a docstring without backquotes."""
    line = inspect.cleandoc(thing.__doc__ or "").split("\n")[0]
    return line.replace("`", "")
