"""What a run announces is what its jobs read."""

import os

import pytest

from dpa.runtime.run_environment import CLONE, PREFIX, RunEnvironment


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """The test process's own variables come back."""
    with monkeypatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(PREFIX):
                patch.delenv(name)
        patch.setattr(os, "environ", os.environ.copy())
        yield


def test_jobs_read_what_was_announced():
    announced = RunEnvironment(
        config_hash="abc",
        base_seed="7",
        commits={"org/name": "a" * 40, "org/data": "b" * 40},
        max_dropped_fraction=0.5,
        max_truncated_fraction=0.0,
        trust_remote_code=("org/name@" + "a" * 40, "org/other@" + "b" * 40),
        hang_minutes=30.0,
        gpu=True,
    )
    announced.announce()
    assert RunEnvironment.read() == announced
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(CLONE)
    assert os.environ["PYTHONSAFEPATH"] == "1"


def test_a_script_that_is_run_by_hand_has_the_defaults():
    assert RunEnvironment.read() == RunEnvironment()
    RunEnvironment().announce()
    assert RunEnvironment.read() == RunEnvironment()
