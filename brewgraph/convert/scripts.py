"""What can be known of a Python script that is read and not run: names with one value, and what it says elsewhere.

A name counts as its value only if it is bound once in the whole file and nothing changes what it is bound to; whatever
a script does to a configuration after it is made would be lost, and is a fault.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

CONFIGS = {"DistillationConfig": "distill", "TrainingConfig": "train"}
DISTILLERS = ("GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer")
_CHANGES = frozenset({
    "append", "extend", "insert", "update", "pop", "popitem", "remove", "clear", "setdefault", "sort", "reverse",
    "__setitem__",
})  # fmt: skip


@dataclass(frozen=True)
class Names:
    """`values` are those of names that have one throughout; `changed` are names that are bound or changed elsewhere."""

    values: Mapping[str, ast.expr]
    changed: frozenset[str] = frozenset()


def names_of(module: ast.Module) -> Names:
    """The names that a file gives values."""
    given = dict(pair for node in ast.walk(module) for pair in assigned(node))
    bound = Counter(name for node in ast.walk(module) for name in _bound(node))
    changed = {name for name in given if bound[name] > 1} | {
        base for node in ast.walk(module) for base in _changed(node)
    }
    return Names(
        {name: value for name, value in given.items() if name not in changed}, frozenset(changed & given.keys())
    )


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement gives a value, with it."""
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield (node.target.id, node.value)


def _bound(node: ast.AST) -> Iterator[str]:
    """What a node binds: a variable, an argument, a function, an import."""
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
    """The name whose value a node changes in its inside: `a[0] = 1`, `a["x"]["y"] = 1`, `a.append(1)`."""
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
    """The class or function that a call names, at the end of its path."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def configurations(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The configurations that a file makes: `DistillationConfig(…)`, and what its `from_dict` is given."""
    for node in ast.walk(module):
        if called(node) in CONFIGS and isinstance(node, ast.Call):
            yield (called(node), node)
        elif name := _constructed(node, "from_dict"):
            assert isinstance(node, ast.Call)
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if len(given) == 1:
                yield (name, given[0])


def _constructed(node: ast.AST, how: str) -> str:
    """The configuration that `CONFIG.how(…)` makes; empty for any other node."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=attr)) if attr == how:
            return name if name in CONFIGS else ""
    return ""


def read_from_files(module: ast.Module) -> list[tuple[str, ast.AST]]:
    """The configurations that a script reads from other files, with the calls that do it."""
    return [(name, node) for node in ast.walk(module) if (name := _constructed(node, "from_json_file"))]


def distillers_called(module: ast.Module) -> list[str]:
    """The classes that a script trains with, each once."""
    return list(dict.fromkeys(name for node in ast.walk(module) if (name := called(node)) in DISTILLERS))


def changed_configurations(module: ast.Module) -> Iterator[ast.Attribute]:
    """Where a script sets an attribute of a configuration that it has made: `config.temperature = 4`."""
    made = {name for node in ast.walk(module) for name, value in assigned(node) if _makes(value)}
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id=base), ctx=ast.Store()) if base in made:
                yield node
            case ast.Attribute(value=ast.Attribute(attr="d_config" | "t_config"), ctx=ast.Store()):
                yield node


def _makes(value: ast.expr) -> bool:
    return called(value) in CONFIGS or any(_constructed(value, how) for how in ("from_dict", "from_json_file"))
