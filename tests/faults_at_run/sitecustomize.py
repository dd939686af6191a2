"""Makes a machine fail in the process that a test starts: FAULT names how, STEP when. Python imports it by its name."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

FAULT, STEP = os.environ.get("FAULT", ""), int(os.environ.get("STEP", "4"))


def at_step(run: Any) -> None:
    """What happens at a step of training, before it runs."""
    folder = run.folder.path
    match FAULT:
        case "the folder is deleted":
            shutil.rmtree(folder)
        case "a file in place of the checkpoints":
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            (folder / "checkpoints").write_text("")
        case "no memory":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines.")
        case "no memory on a CPU":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …"
            )
        case "no number":
            import torch

            with torch.no_grad():
                next(run.distiller.student.parameters()).fill_(float("nan"))
        case "killed":
            os.kill(os.getpid(), 9)


class _Patch(MetaPathFinder):
    """Wraps a step of the training loop, once it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        loop = sys.modules.get("brewgraph.training.loop")
        run = getattr(loop, "StageRun", None)
        if run is None or hasattr(run, "_patched"):
            return
        step = run._step

        def wrapped(self: Any, task: str, batches: list[Any]) -> None:
            if self.state.step == STEP:
                at_step(self)
            step(self, task, batches)

        run._step, run._patched = wrapped, True


class _Full:
    """A file on a full disk."""

    def __init__(self, file: Any):
        self._file = file

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
    opened = _open_before(file, mode, *rest, **options)
    wanted = isinstance(file, str | Path) and Path(file).name.lstrip(".").startswith(os.environ.get("FULL", "-"))
    return _Full(opened) if wanted and set("wa") & set(mode) else opened


if FAULT:
    sys.meta_path.insert(0, _Patch())
if "FULL" in os.environ:
    import io

    _open_before = builtins.open
    builtins.open = io.open = _open
