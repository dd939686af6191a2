"""What commands are given: shared arguments and options, the values of `--set`, and specs to read and check."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brewgraph.cli.complete import params, passes, runs, specs, warnings
from brewgraph.cli.output import hush, print_diagnostics
from brewgraph.diagnostics import UsageError, suggest
from brewgraph.source import MOST_BYTES, EncodingError, Source, is_call

if TYPE_CHECKING:
    from brewgraph.checking.check import Checked
    from brewgraph.inspect.targets import Models
    from brewgraph.running.sweep import Between

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A spec file; - reads stdin.", autocompletion=specs)]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The folder of a finished run, such as runs/NAME-HASH, or of its baseline, runs/NAME-HASH/alone.",
        autocompletion=runs,
    ),
]
Task = Annotated[str | None, typer.Option(metavar="NAME", help="A task, if the spec has several.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a param of the spec. Repeatable.", autocompletion=params),
]
Deny = Annotated[
    list[str] | None,
    typer.Option(
        metavar="warnings|CODE", help="Fail on any warning, or on this one. Repeatable.", autocompletion=warnings
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RUN|SPEC",
        help="The folder or hub name of a model, a call as in a spec, the folder of a run, or a spec.",
    ),
]
ModelName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model of the spec; by default all.")]
Depth = Annotated[int | None, typer.Option(min=0, help="Levels below the model.", show_default="all")]
AllowPython = Annotated[bool, typer.Option("--allow-python", help="Let the spec import Python modules beside it.")]
Format = Annotated[Literal["text", "json"], typer.Option(help="Text to read, or JSON for programs.")]


def _runs(default: str) -> Any:
    return typer.Option("--runs", help="The folder of runs, also set by BREWGRAPH_RUNS.", show_default=default)


Runs = Annotated[Path | None, _runs("runs/ beside each spec")]
RunsHere = Annotated[Path | None, _runs("runs/ here")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
SkipPass = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-pass",
        metavar="NAME",
        help="Skip an optimization pass. Results do not change. Repeatable.",
        autocompletion=passes,
    ),
]

_LONGEST_NUMBER = 19
"""Characters: what is longer is a float, or infinite."""
_LONGEST_RANGE = 10**9
"""The most whole numbers of a range."""
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r""",(?=(?:[^"']|"[^"]*"|'[^']*')*$)(?![^\[]*\])""")
"""A comma that is neither in quotes nor in brackets."""
_RANGE = re.compile(rf"(?P<low>{_FLOAT.pattern})\.\.(?P<high>{_FLOAT.pattern})")
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def parse_sets(
    options: Sequence[str] | None, value_of: Callable[[str], Any] | None = None, option: str = "--set"
) -> dict[str, Any]:
    """The params of `--set T=8 --set name=abc`. Values are numbers, `true`, `false`, `none`, lists such as `[0, 4]`, or
    text; quotes keep `"8"` a text. The last value of a name counts. `value_of` reads other values. Raises `UsageError`
    for any other form.
    """
    params: dict[str, Any] = {}
    for text in options or ():
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name.isidentifier():
            wanted = name.split(" ")[0] if not sign else name.replace("-", "_").rpartition(".")[2]
            remedy = f"write `{option} {wanted}=VALUE`" if wanted.isidentifier() else f"write `{option} NAME=VALUE`"
            raise UsageError(f"`{option} {text}` is not of the form `name=value`: {remedy}")
        params[name] = (value_of or parse_value)(value)
    return params


def parse_axes(options: Sequence[str] | None) -> dict[str, Sequence[Any] | Between]:
    """The values of `--set T=2,4,8 --set seed=0..4 --set lr=1e-5..1e-3`, each as in `parse_sets`, and each once.

    A range of whole numbers includes both ends. Raises `UsageError`.
    """
    from brewgraph.running.sweep import Between

    axes: dict[str, Sequence[Any] | Between] = {}
    for option in options or ():
        ((name, text),) = parse_sets([option], str).items()
        if name in axes:
            raise UsageError(f"`--set {name}=…` is there twice: write all its values in one, `--set {name}=A,B,C`")
        parts = [part.strip() for part in _COMMA.split(text)]
        if len(parts) > 1 and not all(parts):
            raise UsageError(f"`--set {name}={text}` has an empty value: remove a comma")
        if ends := _RANGE.fullmatch(text):
            low, high = parse_value(ends["low"]), parse_value(ends["high"])
            if low > high:
                raise UsageError(
                    f"`--set {name}={text}` is an empty range: write `{name}={ends['high']}..{ends['low']}`"
                )
            whole = isinstance(low, int) and isinstance(high, int)
            if high - low >= (_LONGEST_RANGE if whole else float("inf")):
                raise UsageError(f"`--set {name}={text}` is too wide a range: write nearer ends")
            axes[name] = range(low, high + 1) if whole else Between(float(low), float(high))
        else:
            values: dict[tuple[bool, Any], Any] = {}
            for value in map(parse_value, parts):
                values.setdefault((isinstance(value, bool), value), value)  # 2.0 is 2, and true is not 1
            axes[name] = tuple(values.values())
    return axes


def parse_value(text: str) -> Any:
    """A value as written on the command line."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= _LONGEST_NUMBER else float(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        return tuple(parse_value(part.strip()) for part in text[1:-1].split(",") if part.strip())
    return text


def parse_deny(options: Sequence[str] | None) -> frozenset[str]:
    """The codes of `--deny warnings --deny W205,W207`. Raises `UsageError` for anything but warnings."""
    from brewgraph.explanations import CODES

    warnings = [code for code in CODES if code.startswith("W")]
    denied: set[str] = set()
    for word in (part.strip() for text in options or () for part in text.split(",")):
        if word != "warnings" and word not in warnings:
            hint = suggest(word, ["warnings", *warnings]) or "write `--deny warnings` or `--deny W205`"
            raise UsageError(f"`--deny {word}` names no warning: {hint}")
        denied.update(warnings if word == "warnings" else [word])
    return frozenset(denied)


def read(path: str) -> Source:
    """A spec from a file, or from stdin for `-`. Raises `UsageError` if there is none."""
    from brewgraph.checking.check import read_spec

    if path == "-":
        return read_stdin()
    if Path(path).is_dir():
        raise UsageError(f"`{path}` is a folder; name a file in it")
    return read_spec(path)


def read_stdin() -> Source:
    """The content of stdin. Raises `UsageError` if it is not UTF-8."""
    try:
        return Source.of(sys.stdin.buffer.read(MOST_BYTES), "<stdin>", "standard input")
    except EncodingError as error:
        raise UsageError(str(error)) from error


def check_spec(path: str, sets: Sequence[str] | None, *, warn: bool = True) -> Checked:
    """Read and check a spec; with `warn` print its warnings to stderr."""
    from brewgraph.checking.check import check

    source, params = read(path), parse_sets(sets)
    hush()
    checked = check(source, params)
    if warn:
        print_diagnostics(checked.warnings, sys.stderr)
    return checked


def models_of(target: str, name: str | None, sets: Sequence[str] | None) -> Models:
    """The models that MODEL|RUN|SPEC means. Raises `UsageError` for options of specs if it is none."""
    if not is_call(target) and (target == "-" or target.endswith(".brew") or Path(target).is_file()):
        checked = check_spec(target, sets)
        from brewgraph.inspect.targets import spec_models

        return spec_models(checked, name)
    if name is not None or sets:
        raise UsageError(f"`{target}` is not a spec: a model's name and --set need one")
    hush()
    from brewgraph.inspect.targets import target_models

    return target_models(target)
