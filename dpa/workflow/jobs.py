"""What jobs ask Snakemake for: memory, threads, GPUs, and what starts a training."""

from collections.abc import Callable, Mapping
from typing import Any

from dpa.config.experiment import Config

#: Priority of the longest chain of jobs: reward model, SFT policy, every iteration. Where cores are
#: few it goes first; baselines, evaluations and figures find room beside it.
CRITICAL = 1
#: Seconds that a training has to save a checkpoint after SIGTERM: 87 GB for 7 B, at 100 MB/s. As
#: long before a job's time limit SLURM sends it.
SECONDS_TO_SAVE = 900

Resources = dict[str, Any]


class Jobs:
    """The resources of an experiment's jobs, by the names that Snakemake's SLURM executor reads."""

    def __init__(self, config: Config, site: Mapping[str, Any] | None = None):
        """`site`: Snakemake's default resources, which a cluster's profile sets for all jobs."""
        self.config, self.compute = config, config.compute
        self.site = site or {}

    def memory(self, mb: int, on_gpu: int | None = None) -> Callable[[Any, int], int]:
        """mem_mb: `mb`, or `on_gpu` where jobs run on GPUs, for models are large there.

        Half as much again at each further attempt, for the profile retries jobs, up to what a node
        has.
        """
        first = on_gpu if on_gpu and self.compute.gpu else mb
        most = int(1000 * self.compute.node_memory_gb)
        return lambda wildcards, attempt: min(first * (attempt + 1) // 2, most)

    def on_cpu(self, mb: int) -> Resources:
        """Resources of a job that never has a GPU.

        With `cpu_partition` in the profile it goes there, whatever kind of GPU others are to have.
        """
        resources: Resources = {"mem_mb": self.memory(mb)}
        if "cpu_partition" in self.site:
            resources |= {"slurm_partition": self._from_site("cpu_partition"), "constraint": None}
        return resources

    def on_one_gpu(self, mb: int, on_gpu: int) -> Resources:
        """Resources of a job with one GPU, where jobs run on GPUs."""
        if not self.compute.gpu:
            return {"gpu": 0, **self.on_cpu(mb)}
        return {
            "gpu": 1,
            "nodes": 1,
            "cpus_per_gpu": self.compute.cpus_per_gpu,
            "mem_mb": self.memory(mb, on_gpu),
        }

    def training(self, mb: int, threads: int | None = None) -> Resources:
        """Resources of a training job; `threads` per process of a CPU run.

        On several nodes the job is declared as MPI's: only then does the executor leave it to the
        rule's launcher to start processes on the nodes. Memory is that of a node. The launcher is a
        resource, not a param: when params change Snakemake would train finished models again, and
        the number of processes does not change a model.
        """
        nodes, processes = self.compute.training_nodes, self.compute.training_processes
        flags = f"--signal=TERM@{SECONDS_TO_SAVE}"
        if nodes > 1 and self.compute.gpu:
            flags += f" --gpus-per-node={processes}"  # or they might be spread unevenly
        resources: Resources = {
            **self.on_one_gpu(mb * processes, 64000 * processes),
            "nodes": nodes,
            "runtime": 1440,
            "slurm_extra": self._from_site("slurm_extra", flags),
            "launcher": self.launcher(threads),
        }
        resources["gpu"] *= nodes * processes
        if nodes > 1:
            # Without tasks_per_gpu=0 `tasks` would also be the number of tasks for each GPU.
            resources |= {"tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
        return resources

    def _from_site(self, name: str, flags: str = "") -> Callable[..., str]:
        """A resource as the profile has it for all jobs, behind `flags`."""
        resource = self.site.get(name)

        def evaluate(wildcards: Any, **given: Any) -> str:
            own = resource.evaluate(wildcards, **given).value if resource else None
            return " ".join(filter(None, [flags, own]))

        return evaluate

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
            f"env TORCH_ELASTIC_SHUTDOWN_TIMEOUT={SECONDS_TO_SAVE}"
            f" accelerate launch --multi_gpu --num_machines {nodes}"
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
            f" --ntasks-per-node=1 --cpus-per-task={self.training_threads(threads)}{gpus}"
            f" {command} --machine_rank 1 --rdzv_backend c10d"
            " --main_process_ip $(hostname)"
            " --main_process_port $((20000 + SLURM_JOB_ID % 40000))"
        )
