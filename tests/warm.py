"""Commands in processes of their own that need not load torch and transformers again: forks of a process that has.

A test that starts many processes takes most of its time to import. Here one process per test process imports what a run
imports, and forks for each command, which gets its folder, environment, output and limits as a new process would.

    python tests/warm.py        serves: a line of JSON is a command, the line that answers is its exit status
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def start(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], largest: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` for `-m MODULE …`, `-c PROGRAM` or a file, with no file larger than so many bytes."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        here = f"/proc/{os.getpid()}/fd/"
        outputs = [f"{here}{file.fileno()}" for file in (out, error)]
        asked = {"arguments": [*arguments], "folder": str(folder), "env": dict(env), "largest": largest, "out": outputs}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess([*arguments], status, *(Path(path).read_text() for path in outputs))


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)  # closes its stdin, upon which it ends
    return process


def serve() -> dict[str, Any] | None:
    """Fork for each line of stdin: in the child its command, and None at the end of stdin."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return dict(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def become(asked: Mapping[str, Any]) -> None:
    """Run a command in this process, as a new one would."""
    for descriptor, path in enumerate((os.devnull, *asked["out"])):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    sys.stdin = os.fdopen(0)  # what was read ahead belongs to the server
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    if asked["largest"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], asked["largest"]))
    first = asked["env"].get("PYTHONPATH", "").split(os.pathsep)[0]
    sys.path.insert(0, first)
    if (Path(first) / "sitecustomize.py").exists():  # it waits for imports, which are done
        runpy.run_path(str(Path(first) / "sitecustomize.py"))
        importlib.util.find_spec("brewgraph_of_no_such_name")
    how, what, *rest = asked["arguments"]
    sys.argv = [what, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401

    import brewgraph.cli.main
    import brewgraph.running.run
    import brewgraph.training.loop  # noqa: F401

    gc.freeze()  # children need not write to its pages
    if (command := serve()) is not None:
        become(command)
