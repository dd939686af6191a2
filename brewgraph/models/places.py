"""Where models run and what they compute in: whether this machine has the device, and the device the format."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from brewgraph.diagnostics import RunError, listing


def find_device(name: str, device: str) -> torch.device:
    """The device of the teacher `name`. Raises `RunError` if this machine does not have it."""
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by the device and the build of torch
        message = f"the teacher `{name}` is to run on `{device}`, which this machine does not have"
        raise RunError(f"{message}: it has {listing(_present())}; name one of them, or leave `device` out") from error
    return place


def _present() -> list[str]:
    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return ["cpu", *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))]


def check_format(name: str, dtype: torch.dtype, place: torch.device) -> None:
    """Raise `RunError` if a device cannot compute a layer in a number format: a product, a norm and an attention."""
    try:
        x = torch.ones(1, 2, 8, 8, dtype=dtype, device=place)
        F.layer_norm(F.linear(x, x[0, 0]), (8,))
        F.scaled_dot_product_attention(x, x, x)
    except (RuntimeError, NotImplementedError) as error:
        short = str(dtype).removeprefix("torch.")
        remedy = 'leave `dtype` out, or name another device: `device="…"`'
        raise RunError(f"the teacher `{name}` cannot compute in {short} on `{place.type}`: {remedy}") from error


def emulated(dtype: torch.dtype, place: torch.device) -> str:
    """Words on a number format that a processor lacks: its products then take some fifteen times as long as in fp32."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype)
    if name is None or place.type != "cpu" or not torch.backends.mkldnn.is_available():
        return ""
    is_native = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")
    return "" if is_native() else f"this processor has no instructions for {name}"
