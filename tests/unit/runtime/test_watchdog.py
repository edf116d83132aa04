"""The watchdog ends a process that hangs, wherever it hangs, and leaves the others alone."""

import os
import subprocess
import sys
import time

import pytest

from dpa.runtime.run_environment import CLONE
from dpa.runtime.watchdog import Watchdog

LIMIT = 0.6  # seconds
HANG_MINUTES = "DPA_HANG_MINUTES"


def run(body: str, limit: float = LIMIT) -> subprocess.CompletedProcess:
    """Run `body` under a watchdog in a process of its own."""
    code = (
        "import ctypes, logging, time\n"
        "from dpa.runtime.watchdog import Watchdog\n"
        "logging.basicConfig(format='%(message)s')\n"
        f"with Watchdog('sampling 3.jsonl') as watchdog:\n    {body}\n"
        "print('survived')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=CLONE,
        env=os.environ | {HANG_MINUTES: str(limit / 60)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_native_code_that_blocks_is_ended_with_an_explanation():
    done = run("ctypes.CDLL(None).sleep(50)")
    assert done.returncode == 75
    assert "sampling 3.jsonl made no progress" in done.stderr
    assert 'File "<string>", line 5' in done.stderr  # where it hung
    assert "survived" not in done.stdout


def test_native_code_that_keeps_the_interpreter_locked_is_ended_too():
    done = run("ctypes.PyDLL(None).sleep(50)")  # no other Python thread can run
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 5' in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "[(time.sleep(0.05), watchdog.beat()) for _ in range(40)]",
        "pass\nctypes.CDLL(None).sleep(2)",  # it is no longer watched
    ],
)
@pytest.mark.slow
def test_progress_or_a_finished_job_survives(body):
    done = run(body)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def test_without_a_limit_nobody_watches(monkeypatch):
    for limit in (None, "0", "0.0"):
        monkeypatch.delenv(HANG_MINUTES, raising=False)
        if limit is not None:
            monkeypatch.setenv(HANG_MINUTES, limit)
        with Watchdog("work") as watchdog:
            assert not watchdog.thread.is_alive()


def _fail_if_watched(watchdog):
    if watchdog.thread.is_alive():
        raise KeyError


def test_loading_counts_as_no_progress_and_exceptions_pass(monkeypatch):
    monkeypatch.setenv(HANG_MINUTES, "5")
    watchdog = Watchdog("work")
    with pytest.raises(KeyError), watchdog:
        _fail_if_watched(watchdog)
    assert not watchdog.thread.is_alive()
    assert time.monotonic() - watchdog.last < 5
