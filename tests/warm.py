"""Commands in processes of their own that need not load torch and transformers again: forks of a process that has.

A test that starts many processes takes most of its time to import. Here one process per test process imports what a run
imports, and forks for each command, which gets its folder, environment, output and limits as a new process would.

    python tests/warm.py        serves: a line of JSON is a list of commands, which start together; the line that answers
                                is their exit statuses, stdouts and stderrs
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib.util
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
_CAPABILITIES = 0x20080522
"""The version of Linux's interface."""
_ROOT_READS = 1 << 1 | 1 << 2
"""DAC_OVERRIDE and DAC_READ_SEARCH, by which root reads what a file's mode forbids."""


def start(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    limits: Mapping[int, int] | None = None,
    *,
    as_user: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE …` or `python -c PROGRAM …`, with limits of its resources; as a user, root may not read what a
    file's mode forbids.
    """
    asked = {"arguments": [*arguments], "folder": str(folder), "env": dict(env)}
    return _ended([asked | {"limits": [*(limits or {}).items()], "as_user": as_user}])[0]


def start_ranks(*arguments: str, ranks: int = 2, **env: str) -> list[str]:
    """`python -m MODULE …` or `python -c PROGRAM …` on so many processes of one group, as a launcher starts them; what
    each of them prints. All have to end well.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    common = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY), **group, **env}
    asked = {"arguments": [*arguments], "folder": str(Path.cwd()), "limits": [], "as_user": False}
    ended = _ended([asked | {"env": {**common, "RANK": str(x), "LOCAL_RANK": str(x)}} for x in range(ranks)])
    assert not any(x.returncode for x in ended), "\n".join(f"{x.returncode}: {x.stderr[-4000:]}" for x in ended)
    return [x.stdout for x in ended]


def _ended(asked: Sequence[Mapping[str, Any]]) -> list[subprocess.CompletedProcess[str]]:
    """Processes that have run. If this is broken off, as where a test has taken too long, none of them is left."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        answers = json.loads(server.stdout.readline())
    except BaseException:
        os.killpg(server.pid, signal.SIGKILL)
        _server.cache_clear()
        raise
    return [subprocess.CompletedProcess(x["arguments"], *answer) for x, answer in zip(asked, answers, strict=True)]


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(process.communicate)  # closes its stdin, upon which it ends
    return process


def serve() -> dict[str, Any] | None:
    """Fork for each command of each line of stdin: in the child its command, and None at the end of stdin."""
    for line in sys.stdin:
        children: dict[int, list[int]] = {}
        for asked in json.loads(line):
            pipes = os.pipe(), os.pipe()
            if (child := os.fork()) == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                for descriptor, (_, end) in enumerate(pipes, 1):
                    os.dup2(end, descriptor)
                for pipe in pipes:
                    for end in pipe:
                        os.close(end)
                return dict(asked)
            for _, end in pipes:
                os.close(end)
            children[child] = [end for end, _ in pipes]
        print(json.dumps(ends_of(children)), flush=True)
    return None


def ends_of(children: Mapping[int, Sequence[int]]) -> list[tuple[int, str, str]]:
    """Wait for processes: their exit statuses, and what they wrote into their pipes. One that fails ends the others, which
    would wait for it.
    """
    texts = {pipe: b"" for pipes in children.values() for pipe in pipes}
    statuses: dict[int, int] = {}
    with selectors.DefaultSelector() as waiting:
        for child, pipes in children.items():
            for pipe in pipes:
                waiting.register(pipe, selectors.EVENT_READ, child)
        while waiting.get_map():
            for key, _ in waiting.select():
                if chunk := os.read(key.fd, 1 << 16):
                    texts[key.fd] += chunk
                    continue
                waiting.unregister(key.fd)
                os.close(key.fd)
                if any(x.data == key.data for x in waiting.get_map().values()):
                    continue
                statuses[key.data] = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                if statuses[key.data]:
                    for other in children.keys() - statuses.keys():
                        os.kill(other, signal.SIGKILL)
    return [(statuses[child], texts[one].decode(), texts[other].decode()) for child, (one, other) in children.items()]


def become(asked: Mapping[str, Any]) -> None:
    """Run a command in this process, as a new one would."""
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")  # what was read ahead belongs to the server
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    if asked["as_user"]:
        libc, who, sets = ctypes.CDLL(None), struct.pack("Ii", _CAPABILITIES, 0), ctypes.create_string_buffer(24)
        assert libc.capget(who, sets) == 0
        effective, *others = struct.unpack("6I", sets)
        assert libc.capset(who, struct.pack("6I", effective & ~_ROOT_READS, *others)) == 0
    for which, most in asked["limits"]:
        resource.setrlimit(which, (most, most))
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
