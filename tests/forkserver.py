"""Scripts as real processes that start in milliseconds.

A server imports what scripts need, once, and forks a child for each script that it is asked to run.
The child is a process of its own: it can be killed, limited in what it may write, and leaves its
output and exit status behind as the command of a rule does.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: What every script imports before it does anything, and what scripts that load models import.
LIGHT = ("dpa.runtime.cli", "dpa.config.load", "dpa.artefacts.sidecars", "dpa.records")
HEAVY = (
    *LIGHT,
    "dpa.generation.transformers_engine",
    "dpa.reward.transformers_scorer",
    "dpa.methods.sft",
    "trl",
    "datasets",
)


@dataclass
class Done:
    """A script that has ended: `code` is negative for a signal, as in subprocess."""

    code: int
    output: str
    imported: set[str] = field(default_factory=set)


@dataclass
class Job:
    """A running script."""

    server: "ForkServer"
    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended by itself gets none."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 120) -> Done:
        """The ended script. Raises TimeoutError (and kills it) when it does not end."""
        answer = self.server.ask({"wait": self.pid, "timeout": timeout})
        if answer["code"] is None:
            self.kill()
            self.server.ask({"wait": self.pid, "timeout": 10})
            raise TimeoutError(f"{self.log}: still running after {timeout} s")
        report = self.log.with_suffix(".modules")
        imported = set(report.read_text().split()) if report.exists() else set()
        return Done(answer["code"], self.log.read_text(errors="replace"), imported)


class ForkServer:
    """Starts scripts from a process that has imported `preload`."""

    def __init__(self, preload: Iterable[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", *preload],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.jobs = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        script: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        environment: dict[str, str] | None = None,
        file_size: int | None = None,
        fault: str | None = None,
    ) -> Job:
        """Start `python -m scripts.<script> <arguments>` in a folder.

        `file_size` limits the bytes of every file that it writes (as a full disk would); `fault`
        is `module:function`, called in the process before the script runs.
        """
        self.jobs += 1
        log = folder / f".job{self.jobs}.log"
        request = {
            "script": script, "arguments": list(map(str, arguments)), "folder": str(folder),
            "log": str(log), "environment": environment or {}, "file_size": file_size,
            "fault": fault,
        }  # fmt: skip
        job = Job(self, self.ask(request)["pid"], log)
        while not log.exists():  # the process is on its way to the script
            time.sleep(0.001)
        return job

    def run(self, script: str, arguments: Sequence[str], folder: Path, **options: Any) -> Done:
        """Run a script to its end."""
        return self.start(script, arguments, folder, **options).wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# --- The server's side -----------------------------------------------------------------------


def _child(request: dict[str, Any]) -> int:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.argv = [f"scripts/{request['script']}.py", *request["arguments"]]
    if request["fault"]:
        module, _, name = request["fault"].partition(":")
        getattr(importlib.import_module(module), name)()
    app = importlib.import_module(f"scripts.{request['script']}").app
    from dpa.runtime.cli import run

    if request["file_size"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does: an OSError instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], request["file_size"]))
    try:
        run(app)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _child(request)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
        sys.stdout.flush()
        sys.stderr.flush()
        report = Path(request["log"]).with_suffix(".modules")
        try:
            report.write_text(" ".join(name for name in sys.modules if "." not in name))
        finally:
            os._exit(code)


def _wait(pid: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    return None


def serve(preload: Iterable[str]) -> None:
    """Answer requests, one JSON line each, until standard input ends."""
    for name in preload:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer: dict[str, Any] = {"code": _wait(request["wait"], request["timeout"])}
        else:
            answer = {"pid": _fork(request)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
