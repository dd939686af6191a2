"""OpenVINO: an ONNX file as its intermediate representation, in fp32, fp16 and int8."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

from brewgraph.export.capture import quiet
from brewgraph.export.onnx_file import Calibration
from brewgraph.models.exported import import_openvino, missing


def check_installed(precision: str) -> None:
    """Raise `UsageError` if OpenVINO, or what it needs for int8, is missing."""
    import_openvino()
    if precision.startswith("int8"):
        try:
            with quiet():
                import nncf  # noqa: F401
        except ImportError:
            raise missing("nncf, which quantizes for OpenVINO,", "openvino") from None


def write_openvino(source: Path, path: Path, precision: str, calibration: Calibration) -> None:
    """Write an ONNX file as `path` (.xml) and its weights (.bin) beside it.

    `fp16` and `int8-dynamic` are formats of the weights: OpenVINO decides in which it computes. `int8-static` also has
    the ranges of activations that the calibration rows had.
    """
    openvino = import_openvino()
    with quiet(), redirect_stdout(io.StringIO()):  # NNCF draws bars
        model = openvino.convert_model(str(source))
        if precision.startswith("int8"):
            import nncf

            nncf.set_log_level(40)  # errors
            if precision == "int8-static":
                rows = nncf.Dataset(list(calibration))
                model = nncf.quantize(
                    model, rows, model_type=nncf.ModelType.TRANSFORMER, subset_size=max(1, len(calibration))
                )
            else:
                model = nncf.compress_weights(model)
        openvino.save_model(model, str(path), compress_to_fp16=precision == "fp16")
