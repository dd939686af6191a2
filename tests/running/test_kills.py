"""Real processes, ended by signals at a few random points; `python -m tests.running.kills --kill 50` does more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_that_are_killed_and_repeated_end_to_the_bit(tmp_path: Path) -> None:
    """With everything on that a resumed run must continue."""
    command = [sys.executable, "-m", "tests.running.kills", "--kill", "4", "--term", "2", "--int", "2"]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for name, count in (("KILL", 4), ("TERM", 2), ("INT", 2)):
        assert f"SIG{name}: {count} of {count} end to the bit" in done.stdout
