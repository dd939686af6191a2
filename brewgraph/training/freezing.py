"""Parameters that a stage does not train."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import nn

from brewgraph.diagnostics import RunError, suggest
from brewgraph.runtime.distiller import Distiller, parameter_name


@dataclass(frozen=True)
class Freeze:
    """What to freeze: the `model` of a name, a `module` of it by its `path`, or the `projection` of a name.

    The path names a module or parameter, as it is or below the model's base (`encoder.layer.0` of a classifier means
    `bert.encoder.layer.0`); `*` matches one part of it.
    """

    kind: Literal["module", "projection", "model"]
    name: str
    path: str = ""


def frozen(distiller: Distiller, what: Sequence[Freeze], student: str) -> AbstractContextManager[None]:
    """Freeze parameters within the context. Raises `RunError` for what freezes nothing, or everything.

    Frozen parts stay in train mode: their dropout belongs to what is trained above them.
    """
    chosen = {id(p): p for one in what for p in _parameters(distiller, one, student)}
    return _frozen(distiller, chosen.values(), "every parameter of student and projections is frozen")


def unreached_frozen(distiller: Distiller) -> AbstractContextManager[None]:
    """Freeze within the context what no term of this stage reaches.

    It has no gradient anyway; frozen, it costs optimizer and ranks nothing.
    """
    return _frozen(distiller, distiller.unreached(), "everything that this stage's loss reaches is frozen")


@contextmanager
def _frozen(distiller: Distiller, parameters: Iterable[nn.Parameter], if_nothing_is_left: str) -> Iterator[None]:
    before = [(p, p.requires_grad) for p in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in distiller.parameters()):
            raise RunError(f"there is nothing to train: {if_nothing_is_left}")
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _parameters(distiller: Distiller, one: Freeze, student: str) -> list[nn.Parameter]:
    if one.kind == "projection":
        key = parameter_name(one.name)
        if key not in distiller.projections:
            raise RunError(f"freeze: no projection `{one.name}` is used here; {_hint(one.name, distiller.projections)}")
        return list(distiller.projections[key].parameters())
    if one.name != student:
        raise RunError(f"freeze: `{one.name}` is never trained; the student is `{student}`")
    if chosen := parameters_at(distiller.student, one.path if one.kind == "module" else ""):
        return chosen
    modules = [name for name, module in distiller.student.named_modules() if name and list(module.parameters())]
    raise RunError(f"freeze: `{one.name}` has no parameters at `{one.path}`; {_hint(one.path, modules)}")


def parameters_at(student: nn.Module, path: str) -> list[nn.Parameter]:
    """The parameters of the modules at a path (see `Freeze`); all of the student's for an empty path."""
    parameters = list(student.named_parameters(remove_duplicate=False))
    if not path:
        return [p for _, p in parameters]
    base = getattr(student, "base_model_prefix", "")
    for full_path in (path, f"{base}.{path}"):
        parts = (r"[^.]+" if part == "*" else re.escape(part) for part in full_path.split("."))
        pattern = re.compile(rf"{'[.]'.join(parts)}([.]|$)")
        if chosen := [p for name, p in parameters if pattern.match(name)]:
            return chosen
    return []


def _hint(name: str, there: Sequence[str] | nn.ModuleDict) -> str:
    names = list(there)
    return suggest(name, names) or (f"there is `{names[0]}`, for example" if names else "there are none")
