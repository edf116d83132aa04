"""Jobs on one machine with several GPUs each take another one."""

import os
import subprocess
import sys

import pytest

from dpa.runtime.run_environment import CLONE

CODE = """
import os, sys
from pathlib import Path
from dpa.errors import InputError
from dpa.runtime.gpus import claim_gpu
try:
    claim_gpu(Path(sys.argv[1]))
    claim_gpu(Path(sys.argv[1]))  # the sampler's, then the scorer's: one and the same
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
except InputError as error:
    print(error, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path):
    """Starts a job; returns its process and the GPU it takes."""
    started = []

    def start(**environment):
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path)],
            cwd=CLONE,
            env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
            | {"TMPDIR": str(tmp_path)}
            | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_takes_another_and_gives_it_back_when_it_dies(job):
    visible = {"CUDA_VISIBLE_DEVICES": "2,5"}
    first, gpu = job(**visible)
    assert gpu == "2"
    assert job(**visible)[1] == "5"
    assert "all 2 GPUs are taken" in job(**visible)[1]
    first.kill()
    first.wait()
    assert job(**visible)[1] == "2"


def test_gpus_are_found_where_nobody_names_them(job, tmp_path):
    assert job()[1] == "None"  # no GPU at all
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert [job()[1], job()[1]] == ["0", "1"]


def test_a_scheduler_is_believed(job):
    visible = {"CUDA_VISIBLE_DEVICES": "2,5", "SLURM_JOB_ID": "7"}
    assert [job(**visible)[1], job(**visible)[1]] == ["2,5", "2,5"]
    assert job(CUDA_VISIBLE_DEVICES="3")[1] == "3"
