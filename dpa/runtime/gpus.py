"""Which of the GPUs that a job sees it takes, and whether it has got one at all.

A job that sees exactly as many GPUs as it needs has been given them. Where it sees more (a machine
without a scheduler, an allocation in which several jobs run) each job would take the first. So a
job locks a file for each GPU, for as long as it lives, and restricts itself to these, before CUDA
starts. A lock is named by the GPU's UUID: ordinals and device files are counted anew in every
container and every job's cgroup, which may share the folder of locks.
"""

import fcntl
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from dpa.errors import InputError
from dpa.runtime.log import log
from dpa.runtime.run_environment import RunEnvironment

#: What tells CUDA which GPUs there are for this process.
VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia")

#: Locks of this process's GPUs (descriptors, open until it ends).
_held: list[int] = []


class Gpu(NamedTuple):
    """A GPU, or an instance of one that is partitioned (MIG)."""

    name: str
    """By which CUDA_VISIBLE_DEVICES names it here."""
    uuid: str | None
    """None where nothing says which one it is."""


def take_gpu() -> None:
    """Begin a job with one GPU: `claim_gpus`, then `require_gpu`."""
    claim_gpus()
    require_gpu()


def claim_gpus(count: int = 1, devices: Path = DEVICES, driver: Path = DRIVER) -> None:
    """Restrict this process, and those it starts, to `count` GPUs that no other job here has.

    To be called before CUDA is first used. Does nothing where it sees as many as it needs, or none.
    Raises InputError when it sees too few, when others have them, or when nothing tells them apart.
    """
    if len(given := _given_names() or []) == count:
        return
    gpus = visible_gpus(devices, driver)
    if len(gpus) in (0, count):
        return
    if len(gpus) < count:
        raise InputError(
            f"this job needs {count} GPUs and sees {len(gpus)}: lower compute.training_processes, "
            "or ask for as many"
        )
    if not all(gpu.uuid for gpu in gpus):
        raise InputError(
            f"this job needs {count} of the {len(gpus)} GPUs that it sees, and cannot tell them "
            f"apart (nvidia-smi -L gives no UUIDs): name its own in {VISIBLE}"
        )
    taken = _lock(gpus, count)
    os.environ[VISIBLE] = ",".join(gpu.name for gpu in taken)
    seen = given or [gpu.name for gpu in gpus]
    log.info("takes GPU %s of %s", os.environ[VISIBLE], ", ".join(seen))


def require_gpu() -> None:
    """Raise InputError where the run computes on GPUs (compute.gpu) and torch sees none here.

    It would go on on the CPU, and write other numbers into the same files.
    """
    if RunEnvironment.read().gpu and (reason := why_no_gpu()):
        raise InputError(
            f"this job should have a GPU (compute.gpu) and has none; torch says: {reason}. Check "
            "the driver and that the job asks for a GPU, or set compute.gpu to false"
        )


def why_no_gpu() -> str | None:
    """Why torch cannot use a GPU, in its own words, in one line; None where it can."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).rstrip(".")
    return None


# --- What is there --------------------------------------------------------------------------------


def visible_gpus(devices: Path = DEVICES, driver: Path = DRIVER) -> list[Gpu]:
    """The GPUs that CUDA would show this process."""
    cards = _listed() or _of_driver(devices, driver)
    names = _given_names()
    if names is None:
        if cards:
            return [Gpu(part, part) for card in cards for part in card[1:] or card]
        return [Gpu(str(n), None) for n, _ in enumerate(devices.glob("nvidia[0-9]*"))]
    found = []
    for name in names:
        if name.isdecimal():
            uuid = cards[int(name)][0] if int(name) < len(cards) else None
        else:  # CUDA takes any beginning of a UUID that is unique
            known = (part for card in cards for part in card if part.startswith(name))
            uuid = next(known, None if cards else name)
        if cards and uuid is None:
            break  # CUDA stops at the first that does not exist
        found.append(Gpu(name, uuid))
    return found


def nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints; nothing where it is not there, fails or hangs."""
    command = ["nvidia-smi", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _given_names() -> list[str] | None:
    """The valid names of CUDA_VISIBLE_DEVICES; None where it is not set.

    CUDA stops at the first that is none, such as -1.
    """
    if (given := os.environ.get(VISIBLE)) is None:
        return None
    names = []
    for name in map(str.strip, given.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-.+", name):
            break
        names.append(name)
    return names


def _listed() -> list[list[str]]:
    """By nvidia-smi: of each card its UUID, and those of its MIG instances, in the bus's order."""
    cards: list[list[str]] = []
    for line in nvidia_smi("-L").splitlines():
        uuid = re.search(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", line)
        if line.startswith("GPU "):
            if uuid is None:
                return []
            cards.append([uuid[1]])
        elif uuid is not None and cards:
            cards[-1].append(uuid[1])
    return cards


def _of_driver(devices: Path, driver: Path) -> list[list[str]]:
    """The same by the driver, where nvidia-smi is not there; of cards whose device file is here."""
    cards = []
    for file in sorted(driver.glob("gpus/*/information")):
        text = file.read_text(errors="replace")
        uuid = re.search(r"GPU UUID:\s*(GPU-[0-9a-f-]+)", text)
        minor = re.search(r"Device Minor:\s*(\d+)", text)
        if minor is not None and (devices / f"nvidia{minor[1]}").exists():
            if uuid is None:
                return []
            cards.append([uuid[1]])
    return cards


# --- Locks ----------------------------------------------------------------------------------------


def _lock(gpus: list[Gpu], count: int) -> list[Gpu]:
    """Lock the first `count` of the GPUs that are free, all or none."""
    path = Path(tempfile.gettempdir()) / f"dpa-{os.getuid()}"
    folder = _private_folder(path)
    taken, locks = [], []
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # one job chooses at a time
        for gpu in gpus:
            # A file is never truncated, nor a link followed: it may be anything.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(f"{quote(str(gpu.uuid), safe='')}.lock", flags, 0o600, dir_fd=folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            locks.append(lock)
            taken.append(gpu)
            if len(taken) == count:
                _held.extend(locks)
                return taken
    except OSError as error:
        raise InputError(f"{path}: no lock for a GPU ({error}): remove this folder") from None
    finally:
        os.close(folder)
    for lock in locks:
        os.close(lock)
    busy = len(gpus) - len(taken)
    raise InputError(
        f"this job needs {count} GPUs, and other jobs have {busy} of the {len(gpus)} here: tell "
        f"Snakemake how many there are (--resources gpu={len(gpus)}), or, to share one, name it in "
        f"{VISIBLE}"
    )


def _private_folder(path: Path) -> int:
    """A descriptor of a folder that only this user may enter; made where it is missing."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            f"{path}: no folder for locks of GPUs ({error.strerror}): remove it, or set TMPDIR to "
            "a folder of your own"
        ) from None
    state = os.fstat(folder)
    if state.st_uid != os.getuid() or state.st_mode & 0o077:
        os.close(folder)
        raise InputError(
            f"{path}: others may enter this folder of locks: remove it, or set TMPDIR to a folder "
            "of your own"
        )
    return folder


def hold_for(command: list[str]) -> None:
    """Become `command`, which keeps this process's locks until it ends. Does not return."""
    for lock in _held:
        os.set_inheritable(lock, True)
    os.execvp(command[0], command)
