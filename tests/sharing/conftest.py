"""A finished run with its baseline, which every test of this room takes or copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tiny import command, write_tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("shared")
    spec = write_tiny(folder)
    spec.write_text(spec.read_text().replace("steps = 2 }", "steps = 2; baseline = true; trackers = [] }"))
    result = command("run", str(spec))
    assert result.exit_code == 0, result.stderr
    (run,) = folder.glob("runs/student-*")
    return run
