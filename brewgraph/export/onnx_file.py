"""ONNX: a program of torch.export as a file, and files of it in int8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from brewgraph.export.capture import quiet
from brewgraph.models.exported import missing

AXES = ("batch", "length")
"""The names of the open axes of inputs."""
_LARGEST = 1 << 30
"""Bytes of weights above which they are in a file beside the model: a protobuf holds 2 GiB."""

Calibration = Sequence[Mapping[str, Any]]
"""Batches of inputs as arrays."""


def check_installed() -> None:
    """Raise `UsageError` if a package that writes ONNX files is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing(f"{error.name}, which writes ONNX models,", "export") from None


def to_onnx(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The program as torch's `ONNXProgram`, its inputs, outputs and open axes named, without notes on where in the code
    each node comes from. Raises torch's `OnnxExporterError` for what ONNX cannot express.
    """
    with quiet():
        made = torch.onnx.export(
            program, (), dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
        )
    assert made is not None
    _tidy(made.model)
    return made


def write_onnx(made: Any, path: Path) -> None:
    """Write an `ONNXProgram`; large weights are in a file beside it."""
    weights = sum(x.nbytes for x in made.exported_program.state_dict.values())
    with quiet():
        made.save(str(path), external_data=weights > _LARGEST)


def opset_of(made: Any) -> int:
    """The version of the operators that a model uses."""
    return int(made.model.opset_imports[""])


def _tidy(model: Any) -> None:
    """Name the open axes, and drop what the exporter noted beside the graph: paths of this machine, traces of calls."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        names |= {str(size): axis for size, axis in zip(value.shape or (), AXES, strict=False)}

    def renamed(value: Any) -> None:
        value.metadata_props.clear()
        value.doc_string = None
        if value.shape is not None:
            sizes = [x if isinstance(x, int) else names.get(str(x), str(x)) for x in value.shape]
            value.shape = type(value.shape)(sizes)

    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        renamed(value)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            renamed(value)
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.doc_string = None


# ── int8 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def quantize_dynamic(source: Path, path: Path) -> None:
    """Weights in int8, per channel; the ranges of activations are those of each batch.

    Weights take 7 bits, so that products of 8-bit activations do not overflow on processors without VNNI.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    with quiet():
        quantize(
            str(source),
            str(path),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=_external(source),
        )


def quantize_static(source: Path, path: Path, calibration: Calibration) -> None:
    """Weights and the inputs of matrix products in int8, with ranges that the calibration rows had."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Mapping[str, Any]] = iter(calibration)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.batches, None)

    with quiet():
        quantize(
            str(source),
            str(path),
            Rows(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=_external(source),
        )


def _external(source: Path) -> bool:
    return sum(x.stat().st_size for x in source.parent.glob(f"{source.name}*")) > _LARGEST
