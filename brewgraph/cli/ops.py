"""`brewgraph ops`: everything that a spec can name, and a page for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from brewgraph.cli.output import explained, wrapped
from brewgraph.diagnostics import UsageError

if TYPE_CHECKING:
    from brewgraph.ops import DeclaredTemperature, DeclaredTransform, Operation, ProjectionKind
    from brewgraph.ops.registry import Option
    from brewgraph.recipe.settings.sources import Settings

Page = Callable[[], Iterator[str]]
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
"""What a value of each kind looks like in a spec; {0} is a model's name."""
ROW = "{0}.hidden"


def complete(incomplete: str) -> Iterator[tuple[str, str]]:
    """What the shell offers behind `brewgraph ops`: every name of the table that begins so, with its line."""
    lines = {name: line for section in _sections().values() for name, line in section.items()}
    yield from ((name, line) for name, line in lines.items() if name.startswith(incomplete))


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="One of the names in the table, or train.",
            show_default=False,
            autocompletion=complete,
        ),
    ] = None,
    format: Annotated[
        Literal["text", "markdown"], typer.Option(help="markdown: the table of a page of settings, for documents.")
    ] = "text",
) -> None:
    """List the operations, transforms, projections, schedules, sources and settings, or explain one of them."""
    if format == "markdown":
        print("\n".join(settings_page()))
        return
    if name is None:
        print("\n\n".join("\n".join(section) for section in _overview()))
        print("\n`brewgraph ops NAME` explains one of them.")
        return
    pages = [page for known, page in _pages() if known == name]
    if not pages:
        raise UsageError(_unknown(name))
    print("\n\n".join("\n".join(page()) for page in pages))


def settings_page() -> Iterator[str]:
    """All settings of `train { }` as a Markdown page, from the models that check them."""
    from brewgraph.recipe.settings.train import OPTIMIZERS, Train
    from brewgraph.recipe.settings.train import SCHEDULES as RATES
    from brewgraph.syntax.foreign import foreign_words

    yield "# The settings of `train { }`"
    yield ""
    yield "Written by `brewgraph ops train --format markdown` from the models that check them."
    yield "A stage may override each."
    pages: dict[str, type[Settings]] = {"train": Train, **OPTIMIZERS, **RATES}
    for title, settings in pages.items():
        yield ""
        yield f"## `{title}`"
        yield ""
        if title != "train":
            yield inspect.cleandoc(settings.__doc__ or "")
            yield ""
        rows = list(_fields(settings))
        yield f"| {' | '.join(rows[0])} |"
        yield f"|{'---|' * len(rows[0])}"
        yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows[1:])
    yield ""
    yield "## Other words"
    yield ""
    yield "What other toolkits call the same thing; written here, each gets the hint on the right."
    yield ""
    yield "| elsewhere | here |"
    yield "|---|---|"
    yield from (f"| `{word}` | {entry.help} |" for word, entry in foreign_words()["setting"].items())


def _fields(settings: type[Settings]) -> Iterator[tuple[str, str, str, str]]:
    """A row per setting under a row of titles."""
    yield ("name", "type", "default", "meaning")
    for key, field in settings.model_fields.items():
        if key != settings.extras:
            default = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
            yield (key, type_text(field.annotation), default, field.description or "")


def _unknown(name: str) -> str:
    from brewgraph.recipe.evaluate.scope import LATER
    from brewgraph.syntax.foreign import foreign_words, instead

    if name in LATER:
        return f"`{name}` is a word of the language that this release does not support yet"
    known = [known for known, _ in _pages()]
    places = ("call", "setting", "data source", "model source", "optimizer", "projection")
    place = next((place for place in places if name in foreign_words()[place]), "call")
    hint = instead(place, name, known) or "`brewgraph ops` lists what there is"
    return f"there is no `{name}`: {hint}"


def _overview() -> Iterator[list[str]]:
    """The sections of the table."""
    sections = _sections()
    width = max(len(name) for names in sections.values() for name in names)
    for title, names in sections.items():
        yield [title, explained([(f"{name:<{width}}", words) for name, words in names.items()], "  ")]


def _sections() -> dict[str, dict[str, str]]:
    """The sections of the table by their titles: names and words."""
    from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
    from brewgraph.recipe.evaluate.list_functions import FUNCTIONS
    from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
    from brewgraph.recipe.settings.sources import ADAPTERS, DATA, HEADS, MODELS
    from brewgraph.recipe.settings.train import OPTIMIZERS, Train
    from brewgraph.recipe.settings.train import SCHEDULES as RATES

    return {
        "losses: name(from -> to)": {
            name: f"another name of {o.name}" if name in o.also else o.summary for name, o in OPERATIONS.items()
        },
        "transforms: name(value)": {name: x.summary for name, x in TRANSFORMS.items()},
        "temperatures: T=name(base)": {name: x.summary for name, x in TEMPERATURES.items()},
        "projections: value via name": {p.name: p.summary for p in PROJECTIONS.values()},
        "schedules: weights that change with training": {k: _summary(f) for k, f in SCHEDULES.items()},
        "functions across a list, and of one value": FUNCTIONS,
        "models: teacher NAME = …, student NAME = …": {k: _summary(m) for k, m in MODELS.items()},
        "heads: student NAME = … { head NAME = … }": {k: _summary(h) for k, h in HEADS.items()},
        "adapters: hf(…, adapter=…)": {k: _summary(a) for k, a in ADAPTERS.items()},
        "data: data NAME = …": {k: _summary(d) for k, d in DATA.items()},
        "changes of texts: data NAME = …(augment=[…])": {k: _summary(a) for k, a in AUGMENTATIONS.items()},
        "train { optimizer = … }": {k: _summary(o) for k, o in OPTIMIZERS.items()},
        "train { schedule = … }": {k: _summary(o) for k, o in RATES.items()},
        "settings": {"train": f"what `train {{ }}` may say: {', '.join(list(Train.model_fields)[:5])}, …"},
    }


