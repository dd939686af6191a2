"""The files of a TextBrewer configuration: values with their places, and settings with names, defaults and types.

A file is JSON or Python, of which nothing is executed: a single literal, or a module with named literals (`matches.py`
of TextBrewer's examples) and calls of `DistillationConfig(…)` and `TrainingConfig(…)`. A name in Python has a value
only if it is bound once in the whole file and nothing changes that value. To change a configuration after it is made is
a fault: the change would be lost.
"""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from brewgraph.diagnostics import Collector, UsageError, listing, suggest
from brewgraph.source import Source, Span
from brewgraph.syntax.foreign import instead

Path = tuple[str | int, ...]
"""Keys and positions, from the outside in."""

CONFIGS = {"DistillationConfig": "distill", "TrainingConfig": "train"}
DISTILLERS = ("GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer")
_CHANGES = frozenset({
    "append", "extend", "insert", "update", "pop", "popitem", "remove", "clear", "setdefault", "sort", "reverse",
    "__setitem__",
})  # fmt: skip
_CALLS = (*CONFIGS, "dict")
_PLACES = ("output_dir", "log_dir", "device", "local_rank")
"""Settings without a counterpart in a spec, whose values may be computed."""
_JSON_WORDS = {"true": True, "false": False, "null": None}
_SAMPLE = 'write `{"temperature": 8, "intermediate_matches": […]}`, as JSON or as a Python literal'


@dataclass(frozen=True)
class Read:
    """A value of a file, at the path `base` in a larger one, of whose parts `values` and `keys` are the places by path.
    `name` is that of the variable or call that it is given to, empty if the file is nothing but this value.
    """

    value: Any
    values: Mapping[Path, Span]
    keys: Mapping[Path, Span]
    name: str = ""
    base: Path = ()

    def place(self, path: Path) -> Span:
        """The place of the value at a path, or else of what would contain it."""
        path = (*self.base, *path)
        while path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key(self, path: Path) -> Span:
        """The place of the last key of a path."""
        return self.keys.get((*self.base, *path)) or self.place(path)

    def part(self, step: str | int) -> Read:
        """The part under a key or at a position, as a value of its own."""
        return Read(self.value[step], self.values, self.keys, str(step), (*self.base, step))


