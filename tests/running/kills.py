"""End runs by signals at random points, repeat the command, and count how many end to the bit as an undisturbed one.

    python -m tests.running.kills --kill 50 --term 10 --int 10

It runs the specs of `everything.py` in forked processes, which need not import torch again. A run ended by SIGTERM or
SIGINT must exit with 143 or 130 and say in its last line how to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# before torch is imported
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from tests.running.everything import write_everything

NAMES = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


def command(folder: Path, log: Path) -> int:
    """Start `brewgraph run` for both specs in a forked process; its id."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from brewgraph.cli.main import application

        run = application(["run"])
        for name in ("student", "words"):
            try:
                run(["run", str(folder / f"{name}.brew")], prog_name="brewgraph")
            except SystemExit as end:
                code = int(end.code or 0)
            if code:
                break
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def result(folder: Path) -> dict[str, Any]:
    """All that runs leave, by file: bytes; of tables everything but the speeds."""
    files: dict[str, Any] = {}
    for path in sorted((folder / "runs").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "tfevents" in name or path.name in ("resolved.json", ".lock"):
            continue
        files[name] = path.read_bytes()
        if path.name == "finished.json":
            content = json.loads(files[name])
            content.pop("took", None)
            for row in content.get("table", ()):
                for timed in ("per_second", "seconds"):
                    row.pop(timed)
            files[name] = content
    return files


def repeated(folder: Path) -> Iterator[str]:
    """The lines of metrics that a folder holds twice."""
    for path in (folder / "runs").rglob("metrics.jsonl"):
        lines = path.read_text().splitlines()
        yield from (f"{path}: {line}" for line in set(lines) if lines.count(line) > 1)


def phase(log: str) -> str:
    """What a process was doing last, by its log."""
    trainings = [line for line in log.splitlines() if line.startswith("training ")]
    return trainings[-1].removeprefix("training ").rpartition(":")[0] if trainings else "before training"


def trial(base: Path, folder: Path, number: int, seconds: float, whole: dict[str, Any], phases: Counter[str]) -> str:
    """Run, send a signal after so many seconds, run again; "" if all is as it should be, else what is not. The phase
    in which the signal came is counted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    log = folder / "log"
    process = command(folder, log)
    time.sleep(seconds)
    os.kill(process, number)
    code, last = ended(process), (log.read_text().splitlines() or [""])[-1]
    phases[phase(log.read_text()) if code else "finished"] += 1
    if code and number != signal.SIGKILL and (code != 128 + number or "run the same command again" not in last):
        return f"exit code {code}: {log.read_text()}"
    for _ in range(2):  # the second time everything is finished
        if code := ended(command(folder, log)):
            return f"exit code {code} after {last!r}: {log.read_text()}"
    if doubled := list(repeated(folder)):
        return f"lines twice: {doubled}"
    found = result(folder)
    if different := sorted(name for name in found.keys() | whole if found.get(name) != whole.get(name)):
        return f"different: {different}, after {last!r}: {log.read_text()}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in NAMES:
        parser.add_argument(f"--{name}", type=int, default=0, help=f"how many runs to end by SIG{name.upper()}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import brewgraph.running.run  # before any fork

    assert brewgraph.running.run
    scratch = Path(tempfile.mkdtemp(prefix="brewgraph-kills-"))
    os.environ["BREWGRAPH_FACTS"] = str(scratch / "facts")
    chance, failed = random.Random(options.seed), 0
    write_everything(scratch / "base")
    lengths = []
    for name in ("first", "whole"):  # the second one finds what a check remembers
        shutil.copytree(scratch / "base", scratch / name)
        began = time.monotonic()
        assert ended(command(scratch / name, scratch / "log")) == 0, (scratch / "log").read_text()
        lengths.append(time.monotonic() - began)
    whole = result(scratch / "whole")
    assert whole == result(scratch / "first")
    print(f"undisturbed: {lengths[-1]:.1f} s, {len(whole)} files", flush=True)
    for name, number in NAMES.items():
        good, phases = 0, Counter[str]()
        for i in range(count := getattr(options, name)):
            seconds = chance.uniform(0, lengths[-1])
            fault = trial(scratch / "base", scratch / "trial", number, seconds, whole, phases)
            good += not fault
            if fault:
                print(f"SIG{name.upper()} {i} after {seconds:.2f} s: {fault}", flush=True)
        if count:
            where = ", ".join(f"{what} {times}" for what, times in phases.most_common())
            print(f"SIG{name.upper()}: {good} of {count} end to the bit as an undisturbed run ({where})", flush=True)
        failed += count - good
    if not failed:
        shutil.rmtree(scratch)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
