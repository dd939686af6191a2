"""The processes of a run, as `accelerate launch` or `torchrun` started them, with devices and precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import datasets
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    parse_flag_from_env,
)
from torch import distributed

from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings.train import COMPILED, Train
from brewgraph.runtime.ranks import cpu_group

T = TypeVar("T")


def this_process() -> PartialState:
    """Rank and world size of this process; the first call connects the processes."""
    # on a machine without an accelerator, accelerate connects processes only if told to use the CPU; otherwise each
    # would train alone, all into one folder
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())
    return PartialState(cpu=cpu)


def on_main_process(action: Callable[[], T]) -> T | None:
    """The result of an action in the first process, None in the others; all wait for each other before and after."""
    process = this_process()
    process.wait_for_everyone()
    result = action() if process.is_main_process else None
    process.wait_for_everyone()
    return result


def largest_of_ranks(value: int) -> int:
    """The largest value of all ranks. It is exchanged on the CPU, so that no accelerator has to finish its work."""
    if this_process().num_processes == 1 or not distributed.is_initialized():
        return value
    largest = torch.tensor([value])
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=cpu_group(distributed.group.WORLD))
    return int(largest)


def own_share(rows: datasets.Dataset) -> datasets.Dataset:
    """The contiguous share of the rows that this process evaluates; the last ranks may have none."""
    world, rank = this_process().num_processes, this_process().process_index
    if world == 1:
        return rows
    return rows.shard(world, rank, contiguous=True) if rank < len(rows) else rows.select([])


def make_accelerator(settings: Train) -> Accelerator:
    """Devices, ranks and precision, as the machine and `accelerate launch` give them.

    Raises `RunError` if parameters would be sharded over ranks, which checkpoints do not support, or if the device
    lacks the precision.
    """
    this_process()
    precision = "no" if settings.precision == "fp32" else settings.precision
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        # accelerate keeps one precision per process and refuses a second, which another stage may have
        AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            # the loss is divided here: a setting of `accelerate launch` must not divide it again
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        )
    except ValueError as error:
        if f"{precision} mixed precision" not in str(error):
            raise
        place = this_process().device.type
        message = f"this machine's `{place}` cannot compute with `precision = {precision}`"
        raise RunError(f"{message}: choose another, or leave it out ({error})") from error
    sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharded:
        kind = accelerator.distributed_type.value
        raise RunError(
            f"{kind} is not supported yet: launch with plain data parallelism (`accelerate launch --multi_gpu`)"
        )
    return accelerator


def without_effect(settings: Train, device: torch.device) -> Iterator[str]:
    """What there is to say of settings that do nothing on this device."""
    if device.type != "cpu":
        return
    if settings.precision == "fp16":
        yield "`precision = fp16` needs a GPU: on a CPU this run computes in fp32; `precision = bf16` works on both"
    if settings.compile:
        yield f"`compile = true` gains nothing here: {COMPILED}"
