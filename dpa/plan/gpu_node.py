"""Whether the node that preflight runs on can do what jobs with a GPU will ask of it.

It is torch that is asked, on a GPU of this job's own. nvidia-smi says what torch cannot: the memory
of the other GPUs, and the driver's version; it may print `[N/A]` or anything else in their place.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from dpa.config.experiment import Config
from dpa.plan.fit import needs
from dpa.plan.work import Experiment, Job
from dpa.runtime.gpus import Gpu, claim_gpus, nvidia_smi, visible_gpus, why_no_gpu

#: A card reports a little less than the memory that it is sold with.
REPORTED_SHARE = 0.93
#: The first with bfloat16 (compute capability; NVIDIA's Ampere), in which jobs compute.
CAPABILITY = (8, 0)
#: The first driver for a CUDA's major version (NVIDIA's table of minor version compatibility).
DRIVERS = {12: 525, 13: 580}


def gpus(config: Config, experiment: Experiment | None, jobs: Iterable[Job]) -> Iterator[str]:
    """Whether torch can compute on a GPU here, and whether there are enough, of enough memory.

    A SLURM job sees its own GPU only. That its node has as many as a training job takes is asked of
    SLURM; other nodes of the partition are taken to be like it.
    """
    visible = visible_gpus()
    claim_gpus()
    if reason := why_no_gpu():
        yield (
            f"torch sees no GPU here ({reason}{old_driver()}): check the driver and that the job "
            "asks for a GPU, or set compute.gpu to false"
        )
        return
    import torch

    own = torch.cuda.get_device_properties(0)
    yield from computing(own.name, (own.major, own.minor))
    yield from enough(config, len(visible) or torch.cuda.device_count())
    yield from roomy(config, [*told_memory(visible), own.total_memory / 2**30])
    if experiment is not None:
        yield from fitting(experiment, jobs)


def computing(name: str, capability: tuple[int, int], device: str = "cuda") -> Iterator[str]:
    """Whether a GPU computes in bfloat16: by its compute capability, and by a product."""
    import torch

    if capability < CAPABILITY:
        yield (
            f"the GPU here ({name}) has compute capability {capability[0]}.{capability[1]}, and "
            f"bfloat16, in which jobs compute, takes {CAPABILITY[0]}.{CAPABILITY[1]}: choose other "
            "nodes"
        )
        return
    try:
        ones = torch.ones(256, 256, dtype=torch.bfloat16, device=device)
        right = bool(((ones @ ones) == 256).all())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        yield f"the GPU here ({name}) cannot compute: torch says: {reason:.300}: choose other nodes"
    else:
        if not right:
            yield f"the GPU here ({name}) computes a wrong product in bfloat16: choose other nodes"


def enough(config: Config, visible: int) -> Iterator[str]:
    """Whether a node has the GPUs that a training takes on each."""
    wanted = config.compute.training_processes
    node = os.environ.get("SLURMD_NODENAME")
    count = (slurm_gpus(node) if node else visible) or wanted
    if count < wanted:
        yield (
            f"{f'node {node}' if node else 'this machine'} has {count} GPUs, and "
            f"compute.training_processes is {wanted}: lower it, or choose other nodes"
        )


def roomy(config: Config, sizes: Sequence[float]) -> Iterator[str]:
    """Whether GPUs have the memory (GiB) that plans reckon with."""
    if (smallest := min(sizes)) < REPORTED_SHARE * config.plan.gpu_memory_gb:
        yield (
            f"a GPU here has {smallest:.1f} GiB, and plan.gpu_memory_gb is "
            f"{config.plan.gpu_memory_gb:g}: correct it, or choose other nodes (constraint in "
            "slurm/config.yaml)"
        )


def fitting(experiment: Experiment, jobs: Iterable[Job]) -> Iterator[str]:
    """Whether each stage fits the memory that plans reckon with."""
    for need in needs(experiment, (job.rule for job in jobs)):
        if not need.fits:
            yield str(need)


def told_memory(gpus: Iterable[Gpu]) -> list[float]:
    """Memory (GiB) of each of the GPUs of which nvidia-smi tells it."""
    sizes = {}
    for line in nvidia_smi(
        "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"
    ).splitlines():
        if found := re.fullmatch(r"\s*([^,\s]+)\s*,\s*(\d+)\s*", line):  # MiB
            sizes[found[1]] = int(found[2]) / 1024
    return [sizes[gpu.uuid] for gpu in gpus if gpu.uuid in sizes]


def old_driver() -> str:
    """What to add to torch's reason where the driver is older than torch's CUDA takes."""
    import torch

    printed = nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    found = re.match(r"(\d+)[.\d]*", printed)
    first = DRIVERS.get(int((torch.version.cuda or "0").partition(".")[0]))
    if found is None or first is None or int(found[1]) >= first:
        return ""
    return (
        f"; the driver is {found[0]}, and this torch (CUDA {torch.version.cuda}) needs {first} or "
        "newer"
    )


def slurm_gpus(node: str) -> int | None:
    """GPUs that SLURM knows of a node; None when it does not say."""
    command = ["scontrol", "show", "node", "-o", node]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    gres = re.search(r"\bGres=(\S+)", done.stdout)
    counts = re.findall(r"gpu(?::[^:,(]+)?:(\d+)", gres[1]) if gres else []
    return sum(map(int, counts)) or None


def compiler(include: str = sysconfig.get_path("include", "posix_prefix")) -> Iterator[str]:
    """Whether Triton, whose kernels jobs use on a GPU, finds what it compiles its launchers with.

    CUDA's own compiler (nvcc) is not needed.
    """
    if find_spec("triton") is None:
        return
    named = os.environ.get("CC")
    candidates = [named] if named else ["gcc", "clang"]
    if not any(map(shutil.which, candidates)):
        yield (
            f"no C compiler here ({' or '.join(candidates)}), which Triton's kernels need: install "
            "gcc, load your site's module of it, or name one in CC"
        )
    if not (Path(include) / "Python.h").exists():
        yield (
            f"{include}/Python.h is missing, which Triton's kernels need: install Python's headers "
            "(Debian's python3-dev), or take a Python that has them (uv python install)"
        )
