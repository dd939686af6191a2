"""Commands in processes of their own that need not load torch and transformers again: forks of a process that has.

A test that starts many processes takes most of its time to import. Here one process per test process imports what a run
imports, and forks for each command, which gets its folder, environment, output and limits as a new process would.

    python tests/warm.py        serves: a line of JSON is a command, the line that answers its exit status, stdout and stderr
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import resource
import runpy
import selectors
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def start(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], largest: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE …` or `python -c PROGRAM`, with no file larger than so many bytes."""
    asked = {"arguments": [*arguments], "folder": str(folder), "env": dict(env), "largest": largest}
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    return subprocess.CompletedProcess([*arguments], *json.loads(server.stdout.readline()))


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
        pipes = os.pipe(), os.pipe()
        if (child := os.fork()) == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, (_, end) in enumerate(pipes, 1):
                os.dup2(end, descriptor)
            for pipe in pipes:
                for end in pipe:
                    os.close(end)
            return dict(json.loads(line))
        for _, end in pipes:
            os.close(end)
        texts = read_all([end for end, _ in pipes])
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *texts]), flush=True)
    return None


def read_all(ends: Sequence[int]) -> list[str]:
    """What is written into pipes until nobody writes any more."""
    found = dict.fromkeys(ends, b"")
    with selectors.DefaultSelector() as waiting:
        for end in ends:
            waiting.register(end, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                chunk = os.read(key.fd, 1 << 16)
                found[key.fd] += chunk
                if not chunk:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return [text.decode() for text in found.values()]


def become(asked: Mapping[str, Any]) -> None:
    """Run a command in this process, as a new one would."""
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")  # what was read ahead belongs to the server
    sys.stderr = os.fdopen(2, "w", buffering=1)
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
