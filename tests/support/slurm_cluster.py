"""A SLURM on this machine with eight pretended GPUs, from Debian's packages; for tests only.

    apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
    python -m tests.support.slurm_cluster start  # as root; writes /etc/slurm: it must be unused
    python -m tests.support.slurm_cluster stop   # ends the daemons and removes what start wrote

The node claims 64 cores and a terabyte of memory, so that jobs wait for GPUs and for nothing else.
A pretended GPU is another /dev/null: SLURM hands out its number in CUDA_VISIBLE_DEVICES and leaves
it at that. The configuration has to be in the system's place, because Snakemake's executor takes
SLURM's variables out of its environment.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

GPUS = 8
STATE = Path("/var/tmp/dpa-slurm")
ETC = Path("/etc/slurm")
MARK = "# Written by tests/support/slurm_cluster.py of dpa.\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
#: Debian keeps daemons out of an ordinary user's PATH.
PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"

SLURM_CONF = """\
ClusterName=dpa
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/d
AuthType=auth/munge
# A requeued job waits until its old credential has expired.
AuthInfo=cred_expire=10
SchedulerParameters=sched_interval=1
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:{gpus} Feature=a100
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=cpu Nodes=ALL MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """What is missing for a cluster on this machine; None if nothing is."""
    if os.geteuid() != 0:
        return "starting SLURM's daemons needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return (
            f"{', '.join(absent)} not found: apt-get install -y --no-install-recommends slurmctld "
            "slurmd slurm-client munge"
        )
    conf = ETC / "slurm.conf"
    if conf.exists() and not conf.read_text().startswith(MARK):
        return f"{conf} belongs to another cluster"
    return None


def call(*command: str, check: bool = True) -> str:
    """Run a command; returns what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PATH": PATH}, check=False
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def start(seconds: float = 60) -> None:
    """Start the daemons; returns once the node takes jobs."""
    stop()
    for folder in (STATE / "ctld", STATE / "d"):
        folder.mkdir(parents=True)
    for number in range(GPUS):
        # A character device, or SLURM would not hand out its number: another /dev/null.
        os.mknod(STATE / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    host = socket.gethostname().split(".")[0]
    (ETC / "slurm.conf").write_text(MARK + SLURM_CONF.format(host=host, state=STATE, gpus=GPUS))
    (ETC / "gres.conf").write_text(f"{MARK}Name=gpu File={STATE}/gpu[0-{GPUS - 1}]\n")
    if call("munge", "-n", check=False) == "":
        run = Path("/run/munge")
        run.mkdir(exist_ok=True)
        shutil.chown(run, "munge", "munge")
        pid_file = STATE / "munged.pid"
        call("runuser", "-u", "munge", "--", "munged")
        shutil.copy("/run/munge/munged.pid", pid_file)
    call("slurmctld", "-c")
    call("slurmd")
    deadline = time.monotonic() + seconds
    while "idle" not in (state := call("sinfo", "-h", "-o", "%t", check=False)):
        if time.monotonic() > deadline:
            logs = "".join(path.read_text()[-2000:] for path in STATE.glob("*.log"))
            raise RuntimeError(f"the node is {state.strip() or 'unreachable'}:\n{logs}")
        time.sleep(0.5)


def stop() -> None:
    """End the jobs and the daemons that `start` started, and remove what it wrote."""
    if (STATE / "slurmctld.pid").exists():
        for partition in ("gpu", "cpu"):
            call("scancel", f"--partition={partition}", check=False)
    for name in ("slurmd", "slurmctld", "munged"):
        _end(STATE / f"{name}.pid")
    for name in ("slurm.conf", "gres.conf"):
        path = ETC / name
        if path.exists() and path.read_text().startswith(MARK):
            path.unlink()
    shutil.rmtree(STATE, ignore_errors=True)


def _end(pid_file: Path, seconds: float = 20) -> None:
    """End the process of a PID file."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    if (reason := missing()) is not None:
        sys.exit(f"error: {reason}")
    {"start": start, "stop": stop}[sys.argv[1]]()
