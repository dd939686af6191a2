"""The processes of a run, as `accelerate launch` or `torchrun` started them, with devices and precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import datasets
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env, patch_environment
from torch import distributed

from brewgraph.diagnostics import RunError
from brewgraph.display.lines import count
from brewgraph.models.places import emulated
from brewgraph.recipe.settings.train import COMPILED, Train
from brewgraph.runtime.ranks import cpu_group
from brewgraph.training.shards import sharding

T = TypeVar("T")


def this_process() -> PartialState:
    """Rank and world size of this process; the first call connects the processes. Raises `RunError` if they were
    launched for an engine that is not supported.
    """
    if not PartialState._shared_state:
        _demand_supported_launch()
    # on a machine without an accelerator, accelerate connects processes only if told to use the CPU; otherwise each
    # would train alone, all into one folder
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())
    return PartialState(cpu=cpu)


def _demand_supported_launch() -> None:
    for flag, engine in (("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM")):
        if parse_flag_from_env(flag):
            raise RunError(
                f"{engine} is not supported: shard with FSDP2, `distributed_type: FSDP` and `fsdp_config: "
                "{fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}` in the file of `accelerate launch`"
            )
    sharding(int(os.environ.get("WORLD_SIZE", "1")))
    # every rank needs its own copy of the weights before it keeps its share of them
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


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
    """Devices, ranks and precision, as the machine and `accelerate launch` give them. Parameters are sharded by
    `training.shards`, not by accelerate. Raises `RunError` if the device lacks the precision.
    """
    this_process()
    precision = "no" if settings.precision == "fp32" else settings.precision
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        # accelerate keeps one precision per process and refuses a second, which another stage may have
        AcceleratorState._reset_state()
    try:
        with patch_environment(ACCELERATE_USE_FSDP="false"):
            return Accelerator(
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


def hardware() -> str:
    """What this run computes on: `2 × NVIDIA H200`, `CPU, 16 threads`."""
    device, ranks = this_process().device, this_process().num_processes
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {count(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else device.type.upper()
    return f"{ranks:,} × {name}" if ranks > 1 else name


def without_gain(settings: Train, device: torch.device) -> Iterator[str]:
    """What there is to say of settings that gain nothing on this device or for these processes."""
    asked = parse_flag_from_env("ACCELERATE_USE_FSDP")
    if asked and this_process().num_processes == 1:
        yield "FSDP has no effect on one process: nothing is sharded"
    if settings.shard_teachers and not asked:
        yield "`shard_teachers = true` has no effect: accelerate's configuration has no `distributed_type: FSDP`"
    if device.type != "cpu":
        return
    if settings.precision == "fp16":
        yield "`precision = fp16` needs a GPU: on a CPU this run computes in fp32; `precision = bf16` works on both"
    if settings.precision == "bf16" and (why := emulated(torch.bfloat16, device)):
        yield f"`precision = bf16` makes this run slower: {why}; leave it out"
    if settings.compile:
        yield f"`compile = true` gains nothing here: {COMPILED}"