def read_values(source: Source, collector: Collector) -> tuple[Read, ...]:
    """The values of a file with their names; none, with diagnostics, if it cannot be read."""
    whole = Span(source, 0, len(source.text.rstrip()))
    if not source.text.strip():
        collector.add("B020", "the file is empty", Span(source, 0, 1), help=_SAMPLE)
        return ()
    try:
        value = json.loads(source.text)
    except json.JSONDecodeError as error:
        if source.name.endswith(".json") and python_module(source) is None:
            place = Span(source, error.pos, error.pos + 1)
            help = "a comma or quotation mark is missing or superfluous: correct it, or write a Python literal"
            if source.text[error.pos : error.pos + 2] in ("//", "/*"):
                help = "JSON has no comments: remove it"
            collector.add("B020", f"this is not JSON: {error.msg}", place, help=help)
            return ()
        return _read_python(source, whole, collector)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists a thousand deep
        collector.add("B020", f"this cannot be read: {error}", whole, help=_SAMPLE)
        return ()
    reader = _Reader(source, Names({}), Collector())
    try:
        # brackets allow leading blanks; the reader corrects the places
        node = ast.parse(f"({source.text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (Read(value, {(): whole}, {}),)
    reader.before = 1
    reader.read(node, ())
    collector.diagnostics += [d for d in reader.collector.diagnostics if d.code == "B125"]
    return (Read(value, {(): whole} | reader.values, reader.keys),)


def python_module(source: Source) -> ast.Module | None:
    """The syntax tree of a Python file; None if it is not Python."""
    try:
        return ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _read_python(source: Source, whole: Span, collector: Collector) -> tuple[Read, ...]:
    try:
        module = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = min(getattr(error, "lineno", None) or 1, source.text.count("\n") + 1)
        start = _start_of(source.text, line) + max(0, (getattr(error, "offset", None) or 1) - 1)
        help = f"correct it; {_SAMPLE}"
        message = f"this is neither JSON nor Python: {getattr(error, 'msg', error)}"
        collector.add("B020", message, Span(source, start, start + 1), help=help)
        return ()
    names = names_of(module)
    at = _Reader(source, names, collector)
    for place in changed_configurations(module):
        message = f"`{at.span(place).text}` changes a configuration after it is made, but no code is executed here"
        help = "write the value into the call that makes it"
        collector.add("B122", message, at.span(place), help=help)
    literals = list(_literals(module, names))
    if not literals:
        message = "the file contains no configuration"
        collector.add("B020", message, Span(source, 0, max(1, whole.end)), help=_SAMPLE)
    read = []
    for name, node in literals:
        reader, before = _Reader(source, names, collector), len(collector.diagnostics)
        value = reader.read(node, ())
        if value is not None or len(collector.diagnostics) == before:
            read.append(Read(value, reader.values, reader.keys, name))
    return tuple(read)


def _start_of(text: str, line: int) -> int:
    """The offset of a line, counted from 1."""
    return sum(len(before) + 1 for before in text.split("\n")[: line - 1])


def _literals(module: ast.Module, names: Names) -> Iterator[tuple[str, ast.expr]]:
    """The configurations in a module: a single literal, or calls of the two classes and named literals."""
    if len(module.body) == 1 and isinstance(alone := module.body[0], ast.Expr) and not any(configurations(module)):
        yield ("", alone.value)
        return
    calls = list(configurations(module))
    yield from calls
    used = {name.id for _, call in calls for name in ast.walk(call) if isinstance(name, ast.Name)}
    named = {name: (node, value) for node in module.body for name, value in assigned(node)}
    for name, (node, value) in named.items():
        if name not in used and isinstance(value, ast.Dict | ast.List | ast.BinOp):
            yield (name, ast.copy_location(ast.Name(name), node) if name in names.changed else value)


class _Reader:
    """Reads one value with the places of its parts; `before` counts characters added before the text."""

    def __init__(self, source: Source, names: Names, collector: Collector):
        self.source, self.names, self.collector = source, names, collector
        self.values: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}
        self.before = 0
        self._following: list[str] = []

    def read(self, node: ast.expr, path: Path, first: int = 0) -> Any:
        """The value of a node; None, with a diagnostic, if it is not a literal. Members of lists count from `first`."""
        self.values.setdefault(path, self.span(node))
        match node:
            case ast.Dict():
                return self._mapping(zip(node.keys, node.values, strict=True), path)
            case ast.Call() if called(node) in _CALLS and not node.args:
                return self._mapping([(k, k.value) for k in node.keywords], path)
            case ast.List():
                return [self.read(item, (*path, i)) for i, item in enumerate(node.elts, first)]
            case ast.Tuple():
                return tuple(self.read(item, (*path, i)) for i, item in enumerate(node.elts))
            case ast.Name() if node.id in _JSON_WORDS:
                return _JSON_WORDS[node.id]
            case ast.Name() if node.id in self.names.values and node.id not in self._following:
                self._following.append(node.id)
                value = self.read(self.names.values[node.id], path, first)
                self._following.pop()
                return value
            case ast.Name() if node.id in self.names.changed:
                message = f"`{node.id}` has several values in this file, or is changed, but no code is executed here"
                help = "write the value itself where the configuration is made"
                self.collector.add("B122", message, self.span(node), help=help)
                return None
            case ast.BinOp(op=ast.Add()):
                left = self.read(node.left, path, first)
                right = self.read(node.right, path, first + len(left) if isinstance(left, list) else 0)
                if isinstance(left, list) and isinstance(right, list):
                    return left + right
                self.collector.add("B122", "`+` joins only lists", self.span(node), help="write the value itself")
                return None
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            if path and path[-1] in _PLACES:
                return self.span(node).text
            message = f"`{self.span(node).text}` is not a literal, and no code is executed here"
            help = "write the value itself: a number, a text in quotes, true or false, a list"
            self.collector.add("B122", message, self.span(node), help=help)
            return None

    def _mapping(self, items: Iterable[tuple[ast.expr | ast.keyword | None, ast.expr]], path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in items:
            name = key.arg if isinstance(key, ast.keyword) else getattr(key, "value", None)
            if key is None or not isinstance(name, str):
                place, help = self.span(key or value), 'write `"temperature": 8`'
                self.collector.add("B122", "a key must be a quoted text", place, help=help)
                continue
            at = (*path, name)
            if name in mapping:
                self.collector.add("B125", f"`{name}` is given twice", self.span(key), help="remove one of them")
            self.keys[at] = self.span(key, len(name) if isinstance(key, ast.keyword) else None)
            mapping[name] = self.read(value, at)
        return mapping

    def span(self, node: ast.expr | ast.keyword, width: int | None = None) -> Span:
        """The place of a node."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return Span(self.source, start, end if width is None else start + width)

    def _offset(self, line: int, column: int) -> int:
        """An offset in the text from Python's line, counted from 1, and column in bytes of UTF-8."""
        before = self.before if line == 1 else 0
        start = _start_of(self.source.text, line)
        text = self.source.line(line).encode()
        return start + len(text[: column - before].decode(errors="ignore"))


# ── Python that is read and not run ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Names:
    """The names of a file: `values` of those with a single one, and names that are bound or `changed` several times."""

    values: Mapping[str, ast.expr]
    changed: frozenset[str] = frozenset()


def names_of(module: ast.Module) -> Names:
    """The names that a file assigns."""
    nodes = list(ast.walk(module))
    values = dict(pair for node in nodes for pair in assigned(node))
    bound = Counter(name for node in nodes for name in _bound(node))
    changed = {name for name in values if bound[name] > 1} | {base for node in nodes for base in _changed(node)}
    constant = {name: value for name, value in values.items() if name not in changed}
    return Names(constant, frozenset(changed & values.keys()))


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement assigns, with the value."""
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield (node.target.id, node.value)


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a node binds: a variable, an argument, a function, an import."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.AugAssign(target=ast.Name(id=name)):
            yield name
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=other):
            yield other or name


def _changed(node: ast.AST) -> Iterator[str]:
    """The name whose value a node mutates: `a[0] = 1`, `a["x"]["y"] = 1`, `a.append(1)`."""
    match node:
        case ast.Subscript(ctx=ast.Store() | ast.Del()):
            inside: ast.AST = node
        case ast.Call(func=ast.Attribute(value=inside, attr=attr)) if attr in _CHANGES:
            pass
        case _:
            return
    while isinstance(inside, ast.Subscript):
        inside = inside.value
    if isinstance(inside, ast.Name):
        yield inside.id


def called(node: ast.AST) -> str:
    """The name of the class or function that a node calls, without its path."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def configurations(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The configurations that a file creates: calls of `DistillationConfig(…)`, and arguments of its `from_dict`."""
    for node in ast.walk(module):
        if called(node) in CONFIGS and isinstance(node, ast.Call):
            yield (called(node), node)
        elif name := _constructed(node, "from_dict"):
            assert isinstance(node, ast.Call)
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if len(arguments) == 1:
                yield (name, arguments[0])


def _constructed(node: ast.AST, how: str) -> str:
    """The class of the configuration that `CONFIG.how(…)` creates; empty for any other node."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=attr)) if attr == how:
            return name if name in CONFIGS else ""
    return ""


def distillers_called(sources: Sequence[Source]) -> dict[str, Source]:
    """The distillers and trainers that scripts call, each with a file that does."""
    modules = ((source, module) for source in sources if (module := python_module(source)) is not None)
    called_in = ((called(node), source) for source, module in modules for node in ast.walk(module))
    return {name: source for name, source in called_in if name in DISTILLERS}


def changed_configurations(module: ast.Module) -> Iterator[ast.Attribute]:
    """Where a script sets an attribute of an existing configuration: `config.temperature = 4`."""
    values = [pair for node in ast.walk(module) for pair in assigned(node)]
    read = ("from_dict", "from_json_file")
    made = {name for name, value in values if called(value) in CONFIGS or any(_constructed(value, x) for x in read)}
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id=base), ctx=ast.Store()) if base in made:
                yield node
            case ast.Attribute(value=ast.Attribute(attr="d_config" | "t_config"), ctx=ast.Store()):
                yield node


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


SettingsT = TypeVar("SettingsT", bound="TextBrewerSettings")
Feature = Literal["hidden", "attention"]
Loss = Literal[
    "attention_mse", "attention_mse_sum", "attention_ce", "attention_ce_mean",
    "hidden_mse", "cos", "pkd", "fsp", "gram", "nst", "mmd",
]  # fmt: skip
PAIRED = frozenset({"fsp", "gram", "nst", "mmd"})
"""Losses between two layers of each side."""


class TextBrewerSettings(BaseModel):
    """Base of the parts of a configuration: unknown names are faults, and 1 is not a truth value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _layers(value: Any) -> Any:
    two = isinstance(value, list | tuple)
    items = list(value) if two else [value]
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in items)
    if not whole or len(items) != (2 if two else 1):
        raise ValueError(
            "a layer is an integer, for `fsp` and `nst` a list of two: write 4 or [4, 4], and a match for each pair"
        )
    return tuple(items) if two else value


