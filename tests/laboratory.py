"""A finished miniature run to experiment on: what an experiment gives is compared with it."""

import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.forkserver import HEAVY, Done, ForkServer
from tests.stages import TINY, Command, add_experiment, of, planned_commands

RUN = Path("results/tiny")

#: Options that name what a script writes, where that is not --output alone.
WRITTEN = {
    "evaluate_soup": ("sampled", "scored"),
    "evaluate_policy": ("sampled", "scored"),
    "plot_pareto_front": ("output-dir",),
}


@dataclass
class Laboratory:
    """The undisturbed run, its commands, and how long each one took."""

    folder: Path
    commands: list[Command]
    server: ForkServer
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def build(cls, folder: Path, overlay: str, scripts: Collection[str]) -> "Laboratory":
        """Run the rules' own commands of these scripts, once."""
        add_experiment(folder, "tiny", TINY, overlay)
        commands = planned_commands(folder, "--config", "experiment=tiny")
        laboratory = cls(folder, commands, ForkServer(HEAVY))
        for command in commands:
            if command.script in scripts:
                start = time.monotonic()
                laboratory.complete(command, folder)
                laboratory.seconds[command.log] = time.monotonic() - start
        return laboratory

    def command(self, script: str, part: str = "") -> Command:
        return of(self.commands, script, part)

    def run(self, command: Command, folder: Path, **options: Any) -> Done:
        return self.server.run(command.script, command.arguments, folder, **options)

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
    """What a command writes; some scripts take --output several times."""
    names = WRITTEN.get(command.script, ("output",))
    return [
        Path(value)
        for name in names
        for option, value in zip(command.arguments, command.arguments[1:], strict=False)
        if option == f"--{name}"
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
