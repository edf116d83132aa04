"""Ends a job that gets no further, instead of letting it hold its GPUs overnight.

An engine that hangs usually hangs in native code (a kernel, a collective, a lock), where no Python
exception reaches it. So the process is ended from outside of what hangs: by a thread that says why
and where, and, should native code never let another Python thread run, by faulthandler's clock,
which needs no interpreter. What was written before stays, and the job resumes after it.
"""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

from dpa.runtime.log import log
from dpa.runtime.run_environment import RunEnvironment

#: Exit status of a job that was ended: sysexits.h's "temporary failure, try again".
STATUS = 75
#: How long faulthandler waits for the thread that explains, as a share of the limit.
GRACE = 0.25
#: Descriptor of the real standard error; sys.stderr may be somebody's buffer.
STDERR = 2


class Watchdog:
    """While it is entered, the process ends when `beat` is not called for the limit.

    >>> with Watchdog("sampling") as watchdog:
    ...     watchdog.beat()

    The limit is DPA_HANG_MINUTES (a run sets it from compute.hang_minutes); without it, or with 0,
    nothing happens. Loading a model counts as no progress.
    """

    def __init__(self, work: str, minutes: float | None = None) -> None:
        self.work = work
        if minutes is None:
            minutes = RunEnvironment.read().hang_minutes
        self.limit = 60 * minutes
        self.last = time.monotonic()
        self.left = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Say that there was progress."""
        self.last = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self.beat()
        if self.limit:
            self._wind_up()
            self.thread.start()
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.limit:
            self.left.set()
            self.thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _wind_up(self) -> None:
        """Let faulthandler end the process if this is not called again for the limit and more."""
        faulthandler.dump_traceback_later(self.limit * (1 + GRACE), exit=True, file=STDERR)

    def _watch(self) -> None:
        while not self.left.wait(min(self.limit / 10, 10)):
            idle = time.monotonic() - self.last
            if idle >= self.limit:
                self._end(idle)
            self._wind_up()

    def _end(self, idle: float) -> None:
        log.error(
            "error: %s made no progress for %.3g minutes (compute.hang_minutes): it hangs, and "
            "this job ends. What it wrote is kept; run again to resume. It hangs here:",
            self.work,
            idle / 60,
        )
        faulthandler.dump_traceback(STDERR, all_threads=True)
        sys.stderr.flush()
        os._exit(STATUS)