def _projection(value: Any) -> Any:
    if not value:
        return None
    kind, *sizes = value if isinstance(value, list | tuple) else [value]
    options = sizes.pop() if sizes and isinstance(sizes[-1], dict) else {}
    whole = [isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in sizes]
    if whole != [True, True]:
        raise ValueError("a projection is written [\"linear\", 384, 768]: its name, the student's width, the teacher's")
    if kind not in ("linear", "relu", "tanh"):
        help = suggest(str(kind), ("linear", "relu", "tanh")) or "use `linear`, `relu` or `tanh`"
        raise ValueError(f"there is no projection `{kind}`: {help}")
    kept = {name: options[name] for name in ("lr", "weight_decay") if name in options}
    if not all(_is_number(x) and x >= 0 for x in kept.values()):
        raise ValueError("the learning rate and weight decay of a projection must not be negative")
    others = tuple(str(name) for name in options if name not in kept)
    pairs = tuple((name, float(x)) for name, x in kept.items())
    return ProjectionEntry(kind=kind, into=sizes[0], out=sizes[1], options=pairs, others=others)


class ProjectionEntry(TextBrewerSettings):
    """`["linear", 384, 768, {"lr": 1e-3}]`: from the student's width to the teacher's.

    `options` are optimizer settings that a spec has, `others` the names of those that it lacks.
    """

    kind: Literal["linear", "relu", "tanh"]
    into: int
    out: int
    options: tuple[tuple[str, float], ...] = ()
    others: tuple[str, ...] = ()


