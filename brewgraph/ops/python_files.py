"""Python modules that a spec names: what their text declares, read without running it, and which may be imported.

A check needs the kinds, units and options of a module's operations but must not execute it, so every declaration must
consist of literals.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from brewgraph.diagnostics import BrewError, RunError, SourceFault
from brewgraph.ops import OPERATIONS, TRANSFORMS, DeclaredTransform, Operation
from brewgraph.ops.registry import Signature, describe_operation, describe_transform

DECORATORS = ("operation", "transform")
Function = ast.FunctionDef | ast.AsyncFunctionDef
_FREE = ("layout", "kinds")
"""Arguments that the program passes; their defaults are ignored."""
_WORDS, _OPTION = tuple[str, ...], tuple[str, str]
_KEYWORDS: Mapping[str, Any] = {
    "takes": dict[str, str], "source": str, "same": _WORDS, "also": _WORDS, "unscaled": str,
    "gathers": str, "least": dict[str, int] | None,
}  # fmt: skip
"""The types of the decorators' keywords; any other names an option."""


# ── where it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


def find_source(module: str, folder: Path) -> Path | None:
    """The file of a module by its dotted name: installed, else in a folder; None if there is none.

    For a package, its `__init__.py`. Nothing is imported: only the top-level name is resolved, the rest are paths.
    """
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(top, [*sys.path, str(folder.resolve())])
    if spec is None:
        return None
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    for part in rest:
        file, places = _below(places, part)
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def _below(places: list[Path], name: str) -> tuple[Path | None, list[Path]]:
    """The file of a module in a package with these folders, and the folders of its own submodules."""
    for place in places:
        package, single = place / name / "__init__.py", place / f"{name}.py"
        if package.is_file():
            return package, [package.parent]
        if single.is_file():
            return single, []
    return None, [place / name for place in places if (place / name).is_dir()]


def module_print(module: str, folder: Path) -> str:
    """The sha256 in hex of a module's text and of all that it imports; nothing runs.

    Of installed packages, and of modules that cannot be found or parsed, only the module's own text counts.
    """
    texts: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = find_source(name, folder) if name not in texts else None
        if path is None or (_has_version(name, path) and name != module):
            continue
        texts[name] = path.read_bytes()
        if not _has_version(name, path):
            waiting += _imported(texts[name], name if path.name == "__init__.py" else name.rpartition(".")[0])
    total = hashlib.sha256()
    for name, text in sorted(texts.items()):
        total.update(f"{name} {len(text)}\n".encode() + text)
    return total.hexdigest()


def _has_version(name: str, path: Path) -> bool:
    """Whether a file belongs to an installed package, to Python or to this package."""
    third = {"site-packages", "dist-packages"} & set(path.parts)
    is_brewgraph = name.partition(".")[0] == "brewgraph"
    return is_brewgraph or bool(third) or path.is_relative_to(sysconfig.get_path("stdlib"))


def _imported(text: bytes, package: str) -> Iterator[str]:
    """The modules that a source text imports anywhere, and their parent packages."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for statement in ast.walk(tree):
        names: list[str] = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
            base = ".".join(filter(None, [*above, statement.module]))
            names = [base, *(f"{base}.{alias.name}" for alias in statement.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def declared(text: str, module: str) -> dict[str, Operation | DeclaredTransform]:
    """What the text of a module declares with `@operation(…)` and `@transform(…)`, under all its names.

    Decorators may be spelled as any import allows (`@bg.operation(…)`). `function`, and the `shape` of a transform, are
    None until the module is imported. Raises `SourceFault` if a keyword is not a literal.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise SourceFault(
            "B330", f"`{module}` is not valid Python: {error}", help="it must be a module that Python can import"
        ) from error
    known = _local_names(tree)
    declarations: dict[str, Operation | DeclaredTransform] = {}
    functions = (s for s in _statements(tree.body) if isinstance(s, Function))
    for function in functions:
        for call in function.decorator_list:
            kind = _decorator(call, known)
            if kind is None:
                continue
            if not isinstance(call, ast.Call):
                raise _fault(
                    module, function, "the decorator has no keywords", f'write `@{kind}(takes={{…}}, source="…")`'
                )
            declaration = _declaration(module, function, call, kind)
            names = declaration.also if isinstance(declaration, Operation) else ()
            declarations |= dict.fromkeys((declaration.name, *names), declaration)
    return declarations


