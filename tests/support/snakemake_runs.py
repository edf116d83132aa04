"""Running the real workflow in a copy of the repository."""

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.support.script_processes import processes

ROOT = Path(__file__).resolve().parents[2]
PARTS = [
    "docs/deviations.md",
    "Snakefile",
    "config.yaml",
    "revisions.lock.yaml",
    "rules",
    "scripts",
    "dpa",
    "experiments",
    "slurm",
    "envs",
    "results/published",
]

#: The quickstart with everything small: the same rules and scripts in two minutes.
MINI = """
world:
  helpsteer_rows: 400
  ultrafeedback_prompts: 60
  validation_prompts: 8
  unseen_prompts: 2
  pretraining_documents: 600
  sft_rows: 200
data:
  prompts_per_half: 12
base_model: {scratch: {schedule: {epochs: 1}}}
reward_model: {schedule: {epochs: 1}}
sft: {schedule: {epochs: 1}}
steerlm: {schedule: {epochs: 2}}
dpa:
  iterations: 2
  directions_per_prompt: 2
  responses_per_direction: 4
  schedule: {epochs: 1}
sampling: {prompts_per_chunk: 3, max_truncated_fraction: 1.0}
evaluation: {directions: 4, responses_per_prompt: 1}
methods: [dpa, sft]
alpacaeval: null
rewardbench: null
"""


#: What starts a training on two processes of one machine.
TWO_PROCESSES = (
    "env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=900"
    " accelerate launch --multi_gpu --num_machines 1 --num_processes 2"
    " --num_cpu_threads_per_process 1 --mixed_precision no --dynamo_backend no"
    " --main_process_port 0"
)


#: Keys that nobody may write, by the environment variable that holds them.
CANARIES = {
    "OPENAI_API_KEY": "sk-canary-1f9d0c3b7a",
    "ANTHROPIC_API_KEY": "sk-ant-canary-77c2e1",
    "HF_TOKEN": "hf_canary_5b21e8d4f0",
    "WANDB_API_KEY": "wandb-canary-e08a4471",
    "JUDGE_KEY": "judge-canary-93ab60d2",
}


def everything_written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """(path, name and bytes) of every file below a folder, hidden ones included."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, str(path).encode() + path.read_bytes()


def disguises(key: str) -> list[bytes]:
    """A key as it is, and the cores of its base64 at each offset (as in headers)."""
    encoded = [base64.b64encode(b"\0" * n + key.encode())[4:-4] for n in range(3)]
    return [key.encode(), *encoded]


def carriers(key: str, contents: Iterable[tuple[Any, bytes]]) -> list[Any]:
    """Which of some named contents hold a key."""
    forms = disguises(key)
    return [name for name, content in contents if any(form in content for form in forms)]


class CommandLines(threading.Thread):
    """Watches the command lines of every process on the machine, while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:  # it has ended
                    continue

    def __enter__(self) -> "CommandLines":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join()


def copy_repository(folder: Path) -> Path:
    """What a clone has, without results."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.sif")
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            (folder / part).parent.mkdir(exist_ok=True)
            shutil.copy(source, folder / part)
    return folder


def unlock(folder: Path) -> None:
    """Take all commits out of a clone's revisions.lock.yaml."""
    (folder / "revisions.lock.yaml").write_text("")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    """Rules find the test run's own Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder; its output is in stdout."""
    job = processes(("snakemake.cli",)).call(
        folder, _run_snakemake, str(folder), environment(), arguments
    )
    done = job.wait(3600)
    for left in (job.log, job.log.with_suffix(".modules")):
        left.unlink(missing_ok=True)
    if check and done.code:
        raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{done.output[-4000:]}")
    return subprocess.CompletedProcess(command(*arguments), done.code, done.output)


def _run_snakemake(folder: str, variables: dict[str, str], arguments: tuple[str, ...]) -> None:
    """As `python -m snakemake` does in a folder: its modules come first, and ours not at all."""
    sys.path[:] = [folder, *(p for p in sys.path if p not in ("", str(ROOT)))]
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main(sys.argv[1:])


def planned_jobs(folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs of a dry run by rule; empty when there is nothing to do."""
    return jobs_in(snakemake(folder, "-n", *arguments).stdout)


def jobs_in(output: str) -> dict[str, int]:
    """The jobs that a dry run has printed."""
    table = re.search(r"Job stats:\njob +count\n-+ +-+\n(.*?)\ntotal", output, re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output[-3000:]
        return {}
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE)}
