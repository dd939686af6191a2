"""Text that every machine has: the docstrings of Python's standard library, labelled with their package.

The sources are parsed, never imported. The rows depend on the release of Python; the classes are fixed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets

from brewgraph.data.sources.reader import Contents, DataFacts, facts, read
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Builtin

LABELS = (
    "asyncio", "codecs", "configparser", "datetime", "decimal", "difflib", "doctest", "email", "http", "imaplib",
    "importlib", "inspect", "ipaddress", "logging", "mailbox", "multiprocessing", "pydoc", "shutil", "smtplib",
    "statistics", "subprocess", "tarfile", "threading", "typing", "unittest", "urllib", "wsgiref", "xml",
)  # fmt: skip
"""The classes, in the order of the labels: modules and packages with enough text in every release from 3.10 on."""

_MOVED = {"datetime": ("_pydatetime", "datetime"), "decimal": ("_pydecimal",)}
"""Siblings that hold the text of a module; the first that exists counts."""

_LEFT_OUT = {"test", "tests", "idle_test", "__pycache__"}
_SHORTEST = 20
"""The least characters of a paragraph."""
_FEWEST = 40
"""The least paragraphs of a class; a complete standard library has twice as many."""
_DEV_SHARE = 0.22


@dataclass(frozen=True)
class Paragraph:
    """One example: a paragraph of a docstring, its class, and the unit of source code that it stands in.

    `unit` is a module's dotted name and the name of a top-level class or function in it (empty for the module's own
    docstring).
    """

    text: str
    label: str
    unit: tuple[str, str]


@read.register
def _examples(source: Builtin, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    numbers = {label: number for number, label in enumerate(LABELS)}
    splits = {
        field: datasets.Dataset.from_dict(
            {"text_0": [p.text for p in paragraphs], "label": [numbers[p.label] for p in paragraphs]}
        )
        for field, paragraphs in python_docs().items()
    }
    return Contents(splits, LABELS)


@facts.register
def _facts(source: Builtin, folder: Path) -> DataFacts:
    return DataFacts(LABELS, ("text", "label"), {})


def python_docs(stdlib: Path | None = None) -> Mapping[str, tuple[Paragraph, ...]]:
    """The paragraphs of the standard library below `stdlib` (left out, the running Python's), as `train` and `dev`.

    The two never share a top-level class or function, nor a text: texts of two classes are dropped, repeated texts of
    one class are kept once. The same sources give the same rows in the same order.
    """
    folder = stdlib or Path(sysconfig.get_path("stdlib"))
    every = [paragraph for label in LABELS for paragraph in _paragraphs(folder, label)]
    distinct = _without_repetition(every)
    counts = Counter(paragraph.label for paragraph in distinct)
    if short := [label for label in LABELS if counts[label] < _FEWEST]:
        few = ", ".join(f"`{label}` has {counts[label]} paragraphs" for label in short[:4])
        more = f", and {len(short) - 4} more" if len(short) > 4 else ""
        message = f"too few docstrings in the standard library at {folder}: {few}{more}, {_FEWEST} are needed"
        help = (
            "this Python comes without the sources of its standard library (a zip file, a stripped or minimal build): "
            "install the complete one, or name your own data with `files(train=...)`"
        )
        raise SourceFault("B406", message, help=help, field="name")
    chosen = {unit for label in LABELS for unit in _dev_units([p for p in distinct if p.label == label])}
    return {
        "train": tuple(p for p in distinct if p.unit not in chosen),
        "dev": tuple(p for p in distinct if p.unit in chosen),
    }


def _paragraphs(stdlib: Path, label: str) -> Iterator[Paragraph]:
    """Every paragraph of one class, in the order of files and lines."""
    for path in _sources(stdlib, label):
        module = ".".join(path.relative_to(stdlib).with_suffix("").parts)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in somebody else's docstrings are no news here
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for name, docstring in _docstrings(tree, ""):
            for text in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
                text = " ".join(text.split())
                if len(text) >= _SHORTEST:
                    yield Paragraph(text, label, (module, name))


def _sources(stdlib: Path, label: str) -> list[Path]:
    """The source files of one class, tests left out."""
    for name in _MOVED.get(label, (label,)):
        if (stdlib / f"{name}.py").is_file():
            return [stdlib / f"{name}.py"]
        if (stdlib / name).is_dir():
            paths = sorted((stdlib / name).rglob("*.py"), key=lambda path: path.relative_to(stdlib).parts)
            return [path for path in paths if not _LEFT_OUT & set(path.relative_to(stdlib).parts)]
    return []


def _docstrings(node: ast.AST, unit: str) -> Iterator[tuple[str, str]]:
    """Pairs of the top-level name and a docstring below it; the module's own comes first, with an empty name."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        if not unit and not isinstance(node, ast.Module):
            unit = node.name
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield unit, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler):
            yield from _docstrings(child, unit)


def _without_repetition(paragraphs: list[Paragraph]) -> list[Paragraph]:
    """Each text once, compared by its words alone; a text that several classes have goes altogether."""
    labels: dict[str, set[str]] = {}
    words = [re.sub(r"\W+", " ", paragraph.text).strip().casefold() for paragraph in paragraphs]
    for key, paragraph in zip(words, paragraphs, strict=True):
        labels.setdefault(key, set()).add(paragraph.label)
    distinct: dict[str, Paragraph] = {}
    for key, paragraph in zip(words, paragraphs, strict=True):
        if key and len(labels[key]) == 1:  # an underline of a heading has no words
            distinct.setdefault(key, paragraph)
    return list(distinct.values())


def _dev_units(paragraphs: list[Paragraph]) -> set[tuple[str, str]]:
    """The units of one class for evaluation.

    Whole units are drawn in the order of their hashes as long as they fit into the share, so that a class with nearly
    all its text in one unit has rows in both splits.
    """
    sizes = Counter(paragraph.unit for paragraph in paragraphs)
    room = round(_DEV_SHARE * len(paragraphs))
    taken: set[tuple[str, str]] = set()
    for unit in sorted(sizes, key=lambda unit: hashlib.sha256(":".join(unit).encode()).digest()):
        if sizes[unit] <= room:
            taken.add(unit)
            room -= sizes[unit]
    return taken
