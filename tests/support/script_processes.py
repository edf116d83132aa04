"""Scripts as processes that start in milliseconds, forked from one that has imported much.

Each is a process of its own: it can be killed, limited in what it may write, and leaves its output
and exit status behind as the command of a rule does.
"""

import importlib
import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

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

    process: ForkServerProcess
    log: Path

    def kill(self) -> None:
        """Send SIGKILL; a process that has ended by itself gets none."""
        self.process.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    def wait(self, timeout: float = 120) -> Done:
        """The ended script. Raises TimeoutError (and kills it) when it does not end."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            self.process.join()
            raise TimeoutError(f"{self.log}: still running after {timeout} s")
        modules = self.log.with_suffix(".modules")
        imported = set(modules.read_text().split()) if modules.exists() else set()
        return Done(self.process.exitcode, self.log.read_text(errors="replace"), imported)


class ScriptProcesses:
    """Starts scripts from a process that has imported `preload`."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.server = forkserver.ForkServer()
        self.server.set_forkserver_preload([__name__, *preload])
        self.server.ensure_running()
        self.numbers = itertools.count()

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
        arguments = list(map(str, arguments))
        return self.call(
            folder, _run_script, script, arguments, environment or {}, file_size, fault
        )

    def run(self, script: str, arguments: Sequence[str], folder: Path, **options: Any) -> Done:
        """Run a script to its end."""
        return self.start(script, arguments, folder, **options).wait()

    def call(self, folder: Path, function: Callable[..., object], *arguments: Any) -> Job:
        """Call a function in a process of its own, which works in a folder and logs there."""
        log = folder / f".job{os.getpid()}-{next(self.numbers)}.log"
        process = get_context("forkserver").Process(
            target=_logged, args=(log, function, *arguments), daemon=True
        )
        # Two things that multiprocessing has no options for: another server than its only one
        # (what servers have imported differs), and children that do not import pytest.
        with (
            mock.patch.object(
                forkserver, "connect_to_new_process", self.server.connect_to_new_process
            ),
            mock.patch.dict(sys.modules, __main__=ModuleType("__main__")),
        ):
            process.start()
        while not log.exists() and process.is_alive():  # it is on its way to the function
            time.sleep(0.001)
        return Job(process, log)


@cache
def processes(preload: tuple[str, ...]) -> ScriptProcesses:
    """The test process's own, which end with it."""
    return ScriptProcesses(preload)


def _logged(log: Path, function: Callable[..., object], *arguments: Any) -> None:
    """What the forked process does."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(log.parent)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        function(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        modules = " ".join(name for name in sys.modules if "." not in name)
        log.with_suffix(".modules").write_text(modules)


def _run_script(
    script: str,
    arguments: list[str],
    environment: dict[str, str],
    file_size: int | None,
    fault: str | None,
) -> None:
    os.environ.update(environment)
    sys.argv = [f"scripts/{script}.py", *arguments]
    if fault:
        module, _, name = fault.partition(":")
        getattr(importlib.import_module(module), name)()
    app = importlib.import_module(f"scripts.{script}").app
    from dpa.runtime.cli import run_app

    if file_size is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, most))
    run_app(app)
