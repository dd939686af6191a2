"""`convert`: from files of TextBrewer to a spec, or every fault in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from brewgraph.checking.check import check_names
from brewgraph.convert.config import (
    DistillationConfig,
    MatchEntry,
    SettingsT,
    TextBrewerSettings,
    TrainingConfig,
    settle,
)
from brewgraph.convert.config_files import CONFIGS, Read, distillers_called, python_module, read_from_files, read_values
from brewgraph.convert.notes import Note
from brewgraph.convert.spec_text import TAKEN, Configuration, Script, is_empty, write_spec
from brewgraph.diagnostics import Collector, UsageError, listing, suggest
from brewgraph.lints import Subject, find_unscaled_targets
from brewgraph.source import Source
from brewgraph.syntax.parser import KEYWORDS

_WRAPPED = {
    "distill_config": "distill", "distillation_config": "distill", "train_config": "train", "training_config": "train",
}  # fmt: skip
_KNOWN: dict[str, type[TextBrewerSettings]] = {"distill": DistillationConfig, "train": TrainingConfig}


@dataclass(frozen=True)
class _Part:
    """A part of a configuration: `distill`, `train`, or a list of `matches`, which may have a name."""

    kind: str
    read: Read
    name: str = ""


@dataclass(frozen=True)
class Converted:
    """A formatted spec, and notes on it."""

    text: str
    notes: tuple[Note, ...]


def convert(
    sources: Sequence[Source], script: Script, chosen: Sequence[str] = (), *, supervised: bool | None = None
) -> Converted:
    """One spec from one or more files: a distillation, a training configuration, lists of matches.

    `chosen` are the names of the lists of matches to convert. If `supervised` is None, a file with only training
    settings is one of BasicTrainer. Raises `SpecError` with every fault of the files, `UsageError` if they are
    ambiguous.
    """
    collector = Collector()
    parts = [part for source in sources for read in read_values(source, collector) for part in _parts(read, collector)]
    collector.raise_errors()
    if supervised is None:
        script, supervised = _as_called(sources, script)
    _demand_what_is_read([part.kind for part in parts], sources)
    for kind in _KNOWN:
        spans = [part.read.place(()) for part in parts if part.kind == kind]
        if len(spans) > 1:
            places = " and ".join(f"{span.source.name}:{span.position[0]}" for span in spans)
            raise UsageError(f"there are several configurations of one kind, in {places}: keep one of them")
    lists = _chosen([part for part in parts if part.kind == "matches"], chosen)
    distill = _settled(parts, "distill", DistillationConfig, collector)
    train = _settled(parts, "train", TrainingConfig, collector)
    unnamed = [("", match) for match in distill.intermediate_matches or ()]
    named = [(_equation_name(part.name), match) for part in lists for match in _matches(part, collector)]
    collector.raise_errors()
    if supervised or (supervised is None and not lists and all(part.kind == "train" for part in parts)):
        script = replace(script, distiller="BasicTrainer")
    matches = (*unnamed, *named)
    script = _with_first(script, [match for _, match in matches])
    settings = frozenset(key for part in parts if part.kind == "train" for key in part.read.value)
    name = ", ".join(source.name.replace("\\", "/").rpartition("/")[2] for source in sources)
    configuration = Configuration(name, distill, train, settings, matches)
    if is_empty(configuration, script):
        raise UsageError("every weight of the loss is zero: there is nothing to train; correct one of them")
    text, notes = write_spec(configuration, script)
    return Converted(_with_ignores(text), notes)


def _modules(sources: Sequence[Source]) -> Iterator[tuple[Source, ast.Module]]:
    """The files that are Python."""
    for source in sources:
        if (module := python_module(source)) is not None:
            yield source, module


def _as_called(sources: Sequence[Source], script: Script) -> tuple[Script, bool | None]:
    """The distiller that a script calls, if none is named, and whether it trains without a teacher.

    Raises `UsageError` if it calls several, or one that needs more options.
    """
    called = {name: source for source, module in _modules(sources) for name in distillers_called(module)}
    if not called:
        return script, None
    if len(called) > 1:
        raise UsageError(f"the script calls {listing(called)}: choose one, as --distiller {next(iter(called))}")
    (name,) = called
    more = {"MultiTeacherDistiller": " --teachers 2", "MultiTaskDistiller": " --task ner --task qa"}.get(name)
    if more is not None:
        raise UsageError(f"{called[name].name} calls {name}: add --distiller {name}{more}")
    return replace(script, distiller=name), name == "BasicTrainer"  # type: ignore[arg-type]


def _demand_what_is_read(kinds: Sequence[str], sources: Sequence[Source]) -> None:
    """Raise `UsageError` if a script reads a configuration from a file that is missing here."""
    for source, module in _modules(sources):
        for name, node in read_from_files(module):
            if CONFIGS[name] not in kinds:
                place = f"{source.name}:{getattr(node, 'lineno', 1)}"
                raise UsageError(f"{place} reads a {name} from a file: name that file, too")


def _with_ignores(text: str) -> str:
    """The spec with a comment that silences W213 at each term without a factor T², which TextBrewer does not have."""
    open_params = re.findall(r"^param (\w+)$", text, re.MULTILINE)
    recipe = check_names(Source(text), dict.fromkeys(open_params, "given later"))
    warnings = find_unscaled_targets(Subject(recipe, {}, lambda model, feature: None))
    lines = text.splitlines()
    for row in sorted({d.span.source.position(d.span.start)[0] for d in warnings}, reverse=True):
        line, comment = lines[row - 1], "# brew: ignore[W213] TextBrewer has no T²"
        extended = f"{line}    {comment}"
        indent = " " * (len(line) - len(line.lstrip()))
        lines[row - 1 : row] = [extended] if len(extended) <= 120 else [f"{indent}{comment}", line]
    return "\n".join(lines) + "\n"


def _with_first(script: Script, matches: Sequence[MatchEntry]) -> Script:
    """The script with the index of its first attention layer, which a layer 0 reveals. Raises `UsageError`."""
    ignored = script.distiller in ("BasicDistiller", "MultiTeacherDistiller", "BasicTrainer")
    layers = [x for match in matches if match.feature == "attention" for x in (match.layer_T, match.layer_S)]
    if ignored or not layers or script.adaptors.first == 0:
        return script
    from_zero = 0 in layers
    if script.adaptors.first is None and not from_zero:
        raise UsageError(
            "attention layers may count from 0, as transformers' `attentions` do, or from 1, as in the lists of "
            "TextBrewer's examples, which begin with None: add --attention-from 0 or --attention-from 1"
        )
    if script.adaptors.first == 1 and from_zero:
        raise UsageError("attention layers count from 0, because there is a layer 0: remove --attention-from 1")
    first = 0 if from_zero else script.adaptors.first
    return replace(script, adaptors=replace(script.adaptors, first=first))


# ── which part is which ──────────────────────────────────────────────────────────────────────────────────────────────


def _parts(read: Read, collector: Collector) -> Iterator[_Part]:
    """The parts of a file's value, recognized by their keys."""
    value = read.value
    if read.name in CONFIGS:
        yield _Part(CONFIGS[read.name], read)
    elif _is_list(value):
        yield _Part("matches", read, "" if read.name in ("matches", "intermediate_matches") else read.name)
    elif not isinstance(value, dict):
        message = "expected a configuration: a mapping of settings, or a list of matches"
        collector.add("B020", message, read.place(()), help='write `{"temperature": 8, "intermediate_matches": […]}`')
    elif set(value) & set(_WRAPPED):
        for key in value:
            if key in _WRAPPED:
                yield _Part(_WRAPPED[key], read.part(key))
            else:
                help = suggest(key, _WRAPPED) or f"there are {listing(('distill_config', 'train_config'))}"
                collector.add("B120", f"there is no setting `{key}`", read.key((key,)), help=help)
    elif value and all(_is_list(x) for x in value.values()) and not set(value) & _all_keys():
        yield from (_Part("matches", read.part(key), key) for key in value)
    else:
        yield from _by_keys(read)


