"""What an outer shell or job brings that would change results or join processes is removed.

A training in a shell with ACCELERATE_MIXED_PRECISION=bf16 would learn other weights; one inside
another job's RANK and WORLD_SIZE would wait for processes that never come. The configuration is the
only place for either. What clusters need (NCCL_*, SLURM_*, proxies, libraries, caches, keys, which
GPUs are visible) passes.
"""

import os
from collections.abc import Iterable, MutableMapping
from fnmatch import fnmatchcase
from pathlib import Path

#: What changes numbers, or pictures.
SETTINGS = (
    "ACCELERATE_*", "FSDP_*", "PARALLELISM_CONFIG_*", "MEGATRON_LM_*",
    "XLA_USE_BF16", "XLA_DOWNCAST_BF16",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_*",
    "TORCH_CUDNN_*", "PYTORCH_TUNABLEOP_*", "DISABLE_ADDMM_CUDA_LT",
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MPL*", "MATPLOTLIBRC",
)  # fmt: skip
#: What makes a process one of several, by MPI.
MPI = ("OMPI_*", "PMI_*", "PMIX_*", "PRTE_*", "MV2_*", "MPI_LOCAL*")
#: The same by torchrun, which accelerate's launcher is.
TORCHRUN = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK",
    "GROUP_WORLD_SIZE", "ROLE_*", "MASTER_*", "TORCHELASTIC_*", "PET_*", "FORK_LAUNCHED",
)  # fmt: skip
#: Words of a command line, without their folder, that say that it starts training processes.
LAUNCHERS = {
    "accelerate", "accelerate-launch", "accelerate.commands.launch", "torchrun",
    "torch.distributed.run",
}  # fmt: skip


def remove_outer_settings(
    environment: MutableMapping[str, str], *, launched: bool = False
) -> list[str]:
    """Remove from an environment what an outer shell may not decide; the names of what was there.

    `launched`: whether a launcher has just started this process as one of several.
    """
    patterns = (*SETTINGS, *MPI, *(() if launched else TORCHRUN))
    found = sorted(name for name in environment if any(fnmatchcase(name, p) for p in patterns))
    for name in found:
        del environment[name]
    # The launcher's own settings, which the configuration has as well.
    return [] if launched else found


def is_launched() -> bool:
    """Whether this process is one of several that torchrun, or accelerate's launcher, has started.

    Variables alone do not tell: they are inherited. Of a launcher's own children the parent process
    is the launcher.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return not LAUNCHERS.isdisjoint(Path(word).name for word in words.split("\0")[:4])


def removed_message(names: Iterable[str]) -> str:
    """What to say about what was removed."""
    return (
        f"ignored from the outer environment: {', '.join(names)} (results are decided by the "
        "configuration alone)"
    )
