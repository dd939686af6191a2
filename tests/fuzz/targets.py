"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz.targets TARGET -max_total_time=60` gives a target bytes that
reach more and more of brewgraph's code, until one of them raises what it should not. Other options are libFuzzer's; a
file as the last argument is one input, tried again.

atheris is the extra `fuzz`; it has wheels for Linux.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Test = Callable[[bytes], None]
SCRATCH = Path(tempfile.mkdtemp(prefix="brewgraph-fuzz-"))


def _spec(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def parser() -> Test:
    """Any text is a tree or has diagnostics, each of which can be shown."""
    from brewgraph.diagnostics import Collector, render
    from brewgraph.source import Source
    from brewgraph.syntax.parser import parse

    def test(raw: bytes) -> None:
        collector = Collector()
        parse(Source(_spec(raw)), collector)
        assert all(diagnostic.message and render(diagnostic, width=80) for diagnostic in collector.diagnostics)

    return test


def formatter() -> Test:
    """What parses has one layout, which parses to the same tree."""
    from brewgraph.diagnostics import Collector, SpecError
    from brewgraph.source import Source
    from brewgraph.syntax.format import format_source
    from brewgraph.syntax.parser import parse

    def test(raw: bytes) -> None:
        source = Source(_spec(raw))
        try:
            once = format_source(source)
        except SpecError:
            return
        assert format_source(Source(once)) == once
        assert parse(Source(once), Collector()) == parse(source, Collector())

    return test


def checker() -> Test:
    """Any text is a recipe or has diagnostics."""
    from brewgraph.checking.check import check_names
    from brewgraph.diagnostics import SpecError
    from brewgraph.source import Source

    def test(raw: bytes) -> None:
        try:
            check_names(Source(_spec(raw)), {})
        except SpecError as error:
            faults = error.diagnostics
        else:
            return
        assert faults

    return test


def checkpoint() -> Test:
    """A checkpoint whose JSON (an even first byte) or whose tensors are these bytes is read, or refused in one line."""
    from brewgraph.diagnostics import RunError
    from brewgraph.training.checkpoint import read_checkpoint
    from brewgraph.training.state_files import FILES

    whole = _checkpoint()

    def test(raw: bytes) -> None:
        changed = FILES[raw[:1] < b"\x80"]
        for name, content in whole.items():
            (SCRATCH / name).write_bytes(raw[1:] if name == changed else content)
        said = ""
        try:
            assert read_checkpoint(SCRATCH, 1).stage == 0
        except RunError as error:
            said = str(error)
        assert "\n" not in said

    return test


def store() -> Test:
    """A row of these bytes, or one with their right checksum, is a value, or damaged."""
    from brewgraph.runtime.store import _HEAD, _checksum, _value

    example = b"x" * 16

    def test(raw: bytes) -> None:
        row, said = raw, "a value in it is damaged"
        if len(raw) > 3 and raw[0] % 2:
            types = raw[1] % 16, raw[2] % 16
            row = _HEAD.pack(_checksum(example, types, raw[3:]), *types) + raw[3:]
        try:
            _value(example, memoryview(row))
        except ValueError as error:
            said = str(error)
        assert said == "a value in it is damaged"

    return test


def _checkpoint() -> dict[str, bytes]:
    """The files of a small checkpoint."""
    import torch

    from brewgraph.training.state_files import FILES, write_state

    content = {"stage": 0, "module": {"w": torch.arange(64.0)}, "progress": {"score": 0.5}, "pair": (1, [2.0, None])}
    write_state(content, SCRATCH)
    return {name: (SCRATCH / name).read_bytes() for name in FILES}


def _corpus(target: str) -> list[bytes]:
    """Inputs to begin with."""
    if target == "checkpoint":
        tensors, plain = _checkpoint().values()
        return [b"\xff" + tensors, b"\0" + plain]
    if target == "store":
        import torch

        from brewgraph.runtime.store import _row

        return [
            _row(b"x" * 16, x) for x in (torch.arange(6.0).view(2, 3), torch.tensor(True), torch.zeros(0, 4).half())
        ]
    repository = Path(__file__).parents[2]
    return [path.read_bytes() for path in sorted((repository / "specs").rglob("*.brew"))]


TARGETS = {target.__name__: target for target in (parser, formatter, checker, checkpoint, store)}


def main() -> int:
    """Fuzz one target; 0 where atheris is not installed, with a line that says so."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(f"usage: python -m tests.fuzz.targets {{{','.join(TARGETS)}}} [OPTION…]")
        return 2
    target, options = sys.argv[1], sys.argv[2:]
    if importlib.util.find_spec("atheris") is None:
        print(f"{target} is not fuzzed: atheris is not installed here (pip install 'brewgraph[fuzz]')")
        return 0
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["brewgraph"]):
        test = TARGETS[target]()
    if all(option.startswith("-") for option in options):
        folder = Path(tempfile.mkdtemp(prefix=f"brewgraph-{target}-"))
        for number, content in enumerate(_corpus(target)):
            (folder / str(number)).write_bytes(content)
        options.append(str(folder))
    limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", f"-artifact_prefix={SCRATCH}/"]
    atheris.Setup([sys.argv[0], *limits, *options], test)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