def _all_keys() -> set[str]:
    return {key for settings in _KNOWN.values() for key in settings.model_fields}


def _by_keys(read: Read) -> Iterator[_Part]:
    """The settings of both configurations from one mapping; unknown ones go with the others."""
    known = {kind: [k for k in read.value if k in settings.model_fields] for kind, settings in _KNOWN.items()}
    rest = [key for key in read.value if key not in known["distill"] + known["train"]]
    main = "train" if known["train"] and not known["distill"] else "distill"
    for kind, keys in known.items():
        keys = [*keys, *(rest if kind == main else [])]
        if keys or (kind == main and not read.value):
            yield _Part(kind, replace(read, value={key: read.value[key] for key in keys}))


def _is_list(value: Any) -> bool:
    """Whether a value is a list of matches, which may lack keys."""
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(x, dict) and set(x) & set(MatchEntry.model_fields) for x in value)


def _chosen(lists: Sequence[_Part], chosen: Sequence[str]) -> list[_Part]:
    """The lists of matches to convert: the chosen ones, or the only one. Raises `UsageError`."""
    names = {part.name: part for part in lists}
    if missing := [name for name in chosen if name not in names]:
        there = f"there is {listing(names)}" if names else "the files have no lists of matches with names"
        raise UsageError(f"there is no list of matches `{missing[0]}`: {suggest(missing[0], names) or there}")
    if chosen:
        return [names[name] for name in chosen]
    if len(names) > 1:
        raise UsageError(f"there are several lists of matches: choose with --matches, {listing(names)}")
    return list(lists)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _equation_name(name: str) -> str:
    """The name of an equation for a list, which no other statement of the spec has; empty for a list without a name."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    taken = word in KEYWORDS | TAKEN or word[:1].isdigit() or word.startswith(("map", "teacher", "big"))
    return f"matches_{word}" if word and taken else word


def _settled(parts: Sequence[_Part], kind: str, settings: type[SettingsT], collector: Collector) -> SettingsT:
    """The settings of a kind; defaults if the files have none."""
    read = next((part.read for part in parts if part.kind == kind), None)
    settled = settle(settings, read, f"`{settings.__name__}`", collector) if read is not None else None
    return settled if settled is not None else settings()


def _matches(part: _Part, collector: Collector) -> list[MatchEntry]:
    title = part.name or "matches"
    matches = (settle(MatchEntry, part.read.part(i), f"`{title}[{i}]`", collector) for i in range(len(part.read.value)))
    return [match for match in matches if match is not None]
