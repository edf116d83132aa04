"""A finished miniature run to break, and the numbers that the suite ends with."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.forkserver import HEAVY, Done, ForkServer
from tests.stages import FRONT, METHOD, TINY, Command, add_experiment, of, planned_commands

RUN = Path("results/tiny")
#: Four chunks of sampling in each shard. Reward Soup needs the experts of RSF.
OVERLAY = """
methods: [dpa, sft, rsf, reward_soup]
sampling: {prompts_per_chunk: 1}
"""


@dataclass
class Laboratory:
    """The undisturbed run, its commands, and how long each one took."""

    folder: Path
    commands: list[Command]
    server: ForkServer
    seconds: dict[str, float] = field(default_factory=dict)

    def command(self, script: str, part: str = "") -> Command:
        return of(self.commands, script, part)

    def run(self, command: Command, folder: Path, **options) -> Done:
        return self.server.run(command.script, command.arguments, folder, **options)

    def copy(self, folder: Path, *, without: list[Command]) -> Path:
        """A copy of the run in which these commands are still to be run."""
        shutil.copytree(self.folder / RUN, folder / RUN)
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


#: Options that name what a script writes.
WRITTEN = {
    "evaluate_soup": ("sampled", "scored"),
    "collect_validation_rewards": ("output",),
    "evaluate_policy": ("sampled", "scored"),
}


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
    for artefact in artefacts(command):
        path = folder / artefact
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".meta.json").unlink(missing_ok=True)


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of a folder's files by name."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Iterator[Laboratory]:
    """The undisturbed run: every rule's own command, once."""
    folder = add_experiment(tmp_path_factory.mktemp("undisturbed"), "tiny", TINY, OVERLAY)
    commands = planned_commands(folder, "--config", "experiment=tiny")
    laboratory = Laboratory(folder, commands, ForkServer(HEAVY))
    for command in commands:
        if command.script not in (*METHOD, *FRONT):
            continue
        start = time.monotonic()
        done = laboratory.run(command, folder)
        assert done.code == 0, done.output
        laboratory.seconds[command.log] = time.monotonic() - start
    yield laboratory
    laboratory.server.close()


@pytest.fixture
def count(record_property) -> Callable[..., None]:
    """Add to the numbers that are printed at the end: `count(kills=1, bytes=123)`."""

    def add(**numbers: int) -> None:
        for name, number in numbers.items():
            record_property(f"faults:{name}", number)

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    total: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, number in report.user_properties:
            if str(name).startswith("faults:"):
                total[name.removeprefix("faults:")] += number
    if total:
        terminalreporter.write_line(
            f"kills survived: {total['kills']}, other faults: {total['faults']}, bytes compared: "
            f"{total['bytes']:,}, records lost: {total['lost']}"
        )