Layers = Annotated[int | tuple[int, int], BeforeValidator(_layers)]


class MatchEntry(TextBrewerSettings):
    """One member of `intermediate_matches`."""

    layer_T: Layers = Field(description="the teacher's layer: 4, for `fsp` and `nst` two: [4, 4]")
    layer_S: Layers = Field(description="the student's layer: 1, for `fsp` and `nst` two: [1, 1]")
    feature: Feature = Field(description="hidden or attention")
    loss: Loss = Field(description="a loss by its name")
    weight: float = Field(description="a number: how much the loss counts")
    proj: Annotated[ProjectionEntry | None, BeforeValidator(_projection)] = Field(
        default=None, description='left out, or ["linear", 384, 768]'
    )

    @model_validator(mode="after")
    def _fits(self) -> MatchEntry:
        """Faults that TextBrewer would find at the first batch."""
        about = self.loss.startswith("attention")
        if about != (self.feature == "attention"):
            takes = "attention" if about else "hidden"
            raise ValueError(f'`{self.loss}` compares {takes}: write "feature": "{takes}", or choose another loss')
        two = [isinstance(layer, tuple) for layer in (self.layer_T, self.layer_S)]
        if two != [self.loss in PAIRED] * 2:
            count, sample = ("two layers", "[4, 4]") if self.loss in PAIRED else ("one layer", "4")
            help = f'write "layer_T": {sample}, "layer_S": {sample}, and a match for each such pair'
            raise ValueError(f"`{self.loss}` takes {count} of each model: {help}")
        if self.proj is not None and about:
            raise ValueError("a projection maps hidden states, got attention: leave `proj` out")
        return self


