"""Declares operations: one decorated function holds everything about an operation.

The check reads its kinds, the docs its text, the runtime its maths. No module in this folder imports torch at the top;
the maths does when called.

Shape suffixes of tensor names: B examples, L tokens, H width, C classes, N heads, D head size; X any leading axes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.ops.schedules import SCHEDULES

UNITS = {
    "example": "one value per example",
    "token": "one value per token; padding is masked",
    "word": "one value per word; words of padding are masked",
    "pair": "one value per pair of tokens of an example; pairs with padding are masked",
    "label": "one value per label; -100 is masked",
    "position": "one value per example, or per token where the logits are per token",
    "batch": "one value per batch, which cannot be split",
}
"""What a loss is a mean over. An operation returns one value per unit; the program masks, sums and divides."""

GATHERS = {
    "values": "the values of both sides",
    "first": "of hidden states the first real token of each example, else the vectors",
    "sums": "sums and counts: the examples meet only in the `mean` and the `distances` of the layout",
}
"""What ranks exchange for a loss of unit `batch`, so that it compares the examples of all of them."""

KINDS = {
    "logits": "scores over classes: (batch, classes) or (batch, length, classes)",
    "positions": "scores over the tokens of an example: (batch, length)",
    "probabilities": "distributions over classes: (batch, classes) or (batch, length, classes)",
    "places": "distributions over the tokens of an example: (batch, length)",
    "labels": "class indices: (batch) or (batch, length)",
    "targets": "regression targets: (batch), or (batch, classes) with zeros and ones",
    "hidden": "hidden states: (batch, length, width)",
    "attention": "attention probabilities: (batch, heads, length, length)",
    "scores": "attention scores before mask and softmax: (batch, heads, length, length)",
    "states": "queries, keys or values: (batch, heads, length, head size)",
    "vector": "one vector per example: (batch, width)",
    "tensor": "what a tap gives, its shape known from the model",
    "values": 'one number per example or per token: what `reduce="none"` gives',
    "loss": "one scalar",
    "number": "a number",
    "integer": "a whole number, the same for the whole of training",
    "schedule": "a number that changes with training",
    "temperature": "a number, or one temperature per example or per token",
}
"""Kinds of values in a spec."""

Shape = tuple[str | int | None, ...]
"""Sizes of axes: symbols (`batch`, `length`), numbers, None where a size is not known."""


@dataclass(frozen=True)
class Option:
    """A keyword argument of an operation."""

    name: str
    default: Any
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class DeclaredFunction:
    """The common fields. `function` is None if only the source text was read (`python_files`)."""

    name: str
    module: str
    function: Any
    options: tuple[Option, ...]
    summary: str
    text: str
    source: str
    needs_layout: bool
    formula: str = ""
    """What is computed: the indented paragraph of the docstring, of which `display.formula` makes LaTeX."""

    @property
    def key(self) -> str:
        """Its unambiguous name: `module:name` outside this package."""
        return self.name if is_own(self.module) else f"{self.module}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class Operation(DeclaredFunction):
    """A loss: `takes` maps (side from, side to) to its unit; `same` names the axes that must agree; `least` the minimum
    size of an axis (`classes`, `width`, `batch`), below which the result is constant.

    A side is a kind, a tuple of kinds `(hidden, hidden)`, or a whole row `hidden...`. `unscaled` is the remedy if the
    gradient shrinks with the square of the temperature, else empty. `gathers` is one of `GATHERS`.
    """

    takes: Mapping[tuple[str, str], str]
    same: frozenset[str]
    also: tuple[str, ...]
    needs_kinds: bool
    least: Mapping[str, int] = field(default_factory=dict)
    unscaled: str = ""
    gathers: str = "values"

    @property
    def sides(self) -> str:
        """What it compares, in the words of a spec."""
        return ", ".join(f"{source} -> {target}" for source, target in self.takes)

    def unit(self, source: str, target: str) -> str | None:
        """The unit for these sides, or None if the operation does not take them."""
        return self.takes.get((source, target))

    def maths(self, source: str, target: str) -> Callable[..., Any]:
        """The function for these sides; it gets their kinds if its maths depends on them."""
        function: Callable[..., Any] = self.function
        return partial(function, kinds=(source, target)) if self.needs_kinds else function


@dataclass(frozen=True, kw_only=True)
class DeclaredTransform(DeclaredFunction):
    """A function from values to a value: `takes` maps the kinds of its arguments to that of its result.

    `shape` computes the result's shape, `(shapes, **options)`, or raises `SourceFault`. `least`: the minimum size of an
    axis of the first argument. `stops`: no gradient passes; `on_words`: it gets the word starts; `mean`: what it is a
    mean over, `tokens` or the `batch`.
    """

    takes: Mapping[tuple[str, ...], str]
    shape: Any
    least: Mapping[str, int] = field(default_factory=dict)
    stops: bool = False
    on_words: bool = False
    mean: str = ""

    def result(self, *kinds: str) -> str | None:
        """The kind of the result, or None if the transform does not take these kinds."""
        return self.takes.get(kinds)


@dataclass(frozen=True, kw_only=True)
class DeclaredTemperature(DeclaredFunction):
    """A temperature per example or token: a function of both sides' logits and a base, without gradient.

    If it `couples_batch`, an example's temperature depends on the rest of the batch. `fall` is how far the formula can
    drop below its base, `(classes, **options)`: None if the classes matter and are unknown.
    """

    couples_batch: bool
    fall: Callable[..., float | None]
    least: Mapping[str, int] = field(default_factory=lambda: {"classes": 2})


OPERATIONS: dict[str, Operation] = {}
TRANSFORMS: dict[str, DeclaredTransform] = {}
TEMPERATURES: dict[str, DeclaredTemperature] = {}


def refusal(operation: Operation, source: str, target: str) -> tuple[str, str]:
    """Message and remedy for sides that an operation does not take."""
    help = f"it takes {operation.sides}"
    others = [x.name for x in OPERATIONS.values() if is_own(x.module) and x.unit(source, target)]
    if operation.unit(target, source):
        help = "reverse the arrow: labels and teachers belong on the left"
    elif others and source in ("labels", "targets"):
        help = f"{source} are compared by {listing(dict.fromkeys(others))}"
        if operation.unit("targets", target):
            help += '; targets need problem_type="regression" or problem_type="multi_label"'
    return f"`{operation.name}` does not compare {source} with {target}", help


def is_own(module: str) -> bool:
    """Whether a module is one of this package."""
    return module.startswith("brewgraph.")


def side_kinds(side: str) -> tuple[str, ...]:
    """The kinds in a side: two for `(hidden, hidden)`, one for `hidden` and for `hidden...`."""
    inner = side[1:-1] if side.startswith("(") and side.endswith(")") else side.removesuffix("...")
    return tuple(kind.strip() for kind in inner.split(","))


def is_row(side: str) -> bool:
    """Whether a side is a whole row: `hidden...`."""
    return side.endswith("...")


def is_tuple(side: str) -> bool:
    """Whether a side is a tuple: `(hidden, hidden)`."""
    return side.startswith("(")


# ── the three decorators ─────────────────────────────────────────────────────────────────────────────────────────────


def operation(
    *,
    takes: Mapping[str, str],
    same: tuple[str, ...] = (),
    source: str,
    also: tuple[str, ...] = (),
    least: Mapping[str, int] | None = None,
    unscaled: str = "",
    gathers: str = "values",
    **options: tuple[str, str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a loss. `takes` maps sides to a unit: `{"hidden -> hidden": "token"}`; `source`: paper and equation;
    `also`: other names; `same`: axes (`classes`, `width`, `heads`) on which both sides must agree; `least`: the minimum
    size of an axis (`classes`, `width`, `batch`), `{"classes": 2}` for a softmax; `unscaled`: the remedy if gradients
    shrink with the square of the temperature; `gathers`: what ranks exchange for a loss of unit `batch`, one of
    `GATHERS`; `options`: kind and text of each keyword argument.

    The function gets `(from, to, *, options…)` and, if it names them, `layout` and both sides' `kinds`; tuples and rows
    arrive as tuples of tensors. It returns one value per unit.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        declared = describe_operation(
            Signature.of(function), function, takes, source, same, also, least, unscaled, gathers, **options
        )
        for name in (declared.name, *also):
            _register(OPERATIONS, name, declared)
        return function

    return declare


def transform(
    *,
    takes: Mapping[str, str],
    shape: Callable[..., Shape],
    source: str,
    least: Mapping[str, int] | None = None,
    **options: tuple[str, str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function from values to a value. `takes`: `{"states": "attention"}`, and for several arguments
    `{"logits, labels": "logits"}`; `shape`: the result's shape from those of the arguments; `least`: how many
    entries an axis of the first argument (`classes`, `width`) needs.

    The function gets `(value, …, *, options…)` and, where it names it, the `layout` of the first value's tokens.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        declared = describe_transform(Signature.of(function), function, takes, source, shape, least, **options)
        _register(TRANSFORMS, declared.name, declared)
        return function

    return declare


def temperature(
    *,
    source: str,
    couples_batch: bool = False,
    fall: Callable[..., float | None] = lambda classes, **options: 0.0,
    **options: tuple[str, str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a temperature per example or token. The function gets `(from, to, base, *, options…)`, logits on both
    sides, and, where it names it, `layout`; it returns one temperature for each distribution."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = Signature.of(function)
        common = _describe(signature, function, source, options)
        _register(TEMPERATURES, signature.name, DeclaredTemperature(**common, couples_batch=couples_batch, fall=fall))
        return function

    return declare


# ── declarations as values ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Signature:
    """What a function declares by its signature, read from the function or its text."""

    name: str
    module: str
    doc: str
    defaults: Mapping[str, Any]
    """Keyword-only arguments with their defaults, `layout` and `kinds` among them."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        """From the function itself."""
        arguments = inspect.signature(function).parameters.values()
        defaults = {p.name: p.default for p in arguments if p.kind is p.KEYWORD_ONLY}
        doc = inspect.cleandoc(function.__doc__ or "")
        return cls(function.__name__.rstrip("_"), function.__module__, doc, defaults)


def describe_operation(
    signature: Signature,
    function: Callable[..., Any] | None,
    takes: Mapping[str, str],
    source: str,
    same: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    least: Mapping[str, int] | None = None,
    unscaled: str = "",
    gathers: str = "values",
    **options: tuple[str, str],
) -> Operation:
    """The operation of a declaration; raises `SourceFault` if it contradicts itself."""
    name = signature.name
    for key, words in (("same", same), ("also", also)):
        if isinstance(words, str):
            raise _fault(name, f"`{key}` is a text", f'write a tuple: `{key}=("{words}",)`')
    pairs: dict[tuple[str, str], str] = {}
    for pair, unit in takes.items():
        sides = [_side(side) for side in pair.split(" -> ")]
        if len(sides) != 2:
            raise _fault(name, f"`{pair}` needs two sides", "write `hidden -> hidden`")
        _check_kinds(name, pair, [kind for side in sides for kind in side_kinds(side)])
        if unit not in UNITS:
            raise _fault(name, f"unknown unit {unit}", f"a unit is one of {listing(UNITS)}")
        pairs[sides[0], sides[1]] = unit
    if gathers not in GATHERS:
        raise _fault(name, f"unknown word {gathers} for `gathers`", f"write one of {listing(GATHERS)}")
    common = _describe(signature, function, source, options)
    common |= {
        "gathers": gathers,
        "takes": pairs,
        "same": frozenset(same),
        "also": also,
        "least": least or {},
        "unscaled": unscaled,
    }
    return Operation(**common, needs_kinds="kinds" in signature.defaults)


def describe_transform(
    signature: Signature,
    function: Callable[..., Any] | None,
    takes: Mapping[str, str],
    source: str,
    shape: Callable[..., Shape] | None = None,
    least: Mapping[str, int] | None = None,
    **options: tuple[str, str],
) -> DeclaredTransform:
    """The transform of a declaration; raises `SourceFault` if it contradicts itself."""
    kinds = {side_kinds(arguments): result for arguments, result in takes.items()}
    for arguments, result in kinds.items():
        _check_kinds(signature.name, f"{', '.join(arguments)}: {result}", [*arguments, result])
    common = _describe(signature, function, source, options)
    return DeclaredTransform(**common, takes=kinds, shape=shape, least=least or {})


def _describe(
    signature: Signature, function: Callable[..., Any] | None, source: str, options: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """The fields that all declarations share."""
    name = signature.name
    known = {key: default for key, default in signature.defaults.items() if key not in ("layout", "kinds")}
    if known.keys() != options.keys():
        help = f"the signature has {listing(known) or 'none'}, the decorator {listing(options) or 'none'}"
        raise _fault(name, "options and signature differ", help)
    for key, option in options.items():
        if isinstance(option, str) or len(option) != 2 or option[0] not in KINDS or not option[1]:
            raise _fault(name, f"`{key}` needs a kind and words", f'write `{key}=("number", "what it is")`')
        if known[key] is inspect.Parameter.empty:
            raise _fault(name, f"`{key}` has no default", f"write `{key}=…` in the signature")
    summary, _, rest = signature.doc.partition("\n")
    if not summary:
        raise _fault(name, "it has no docstring", "its first line says what is computed")
    formula, text = split_formula(rest)
    return {
        "name": name,
        "module": signature.module,
        "function": function,
        "options": tuple(Option(key, default, *options[key]) for key, default in known.items()),
        "summary": summary,
        "text": text,
        "formula": formula,
        "source": source,
        "needs_layout": "layout" in signature.defaults,
    }


def split_formula(text: str) -> tuple[str, str]:
    """The indented paragraph of a docstring, in one line, and everything else."""
    parts = text.strip("\n").split("\n\n")
    formulas = [" ".join(part.split()) for part in parts if part.startswith(" ")]
    return ", ".join(formulas), "\n\n".join(part for part in parts if not part.startswith(" ")).strip()


def _side(text: str) -> str:
    """The canonical spelling of a side."""
    return f"({', '.join(side_kinds(text.strip()))})" if is_tuple(text.strip()) else text.strip()


def _check_kinds(name: str, place: str, kinds: list[str]) -> None:
    if not set(kinds) <= KINDS.keys():
        raise _fault(name, f"unknown kind in {place}", f"a kind is one of {listing(KINDS)}")


def _fault(name: str, message: str, help: str) -> SourceFault:
    return SourceFault("B330", f"invalid declaration of `{name}`: {message}", help=help)


def _register(registry: dict[str, Any], name: str, declared: Any) -> None:
    """Register under the plain name; outside this package under `module:name`, and the plain name if it is free."""
    names = (OPERATIONS, TRANSFORMS, TEMPERATURES, SCHEDULES)
    known: Any = next((x[name] for x in names if name in x), None)
    free = known is None or getattr(known, "key", "") == declared.key
    if is_own(declared.module):
        assert free, f"{name} is declared twice"
    else:
        registry[f"{declared.module}:{name}"] = declared
    if free:
        registry[name] = declared
