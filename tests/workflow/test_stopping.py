"""A scheduler's SIGTERM: a training saves a checkpoint before its rule, and its log, ends.

A real Snakemake runs the rule; every process of it gets the signal, as the processes of a job do.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.long_training import LOG, POLICY, STOPPED, add_long_training, checkpoints
from tests.support.snakemake_runs import command, copy_repository, environment


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    folder = copy_repository(tmp_path_factory.mktemp("stopped"))
    add_long_training(folder)
    return folder


def stop(folder: Path, processes: int) -> tuple[int, str]:
    """Run until a checkpoint is there, then send SIGTERM to all; returns status and output."""
    shutil.rmtree(folder / f"{POLICY}.partial", ignore_errors=True)
    config = ("--config", "experiment=long", f"compute={{training_processes: {processes}}}")
    with open(folder / "snakemake.log", "w") as file:
        run = subprocess.Popen(
            command("--cores", "2", "--verbose", *config, "--", str(POLICY)),
            cwd=folder, env=environment(), stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 300
    try:
        while not checkpoints(folder) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGTERM)
        status = run.wait(120)
        with pytest.raises(ProcessLookupError):  # no process is left behind
            os.killpg(run.pid, signal.SIGKILL)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    return status, (folder / "snakemake.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminated_training_saves_and_ends_its_log(clone, processes):
    status, output = stop(clone, processes)
    assert status != 0
    # The launcher of several ends with a status of its own.
    assert ("non-zero exit status 143" if processes == 1 else "non-zero exit status") in output
    log = (clone / LOG).read_text()
    found = re.search(STOPPED, log)
    assert found, log + output
    assert f"checkpoint-{found[1]}" in checkpoints(clone)
    if processes == 1:
        assert log.endswith(found[0])
    assert not (clone / POLICY).exists()