class TemperatureEntry(TextBrewerSettings):
    """A temperature of its own for each example: `flsw` or `cwsm`."""

    name: Literal["flsw", "cwsm"]
    beta: float
    gamma: float = 1.0
    eps: float = 1e-4


def _temperature(value: Any) -> Any:
    if value in (None, "none", "constant"):
        return None
    name, *arguments = value if isinstance(value, list | tuple) and value else [value]
    wanted = {"flsw": ("beta", "gamma", "eps"), "cwsm": ("beta",)}.get(name if isinstance(name, str) else "")
    if wanted is None:
        help = suggest(str(name), ("none", "constant", "flsw", "cwsm")) or "use none, constant, flsw or cwsm"
        raise ValueError(f"there is no temperature scheduler `{name}`: {help}")
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        options = dict(arguments[0])
    else:
        options = dict(zip(wanted, arguments, strict=False))
    numbers = all(_is_number(x) for x in options.values())
    needed = wanted[:2]
    if not numbers or len(arguments) > len(wanted) or not set(needed) <= set(options) <= set(wanted):
        raise ValueError(f'`{name}` needs {listing(needed)}: write ["{name}", {", ".join("1" for _ in needed)}]')
    return TemperatureEntry(name=name, **{key: float(number) for key, number in options.items()})


_NONE = BeforeValidator(lambda value: None if value == "none" else value)
Schedule = Annotated[Literal["linear_decay", "linear_growth"] | None, _NONE]


class DistillationConfig(TextBrewerSettings):
    """TextBrewer's `DistillationConfig`."""

    temperature: float = Field(default=4.0, gt=0, description="a number above zero")
    temperature_scheduler: Annotated[TemperatureEntry | None, BeforeValidator(_temperature)] = Field(
        default=None, description='none, constant, ["flsw", 1, 1] or ["cwsm", 1]'
    )
    hard_label_weight: float = Field(default=0.0, description="a number: how much the labels count")
    hard_label_weight_scheduler: Schedule = Field(default=None, description="none, linear_decay or linear_growth")
    kd_loss_type: Literal["ce", "mse"] = Field(default="ce", description="ce or mse")
    kd_loss_weight: float = Field(default=1.0, description="a number: how much the teacher's logits count")
    kd_loss_weight_scheduler: Schedule = Field(default=None, description="none, linear_decay or linear_growth")
    probability_shift: bool = Field(default=False, description="true or false")
    is_caching_logits: bool = Field(default=False, description="true or false")
    intermediate_matches: list[MatchEntry] | None = Field(default=None, description="a list of matches")


