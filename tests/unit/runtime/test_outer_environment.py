"""What could decide results is removed from an outer environment; what clusters need stays."""

import os
import subprocess
import sys

import pytest

from dpa.runtime.outer_environment import remove_outer_settings
from dpa.runtime.run_environment import CLONE, RunEnvironment
from tests.support.hostile_environment import CLUSTER, HOSTILE

#: A script that prints what is left of the variables that are asked for.
SCRIPT = """
import os, sys
from dpa.runtime.cli import make_app, run_app

app = make_app()


@app.command()
def main(names: list[str]) -> None:
    print({name: os.environ.get(name) for name in names})


run_app(app)
"""


def test_what_decides_results_is_removed_and_what_clusters_need_passes():
    environment = HOSTILE | CLUSTER
    assert remove_outer_settings(environment) == sorted(HOSTILE)
    assert environment == CLUSTER


def test_a_launchers_children_keep_their_process_group_and_nothing_else():
    group = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "node1"}
    environment = HOSTILE | group
    assert remove_outer_settings(environment, launched=True) == []
    assert group.items() <= environment.items()
    assert not [name for name in environment if name.startswith(("ACCELERATE_", "OMPI_", "MPL"))]


def test_jobs_of_a_run_do_not_get_it_and_the_run_says_so(monkeypatch, caplog):
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    RunEnvironment().announce()
    assert not HOSTILE.keys() & os.environ.keys()
    assert all(name in caplog.text for name in HOSTILE)
    caplog.clear()
    RunEnvironment().announce()
    assert caplog.text == ""


def script(tmp_path, *start: str, **environment: str) -> str:
    path = tmp_path / "shown.py"
    path.write_text(SCRIPT)
    done = subprocess.run(
        [*start, str(path), "RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "NCCL_DEBUG"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(CLONE)} | environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("outer", [{}, {"TORCHELASTIC_RUN_ID": "outer"}])
def test_a_script_by_hand_is_no_process_of_an_outer_job(tmp_path, outer):
    said = script(tmp_path, sys.executable, **HOSTILE, **CLUSTER, **outer)
    assert "'RANK': None, 'WORLD_SIZE': None, 'ACCELERATE_MIXED_PRECISION': None" in said
    assert f"'NCCL_DEBUG': '{CLUSTER['NCCL_DEBUG']}'" in said
    assert "ignored from the outer environment: ACCELERATE_" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "-m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes 2"
        " --num_cpu_threads_per_process 1 --mixed_precision no --dynamo_backend no"
        " --main_process_port 0",
        "-m torch.distributed.run --nproc-per-node 2",
    ],
)
def test_processes_of_a_launcher_find_each_other(tmp_path, launcher):
    said = script(tmp_path, sys.executable, *launcher.split(), **HOSTILE)
    for rank in (0, 1):
        assert f"'RANK': '{rank}', 'WORLD_SIZE': '2', 'ACCELERATE_MIXED_PRECISION': None" in said
