"""`snakemake --logger dpa`: one line per finished job, and the end of the log of one that failed.

     1:23  14/73  9 min left       Training the SFT policy (41 s)

In a terminal a last line shows what runs, with the progress that its log states; in a file such a
line is written once for a job that takes longer than a minute. Where details are asked for (-n, -p,
--quiet, --verbose, --debug-dag) the output is Snakemake's own, and its whole log is always in
.snakemake/log/. profiles/default turns this on.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from logging import WARNING, Handler
from pathlib import Path
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from dpa.runtime.log import clock, spoken_duration, visible

#: Characters of a line in a file: with the two that a long job has, less than 200.
WIDTH = 98
#: Seconds between two looks at what runs, and until a job is long.
TICK, LONG = 1.0, 60.0
#: Lines shown of a failed job's log if none is an error message.
LAST_LINES = 10
#: Messages of Snakemake's that are left out before the run, and that are shown during it.
BEFORE = "Assuming unrestricted shared filesystem usage"
DURING = ("Nothing to be done", "Terminating processes", "Will exit after finishing")
#: How a command ended, without the command.
ENDED = re.compile(r"Command '.*' (returned non-zero exit status (\d+)|died with .*)\.", re.DOTALL)
#: What `dpa.runtime.log.Progress` writes.
PROGRESS = re.compile(r", (\d+ %(?:, [^,\n]+ left)?)")


@dataclass
class Job:
    """A job that was started, or submitted: seconds are the monotonic clock's, times the wall's."""

    rule: str
    does: str
    logs: list[Path]
    start: float
    start_time: float
    announced: bool = False

    def progress(self) -> str | None:
        """How far it is by the last line of progress in its log."""
        found = PROGRESS.findall(tail(self.logs, self.start_time))
        return found[-1] if found else None


def tail(logs: list[Path], since: float = 0.0, size: int = 8192) -> str:
    """The end of the first of some logs that has been written to since a time."""
    for path in logs:
        try:
            with open(path, "rb") as file:
                whole = os.fstat(file.fileno())
                if whole.st_size and whole.st_mtime >= since:
                    file.seek(max(0, whole.st_size - size))
                    return visible(file.read().decode(errors="replace"))
        except OSError:
            continue
    return ""


def last_lines(logs: list[Path]) -> list[str]:
    """The script's error message, with what follows it; otherwise the last lines of the log."""
    lines = tail(logs).splitlines()
    errors = [n for n, line in enumerate(lines) if re.match(r"(\[\w+\] )?error: ", line)]
    return lines[errors[-1] :] if errors else lines[-LAST_LINES:]


