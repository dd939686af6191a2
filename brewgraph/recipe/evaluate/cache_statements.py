"""`cache NAME = … at "folder"`: only values that are the same in every epoch can be cached."""

from __future__ import annotations

from collections.abc import Callable

from brewgraph.ops import TEMPERATURES
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.label_types import MASKED
from brewgraph.recipe.values import Evaluated, Group, Value, describe
from brewgraph.syntax import tree as t

Refusal = tuple[str, str, str]
"""A code, what is wrong, and the remedy."""


def evaluate_cache(e: Evaluator, s: t.Cache, name: str) -> Evaluated:
    """The value of a `cache` statement: its expression, or each of its members, with the folder."""
    value, path = e.evaluate_all((s.value, s.path))
    assert isinstance(path, str)
    if isinstance(value, v.Row):
        row = f"{value.take.model}.{value.take.feature.name}"
        help = f"select layers: `{row}[4]`, `{row}[0, 4, 8]`, or `{row}[:]` for all"
        raise e.fault("B202", "a cache needs the layers of a row", s.value.span, help=help)

    def keep(x: Evaluated) -> Evaluated:
        if isinstance(x, Group):
            return x.map(keep)
        if not isinstance(x, Value):
            help = 'cache what a teacher computes: `cache soft = bert.logits at "folder"`'
            raise e.fault("B202", f"a cache keeps a value, got {describe(x)}", s.value.span, help=help)
        refusals = (refusal for ask in _QUESTIONS for part in v.walk(x) if (refusal := ask(e, part)))
        if refusal := next(refusals, None) or _as_a_whole(x):
            code, message, help = refusal
            raise e.fault(code, message, s.value.span, help=help)
        return v.Cached(x.kind, x, name, path, place=s.path.span, span=x.span)

    return keep(value)


def _as_a_whole(x: Value) -> Refusal | None:
    """The whole value must be computed by a model, per example."""
    if not any(isinstance(part, v.Take) for part in v.walk(x)):
        return "B240", f"no model computes this: it is {describe(x)}", "remove the `cache`: there is nothing to save"
    if x.kind in ("loss", "number", "schedule"):
        help = "cache its inputs, such as `bert.logits`: one value for each example"
        return "B241", "this is one number per batch, and batches change every epoch", help
    return None


def _changes(e: Evaluator, x: Value) -> Refusal | None:
    """Parts that training changes."""
    help = "cache only what is computed from teachers"
    if isinstance(x, v.Take):
        model = e.models[x.model]
        if model.role == "student":
            return "B240", f"`{x.model}` is trained: its output changes every step", help
        if model.source.averaged is not None:
            return "B240", f"`{x.model}` follows the student: its output changes every step", help
    if isinstance(x, v.Project):
        help = "cache the value before the projection: `cache x = bert.hidden[4] at …`, then `x via linear`"
        return "B240", "a projection is trained: its output changes every step", help
    if isinstance(x, v.Scheduled):
        return "B240", "a schedule changes with training", "apply it after the cache"
    return None


def _couples(e: Evaluator, x: Value) -> Refusal | None:
    """Parts in which an example depends on the rest of its batch, or on padding."""
    message = "the value of an example depends on the rest of its batch here"
    help = "cache its inputs, such as `bert.logits`"
    if isinstance(x, v.Temperature) and TEMPERATURES[x.name].couples_batch:
        return "B241", f"{message}: `{x.name}` uses all of them", help
    if (isinstance(x, v.Transform) and x.declared.mean == "batch") or (isinstance(x, v.Apply) and x.reduced):
        return "B241", message, help
    if isinstance(x, v.Transform | v.Apply) and x.mask == "none":
        return "B241", "with `mask=none` the value depends on the padding of the batch", "leave `mask=none` out"
    return None


def _drawn(e: Evaluator, x: Value) -> Refusal | None:
    """Data that change every epoch, so no cached value would be read again."""
    if not isinstance(x, v.Take | v.Column):
        return None
    source = e.data[x.data].source
    help = "remove the `cache`, or what changes the data"
    if any(getattr(part, "augment", ()) for part in getattr(source, "parts", (source,))):
        return "B242", f"`augment` changes the texts of `{x.data}` every epoch", help
    if source.label_type == MASKED:
        return "B242", f"the words of `{x.data}` that are masked change every epoch", help
    return None


Question = Callable[[Evaluator, Value], Refusal | None]
_QUESTIONS: tuple[Question, ...] = (_changes, _couples, _drawn)