class TrainingConfig(TextBrewerSettings):
    """TextBrewer's `TrainingConfig`."""

    gradient_accumulation_steps: int = Field(default=1, gt=0, description="a whole number above zero")
    ckpt_frequency: int = Field(default=1, gt=0, description="a whole number above zero: checkpoints per epoch")
    ckpt_epoch_frequency: int = Field(default=1, gt=0, description="a whole number above zero: epochs per checkpoint")
    ckpt_steps: int | None = Field(default=None, gt=0, description="a whole number above zero, or none")
    log_dir: str | None = Field(default=None, description="a folder, or none")
    output_dir: str | None = Field(default="./saved_models", description="a folder")
    device: str | None = Field(default="cuda", description="cpu or cuda")
    fp16: bool = Field(default=False, description="true or false")
    fp16_opt_level: Literal["O0", "O1", "O2", "O3"] = Field(default="O1", description="O0, O1, O2 or O3")
    data_parallel: bool = Field(default=False, description="true or false")
    local_rank: int | str = Field(default=-1, description="a whole number, -1 for one process")


def settle(settings: type[SettingsT], read: Read, what: str, collector: Collector) -> SettingsT | None:
    """The settings in a value; None, with diagnostics, if it has faults."""
    if not isinstance(read.value, dict):
        message = f"{what} must be a mapping of names to values"
        collector.add("B122", message, read.place(()), help='write `{"temperature": 8}`')
        return None
    try:
        return settings.model_validate(read.value)
    except ValidationError as error:
        for fault in error.errors():
            _report(settings, fault, read, what, collector)
        return None


def _report(settings: type[BaseModel], fault: Any, read: Read, what: str, collector: Collector) -> None:
    path: Path = tuple(fault["loc"])
    owner = MatchEntry if "intermediate_matches" in path[:1] and len(path) > 1 else settings
    key = next((str(step) for step in reversed(path) if isinstance(step, str)), what)
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    field = owner.model_fields.get(key)
    code, message, place = "B122", f"`{name}` cannot be `{fault['input']}`", read.place(path)
    help = f"it is {field.description}" if field is not None else "correct it"
    match fault["type"]:
        case "extra_forbidden":
            names = [*owner.model_fields]
            other = "`DistillationConfig` and `TrainingConfig` know" if owner is not MatchEntry else "a match has"
            code, message, place = "B120", f"there is no setting `{name}`", read.key(path)
            help = instead("configuration of TextBrewer", key, names) or f"{other} {listing(names)}"
        case "missing":
            message, help = f"`{name}` is missing", f'add "{key}": {field.description if field else ""}'
        case "literal_error":
            expected = str(fault["ctx"]["expected"]).replace(" or ", ", ")
            words = [word.strip("' ") for word in expected.split(",")]
            help = suggest(str(fault["input"]), words) or f"use one of {listing(words)}"
            if key == "loss":
                help += "; for a loss of your own import your module of operations: `import mypackage.losses as my`"
        case "value_error":
            message, _, remedy = str(fault["msg"]).removeprefix("Value error, ").partition(": ")
            message, help = f"`{name}`: {message}" if name else message, remedy or "correct it"
        case _:
            if path and isinstance(path[-1], int):
                help = f"a match has {listing(MatchEntry.model_fields)}"
            if not isinstance(fault["input"], str | int | float):
                message = f"`{name}` cannot be a value of another type"
    collector.add(code, message, place, help=help)


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


_WRAPPED = {
    "distill_config": "distill", "distillation_config": "distill", "train_config": "train", "training_config": "train",
}  # fmt: skip
_KNOWN: dict[str, type[TextBrewerSettings]] = {"distill": DistillationConfig, "train": TrainingConfig}
_SETTINGS = DistillationConfig.model_fields.keys() | TrainingConfig.model_fields.keys()


Part = tuple[str, Read]
"""A part of a configuration by its kind: `distill`, `train`, or a list of `matches`, which may have a name."""


