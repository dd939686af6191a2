"""Completions in the shell: specs, their params, runs, codes, passes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def join_words_in_bash() -> None:
    """Change the script for bash that `--show-completion` and `--install-completion` give: no blank follows a folder,
    or a name that ends in `=`, so that typing goes on. zsh and fish join such words by themselves.
    """
    from typer._completion_shared import _completion_scripts as scripts

    joins = "    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace\n"
    if joins not in scripts["bash"]:
        scripts["bash"] = scripts["bash"].replace("    return 0\n", f"{joins}    return 0\n")


def specs(incomplete: str) -> Iterator[str]:
    """Specs with this prefix of their path, and folders that may hold more."""
    for prefix, path in _paths(incomplete):
        if path.is_dir():
            yield f"{prefix}{path.name}/"
        elif path.suffix == ".brew":
            yield f"{prefix}{path.name}"


def runs(incomplete: str) -> Iterator[str]:
    """Folders of runs with this prefix, folders that may hold more, and names of runs in the folder of runs."""
    for prefix, path in _paths(incomplete):
        if path.is_dir():
            yield f"{prefix}{path.name}" + ("" if (path / "resolved.json").is_file() else "/")
    if "/" not in incomplete:
        from brewgraph.training.folder import runs_folder

        for _, path in _paths(f"{runs_folder(Path())}/{incomplete}"):
            if (path / "resolved.json").is_file():
                yield path.name


def model_folders(incomplete: str) -> Iterator[str]:
    """Folders of models with this prefix of their path, and folders that may hold more."""
    for prefix, path in _paths(incomplete):
        if path.is_dir():
            yield f"{prefix}{path.name}" + ("" if (path / "config.json").is_file() else "/")


def data_files(incomplete: str) -> Iterator[str]:
    """Files with this prefix of their path, and folders that may hold more."""
    for prefix, path in _paths(incomplete):
        yield f"{prefix}{path.name}" + ("/" if path.is_dir() else "")


def _paths(incomplete: str) -> Iterator[tuple[str, Path]]:
    """The files that an incomplete path may mean, as the part before the last name and the path; no hidden ones."""
    folder, _, begun = incomplete.rpartition("/")
    here = Path(folder or ("/" if incomplete.startswith("/") else "."))
    if here.is_dir():
        for path in sorted(here.iterdir()):
            if path.name.startswith(begun) and not (path.name.startswith(".") and not begun):
                yield incomplete[: len(incomplete) - len(begun)], path


def codes(incomplete: str) -> Iterator[tuple[str, str]]:
    """Codes of diagnostics, each with its description."""
    from brewgraph.explanations import CODES

    yield from ((code, line) for code, line in CODES.items() if code.startswith(incomplete))


def warnings(incomplete: str) -> Iterator[tuple[str, str]]:
    """The values of `--deny`: all warnings, or the code of one."""
    if "warnings".startswith(incomplete):
        yield "warnings", "all of them"
    yield from ((code, line) for code, line in codes(incomplete) if code.startswith("W"))


def passes(incomplete: str) -> Iterator[str]:
    """The values of `--skip-pass`."""
    from brewgraph.graph.optimize import NAMES

    yield from (name for name in NAMES if name.startswith(incomplete))


def params(incomplete: str) -> Iterator[str]:
    """The params of the specs on the command line, each followed by `=`."""
    # the line as the shell passes it: the parser drops what precedes an option without its value
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    paths = [word for word in line.split() if word.endswith(".brew")]
    for name in dict.fromkeys(name for path in paths for name in _declared(path)):
        if name.startswith(incomplete):
            yield f"{name}="


def _declared(path: str) -> Iterator[str]:
    """The params that a spec declares, as far as it parses."""
    from brewgraph.diagnostics import Collector
    from brewgraph.source import Source
    from brewgraph.syntax.parser import parse
    from brewgraph.syntax.tree import Param

    try:
        source = Source.read(path)
    except (OSError, ValueError):
        return
    statements: Any = parse(source, Collector()).statements
    yield from (s.name for s in statements if isinstance(s, Param))