def _declaration(module: str, function: Function, call: ast.Call, kind: str) -> Operation | DeclaredTransform:
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise _fault(module, function, "its arguments are not all keywords", "write each as `name=…`")
    said: dict[str, Any] = {}
    for keyword in call.keywords:
        if not (kind == "transform" and keyword.arg == "shape"):
            said[keyword.arg or ""] = _literal(module, function, keyword.value, f"`{keyword.arg}`")
    missing = [f"`{name}`" for name in ("takes", "source") if name not in said]
    if missing:
        raise _fault(module, function, f"{' and '.join(missing)} is missing", 'write `takes={…}, source="…"`')
    try:
        keywords = {name: TypeAdapter(_KEYWORDS.get(name, _OPTION)).validate_python(x) for name, x in said.items()}
    except ValidationError as error:
        help = '`takes` maps strings to strings, `source` is a string, an option is ("kind", "words")'
        raise _fault(module, function, "a keyword is not of its type", help) from error
    arguments = function.args
    defaults = {
        argument.arg: inspect.Parameter.empty
        if default is None or argument.arg in _FREE
        else _literal(module, function, default, f"the default of `{argument.arg}`")
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    signature = Signature(function.name.rstrip("_"), module, ast.get_docstring(function) or "", defaults)
    if kind == "operation":
        return describe_operation(signature, None, **keywords)
    return describe_transform(signature, None, **keywords)


def _literal(module: str, function: Function, value: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        help = f"write it out: `{ast.unparse(value)}` is known only when the module runs, and a check runs no code"
        raise _fault(module, function, f"{what} is no literal", help) from error


def _fault(module: str, function: Function, message: str, help: str) -> SourceFault:
    where = f"`{function.name}` in line {function.lineno} of `{module}`"
    return SourceFault("B330", f"the declaration of {where} cannot be read: {message}", help=help)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that importing a module runs, those behind `if` and `try` too."""
    for statement in body:
        yield statement
        if isinstance(statement, Function | ast.ClassDef):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _local_names(tree: ast.Module) -> dict[str, str]:
    """What a module's names stand for by imports and plain assignments: `bg` for `brewgraph`."""
    names: dict[str, str] = {}
    for statement in _statements(tree.body):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            for alias in statement.names:
                taken = DECORATORS if alias.name == "*" else (alias.name,)
                names |= {alias.asname or name: f"{statement.module}.{name}" for name in taken}
        elif isinstance(statement, ast.Assign) and (meant := _dotted(statement.value, names)):
            names |= {x.id: meant for x in statement.targets if isinstance(x, ast.Name)}
    return names


def _dotted(value: ast.expr, names: Mapping[str, str]) -> str:
    """`brewgraph.operation` for `bg.operation`; empty if it is not a dotted name of an import."""
    if isinstance(value, ast.Attribute):
        inner = _dotted(value.value, names)
        return f"{inner}.{value.attr}" if inner else ""
    return names.get(value.id, "") if isinstance(value, ast.Name) else ""


def _decorator(decorator: ast.expr, names: Mapping[str, str]) -> str | None:
    """`operation` or `transform` if the decorator is brewgraph's, else None."""
    whole = _dotted(decorator.func if isinstance(decorator, ast.Call) else decorator, names)
    package, _, name = whole.rpartition(".")
    return name if name in DECORATORS and package.partition(".")[0] == "brewgraph" else None


# ── importing it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def load_declared(module: str, folder: Path, allow: bool) -> dict[str, Operation | DeclaredTransform]:
    """Import a module and return its declarations by plain name. Raises as `import_allowed`."""
    import_allowed(module, folder, allow=allow)
    registries: tuple[Mapping[str, Operation | DeclaredTransform], ...] = (OPERATIONS, TRANSFORMS)
    declarations = {x.name: x for registry in registries for x in registry.values() if x.module == module}
    also = {name: x for x in declarations.values() if isinstance(x, Operation) for name in x.also}
    return declarations | also


def import_allowed(module: str, folder: Path, *, allow: bool, shown: str = "", field: str | None = None) -> ModuleType:
    """Import a module of an installed package or, with `allow`, from the spec's folder.

    `shown` is the spec's name for it, `field` the argument that names it. Raises `RunError` if the import is not
    allowed, `SourceFault` if it fails.
    """
    if not allow and not is_installed(module.partition(".")[0]):
        raise RunError(
            f"`{shown or module}` is in no installed package; "
            "run with --allow-python to import it from the spec's folder"
        )
    place = str(folder.resolve())
    if allow and place not in sys.path:
        # behind everything else, as `find_source` looks: a file beside a spec takes the place of no package
        sys.path.append(place)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except BrewError:
        raise
    except ImportError as error:
        raise SourceFault("B317", f"`{module}` cannot be imported: {error}", field=field, help="install it") from error
    except Exception as error:  # a module runs what it likes when it is imported
        message = f"`{module}` cannot be imported: {type(error).__name__}: {error}"
        raise SourceFault("B317", message, field=field, help=f"`python -c 'import {module}'` shows where") from error


def is_installed(top: str) -> bool:
    """Whether a package of this name is installed; an editable install lists no modules, so its name is tried, too."""
    if top in importlib.metadata.packages_distributions():
        return True
    try:
        importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