def _pages() -> list[tuple[str, Page]]:
    """Every name with its page; a name may have several (`linear` is a projection and a schedule)."""
    from functools import partial

    from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
    from brewgraph.recipe.evaluate.list_functions import FUNCTIONS
    from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
    from brewgraph.recipe.settings.sources import ADAPTERS, DATA, HEADS, MODELS, Layers
    from brewgraph.recipe.settings.train import OPTIMIZERS, Train
    from brewgraph.recipe.settings.train import SCHEDULES as RATES

    pages: list[tuple[str, Page]] = [(name, partial(_operation, name, o)) for name, o in OPERATIONS.items()]
    pages += [(name, partial(_transform, name, x)) for name, x in TRANSFORMS.items()]
    pages += [(name, partial(_temperature, name, x)) for name, x in TEMPERATURES.items()]
    pages += [(p.name, partial(_projection, p)) for p in PROJECTIONS.values()]
    pages += [(name, partial(_schedule, name, function)) for name, function in SCHEDULES.items()]
    for what, registry in (
        ("a model", MODELS),
        ("a head", HEADS),
        ("an adapter", ADAPTERS),
        ("data", DATA),
        ("a change of texts", AUGMENTATIONS),
        ("an optimizer", OPTIMIZERS),
        ("a learning rate's schedule", RATES),
    ):
        pages += [(name, partial(_settings, name, what, settings)) for name, settings in registry.items()]
    pages += [(name, partial(_function, name, words)) for name, words in FUNCTIONS.items()]
    pages.append(("layers", partial(_settings, "layers", "some layers of a model", Layers)))
    pages.append(("train", partial(_settings, "train", "the settings of training", Train)))
    return pages


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
        yield "what one example gets depends on the others of its batch"
    yield from _options(temperature.options, ("base", "the temperature around which they lie"))
    yield from _example(f"soft = ce(big.logits -> small.logits, T={name}(4))")
    yield wrapped(f"source: {temperature.source}", hang="  ")


def _signature(options: tuple[Option, ...]) -> str:
    return "".join(f", {o.name}={_short(o.default)}" for o in options)


def _title(call: str, what: str) -> Iterator[str]:
    """The first line of a page: how it is called, and what it is; in two where one is too long for both."""
    line = wrapped(f"{call}   {what}")
    yield from (line,) if "\n" not in line else (call, f"  {what}")


def _words(declaration: Operation | DeclaredTransform | DeclaredTemperature) -> Iterator[str]:
    yield ""
    yield from (_prose(text) for text in (declaration.summary, declaration.text) if text)
    yield ""


def _prose(text: str) -> str:
    """Paragraphs, their lines laid anew; what is indented is left as it is."""
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
    """A side of an arrow as a spec writes it: a value, a tuple of two layers, a whole row."""
    from brewgraph.ops import is_row, is_tuple, side_kinds

    if is_row(side):
        return ROW.format(model)
    if is_tuple(side):
        layers = (EXAMPLES[kind].format(model).replace("-1", f"{i}") for i, kind in enumerate(side_kinds(side)))
        return f"({', '.join(layers)})"
    return EXAMPLES[side].format(model)


def _function(name: str, words: str) -> Iterator[str]:
    from brewgraph.recipe.evaluate.scope import ACROSS

    yield f"{name}   a function {'across a list' if name in ACROSS else 'of one value; on a list, of each member'}"
    yield ""
    yield _prose(words)


def _projection(projection: ProjectionKind) -> Iterator[str]:
    yield f"{projection.name}   a projection: {projection.summary}"
    yield ""
    yield wrapped(
        "Weights begin at N(0, 0.02), biases at zero. Inline each use is a module of its own; a named one is shared. "
        "Sizes may be left out where the other side of an arrow fixes them; lr and weight_decay are its own."
    )
    yield ""
    yield "example"
    yield f"  hidden = mse(big.hidden[4] -> small.hidden[2] via {projection.name})"
    yield f"  proj W = {projection.name}(312 -> 768, lr=1e-3)"


def _schedule(name: str, function: Callable[..., float]) -> Iterator[str]:
    yield f"{name}   a schedule: a number that changes with training"
    yield ""
    yield _prose(function.__doc__ or "")
    yield ""
    yield "example"
    call, _, _ = (function.__doc__ or "").removeprefix("`").partition("`")
    yield f"  loss = {call} * soft + hard"


def _settings(name: str, what: str, settings: type[Settings]) -> Iterator[str]:
    yield f"{name}   {what}"
    yield ""
    yield _prose(settings.__doc__ or "")
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
    from brewgraph.recipe.settings.sources import Settings

    return "a call" if annotation is Settings else f"{annotation.__name__.lower()}(…)"


def _default(value: Any) -> str:
    from brewgraph.recipe.settings.sources import Settings, setting_text

    # a call with its own defaults has a page of its own
    return f"{type(value).__name__.lower()}()" if isinstance(value, Settings) else setting_text(value)


def _summary(thing: Any) -> str:
    """The first sentence of a docstring without the call that it opens with."""
    line = inspect.cleandoc(thing.__doc__ or "").split("\n")[0]
    return line.replace("`", "")
