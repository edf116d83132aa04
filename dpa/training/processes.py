"""The processes of a training job: how many there are, and which of them writes.

accelerate's launcher starts them (see docs/training.md); a script started with plain python is one
process. Every process trains; the main one alone writes files and logs.
"""

import os
from datetime import timedelta
from functools import cache
from typing import Any

import torch

from dpa.runtime.gpus import claim_gpus

#: How long processes wait for each other: while the main one hashes, packs or saves tens of
#: gigabytes the others are in a collective operation, which NCCL ends after ten minutes.
LONGEST_WAIT = timedelta(hours=4)


def process_state() -> Any:
    """accelerate's PartialState: joins the other processes on the first call, which takes a GPU.

    The first call makes the process group, whatever a Trainer's arguments say later (ddp_timeout).
    """
    from accelerate import PartialState

    _take_own_gpu()
    # Without `cpu`, processes on a machine without a GPU would not join.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


@cache
def _take_own_gpu() -> None:
    """One of several GPUs that are visible, or the Trainer would use them all, in its own ways.

    Several processes have had theirs claimed by what launched them (scripts/hold_gpus.py).
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        claim_gpus()


def is_main_process() -> bool:
    """Whether this process writes what the job makes."""
    return process_state().is_main_process


def agree(value: Any) -> Any:
    """The main process's `value`, in every process."""
    from accelerate.utils import broadcast_object_list

    state = process_state()
    if state.num_processes == 1:
        return value
    return broadcast_object_list([value], from_process=0)[0]


def gather(value: Any) -> list[Any]:
    """The `value` of every process, by its number, in every process."""
    from accelerate.utils import gather_object

    return gather_object([value])


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process."""
    state = process_state()
    if state.num_processes == 1:
        return flag
    flags = torch.tensor(int(flag), device=state.device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags.item())


def shard_on_cpu() -> None:
    """Let accelerate shard models over CPU processes.

    torch can (gloo); accelerate shards over devices only, and takes any kind but CPU for one.
    Called between a trainer's arguments and the trainer, as the former begin with a fresh state.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    if process_state().distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
