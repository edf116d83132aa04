"""Part 0: versions, driver, compiler, and one Triton kernel that is compiled here."""

import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

from benchmarks.gpu_check.rows import on_gpu, record, skip


def main() -> None:
    record("Python", platform.python_version())
    record("torch", torch.__version__, cuda=torch.version.cuda)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    record("C compiler", compiler or "none: Triton cannot compile")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    record("Python.h", str(header) if header.exists() else "none: Triton cannot compile")
    record("nvcc", shutil.which("nvcc") or "none (not needed)")
    if not on_gpu():
        skip("torch sees no GPU")
    name, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
    record("GPU", name, capability=torch.cuda.get_device_capability())
    record("memory", memory[1] / 2**30, "GiB", free=round(memory[0] / 2**30, 1))
    record("driver", driver())
    record("one Triton kernel: largest error", triton_error(), at_most=0)


def driver() -> str:
    """The driver's version as nvidia-smi says it, which may say anything."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (done.stdout or done.stderr).strip().splitlines()[0]


def triton_error() -> float:
    """Largest error of a sum that a kernel compiled here computes."""
    from benchmarks.gpu_check.triton_kernel import add

    a, b = (torch.randn(5000, device="cuda") for _ in range(2))
    return float((add(a, b) - (a + b)).abs().max())


if __name__ == "__main__":
    main()
