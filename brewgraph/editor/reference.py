"""The pages of operations, sources and settings, as the editor needs them: by name, and where a name belongs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, Union, get_args, get_origin

from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import ALONE
from brewgraph.ops.registry import DeclaredFunction, DeclaredTransform, Operation
from brewgraph.recipe.evaluate.calls import FUNCTIONS, MASKS
from brewgraph.recipe.evaluate.declare import CALLS
from brewgraph.recipe.evaluate.scope import ACROSS
from brewgraph.recipe.settings.base import Settings, setting_text
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.recipe.settings.model_sources import HEADS, MODELS
from brewgraph.recipe.settings.train import OPTIMIZERS, Train
from brewgraph.recipe.settings.train import SCHEDULES as RATES

SOURCES: Mapping[str, Mapping[str, type[Settings]]] = {
    "teacher": MODELS, "student": MODELS, "data": DATA, "head": HEADS, "optimizer": OPTIMIZERS, "schedule": RATES,
    **CALLS,
}  # fmt: skip
"""What may be called after `teacher x =`, `data x =`, `optimizer =`, `adapter=`, …"""


class Page(Protocol):
    """A page of `brewgraph ops`: the title of its section, its name and line, and its text."""

    @property
    def section(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def page(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Option:
    """An argument or a setting: its line, its default as a spec writes it, and the words that it may be."""

    name: str
    text: str
    default: str = ""
    words: tuple[str, ...] = ()


class Reference:
    """All pages, by name."""

    def __init__(self, pages: Iterable[Page]):
        self.pages: dict[str, list[Page]] = {}
        for page in pages:
            self.pages.setdefault(page.name, []).append(page)

    def summary(self, name: str) -> str:
        """The line of a name, empty if it has none."""
        return self.pages[name][0].summary if name in self.pages else ""

    def text(self, name: str, keyword: str = "") -> str:
        """The page of a name as Markdown; of several that of the place where it stands, such as `data`."""
        pages = self.pages.get(name, [])
        if keyword in SOURCES:
            registry = SOURCES[keyword]
            summary = inspect.cleandoc(registry[name].__doc__ or "").split("\n")[0] if name in registry else ""
            pages = [page for page in pages if page.summary == summary.replace("`", "")] or pages
        elif keyword == "via":
            pages = [page for page in pages if page.section.startswith("projections")] or pages
        return "\n\n".join("```text\n" + "\n".join(page.page()) + "\n```" for page in pages[:1])


EQUATION = (*OPERATIONS, *TRANSFORMS, *SCHEDULES, *ACROSS, *ALONE)
"""The functions that an equation may call, without temperatures."""


def options_of(callee: str, keyword: str = "") -> list[Option]:
    """The arguments of a call; `keyword` is the statement, setting or argument whose value it is."""
    for registry in (SOURCES.get(keyword, {}), *((r for r in SOURCES.values()) if not _is_function(callee) else ())):
        if callee in registry:
            return settings_of(registry[callee])
    declared = declared_of(callee)
    if declared is not None:
        options = [Option(o.name, o.text, _plain(o.default)) for o in declared.options]
        if isinstance(declared, Operation):
            options += [
                Option("mask", "what counts; default: the kind chooses", "", MASKS),
                Option("reduce", 'one number per example or token instead of their mean: "none"', "", ('"none"',)),
            ]
        elif isinstance(declared, DeclaredTransform) and declared.needs_layout:
            options.append(Option("mask", "none or tokens; default: padding is hidden", "", ("none", "tokens")))
        return options
    if callee in ACROSS:
        return [Option("over", "the axis: the name of a list")]
    if callee in PROJECTIONS:
        return [Option("lr", "learning rate of its parameters"), Option("weight_decay", "decay of its parameters")]
    return []


def _is_function(name: str) -> bool:
    return name in FUNCTIONS or declared_of(name) is not None


def declared_of(name: str) -> DeclaredFunction | None:
    """The declaration of an operation, a transform or a temperature."""
    registries: tuple[Mapping[str, DeclaredFunction], ...] = (OPERATIONS, TRANSFORMS, TEMPERATURES)
    return next((registry[name] for registry in registries if name in registry), None)


def settings_of(settings: type[Settings]) -> list[Option]:
    """The fields of a call, in order."""
    options = []
    for name, field in settings.model_fields.items():
        if name == settings.extras:
            continue
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        default = (
            ""
            if field.is_required()
            else f"{type(value).__name__.lower()}()"
            if isinstance(value, Settings)
            else setting_text(value)
        )
        words = tuple(_words(field.annotation))
        bare = settings is Train or name in settings.bare
        words = tuple(w if bare or w in ("true", "false") else f'"{w}"' for w in words)
        options.append(Option(name, field.description or "", default, words))
    return options


def train_settings() -> list[Option]:
    """The settings of `train { }`."""
    return settings_of(Train)


def positional(callee: str, keyword: str, place: int) -> Option | None:
    """The argument that stands at a place without its name."""
    settings = SOURCES.get(keyword, {}).get(callee)
    if settings is None or place >= len(settings.positional):
        return None
    return next((o for o in settings_of(settings) if o.name == settings.positional[place]), None)


def _words(annotation: Any) -> Iterator[str]:
    """The words of a type: those of a `Literal`, `true` and `false`."""
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from (str(word) for word in get_args(annotation))
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            if member is not NoneType:
                yield from _words(member)


def _plain(value: Any) -> str:
    return setting_text(value) if isinstance(value, bool | int | float | str) or value is None else str(value)
