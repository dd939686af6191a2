"""Parameters that stand still for a stage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import nn

from brewgraph.diagnostics import RunError, suggest
from brewgraph.runtime.distiller import Distiller, parameter_name


@dataclass(frozen=True)
class Freeze:
    """What is not trained: the `model` of a name, a `module` of it by its `path`, or the `projection` of a name.

    A path is that of a module or parameter, as given or else below the model's base (`encoder.layer.0` of a classifier
    means `bert.encoder.layer.0`); `*` stands for any one part of it.
    """

    kind: Literal["module", "projection", "model"]
    name: str
    path: str = ""


@contextmanager
def frozen(distiller: Distiller, what: Sequence[Freeze], student: str) -> Iterator[None]:
    """Freeze parameters, and give them back as they were. Raises `RunError` for what freezes nothing, or everything.

    Frozen parts stay in train mode, as their dropout belongs to what is trained above them.
    """
    chosen = {id(p): p for one in what for p in _parameters(distiller, one, student)}
    before = [(p, p.requires_grad) for p in chosen.values()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in distiller.parameters()):
            raise RunError("there is nothing to train: every parameter of student and projections is frozen")
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


@contextmanager
def unreached_frozen(distiller: Distiller) -> Iterator[None]:
    """Freeze what no term of this stage can reach, and give it back as it was.

    It would have no gradient either way; frozen, it costs the optimizer and the ranks nothing.
    """
    chosen = distiller.unreached()
    for parameter in chosen:
        parameter.requires_grad_(False)
    try:
        if not any(p.requires_grad for p in distiller.parameters()):
            raise RunError("there is nothing to train: all that the loss of this stage reaches is frozen")
        yield
    finally:
        for parameter in chosen:
            parameter.requires_grad_(True)


def _parameters(distiller: Distiller, one: Freeze, student: str) -> list[nn.Parameter]:
    if one.kind == "projection":
        key = parameter_name(one.name)
        if key not in distiller.projections:
            raise RunError(
                f"freeze: no projection `{one.name}` is used here; {_known(one.name, distiller.projections)}"
            )
        return list(distiller.projections[key].parameters())
    if one.name != student:
        raise RunError(f"freeze: `{one.name}` is not trained in the first place; the student is `{student}`")
    if chosen := parameters_at(distiller.student, one.path if one.kind == "module" else ""):
        return chosen
    modules = [name for name, module in distiller.student.named_modules() if name and list(module.parameters())]
    raise RunError(f"freeze: `{one.name}` has no parameters at `{one.path}`; {_known(one.path, modules)}")


def parameters_at(student: nn.Module, path: str) -> list[nn.Parameter]:
    """The parameters of the modules at a path, as it is or below the model's base, where `*` is any one name.

    All of the student's for an empty path, none where nothing is there.
    """
    found = list(student.named_parameters(remove_duplicate=False))
    if not path:
        return [p for _, p in found]
    base = getattr(student, "base_model_prefix", "")
    for tried in (path, f"{base}.{path}"):
        parts = (r"[^.]+" if part == "*" else re.escape(part) for part in tried.split("."))
        pattern = re.compile(rf"{'[.]'.join(parts)}([.]|$)")
        if chosen := [p for name, p in found if pattern.match(name)]:
            return chosen
    return []


def _known(name: str, there: Sequence[str] | nn.ModuleDict) -> str:
    names = list(there)
    return suggest(name, names) or (f"there is `{names[0]}`, for one" if names else "there are none")