class LogHandler(LogHandlerBase):
    """Writes the lines; records come from one thread, looks at what runs from another."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.stream = sys.stdout if settings.stdout else sys.stderr
        self.terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.details = snakemakes_own(settings, self.stream)
        self.executing = False
        self.start = time.monotonic()
        self.total = 0
        self.waiting: Counter[str] = Counter()  # jobs that are not done, by rule
        self.running: dict[int, Job] = {}
        self.failed: dict[int, str] = {}  # what they do, by number
        self.took: dict[str, list[float]] = defaultdict(list)  # seconds of those that are, by rule
        self.ended = threading.Event()

    def emit(self, record: Any) -> None:
        try:
            if self.details is not None:
                self.details.handle(record)
            else:
                self.say(record)
        except Exception:
            self.handleError(record)

    def say(self, record: Any) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            self.executing = True
        elif event == LogEvent.RUN_INFO:
            self.waiting = Counter(record.stats)
            self.total = self.waiting.pop("total")
            threading.Thread(target=self.watch, daemon=True).start()
        elif event == LogEvent.JOB_INFO:
            self.running[record.jobid] = Job(
                record.rule_name,
                described(record),
                [Path(path) for path in record.log],
                time.monotonic(),
                time.time(),
            )
        elif event == LogEvent.JOB_FINISHED:
            self.finish(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self.fail(record)
        elif event in (None, LogEvent.ERROR, LogEvent.GROUP_ERROR):
            self.quote(record)

    def quote(self, record: Any) -> None:
        """A message: of Snakemake's own while it executes, those that warn and a few others."""
        text = record.getMessage()
        if restarted := re.match(r"Trying to restart job (\d+)", text):
            self.write(self.line(f"starting again: {self.failed.get(int(restarted[1]), text)}"))
        elif ended := ENDED.search(text):  # the job and its log come next
            if ended[2] not in ("1", "2"):  # which scripts that say why end with
                self.write(f"A job's command {ended[1]}")
        elif (
            record.levelno >= WARNING
            or hasattr(record, "dpa")
            or (text.startswith(DURING) if self.executing else not text.startswith(BEFORE))
        ):
            self.write(text)

    def finish(self, number: int) -> None:
        if (job := self.running.pop(number, None)) is None:  # of another Snakemake, in a group
            return
        took = time.monotonic() - job.start
        self.waiting[job.rule] -= 1
        self.took[job.rule].append(took)
        elapsed = time.monotonic() - self.start
        left = self.left(elapsed) if self.waiting.total() else None
        told = "" if left is None else f"{spoken_duration(left)} left"
        self.write(self.line(f"{told:<15}  {job.does}", f" ({spoken_duration(took)})"))

    def fail(self, record: Any) -> None:
        job = self.running.pop(record.jobid, None)
        logs = [Path(path) for path in record.log]
        said = [record.rule_msg, *last_lines(logs), *(f"log: {path}" for path in logs)]
        self.failed[record.jobid] = job.does if job else record.rule_name
        self.write(self.line(f"FAILED: {self.failed[record.jobid]}"))
        self.write("\n".join(f"    {line}" for line in said if line))

    def line(self, text: str, after: str = "", width: int = WIDTH) -> str:
        """With the elapsed time and jobs done of all; the text is shortened to the width."""
        done = self.total - self.waiting.total()
        before = f"{clock(time.monotonic() - self.start):>7}  {done:>{len(str(self.total))}}"
        before += f"/{self.total}  "
        room = max(width - len(before) - len(after), 0)
        text = text if len(text) <= room else text[: max(room - 1, 0)] + "…"
        return (before + text + after)[:width]

    def left(self, elapsed: float) -> float | None:
        """Seconds left: what waits takes what jobs of its rule took, or the average job, with as
        many at a time as so far. None while too little is known."""
        done = [seconds for of_rule in self.took.values() for seconds in of_rule]
        if len(done) < 3 or elapsed < 10:
            return None
        average = sum(done) / len(done)
        usual = {
            rule: sum(self.took[rule]) / len(self.took[rule]) if self.took[rule] else average
            for rule in self.waiting
        }
        now = time.monotonic()
        spent = [(now - job.start, usual.get(job.rule, average)) for job in self.running.values()]
        work = sum(count * usual[rule] for rule, count in self.waiting.items())
        work -= sum(min(seconds, whole) for seconds, whole in spent)
        at_a_time = (sum(done) + sum(seconds for seconds, _ in spent)) / elapsed
        return work / max(at_a_time, 1.0)

    def watch(self) -> None:
        """Until the run ends: what runs now, in the last line of a terminal or once in a file."""
        while not self.ended.wait(TICK):
            self.acquire()
            try:
                self.show() if self.terminal else self.announce()
            finally:
                self.release()

    def show(self) -> None:
        jobs = [(job, job.progress()) for job in self.running.values()]
        if not jobs:
            return
        job, progress = next(((j, p) for j, p in jobs if p), jobs[0])
        after = f": {progress}" if progress else " ..."
        if len(jobs) > 1:
            after += f" (and {len(jobs) - 1} more)"
        columns = shutil.get_terminal_size().columns - 1
        self.stream.write(f"\r{self.line(job.does, after, columns)}\x1b[K")
        self.stream.flush()

    def announce(self) -> None:
        for job in self.running.values():
            if job.announced or time.monotonic() - job.start < LONG:
                continue
            if "left" in (progress := job.progress() or ""):
                job.announced = True
                self.write(self.line(job.does, f": {progress}"))

    def write(self, text: str) -> None:
        """Whole lines, in place of the one that shows what runs."""
        self.stream.write(("\r\x1b[K" if self.terminal else "") + text.rstrip() + "\n")
        self.stream.flush()

    def close(self) -> None:
        self.ended.set()
        if self.terminal and self.details is None and self.total:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        super().close()


def described(record: Any) -> str:
    """What a job does: the rule's message, with the seed where there are several."""
    run, _, seed = str(record.wildcards.get("experiment", "")).partition("/")
    return (record.rule_msg or record.rule_name) + (f", {seed}" if run and seed else "")


def snakemakes_own(settings: Any, stream: TextIO) -> Handler | None:
    """Snakemake's handler where its details are asked for; None otherwise."""
    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
    from snakemake.settings.enums import Quietness

    asked = settings.dryrun, settings.printshellcmds, settings.verbose, settings.debug_dag
    if not any(asked) and set(settings.quiet or ()) <= {Quietness.HOST}:  # the profile's
        return None

    return ColorizingTextHandler(
        nocolor=settings.nocolor,
        stream=stream,
        formatter=DefaultFormatter(settings.quiet, settings.show_failed_logs),
        filter=DefaultFilter(
            settings.quiet,
            settings.debug_dag,
            settings.verbose,
            settings.dryrun,
            settings.printshellcmds,
        ),
    )
