"""`convert`: files of TextBrewer to a spec, or every fault that is in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from brewgraph.checking.check import check_names
from brewgraph.convert.config import DistillationConfig, MatchEntry, TextBrewerSettings, TrainingConfig, settle
from brewgraph.convert.config_files import Read, read_values
from brewgraph.convert.notes import Note
from brewgraph.convert.scripts import CONFIGS, distillers_called, read_from_files
from brewgraph.convert.spec_text import TAKEN, Configuration, Script, is_empty, write_spec
from brewgraph.diagnostics import Collector, UsageError, listing, suggest
from brewgraph.lints.subject import Subject
from brewgraph.lints.weights import find_unscaled_targets
from brewgraph.source import Source
from brewgraph.syntax.parser import KEYWORDS

_WRAPPED = {
    "distill_config": "distill", "distillation_config": "distill", "train_config": "train", "training_config": "train",
}  # fmt: skip
_KNOWN: dict[str, type[TextBrewerSettings]] = {"distill": DistillationConfig, "train": TrainingConfig}


@dataclass(frozen=True)
class _Part:
    """A piece of a configuration: `distill`, `train`, or `matches`, a list that may have a name."""

    kind: str
    read: Read
    name: str = ""


@dataclass(frozen=True)
class Converted:
    """A spec that is formatted, and what there is to say about it."""

    text: str
    notes: tuple[Note, ...]


def convert(
    sources: Sequence[Source], script: Script, chosen: Sequence[str] = (), *, supervised: bool | None = None
) -> Converted:
    """One spec from one or more files: a distillation, a training configuration, lists of matches.

    `chosen` are the lists of matches to take, by their names. `supervised` None: a file with nothing but settings of
    training is one of BasicTrainer. Raises `SpecError` with every fault of the files, `UsageError` where they do not
    say what is meant.
    """
    collector = Collector()
    parts = [part for source in sources for read in read_values(source, collector) for part in _parts(read, collector)]
    collector.raise_errors()
    if supervised is None:
        script, supervised = _as_called(sources, script)
    _demand_what_is_read([part.kind for part in parts], sources)
    for kind in _KNOWN:
        if len(found := [part for part in parts if part.kind == kind]) > 1:
            places = " and ".join(f"{p.read.place(()).source.name}:{p.read.place(()).position[0]}" for p in found)
            raise UsageError(f"there are several configurations of one kind, in {places}: leave one of them")
    lists = _chosen([part for part in parts if part.kind == "matches"], chosen)
    distill = _settled(parts, "distill", DistillationConfig, collector)
    train = _settled(parts, "train", TrainingConfig, collector)
    own = [("", match) for match in distill.intermediate_matches or ()]
    named = [(_spelled(part.name), match) for part in lists for match in _matches(part, collector)]
    collector.raise_errors()
    if supervised or (supervised is None and not lists and all(part.kind == "train" for part in parts)):
        script = replace(script, distiller="BasicTrainer")
    matches = (*own, *named)
    script = _with_first(script, [match for _, match in matches])
    given = frozenset(key for part in parts if part.kind == "train" for key in part.read.value)
    name = ", ".join(source.name.replace("\\", "/").rpartition("/")[2] for source in sources)
    configuration = Configuration(name, distill, train, given, matches)
    if is_empty(configuration, script):
        raise UsageError("every weight of the loss is zero, so that there is nothing to train: correct one of them")
    text, notes = write_spec(configuration, script)
    return Converted(_as_meant(text), notes)


def _modules(sources: Sequence[Source]) -> Iterator[tuple[Source, ast.Module]]:
    """The files that are Python."""
    for source in sources:
        try:
            yield source, ast.parse(source.text)
        except (SyntaxError, ValueError, RecursionError):
            continue


def _as_called(sources: Sequence[Source], script: Script) -> tuple[Script, bool | None]:
    """The distiller that a script calls, where nobody has named one, and whether it trains without a teacher.

    Raises `UsageError` where it calls several, or one of which more has to be said.
    """
    found = {name: source for source, module in _modules(sources) for name in distillers_called(module)}
    if not found:
        return script, None
    if len(found) > 1:
        named = listing(found)
        raise UsageError(f"the script calls {named}: say which one is meant, --distiller {next(iter(found))}")
    (name,) = found
    more = {"MultiTeacherDistiller": " --teachers 2", "MultiTaskDistiller": " --task ner --task qa"}.get(name)
    if more is not None:
        raise UsageError(f"{found[name].name} calls {name}: say --distiller {name}{more}")
    return replace(script, distiller=name), name == "BasicTrainer"  # type: ignore[arg-type]


def _demand_what_is_read(kinds: Sequence[str], sources: Sequence[Source]) -> None:
    """Ask for the files that a script reads a configuration from, unless they are there. Raises `UsageError`."""
    for source, module in _modules(sources):
        for name, node in read_from_files(module):
            if CONFIGS[name] not in kinds:
                place = f"{source.name}:{getattr(node, 'lineno', 1)}"
                raise UsageError(f"{place} reads a {name} from a file: name that file, too, after this one")


def _as_meant(text: str) -> str:
    """The spec with a word where a term has no factor T²: TextBrewer has none, and a check would warn of it."""
    open_params = re.findall(r"^param (\w+)$", text, re.MULTILINE)
    recipe = check_names(Source(text), dict.fromkeys(open_params, "given later"))
    found = find_unscaled_targets(Subject(recipe, {}, lambda model, feature: None))
    lines = text.splitlines()
    for row in sorted({d.span.source.position(d.span.start)[0] for d in found}, reverse=True):
        line, word = lines[row - 1], "# brew: ignore[W213] TextBrewer has no T²"
        behind = f"{line}    {word}"
        indent = " " * (len(line) - len(line.lstrip()))
        lines[row - 1 : row] = [behind] if len(behind) <= 120 else [f"{indent}{word}", line]
    return "\n".join(lines) + "\n"


def _with_first(script: Script, matches: Sequence[MatchEntry]) -> Script:
    """The script with where its attention layers begin to count, which a layer 0 tells. Raises `UsageError`."""
    ignored = script.distiller in ("BasicDistiller", "MultiTeacherDistiller", "BasicTrainer")
    layers = [x for match in matches if match.feature == "attention" for x in (match.layer_T, match.layer_S)]
    if ignored or not layers or script.adaptors.first == 0:
        return script
    from_zero = 0 in layers
    if script.adaptors.first is None and not from_zero:
        raise UsageError(
            "attention layers may count from 0, as transformers' `attentions` do, or from 1, as in the lists of "
            "TextBrewer's examples, which begin with None: say --attention-from 0 or --attention-from 1"
        )
    if script.adaptors.first == 1 and from_zero:
        raise UsageError("there is an attention layer 0, so that they count from 0: leave --attention-from 1 out")
    first = 0 if from_zero else script.adaptors.first
    return replace(script, adaptors=replace(script.adaptors, first=first))


# ── which part is which ──────────────────────────────────────────────────────────────────────────────────────────────


def _parts(read: Read, collector: Collector) -> Iterator[_Part]:
    """The parts in a value of a file, told by their keys."""
    value = read.value
    if read.name in CONFIGS:
        yield _Part(CONFIGS[read.name], read)
    elif _is_list(value):
        yield _Part("matches", read, "" if read.name in ("matches", "intermediate_matches") else read.name)
    elif not isinstance(value, dict):
        message = "this is no configuration: a mapping of settings, or a list of matches, is wanted"
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
    """The settings of both configurations from one mapping; those that neither knows go where the others go."""
    own = {kind: [k for k in read.value if k in settings.model_fields] for kind, settings in _KNOWN.items()}
    rest = [key for key in read.value if key not in own["distill"] + own["train"]]
    main = "train" if own["train"] and not own["distill"] else "distill"
    for kind, keys in own.items():
        keys = [*keys, *(rest if kind == main else [])]
        if keys or (kind == main and not read.value):
            yield _Part(kind, replace(read, value={key: read.value[key] for key in keys}))


def _is_list(value: Any) -> bool:
    """Whether it is a list of matches, which may lack some of their keys."""
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(x, dict) and set(x) & set(MatchEntry.model_fields) for x in value)


def _chosen(lists: Sequence[_Part], chosen: Sequence[str]) -> list[_Part]:
    """The lists of matches to take: those that are named, or the only one. Raises `UsageError`."""
    names = {part.name: part for part in lists}
    if missing := [name for name in chosen if name not in names]:
        there = f"there is {listing(names)}" if names else "the files have no lists of matches with names"
        raise UsageError(f"there is no list of matches `{missing[0]}`: {suggest(missing[0], names) or there}")
    if chosen:
        return [names[name] for name in chosen]
    if len(names) > 1:
        raise UsageError(f"there are several lists of matches: choose by --matches, {listing(names)}")
    return list(lists)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _spelled(name: str) -> str:
    """A list's name as that of an equation, which no other statement of the spec has; empty for a list without one."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    taken = word in KEYWORDS | TAKEN or word[:1].isdigit() or word.startswith(("map", "teacher", "big"))
    return f"matches_{word}" if word and taken else word


def _settled(parts: Sequence[_Part], kind: str, settings: Any, collector: Collector) -> Any:
    """The settings of a kind, with their defaults where the files have none."""
    read = next((part.read for part in parts if part.kind == kind), None)
    found = settle(settings, read, f"`{settings.__name__}`", collector) if read is not None else None
    return found if found is not None else settings()


def _matches(part: _Part, collector: Collector) -> list[MatchEntry]:
    found = [
        settle(MatchEntry, part.read.part(i), f"`{part.name or 'matches'}[{i}]`", collector)
        for i in range(len(part.read.value))
    ]
    return [match for match in found if match is not None]
