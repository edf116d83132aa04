"""Which of a machine's GPUs a job takes where no scheduler says so.

SLURM tells a job its GPUs. On a machine with several GPUs and without SLURM, Snakemake counts them
(--resources gpu=8) but does not tell jobs apart: each would take the first. So a job that needs one
GPU locks a file for it, for as long as it lives.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from dpa.errors import InputError
from dpa.runtime.log import log

#: The lock of this process's GPU.
_held: list[IO[str]] = []


def claim_gpu(devices: Path = Path("/dev")) -> None:
    """Restrict this process to a GPU that no other job here has, unless it has been given its own.

    To be called before CUDA is first used. Does nothing with fewer than two GPUs. Raises InputError
    when all are taken.
    """
    if _held or "SLURM_JOB_ID" in os.environ:
        return
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
        gpus = sorted(numbers, key=int)
    else:
        gpus = [gpu for gpu in given.split(",") if gpu]
    if len(gpus) < 2:
        return
    for gpu in gpus:
        file = open(Path(tempfile.gettempdir()) / f"dpa-{os.getuid()}-gpu{gpu}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        log.info("takes GPU %s of %s", gpu, ", ".join(gpus))
        return
    raise InputError(
        f"all {len(gpus)} GPUs are taken by other jobs of this workflow; tell Snakemake how many "
        f"there are: --resources gpu={len(gpus)}"
    )
