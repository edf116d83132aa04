"""A finished miniature run to experiment on: what an experiment gives is compared with it."""

import pickle
import re
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.rule_commands import TINY, Command, add_experiment, of, planned_commands
from tests.support.script_processes import HEAVY, Done, ScriptProcesses, processes

RUN = Path("results/tiny")


@dataclass
class FinishedRun:
    """The undisturbed run, its commands, and how long each one took."""

    folder: Path
    commands: list[Command]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def build(cls, folder: Path, overlay: str, wanted: Callable[[Command], bool]) -> "FinishedRun":
        """Run the rules' own commands that are wanted, once, and keep what is known of them."""
        add_experiment(folder, "tiny", TINY, overlay)
        run = cls(folder, planned_commands(folder, "--config", "experiment=tiny"))
        for command in filter(wanted, run.commands):
            start = time.monotonic()
            run.complete(command, folder)
            run.seconds[command.log] = time.monotonic() - start
        (folder / "run.pickle").write_bytes(pickle.dumps(run))
        return run

    @staticmethod
    def load(folder: Path) -> "FinishedRun":
        """A run that `build` has left in a folder."""
        run = pickle.loads((folder / "run.pickle").read_bytes())
        return replace(run, folder=folder)

    @property
    def processes(self) -> ScriptProcesses:
        """What starts its commands."""
        return processes(HEAVY)

    def command(self, script: str, part: str = "") -> Command:
        return of(self.commands, script, part)

    def run(self, command: Command, folder: Path, **options: Any) -> Done:
        return self.processes.run(command.script, command.arguments, folder, **options)

    def complete(self, command: Command, folder: Path, **options: Any) -> Done:
        """Run a command that must succeed."""
        done = self.run(command, folder, **options)
        assert done.code == 0, done.output
        return done

    def copy(self, folder: Path, *, without: Collection[Command] = ()) -> Path:
        """A copy of the run in which these commands are still to be run."""
        for part in (RUN, Path("results/published")):
            shutil.copytree(self.folder / part, folder / part, dirs_exist_ok=True)
        for command in without:
            remove(command, folder)
        return folder

    def same(self, command: Command, folder: Path) -> int:
        """Bytes of a command's artefacts, once they are known to be the undisturbed run's."""
        count = 0
        for artefact in artefacts(command):
            expected = contents(self.folder / artefact)
            assert contents(folder / artefact) == expected, artefact
            count += sum(map(len, expected.values()))
        return count


def artefacts(command: Command) -> list[Path]:
    """What a command writes: the values of its flags that begin with --output."""
    return [
        Path(value)
        for option, value in pairwise(command.arguments)
        if re.fullmatch(r"--output(-[a-z0-9-]+)?", option)
    ]


def remove(command: Command, folder: Path) -> None:
    """Delete what a command has written."""
    for artefact in artefacts(command):
        path = folder / artefact
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".meta.json").unlink(missing_ok=True)


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of a folder's files by name."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}
