"""`brewgraph cache`: computes what a spec keeps on disk."""

from __future__ import annotations

import os
import sys

from brewgraph.cli.options import AllowPython, Quiet, Runs, Set, Spec, check_spec
from brewgraph.cli.output import print_diagnostics


def command(
    spec: Spec,
    set: Set = None,
    runs: Runs = None,
    allow_python: AllowPython = False,
    quiet: Quiet = False,
) -> None:
    """Compute what a spec's `cache` statements keep of its training data, before any run.

    Neither the student nor the losses run. An interrupted call goes on where it stopped.
    """
    main = os.environ.get("RANK", "0") == "0"  # only one rank prints
    checked = check_spec(spec, set, warn=False)
    if main and not quiet:
        print_diagnostics(checked.warnings, sys.stderr)
    from brewgraph.cli.progress import make_reporter
    from brewgraph.running.fill_caches import fill_caches

    reporter = make_reporter(sys.stderr, quiet=quiet or not main)
    for name, (written, read, left_out) in fill_caches(checked, reporter, runs=runs, allow_python=allow_python).items():
        full = f"; {left_out:,} do not fit: the limit is reached" if left_out else ""
        if main:
            print(f"cache {name}: {written:,} examples computed and written, {read:,} there before{full}")
