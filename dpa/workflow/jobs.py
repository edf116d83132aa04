"""What jobs ask Snakemake for: memory, threads, GPUs, and what starts a training."""

from collections.abc import Callable
from typing import Any

from dpa.config.experiment import Config

#: Priority of the longest chain of jobs: reward model, SFT policy, every iteration. Where cores are
#: few it goes first; baselines, evaluations and figures find room beside it.
CRITICAL = 1


class Jobs:
    """The resources of an experiment's jobs, by the names that Snakemake's SLURM executor reads."""

    def __init__(self, config: Config):
        self.config, self.compute = config, config.compute

    def memory(self, mb: int, on_gpu: int | None = None) -> Callable[[Any, int], int]:
        """mem_mb: `mb`, or `on_gpu` where jobs run on GPUs, for models are large there.

        Half as much again at each further attempt: the profile retries jobs.
        """
        first = on_gpu if on_gpu and self.compute.gpu else mb
        return lambda wildcards, attempt: first * (attempt + 1) // 2

    def on_one_gpu(self, mb: int, on_gpu: int) -> dict[str, Any]:
        """Resources of a job with one GPU, where jobs run on GPUs."""
        return {
            "gpu": int(self.compute.gpu),
            "cpus_per_gpu": self.compute.cpus_per_gpu,
            "mem_mb": self.memory(mb, on_gpu),
        }

    def training(self, mb: int, threads: int | None = None) -> dict[str, Any]:
        """Resources of a training job; `threads` per process of a CPU run.

        On several nodes the job is declared as MPI's: only then does the executor leave it to the
        rule's launcher to start processes on the nodes. Memory is that of a node. The launcher is a
        resource, not a param: when params change Snakemake would train finished models again, and
        the number of processes does not change a model.
        """
        nodes, processes = self.compute.training_nodes, self.compute.training_processes
        resources: dict[str, Any] = {
            "gpu": int(self.compute.gpu) * nodes * processes,
            "cpus_per_gpu": self.compute.cpus_per_gpu,
            "mem_mb": self.memory(mb * processes, on_gpu=64000 * processes),
            "launcher": self.launcher(threads),
        }
        if nodes > 1:
            # Without tasks_per_gpu=0 `tasks` would also be the number of tasks for each GPU.
            resources |= {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
        return resources

    def training_threads(self, threads: int | None = None) -> int:
        """CPU cores of a training job on one node: those of its GPUs, or `threads` per process."""
        per_process = (
            self.compute.cpus_per_gpu if self.compute.gpu else threads or self.config.threads
        )
        return per_process * self.compute.training_processes

    def launcher(self, threads: int | None = None) -> str:
        """What starts a training script, before `-m scripts.<name>`.

        For a single process it is python, on a CPU with `threads`. For several it is accelerate's
        launcher, which on several nodes srun starts once on each, within the job: --overlap,
        because Snakemake's own job step holds the job's cores and GPUs. The processes meet at the
        node that this command runs on.
        """
        nodes, processes = self.compute.training_nodes, self.compute.training_processes
        threads = self.config.threads if self.compute.gpu or threads is None else threads
        if nodes * processes == 1:
            if self.compute.gpu:
                return "python"
            # Snakemake sets these too, but lowers them with --cores: other threads round otherwise.
            return f"env OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} python"
        # --multi_gpu is what starts several processes, on a CPU too; the script chooses the device.
        command = (
            f"accelerate launch --multi_gpu --num_machines {nodes}"
            f" --num_processes {nodes * processes} --num_cpu_threads_per_process {threads}"
            " --mixed_precision no --dynamo_backend no"
        )
        if nodes == 1:
            held = f"python -m scripts.hold_gpus --count {processes} " if self.compute.gpu else ""
            return f"{held}{command} --main_process_port 0"
        gpus = f" --gpus-per-node={processes}" if self.compute.gpu else ""
        # Ranks come from the rendezvous. --machine_rank has no say in it, but at 0 accelerate would
        # check on every node that nothing listens at the port, the rendezvous included.
        return (
            f"srun --overlap --kill-on-bad-exit=1 --nodes={nodes} --ntasks={nodes}"
            f" --ntasks-per-node=1{gpus} {command} --machine_rank 1 --rdzv_backend c10d"
            " --main_process_ip $(hostname)"
            " --main_process_port $((20000 + SLURM_JOB_ID % 40000))"
        )
