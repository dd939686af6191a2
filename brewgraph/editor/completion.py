"""What may stand where a cursor is: names, features, modules, calls, arguments, settings, files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from brewgraph.editor.context import Context
from brewgraph.editor.facts import ModelFact
from brewgraph.editor.index import Index, Symbol
from brewgraph.editor.reference import (
    EQUATION,
    SOURCES,
    Option,
    Reference,
    options_of,
    positional,
    train_settings,
)
from brewgraph.explanations import CODES
from brewgraph.ops import PROJECTIONS, TEMPERATURES
from brewgraph.recipe.evaluate.declare import TYPES
from brewgraph.recipe.evaluate.scope import OUTSIDE, Scope
from brewgraph.recipe.features import ROWS, SINGLES
from brewgraph.recipe.recipe import OWN_COLUMNS
from brewgraph.recipe.settings.base import NumberFormat
from brewgraph.recipe.settings.train import GRADIENT_SHARES
from brewgraph.syntax import tree as t
from brewgraph.syntax.mistakes import FORMS

MOST = 1000
"""The most completions in one answer."""
_FILES = ("train", "dev", "test", "path", "folder", "name")
"""Arguments that may be files or folders."""


@dataclass(frozen=True)
class Completion:
    """One word to insert. `page` is the name of the page that explains it; `snippet` if `insert` has `$1` in it."""

    label: str
    kind: str
    detail: str = ""
    insert: str = ""
    snippet: bool = False
    page: str = ""


@dataclass(frozen=True)
class Known:
    """What completions are made from: the names of the text as far as it parses, and what is known of its models."""

    index: Index
    scope: Scope
    models: Mapping[str, ModelFact]
    reference: Reference


def complete(context: Context, known: Known) -> list[Completion]:
    """What may stand here, that begins with the prefix; each word once."""
    words: dict[str, Completion] = {}
    for word in _candidates(context, known):
        begun = word.label.casefold().startswith(context.prefix.casefold()) or context.prefix in word.label
        if (begun or context.in_string or context.in_comment) and word.label not in words and len(words) < MOST:
            words[word.label] = word
    return list(words.values())


def _candidates(c: Context, k: Known) -> Iterator[Completion]:
    if c.in_comment:
        if re.search(r"#\s*brew\s*:\s*ignore(-file)?\s*\[[^\]]*$", c.prefix):
            yield from (Completion(code, "code", line) for code, line in CODES.items() if code.startswith("W"))
    elif c.in_string:
        yield from _in_string(c, k)
    elif c.last == ".":
        yield from _members(c.receiver, k)
    elif not c.statement:
        yield from _beginnings(c, k)
    elif c.block == "train" and len(c.statement) == 2 and c.last == "=":
        yield from _setting(c, k)
    elif c.last == "via":
        yield from (Completion(x, "projection", k.reference.summary(x), page=x) for x in PROJECTIONS)
        yield from _values(k, ("proj",))
    elif c.keyword == "cache" and c.last == "as" and not c.opened:
        yield from (Completion(x, "word") for x in get_args(NumberFormat))
    elif c.keyword == "param" and c.last == ":" and len(c.statement) == 3:
        yield from (Completion(x, "word") for x in TYPES)
    elif c.last == "@":
        yield Completion("input", "word", "what the module is given, instead of its output")
    elif _wants_value(c):
        yield from _expression(c, k)
    else:
        yield from _clauses(c)


def _wants_value(c: Context) -> bool:
    """Whether a value begins here, and no operator or clause must come first."""
    last = c.statement[-1]
    if c.keyword in FORMS and c.keyword != "sample" and "=" not in [x.text for x in c.statement]:
        return False
    return last.kind in ("open", "operator") or last.text in (":", "sample") or last.text == "~"


def _clauses(c: Context) -> Iterator[Completion]:
    """The words that may follow a value or a name."""
    texts = [x.text for x in c.statement]
    if c.keyword == "stage" and len(texts) == 2:
        yield Completion("for", "word", "the length of the stage", "for ${1:3} epochs {\n    $0\n}", True)
    elif c.keyword == "cache" and "at" in texts:
        yield from (Completion(x, "word") for x in ("as", "limit"))
    elif c.keyword == "cache":
        yield Completion("at", "word", "the folder that keeps the value", 'at "$1"', True)
    elif c.keyword == "import":
        yield Completion("as", "word", "the name of the import here")
    elif "=" in texts and c.keyword not in ("teacher", "student", "data", "head", "param"):
        yield Completion("via", "word", "projects the side of an arrow: `x via linear`")


# ── statements and settings ──────────────────────────────────────────────────────────────────────────────────────────


def _beginnings(c: Context, k: Known) -> Iterator[Completion]:
    """The words that may begin a statement here."""
    if c.block == "train":
        yield from (Completion(o.name, "setting", _detail(o), f"{o.name} = ", page="train") for o in train_settings())
    elif c.block in ("teacher", "student"):
        yield Completion("head", "keyword", FORMS["head"], "head ${1:name} = $0", True)
    else:
        home = c.block or "spec"
        closed = {word for word, homes in OUTSIDE.values() if home not in homes} - {"cache"}
        for word in FORMS:
            if word not in closed and not (word == "brew" and c.block):
                yield Completion(word, "keyword", FORMS[word], *_FORMS_TO_FILL.get(word, (f"{word} ", False)))
        if "loss" not in k.scope.places:
            yield Completion("loss", "value", "what is trained", "loss = ")


_FORMS_TO_FILL: Mapping[str, tuple[str, bool]] = {
    "brew": ("brew 1", False),
    "import": ('import "$1" as ${2:lib}', True),
    "param": ("param ${1:T} = ${2:4}", True),
    "let": ("let ${1:map} = $0", True),
    "teacher": ('teacher ${1:big} = ${2:hf}("$3")', True),
    "student": ('student ${1:tiny} = ${2:hf}("$3")', True),
    "data": ('data ${1:d} = ${2:files}(train="$3", batch=${4:32})', True),
    "tap": ('tap ${1:t} = ${2:big} @ "$3"', True),
    "proj": ("proj ${1:W} = linear(${2:312} -> ${3:768})", True),
    "cache": ('cache ${1:kept} = $2 at "${3:cache}"', True),
    "sample": ("sample [$1] ~ ${2:size}", True),
    "task": ("task ${1:name} {\n    $0\n}", True),
    "stage": ("stage ${1:name} for ${2:3} epochs {\n    $0\n}", True),
    "train": ("train {\n    $0\n}", True),
}
"""The statements as they are inserted, with places to fill in."""


def _setting(c: Context, k: Known) -> Iterator[Completion]:
    """The values of a setting of `train { }`."""
    name = c.keyword
    if name in ("optimizer", "schedule"):
        yield from _calls(SOURCES[name], k)
    option = next((o for o in train_settings() if o.name == name), None)
    if option is not None:
        yield from _option_values(option)
    if name in ("freeze", "report"):
        yield Completion("[]", "word", option.text if option else "", "[$0]", True)
    yield from _values(k, ("param", "let"))


def _option_values(option: Option) -> Iterator[Completion]:
    yield from (Completion(word, "word", option.text) for word in option.words)
    if option.default and option.default not in option.words and option.default not in ("none", "[]"):
        yield Completion(option.default, "word", f"the default. {option.text}")


def _detail(option: Option) -> str:
    return f"{option.text} (default: {option.default})" if option.default not in ("", "none") else option.text


# ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _expression(c: Context, k: Known) -> Iterator[Completion]:
    callee, role = c.callee, c.role
    if c.opened and c.argument_name:
        yield from _argument_values(c, k)
        return
    if not c.opened and c.last == "=" and c.keyword in SOURCES:
        yield from _calls(SOURCES[c.keyword], k)
        if c.keyword == "data":
            yield from _values(k, ("data",))
        return
    if not c.opened and c.last == "=" and c.keyword == "proj":
        yield from _calls(dict.fromkeys(PROJECTIONS), k, "projection")
        return
    if c.keyword == "sample":
        yield from _values(k, ("task",))
        yield from (Completion(x, "word") for x in ("size", "batches") if "~" in [p.text for p in c.statement])
        return
    if callee and c.last in ("(", ","):
        written = {a.text for a, b in zip(c.inner, c.inner[1:], strict=False) if b.text == "="}
        own = next((s for s in k.index.functions(k.scope) if s.name == callee), None)
        options = _parameters(own) if own is not None else options_of(callee, role)
        for option in options:
            if option.name not in written:
                yield Completion(f"{option.name}=", "option", _detail(option), page=callee if own is None else "")
        if (place := positional(callee, role, c.argument_place)) is not None:
            yield from _option_values(place)
        if role in SOURCES and callee in SOURCES[role]:
            return
    if c.block == "train" and c.keyword in ("freeze", "report"):
        yield from _values(k, None)
        if c.keyword == "report":
            yield Completion(GRADIENT_SHARES, "word", "each term's share of the gradient on the student, at logging")
        return
    yield from _values(k, None)
    yield from _functions(k)


def _parameters(own: Symbol) -> list[Option]:
    assert isinstance(own.statement, t.Function)
    return [
        Option(p.name, "a parameter", p.default.span.text if p.default is not None else "")
        for p in own.statement.parameters
    ]


def _argument_values(c: Context, k: Known) -> Iterator[Completion]:
    """The values of a named argument."""
    name = c.argument_name
    if name in SOURCES and name not in ("teacher", "student", "data", "head"):
        yield from _calls(SOURCES[name], k)
    if name == "T":
        yield from _calls(dict.fromkeys(TEMPERATURES), k, "function")
    option = next((o for o in options_of(c.callee, c.role) if o.name == name), None)
    if option is not None:
        yield from _option_values(option)
    kinds = {
        "over": ("let",),
        "init": ("teacher", "student"),
        "model": ("student",),
        "tokenizer": ("teacher", "student"),
    }
    yield from _values(k, kinds.get(name, ("param", "let", "parameter", "data") if option is not None else None))


def _values(k: Known, kinds: Iterable[str] | None) -> Iterator[Completion]:
    """Names that can be said here, of these kinds of statements."""
    for symbol in k.index.visible(k.scope):
        if kinds is None or symbol.kind in tuple(kinds):
            yield _named(symbol)


def _named(symbol: Symbol) -> Completion:
    text = " ".join(symbol.statement.span.text.split("\n")[0].split())
    kind = {"param": "constant", "let": "constant", "teacher": "model", "student": "model", "data": "data"}
    return Completion(symbol.name, kind.get(symbol.kind, "value"), text)


def _functions(k: Known) -> Iterator[Completion]:
    for symbol in k.index.functions(k.scope):
        yield Completion(symbol.name, "function", symbol.statement.span.text.split("\n")[0], f"{symbol.name}($0)", True)
    yield from _calls(dict.fromkeys(name for name in EQUATION if ":" not in name), k, "function")


def _calls(names: Mapping[str, object], k: Known, kind: str = "function") -> Iterator[Completion]:
    yield from (Completion(x, kind, k.reference.summary(x), f"{x}($0)", True, page=x) for x in names)


# ── members ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _members(receiver: tuple[str, ...], k: Known) -> Iterator[Completion]:
    """What may follow the `.` behind a model, a data set, a task, an import."""
    scope, symbol = k.scope, None
    for i, name in enumerate(receiver):
        homes = scope.outward() if i == 0 else [scope]
        home = next((s for s in homes if k.index.find(s, name) is not None), None)
        if home is None:
            module = next((s.modules[name] for s in scope.outward() if name in s.modules), {}) if i == 0 else {}
            yield from (Completion(x, "function", d.summary, f"{x}($0)", True) for x, d in module.items())
            if symbol is None or not isinstance(symbol.statement, t.Model):
                return
            yield from (Completion(x, "feature", kind) for x, kind in SINGLES.items() if x != "embeddings")
            return
        symbol, scope = k.index.find(home, name), home.inner.get(name, home)
    if symbol is None:
        return
    match symbol.statement:
        case t.Model():
            yield from _features(symbol, k)
        case t.Data():
            yield from (Completion(x, "feature", "a column of the data") for x in sorted(OWN_COLUMNS))
        case t.Task() | t.Stage() | t.Import():
            yield from (_named(s) for name in scope.places if (s := k.index.find(scope, name)) and s.kind != "import")
            for name, function in scope.functions.items():
                yield Completion(name, "function", function.span.text.split("\n")[0], f"{name}($0)", True)
            for name, declared in k.index.root.modules.get(symbol.name, {}).items():
                yield Completion(name, "function", declared.summary, f"{name}($0)", True)
        case t.Let() as s if isinstance(s.value, t.Arrow):
            yield from (Completion(x, "feature", "a column of the layer map") for x in ("from", "to"))
        case t.Let():
            yield from (Completion(x, "feature", kind) for x, kind in {**SINGLES, **ROWS}.items())


def _features(symbol: Symbol, k: Known) -> Iterator[Completion]:
    """The features and heads of a model: those that it has, or all where nothing is known of it."""
    assert isinstance(symbol.statement, t.Model)
    for head in symbol.statement.block.statements if symbol.statement.block is not None else ():
        if isinstance(head, t.Head):
            yield Completion(head.name, "feature", head.span.text)
    fact = k.models.get(".".join((*symbol.path, symbol.name)))
    if fact is None:
        yield from (Completion(x, "feature", kind) for x, kind in {**SINGLES, **ROWS}.items())
    else:
        for name, count, shape in fact.features:
            row = f"[0] to [{count - 1}] " if count else ""
            yield Completion(name, "feature", f"{row}{shape}", f"{name}[$0]" if count else name, bool(count))
    yield Completion("layers", "feature", "layers to start another model from: `init=bert.layers[0, 4, 8]`")


# ── strings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _in_string(c: Context, k: Known) -> Iterator[Completion]:
    if re.search(r"\{\w*$", c.prefix):
        yield from (
            Completion(s.name, "constant", s.statement.span.text) for s in k.index.visible(k.scope) if s.kind == "param"
        )
        return
    if c.last in ("@", "input"):
        yield from _modules(c, k)
        return
    option = None
    if c.callee:
        place = positional(c.callee, c.role, c.argument_place) if not c.argument_name else None
        options = options_of(c.callee, c.role)
        option = place or next((o for o in options if o.name == c.argument_name), None)
        if option is not None and option.words:
            yield from (Completion(word.strip('"'), "word", option.text) for word in option.words)
            return
    is_path = c.keyword == "import" or c.last == "at" or (option is not None and option.name in _FILES)
    if is_path or (c.callee and option is None):
        yield from _paths(c, k)


def _modules(c: Context, k: Known) -> Iterator[Completion]:
    """The modules of the model before the `@`, below the part that is written."""
    at = next((i for i in range(len(c.statement) - 1, -1, -1) if c.statement[i].text == "@"), 0)
    model = c.statement[at - 1].text if at else ""
    fact = k.models.get(model)
    if fact is None:
        return
    begun = c.prefix.rpartition(".")[0]
    base = f"{fact.base}." if fact.base and not c.prefix.startswith(fact.base) else ""
    for path, kind, shape in fact.modules:
        short = path.removeprefix(base)
        if short.startswith(c.prefix) or (begun and short.startswith(begun)) or c.prefix in short:
            yield Completion(short, "module", f"{kind} {shape}")


def _paths(c: Context, k: Known) -> Iterator[Completion]:
    """Files and folders below the part of a path that is written."""
    folder, _, name = c.prefix.rpartition("/")
    start = "/" if c.prefix.startswith("/") and not folder else folder
    specs = c.keyword == "import" or c.callee == "brew"
    try:
        here = (k.index.source.folder / start).expanduser()
        entries = sorted(here.iterdir(), key=lambda p: p.name)[:MOST]
        for path in entries:
            if path.name.startswith(".") and not name.startswith("."):
                continue
            if path.is_dir():
                yield Completion(path.name, "folder", insert=f"{path.name}/")
            elif not specs or path.suffix == ".brew":
                yield Completion(path.name, "file")
    except (OSError, ValueError, RuntimeError):
        return
