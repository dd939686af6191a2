"""Exported models as modules: tensors go to ONNX Runtime, OpenVINO or a program of torch.export, and come back."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from brewgraph.diagnostics import BrewError, RunError, UsageError, listing
from brewgraph.models.export_record import ExportRecord, read_record, restoring
from brewgraph.models.loading import quiet_transformers

Run = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
"""Inputs by name to outputs in order."""


class ExportedModel(nn.Module):
    """A model that another runtime runs, in the place of the student that it was made from: `model(input_ids=…, …)`
    gives an object with its outputs by name. `config` is the student's. It has no parameters, on no device.
    """

    def __init__(self, record: ExportRecord, config: Any, run: Run):
        super().__init__()
        self.record, self.config, self._run = record, config, run

        def forward(**inputs: Tensor) -> SimpleNamespace:
            try:
                outputs = run(inputs)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # each runtime has its own
                rows, length = next(iter(inputs.values())).shape
                raise RunError(
                    f"the exported model cannot run a batch of {rows} x {length} tokens in {record.target} "
                    f"({first_line(error)}): export the student again, or give it shorter texts"
                ) from error
            return SimpleNamespace(**dict(zip(record.outputs, outputs, strict=True)))

        self.forward = taking(record.inputs, forward)

    @property
    def place(self) -> str:
        """Where it runs: `cuda` or `cpu`."""
        return str(getattr(self._run, "device", "cpu"))


def taking(names: Sequence[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of any keywords, with a signature of these ones."""
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def load_exported(
    folder: Path, record: ExportRecord | None = None, *, device: str = "cpu", threads: int | None = None
) -> ExportedModel:
    """The model in an exported folder, on `threads` of the CPU (by default torch's number), or on the GPU if `device`
    is `cuda` and its runtime has one. The record is that in the folder unless it is given.

    Raises `UsageError` if the folder holds no model or a damaged one, or its runtime is not installed.
    """
    record = record or read_record(folder)
    if record is None:
        raise UsageError(f"`{folder}` holds no exported model: name a folder that `brewgraph export` wrote")
    config = read_config(folder)
    load, path = _RUNTIMES[record.target], folder / record.file
    with readable(path):
        run = load(path, record, device, threads or torch.get_num_threads())
    return ExportedModel(record, config, run)


def read_config(folder: Path) -> Any:
    """The configuration of the student in a folder. Raises `UsageError` for a damaged one."""
    with readable(folder / "config.json"), quiet_transformers():
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever a library raises for a damaged file into a `UsageError`."""
    try:
        yield
    except (BrewError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each runtime has its own
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UsageError:
    """The fault of a file in a student's folder that cannot be used."""
    return UsageError(f"`{path}` cannot be read ({first_line(error)}): {restoring(path.parent)}")


def first_line(error: BaseException) -> str:
    """What a library says first, as a clause; OpenVINO begins with lines of its code."""
    lines = (line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from "))
    return next(lines, type(error).__name__).strip()[:120].rstrip(" .:")


def missing(package: str, extra: str) -> UsageError:
    """The fault of a library that is not installed."""
    return UsageError(f'{package} is not installed: `pip install "brewgraph[{extra}]"`')


def _load_onnx(path: Path, record: ExportRecord, device: str, threads: int) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise missing("onnxruntime, which runs ONNX models,", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
    known = set(onnxruntime.get_available_providers())
    providers = [*(x for x in wanted if x in known), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    names = list(record.outputs)
    there = [x.name for x in (*session.get_inputs(), *session.get_outputs())]
    if set(there) != {*record.inputs, *record.outputs}:
        raise ValueError(f"it has {listing(there)}, and not {listing([*record.inputs, *record.outputs])}")

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        arrays = {name: inputs[name].cpu().numpy() for name in record.inputs}
        return [torch.from_numpy(x) for x in session.run(names, arrays)]

    run.device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"  # type: ignore[attr-defined]
    return run


def _load_openvino(path: Path, record: ExportRecord, device: str, threads: int) -> Run:
    openvino = import_openvino()
    # the CPU plugin would compute in bf16 where a processor can
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        results = compiled({name: inputs[name].cpu().numpy() for name in record.inputs})
        return [torch.from_numpy(results[name].copy()) for name in record.outputs]

    return run


def import_openvino() -> Any:
    """The package. Raises `UsageError` if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as an error, one of them ends the process
            import openvino
    except ImportError:
        raise missing("openvino", "openvino") from None
    return openvino


def _load_torch(path: Path, record: ExportRecord, device: str, threads: int) -> Run:
    program = torch.export.load(str(path))
    if device == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()

    @torch.no_grad()
    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        return list(module(**{name: inputs[name].to(device) for name in record.inputs}))

    run.device = device  # type: ignore[attr-defined]
    return run


_RUNTIMES: Mapping[str, Callable[[Path, ExportRecord, str, int], Run]] = {
    "onnx": _load_onnx,
    "openvino": _load_openvino,
    "torch": _load_torch,
}
