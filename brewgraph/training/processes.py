"""The processes of a run, as `accelerate launch` or `torchrun` started them; alone, one that is all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def this_process() -> PartialState:
    """Which of how many this process is; the first call connects them."""
    # accelerate takes the processes of a machine without an accelerator for strangers, unless told that it is to use
    # the CPU: each would then train the whole alone, all of them into one folder
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())
    return PartialState(cpu=cpu)


@contextmanager
def main_process_alone() -> Iterator[bool]:
    """True in the first process; all wait for each other before and after."""
    process = this_process()
    process.wait_for_everyone()
    yield bool(process.is_main_process)
    process.wait_for_everyone()


def own_share(rows: datasets.Dataset) -> datasets.Dataset:
    """The part of some rows that this process evaluates: as many in one piece as fall to it, which may be none."""
    process = this_process()
    return piece(rows, process.num_processes, process.process_index)


def piece(rows: datasets.Dataset, world: int, rank: int) -> datasets.Dataset:
    """One of `world` pieces of some rows; of fewer rows than that, none for the last ranks."""
    if world == 1:
        return rows
    return rows.shard(world, rank, contiguous=True) if rank < len(rows) else rows.select([])
