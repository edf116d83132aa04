"""Running the real workflow in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = [
    "README.md",
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
  pretraining_documents: 600
  sft_rows: 200
data:
  prompts_per_half: 12
base_model: {scratch: {pretraining: {epochs: 1}}}
reward_model: {training: {epochs: 1}}
sft: {training: {epochs: 1}}
steerlm: {training: {epochs: 2}}
dpa:
  iterations: 2
  directions_per_prompt: 2
  responses_per_direction: 4
  training: {epochs: 1}
sampling: {prompts_per_chunk: 3, max_truncated_fraction: 1.0}
evaluation: {directions: 4, responses_per_prompt: 1}
methods: [dpa, sft]
alpacaeval: null
rewardbench: null
"""


#: What starts a training on two processes of one machine.
TWO_PROCESSES = (
    "accelerate launch --multi_gpu --num_machines 1 --num_processes 2"
    " --num_cpu_threads_per_process 1 --mixed_precision no --dynamo_backend no"
    " --main_process_port 0"
)


def copy_repository(folder: Path) -> Path:
    """What a clone has, without results."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.sif")
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    """Rules find the test run's own Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder; its output is in stdout."""
    result = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and result.returncode:
        raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{result.stdout[-4000:]}")
    return result


def planned_jobs(folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs of a dry run by rule; empty when there is nothing to do."""
    output = snakemake(folder, "-n", *arguments).stdout
    table = re.search(r"Job stats:\njob +count\n-+ +-+\n(.*?)\ntotal", output, re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output[-3000:]
        return {}
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE)}