def parts_of(sources: Sequence[Source], collector: Collector) -> list[Part]:
    """The parts of all files. Raises `SpecError` with every fault, `UsageError` for two configurations of one kind and
    for a script that reads a configuration from a file that is missing here.
    """
    parts = [part for source in sources for read in read_values(source, collector) for part in _parts(read, collector)]
    collector.raise_errors()
    for source in sources:
        module = python_module(source)
        for node in ast.walk(module) if module is not None else ():
            name = _constructed(node, "from_json_file")
            if name and CONFIGS[name] not in {kind for kind, _ in parts}:
                place = f"{source.name}:{getattr(node, 'lineno', 1)}"
                raise UsageError(f"{place} reads a {name} from a file: name that file, too")
    for known in _KNOWN:
        spans = [read.place(()) for kind, read in parts if kind == known]
        if len(spans) > 1:
            places = " and ".join(f"{span.source.name}:{span.position[0]}" for span in spans)
            raise UsageError(f"there are several configurations of one kind, in {places}: keep one of them")
    return parts


def _parts(read: Read, collector: Collector) -> Iterator[Part]:
    """The parts of a file's value, recognized by their keys."""
    value = read.value
    if read.name in CONFIGS:
        yield CONFIGS[read.name], read
    elif _is_list(value):
        yield "matches", replace(read, name="") if read.name in ("matches", "intermediate_matches") else read
    elif not isinstance(value, dict):
        message = "expected a configuration: a mapping of settings, or a list of matches"
        collector.add("B020", message, read.place(()), help='write `{"temperature": 8, "intermediate_matches": […]}`')
    elif set(value) & set(_WRAPPED):
        for key in value:
            if key in _WRAPPED:
                yield _WRAPPED[key], read.part(key)
            else:
                help = suggest(key, _WRAPPED) or f"there are {listing(('distill_config', 'train_config'))}"
                collector.add("B120", f"there is no setting `{key}`", read.key((key,)), help=help)
    elif value and all(_is_list(x) for x in value.values()) and not _SETTINGS & set(value):
        yield from (("matches", read.part(key)) for key in value)
    else:
        yield from _by_keys(read)


def _by_keys(read: Read) -> Iterator[Part]:
    """The settings of both configurations from one mapping; unknown ones go with the others."""
    known = {kind: [k for k in read.value if k in settings.model_fields] for kind, settings in _KNOWN.items()}
    rest = [key for key in read.value if key not in known["distill"] + known["train"]]
    main = "train" if known["train"] and not known["distill"] else "distill"
    for kind, keys in known.items():
        keys = [*keys, *(rest if kind == main else [])]
        if keys or (kind == main and not read.value):
            yield kind, replace(read, value={key: read.value[key] for key in keys})


def _is_list(value: Any) -> bool:
    """Whether a value is a list of matches, which may lack keys."""
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(x, dict) and set(x) & set(MatchEntry.model_fields) for x in value)


def chosen_lists(lists: Sequence[Read], chosen: Sequence[str]) -> list[Read]:
    """The lists of matches to convert: the chosen ones, or the only one. Raises `UsageError`."""
    names = {read.name: read for read in lists}
    if missing := [name for name in chosen if name not in names]:
        there = f"there is {listing(names)}" if names else "the files have no lists of matches with names"
        raise UsageError(f"there is no list of matches `{missing[0]}`: {suggest(missing[0], names) or there}")
    if chosen:
        return [names[name] for name in chosen]
    if len(names) > 1:
        raise UsageError(f"there are several lists of matches: choose with --matches, {listing(names)}")
    return list(lists)


def settled(parts: Sequence[Part], kind: str, settings: type[SettingsT], collector: Collector) -> SettingsT:
    """The settings of a kind; defaults if the files have none."""
    read = dict(parts).get(kind)
    settled = settle(settings, read, f"`{settings.__name__}`", collector) if read is not None else None
    return settled if settled is not None else settings()


def matches_of(read: Read, collector: Collector) -> list[MatchEntry]:
    title = read.name or "matches"
    matches = (settle(MatchEntry, read.part(i), f"`{title}[{i}]`", collector) for i in range(len(read.value)))
    return [match for match in matches if match is not None]
